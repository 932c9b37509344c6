//! DeleteRecords: each logical partition is shortened at the leader of its physical one, with days
//! in every segment that holds records before the offset, oldest first. Topics that are not virtual
//! are the home broker's, asked first, as their client.
//! Invariant: a segment is shortened only when all before it are empty, so no reader meets a hole.

use std::collections::{HashMap, HashSet};
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
use crate::fault;
use crate::route::chain::Chain;

/// Version of the legs: the first flexible one.
const LEG_VERSION: i16 = 2;
/// Everything that is there.
const END: i64 = -1;
/// The offset is none of the partition's.
const OFFSET_OUT_OF_RANGE: i16 = 1;
/// REQUEST_TIMED_OUT: it may have been done.
const TIMED_OUT: i16 = 7;

/// One segment of a partition: where its answer goes, and where it is.
struct Shortened {
    of: (usize, usize),
    /// What its physical topic is asked for.
    offset: i64,
    /// The logical offset of its physical offset 0.
    base: i64,
    physical: Arc<str>,
    partition: i32,
    /// Its place among the segments that are shortened for its row.
    nth: usize,
    /// It takes writes.
    open: bool,
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
        let parts = self.within_ends(ways, parts, &mut answer).await?;
        let rounds = parts.iter().map(|part| part.nth + 1).max().unwrap_or(0);
        let mut rounds: Vec<Vec<Shortened>> = (0..rounds).map(|_| Vec::new()).collect();
        for part in parts {
            rounds[part.nth].push(part);
        }
        if fault::on("newest-first") {
            rounds.reverse();
        }
        let mut failed = HashSet::new();
        for mut round in rounds {
            round.retain(|part| !failed.contains(&part.of));
            for (part, ended) in self.shorten(ways, request.timeout_ms, round).await? {
                let row = row(&mut answer, &part);
                row.error_code = ended.err().unwrap_or(0);
                row.low_watermark = ended.unwrap_or(-1);
                failed.extend(ended.is_err().then_some(part.of));
            }
        }
        if let Some(frame) = beside {
            let at = header::response_body_at(head.api, head.version, &frame)?;
            let told: DeleteRecordsResponse = guard::response(head.api, head.version, &frame, at)?;
            answer.throttle_time_ms = told.throttle_time_ms;
            answer.topics.extend(told.topics);
        }
        reply::frame(head, &answer)
    }

    /// Takes out what brokers would refuse only after other segments were shortened: offsets beyond
    /// the end of the log.
    async fn within_ends(
        &mut self,
        ways: Ways<'_>,
        parts: Vec<Shortened>,
        answer: &mut DeleteRecordsResponse,
    ) -> Result<Vec<Shortened>, WireError> {
        let asked = parts.iter().filter(|part| part.open && part.nth > 0 && part.offset != END);
        let asked: Vec<_> = asked.map(|part| (part.physical.clone(), part.partition)).collect();
        if asked.is_empty() {
            return Ok(parts);
        }
        let ends = self.ends(ways, 0, asked.clone()).await?;
        let mut refused = HashSet::new();
        for part in parts.iter().filter(|part| part.open && part.nth > 0 && part.offset != END) {
            let code = match ends.get(&(part.physical.clone(), part.partition)) {
                Some(end) if part.offset <= *end || fault::on("ends-unasked") => continue,
                Some(_) => OFFSET_OUT_OF_RANGE,
                None => NOT_LEADER,
            };
            row(answer, part).error_code = code;
            refused.insert(part.of);
        }
        Ok(parts.into_iter().filter(|part| !refused.contains(&part.of)).collect())
    }

    /// Shortens physical partitions; gives where each starts now, as a logical offset, or an error.
    async fn shorten(
        &mut self,
        ways: Ways<'_>,
        timeout_ms: i32,
        parts: Vec<Shortened>,
    ) -> Result<Vec<(Shortened, Result<i64, i16>)>, WireError> {
        let (led, lost) = by_leader(ways.topics, parts, |p| (&p.physical, p.partition)).await;
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let limit = limit + ways.limits.connect;
        let mut legs = Vec::with_capacity(led.len());
        for (node, parts) in &led {
            let body = encoded(api::DELETE_RECORDS, LEG_VERSION, &leg_request(timeout_ms, parts))?;
            let (key, version, node) = (api::DELETE_RECORDS, LEG_VERSION, *node);
            legs.push(Leg { node, key, version, body: vec![body], limit });
        }
        let mut done: Vec<_> = lost.into_iter().map(|part| (part, Err(NOT_LEADER))).collect();
        let ran = self.run(ways, legs).await;
        for (parts, ran) in led.into_values().zip(ran.answers) {
            let key = api::DELETE_RECORDS;
            let read = |body| guard::response::<DeleteRecordsResponse>(key, LEG_VERSION, &body, 0);
            let (answered, code) = match ran {
                Ok(body) => (read(body).ok(), TIMED_OUT),
                Err(LegError::NotSent(_)) => (None, NOT_LEADER),
                Err(LegError::Unknown(_)) => (None, TIMED_OUT),
            };
            let rows = answered.as_ref().map(by_place).unwrap_or_default();
            for part in parts {
                let found = rows.get(&(&*part.physical, part.partition)).copied();
                if found.is_none_or(|found| doubts_leader(found.error_code)) {
                    ways.topics.doubt(&part.physical);
                }
                let ended = match found {
                    Some(found) if found.error_code == 0 => Ok(part.base + found.low_watermark),
                    found => Err(found.map_or(code, |found| found.error_code)),
                };
                done.push((part, ended));
            }
        }
        Ok(done)
    }
}

