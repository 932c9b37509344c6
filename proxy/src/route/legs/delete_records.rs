//! DeleteRecords: each logical partition is shortened at the leader of its physical one. Topics
//! that are not virtual are the home broker's, asked first, as their client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::{
    Leg, LegError, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, bounded, by_leader, doubts_leader,
    encoded,
};

/// Version of the legs: the first flexible one.
const LEG_VERSION: i16 = 2;
/// POLICY_VIOLATION: what is told of topics with days.
const POLICY_VIOLATION: i16 = 44;
/// REQUEST_TIMED_OUT: it may have been done.
const TIMED_OUT: i16 = 7;

/// One partition: where its answer goes, and where it is.
struct Shortened {
    of: (usize, usize),
    offset: i64,
    physical: Arc<str>,
    partition: i32,
}

/// A DeleteRecords request that names a virtual topic; `None` for any other.
pub fn asked(
    ways: Ways<'_>,
    head: Head,
    frame: &Bytes,
) -> Result<Option<DeleteRecordsRequest>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let request: DeleteRecordsRequest = guard::request(head.api, head.version, frame, at)?;
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
    request: &DeleteRecordsRequest,
) -> Result<Option<Bytes>, WireError> {
    let is_plain = |topic: &&DeleteRecordsTopic| ways.routed.by_name(&topic.name).is_none();
    let topics: Vec<_> = request.topics.iter().filter(is_plain).cloned().collect();
    if topics.is_empty() {
        return Ok(None);
    }
    let at = header::request_body_at(head, frame)?;
    let mut frame = BytesMut::from(&frame[..at]);
    let rest = request.clone().with_topics(topics);
    frame.extend_from_slice(&encoded(head.api, head.version, &rest)?);
    Ok(Some(frame.freeze()))
}

impl Legs {
    /// Answers a DeleteRecords request that names a virtual topic. `beside` is what the home
    /// broker answered to the rest of it.
    pub async fn delete_records(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        request: &DeleteRecordsRequest,
        beside: Option<Bytes>,
    ) -> Result<Bytes, WireError> {
        let mut answer = DeleteRecordsResponse::default();
        let parts = parts(ways, request, &mut answer);
        self.shorten(ways, request.timeout_ms, parts, &mut answer).await?;
        if let Some(frame) = beside {
            let at = header::response_body_at(head.api, head.version, &frame)?;
            let told: DeleteRecordsResponse = guard::response(head.api, head.version, &frame, at)?;
            answer.throttle_time_ms = told.throttle_time_ms;
            answer.topics.extend(told.topics);
        }
        reply::frame(head, &answer)
    }

    async fn shorten(
        &mut self,
        ways: Ways<'_>,
        timeout_ms: i32,
        parts: Vec<Shortened>,
        answer: &mut DeleteRecordsResponse,
    ) -> Result<(), WireError> {
        let (led, _) = by_leader(ways.topics, parts, |p| (&p.physical, p.partition)).await;
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let limit = limit + ways.limits.connect;
        let mut legs = Vec::with_capacity(led.len());
        for (node, parts) in &led {
            let body = encoded(api::DELETE_RECORDS, LEG_VERSION, &leg_request(timeout_ms, parts))?;
            let (key, version, node) = (api::DELETE_RECORDS, LEG_VERSION, *node);
            legs.push(Leg { node, key, version, body, limit });
        }
        let ran = self.run(ways, legs).await;
        for (parts, ran) in led.into_values().zip(ran.answers) {
            let key = api::DELETE_RECORDS;
            let read = |body| guard::response::<DeleteRecordsResponse>(key, LEG_VERSION, &body, 0);
            let (told, code) = match ran {
                Ok(body) => (read(body).ok(), TIMED_OUT),
                Err(LegError::NotSent(_)) => (None, NOT_LEADER),
                Err(LegError::Unknown(_)) => (None, TIMED_OUT),
            };
            let rows = told.as_ref().map(by_place).unwrap_or_default();
            for Shortened { of: (topic, row), physical, partition, .. } in parts {
                let found = rows.get(&(&*physical, partition)).copied();
                if found.is_none_or(|found| doubts_leader(found.error_code)) {
                    ways.topics.doubt(&physical);
                }
                let row = &mut answer.topics[topic].partitions[row];
                row.error_code = found.map_or(code, |found| found.error_code);
                row.low_watermark = found.map_or(-1, |found| found.low_watermark);
            }
        }
        Ok(())
    }
}

/// The partitions to shorten. The answer gets a row for each, in the order of the request, that
/// says what is told of one that no leg is sent for.
fn parts(
    ways: Ways<'_>,
    request: &DeleteRecordsRequest,
    answer: &mut DeleteRecordsResponse,
) -> Vec<Shortened> {
    let mut parts = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let Some(routed) = ways.routed.by_name(&topic.name) else { continue };
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for (row, asked) in topic.partitions.iter().enumerate() {
            let refused = ways.refused.code(t);
            let place = routed.place(asked.partition_index).filter(|_| refused.is_none());
            // Segments are deleted whole, by their age.
            let place = place.filter(|_| !routed.days);
            let unplaced = match (place, routed.days) {
                (Some(_), _) => NOT_LEADER,
                (None, false) => UNKNOWN_PARTITION,
                (None, true) => POLICY_VIOLATION,
            };
            rows.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(-1)
                    .with_error_code(refused.unwrap_or(unplaced)),
            );
            parts.extend(place.map(|(slot, partition)| Shortened {
                of: (answer.topics.len(), row),
                offset: asked.offset,
                physical: routed.physical[slot].clone(),
                partition,
            }));
        }
        let name = topic.name.clone();
        let told = DeleteRecordsTopicResult::default().with_name(name).with_partitions(rows);
        answer.topics.push(told);
    }
    parts
}

fn leg_request(timeout_ms: i32, parts: &[Shortened]) -> DeleteRecordsRequest {
    let topics = parts.chunk_by(|a, b| a.physical == b.physical).map(|of_topic| {
        let name = TopicName(StrBytes::from_string(of_topic[0].physical.to_string()));
        let partitions = of_topic.iter().map(|part| {
            DeleteRecordsPartition::default()
                .with_partition_index(part.partition)
                .with_offset(part.offset)
        });
        DeleteRecordsTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    DeleteRecordsRequest::default().with_timeout_ms(timeout_ms).with_topics(topics.collect())
}

fn by_place(answer: &DeleteRecordsResponse) -> HashMap<(&str, i32), &DeleteRecordsPartitionResult> {
    let rows = answer.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|row| ((topic.name.as_str(), row.partition_index), row))
    });
    rows.collect()
}
