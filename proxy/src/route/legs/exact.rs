//! Produce with sequences: each part is written exactly once (epoch-encoded sequences,
//! `protocol_ext::ees`).
//!
//! offer -> look-up for streams that are new here, or that went on elsewhere -> split under our
//! own producer fields -> sizes -> sent, in `deliver.rs` -> settle. Invariants: a stream's next
//! batch is sent only when all parts of the one before are durable; success is told only of what is
//! durable in all its parts.

use std::collections::HashMap;
use std::time::Duration;

use protocol_ext::batch::OpenBatch;
use protocol_ext::ees::{
    FORGOTTEN_AFTER, PartAnswer, Position, Row, SLOTS, Stream, StreamId, Verdict, View,
};
use protocol_ext::split::{SplitOptions, split};
use protocol_ext::wire::WireError;

use super::deliver::{Gate, Part};
use super::look_up::{Asked, Found, Place};
use super::produce::{CORRUPT, MESSAGE_TOO_LARGE, Outcome, Outcomes, TIMED_OUT};
use super::{Legs, Ways};
use crate::limits::{DISPATCH_MAX, RETRIES_MAX, STREAMS_MAX};
use crate::metrics::{Metrics, PartResult};
use crate::net::Line;
use crate::route::chain::Stretch;
use crate::route::placement::Placement;
use crate::route::producers::Writer;
use crate::route::virtual_topics::Routed;
use crate::{clock, fault};

/// Streams of one connection, by virtual topic and logical partition.
pub(super) type Streams = HashMap<Key, Known>;

/// A stream, and by slot the segment up to which look-ups have covered all before it: that one may
/// be written.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub stream: Stream,
    pub covered: [u32; SLOTS],
    /// When it was last offered a batch.
    used: Duration,
    /// Until then a batch that is ahead is not looked up.
    rests: Duration,
    /// A batch of which a part was sent and not answered: it may be written yet.
    pub unanswered: Option<Position>,
    /// By slot the producer id of the last part.
    ids: [i64; SLOTS],
}

impl Known {
    /// A batch of this sequence is offered now.
    fn wakes(&mut self, sequence: i32, now: Duration) {
        if now.saturating_sub(self.used) > SILENCE_MAX {
            self.stream.wakes(sequence);
        }
        self.used = now;
    }

    /// Brokers are asked about it now.
    fn looks(&mut self, now: Duration) -> Verdict {
        self.rests = now + LOOK_PAUSE;
        Verdict::LookUp
    }

    /// Whether a batch that is ahead is worth a question: its client may have written on elsewhere.
    fn may_look_again(&self, now: Duration) -> bool {
        now >= self.rests && !fault::on("ahead-for-ever")
    }

    /// Notes what became of a batch.
    fn settle(&mut self, at: Position, code: i16, is_open: bool) {
        self.stream.settle(at, code == 0);
        let stays = code != 0 && !fault::on("unanswered-forgotten");
        let before = self.unanswered.filter(|before| *before == at && stays);
        self.unanswered = is_open.then_some(at).or(before);
        if code != 0 {
            // It comes again, before what follows it.
            self.rests = clock::since_boot() + FAILURE_PAUSE;
        }
    }
}

/// So long behind its last batch a stream's client may have written far on elsewhere.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Least time between two questions about a stream.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Least time between a batch that failed and a question about those behind it.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

pub(super) type Key = (usize, i32, StreamId);

/// A client batch with sequences.
pub(super) struct Batch<'a> {
    /// Topic and partition of the request.
    pub of: (usize, usize),
    pub routed: &'a Routed,
    /// Logical partition, its slot, and partition within the slot.
    pub q: i32,
    pub slot: usize,
    pub partition: i32,
    pub id: StreamId,
    pub open: OpenBatch,
}

