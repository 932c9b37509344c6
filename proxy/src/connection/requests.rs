//! Client -> home broker: reads frame heads, opens exchanges, passes the bytes on.

use std::future::poll_fn;
use std::task::Poll;

use protocol_ext::api::{self, Answer as Treatment};
use protocol_ext::header::Head;
use protocol_ext::schema::Message;
use protocol_ext::wire::{Reader, WireError};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::frames::{PREFIX_BYTES, length_at};
use super::handle::Handle;
use super::queue::{Answer, Exchange, Queue};
use crate::buffer::Buffer;
use crate::clock;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::metrics::{Class, Direction, Side};

/// Why no more requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEnd {
    /// The client closed its side.
    HungUp,
    /// The process drains.
    Drained,
}

/// The pump of one connection's requests.
pub struct Requests<'a> {
    plane: &'a DataPlane,
    queue: &'a Queue,
    handle: &'a Handle,
    input: Buffer,
    from_client: ReadHalf<'a>,
    to_home: WriteHalf<'a>,
    /// Bytes of the current request that are still to come.
    passing: usize,
}

/// What stands at the front of the input.
enum Front {
    /// So many bytes can go on.
    Pass(usize),
    /// A head, or what must be read of a request, is not complete.
    More,
    /// The queue is full.
    Full,
}

impl<'a> Requests<'a> {
    pub fn new(
        plane: &'a DataPlane,
        queue: &'a Queue,
        handle: &'a Handle,
        input: Buffer,
        from_client: ReadHalf<'a>,
        to_home: WriteHalf<'a>,
    ) -> Self {
        plane.metrics.bytes(Direction::FromClient, input.len());
        Self { plane, queue, handle, input, from_client, to_home, passing: 0 }
    }

    /// Runs until the client stops asking.
    pub async fn pump(mut self) -> Result<RequestEnd, ConnectionError> {
        loop {
            match self.front()? {
                Front::Pass(n) => self.pass(n).await?,
                Front::Full => self.room().await,
                Front::More => match self.more().await? {
                    Some(RequestEnd::HungUp) => {
                        // A broker that is gone makes this fail; the responses tell.
                        let _ = self.to_home.shutdown().await;
                        return Ok(RequestEnd::HungUp);
                    }
                    Some(end) => return Ok(end),
                    None => {}
                },
            }
        }
    }

    /// Opens the exchanges whose heads are in the input.
    fn front(&mut self) -> Result<Front, ConnectionError> {
        let mut at = 0;
        loop {
            let held = self.passing.min(self.input.len() - at);
            at += held;
            self.passing -= held;
            if self.passing > 0 || self.input.len() - at < PREFIX_BYTES {
                break;
            }
            if self.handle.is_draining() {
                break;
            }
            if !self.queue.has_room() {
                return Ok(if at == 0 { Front::Full } else { Front::Pass(at) });
            }
            match self.open(at)? {
                Some(frame_bytes) => self.passing = 4 + frame_bytes,
                None => break,
            }
        }
        Ok(if at == 0 { Front::More } else { Front::Pass(at) })
    }

