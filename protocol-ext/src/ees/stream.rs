//! Which batch of a stream may be written now: the state of one stream on one client connection.
//!
//! offer -> (look-up -> offer with its view) -> accept -> parts are written -> settle.
//! Invariants: one batch is outstanding; accepted batches are contiguous; the first one of a
//! connection, and one that is ahead of the last, follows what brokers have; whatever fails is
//! offered again before what follows it.

use std::time::Duration;

use super::position::{Position, SLOTS};
use super::view::{Newest, View};

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look at all physical partitions of the stream, open and sealed, and offer it again.
    LookUp,
    /// As `LookUp`, or as `Refuse`: it is ahead of what came here. Either a batch before it failed,
    /// or the client wrote on elsewhere meanwhile.
    Ahead,
    /// Write it here; then `settle`.
    Accept(Position),
    /// Not now: retriable. It is not the next one, or cannot be known to be.
    Refuse,
}

/// A stream as one client connection sees it.
#[derive(Debug, Default)]
pub struct Stream {
    known: Option<Known>,
    outstanding: bool,
    /// The earliest batch that brokers' rows do not lead up to, and since when it waits.
    waiting: Option<Waiting>,
    /// The newest batch in the sealed segments of each slot.
    sealed: [Option<Position>; SLOTS],
}

#[derive(Debug, Clone, Copy)]
struct Known {
    next: Position,
    /// Records from the oldest row that brokers may have to `next`.
    span: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    first: Position,
    since: Duration,
    last: Duration,
}

/// How long a batch waits that brokers' rows do not lead up to. Either batches before it are on
/// their way, and clients send them again here within their request timeout (30 s); or brokers
/// have forgotten them (they were deleted, or had old timestamps).
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// A pause between two offers of a waiting batch is at most this part of the patience.
const PAUSES: u32 = 6;

/// What lies in sealed segments so far behind is not sent again.
const SEALED_SPAN: u32 = 1 << 30;

/// Rows are this far apart at most: one more lap and producer fields would come again.
const SPAN_MAX: u64 = (1 << 32) - (1 << 25);

impl Stream {
    /// Offers a batch as it came from the client.
    pub fn offer(&mut self, sequence: i32, records: u32) -> Verdict {
        if self.outstanding || records == 0 {
            return Verdict::Refuse;
        }
        let Some(known) = self.known else { return Verdict::LookUp };
        let Some(at) = known.next.nearest(sequence) else { return Verdict::Refuse };
        let ahead = known.next.to(at);
        if ahead > 0 {
            return Verdict::Ahead;
        }
        let span = known.span.saturating_sub(u64::from(ahead.unsigned_abs()));
        if span + u64::from(records) > SPAN_MAX {
            self.known = None;
            return Verdict::LookUp;
        }
        self.accept(at, records, span)
    }

    /// The stream was silent for long before this batch: unless it is the next one, its client
    /// may have gone round half the circle elsewhere, and what is known says nothing of it.
    pub fn wakes(&mut self, sequence: i32) {
        let at = self.known.and_then(|known| known.next.nearest(sequence));
        if at != self.known.map(|known| known.next) {
            (self.known, self.sealed) = (None, Default::default());
        }
    }

    /// Offers it with what a look-up found. `now` only moves forward; `patience` is
    /// [`FORGOTTEN_AFTER`].
    pub fn offer_seen(
        &mut self,
        (sequence, records): (i32, u32),
        view: &View,
        now: Duration,
        patience: Duration,
    ) -> Verdict {
        self.see_sealed(view);
        if self.outstanding || records == 0 {
            return Verdict::Refuse;
        }
        let (at, span, follows) = match view.newest() {
            Newest::Unclear => return Verdict::Refuse,
            Newest::Nothing => {
                let first = self.known.map(|known| known.next);
                let first = first.or(self.waiting.map(|waiting| waiting.first));
                let at = match first {
                    Some(first) => first.nearest(sequence),
                    None => Position::first_lap(sequence),
                };
                // 0 starts a stream, unless it is that of the next lap.
                let starts = first.zip(at).is_none_or(|(first, at)| first.to(at) <= 0);
                (at, 0, sequence == 0 && starts)
            }
            Newest::Batch { at: newest, records: there, committed, span } => {
                let at = newest.nearest(sequence);
                let ahead = at.map_or(0, |at| newest.to(at));
                let next = newest.behind(there);
                if at == Some(next) && !committed {
                    return Verdict::Refuse;
                }
                let span = u64::from(span).saturating_add_signed(i64::from(ahead));
                (at, span, ahead <= 0 || at == Some(next))
            }
        };
        let Some(at) = at else { return Verdict::Refuse };
        if span + u64::from(records) > SPAN_MAX || !(follows || self.is_due(at, now, patience)) {
            return Verdict::Refuse;
        }
        self.accept(at, records, span)
    }

