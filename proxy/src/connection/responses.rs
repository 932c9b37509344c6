//! Home broker -> client: closes exchanges in order, patches addresses, passes the rest.

mod restored;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol_ext::address::Rewrite;
use protocol_ext::batch::HEADER_BYTES;
use protocol_ext::reference::REFERENCE_BYTES;
use protocol_ext::scan::{Scan, Scanned, is_plain_produced};
use protocol_ext::schema::Message;
use protocol_ext::schema::responses::SHARE_FETCH;
use protocol_ext::wire::WireError;
use protocol_ext::{api, header, tail, versions, walk};

use super::apart;
use super::forced;
use super::frames::{framed, gather, length_at};
use super::handle::Handle;
use super::queue::{Answer, Exchange, Owed, Queue};
use crate::buffer::Buffer;
use crate::clock;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::fault::{self, Forced};
use crate::limits::{
    IO_BUFFER_BYTES, PATCHED_RESPONSE_BYTES_MAX, TAIL_BYTES_MAX, WHOLE_TAIL_BYTES_MAX,
};
use crate::metrics::{Direction, Side};
use crate::route::addresses::Directory;
use crate::route::legs::{metadata, produce};
use crate::stream::chain::write_chain_telling;
use crate::stream::{ReadHalf, WriteHalf};

/// Length and correlation id.
const PREFIX_BYTES: usize = 8;

/// Shorter pieces of a streamed response are not worth a call of the kernel, nor a client's while.
const PIECE_BYTES_MIN: usize = 8 * 1024;

/// A shorter Fetch response cannot hold a reference in a batch.
const REFERRING_BYTES_MIN: usize = HEADER_BYTES + REFERENCE_BYTES;

/// The pump of one connection's responses.
pub struct Responses<'a> {
    plane: &'a DataPlane,
    queue: &'a Queue,
    handle: &'a Handle,
    output: Buffer,
    from_home: ReadHalf<'a>,
    to_client: WriteHalf<'a>,
    /// Bytes of opaque responses that are still to come.
    passing: usize,
    /// The broker closed between answers while one is made here.
    home_left: bool,
}

/// What to do next.
enum Next {
    /// Nothing more is owed.
    Done,
    /// The oldest exchange is answered here.
    Local,
    /// Bytes came from the broker.
    Read,
}

impl<'a> Responses<'a> {
    pub fn new(
        plane: &'a DataPlane,
        queue: &'a Queue,
        handle: &'a Handle,
        from_home: ReadHalf<'a>,
        to_client: WriteHalf<'a>,
    ) -> Self {
        let output = Buffer::new(&plane.pool);
        Self { plane, queue, handle, output, from_home, to_client, passing: 0, home_left: false }
    }

    /// Runs until the broker closes, or nothing more is owed.
    pub async fn pump(&mut self) -> Result<(), ConnectionError> {
        loop {
            let (n, special) = self.front()?;
            if n > 0 {
                let written = self.output.pass(n, &mut self.to_client).await;
                self.passed(n, written)?;
            }
            if let Some((exchange, frame_bytes)) = special {
                apart(|| self.special(exchange, frame_bytes)).await?;
                self.queue.answered();
                continue;
            }
            match self.next().await? {
                Next::Done => return Ok(()),
                Next::Local => {
                    apart(|| self.local()).await?;
                    self.queue.answered();
                }
                Next::Read => {}
            }
        }
    }

    /// Closes the opaque exchanges whose answers are in the output; gives the bytes that can go
    /// and the first exchange, behind them, that needs more than passing.
    #[inline(always)]
    fn front(&mut self) -> Result<(usize, Option<(Exchange, usize)>), ConnectionError> {
        let mut at = 0;
        loop {
            let held = self.passing.min(self.output.len() - at);
            at += held;
            self.passing -= held;
            if self.passing > 0 || self.output.len() - at < PREFIX_BYTES {
                return Ok((at, None));
            }
            if self.queue.front_is_local() {
                return Ok((at, None));
            }
            let exchange = self.queue.pop().ok_or(ConnectionError::Unasked)?;
            let bytes = &self.output.bytes()[at..];
            let (length, got) = (length_at(bytes), length_at(&bytes[4..]));
            if got != exchange.correlation {
                return Err(ConnectionError::Order { want: exchange.correlation, got });
            }
            let name = api::name(exchange.api);
            let limit = i32::MAX as usize;
            let frame_bytes = usize::try_from(length).ok().filter(|n| *n >= 4);
            let frame_bytes =
                frame_bytes.ok_or(ConnectionError::ResponseLength { name, length, limit })?;
            self.plane.metrics.answered(exchange.api, clock::now() - exchange.at);
            match exchange.answer {
                _ if fault::forced() != Forced::No && !passes(&exchange) => {
                    return Ok((at, Some((exchange, frame_bytes))));
                }
                Answer::Opaque => self.passing = 4 + frame_bytes,
                Answer::Tail(message)
                    if bytes.len() >= 4 + frame_bytes
                        && has_bare_tail(message, exchange.version, &bytes[4..4 + frame_bytes]) =>
                {
                    self.passing = 4 + frame_bytes;
                }
                _ => return Ok((at, Some((exchange, frame_bytes)))),
            }
        }
    }

