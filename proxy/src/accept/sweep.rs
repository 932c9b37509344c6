//! Connections that overstay: idle, too old, or stuck within a request.
//!
//! One job looks at the signs of life of all connections now and then, so that no connection needs
//! a timer of its own. Idle and old ones drain, which closes them between requests; one that does
//! not get on with a request holds a broker and buffers, and is cut off, and so is one whose broker
//! does not get on with an answer. Whoever holds room of a byte budget must move a share of it in
//! the same time, and in a part of that time while others wait for room. What drains is looked at
//! too: a drain that waits for an answer that nobody sends, or nobody takes, ends when `idle` has
//! passed without a byte, and `drain` since it began.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Clients;
use crate::budget::Budget;
use crate::connection::handle::{Handle, Signs};
use crate::error::ConnectionError;
use crate::filters::offload::Offload;
use crate::limits::{FRAME_PROGRESS_BYTES, HELD_SHARE, Limits, WANTED};
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
    /// While the client takes an answer that is held whole.
    client: Stuck,
    /// While the broker takes a request that is held whole.
    broker: Stuck,
    /// The part of the age limit that it may reach: so many do not end at once.
    share: f64,
}

/// Room that a connection holds, on one way.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    bytes: usize,
    /// Whether others have waited for room too long.
    wanted: bool,
}

impl Held {
    /// What must move in time: each KiB, or the share of what is held.
    fn need(self) -> u64 {
        if fault::on("holders-unseen") {
            return FRAME_PROGRESS_BYTES;
        }
        FRAME_PROGRESS_BYTES.max((self.bytes / HELD_SHARE) as u64)
    }

    /// What a client holds by the request within which it is waited for. While one is `ahead` the
    /// room of the one before waits for brokers.
    fn of_client(self, ahead: usize) -> Self {
        match ahead {
            0 => self,
            _ if fault::on("ahead-blames-for-both") => Self { bytes: self.bytes + ahead, ..self },
            bytes => Self { bytes, ..self },
        }
    }
}

/// Since when, and at which byte, one side is waited for within a frame.
#[derive(Debug, Default)]
struct Stuck(Option<(clock::Tick, u64)>);

/// A side that is waited for and does not get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stall {
    side: Side,
    /// Bytes that it moved meanwhile.
    moved: u64,
    /// Room that it keeps from others.
    held: usize,
    /// It is to take bytes, not to send them.
    takes: bool,
    /// It would have more time if nobody waited.
    hinders: bool,
}

impl Stuck {
    /// The stall of a side that is `waited` for and moved too little for too long.
    fn look(
        &mut self,
        (side, takes): (Side, bool),
        waited: bool,
        bytes: u64,
        held: Held,
        (limit, now): (Duration, clock::Tick),
    ) -> Option<Stall> {
        if !waited {
            self.0 = None;
            return None;
        }
        let (since, at) = *self.0.get_or_insert((now, bytes));
        let moved = bytes - at;
        if moved >= held.need() {
            self.0 = Some((now, bytes));
            return None;
        }
        let stall = |hinders| Stall { side, moved, held: held.bytes, takes, hinders };
        match now - since {
            time if time >= limit => Some(stall(false)),
            time if held.wanted && held.bytes > 0 && time >= limit / WANTED => Some(stall(true)),
            _ => None,
        }
    }
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    Drains(Overstay),
    /// It drains, and nothing moves any more.
    Ends,
    Cut(Stall),
}

impl Watched {
    fn new(now: clock::Tick) -> Self {
        let share = random::jittered(Duration::from_secs(1)).as_secs_f64();
        let [request, answer, client, broker] = Default::default();
        let (signs, drains) = (Signs::default(), None);
        Self { signs, opened: now, active: now, drains, request, answer, client, broker, share }
    }

    /// Judges a connection that holds room for `requests` and for `answers`.
    fn look(
        &mut self,
        signs: Signs,
        (requests, answers): (Held, Held),
        drains: bool,
        limits: &Limits,
        now: clock::Tick,
    ) -> Verdict {
        let before = std::mem::replace(&mut self.signs, signs);
        if before.movement() != signs.movement() {
            self.active = now;
        }
        let time = (limits.frame_progress, now);
        let waited = signs.within && signs.pauses == before.pauses;
        let of_client = requests.of_client(signs.ahead);
        let request =
            self.request.look((Side::Client, false), waited, signs.received, of_client, time);
        let waited = signs.answering && signs.rests == before.rests;
        let answer = self.answer.look((Side::Broker, false), waited, signs.read, answers, time);
        let answer = answer.filter(|_| !fault::on("stuck-answer-unseen"));
        let waited = signs.client_takes && answers.bytes > 0;
        let client = self.client.look((Side::Client, true), waited, signs.sent, answers, time);
        let waited = signs.broker_takes && requests.bytes > 0;
        let broker = self.broker.look((Side::Broker, true), waited, signs.given, requests, time);
        if let Some(stall) = request.or(answer).or(client).or(broker) {
            return Verdict::Cut(stall);
        }
        let idle = now - self.active >= limits.idle;
        if let Some(since) = self.drains {
            let ends = idle && now - since >= limits.drain && !fault::on("drained-for-ever");
            return if ends { Verdict::Ends } else { Verdict::Stays };
        }
        if drains {
            // The process ends, which has a limit of its own.
            return Verdict::Stays;
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
            for (door, peer, stall) in self.look(&limits, clock::now()) {
                self.report(door, peer, &told(stall, limits.frame_progress));
            }
        }
    }

