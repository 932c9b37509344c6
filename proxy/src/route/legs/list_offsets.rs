//! ListOffsets: each logical partition is asked at the leader of its physical one. Topics that are
//! not virtual are asked of the home broker first, as their client.
//!
//! The end is asked of the open segment; the start, a time, and the largest time, of every segment
//! that may have it: the first one that has it counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::look_up::Place;
use super::{
    Leg, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, bounded, by_leader, doubts_leader, encoded,
};

use crate::fault;
use crate::route::chain::{Chain, Stretch};
use crate::route::placement::Placement;

/// Version of the legs: the newest without special timestamps that segments cannot answer.
const LEG_VERSION: i16 = 7;

/// Timestamps that ask for the end and the start.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// One segment of a partition asked for: where the answer goes, and where the question.
struct Question {
    /// Topic and partition of the answer.
    of: (usize, usize),
    timestamp: i64,
    physical: Arc<str>,
    partition: i32,
    /// Number of the segment, its base, and how many records it has if it is sealed.
    number: u32,
    base: i64,
    length: Option<i64>,
}

/// What the segments of a partition answered; `None`: one did not.
type Told = BTreeMap<u32, Option<ListOffsetsPartitionResponse>>;

/// A ListOffsets request that names a virtual topic; `None` for any other.
pub fn asked(
    ways: Ways<'_>,
    head: Head,
    frame: &Bytes,
) -> Result<Option<ListOffsetsRequest>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let request: ListOffsetsRequest = guard::request(api::LIST_OFFSETS, head.version, frame, at)?;
    if !request.topics.iter().any(|topic| ways.routed.by_name(&topic.name).is_some()) {
        return Ok(None);
    }
    bounded(request.topics.iter().map(|topic| topic.partitions.len()))?;
    Ok(Some(request))
}

/// The part of such a request that is for the home broker.
pub fn rest(
    ways: Ways<'_>,
    head: Head,
    frame: &Bytes,
    request: &ListOffsetsRequest,
) -> Result<Option<Bytes>, WireError> {
    let is_plain = |topic: &&ListOffsetsTopic| ways.routed.by_name(&topic.name).is_none();
    let topics: Vec<_> = request.topics.iter().filter(is_plain).cloned().collect();
    if topics.is_empty() {
        return Ok(None);
    }
    let at = header::request_body_at(head, frame)?;
    let mut frame = BytesMut::from(&frame[..at]);
    let rest = request.clone().with_topics(topics);
    frame.extend_from_slice(&encoded(api::LIST_OFFSETS, head.version, &rest)?);
    Ok(Some(frame.freeze()))
}

impl Legs {
    /// Answers a ListOffsets request that names a virtual topic. `beside` is what the home broker
    /// answered to the rest of it.
    pub async fn list_offsets(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        request: &ListOffsetsRequest,
        beside: Option<Bytes>,
    ) -> Result<Bytes, WireError> {
        let mut answer = ListOffsetsResponse::default();
        let placement = ways.routed.placements().now();
        let questions = questions((ways, &placement), request, &mut answer);
        let told = self.ask(ways, request.isolation_level, questions).await?;
        for ((topic, row), (timestamp, told)) in told {
            let row = &mut answer.topics[topic].partitions[row];
            if let Some(found) = chosen(timestamp, told) {
                *row = found.with_partition_index(row.partition_index).with_leader_epoch(-1);
            }
        }
        if let Some(frame) = beside {
            let at = header::response_body_at(api::LIST_OFFSETS, head.version, &frame)?;
            let told: ListOffsetsResponse =
                guard::response(api::LIST_OFFSETS, head.version, &frame, at)?;
            answer.throttle_time_ms = told.throttle_time_ms;
            answer.topics.extend(told.topics);
        }
        reply::frame(head, &answer)
    }

    /// Logical answers of all segments, by topic and partition of the answer.
    async fn ask(
        &mut self,
        ways: Ways<'_>,
        isolation_level: i8,
        questions: Vec<Question>,
    ) -> Result<HashMap<(usize, usize), (i64, Told)>, WireError> {
        let mut told = HashMap::<_, (i64, Told)>::new();
        for Question { of, timestamp, number, .. } in &questions {
            let (_, segments) = told.entry(*of).or_insert((*timestamp, Told::new()));
            segments.insert(*number, None);
        }
        let (led, _) = by_leader(ways.topics, questions, |q| (&q.physical, q.partition)).await;
        let mut legs = Vec::with_capacity(led.len());
        for (node, questions) in &led {
            let request = leg_request(isolation_level, questions);
            let body = encoded(api::LIST_OFFSETS, LEG_VERSION, &request)?;
            let (key, version, node) = (api::LIST_OFFSETS, LEG_VERSION, *node);
            legs.push(Leg { node, key, version, body: vec![body], limit: ways.limits.connect * 3 });
        }
        let ran = self.run(ways, legs).await;
        for (questions, ran) in led.into_values().zip(ran.answers) {
            let ran = ran.ok().and_then(|body| {
                guard::response::<ListOffsetsResponse>(api::LIST_OFFSETS, LEG_VERSION, &body, 0)
                    .ok()
            });
            let rows = ran.as_ref().map(by_place).unwrap_or_default();
            for question in questions {
                let Question { of, physical, partition, number, .. } = &question;
                let found = rows.get(&(&**physical, *partition)).copied();
                if found.is_none_or(|found| doubts_leader(found.error_code)) {
                    ways.topics.doubt(physical);
                }
                if let (Some(found), Some((_, told))) = (found, told.get_mut(of)) {
                    told.insert(*number, Some(logical(found, &question)));
                }
            }
        }
        Ok(told)
    }

