//! Produce: batches are split by slot, each part goes to the leader of its physical partition.
//!
//! Topics that are not virtual go on to the home broker, in the order of the connection and with
//! all that the request says of itself; what others were told is put beside its answer. Those that
//! clients must not see do not exist.
//!
//! Batches with sequence numbers go on in `exact.rs`. A partition is acknowledged when all its
//! parts are. Brokers take one batch a partition and request, so parts that meet at the same
//! physical partition go in rounds, in the order of the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::address::Addresses;
use protocol_ext::batch::{BatchError, Caps, OpenBatch};
use protocol_ext::codec::{Codec, CodecError};
use protocol_ext::ees::StreamId;
use protocol_ext::header::{self, Head};
use protocol_ext::split::{Pieces, SplitOptions, split};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::exact::Batch;
use super::produce_body::{LEG_VERSION, leg_body};
use super::sealed::Target;
use super::{
    Leg, LegError, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, bounded, by_leader, doubts_leader,
    encoded, hidden,
};
use crate::limits::RETRIES_MAX;
use crate::metrics::Metrics;
use crate::net::Line;
use crate::route::addresses::Directory;
use crate::route::placement::Placement;
use crate::route::transactions::{ID_FORBIDDEN, INVALID_TXN_STATE};
use crate::route::virtual_topics::Routed;
use crate::{clock, fault};

/// CORRUPT_MESSAGE.
pub(super) const CORRUPT: i16 = 2;
/// MESSAGE_TOO_LARGE.
pub(super) const MESSAGE_TOO_LARGE: i16 = 10;
/// REQUEST_TIMED_OUT: something may have been appended.
pub(super) const TIMED_OUT: i16 = 7;
/// INVALID_RECORD.
pub(super) const INVALID: i16 = 87;
/// What the batches of one request inflate to, in longest requests; further ones are refused.
const INFLATED_FRAMES_MAX: usize = 2;
const TOO_LARGE_ID: &str = "virtual topics take producer ids below 2^26";

/// A batch for one physical partition.
struct Part<'a> {
    /// Topic and partition of the request that it is a part of.
    of: (usize, usize),
    routed: &'a Routed,
    slot: usize,
    to: Target,
    partition: i32,
    batch: Pieces,
    /// The offset it gets is that of its logical partition.
    native: bool,
    /// A segment that refused it since it is sealed.
    sealed: Option<u32>,
}

/// What becomes of a Produce request.
#[derive(Debug)]
pub enum Produced {
    /// It names no virtual topic, nor a part of one, and goes on as it is.
    Untouched,
    /// It names only those: the answer.
    Answered(Bytes),
    /// The frame for the home broker, and what is told of the others beside its answer.
    Rest(Bytes, Vec<TopicProduceResponse>),
}

/// What a client's partition is told.
pub(super) struct Outcome {
    pub code: i16,
    message: Option<&'static str>,
    pub answer: PartitionProduceResponse,
}

/// Outcomes by topic and partition of the request.
pub(super) type Outcomes = HashMap<(usize, usize), Outcome>;