    /// Opens the exchange whose head stands at `at`; `None` if more of it must be read first.
    fn open(&self, at: usize) -> Result<Option<usize>, ConnectionError> {
        let bytes = &self.input.bytes()[at..];
        let length = length_at(bytes);
        let limit = self.plane.limits.frame_bytes_max;
        let frame_bytes = usize::try_from(length).unwrap_or(0);
        if frame_bytes < PREFIX_BYTES - 4 || frame_bytes > limit {
            super::frames::check_protocol(bytes)?;
            return Err(ConnectionError::FrameLength { length, limit });
        }
        let head = Head::parse(&bytes[4..]).map_err(|error| request_error(-1, error))?;
        if !api::is_servable(head.api, head.version) {
            let name = api::name(head.api);
            let Head { api, version, .. } = head;
            return Err(ConnectionError::NotOffered { name, api, version });
        }
        let (answer, class) = treatment(head);
        if head.api == api::PRODUCE {
            match acks(head, &bytes[4..], frame_bytes) {
                Ok(Some(0)) => {
                    self.plane.metrics.request(head.api, Class::Peek);
                    return Ok(Some(frame_bytes));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(request_error(head.api, error)),
            }
        }
        self.plane.metrics.request(head.api, class);
        let Head { api, version, correlation } = head;
        self.queue.push(Exchange { api, version, correlation, answer, at: clock::now() });
        Ok(Some(frame_bytes))
    }

    async fn pass(&mut self, n: usize) -> Result<(), ConnectionError> {
        let written = self.input.pass(n, &mut self.to_home).await;
        let waited = written.map_err(ConnectionError::BrokerIo)?;
        if let Some(waited) = waited {
            self.plane.metrics.paused(Side::Client, waited);
        }
        self.plane.metrics.bytes(Direction::ToBroker, n);
        Ok(())
    }

    /// Waits until the queue has room; the join polls again when it has.
    async fn room(&self) {
        let queue = self.queue;
        poll_fn(|_| if queue.has_room() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Reads more; `Some` if no more requests will come.
    async fn more(&mut self) -> Result<Option<RequestEnd>, ConnectionError> {
        let between = self.passing == 0;
        if between && self.handle.is_draining() {
            return Ok(Some(RequestEnd::Drained));
        }
        let fill = self.input.fill(&mut self.from_client);
        let read = if between {
            tokio::select! {
                biased;
                read = fill => read,
                () = self.handle.drained() => return Ok(Some(RequestEnd::Drained)),
            }
        } else {
            fill.await
        };
        match read.map_err(ConnectionError::ClientIo)? {
            0 => Ok(Some(RequestEnd::HungUp)),
            n => {
                self.plane.metrics.bytes(Direction::FromClient, n);
                Ok(None)
            }
        }
    }
}

fn request_error(key: i16, error: WireError) -> ConnectionError {
    ConnectionError::Request { name: api::name(key), error }
}

/// How the answer to a request is treated, and how deep that is.
fn treatment(head: Head) -> (Answer, Class) {
    match api::get(head.api).map(|api| api.answer) {
        Some(Treatment::Patch(message)) => (Answer::Patch(message), Class::Patch),
        Some(Treatment::Versions) => (Answer::Versions, Class::Patch),
        Some(Treatment::Tail(message)) if has_tail(message, head.version) => {
            (Answer::Tail(message), Class::Patch)
        }
        Some(Treatment::Tail(_)) => (Answer::Opaque, Class::Peek),
        Some(Treatment::Opaque | Treatment::OpaqueUpTo(_) | Treatment::Hidden) | None => {
            (Answer::Opaque, Class::Opaque)
        }
    }
}

fn has_tail(message: &Message, version: i16) -> bool {
    let endpoints = message.fields.iter().find(|f| f.name == protocol_ext::scan::ENDPOINTS);
    endpoints.is_some_and(|f| version >= f.since)
}

/// The acks of a Produce request; `None` if more of the frame must be read.
fn acks(head: Head, held: &[u8], frame_bytes: usize) -> Result<Option<i16>, WireError> {
    let frame = &held[..held.len().min(frame_bytes)];
    let read = || {
        let at = protocol_ext::header::request_body_at(head, frame)?;
        let mut read = Reader::new(frame, at);
        if head.version >= 3 {
            read.bytes(api::is_flexible(head.api, head.version), false)?;
        }
        read.i16()
    };
    match read() {
        Ok(acks) => Ok(Some(acks)),
        // A length that does not fit what is held may fit what is still to come.
        Err(_) if frame.len() < frame_bytes && frame.len() < PEEK_BYTES_MAX => Ok(None),
        Err(error) => Err(error),
    }
}

/// Within so many bytes every field before the records of a request must end.
const PEEK_BYTES_MAX: usize = crate::limits::IO_BUFFER_BYTES - 4;
