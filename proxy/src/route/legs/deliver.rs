//! Sends the parts of batches with sequences, each to the open segment of its slot, until all have
//! ended or the gate shuts.
//!
//! target -> (first write to a segment: look-up of those sealed before it) -> send -> judge, and
//! again. A part that a sealed segment has already is durable; one that a sealed segment refused
//! waits for the next. Invariants: what was not sent while the gate was open is never sent; nothing
//! is written to a segment before those before it were looked at.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use protocol_ext::ees::{PartAnswer, Position, View, judge};
use protocol_ext::split::Pieces;
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::exact::Batch;
use super::look_up::Asked;
use super::produce_body::{LEG_VERSION, leg_body};
use super::sealed::Target;
use super::{Leg, LegError, Legs, Ways, by_leader, doubts_leader};
use crate::metrics::{Metrics, PartResult};
use crate::net::Line;
use crate::route::placement::Placement;
use crate::route::producers::{Producers, Writer};
use crate::{clock, fault, random};

/// First pause before a part is sent again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// The broker's time for one try, in milliseconds.
const TRY_MS: i32 = 4_000;
/// Acks of the legs: the brokers' answers mean something only if all replicas in sync have it.
const ALL_REPLICAS: i16 = -1;

/// Until when, and for whom, parts may still be sent.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    pub until: Duration,
    pub client: Option<&'a Line>,
    pub producers: &'a Producers,
    pub writers: HashSet<(Writer, i16)>,
}

impl Gate<'_> {
    /// Asked right before bytes go to a broker.
    pub(super) fn is_open(&self) -> bool {
        if fault::on("dispatch-late") {
            return true;
        }
        let newest = self.writers.iter().all(|(id, epoch)| self.producers.is_newest(*id, *epoch));
        let newest = newest || fault::on("zombie-epoch-sent");
        let in_time = clock::since_boot() <= self.until || fault::on("dispatch-unlimited");
        newest && in_time && self.client.is_none_or(|client| !client.is_hung_up())
    }
}

/// The part of a batch that goes to one slot.
pub(super) struct Part {
    /// Which of the accepted batches.
    pub batch: usize,
    pub slot: u8,
    bytes: Pieces,
    /// The offset it gets is that of its logical partition.
    pub native: bool,
    to: Option<Target>,
    /// A segment that refused it since it is sealed.
    sealed: Option<u32>,
    /// It was sent once and not answered: a broker may write it yet.
    unanswered: bool,
    pub ended: Option<PartAnswer>,
}

impl Part {
    pub(super) fn new(batch: usize, slot: u8, bytes: Pieces, native: bool) -> Self {
        Self { batch, slot, bytes, native, to: None, sealed: None, unanswered: false, ended: None }
    }

    /// Whether a broker may write it yet.
    pub(super) fn is_open(&self) -> bool {
        let is_durable = self.ended.is_some_and(PartAnswer::is_durable);
        self.unanswered && !is_durable && !fault::on("lost-answers-closed")
    }

    /// Bytes of its batch.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Logical offset of physical offset 0 where it was written.
    pub(super) fn base(&self) -> i64 {
        self.to.as_ref().map_or(0, |to| to.base)
    }

    /// The segment to send it to, if it waits for none.
    fn target(&self) -> Option<&Target> {
        let to = self.to.as_ref().filter(|_| self.ended.is_none())?;
        self.sealed.is_none_or(|sealed| to.number > sealed).then_some(to)
    }
}

/// Accepted batches.
type Accepted<'a> = [(Batch<'a>, Position)];