/// What is written of one partition of the request.
enum Taken<'a> {
    /// These parts, at most once for each time they are sent.
    Parts(Vec<Part<'a>>),
    /// A batch with sequences.
    Exact(Box<Batch<'a>>),
}

impl Legs {
    /// Writes the batches of a Produce request for virtual topics.
    pub async fn produce(
        &mut self,
        ways: Ways<'_>,
        caps: &Caps,
        metrics: &Metrics,
        client: Option<&Line>,
        head: Head,
        frame: &Bytes,
    ) -> Result<Produced, WireError> {
        let at = header::request_body_at(head, frame)?;
        let mut request: ProduceRequest = guard::request(api::PRODUCE, head.version, frame, at)?;
        let topics = std::mem::take(&mut request.topic_data);
        let writer = request.transactional_id.as_deref();
        if writer.is_some_and(|id| ways.routed.is_own_writer(id)) {
            bounded(topics.iter().map(|topic| topic.partition_data.len()))?;
            let told = topics.iter().map(|topic| failed(topic, ID_FORBIDDEN)).collect();
            let answer = ProduceResponse::default().with_responses(told);
            return Ok(Produced::Answered(reply::frame(head, &answer)?));
        }
        let (ours, rest): (Vec<_>, Vec<_>) =
            topics.into_iter().partition(|topic| routed(ways, topic).is_some());
        let (mut hidden, mut seen) = (Vec::new(), Vec::new());
        for topic in rest {
            match unseen(ways, &topic) {
                Some(code) => hidden.push(failed(&topic, code)),
                None => seen.push(topic),
            }
        }
        if ours.is_empty() && hidden.is_empty() {
            return Ok(Produced::Untouched);
        }
        let rows = ours.iter().map(|topic| topic.partition_data.len());
        bounded(rows.chain(hidden.iter().map(|told| told.partition_responses.len())))?;
        request.topic_data = ours;
        let mut told = match request.topic_data.is_empty() {
            true => Vec::new(),
            false => self.write(ways, caps, metrics, client, &request).await?,
        };
        told.extend(hidden);
        if seen.is_empty() {
            let answer = ProduceResponse::default().with_responses(told);
            return Ok(Produced::Answered(reply::frame(head, &answer)?));
        }
        request.topic_data = seen;
        if fault::on("transactional-id-lost") {
            request.transactional_id = None;
        }
        let mut frame = BytesMut::from(&frame[..at]);
        frame.extend_from_slice(&encoded(api::PRODUCE, head.version, &request)?);
        Ok(Produced::Rest(frame.freeze(), told))
    }

    /// Writes the batches of a request that names virtual topics only.
    async fn write(
        &mut self,
        ways: Ways<'_>,
        caps: &Caps,
        metrics: &Metrics,
        client: Option<&Line>,
        request: &ProduceRequest,
    ) -> Result<Vec<TopicProduceResponse>, WireError> {
        let mut outcomes = Outcomes::new();
        let placement = ways.routed.placements().now();
        let (mut parts, mut exact) = (Vec::new(), Vec::new());
        // What its batches inflate to, together, is held without room.
        let mut left = caps.body_bytes_max.saturating_mul(INFLATED_FRAMES_MAX);
        for (t, topic) in request.topic_data.iter().enumerate() {
            let Some(routed) = routed(ways, topic) else { continue };
            for (p, data) in topic.partition_data.iter().enumerate() {
                let mut outcome = Outcome::new(data.index);
                let taken = match ways.refused.code(t) {
                    Some(code) => Err(Refusal { code, message: None }),
                    None => {
                        let most = match fault::on("bombs-add-up") {
                            true => caps.body_bytes_max,
                            false => caps.body_bytes_max.min(left),
                        };
                        let caps = Caps { body_bytes_max: most, ..*caps };
                        taken((routed, &placement), &caps, (t, p), (data, &mut left))
                    }
                };
                match taken {
                    Ok(Taken::Parts(new)) => parts.extend(new),
                    Ok(Taken::Exact(batch)) => exact.push(*batch),
                    Err(refusal) => {
                        (outcome.code, outcome.message) = (refusal.code, refusal.message);
                    }
                }
                outcomes.insert((t, p), outcome);
            }
        }
        let sized = |part: &Part<'_>| ((part.to.topic.clone(), part.partition), part.batch.len());
        let sized: Vec<_> = parts.iter().map(sized).collect();
        for (n, sure) in self.too_large(ways, &sized).await? {
            let code = if sure { MESSAGE_TOO_LARGE } else { NOT_LEADER };
            fail(&mut outcomes, &parts[n], code);
        }
        parts.retain(|part| outcomes.get(&part.of).is_some_and(|outcome| outcome.code == 0));
        self.send_all(ways, request, (parts, placement), &mut outcomes).await?;
        if !exact.is_empty() {
            self.exact(ways, metrics, client, exact, &mut outcomes).await?;
        }
        Ok(told(request, &outcomes))
    }

    /// Sends parts to the open segments, those that a sealed one refused again to the next.
    async fn send_all<'a>(
        &mut self,
        ways: Ways<'_>,
        request: &ProduceRequest,
        (mut parts, mut placement): (Vec<Part<'a>>, Arc<Placement>),
        outcomes: &mut Outcomes,
    ) -> Result<(), WireError> {
        let until = clock::since_boot() + RETRIES_MAX;
        loop {
            let mut large = Vec::new();
            for round in rounds(std::mem::take(&mut parts)) {
                large.extend(self.send(ways, request, round, outcomes).await?);
            }
            let places =
                large.iter().map(|part: &Part<'a>| (part.to.topic.clone(), part.partition));
            let sealed = self.sealed_of(ways, places.collect()).await?;
            for mut part in large {
                if sealed.contains(&part.to.topic) {
                    part.sealed = Some(part.to.number);
                    parts.push(part);
                } else {
                    fail(outcomes, &part, MESSAGE_TOO_LARGE);
                }
            }
            while parts.iter_mut().any(|part| !part.turns(&placement)) {
                let left = until.saturating_sub(clock::since_boot());
                if left.is_zero() {
                    parts.iter().for_each(|part| fail(outcomes, part, TIMED_OUT));
                    return Ok(());
                }
                ways.routed.placements().wait(&placement, left).await;
                placement = ways.routed.placements().now();
            }
            if parts.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends parts that all have different physical partitions; gives those that are called too
    /// large where that may mean a sealed segment.
    async fn send<'a>(
        &mut self,
        ways: Ways<'_>,
        request: &ProduceRequest,
        parts: Vec<Part<'a>>,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<Part<'a>>, WireError> {
        let mut large = Vec::new();
        let (led, lost) = by_leader(ways.topics, parts, |p| (&p.to.topic, p.partition)).await;
        for part in lost {
            fail(outcomes, &part, NOT_LEADER);
        }
        let timeout = u64::try_from(request.timeout_ms).unwrap_or(0);
        let limit = Duration::from_millis(timeout) + ways.limits.connect;
        let mut legs = Vec::with_capacity(led.len());
        for (node, parts) in &led {
            let batches = parts.iter();
            let batches = batches.map(|p| (p.to.topic.clone(), p.partition, p.batch.clone()));
            // The answer tells whether the next round may go, also for clients that want none.
            let acks = if request.acks == 0 { 1 } else { request.acks };
            let body = leg_body(acks, request.timeout_ms, batches);
            legs.push(Leg { node: *node, key: api::PRODUCE, version: LEG_VERSION, body, limit });
        }
        let ran = self.run(ways, legs).await;
        for (parts, ran) in led.into_values().zip(ran.answers) {
            let (answer, code) = match ran {
                Ok(body) => (guard::response(api::PRODUCE, LEG_VERSION, &body, 0).ok(), TIMED_OUT),
                Err(LegError::NotSent(_)) => (None, NOT_LEADER),
                Err(LegError::Unknown(_)) => (None, TIMED_OUT),
            };
            for part in parts {
                let row = answer.as_ref().and_then(|answer| find(answer, &part));
                if row.is_none_or(|row| doubts_leader(row.error_code)) {
                    ways.topics.doubt(&part.to.topic);
                }
                match row {
                    Some(row) if row.error_code == MESSAGE_TOO_LARGE && part.routed.days => {
                        large.push(part);
                    }
                    Some(row) => settle(outcomes, &part, row),
                    None => fail(outcomes, &part, code),
                }
            }
        }
        Ok(large)
    }
}

impl Part<'_> {
    /// Turns to the open segment; whether that is none that refused it.
    fn turns(&mut self, placement: &Placement) -> bool {
        let open = Target::open(placement, self.routed, self.slot, self.partition);
        self.to = open.unwrap_or_else(|| self.to.clone());
        self.sealed.is_none_or(|sealed| self.to.number > sealed)
    }
}

/// Why a batch is not taken.
struct Refusal {
    code: i16,
    message: Option<&'static str>,
}

fn routed<'a>(ways: Ways<'a>, topic: &TopicProduceData) -> Option<&'a Routed> {
    let by_name = ways.routed.by_name(&topic.name);
    by_name.or_else(|| ways.routed.by_id(topic.topic_id.as_bytes()))
}

fn taken<'a>(
    (routed, placement): (&'a Routed, &Placement),
    caps: &Caps,
    of: (usize, usize),
    (data, left): (&PartitionProduceData, &mut usize),
) -> Result<Taken<'a>, Refusal> {
    let refuse = |code, message| Refusal { code, message };
    let (slot, p) = routed.place(data.index).ok_or(refuse(UNKNOWN_PARTITION, None))?;
    let mut slots = 0..routed.physical.len();
    if slots.any(|slot| placement.open(routed, slot, p).is_none()) {
        return Err(refuse(NOT_LEADER, None));
    }
    let records = data.records.clone().unwrap_or_default();
    let open = OpenBatch::open(records, caps).map_err(|why| refuse(unopened(&why), None))?;
    if open.codec() != Codec::None {
        *left = left.saturating_sub(open.body().len());
    }
    let header = open.header();
    if header.is_transactional() {
        return Err(refuse(INVALID_TXN_STATE, None));
    }
    if header.producer_id >= 0 {
        if header.base_sequence < 0
            || header.last_offset_delta.checked_add(1) != Some(header.records_count)
        {
            return Err(refuse(INVALID, None));
        }
        let id = StreamId::new(header.producer_id, header.producer_epoch, slot);
        let id = id.ok_or(refuse(INVALID, Some(TOO_LARGE_ID)))?;
        let batch = Batch { of, routed, q: data.index, slot, partition: p, id, open };
        return Ok(Taken::Exact(Box::new(batch)));
    }
    let options = SplitOptions::default();
    let base = header.base_timestamp;
    let split = split(&open, &options, |record| routed.slot_of(record, base));
    let split = split.map_err(|_| refuse(CORRUPT, None))?;
    routed.count(&split);
    let whole = split.len() == 1;
    let parts = split.into_iter().filter_map(|sub| {
        let (of_slot, batch) = (usize::from(sub.slot), sub.batch);
        // All slots have an open segment, as was just seen.
        let to = Target::open(placement, routed, of_slot, p)?;
        let native = whole && of_slot == slot;
        Some(Part { of, routed, slot: of_slot, to, partition: p, batch, native, sealed: None })
    });
    Ok(Taken::Parts(parts.collect()))
}

