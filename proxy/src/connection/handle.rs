//! What the process knows of a connection: its signs of life, and enough to ask it to drain.
//!
//! The connection's own task is the only one that writes signs; accept/sweep.rs reads them.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::metrics::Side;

/// Shared by a connection and the process.
#[derive(Debug, Default)]
pub struct Handle {
    draining: AtomicBool,
    wake: AtomicWaker,
    received: AtomicU64,
    sent: AtomicU64,
    pauses: AtomicU64,
    within: AtomicBool,
    ahead: AtomicUsize,
    read: AtomicU64,
    rests: AtomicU64,
    answering: AtomicBool,
    given: AtomicU64,
    giving: [AtomicBool; 2],
}

/// What a connection did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// Bytes the client sent.
    pub received: u64,
    /// Bytes the client took.
    pub sent: u64,
    /// How often it was waited for between two requests.
    pub pauses: u64,
    /// Whether it is waited for within a request.
    pub within: bool,
    /// Room of the request within which it is waited for, if that is read ahead; else 0.
    pub ahead: usize,
    /// Bytes the broker sent.
    pub read: u64,
    /// How often the broker was waited for between two answers.
    pub rests: u64,
    /// Whether it is waited for within an answer.
    pub answering: bool,
    /// Bytes of requests held whole that the broker took.
    pub given: u64,
    /// Whether the client is waited for to take an answer held whole.
    pub client_takes: bool,
    /// Whether the broker is waited for to take a request held whole.
    pub broker_takes: bool,
}

impl Signs {
    /// Bytes either way, with clients and with brokers: another value means that something moved.
    pub fn movement(&self) -> [u64; 3] {
        [self.received, self.sent, self.given]
    }
}

impl Handle {
    /// Asks the connection to stop reading, answer what is in flight and close.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// Whether it was asked to.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Resolves once it was asked to; for the connection's own task.
    pub async fn drained(&self) {
        poll_fn(|cx| self.poll_drained(cx)).await;
    }

    /// The same, polled.
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wake.register(cx.waker());
        if self.is_draining() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The client is waited for.
    pub fn waits(&self, between_requests: bool) {
        if between_requests {
            add(&self.pauses, 1);
        } else {
            self.within.store(true, Ordering::Relaxed);
        }
    }

    /// The client sent bytes.
    pub fn received(&self, n: usize) {
        self.within.store(false, Ordering::Relaxed);
        add(&self.received, n);
    }

    /// A request that takes so much room is read ahead; 0: none is.
    pub fn reads_ahead(&self, room: usize) {
        self.ahead.store(room, Ordering::Relaxed);
    }

    /// The broker is waited for.
    pub fn waits_for_broker(&self, between_answers: bool) {
        if between_answers {
            add(&self.rests, 1);
        } else {
            self.answering.store(true, Ordering::Relaxed);
        }
    }

    /// The broker sent bytes.
    pub fn read(&self, n: usize) {
        self.answering.store(false, Ordering::Relaxed);
        add(&self.read, n);
    }

    /// What is held whole is being written to a side, or is written.
    pub fn gives(&self, to: Side, begins: bool) {
        self.giving[to as usize].store(begins, Ordering::Relaxed);
    }

    /// The broker took bytes of a request that is held whole.
    pub fn given(&self, n: usize) {
        add(&self.given, n);
    }

    /// The client took bytes.
    pub fn sent(&self, n: usize) {
        add(&self.sent, n);
    }

    /// Everything so far.
    pub fn signs(&self) -> Signs {
        Signs {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            pauses: self.pauses.load(Ordering::Relaxed),
            within: self.within.load(Ordering::Relaxed),
            ahead: self.ahead.load(Ordering::Relaxed),
            read: self.read.load(Ordering::Relaxed),
            rests: self.rests.load(Ordering::Relaxed),
            answering: self.answering.load(Ordering::Relaxed),
            given: self.given.load(Ordering::Relaxed),
            client_takes: self.giving[Side::Client as usize].load(Ordering::Relaxed),
            broker_takes: self.giving[Side::Broker as usize].load(Ordering::Relaxed),
        }
    }
}

/// One task writes, so no locked instruction is needed.
fn add(count: &AtomicU64, n: usize) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(n as u64), Ordering::Relaxed);
}
