//! ListOffsets: each logical partition is asked at the leader of its physical one. Topics that are
//! not virtual are asked of the home broker first, as their client.

use std::collections::HashMap;
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

use super::{
    Leg, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, bounded, by_leader, doubts_leader, encoded,
};

/// Version of the legs: the newest without special timestamps that segments cannot answer.
const LEG_VERSION: i16 = 7;

/// One partition asked for: where the answer goes, and where the question.
struct Question {
    /// Topic and partition of the answer.
    of: (usize, usize),
    timestamp: i64,
    physical: Arc<str>,
    partition: i32,
}

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
        let questions = questions(ways, request, &mut answer);
        self.ask(ways, request, questions, &mut answer).await?;
        if let Some(frame) = beside {
            let at = header::response_body_at(api::LIST_OFFSETS, head.version, &frame)?;
            let told: ListOffsetsResponse =
                guard::response(api::LIST_OFFSETS, head.version, &frame, at)?;
            answer.throttle_time_ms = told.throttle_time_ms;
            answer.topics.extend(told.topics);
        }
        reply::frame(head, &answer)
    }

    async fn ask(
        &mut self,
        ways: Ways<'_>,
        request: &ListOffsetsRequest,
        questions: Vec<Question>,
        answer: &mut ListOffsetsResponse,
    ) -> Result<(), WireError> {
        let (led, _) = by_leader(ways.topics, questions, |q| (&q.physical, q.partition)).await;
        let mut legs = Vec::with_capacity(led.len());
        for (node, questions) in &led {
            let body = encoded(api::LIST_OFFSETS, LEG_VERSION, &leg_request(request, questions))?;
            let (key, version, node) = (api::LIST_OFFSETS, LEG_VERSION, *node);
            legs.push(Leg { node, key, version, body, limit: ways.limits.connect * 3 });
        }
        let ran = self.run(ways, legs).await;
        for (questions, ran) in led.into_values().zip(ran.answers) {
            let ran = ran.ok().and_then(|body| {
                guard::response::<ListOffsetsResponse>(api::LIST_OFFSETS, LEG_VERSION, &body, 0)
                    .ok()
            });
            let rows = ran.as_ref().map(by_place).unwrap_or_default();
            for Question { of: (topic, row), physical, partition, .. } in questions {
                let found = rows.get(&(&*physical, partition)).copied();
                if found.is_none_or(|found| doubts_leader(found.error_code)) {
                    ways.topics.doubt(&physical);
                }
                if let Some(found) = found {
                    let row = &mut answer.topics[topic].partitions[row];
                    let index = row.partition_index;
                    *row = found.clone().with_partition_index(index).with_leader_epoch(-1);
                }
            }
        }
        Ok(())
    }
}

/// The partitions to ask for. The answer gets a row for each, in the order of the request, that
/// says what is told without an answer.
fn questions(
    ways: Ways<'_>,
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
            let place = place.map(|(slot, p)| (routed.physical[slot].clone(), p));
            let code = if place.is_some() { NOT_LEADER } else { UNKNOWN_PARTITION };
            rows.push(failed(q, code));
            questions.extend(place.map(|(physical, partition)| Question {
                of: (answer.topics.len(), row),
                timestamp: asked.timestamp,
                physical,
                partition,
            }));
        }
        let name = topic.name.clone();
        let told = ListOffsetsTopicResponse::default().with_name(name).with_partitions(rows);
        answer.topics.push(told);
    }
    questions
}

fn leg_request(request: &ListOffsetsRequest, questions: &[Question]) -> ListOffsetsRequest {
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
        .with_isolation_level(request.isolation_level)
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
