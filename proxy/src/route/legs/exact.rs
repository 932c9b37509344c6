//! Produce with sequences: each part is written exactly once (epoch-encoded sequences,
//! `protocol_ext::ees`).
//!
//! offer -> look-up for streams that are new here -> split under our own producer fields -> send,
//! again and again while the gate is open -> settle. Invariants: a stream's next batch is sent only
//! when all parts of the one before are durable; what was not sent while the gate was open is
//! never sent; success is told only of what is durable in all its parts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use protocol_ext::batch::OpenBatch;
use protocol_ext::ees::{
    FORGOTTEN_AFTER, PartAnswer, Position, Row, Stream, StreamId, Verdict, View, judge,
};
use protocol_ext::split::{SplitOptions, split};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::look_up::{Found, Place};
use super::produce::{CORRUPT, LEG_VERSION, Outcome, Outcomes, TIMED_OUT, leg_body};
use super::{Leg, LegError, Legs, Ways, by_leader, doubts_leader};
use crate::limits::{DISPATCH_MAX, RETRIES_MAX, STREAMS_MAX};
use crate::metrics::{Metrics, PartResult};
use crate::net::Line;
use crate::route::producers::Producers;
use crate::route::virtual_topics::Routed;
use crate::{clock, fault, random};

/// First pause before a part is sent again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// The broker's time for one try, in milliseconds.
const TRY_MS: i32 = 4_000;
const MESSAGE_TOO_LARGE: i16 = 10;

/// Streams of one connection, by virtual topic and logical partition.
pub(super) type Streams = HashMap<Key, Stream>;
pub(super) type Key = (usize, i32, StreamId);

/// Until when, and for whom, parts may still be sent.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    until: Duration,
    client: Option<&'a Line>,
    producers: &'a Producers,
    writers: HashSet<(i64, i16)>,
}

impl Gate<'_> {
    /// Asked right before bytes go to a broker.
    pub(super) fn is_open(&self) -> bool {
        if fault::on("dispatch-late") {
            return true;
        }
        let newest = self.writers.iter().all(|(id, epoch)| self.producers.is_newest(*id, *epoch));
        let there = self.client.is_none_or(|client| !client.is_hung_up());
        newest && clock::since_boot() <= self.until && there
    }
}

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
    fn key(&self) -> Key {
        (self.routed.number, self.q, self.id)
    }

    /// Base sequence and records.
    fn sequence(&self) -> (i32, u32) {
        let header = self.open.header();
        (header.base_sequence, header.records_count.cast_unsigned())
    }

    /// All physical partitions of its stream, by slot.
    fn places(&self) -> impl Iterator<Item = (u8, Place)> {
        let places = self.routed.physical.iter().map(|topic| (topic.clone(), self.partition));
        (0..).zip(places)
    }
}