    /// Drains what overstays; gives those that were cut off.
    fn look(&self, limits: &Limits, now: clock::Tick) -> Vec<(Door, SocketAddr, Stall)> {
        let mut cut = Vec::new();
        if fault::on("overstay-unseen") {
            return cut;
        }
        let plane = &self.plane;
        let wanted = |budget: &Budget| {
            let since = budget.waited_for_since();
            since.is_some_and(|since| now - since >= limits.frame_progress / WANTED)
        };
        let restored = plane.offload.as_ref().map(Offload::restored_room);
        let (requests, answers) =
            (wanted(&plane.requests), wanted(&plane.responses) || restored.is_some_and(wanted));
        let mut worst: Option<(u64, Stall)> = None;
        let mut open = self.open.lock();
        open.retain(|id, open| {
            let task = open.abort.id();
            let for_answers = plane.responses.held_by(task);
            let for_answers = for_answers + restored.map_or(0, |room| room.held_by(task));
            let held = (
                Held { bytes: plane.requests.held_by(task), wanted: requests },
                Held { bytes: for_answers, wanted: answers },
            );
            let drains = open.handle.is_draining();
            match open.watched.look(open.handle.signs(), held, drains, limits, now) {
                Verdict::Stays => {}
                Verdict::Drains(overstay) => {
                    plane.metrics.overstayed(overstay);
                    tracing::debug!(peer = %open.peer, ?overstay, "closing");
                    open.handle.drain();
                }
                Verdict::Cut(stall) if stall.hinders => {
                    if worst.is_none_or(|(_, worst)| worst.held < stall.held) {
                        worst = Some((*id, stall));
                    }
                }
                Verdict::Cut(stall) => {
                    open.abort.abort();
                    cut.push((open.door, open.peer, stall));
                    return false;
                }
                Verdict::Ends => {
                    tracing::debug!(peer = %open.peer, "cut off: silent while it drains");
                    open.abort.abort();
                    return false;
                }
            }
            true
        });
        // One at a time: its room may be enough for those who wait.
        if let Some((id, stall)) = worst
            && let Some(hinders) = open.remove(&id)
        {
            hinders.abort.abort();
            cut.push((hinders.door, hinders.peer, stall));
        }
        cut
    }
}

