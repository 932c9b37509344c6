//! The ordered queue of one connection: exchanges whose answers the client is still owed.
//!
//! Both pumps run in one task, so nobody waits on a lock here and no waker is kept: the join in
//! `connection.rs` polls the other pump when the queue changed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use kafka_protocol::messages::produce_response::TopicProduceResponse;
use parking_lot::Mutex;
use protocol_ext::schema::Message;
use tokio::sync::oneshot;

use super::partition_bytes::PartitionBytes;
use crate::budget::Room;
use crate::clock::Tick;
use crate::fault;
use crate::filters::offload::{Reading, Sharing, Wanted};
use crate::limits::PENDING_EXCHANGES_MAX;
use crate::route::legs::metadata::Asked;

/// How the answer of an exchange is treated.
#[derive(Debug)]
pub enum Answer {
    /// The next frame of the home broker, passed unread.
    Opaque,
    /// The next frame, read whole, addresses patched.
    Patch(&'static Message),
    /// The next frame, streamed, addresses in its tail patched.
    Tail(&'static Message),
    /// The next frame, read whole: the table of versions.
    Versions,
    /// The next frame, read whole: values restored, as many as are wanted, addresses patched.
    Restore(&'static Message, Wanted),
    /// The same for what a share consumer acquired with it.
    Shared(Sharing),
    /// The next frame, read whole: virtual topics merged in, addresses patched.
    Metadata(Box<Asked>),
    /// The next frame, read whole: the answer to a question of the proxy's own.
    Own(oneshot::Sender<Bytes>),
    /// The next frame, read whole: what is told of virtual topics put beside it.
    Produced(Vec<TopicProduceResponse>),
    /// Made here: a whole frame, length first, and the room it takes.
    Local(Vec<Bytes>, Vec<Room>),
}

/// An exchange without an answer yet.
#[derive(Debug)]
pub struct Exchange {
    /// API key.
    pub api: i16,
    /// Version.
    pub version: i16,
    /// The client's correlation id.
    pub correlation: i32,
    /// How its answer is treated.
    pub answer: Answer,
    /// When its head was read.
    pub at: Tick,
}

#[derive(Debug, Default)]
struct Inner {
    open: VecDeque<Exchange>,
    closed: bool,
    working: bool,
    /// An answer is held whole and not yet written.
    answering: bool,
    /// Somebody waits until all before is answered.
    turn_wanted: bool,
    freed: bool,
}

/// What a client is owed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// An answer that is there.
    Local,
    /// One that the home broker sends.
    Forwarded,
    /// One that is being made here and is not in the queue yet.
    Soon,
    /// Nothing now.
    NotYet,
    /// Nothing any more.
    Nothing,
}

impl Inner {
    /// Whether the oldest exchange has a local answer; `None` if no exchange is open.
    fn front_is_local(&self) -> Option<bool> {
        self.open.front().map(|exchange| matches!(exchange.answer, Answer::Local(..)))
    }

    /// Whether nothing is owed, and nothing held that is to be written.
    fn is_even(&self) -> bool {
        self.open.is_empty() && !self.answering
    }

    fn free_turn(&mut self) {
        if self.turn_wanted && self.is_even() {
            self.turn_wanted = false;
            self.freed = true;
        }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    /// Bytes of a partition that the client said last that it wants.
    pub partition_bytes: PartitionBytes,
    /// What is kept of what the client reads.
    pub reading: Reading,
}

impl Queue {
    /// Whether another exchange may be opened.
    pub fn has_room(&self) -> bool {
        self.has_room_for(1)
    }

    /// The same for so many exchanges.
    pub fn has_room_for(&self, more: usize) -> bool {
        self.inner.lock().open.len() + more <= PENDING_EXCHANGES_MAX
    }

    /// Opens an exchange.
    #[inline(always)]
    pub fn push(&self, exchange: Exchange) {
        let mut inner = self.inner.lock();
        let local = matches!(exchange.answer, Answer::Local(..));
        if local && fault::on("reorder-answers") {
            inner.open.push_front(exchange);
        } else {
            inner.open.push_back(exchange);
        }
    }

    /// Takes the oldest exchange.
    #[inline(always)]
    pub fn pop(&self) -> Option<Exchange> {
        let mut inner = self.inner.lock();
        inner.freed |= inner.open.len() >= PENDING_EXCHANGES_MAX;
        let popped = inner.open.pop_front();
        let streams =
            |exchange: &Exchange| matches!(exchange.answer, Answer::Opaque | Answer::Tail(_));
        inner.answering = popped.as_ref().is_some_and(|exchange| !streams(exchange));
        inner.free_turn();
        popped
    }

    /// Whether the oldest exchange has a local answer.
    pub fn front_is_local(&self) -> bool {
        self.inner.lock().front_is_local() == Some(true)
    }

    /// What the client is owed next.
    pub fn owed(&self) -> Owed {
        let inner = self.inner.lock();
        match inner.front_is_local() {
            Some(true) => Owed::Local,
            Some(false) => Owed::Forwarded,
            None if inner.closed => Owed::Nothing,
            None if inner.working => Owed::Soon,
            None => Owed::NotYet,
        }
    }

    /// An answer may be made here, or is not any more.
    pub fn work(&self, working: bool) {
        self.inner.lock().working = working;
    }

    /// The answer of the exchange taken last is written.
    pub fn answered(&self) {
        let mut inner = self.inner.lock();
        inner.answering = false;
        inner.free_turn();
    }

    /// Waits until all exchanges so far are answered; the join polls again when they are.
    pub async fn turn(&self) {
        poll_fn(|_| {
            let mut inner = self.inner.lock();
            inner.turn_wanted = !inner.is_even();
            if inner.turn_wanted { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// No exchange will be opened any more.
    pub fn close(&self) {
        self.inner.lock().closed = true;
    }

    /// Whether a full queue got room since the last call, or one whose end is waited for is empty.
    pub fn take_freed(&self) -> bool {
        std::mem::take(&mut self.inner.lock().freed)
    }
}