impl Batch<'_> {
    pub(super) fn key(&self) -> Key {
        (self.routed.number, self.q, self.id)
    }

    /// The question about a physical partition of its stream.
    pub(super) fn asked(&self, stretch: Stretch<'_>) -> Asked {
        ((stretch.topic.clone(), self.partition), stretch.length())
    }

    /// What was found of its stream there; `None` if it was not answered.
    pub(super) fn rows<'f>(
        &self,
        slot: u8,
        stretch: Stretch<'_>,
        found: &'f HashMap<Place, Found>,
    ) -> Option<impl Iterator<Item = Row> + use<'f>> {
        let (id, sealed) = (self.id, stretch.end.is_some());
        let Found { rows, committed } = found.get(&(stretch.topic.clone(), self.partition))?;
        let own = rows.iter().filter(move |(of, ..)| *of == id);
        let committed = *committed;
        Some(own.map(move |(_, at, records)| Row {
            slot,
            sealed,
            at: *at,
            records: *records,
            committed,
        }))
    }

    /// Who writes it, and with which epoch.
    fn writer(&self) -> (Writer, i16) {
        let header = self.open.header();
        let partition = if fault::on("epoch-of-another-partition") { 0 } else { self.q };
        ((self.routed.number, partition, header.producer_id), header.producer_epoch)
    }

    /// Base sequence and records.
    fn sequence(&self) -> (i32, u32) {
        let header = self.open.header();
        (header.base_sequence, header.records_count.cast_unsigned())
    }

    /// All physical partitions of its stream, open and sealed, by slot.
    fn stretches<'p>(&self, all: &'p Placement) -> impl Iterator<Item = (u8, Stretch<'p>)> {
        let chains = (0..self.routed.physical.len()).map(|slot| all.chain(self.routed, slot));
        let partition = self.partition;
        (0..).zip(chains).flat_map(move |(slot, chain)| {
            let stretches = chain.into_iter().flat_map(move |chain| chain.stretches(partition));
            stretches.map(move |stretch| (slot, stretch))
        })
    }
}

impl Batch<'_> {
    /// The sealed segments of a slot that are looked at before the first write to the open one:
    /// those that were not sealed at the last look, and all that a retry may lie in.
    pub(super) fn sealed_stretches<'p>(
        &self,
        placement: &'p Placement,
        slot: u8,
        covered: u32,
    ) -> impl Iterator<Item = Stretch<'p>> + use<'p> {
        let horizon = clock::unix_ms().saturating_sub(RETRY_HORIZON_MS);
        let chain = placement.chain(self.routed, usize::from(slot));
        let stretches = chain.into_iter().flat_map({
            let partition = self.partition;
            move |chain| chain.stretches(partition)
        });
        stretches.filter(move |stretch| {
            let sealed = stretch.sealed_at_ms;
            sealed.is_some_and(|at| stretch.number >= covered || at >= horizon)
        })
    }
}

/// What brokers say to a producer whose next epoch has written there already.
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// Clients send a batch again for so long at most.
const RETRY_HORIZON_MS: u64 = 3_600_000;

impl Legs {
    /// Writes batches with sequences and notes their outcomes.
    pub(super) async fn exact(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        client: Option<&Line>,
        batches: Vec<Batch<'_>>,
        outcomes: &mut Outcomes,
    ) -> Result<(), WireError> {
        let producers = &ways.routed.producers;
        let placement = ways.routed.placements().now();
        let (batches, old): (Vec<_>, Vec<_>) = batches.into_iter().partition(|batch| {
            let (writer, epoch) = batch.writer();
            producers.saw(writer, epoch)
        });
        for batch in old {
            metrics.part(PartResult::Refused);
            let outcome = outcomes.get_mut(&batch.of);
            outcome.into_iter().for_each(|outcome| outcome.code = INVALID_PRODUCER_EPOCH);
        }
        let writers = batches.iter().map(Batch::writer).collect();
        let read_at = clock::since_boot();
        let until = read_at + fault::time("dispatch-ms", DISPATCH_MAX);
        let gate = Gate { until, client, producers, writers };
        let accepted = self.accept((ways, &placement), metrics, batches, outcomes).await?;
        let (mut parts, mut codes) = (Vec::new(), vec![0; accepted.len()]);
        for (n, (batch, at)) in accepted.iter().enumerate() {
            match cut(n, batch, *at) {
                Ok(cut) => parts.extend(cut),
                Err(code) => codes[n] = code,
            }
        }
        self.refuse_large((ways, &placement), metrics, &accepted, (&mut parts, &mut codes)).await?;
        self.note_entries(metrics, &accepted, &parts);
        let patience = read_at + RETRIES_MAX;
        self.deliver(ways, metrics, (&gate, patience), (&accepted, &mut parts)).await?;
        let open = |n| parts.iter().any(|part| part.batch == n && part.is_open());
        for (n, code) in codes.iter_mut().enumerate().filter(|(_, code)| **code == 0) {
            *code = result(parts.iter().filter(|part| part.batch == n));
            if *code == MESSAGE_TOO_LARGE {
                let is_open = self.may_be_written(n, &accepted[n], &parts);
                *code = self.told_of_large(ways, metrics, &accepted[n], is_open).await?;
            }
        }
        for (n, (batch, at)) in accepted.iter().enumerate() {
            let own = parts.iter().filter(|part| part.batch == n);
            let code = codes[n];
            if let Some(known) = self.streams.get_mut(&batch.key()) {
                known.settle(*at, code, open(n));
            }
            if let Some(outcome) = outcomes.get_mut(&batch.of) {
                outcome.code = code;
                tell_offset(outcome, own);
            }
        }
        Ok(())
    }

