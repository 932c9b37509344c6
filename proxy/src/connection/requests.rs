//! Client -> home broker: reads frame heads, opens exchanges, passes the bytes on.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol_ext::api;
use protocol_ext::header::Head;
use protocol_ext::schema::responses;
use protocol_ext::versions;
use protocol_ext::wire::WireError;
use tokio::io::AsyncWriteExt;

use super::apart;
use super::carriers;
use super::frames::{PREFIX_BYTES, length_at};
use super::handle::Handle;
use super::incoming::{Incoming, Next};
use super::peek;
use super::queue::{Answer, Exchange, Queue};
use super::refusals::Refusals;
use super::rules::{Rules, treatment};
use super::session::Session;
use super::storing::Storing;
use crate::budget::Room;
use crate::buffer::Buffer;
use crate::clock;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::fault;
use crate::filters::offload::Wanted;
use crate::limits::{AUTHENTICATION_FRAME_BYTES_MAX, WHOLE_REQUEST_BYTES_MAX};
use crate::metrics::{Class, Direction, Side};
use crate::net::Line;
use crate::route::legs::Legs;
use crate::route::permissions::Permissions;
use crate::stream::{ReadHalf, WriteHalf};

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
    pub(super) plane: &'a DataPlane,
    pub(super) queue: &'a Queue,
    pub(super) handle: &'a Handle,
    pub(super) incoming: Incoming<'a>,
    pub(super) to_home: WriteHalf<'a>,
    /// Connections to other brokers; only where something is routed.
    pub(super) legs: Option<Box<Legs>>,
    /// Tells whether the client is still there; only where something is routed.
    pub(super) line: Option<Line>,
    /// What the client may do; only where legs run as somebody else.
    pub(super) permissions: Permissions,
    /// Who the client proved to be; only where SASL ends here.
    pub(super) session: Option<Box<Session>>,
    /// Batches that were refused and are to come again.
    pub(super) refusals: Refusals,
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
    /// A request of so many bytes that must be held whole, and the room that it has already.
    Whole(Head, usize, Option<Room>),
    /// A Produce request of so many bytes with values to store.
    Store(Head, usize),
    /// Requests before it must go first.
    Behind,
}

/// What the head of a request says about its way.
enum Opened {
    /// The exchange is open, its so many bytes pass.
    Pass(usize),
    /// More of it must be read first.
    More,
    /// It must be held whole.
    Whole(Head, usize),
    /// It is held whole so that it asks for less, with the room that it has.
    Lower(Head, usize, Option<Room>),
    /// It has values to store.
    Store(Head, usize),
}

impl<'a> Requests<'a> {
    pub fn new(
        plane: &'a DataPlane,
        queue: &'a Queue,
        handle: &'a Handle,
        (input, session): (Buffer, Option<Box<Session>>),
        from_client: ReadHalf<'a>,
        to_home: WriteHalf<'a>,
    ) -> Self {
        plane.metrics.bytes(Direction::FromClient, input.len());
        let incoming = Incoming::new(plane, handle, input, from_client);
        let (legs, line, passing) = (None, None, 0);
        let permissions = Permissions::default();
        Self {
            plane,
            queue,
            handle,
            incoming,
            to_home,
            legs,
            line,
            permissions,
            session,
            refusals: Refusals::default(),
            passing,
        }
    }

    /// Runs until the client stops asking.
    pub async fn pump(&mut self) -> Result<RequestEnd, ConnectionError> {
        let mut storing = Storing::default();
        loop {
            let front =
                if storing.is_empty() { self.front()? } else { self.front_behind(&storing) };
            match front {
                Front::Pass(n) => {
                    let written = self.incoming.input.pass(n, &mut self.to_home).await;
                    self.passed(n, written)?;
                }
                Front::More if storing.is_empty() => match self.more().await? {
                    Some(RequestEnd::HungUp) => {
                        // A broker that is gone makes this fail; the responses tell.
                        let _ = self.to_home.shutdown().await;
                        return Ok(RequestEnd::HungUp);
                    }
                    Some(end) => return Ok(end),
                    None => {}
                },
                Front::More => apart(|| self.more_or_stored(&mut storing)).await?,
                Front::Store(head, frame_bytes) => {
                    apart(|| self.store(head, frame_bytes, &mut storing)).await?;
                }
                Front::Behind => apart(|| self.see_off(&mut storing)).await?,
                Front::Full => self.room().await,
                Front::Whole(head, frame_bytes, room) => {
                    self.queue.work(true);
                    apart(|| self.whole(head, frame_bytes, room)).await?;
                    self.queue.work(false);
                }
            }
        }
    }