    async fn special(&mut self, exchange: Exchange, n: usize) -> Result<(), ConnectionError> {
        let streams = matches!(exchange.answer, Answer::Tail(_));
        let _room = match n {
            n if streams || n <= IO_BUFFER_BYTES => None,
            n => self.plane.responses.take(n).await,
        };
        match exchange.answer {
            Answer::Tail(message) => self.tail(message, &exchange, n).await,
            Answer::Patch(message) => {
                let frame = self.whole(&exchange, n, PATCHED_RESPONSE_BYTES_MAX).await?;
                let of = (exchange.api, exchange.version);
                let patched = patched(message, of, &frame, &self.plane.directory);
                let patched = patched.map_err(|error| response_error(exchange.api, error))?;
                self.write_frame(patched).await
            }
            Answer::Versions => {
                let frame = self.whole(&exchange, n, PATCHED_RESPONSE_BYTES_MAX).await?;
                let limited = versions::limit(&frame, exchange.version, |key, min, max| {
                    self.plane.servable_range(key, min, max)
                });
                let limited = limited.map_err(|error| response_error(exchange.api, error))?;
                self.write_frame(limited).await
            }
            Answer::Restore(message, _) if n < REFERRING_BYTES_MIN => {
                self.tail(message, &exchange, n).await
            }
            Answer::Restore(message, wanted) => self.restored(message, &exchange, n, wanted).await,
            Answer::Shared(_) if n < REFERRING_BYTES_MIN => {
                self.tail(&SHARE_FETCH, &exchange, n).await
            }
            Answer::Shared(ref sharing) => self.shared(&exchange, n, sharing).await,
            Answer::Metadata(ref asked) => {
                let frame = self.whole(&exchange, n, PATCHED_RESPONSE_BYTES_MAX).await?;
                let Some(ways) = self.plane.ways() else {
                    return Err(ConnectionError::Filter("nothing is routed".to_owned()));
                };
                let merged = metadata::response(ways, exchange.version, &frame, asked);
                self.write_frame(merged.map_err(|e| response_error(exchange.api, e))?).await
            }
            Answer::Produced(told) => {
                let asked = Exchange { answer: Answer::Opaque, ..exchange };
                let frame = self.whole(&asked, n, PATCHED_RESPONSE_BYTES_MAX).await?;
                let joined = produce::joined(asked.version, &frame, told, &self.plane.directory);
                self.write_frame(joined.map_err(|e| response_error(asked.api, e))?).await
            }
            Answer::Opaque if fault::forced().holds() => {
                let frame = self.whole(&exchange, n, i32::MAX as usize).await?;
                self.write_frame(frame).await
            }
            Answer::Own(to) => {
                let asked = Exchange { answer: Answer::Opaque, ..exchange };
                let frame = self.whole(&asked, n, PATCHED_RESPONSE_BYTES_MAX).await?;
                // Whoever asked may be gone with the connection.
                let _ = to.send(frame);
                Ok(())
            }
            Answer::Opaque | Answer::Local(..) => {
                Err(ConnectionError::Filter("an answer of this kind is not special".to_owned()))
            }
        }
    }

    /// A response with addresses behind its records: whole if it is small, else streamed.
    async fn tail(
        &mut self,
        message: &'static Message,
        exchange: &Exchange,
        frame_bytes: usize,
    ) -> Result<(), ConnectionError> {
        let key = exchange.api;
        let scan = Scan::new(message, exchange.version, frame_bytes);
        let mut scan = scan.map_err(|error| response_error(key, error))?;
        if fault::forced().holds() {
            return self.whole_tail(message, exchange, frame_bytes).await;
        }
        let exact = frame_bytes <= WHOLE_TAIL_BYTES_MAX && fault::forced() == Forced::No;
        let mut before = 4;
        if exact {
            while self.output.len() < 4 + frame_bytes {
                self.read(0).await?;
            }
        }
        let tail_bytes = loop {
            let fed = scan.feed(&self.output.bytes()[before..]);
            match fed.map_err(|error| response_error(key, error))? {
                Scanned::More(n) => {
                    before += n;
                    // A few bytes wait for those behind them: nobody can do anything with them.
                    if before >= PIECE_BYTES_MIN {
                        self.pass(before).await?;
                        before = 0;
                    }
                    self.read(scan.left()).await?;
                }
                Scanned::Tail(n) if exact => {
                    before += n;
                    break 4 + frame_bytes - before;
                }
                Scanned::Tail(n) => {
                    let end = before + n + scan.left();
                    let held = self.output.bytes();
                    if held.len() >= end && is_bare(&held[before + n..end]) {
                        return self.pass(end).await;
                    }
                    self.pass(before + n).await?;
                    before = 0;
                    break scan.left();
                }
            }
        };
        if tail_bytes > TAIL_BYTES_MAX {
            let left = tail_bytes;
            return Err(response_error(key, WireError::Trailing { left }));
        }
        while self.output.len() < before + tail_bytes {
            self.read(0).await?;
        }
        self.write_tail(message, exchange, before, tail_bytes).await
    }

