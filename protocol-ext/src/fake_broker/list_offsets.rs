//! ListOffsets: the start or the end of a log.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{FakeCluster, NOT_LEADER_OR_FOLLOWER, Request};
use crate::reply;
use crate::wire::WireError;

const EARLIEST: i64 = -2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: ListOffsetsRequest = request.decode()?;
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
                Some(log) => answer.with_offset(log.end()),
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions)
    });
    reply::frame(request.head, &ListOffsetsResponse::default().with_topics(topics.collect()))
}