    /// What brokers have of the streams of these batches.
    pub(super) async fn found<'b, 'a: 'b>(
        &mut self,
        (ways, placement): (Ways<'_>, &Placement),
        metrics: &Metrics,
        batches: impl Iterator<Item = &'b Batch<'a>>,
    ) -> Result<HashMap<Place, Found>, WireError> {
        let asked = batches
            .flat_map(|batch| batch.stretches(placement).map(|(_, stretch)| batch.asked(stretch)));
        let mut asked: Vec<Asked> = asked.collect();
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        metrics.producer_look_ups.inc();
        self.look_up(ways, &asked).await
    }

    /// Counts what brokers will remember beyond what they have.
    fn note_entries(
        &mut self,
        metrics: &Metrics,
        accepted: &[(Batch<'_>, Position)],
        parts: &[Part],
    ) {
        for part in parts {
            let (batch, at) = &accepted[part.batch];
            let id = batch.id.fields(*at).id;
            let Some(known) = self.streams.get_mut(&batch.key()) else { continue };
            if std::mem::replace(&mut known.ids[usize::from(part.slot)], id) != id {
                metrics.producer_entries.inc();
            }
        }
    }

    /// Offers all batches; those that may not go now are told so.
    async fn accept<'a>(
        &mut self,
        (ways, placement): (Ways<'_>, &Placement),
        metrics: &Metrics,
        batches: Vec<Batch<'a>>,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<(Batch<'a>, Position)>, WireError> {
        if self.streams.len() + batches.len() > STREAMS_MAX {
            self.streams = HashMap::new();
        }
        let mut verdicts = Vec::with_capacity(batches.len());
        let now = clock::since_boot();
        for batch in &batches {
            let known = self.streams.entry(batch.key()).or_default();
            let (sequence, records) = batch.sequence();
            known.wakes(sequence, now);
            let verdict = known.stream.offer(sequence, records);
            verdicts.push(match verdict {
                Verdict::LookUp if fault::on("no-look-up") => blindly(&mut known.stream, batch),
                Verdict::Refuse | Verdict::Ahead if fault::on("pass-a-failed-batch") => {
                    known.stream = Stream::default();
                    blindly(&mut known.stream, batch)
                }
                Verdict::LookUp => known.looks(now),
                Verdict::Ahead if known.may_look_again(now) => known.looks(now),
                verdict => verdict,
            });
        }
        let new = batches.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::LookUp);
        let new = new.map(|(batch, _)| batch);
        let found = self.found((ways, placement), metrics, new).await?;
        let mut accepted = Vec::with_capacity(batches.len());
        for (batch, verdict) in batches.into_iter().zip(verdicts) {
            let known = self.streams.entry(batch.key()).or_default();
            let looked = verdict == Verdict::LookUp;
            let seen = if looked { view(&batch, placement, &found) } else { None };
            let verdict = match (verdict, seen) {
                (Verdict::LookUp, Some(view)) => {
                    // What is placed from now on is looked at before the first write to it.
                    for (slot, stretch) in batch.stretches(placement) {
                        known.covered[usize::from(slot)] = stretch.number;
                    }
                    let now = clock::since_boot();
                    known.stream.offer_seen(batch.sequence(), &view, now, FORGOTTEN_AFTER)
                }
                (verdict, _) => verdict,
            };
            match (verdict, outcomes.get_mut(&batch.of)) {
                (Verdict::Accept(at), _) => accepted.push((batch, at)),
                (Verdict::LookUp | Verdict::Ahead | Verdict::Refuse, outcome) => {
                    metrics.part(PartResult::Deferred);
                    outcome.into_iter().for_each(|outcome| outcome.code = TIMED_OUT);
                }
            }
        }
        Ok(accepted)
    }
}

fn blindly(stream: &mut Stream, batch: &Batch<'_>) -> Verdict {
    let zero = Duration::ZERO;
    stream.offer_seen(batch.sequence(), &View::default(), zero, zero)
}

/// What was found of a batch's stream; `None` if a partition is missing.
pub(super) fn view(
    batch: &Batch<'_>,
    placement: &Placement,
    found: &HashMap<Place, Found>,
) -> Option<View> {
    let mut rows = Vec::new();
    for (slot, stretch) in batch.stretches(placement) {
        rows.extend(batch.rows(slot, stretch, found)?);
    }
    Some(View(rows))
}

/// Splits a batch under our own producer fields.
fn cut(n: usize, batch: &Batch<'_>, at: Position) -> Result<Vec<Part>, i16> {
    let options = SplitOptions { producer: Some(batch.id.fields(at)) };
    let base = batch.open.header().base_timestamp;
    let split = split(&batch.open, &options, |record| batch.routed.slot_of(record, base));
    let split = split.map_err(|_| CORRUPT)?;
    batch.routed.count(&split);
    let whole = split.len() == 1;
    let parts = split.into_iter().map(|sub| {
        let native = whole && usize::from(sub.slot) == batch.slot;
        Part::new(n, sub.slot, sub.batch, native)
    });
    Ok(parts.collect())
}

/// What is to be told of a batch with these parts.
fn result<'a>(parts: impl Iterator<Item = &'a Part>) -> i16 {
    let mut code = 0;
    for part in parts {
        match part.ended {
            Some(answer) if answer.is_durable() => {}
            Some(PartAnswer::Refused(refused)) => return refused,
            Some(PartAnswer::TooLarge) => return MESSAGE_TOO_LARGE,
            _ => code = TIMED_OUT,
        }
    }
    if fault::on("partial-success") { 0 } else { code }
}

