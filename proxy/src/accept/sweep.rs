//! Connections that overstay: idle, too old, or stuck within a request.
//!
//! One job looks at the signs of life of all connections now and then, so that no connection needs
//! a timer of its own. Idle and old ones drain, which closes them between requests; one that does
//! not get on with a request holds a broker and buffers, and is cut off, and so is one whose broker
//! does not get on with an answer. A drain that waits for an answer that nobody sends, or nobody
//! takes, ends as well: when `idle` has passed without a byte, and `drain` since it began.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Clients;
use crate::connection::handle::{Handle, Signs};
use crate::error::ConnectionError;
use crate::limits::{FRAME_PROGRESS_BYTES, Limits};
use crate::metrics::{Overstay, Side};
use crate::route::addresses::Door;
use crate::{clock, fault, random};

/// An open connection.
#[derive(Debug)]
pub(super) struct Open {
    pub handle: Arc<Handle>,
    pub abort: AbortHandle,
    pub door: Door,
    pub peer: SocketAddr,
    /// Whether `peer` is the client itself and not a balancer in front of it.
    placed: bool,
    watched: Watched,
}

impl Open {
    pub fn new(
        handle: Arc<Handle>,
        abort: AbortHandle,
        (door, peer): (Door, SocketAddr),
        placed: bool,
    ) -> Self {
        Self { handle, abort, door, peer, placed, watched: Watched::new(clock::now()) }
    }

    /// It is known now where the client is.
    pub fn found(&mut self, peer: SocketAddr) {
        (self.peer, self.placed) = (peer, true);
    }

    /// Whether it counts for an address.
    pub fn is_from(&self, address: IpAddr) -> bool {
        self.placed && self.peer.ip().to_canonical() == address.to_canonical()
    }
}

/// What was seen of a connection up to the last look.
#[derive(Debug)]
struct Watched {
    signs: Signs,
    opened: clock::Tick,
    active: clock::Tick,
    /// When it was asked to drain for overstaying.
    drains: Option<clock::Tick>,
    /// Within a request.
    request: Stuck,
    /// Within an answer.
    answer: Stuck,
    /// The part of the age limit that it may reach: so many do not end at once.
    share: f64,
}

/// Since when, and at which byte, one side is waited for within a frame.
#[derive(Debug, Default)]
struct Stuck(Option<(clock::Tick, u64)>);

impl Stuck {
    /// Whether a side that is `waited` for brought too little for too long.
    fn look(&mut self, waited: bool, bytes: u64, limit: Duration, now: clock::Tick) -> bool {
        if !waited {
            self.0 = None;
            return false;
        }
        let (since, at) = *self.0.get_or_insert((now, bytes));
        if bytes - at >= FRAME_PROGRESS_BYTES {
            self.0 = Some((now, bytes));
            return false;
        }
        now - since >= limit
    }
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    Drains(Overstay),
    Ends,
    Cut(Side),
}

impl Watched {
    fn new(now: clock::Tick) -> Self {
        let share = random::jittered(Duration::from_secs(1)).as_secs_f64();
        let (request, answer) = (Stuck::default(), Stuck::default());
        let (signs, drains) = (Signs::default(), None);
        Self { signs, opened: now, active: now, drains, request, answer, share }
    }

    fn look(&mut self, signs: Signs, limits: &Limits, now: clock::Tick) -> Verdict {
        let before = std::mem::replace(&mut self.signs, signs);
        if (before.received, before.sent) != (signs.received, signs.sent) {
            self.active = now;
        }
        let limit = limits.frame_progress;
        let waited = signs.within && signs.pauses == before.pauses;
        if self.request.look(waited, signs.received, limit, now) {
            return Verdict::Cut(Side::Client);
        }
        let waited = signs.answering && signs.rests == before.rests;
        let stuck = self.answer.look(waited, signs.read, limit, now);
        if stuck && !fault::on("stuck-answer-unseen") {
            return Verdict::Cut(Side::Broker);
        }
        let idle = now - self.active >= limits.idle;
        if let Some(since) = self.drains {
            let ends = idle && now - since >= limits.drain && !fault::on("drained-for-ever");
            return if ends { Verdict::Ends } else { Verdict::Stays };
        }
        let old = limits.age.is_some_and(|age| now - self.opened >= age.mul_f64(self.share));
        let overstay = match (idle, old) {
            (true, _) => Overstay::Idle,
            (false, true) => Overstay::Old,
            (false, false) => return Verdict::Stays,
        };
        self.drains = Some(now);
        Verdict::Drains(overstay)
    }
}

impl Clients {
    /// Looks at all connections now and then.
    pub(super) async fn sweep(&self) {
        loop {
            let limits = self.limits();
            let age = limits.age.unwrap_or(PERIOD_MAX);
            let period = limits.idle.min(limits.frame_progress).min(age) / 8;
            tokio::time::sleep(period.clamp(PERIOD_MIN, PERIOD_MAX)).await;
            for (door, peer, side) in self.look(&limits, clock::now()) {
                let error = match side {
                    Side::Client => ConnectionError::SlowFrame(limits.frame_progress),
                    Side::Broker => ConnectionError::SlowAnswer(limits.frame_progress),
                };
                self.report(door, peer, &error);
            }
        }
    }

