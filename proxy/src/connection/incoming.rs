//! What a client sends: its bytes as they come, and requests that are held whole.
//!
//! While a Produce request is with its legs the next one is read ahead, if it will be held whole
//! too: input -> head -> a frame of its own -> its turn. Invariants: at most one frame, and only
//! the one that stands at the front of the input; its room is never waited for; nothing is decided
//! about it before its turn, when it is treated as if it were read then.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use protocol_ext::header::Head;

use super::forced;
use super::frames::gather_into;
use super::handle::Handle;
use super::rules::{Ahead, Rules};
use crate::budget::Room;
use crate::buffer::Buffer;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::fault;
use crate::metrics::Direction;
use crate::stream::ReadHalf;

/// The side of a connection that its client sends on.
pub struct Incoming<'a> {
    plane: &'a DataPlane,
    handle: &'a Handle,
    /// Bytes of requests whose turn has not come.
    pub input: Buffer,
    from: ReadHalf<'a>,
    next: Option<Next>,
    /// What the last read gave while reading ahead, if nothing comes any more.
    end: Option<io::Result<usize>>,
}

/// The next request, while it is read into a frame of its own. It stands before the input.
pub struct Next {
    pub head: Head,
    pub frame_bytes: usize,
    frame: BytesMut,
    /// Room for it, if it was begun before its turn.
    room: Option<Room>,
}

impl Next {
    /// The bytes that are there, behind the length.
    pub fn held(&self) -> &[u8] {
        &self.frame
    }
}

impl<'a> Incoming<'a> {
    pub fn new(
        plane: &'a DataPlane,
        handle: &'a Handle,
        input: Buffer,
        from: ReadHalf<'a>,
    ) -> Self {
        Self { plane, handle, input, from, next: None, end: None }
    }

    /// The request that was begun before its turn.
    pub fn ahead(&self) -> Option<&Next> {
        self.next.as_ref()
    }

    /// Reads more into the input, of whose last request so many bytes are still to come, 0 between
    /// two; gives 0 at the end.
    pub async fn fill(&mut self, left: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, left)).await
    }

    /// The same, polled.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<io::Result<usize>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        let n = ready!(self.input.poll_fill(cx, &mut self.from, left))?;
        if n > 0 {
            self.handle.received(n);
            self.plane.metrics.bytes(Direction::FromClient, n);
        }
        Poll::Ready(Ok(n))
    }

    /// Room for the next request, of so many bytes: what it has, or some if there is some now.
    pub fn try_take(&mut self, frame_bytes: usize) -> Option<Room> {
        let Some(next) = &mut self.next else {
            return self.plane.requests.try_take(frame_bytes);
        };
        let mut room = next.room.take();
        room.iter_mut().for_each(|room| room.awaits_peer(true));
        room
    }

    /// The same, waited for.
    pub async fn take(&mut self, frame_bytes: usize) -> Option<Room> {
        match self.try_take(frame_bytes) {
            None if self.next.is_none() => self.plane.requests.take(frame_bytes).await,
            room => room,
        }
    }

    /// The next request, whole: `frame_bytes` bytes behind its length, for which there is room.
    pub async fn gathered(
        &mut self,
        head: Head,
        frame_bytes: usize,
    ) -> Result<Bytes, ConnectionError> {
        if self.next.is_none() || fault::on("ahead-read-again") {
            self.begin(head, frame_bytes, None);
        }
        let read = match self.end.take() {
            Some(Err(error)) if fault::on("ahead-end-blamed") => {
                return Err(ConnectionError::Filter(error.to_string()));
            }
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => self.read_on().await,
        };
        read.map_err(ConnectionError::ClientIo)?;
        let frame = self.next.take().map(|next| next.frame.freeze()).unwrap_or_default();
        forced::request(head, frame)
    }

    /// Does `work` for the request before, and reads the next one meanwhile, if it is one for
    /// Produce that will be held whole.
    pub async fn beside<T>(&mut self, rules: Rules<'_>, work: impl Future<Output = T>) -> T {
        if fault::on("ahead-read-at-its-turn") {
            return work.await;
        }
        let reads = async {
            self.read_ahead(rules).await;
            pending().await
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            never = reads => never,
        };
        self.rest();
        done
    }

    /// May be dropped at any time, and called again.
    async fn read_ahead(&mut self, rules: Rules<'_>) {
        while self.next.is_none() && self.end.is_none() && !self.handle.is_draining() {
            match rules.ahead(self.input.bytes()) {
                Ahead::Whole(head, frame_bytes) => {
                    // Room that is waited for could be what the request before holds.
                    let mut room = self.plane.requests.try_take(frame_bytes);
                    if room.is_none() && !fault::on("ahead-buffers-unbounded") {
                        return;
                    }
                    // Who is to blame for it is told apart.
                    room.iter_mut().for_each(|room| room.awaits_peer(false));
                    self.begin(head, frame_bytes, room);
                    // What the client took for the request before is not counted.
                    self.handle.waits(true);
                }
                Ahead::Unknown => match self.fill(0).await {
                    Ok(1..) => {}
                    end => self.end = Some(end),
                },
                Ahead::Other => return,
            }
        }
        if let Some(next) = &self.next
            && self.end.is_none()
        {
            self.handle.reads_ahead(next.frame_bytes);
            self.end = self.read_on().await.err().map(Err);
            self.rest();
        }
    }

    /// The client is not waited for, for now.
    fn rest(&mut self) {
        if self.next.is_some() {
            self.handle.received(0);
            self.handle.reads_ahead(0);
        }
    }

    fn begin(&mut self, head: Head, frame_bytes: usize, room: Option<Room>) {
        self.input.consume(4);
        let frame = BytesMut::with_capacity(frame_bytes);
        self.next = Some(Next { head, frame_bytes, frame, room });
    }

    /// Reads the next request to its end, and tells whether the client is waited for.
    async fn read_on(&mut self) -> io::Result<()> {
        let Some(Next { frame, frame_bytes, .. }) = &mut self.next else { return Ok(()) };
        let (handle, metrics) = (self.handle, &self.plane.metrics);
        if frame.len() + self.input.len() < *frame_bytes {
            handle.waits(false);
        }
        let read = |n| {
            handle.received(n);
            handle.waits(false);
            metrics.bytes(Direction::FromClient, n);
        };
        gather_into(frame, &mut self.input, &mut self.from, *frame_bytes, read).await?;
        handle.received(0);
        Ok(())
    }
}