    /// Whether `at` has waited long enough, and nothing before it was offered meanwhile. Clients
    /// offer it again and again; a longer pause means that nobody listened here, and starts anew.
    fn is_due(&mut self, at: Position, now: Duration, patience: Duration) -> bool {
        let fresh = Waiting { first: at, since: now, last: now };
        let waiting = self.waiting.get_or_insert(fresh);
        if at.to(waiting.first) > 0 {
            *waiting = fresh;
            return false;
        }
        if waiting.first != at {
            return false;
        }
        if now.saturating_sub(waiting.last) > patience / PAUSES {
            *waiting = fresh;
        }
        waiting.last = now;
        now.saturating_sub(waiting.since) >= patience
    }

    /// Takes what a look-up found in sealed segments: needed before the first write to a segment
    /// that was opened since the last look-up.
    pub fn see_sealed(&mut self, view: &View) {
        for (slot, newest) in (0..).zip(&mut self.sealed) {
            let seen = view.newest_sealed(slot);
            *newest = match (*newest, seen) {
                (Some(old), Some(seen)) if old.to(seen) < 0 => Some(old),
                (old, seen) => seen.or(old),
            };
        }
    }

    /// Whether the part of a batch for `slot` lies in a sealed segment already: it must not be
    /// written again.
    pub fn is_sealed_in(&self, slot: u8, at: Position) -> bool {
        let newest = self.sealed.get(usize::from(slot)).copied().flatten();
        newest.is_some_and(|newest| is_near(at, newest))
    }

    /// Ends the outstanding batch: `durable` if all its parts are.
    pub fn settle(&mut self, at: Position, durable: bool) {
        self.outstanding = false;
        if let Some(known) = self.known.as_mut().filter(|_| !durable) {
            let back = u64::from(at.forward(known.next));
            *known = Known { next: at, span: known.span.saturating_sub(back) };
        }
    }

    fn accept(&mut self, at: Position, records: u32, span: u64) -> Verdict {
        for newest in &mut self.sealed {
            // Far enough on it would seem to lie ahead.
            *newest = newest.filter(|newest| is_near(*newest, at) || is_near(at, *newest));
        }
        let span = span + u64::from(records);
        self.known = Some(Known { next: at.behind(records), span });
        self.waiting = None;
        self.outstanding = true;
        Verdict::Accept(at)
    }
}

/// Whether `at` is `from`, or lies ahead of it by no more than what is sent again.
fn is_near(from: Position, at: Position) -> bool {
    from.forward(at) < SEALED_SPAN
}

#[cfg(test)]
mod tests {
    use super::super::Row;
    use super::*;

    fn at(sequence: i32) -> Position {
        Position::first_lap(sequence).unwrap()
    }

    fn row(sequence: i32, records: u32) -> Row {
        Row { slot: 0, sealed: false, at: at(sequence), records, committed: true }
    }

    fn seen(stream: &mut Stream, sequence: i32, records: u32, view: &View, s: u64) -> Verdict {
        let now = Duration::from_secs(s);
        stream.offer_seen((sequence, records), view, now, FORGOTTEN_AFTER)
    }

    fn started() -> Stream {
        let mut stream = Stream::default();
        assert_eq!(stream.offer(0, 5), Verdict::LookUp);
        let fresh = seen(&mut stream, 0, 5, &View::default(), 0);
        assert_eq!(fresh, Verdict::Accept(at(0)));
        stream.settle(at(0), true);
        stream
    }

    #[test]
    fn batches_go_one_by_one_and_without_a_gap() {
        let mut stream = started();
        assert_eq!(stream.offer(6, 1), Verdict::Ahead);
        assert_eq!(stream.offer(5, 2), Verdict::Accept(at(5)));
        assert_eq!(stream.offer(7, 2), Verdict::Refuse, "one is outstanding");
        stream.settle(at(5), true);
        assert_eq!(stream.offer(7, 2), Verdict::Accept(at(7)));
    }

    #[test]
    fn nothing_passes_a_batch_that_failed() {
        let mut stream = started();
        assert_eq!(stream.offer(5, 2), Verdict::Accept(at(5)));
        stream.settle(at(5), false);
        assert_eq!(stream.offer(7, 2), Verdict::Ahead);
        for there in [vec![row(0, 5)], vec![row(0, 5), row(5, 1)]] {
            assert_eq!(seen(&mut stream, 7, 2, &View(there), 100), Verdict::Refuse);
        }
        assert_eq!(stream.offer(5, 2), Verdict::Accept(at(5)));
    }