    fn rules(&self) -> Rules<'_> {
        let (plane, session) = (self.plane, self.session.as_deref());
        Rules { plane, session, refusals: &self.refusals }
    }

    /// Opens the exchanges whose heads are in the input.
    #[inline(always)]
    fn front(&mut self) -> Result<Front, ConnectionError> {
        if let Some(next) = self.incoming.ahead()
            && !fault::on("ahead-behind-many")
        {
            return self.front_ahead(next);
        }
        let mut at = 0;
        loop {
            let input = self.incoming.input.len();
            let held = self.passing.min(input - at);
            at += held;
            self.passing -= held;
            if self.passing > 0 || input - at < PREFIX_BYTES {
                break;
            }
            if self.handle.is_draining() {
                break;
            }
            if !self.queue.has_room() {
                return Ok(if at == 0 { Front::Full } else { Front::Pass(at) });
            }
            let opened = match self.open(at) {
                // Those before it go on first. It is looked at again, and is no better then.
                Err(_) if at > 0 => break,
                opened => opened?,
            };
            match opened {
                Opened::Pass(frame_bytes) => self.passing = 4 + frame_bytes,
                Opened::Whole(head, frame_bytes) if at == 0 => {
                    return Ok(Front::Whole(head, frame_bytes, None));
                }
                Opened::Lower(head, frame_bytes, room) if at == 0 => {
                    return Ok(Front::Whole(head, frame_bytes, room));
                }
                Opened::Store(head, frame_bytes) if at == 0 => {
                    return Ok(Front::Store(head, frame_bytes));
                }
                Opened::More | Opened::Whole(..) | Opened::Lower(..) | Opened::Store(..) => break,
            }
        }
        Ok(if at == 0 { Front::More } else { Front::Pass(at) })
    }

    /// What a request that was read ahead is, now that its turn has come.
    fn front_ahead(&self, next: &Next) -> Result<Front, ConnectionError> {
        if self.handle.is_draining() {
            return Ok(Front::More);
        }
        if !self.queue.has_room() {
            return Ok(Front::Full);
        }
        let (rules, head) = (self.rules(), next.head);
        rules.check(head)?;
        let way = rules.produce_way(head, next.held(), next.frame_bytes);
        Ok(match way.map_err(|error| request_error(head.api, error))? {
            Some(way) if way.stored => Front::Store(head, next.frame_bytes),
            Some(_) | None => Front::Whole(head, next.frame_bytes, None),
        })
    }

    /// What stands at the front while values of earlier requests are under way: no exchange is
    /// opened before theirs. What is wrong with the next one is told in its turn.
    fn front_behind(&self, storing: &Storing<'_>) -> Front {
        let full = !self.queue.has_room() && !fault::on("queue-unbounded");
        if full || self.handle.is_draining() {
            return Front::Behind;
        }
        let bytes = self.incoming.input.bytes();
        let (head, frame_bytes, held) = match self.incoming.ahead() {
            Some(next) => (next.head, next.frame_bytes, next.held()),
            None if bytes.len() < PREFIX_BYTES => return Front::More,
            None => {
                let Ok(head) = Head::parse(&bytes[4..]) else { return Front::Behind };
                (head, usize::try_from(length_at(bytes)).unwrap_or(0), &bytes[4..])
            }
        };
        let limit = self.plane.limits.frame_bytes_max;
        let sound = (PREFIX_BYTES - 4..=limit).contains(&frame_bytes);
        let over = self.session.as_ref().is_some_and(|session| session.is_over(head.api));
        let over = over && !fault::on("session-behind-uploads");
        let servable = sound && !over && self.plane.is_servable(head.api, head.version);
        if head.api != api::PRODUCE || !servable || !storing.has_room() {
            return Front::Behind;
        }
        match self.rules().produce_way(head, held, frame_bytes) {
            Ok(Some(way)) if way.stored => Front::Store(head, frame_bytes),
            Ok(None) if self.incoming.ahead().is_none() => Front::More,
            Ok(_) | Err(_) => Front::Behind,
        }
    }

    /// Waits for the values of the oldest request that has some under way, and sees it off.
    async fn see_off(&mut self, storing: &mut Storing<'a>) -> Result<(), ConnectionError> {
        let stored = storing.next().await;
        storing.beside(Box::pin(self.stored(stored))).await
    }

    /// Waits for more of the next request, or for the values of an earlier one. Once no more
    /// requests come, all that are under way are seen off first.
    async fn more_or_stored(&mut self, storing: &mut Storing<'_>) -> Result<(), ConnectionError> {
        let stored = tokio::select! {
            biased;
            stored = storing.next() => {
                // The client is not waited for while this one is seen off.
                self.handle.received(0);
                stored
            }
            more = self.more() => match more? {
                Some(_) => storing.next().await,
                None => return Ok(()),
            },
        };
        storing.beside(Box::pin(self.stored(stored))).await
    }

    /// Opens the exchange whose head stands at `at`.
    #[inline(always)]
    fn open(&self, at: usize) -> Result<Opened, ConnectionError> {
        let bytes = &self.incoming.input.bytes()[at..];
        let (head, frame_bytes) = self.rules().head(bytes)?;
        let (Head { api, version, .. }, length) = (head, length_at(bytes));
        if fault::forced().holds() {
            let forced = self.open_forced(head, &bytes[4..], frame_bytes);
            return forced.map_err(|error| request_error(api, error));
        }
        let opened = match api {
            api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE if self.session.is_some() => {
                let limit = AUTHENTICATION_FRAME_BYTES_MAX;
                if frame_bytes > limit {
                    return Err(ConnectionError::FrameLength { length, limit });
                }
                Ok(Opened::Whole(head, frame_bytes))
            }
            _ if self.plane.routed.is_some() && carriers::is_too_old(head) => {
                Ok(Opened::Whole(head, frame_bytes))
            }
            api::PRODUCE if self.plane.read_only => Ok(Opened::Whole(head, frame_bytes)),
            api::PRODUCE => self.open_produce(head, &bytes[4..], frame_bytes),
            api::FETCH => self.open_fetch(head, &bytes[4..], frame_bytes),
            api::SHARE_FETCH if self.plane.offload.is_some() => {
                Ok(Opened::Whole(head, frame_bytes))
            }
            api::METADATA | api::LIST_OFFSETS if self.plane.routed.is_some() => {
                Ok(Opened::Whole(head, frame_bytes))
            }
            api::API_VERSIONS if is_too_new(version) => Ok(Opened::Whole(head, frame_bytes)),
            api::ADD_PARTITIONS_TO_TXN
                if self.plane.routed.is_some() && !fault::on("transactions-unread") =>
            {
                Ok(Opened::Whole(head, frame_bytes))
            }
            _ if self.plane.routed.is_some() && carriers::concerns(head) => {
                Ok(Opened::Whole(head, frame_bytes))
            }
            _ => {
                let (answer, class) = treatment(head);
                self.push(head, answer, class);
                Ok(Opened::Pass(frame_bytes))
            }
        };
        match opened.map_err(|error| request_error(api, error))? {
            // Others wait for the room it takes.
            Opened::Whole(..)
                if api != api::PRODUCE
                    && frame_bytes > WHOLE_REQUEST_BYTES_MAX
                    && !fault::on("long-questions-taken") =>
            {
                Err(ConnectionError::FrameLength { length, limit: WHOLE_REQUEST_BYTES_MAX })
            }
            opened => Ok(opened),
        }
    }

    /// Where every request is held whole, whatever would do.
    fn open_forced(
        &self,
        head: Head,
        held: &[u8],
        frame_bytes: usize,
    ) -> Result<Opened, WireError> {
        let plain = head.api != api::PRODUCE || self.plane.read_only;
        if plain || fault::on("forced-unstored") {
            return Ok(Opened::Whole(head, frame_bytes));
        }
        Ok(match self.rules().produce_way(head, held, frame_bytes)? {
            Some(way) if way.stored => Opened::Store(head, frame_bytes),
            Some(_) => Opened::Whole(head, frame_bytes),
            None => Opened::More,
        })
    }

    #[inline(always)]
    fn open_produce(
        &self,
        head: Head,
        held: &[u8],
        frame_bytes: usize,
    ) -> Result<Opened, WireError> {
        let Some(way) = self.rules().produce_way(head, held, frame_bytes)? else {
            return Ok(Opened::More);
        };
        if way.stored {
            return Ok(Opened::Store(head, frame_bytes));
        }
        if way.split {
            return Ok(Opened::Whole(head, frame_bytes));
        }
        if way.acks == 0 && !fault::on("acks0-answered") {
            self.plane.metrics.request(head.api, Class::Peek);
        } else {
            let (answer, class) = treatment(head);
            self.push(head, answer, class);
        }
        Ok(Opened::Pass(frame_bytes))
    }

    fn open_fetch(&self, head: Head, held: &[u8], frame_bytes: usize) -> Result<Opened, WireError> {
        let batches = head.version >= FETCH_WITH_BATCHES;
        if self.plane.routed.is_some() && batches {
            return Ok(Opened::Whole(head, frame_bytes));
        }
        let (mut answer, mut class) = treatment(head);
        if self.plane.offload.is_some() && batches {
            let Some(asked) = peek::fetch(head, held, frame_bytes)? else {
                return Ok(Opened::More);
            };
            let whole = peek::PEEK_BYTES_MAX + 1..=WHOLE_REQUEST_BYTES_MAX;
            match peek::is_follower(head, held, frame_bytes) {
                Some(true) => {
                    self.push(head, answer, class);
                    return Ok(Opened::Pass(frame_bytes));
                }
                None if whole.contains(&frame_bytes) => {
                    return Ok(Opened::Whole(head, frame_bytes));
                }
                None if frame_bytes < *whole.start() => return Ok(Opened::More),
                Some(false) | None => {}
            }
            let beyond = asked.at.is_some() && asked.bytes_max > self.plane.fetch_bytes_max();
            if beyond {
                return Ok(Opened::Whole(head, frame_bytes));
            }
            let (lowers, room) = self.lowers(frame_bytes);
            if lowers {
                return Ok(Opened::Lower(head, frame_bytes, room));
            }
            let wanted = self.wanted(asked.bytes_max, asked.partition_bytes_max);
            (answer, class) = (Answer::Restore(&responses::FETCH, wanted), Class::Full);
        }
        self.push(head, answer, class);
        Ok(Opened::Pass(frame_bytes))
    }

    /// What a Fetch request wants, of a partition what it or one before says.
    pub(super) fn wanted(&self, bytes: usize, partition_bytes: Option<usize>) -> Wanted {
        Wanted { bytes, partition_bytes: self.queue.partition_bytes.of(partition_bytes) }
    }

    #[inline(always)]
    pub(super) fn push(&self, head: Head, answer: Answer, class: Class) {
        let Head { api, version, correlation } = head;
        self.plane.metrics.request(api, class);
        self.queue.push(Exchange { api, version, correlation, answer, at: clock::now() });
    }

    /// Counts what was passed.
    #[inline(always)]
    fn passed(
        &self,
        n: usize,
        written: io::Result<Option<Duration>>,
    ) -> Result<(), ConnectionError> {
        if let Some(waited) = written.map_err(ConnectionError::BrokerIo)? {
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
    fn more(&mut self) -> impl Future<Output = Result<Option<RequestEnd>, ConnectionError>> {
        let between = self.passing == 0;
        let drained = between && self.handle.is_draining();
        if !drained {
            self.handle.waits(between && self.incoming.input.is_empty());
        }
        poll_fn(move |cx| {
            if drained { Poll::Ready(Ok(Some(RequestEnd::Drained))) } else { self.poll_more(cx) }
        })
    }

    #[inline(always)]
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<RequestEnd>, ConnectionError>> {
        match self.incoming.poll_fill(cx, self.passing) {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Some(RequestEnd::HungUp))),
            Poll::Ready(read) => Poll::Ready(read.map(|_| None).map_err(ConnectionError::ClientIo)),
            Poll::Pending if self.passing == 0 && self.handle.poll_drained(cx).is_ready() => {
                // The rest of a request that has begun is not waited for any more.
                self.handle.received(0);
                Poll::Ready(Ok(Some(RequestEnd::Drained)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether a version of ApiVersions is one that is not passed on: its answer could not be read, if
/// the broker knows it.
pub(super) fn is_too_new(version: i16) -> bool {
    version > versions::VERSION_MAX && !fault::on("newest-versions-pass")
}

pub(super) fn request_error(key: i16, error: WireError) -> ConnectionError {
    ConnectionError::Request { name: api::name(key), error }
}

/// First versions whose records are batches (KIP-98).
pub(super) const PRODUCE_WITH_BATCHES: i16 = 3;
pub(super) const FETCH_WITH_BATCHES: i16 = 4;