impl Legs {
    /// Sends parts until all have ended, the gate shuts or patience runs out.
    pub(super) async fn deliver(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        (gate, patience): (&Gate<'_>, Duration),
        (accepted, parts): (&Accepted<'_>, &mut [Part]),
    ) -> Result<(), WireError> {
        let mut pause = PAUSE_MIN;
        loop {
            let placement = ways.routed.placements().now();
            for part in parts.iter_mut().filter(|part| part.ended.is_none()) {
                let (batch, slot) = (&accepted[part.batch].0, usize::from(part.slot));
                part.to = Target::open(&placement, batch.routed, slot, batch.partition);
            }
            self.cross(ways, metrics, &placement, (accepted, parts)).await?;
            let round = self.next_round(accepted, parts);
            if round.is_empty() && parts.iter().all(|part| part.ended.is_some()) {
                return Ok(());
            }
            self.round(ways, metrics, gate, (accepted, parts), &round).await?;
            let again = round.is_empty() || round.iter().any(|n| parts[*n].ended.is_none());
            if again && (clock::since_boot() >= patience || !gate.is_open()) {
                return Ok(());
            }
            if again {
                let pause_now = random::jittered(pause);
                ways.routed.placements().wait(&placement, pause_now).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// The parts to send now: of each physical partition the first one.
    fn next_round(&self, accepted: &Accepted<'_>, parts: &[Part]) -> Vec<usize> {
        let mut busy = HashSet::new();
        let round = parts.iter().enumerate().filter(|(_, part)| {
            let batch = &accepted[part.batch].0;
            let known = self.streams.get(&batch.key());
            let covered = known.map(|known| known.covered[usize::from(part.slot)]);
            part.ended.is_none()
                && part.to.as_ref().is_some_and(|to| {
                    busy.insert((&to.topic, batch.partition))
                        && part.target().is_some()
                        && covered.is_some_and(|covered| covered >= to.number)
                })
        });
        round.map(|(n, _)| n).collect()
    }

    /// Before the first write of a stream to a segment: what those sealed before it have.
    async fn cross(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        placement: &Placement,
        (accepted, parts): (&Accepted<'_>, &mut [Part]),
    ) -> Result<(), WireError> {
        let mut crossing: HashMap<(usize, u8), u32> = HashMap::new();
        let mut asked: Vec<Asked> = Vec::new();
        for part in parts.iter().filter(|part| part.ended.is_none()) {
            let batch = &accepted[part.batch].0;
            let (Some(to), Some(known)) = (&part.to, self.streams.get_mut(&batch.key())) else {
                continue;
            };
            let covered = &mut known.covered[usize::from(part.slot)];
            if *covered >= to.number {
                continue;
            }
            if fault::on("seal-not-crossed") {
                *covered = to.number;
                continue;
            }
            crossing.insert((part.batch, part.slot), to.number);
            let before = batch.sealed_stretches(placement, part.slot, *covered);
            asked.extend(before.map(|stretch| batch.asked(stretch)));
        }
        if !crossing.is_empty() {
            asked.sort_unstable();
            asked.dedup();
            metrics.producer_look_ups.inc();
            let found = self.look_up(ways, &asked).await?;
            for ((n, slot), number) in crossing {
                let batch = &accepted[n].0;
                let Some(known) = self.streams.get_mut(&batch.key()) else { continue };
                let covered = &mut known.covered[usize::from(slot)];
                let stretches = batch.sealed_stretches(placement, slot, *covered);
                let rows: Option<Vec<_>> =
                    stretches.map(|stretch| batch.rows(slot, stretch, &found)).collect();
                // Without an answer of each it waits.
                let Some(rows) = rows else { continue };
                *covered = number;
                known.stream.see_sealed(&View(rows.into_iter().flatten().collect()));
            }
        }
        for part in parts.iter_mut().filter(|part| part.ended.is_none()) {
            let (batch, at) = &accepted[part.batch];
            let known = self.streams.get(&batch.key());
            if known.is_some_and(|known| known.stream.is_sealed_in(part.slot, *at)) {
                metrics.part(PartResult::Sealed);
                part.ended = Some(PartAnswer::Older);
            }
        }
        Ok(())
    }

    /// Sends parts of different physical partitions, once.
    async fn round(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        gate: &Gate<'_>,
        (accepted, parts): (&Accepted<'_>, &mut [Part]),
        round: &[usize],
    ) -> Result<(), WireError> {
        let places = round.iter().filter_map(|n| {
            let to = parts[*n].to.as_ref()?;
            Some((*n, to.topic.clone(), accepted[parts[*n].batch].0.partition))
        });
        let (led, _) = by_leader(ways.topics, places.collect(), |(_, p, q)| (p, *q)).await;
        let mut legs = Vec::with_capacity(led.len());
        for (node, places) in &led {
            let batches = places.iter().map(|(n, p, q)| (p.clone(), *q, parts[*n].bytes.clone()));
            let body = leg_body(ALL_REPLICAS, TRY_MS, batches);
            let limit = ways.limits.connect;
            legs.push(Leg { node: *node, key: api::PRODUCE, version: LEG_VERSION, body, limit });
        }
        let ran = self.run_gated(ways, legs, Some(gate)).await;
        let mut large = Vec::new();
        for (places, ran) in led.into_values().zip(ran.answers) {
            let unanswered = matches!(ran, Err(LegError::Unknown(_)));
            let answer: Option<ProduceResponse> =
                ran.ok().and_then(|body| guard::response(api::PRODUCE, LEG_VERSION, &body, 0).ok());
            for (n, topic, partition) in places {
                parts[n].unanswered |= unanswered;
                let row = answer.as_ref().and_then(|answer| find(answer, &topic, partition));
                let judged = row.map_or(PartAnswer::Again, |row| {
                    judge(row.error_code, row.base_offset, row.log_append_time_ms)
                });
                if row.is_none_or(|row| doubts_leader(row.error_code)) {
                    ways.topics.doubt(&topic);
                }
                if judged == PartAnswer::TooLarge && accepted[parts[n].batch].0.routed.days {
                    large.push((n, topic, partition));
                    continue;
                }
                note(metrics, (&topic, partition), judged);
                if judged != PartAnswer::Again {
                    parts[n].ended = Some(judged);
                }
            }
        }
        let places = large.iter().map(|(_, topic, partition)| (topic.clone(), *partition));
        let sealed = self.sealed_of(ways, places.collect()).await?;
        for (n, topic, partition) in large {
            let part = &mut parts[n];
            if sealed.contains(&topic) {
                note(metrics, (&topic, partition), PartAnswer::Again);
                part.sealed = part.to.as_ref().map(|to| to.number);
            } else {
                note(metrics, (&topic, partition), PartAnswer::TooLarge);
                part.ended = Some(PartAnswer::TooLarge);
            }
        }
        Ok(())
    }
}

fn note(metrics: &Metrics, (physical, partition): (&str, i32), answer: PartAnswer) {
    metrics.part(match answer {
        PartAnswer::New(_) => PartResult::New,
        PartAnswer::Duplicate(_) => PartResult::Duplicate,
        PartAnswer::Older => PartResult::Older,
        PartAnswer::Again => PartResult::Again,
        PartAnswer::TooLarge | PartAnswer::Refused(_) => PartResult::Refused,
        PartAnswer::Contradiction => {
            tracing::error!(%physical, partition, "same position, another count of records");
            PartResult::Contradiction
        }
    });
}

fn find<'a>(
    answer: &'a ProduceResponse,
    physical: &str,
    partition: i32,
) -> Option<&'a PartitionProduceResponse> {
    let topics = answer.responses.iter().filter(|t| *t.name.0 == *physical);
    topics.flat_map(|t| &t.partition_responses).find(|p| p.index == partition)
}