fn tell_offset<'a>(outcome: &mut Outcome, parts: impl Iterator<Item = &'a Part>) {
    for part in parts.filter(|part| part.native) {
        if let Some(PartAnswer::New(offset) | PartAnswer::Duplicate(offset)) = part.ended {
            outcome.answer.base_offset = part.base() + offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn brokers_are_asked_about_a_stream_now_and_then() {
        let (mut known, now) = (Known::default(), clock::since_boot());
        assert!(known.may_look_again(now), "a new one");
        assert_eq!(known.looks(now), Verdict::LookUp);
        assert!(!known.may_look_again(now));
        assert!(!known.may_look_again(now + LOOK_PAUSE - MOMENT), "too soon");
        assert!(known.may_look_again(now + LOOK_PAUSE));
    }

    #[test]
    fn what_is_behind_a_batch_that_failed_rests() {
        let at = Position::first_lap(7).expect("a position");
        let (mut failed, mut written) = (Known::default(), Known::default());
        let before = clock::since_boot();
        failed.settle(at, TIMED_OUT, false);
        written.settle(at, 0, false);
        let after = clock::since_boot();
        assert!(!failed.may_look_again(before + FAILURE_PAUSE - MOMENT), "it comes again first");
        assert!(failed.may_look_again(after + FAILURE_PAUSE));
        assert!(written.may_look_again(before), "nothing failed");
    }

    #[test]
    fn a_batch_without_an_answer_stays_so_until_it_is_durable() {
        let at = Position::first_lap(7).expect("a position");
        let mut known = Known::default();
        known.settle(at, TIMED_OUT, true);
        assert_eq!(known.unanswered, Some(at));
        known.settle(at, TIMED_OUT, false);
        assert_eq!(known.unanswered, Some(at), "it was answered when it came again");
        known.settle(at, 0, false);
        assert_eq!(known.unanswered, None);
        known.settle(at, TIMED_OUT, true);
        known.settle(at.behind(4), TIMED_OUT, false);
        assert_eq!(known.unanswered, None, "another one follows: it is durable");
    }
}