    /// The same for a response that is held whole, whatever its size.
    async fn whole_tail(
        &mut self,
        message: &'static Message,
        exchange: &Exchange,
        n: usize,
    ) -> Result<(), ConnectionError> {
        let frame = self.whole(exchange, n, i32::MAX as usize).await?;
        let wrong = |error| response_error(exchange.api, error);
        let mut scan = Scan::new(message, exchange.version, n).map_err(wrong)?;
        let at = match scan.feed(&frame).map_err(wrong)? {
            Scanned::Tail(at) | Scanned::More(at) => at,
        };
        let (old, addresses) = (frame.slice(at..), &*self.plane.directory);
        let new = if is_bare(&old) || fault::on(fault::of_addresses(exchange.api)) {
            old
        } else {
            tail::exact(message, exchange.version, &old, addresses).map_err(wrong)?
        };
        self.write(&framed(vec![frame.slice(..at), new])).await
    }

    /// Writes the `before` bytes held in front of a tail, and the tail with clients' addresses.
    async fn write_tail(
        &mut self,
        message: &'static Message,
        exchange: &Exchange,
        before: usize,
        tail_bytes: usize,
    ) -> Result<(), ConnectionError> {
        let held = &self.output.bytes()[before..before + tail_bytes];
        if is_bare(held) || fault::on(fault::of_addresses(exchange.api)) {
            return self.pass(before + tail_bytes).await;
        }
        let old = Bytes::copy_from_slice(held);
        let (version, addresses) = (exchange.version, &*self.plane.directory);
        let new = if before > 0 {
            tail::exact(message, version, &old, addresses)
        } else {
            tail::same_length(message, version, &old, addresses)
        };
        let new = new.map_err(|error| response_error(exchange.api, error))?;
        let mut head = BytesMut::from(&self.output.bytes()[..before]);
        self.output.consume(before + tail_bytes);
        if before > 0 {
            let length = i32::try_from(before - 4 + new.len()).unwrap_or(i32::MAX);
            head[..4].copy_from_slice(&length.to_be_bytes());
        }
        self.write(&[head.freeze(), new]).await
    }

    async fn whole(
        &mut self,
        exchange: &Exchange,
        n: usize,
        limit: usize,
    ) -> Result<Bytes, ConnectionError> {
        if n > limit {
            return Err(ConnectionError::ResponseLength {
                name: api::name(exchange.api),
                length: i32::try_from(n).unwrap_or(i32::MAX),
                limit,
            });
        }
        self.output.consume(4);
        let (handle, metrics) = (self.handle, &self.plane.metrics);
        if self.output.len() < n {
            handle.waits_for_broker(false);
        }
        let read = |n| {
            handle.read(n);
            handle.waits_for_broker(false);
            metrics.bytes(Direction::FromBroker, n);
        };
        let frame = gather(&mut self.output, &mut self.from_home, n, read).await;
        handle.read(0);
        forced::response(exchange, frame.map_err(ConnectionError::BrokerIo)?)
    }

    async fn write_frame(&mut self, frame: Bytes) -> Result<(), ConnectionError> {
        if fault::on("drop-answer") {
            return Ok(());
        }
        if fault::on("wrong-correlation") {
            let mut wrong = BytesMut::from(&frame[..]);
            wrong.iter_mut().skip(3).take(1).for_each(|byte| *byte ^= 1);
            return self.write(&framed(vec![wrong.freeze()])).await;
        }
        self.write(&framed(vec![frame])).await
    }

    async fn write(&mut self, pieces: &[Bytes]) -> Result<(), ConnectionError> {
        let handle = self.handle;
        handle.gives(Side::Client, true);
        let written = write_chain_telling(&mut self.to_client, pieces, |n| handle.sent(n)).await;
        handle.gives(Side::Client, false);
        written.map_err(ConnectionError::ClientIo)?;
        let n = pieces.iter().map(Bytes::len).sum();
        self.plane.metrics.bytes(Direction::ToClient, n);
        Ok(())
    }