/// What is told of a topic that clients must not see.
fn unseen(ways: Ways<'_>, topic: &TopicProduceData) -> Option<i16> {
    hidden(ways, api::PRODUCE, &topic.name, topic.topic_id.as_bytes())
}

/// The same for each of its partitions.
fn failed(topic: &TopicProduceData, code: i16) -> TopicProduceResponse {
    let rows = topic.partition_data.iter();
    let rows = rows.map(|data| Outcome::new(data.index).answer.with_error_code(code)).collect();
    let told = TopicProduceResponse::default().with_name(topic.name.clone());
    told.with_topic_id(topic.topic_id).with_partition_responses(rows)
}

/// What a broker says of a batch that it cannot open.
fn unopened(why: &BatchError) -> i16 {
    match why {
        BatchError::Codec(CodecError::TooLarge { .. }) if !fault::on("too-large-is-corrupt") => {
            MESSAGE_TOO_LARGE
        }
        _ => CORRUPT,
    }
}

/// Parts in rounds: within one, no physical partition comes twice.
fn rounds(parts: Vec<Part<'_>>) -> Vec<Vec<Part<'_>>> {
    let mut seen: HashMap<(Arc<str>, i32), usize> = HashMap::new();
    let mut rounds: Vec<Vec<Part<'_>>> = Vec::new();
    for part in parts {
        let round = seen.entry((part.to.topic.clone(), part.partition)).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(part);
        *round += 1;
    }
    rounds
}

fn find<'a>(answer: &'a ProduceResponse, part: &Part<'_>) -> Option<&'a PartitionProduceResponse> {
    let topics = answer.responses.iter().filter(|t| *t.name.0 == *part.to.topic);
    topics.flat_map(|t| &t.partition_responses).find(|p| p.index == part.partition)
}

fn fail(outcomes: &mut Outcomes, part: &Part<'_>, code: i16) {
    if let Some(outcome) = outcomes.get_mut(&part.of).filter(|outcome| outcome.code == 0) {
        outcome.code = code;
    }
}

fn settle(outcomes: &mut Outcomes, part: &Part<'_>, row: &PartitionProduceResponse) {
    if row.error_code != 0 {
        fail(outcomes, part, row.error_code);
    } else if part.native
        && let Some(outcome) = outcomes.get_mut(&part.of)
    {
        let base = if row.base_offset < 0 { 0 } else { part.to.base };
        outcome.answer.base_offset = row.base_offset + base;
        outcome.answer.log_append_time_ms = row.log_append_time_ms;
        outcome.answer.log_start_offset = match part.routed.days {
            true => -1,
            false => row.log_start_offset,
        };
    }
}

impl Outcome {
    fn new(index: i32) -> Self {
        let answer = PartitionProduceResponse::default()
            .with_index(index)
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1);
        Self { code: 0, message: None, answer }
    }
}