struct Part {
    /// Which of the accepted batches.
    batch: usize,
    physical: Arc<str>,
    partition: i32,
    bytes: Bytes,
    /// The offset it gets is the logical one.
    native: bool,
    ended: Option<PartAnswer>,
}

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
        let mut writers = HashSet::new();
        for batch in &batches {
            let header = batch.open.header();
            producers.saw(header.producer_id, header.producer_epoch);
            writers.insert((header.producer_id, header.producer_epoch));
        }
        let read_at = clock::since_boot();
        let gate = Gate { until: read_at + DISPATCH_MAX, client, producers, writers };
        let accepted = self.accept(ways, metrics, batches, outcomes).await?;
        let (mut parts, mut codes) = (Vec::new(), vec![0; accepted.len()]);
        for (n, (batch, at)) in accepted.iter().enumerate() {
            match cut(n, batch, *at) {
                Ok(cut) => parts.extend(cut),
                Err(code) => codes[n] = code,
            }
        }
        let records = accepted.iter().map(|(batch, _)| u64::from(batch.sequence().1)).sum();
        metrics.routed_records.inc_by(records);
        self.deliver(ways, metrics, &gate, read_at + RETRIES_MAX, &mut parts).await?;
        for (n, (batch, at)) in accepted.iter().enumerate() {
            let own = parts.iter().filter(|part| part.batch == n);
            let code = if codes[n] == 0 { result(own.clone()) } else { codes[n] };
            if let Some(stream) = self.streams.get_mut(&batch.key()) {
                stream.settle(*at, code == 0);
            }
            if let Some(outcome) = outcomes.get_mut(&batch.of) {
                outcome.code = code;
                tell_offset(outcome, own);
            }
        }
        Ok(())
    }

    /// Offers all batches; those that may not go now are told so.
    async fn accept<'a>(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        batches: Vec<Batch<'a>>,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<(Batch<'a>, Position)>, WireError> {
        if self.streams.len() + batches.len() > STREAMS_MAX {
            self.streams.clear();
        }
        let mut verdicts = Vec::with_capacity(batches.len());
        for batch in &batches {
            let stream = self.streams.entry(batch.key()).or_default();
            let (sequence, records) = batch.sequence();
            let verdict = stream.offer(sequence, records);
            verdicts.push(match verdict {
                Verdict::LookUp if fault::on("no-look-up") => blindly(stream, batch),
                Verdict::Refuse if fault::on("pass-a-failed-batch") => {
                    *stream = Stream::default();
                    blindly(stream, batch)
                }
                verdict => verdict,
            });
        }
        let new = batches.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::LookUp);
        let mut places: Vec<Place> = new.flat_map(|(b, _)| b.places()).map(|(_, p)| p).collect();
        places.sort_unstable();
        places.dedup();
        let found = if places.is_empty() {
            HashMap::new()
        } else {
            metrics.producer_look_ups.inc();
            self.look_up(ways, &places).await?
        };
        let mut accepted = Vec::with_capacity(batches.len());
        for (batch, verdict) in batches.into_iter().zip(verdicts) {
            let stream = self.streams.entry(batch.key()).or_default();
            let seen = if verdict == Verdict::LookUp { view(&batch, &found) } else { None };
            let verdict = match (verdict, seen) {
                (Verdict::LookUp, Some(view)) => {
                    let now = clock::since_boot();
                    stream.offer_seen(batch.sequence(), &view, now, FORGOTTEN_AFTER)
                }
                (verdict, _) => verdict,
            };
            match (verdict, outcomes.get_mut(&batch.of)) {
                (Verdict::Accept(at), _) => accepted.push((batch, at)),
                (Verdict::LookUp | Verdict::Refuse, outcome) => {
                    metrics.part(PartResult::Deferred);
                    outcome.into_iter().for_each(|outcome| outcome.code = TIMED_OUT);
                }
            }
        }
        Ok(accepted)
    }

    /// Sends parts until all have ended, the gate shuts or patience runs out.
    async fn deliver(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        gate: &Gate<'_>,
        patience: Duration,
        parts: &mut [Part],
    ) -> Result<(), WireError> {
        let mut pause = PAUSE_MIN;
        loop {
            let mut busy = HashSet::new();
            let round = parts.iter().enumerate().filter(|(_, part)| {
                part.ended.is_none() && busy.insert((part.physical.clone(), part.partition))
            });
            let round: Vec<usize> = round.map(|(n, _)| n).collect();
            if round.is_empty() {
                return Ok(());
            }
            self.round(ways, metrics, gate, parts, &round).await?;
            let again = round.iter().any(|n| parts[*n].ended.is_none());
            if again && (clock::since_boot() >= patience || !gate.is_open()) {
                return Ok(());
            }
            if again {
                tokio::time::sleep(random::jittered(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// Sends parts of different physical partitions, once.
    async fn round(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        gate: &Gate<'_>,
        parts: &mut [Part],
        round: &[usize],
    ) -> Result<(), WireError> {
        let places = round.iter().map(|n| (*n, parts[*n].physical.clone(), parts[*n].partition));
        let (led, _) = by_leader(ways.topics, places.collect(), |(_, p, q)| (p, *q)).await;
        let mut legs = Vec::with_capacity(led.len());
        for (node, places) in &led {
            let batches = places.iter().map(|(n, p, q)| (p.clone(), *q, parts[*n].bytes.clone()));
            let body = leg_body(ALL_REPLICAS, TRY_MS, batches)?;
            let limit = ways.limits.connect;
            legs.push(Leg { node: *node, key: api::PRODUCE, version: LEG_VERSION, body, limit });
        }
        let ran = self.run_gated(ways, legs, Some(gate)).await;
        for (places, ran) in led.into_values().zip(ran.answers) {
            let answer: Option<ProduceResponse> = match ran {
                Ok(body) => guard::response(api::PRODUCE, LEG_VERSION, &body, 0).ok(),
                Err(LegError::NotSent(_) | LegError::Unknown(_)) => None,
            };
            for (n, ..) in places {
                let part = &mut parts[n];
                let row = answer.as_ref().and_then(|answer| find(answer, part));
                let judged = row.map_or(PartAnswer::Again, |row| {
                    judge(row.error_code, row.base_offset, row.log_append_time_ms)
                });
                note(metrics, part, judged);
                if row.is_none_or(|row| doubts_leader(row.error_code)) {
                    ways.topics.doubt(&part.physical);
                }
                if judged != PartAnswer::Again {
                    part.ended = Some(judged);
                }
            }
        }
        Ok(())
    }
}

/// Acks of the legs: the brokers' answers mean something only if all replicas in sync have it.
const ALL_REPLICAS: i16 = -1;

fn blindly(stream: &mut Stream, batch: &Batch<'_>) -> Verdict {
    let zero = Duration::ZERO;
    stream.offer_seen(batch.sequence(), &View::default(), zero, zero)
}

/// What was found of a batch's stream; `None` if a partition is missing.
fn view(batch: &Batch<'_>, found: &HashMap<Place, Found>) -> Option<View> {
    let mut rows = Vec::new();
    for (slot, place) in batch.places() {
        let found = found.get(&place)?;
        let own = found.rows.iter().filter(|(id, ..)| *id == batch.id);
        rows.extend(own.map(|(_, at, records)| Row {
            slot,
            sealed: false,
            at: *at,
            records: *records,
            committed: found.committed,
        }));
    }
    Some(View(rows))
}

/// Splits a batch under our own producer fields.
fn cut(n: usize, batch: &Batch<'_>, at: Position) -> Result<Vec<Part>, i16> {
    let options = SplitOptions { producer: Some(batch.id.fields(at)) };
    let split = split(&batch.open, &options, |record| batch.routed.slot_of(record));
    let split = split.map_err(|_| CORRUPT)?;
    let whole = split.len() == 1;
    let parts = split.into_iter().map(|sub| {
        let slot = usize::from(sub.slot);
        Part {
            batch: n,
            physical: batch.routed.physical[slot].clone(),
            partition: batch.partition,
            bytes: sub.batch,
            native: whole && slot == batch.slot,
            ended: None,
        }
    });
    Ok(parts.collect())
}

/// What the client is told of a batch with these parts.
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
            outcome.answer.base_offset = offset;
        }
    }
}

fn note(metrics: &Metrics, part: &Part, answer: PartAnswer) {
    metrics.part(match answer {
        PartAnswer::New(_) => PartResult::New,
        PartAnswer::Duplicate(_) => PartResult::Duplicate,
        PartAnswer::Older => PartResult::Older,
        PartAnswer::Again => PartResult::Again,
        PartAnswer::TooLarge | PartAnswer::Refused(_) => PartResult::Refused,
        PartAnswer::Contradiction => {
            let Part { physical, partition, .. } = part;
            tracing::error!(%physical, partition, "same position, another count of records");
            PartResult::Contradiction
        }
    });
}

fn find<'a>(answer: &'a ProduceResponse, part: &Part) -> Option<&'a PartitionProduceResponse> {
    let topics = answer.responses.iter().filter(|t| *t.name.0 == *part.physical);
    topics.flat_map(|t| &t.partition_responses).find(|p| p.index == part.partition)
}