    #[test]
    fn behind_a_retry_only_its_successor_goes() {
        let mut stream = started();
        assert_eq!(stream.offer(0, 3), Verdict::Accept(at(0)));
        stream.settle(at(0), true);
        assert_eq!(stream.offer(5, 2), Verdict::Ahead);
        assert_eq!(stream.offer(3, 2), Verdict::Accept(at(3)));
    }

    #[test]
    fn a_client_that_wrote_elsewhere_goes_on_here() {
        let mut stream = started();
        assert_eq!(stream.offer(9, 2), Verdict::Ahead);
        let mut there = View(vec![row(0, 5), row(5, 4)]);
        there.0[1].committed = false;
        assert_eq!(seen(&mut stream, 9, 2, &there, 100), Verdict::Refuse);
        there.0[1].committed = true;
        assert_eq!(seen(&mut stream, 11, 2, &there, 100), Verdict::Refuse);
        assert_eq!(seen(&mut stream, 9, 2, &there, 100), Verdict::Accept(at(9)));
        stream.settle(at(9), true);
        assert_eq!(stream.offer(11, 2), Verdict::Accept(at(11)));
    }

    #[test]
    fn the_first_batch_on_a_connection_follows_what_brokers_have() {
        let view = View(vec![row(10, 2), row(12, 3), row(12, 1)]);
        let offered = |sequence, view: &View| {
            let mut stream = Stream::default();
            assert_eq!(stream.offer(sequence, 4), Verdict::LookUp);
            seen(&mut stream, sequence, 4, view, 100)
        };
        assert_eq!(offered(16, &view), Verdict::Accept(at(16)));
        assert_eq!(offered(12, &view), Verdict::Accept(at(12)));
        assert_eq!(offered(3, &view), Verdict::Accept(at(3)));
        assert_eq!(offered(15, &view), Verdict::Refuse);
        assert_eq!(offered(20, &view), Verdict::Refuse);
        let mut unsafe_yet = view.clone();
        unsafe_yet.0[1].committed = false;
        assert_eq!(offered(16, &unsafe_yet), Verdict::Refuse);
        assert_eq!(offered(12, &unsafe_yet), Verdict::Accept(at(12)));
    }

    /// Offers a batch every five seconds; when it was accepted.
    fn accepted_after(stream: &mut Stream, sequence: i32, view: &View, from: u64) -> u64 {
        let tries = (from..from + 300).step_by(5);
        let mut due = tries.filter(|s| seen(stream, sequence, 2, view, *s) != Verdict::Refuse);
        due.next().unwrap()
    }

    #[test]
    fn a_batch_that_no_row_leads_up_to_waits_for_what_may_come_before_it() {
        for view in [View::default(), View(vec![row(2, 3)])] {
            let mut stream = Stream::default();
            assert_eq!(seen(&mut stream, 9, 1, &view, 0), Verdict::Refuse);
            assert_eq!(seen(&mut stream, 9, 1, &view, 70), Verdict::Refuse, "nobody listened");
            assert_eq!(seen(&mut stream, 7, 2, &view, 75), Verdict::Refuse);
            assert_eq!(seen(&mut stream, 9, 1, &view, 80), Verdict::Refuse);
            assert_eq!(accepted_after(&mut stream, 7, &view, 80), 135);
            stream.settle(at(7), true);
            assert_eq!(stream.offer(9, 1), Verdict::Accept(at(9)));
        }
    }

    #[test]
    fn a_batch_behind_a_wrap_does_not_pass_one_before_it() {
        let mut stream = Stream::default();
        let nothing = View::default();
        assert_eq!(seen(&mut stream, i32::MAX - 9, 10, &nothing, 0), Verdict::Refuse);
        assert_eq!(seen(&mut stream, 0, 5, &nothing, 0), Verdict::Refuse);
        assert_eq!(seen(&mut stream, 5, 5, &nothing, 70), Verdict::Refuse);
        assert_eq!(accepted_after(&mut stream, i32::MAX - 9, &nothing, 70), 130);
        let mut stream = Stream::default();
        assert_eq!(seen(&mut stream, 7, 5, &nothing, 0), Verdict::Refuse);
        assert_eq!(seen(&mut stream, 0, 7, &nothing, 0), Verdict::Accept(at(0)));
    }