/// The error of a connection that was cut off.
fn told(stall: Stall, limit: Duration) -> ConnectionError {
    let Stall { side, moved, held, takes, hinders } = stall;
    let time = if hinders { limit / WANTED } else { limit };
    match side {
        _ if takes || hinders || moved >= FRAME_PROGRESS_BYTES => {
            ConnectionError::Stalled { side, held, moved, time }
        }
        Side::Client => ConnectionError::SlowFrame(limit),
        Side::Broker => ConnectionError::SlowAnswer(limit),
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

    fn look(w: &mut Watched, signs: Signs, limits: &Limits, now: clock::Tick) -> Verdict {
        w.look(signs, Default::default(), false, limits, now)
    }

    /// The side that is cut off.
    fn cut(verdict: &Verdict) -> Option<Side> {
        match verdict {
            Verdict::Cut(stall) => Some(stall.side),
            _ => None,
        }
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
        assert_eq!(look(&mut watched, received, &limits, start + 59 * SECOND), Verdict::Stays);
        assert_eq!(look(&mut watched, sent, &limits, start + 118 * SECOND), Verdict::Stays);
        assert_eq!(look(&mut watched, sent, &limits, start + 177 * SECOND), Verdict::Stays);
        let idle = Verdict::Drains(Overstay::Idle);
        assert_eq!(look(&mut watched, sent, &limits, start + 178 * SECOND), idle);
    }

    #[test]
    fn a_byte_a_second_is_no_progress() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        let mut verdicts =
            (0..20).map(|n| look(&mut watched, within(n.into()), &limits, start + n * SECOND));
        assert_eq!(verdicts.position(|v| cut(&v) == Some(Side::Client)), Some(10));
    }

    #[test]
    fn a_broker_that_does_not_go_on_is_told_from_one_that_is_long_in_coming() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        let signs = |n: u32, answering| Signs { read: n.into(), answering, ..Signs::default() };
        for n in 0..30 {
            let verdict = look(&mut watched, signs(0, false), &limits, start + n * SECOND);
            assert_eq!(verdict, Verdict::Stays);
        }
        let start = start + 30 * SECOND;
        let mut verdicts =
            (0..20).map(|n| look(&mut watched, signs(n, true), &limits, start + n * SECOND));
        assert_eq!(verdicts.position(|v| cut(&v) == Some(Side::Broker)), Some(10));
    }

    #[test]
    fn a_kilobyte_in_time_is_progress_and_so_is_the_end_of_a_request() {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        for n in 0..50 {
            let signs = within(u64::from(n) * FRAME_PROGRESS_BYTES / 9);
            assert_eq!(look(&mut watched, signs, &limits, start + n * SECOND), Verdict::Stays);
        }
        let mut watched = Watched::new(start);
        for n in 0..50 {
            let signs = Signs { pauses: u64::from(n / 9), ..within(n.into()) };
            assert_eq!(look(&mut watched, signs, &limits, start + n * SECOND), Verdict::Stays);
        }
    }

    #[test]
    fn a_connection_ends_at_its_age_give_or_take_a_half() {
        let limits = Limits { age: Some(20 * SECOND), ..limits() };
        let start = clock::now();
        let mut watched = Watched::new(start);
        let busy = |n| Signs { received: n, ..Signs::default() };
        assert_eq!(look(&mut watched, busy(1), &limits, start + 9 * SECOND), Verdict::Stays);
        let old = Verdict::Drains(Overstay::Old);
        assert_eq!(look(&mut watched, busy(2), &limits, start + 31 * SECOND), old);
    }

    /// The second at which a frame that holds a megabyte is cut off at so many bytes a second.
    fn second_of_cut(signs: impl Fn(u64) -> Signs, wanted: bool, drains: bool) -> Option<u32> {
        let (limits, start) = (limits(), clock::now());
        let mut watched = Watched::new(start);
        let held = Held { bytes: 1 << 20, wanted };
        (0..600).find(|n| {
            let now = start + *n * SECOND;
            let verdict = watched.look(signs((*n).into()), (held, held), drains, &limits, now);
            matches!(verdict, Verdict::Cut(_))
        })
    }

    #[test]
    fn who_holds_room_moves_an_eighth_of_it_in_time_and_in_less_while_others_wait() {
        let sending = |rate| move |n: u64| Signs { pauses: 0, ..within(n * rate) };
        let reading =
            |rate| move |n: u64| Signs { sent: n * rate, client_takes: true, ..Signs::default() };
        let taking =
            |rate| move |n: u64| Signs { given: n * rate, broker_takes: true, ..Signs::default() };
        let (slow, fast) = (12_000, 14_000);
        assert_eq!(second_of_cut(sending(slow), false, false), Some(10));
        assert_eq!(second_of_cut(sending(fast), false, false), None);
        assert_eq!(second_of_cut(reading(slow), false, true), Some(10), "while it drains");
        assert_eq!(second_of_cut(reading(fast), false, false), None);
        assert_eq!(second_of_cut(taking(slow), false, false), Some(10));
        assert_eq!(second_of_cut(sending(fast), true, false), Some(3));
        assert_eq!(second_of_cut(reading(fast * 4), true, false), None);
    }

    #[test]
    fn what_is_read_ahead_is_judged_without_the_request_before() {
        let ahead = |rate| move |n: u64| Signs { ahead: 80_000, ..within(n * rate) };
        assert_eq!(second_of_cut(ahead(900), false, false), Some(10));
        assert_eq!(second_of_cut(ahead(1100), false, false), None);
    }

    #[test]
    fn a_drain_without_a_byte_ends_and_one_with_bytes_goes_on() {
        let limits = Limits { drain: 5 * SECOND, age: Some(20 * SECOND), ..limits() };
        let start = clock::now();
        let old = Verdict::Drains(Overstay::Old);
        let busy = |n| Signs { sent: n, ..Signs::default() };
        let mut watched = Watched::new(start);
        assert_eq!(look(&mut watched, busy(1), &limits, start + 31 * SECOND), old);
        for n in 2..6 {
            let at = start + n * 30 * SECOND;
            assert_eq!(look(&mut watched, busy(n.into()), &limits, at), Verdict::Stays);
        }
        let since = start + 150 * SECOND;
        assert_eq!(look(&mut watched, busy(5), &limits, since + 59 * SECOND), Verdict::Stays);
        assert_eq!(look(&mut watched, busy(5), &limits, since + 60 * SECOND), Verdict::Ends);
        let mut watched = Watched::new(start);
        let idle = Verdict::Drains(Overstay::Idle);
        let limits = Limits { age: None, ..limits };
        assert_eq!(look(&mut watched, busy(0), &limits, start + 60 * SECOND), idle);
        assert_eq!(look(&mut watched, busy(0), &limits, start + 64 * SECOND), Verdict::Stays);
        assert_eq!(look(&mut watched, busy(0), &limits, start + 65 * SECOND), Verdict::Ends);
    }
}