/// What is told of the topics of a request.
fn told(request: &ProduceRequest, outcomes: &Outcomes) -> Vec<TopicProduceResponse> {
    let topics = request.topic_data.iter().enumerate().map(|(t, topic)| {
        let rows = (0..topic.partition_data.len()).filter_map(|p| outcomes.get(&(t, p)));
        let rows = rows.map(|outcome| {
            let message = outcome.message.map(StrBytes::from_static_str);
            outcome.answer.clone().with_error_code(outcome.code).with_error_message(message)
        });
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(rows.collect())
    });
    topics.collect()
}

/// The home broker's answer to the rest of a request, for the client: addresses of the proxy, and
/// what is told of virtual topics.
pub fn joined(
    version: i16,
    frame: &Bytes,
    told: Vec<TopicProduceResponse>,
    addresses: &Directory,
) -> Result<Bytes, WireError> {
    let at = header::response_body_at(api::PRODUCE, version, frame)?;
    let mut answer: ProduceResponse = guard::response(api::PRODUCE, version, frame, at)?;
    for node in &mut answer.node_endpoints {
        let (host, port) = addresses.of(node.node_id.0);
        node.host = StrBytes::try_from(host).unwrap_or_default();
        node.port = i32::from(port);
    }
    let named = |topic: &TopicProduceResponse| (topic.name.clone(), topic.topic_id);
    let places = answer.responses.iter().map(named).zip(0..);
    let places: HashMap<_, usize> = places.collect();
    for mut topic in told {
        // Some partitions of a topic may be told of here, and others by the broker.
        match places.get(&named(&topic)).and_then(|at| answer.responses.get_mut(*at)) {
            Some(there) => there.partition_responses.append(&mut topic.partition_responses),
            None => answer.responses.push(topic),
        }
    }
    let mut new = BytesMut::from(&frame[..at]);
    new.extend_from_slice(&encoded(api::PRODUCE, version, &answer)?);
    Ok(new.freeze())
}