    #[test]
    fn a_wrap_in_mid_batch_goes_on_and_is_no_retry() {
        let view = View(vec![row(i32::MAX - 1, 4)]);
        let mut stream = Stream::default();
        let next = at(i32::MAX - 1).behind(4);
        assert_eq!(next.sequence(), 2);
        assert_eq!(seen(&mut stream, 3, 1, &view, 0), Verdict::Refuse);
        assert_eq!(seen(&mut stream, 2, 1, &view, 0), Verdict::Accept(next));
        stream.settle(next, true);
        assert_eq!(stream.offer(3, 1), Verdict::Accept(next.behind(1)));
    }

    #[test]
    fn fields_of_two_laps_ago_are_not_used_while_brokers_know_them() {
        let mut stream = started();
        let (mut sequence, batch) = (5_u32, 1 << 24);
        let mut accepted = 0;
        while let Verdict::Accept(at) = stream.offer(sequence.cast_signed() & i32::MAX, batch) {
            stream.settle(at, true);
            sequence = sequence.wrapping_add(batch);
            accepted += 1;
        }
        assert_eq!(accepted, 253, "two laps are 256 such batches");
        assert_eq!(stream.offer(sequence.cast_signed() & i32::MAX, batch), Verdict::LookUp);
    }

    #[test]
    fn a_batch_ahead_does_not_start_the_next_lap() {
        let mut stream = Stream::default();
        let last = at(i32::MAX - 4);
        let view = View(vec![row(i32::MAX - 9, 5)]);
        assert_eq!(seen(&mut stream, last.sequence(), 5, &view, 0), Verdict::Accept(last));
        stream.settle(last, false);
        // Brokers have forgotten all of it.
        let nothing = View::default();
        assert_eq!(stream.offer(0, 3), Verdict::Ahead);
        assert_eq!(seen(&mut stream, 0, 3, &nothing, 1), Verdict::Refuse);
        assert_eq!(stream.offer(last.sequence(), 5), Verdict::Accept(last));
        stream.settle(last, true);
        assert_eq!(stream.offer(0, 3), Verdict::Accept(last.behind(5)));
    }

    #[test]
    fn a_stream_that_was_silent_is_looked_up_unless_it_goes_on() {
        let mut stream = started();
        stream.wakes(5);
        assert_eq!(stream.offer(5, 1), Verdict::Accept(at(5)));
        stream.settle(at(5), true);
        stream.wakes(0);
        assert_eq!(stream.offer(0, 5), Verdict::LookUp);
        assert_eq!(seen(&mut stream, 0, 5, &View(vec![row(5, 1)]), 0), Verdict::Accept(at(0)));
    }

    #[test]
    fn what_a_sealed_segment_has_is_forgotten_before_it_seems_to_lie_ahead() {
        let mut stream = started();
        stream.see_sealed(&View(vec![Row { sealed: true, ..row(0, 5) }]));
        let (mut next, batch) = (at(5), 1 << 24);
        for _ in 0..200 {
            assert_eq!(stream.offer(next.sequence(), batch), Verdict::Accept(next));
            assert!(!stream.is_sealed_in(0, next), "{next:?}");
            stream.settle(next, true);
            next = next.behind(batch);
        }
        // Nor on another connection, which sees it anew.
        let far = at(0).behind((1 << 31) + 9);
        let between = (1..=128).map(|n| Row { at: at(0).behind(n << 24), ..row(0, 5) });
        let first = Row { sealed: true, ..row(0, 5) };
        let mut rows = View(between.chain([first, Row { at: far, ..first }]).collect());
        rows.0.last_mut().unwrap().sealed = false;
        let mut other = Stream::default();
        other.see_sealed(&rows);
        assert!(other.is_sealed_in(0, at(0)) && !other.is_sealed_in(0, far));
        rows.0.last_mut().unwrap().sealed = true;
        let mut other = Stream::default();
        other.see_sealed(&rows);
        assert!(other.is_sealed_in(0, far), "the newest one counts");
    }

    #[test]
    fn what_a_sealed_segment_has_is_not_written_again() {
        let mut stream = Stream::default();
        let sealed = |sequence| Row { sealed: true, slot: 3, ..row(sequence, 1) };
        stream.see_sealed(&View(vec![sealed(8), sealed(6), row(20, 1)]));
        assert!(stream.is_sealed_in(3, at(8)) && stream.is_sealed_in(3, at(2)));
        assert!(!stream.is_sealed_in(3, at(9)) && !stream.is_sealed_in(0, at(2)));
        stream.see_sealed(&View(vec![sealed(7)]));
        assert!(stream.is_sealed_in(3, at(8)));
    }
}
