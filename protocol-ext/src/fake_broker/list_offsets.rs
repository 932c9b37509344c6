//! ListOffsets: the start or the end of a log, or the first batch of a time.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{FakeCluster, NOT_LEADER_OR_FOLLOWER, Request};
use crate::reply;
use crate::wire::WireError;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: ListOffsetsRequest = request.decode()?;
    let replica = asked.replica_id.0 != -1;
    let committed = asked.isolation_level == 1;
    let topics = asked.topics.into_iter().map(|asked| {
        let topic = cluster.topic_by_name(&asked.name);
        let partitions = asked.partitions.iter().map(|asked| {
            let index = usize::try_from(asked.partition_index).unwrap_or(usize::MAX);
            let log = topic.and_then(|topic| topic.logs.get(index));
            let answer =
                ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            match log {
                Some(_) if cluster.moved_partition(asked.partition_index, log).is_some() => {
                    answer.with_error_code(NOT_LEADER_OR_FOLLOWER)
                }
                None => answer.with_error_code(UNKNOWN_TOPIC_OR_PARTITION),
                Some(log) if asked.timestamp == EARLIEST => answer.with_offset(log.start()),
                Some(log) if asked.timestamp == LATEST && committed => {
                    answer.with_offset(log.stable_end().min(log.high_watermark()))
                }
                Some(log) if asked.timestamp == LATEST && replica => answer.with_offset(log.end()),
                Some(log) if asked.timestamp == LATEST => answer.with_offset(log.high_watermark()),
                Some(log) => match log.first_at(asked.timestamp) {
                    Some((offset, time)) => answer.with_offset(offset).with_timestamp(time),
                    None => answer.with_offset(-1).with_timestamp(-1),
                },
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions)
    });
    reply::frame(request.head, &ListOffsetsResponse::default().with_topics(topics.collect()))
}