    /// Where physical partitions end, for readers of that isolation level; those that do not
    /// answer are left out.
    pub(super) async fn ends(
        &mut self,
        ways: Ways<'_>,
        isolation_level: i8,
        places: Vec<Place>,
    ) -> Result<HashMap<Place, i64>, WireError> {
        let questions = places.iter().enumerate().map(|(n, (physical, partition))| Question {
            of: (n, 0),
            timestamp: LATEST,
            physical: physical.clone(),
            partition: *partition,
            number: 0,
            base: 0,
            length: None,
        });
        let told = self.ask(ways, isolation_level, questions.collect()).await?;
        let ends = told.into_iter().filter_map(|((n, _), (timestamp, told))| {
            let row = chosen(timestamp, told)?;
            (row.error_code == 0).then(|| (places[n].clone(), row.offset))
        });
        Ok(ends.collect())
    }
}

/// A segment's answer in logical offsets. What it has behind its seal is not there.
fn logical(
    found: &ListOffsetsPartitionResponse,
    question: &Question,
) -> ListOffsetsPartitionResponse {
    let mut row = found.clone();
    // Of one whose records are all deleted the start is its end.
    if question.length.is_some_and(|length| row.offset >= length) {
        (row.offset, row.timestamp) = (-1, -1);
    }
    if row.offset >= 0 && row.error_code == 0 {
        row.offset += question.base;
    }
    row
}

/// The answer of all segments together: the first offset of a time, in their order.
fn chosen(timestamp: i64, told: Told) -> Option<ListOffsetsPartitionResponse> {
    let mut best: Option<ListOffsetsPartitionResponse> = None;
    for row in told.into_values() {
        let row = row?;
        if row.error_code != 0 {
            return Some(row);
        }
        let in_order = timestamp >= 0 || timestamp == EARLIEST;
        let first = in_order && row.offset >= 0 && !fault::on("later-segment-first");
        let larger = best.as_ref().is_none_or(|best| row.timestamp > best.timestamp);
        if first || larger {
            best = Some(row);
        }
        if first {
            break;
        }
    }
    best
}

/// The partitions to ask for. The answer gets a row for each, in the order of the request, that
/// says what is told without an answer.
fn questions(
    (ways, placement): (Ways<'_>, &Placement),
    request: &ListOffsetsRequest,
    answer: &mut ListOffsetsResponse,
) -> Vec<Question> {
    let mut questions = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let Some(routed) = ways.routed.by_name(&topic.name) else { continue };
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for (row, asked) in topic.partitions.iter().enumerate() {
            let q = asked.partition_index;
            if let Some(code) = ways.refused.code(t) {
                rows.push(failed(q, code));
                continue;
            }
            let place = routed.place(q);
            let code = if place.is_some() { NOT_LEADER } else { UNKNOWN_PARTITION };
            rows.push(failed(q, code));
            let placed = place.and_then(|(slot, p)| Some((placement.chain(routed, slot)?, p)));
            let Some((chain, partition)) = placed else { continue };
            let asked_of = asked_of(chain, partition, asked.timestamp);
            questions.extend(asked_of.into_iter().map(|stretch| Question {
                of: (answer.topics.len(), row),
                timestamp: asked.timestamp,
                physical: stretch.topic.clone(),
                partition,
                number: stretch.number,
                base: stretch.base,
                length: stretch.length(),
            }));
        }
        let name = topic.name.clone();
        let told = ListOffsetsTopicResponse::default().with_name(name).with_partitions(rows);
        answer.topics.push(told);
    }
    questions
}

/// The segments that must be asked.
fn asked_of(chain: &Chain, partition: i32, timestamp: i64) -> Vec<Stretch<'_>> {
    let mut all = chain.stretches(partition);
    match timestamp {
        LATEST => all.next_back().into_iter().collect(),
        // Nothing is found in an empty one.
        _ => all.filter(|stretch| stretch.length() != Some(0)).collect(),
    }
}

fn leg_request(isolation_level: i8, questions: &[Question]) -> ListOffsetsRequest {
    let topics = questions.chunk_by(|a, b| a.physical == b.physical).map(|of_topic| {
        let name = TopicName(StrBytes::from_string(of_topic[0].physical.to_string()));
        let partitions = of_topic.iter().map(|q| {
            ListOffsetsPartition::default()
                .with_partition_index(q.partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(q.timestamp)
        });
        ListOffsetsTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation_level)
        .with_topics(topics.collect())
}

fn by_place(answer: &ListOffsetsResponse) -> HashMap<(&str, i32), &ListOffsetsPartitionResponse> {
    let rows = answer.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|row| ((topic.name.as_str(), row.partition_index), row))
    });
    rows.collect()
}

fn failed(partition: i32, code: i16) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(partition)
        .with_error_code(code)
        .with_timestamp(-1)
        .with_offset(-1)
        .with_leader_epoch(-1)
}