/// The row of the answer that is about a part.
fn row<'a>(
    answer: &'a mut DeleteRecordsResponse,
    part: &Shortened,
) -> &'a mut DeleteRecordsPartitionResult {
    let (topic, row) = part.of;
    &mut answer.topics[topic].partitions[row]
}

/// The partitions to shorten. The answer gets a row for each, in the order of the request, that
/// says what is told of one that no leg is sent for.
fn parts(
    ways: Ways<'_>,
    request: &DeleteRecordsRequest,
    answer: &mut DeleteRecordsResponse,
) -> Vec<Shortened> {
    let placement = ways.routed.placements().now();
    let mut parts = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let Some(routed) = ways.routed.by_name(&topic.name) else { continue };
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for (row, asked) in topic.partitions.iter().enumerate() {
            let refused = ways.refused.code(t);
            let place = routed.place(asked.partition_index).filter(|_| refused.is_none());
            let unplaced = match place {
                Some(_) if asked.offset < END => OFFSET_OUT_OF_RANGE,
                Some(_) => NOT_LEADER,
                None => UNKNOWN_PARTITION,
            };
            let place = place.filter(|_| asked.offset >= END);
            rows.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(-1)
                    .with_error_code(refused.unwrap_or(unplaced)),
            );
            let of = (answer.topics.len(), row);
            let chain = place.and_then(|(slot, p)| Some((placement.chain(routed, slot)?, p)));
            let of_chain = |(chain, p)| cut(of, chain, p, asked.offset);
            parts.extend(chain.map(of_chain).unwrap_or_default());
        }
        let name = topic.name.clone();
        let told = DeleteRecordsTopicResult::default().with_name(name).with_partitions(rows);
        answer.topics.push(told);
    }
    parts
}

/// The segments of a partition that hold something before a logical offset, and the one that holds
/// the offset; -1 is the end.
fn cut(of: (usize, usize), chain: &Chain, partition: i32, offset: i64) -> Vec<Shortened> {
    let all = chain.stretches(partition).enumerate();
    let there = all.filter(|(n, part)| *n == 0 || offset == END || part.base <= offset);
    let parts = there.filter(|(n, part)| *n == 0 || part.length() != Some(0));
    (0..)
        .zip(parts)
        .map(|(nth, (_, part))| {
            let within = match (offset, part.length()) {
                (END, None) => END,
                (END, Some(length)) => length,
                (offset, length) => (offset - part.base).clamp(0, length.unwrap_or(i64::MAX)),
            };
            let (physical, base, open) = (part.topic.clone(), part.base, part.end.is_none());
            Shortened { of, offset: within, base, physical, partition, nth, open }
        })
        .collect()
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