    async fn pass(&mut self, n: usize) -> Result<(), ConnectionError> {
        let written = self.output.pass(n, &mut self.to_client).await;
        self.passed(n, written)
    }

    /// Counts what was passed.
    #[inline(always)]
    fn passed(
        &self,
        n: usize,
        written: io::Result<Option<Duration>>,
    ) -> Result<(), ConnectionError> {
        if let Some(waited) = written.map_err(ConnectionError::ClientIo)? {
            self.plane.metrics.paused(Side::Broker, waited);
        }
        self.handle.sent(n);
        self.plane.metrics.bytes(Direction::ToClient, n);
        Ok(())
    }

    async fn local(&mut self) -> Result<(), ConnectionError> {
        if let Some(Exchange { answer: Answer::Local(frame, _room), api, at, .. }) =
            self.queue.pop()
        {
            self.plane.metrics.answered(api, clock::now() - at);
            self.write(&frame).await?;
        }
        Ok(())
    }

    /// Reads more of a response that has begun, of which so many bytes are still to come.
    async fn read(&mut self, left: usize) -> Result<(), ConnectionError> {
        self.handle.waits_for_broker(false);
        let read = self.output.fill_within(&mut self.from_home, left).await;
        match read.map_err(ConnectionError::BrokerIo)? {
            0 => Err(ConnectionError::BrokerIo(io::ErrorKind::UnexpectedEof.into())),
            n => {
                self.handle.read(n);
                self.plane.metrics.bytes(Direction::FromBroker, n);
                Ok(())
            }
        }
    }

    /// Waits for what comes next between responses.
    fn next(&mut self) -> impl Future<Output = Result<Next, ConnectionError>> {
        self.handle.waits_for_broker(self.passing == 0 && self.output.is_empty());
        poll_fn(move |cx| self.poll_next(cx))
    }

    #[inline(always)]
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, ConnectionError>> {
        let between = self.passing == 0;
        let making = match self.queue.owed() {
            _ if !between => false,
            Owed::Local => return Poll::Ready(Ok(Next::Local)),
            Owed::Nothing => return Poll::Ready(self.ended()),
            owed => owed == Owed::Soon,
        };
        if self.home_left {
            return if making { Poll::Pending } else { Poll::Ready(self.ended()) };
        }
        let read = ready!(self.output.poll_fill(cx, &mut self.from_home, self.passing));
        let n = read.map_err(ConnectionError::BrokerIo)?;
        if n > 0 {
            self.handle.read(n);
            self.plane.metrics.bytes(Direction::FromBroker, n);
            return Poll::Ready(Ok(Next::Read));
        }
        self.home_left = making && self.output.is_empty() && !fault::on("leg-ends-with-home");
        if self.home_left { Poll::Pending } else { Poll::Ready(self.ended()) }
    }

    /// What it means that nothing more comes.
    fn ended(&self) -> Result<Next, ConnectionError> {
        if self.passing == 0 && self.output.is_empty() {
            return Ok(Next::Done);
        }
        Err(ConnectionError::BrokerIo(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// An answer with addresses of the proxy.
pub(super) fn patched(
    message: &'static Message,
    (key, version): (i16, i16),
    frame: &Bytes,
    directory: &Directory,
) -> Result<Bytes, WireError> {
    if fault::on(fault::of_addresses(key)) {
        return Ok(frame.clone());
    }
    let at = header::response_body_at(key, version, frame)?;
    let mut rewrite = Rewrite::new(directory);
    let edits = match key {
        // Topics hold no address: only the brokers, in front, are walked.
        api::METADATA => walk::walk_until(message, version, frame, at, "Brokers", &mut rewrite),
        _ => walk::walk(message, version, frame, at, &mut rewrite),
    };
    Ok(edits?.apply(frame))
}

pub(super) fn response_error(key: i16, error: WireError) -> ConnectionError {
    ConnectionError::Response { name: api::name(key), error }
}

/// Whether an answer passes unread in a forced mode too.
fn passes(exchange: &Exchange) -> bool {
    !fault::forced().holds() && matches!(exchange.answer, Answer::Opaque)
}

/// Whether a whole frame names no broker behind its records.
fn has_bare_tail(message: &'static Message, version: i16, frame: &[u8]) -> bool {
    if message.api == api::PRODUCE && is_plain_produced(version, frame) == Ok(true) {
        return true;
    }
    let scan = Scan::new(message, version, frame.len());
    let found = scan.and_then(|mut scan| scan.feed(frame));
    matches!(found, Ok(Scanned::Tail(at)) if is_bare(&frame[at..]))
}

/// Whether a tail names no broker: no tags, or no endpoints and no tags.
fn is_bare(tail: &[u8]) -> bool {
    matches!(tail, [] | [0] | [1, 0])
}