    /// Drains what overstays; gives those that were cut off.
    fn look(&self, limits: &Limits, now: clock::Tick) -> Vec<(Door, SocketAddr, Side)> {
        let mut cut = Vec::new();
        if fault::on("overstay-unseen") {
            return cut;
        }
        self.open.lock().retain(|_, open| {
            if open.handle.is_draining() && open.watched.drains.is_none() {
                // The process ends, which has a limit of its own.
                return true;
            }
            match open.watched.look(open.handle.signs(), limits, now) {
                Verdict::Stays => {}
                Verdict::Drains(overstay) => {
                    self.plane.metrics.overstayed(overstay);
                    tracing::debug!(peer = %open.peer, door = %open.door, ?overstay, "closing");
                    open.handle.drain();
                }
                Verdict::Ends => {
                    tracing::debug!(peer = %open.peer, door = %open.door, "its drain stood still");
                    open.abort.abort();
                    return false;
                }
                Verdict::Cut(side) => {
                    open.abort.abort();
                    cut.push((open.door, open.peer, side));
                    return false;
                }
            }
            true
        });
        cut
    }
}

const PERIOD_MIN: Duration = Duration::from_millis(50);
const PERIOD_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits { idle: 60 * SECOND, frame_progress: 10 * SECOND, age: None, ..Limits::default() }
    }

    fn within(received: u64) -> Signs {
        Signs { received, within: true, ..Signs::default() }
    }

    #[test]
    fn bytes_either_way_keep_a_connection() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        let received = Signs { received: 1, ..Signs::default() };
        let sent = Signs { sent: 1, ..received };
        assert_eq!(watched.look(received, &limits, start + 59 * SECOND), Verdict::Stays);
        assert_eq!(watched.look(sent, &limits, start + 118 * SECOND), Verdict::Stays);
        assert_eq!(watched.look(sent, &limits, start + 177 * SECOND), Verdict::Stays);
        let idle = Verdict::Drains(Overstay::Idle);
        assert_eq!(watched.look(sent, &limits, start + 178 * SECOND), idle);
    }

    #[test]
    fn a_byte_a_second_is_no_progress() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        let mut verdicts =
            (0..20).map(|n| watched.look(within(n.into()), &limits, start + n * SECOND));
        assert_eq!(verdicts.position(|verdict| verdict == Verdict::Cut(Side::Client)), Some(10));
    }

    #[test]
    fn a_broker_that_does_not_go_on_is_told_from_one_that_is_long_in_coming() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        let signs = |n: u32, answering| Signs { read: n.into(), answering, ..Signs::default() };
        for n in 0..30 {
            let verdict = watched.look(signs(0, false), &limits, start + n * SECOND);
            assert_eq!(verdict, Verdict::Stays);
        }
        let start = start + 30 * SECOND;
        let mut verdicts =
            (0..20).map(|n| watched.look(signs(n, true), &limits, start + n * SECOND));
        let cut = Verdict::Cut(Side::Broker);
        assert_eq!(verdicts.position(|verdict| verdict == cut), Some(10));
    }

    #[test]
    fn a_kilobyte_in_time_is_progress_and_so_is_the_end_of_a_request() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        for n in 0..50 {
            let signs = within(u64::from(n) * FRAME_PROGRESS_BYTES / 9);
            assert_eq!(watched.look(signs, &limits, start + n * SECOND), Verdict::Stays);
        }
        let mut watched = Watched::new(start);
        for n in 0..50 {
            let signs = Signs { pauses: u64::from(n / 9), ..within(n.into()) };
            assert_eq!(watched.look(signs, &limits, start + n * SECOND), Verdict::Stays);
        }
    }

    #[test]
    fn a_connection_ends_at_its_age_give_or_take_a_half() {
        let limits = Limits { age: Some(20 * SECOND), ..limits() };
        let start = clock::now();
        let mut watched = Watched::new(start);
        let busy = |n| Signs { received: n, ..Signs::default() };
        assert_eq!(watched.look(busy(1), &limits, start + 9 * SECOND), Verdict::Stays);
        let old = Verdict::Drains(Overstay::Old);
        assert_eq!(watched.look(busy(2), &limits, start + 31 * SECOND), old);
    }

    #[test]
    fn a_drain_without_a_byte_ends_and_one_with_bytes_goes_on() {
        let limits = Limits { drain: 5 * SECOND, age: Some(20 * SECOND), ..limits() };
        let start = clock::now();
        let old = Verdict::Drains(Overstay::Old);
        let busy = |n| Signs { sent: n, ..Signs::default() };
        let mut watched = Watched::new(start);
        assert_eq!(watched.look(busy(1), &limits, start + 31 * SECOND), old);
        for n in 2..6 {
            let at = start + n * 30 * SECOND;
            assert_eq!(watched.look(busy(n.into()), &limits, at), Verdict::Stays);
        }
        let since = start + 150 * SECOND;
        assert_eq!(watched.look(busy(5), &limits, since + 59 * SECOND), Verdict::Stays);
        assert_eq!(watched.look(busy(5), &limits, since + 60 * SECOND), Verdict::Ends);
        let mut watched = Watched::new(start);
        let idle = Verdict::Drains(Overstay::Idle);
        let limits = Limits { age: None, ..limits };
        assert_eq!(watched.look(busy(0), &limits, start + 60 * SECOND), idle);
        assert_eq!(watched.look(busy(0), &limits, start + 64 * SECOND), Verdict::Stays);
        assert_eq!(watched.look(busy(0), &limits, start + 65 * SECOND), Verdict::Ends);
    }
}
