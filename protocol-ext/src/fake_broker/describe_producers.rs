//! DescribeProducers: the last batch of each producer id.

use bytes::Bytes;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use super::{FakeCluster, NOT_LEADER_OR_FOLLOWER, Request};
use crate::reply;
use crate::wire::WireError;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: DescribeProducersRequest = request.decode()?;
    let topics = asked.topics.into_iter().map(|asked| {
        let topic = cluster.topic_by_name(&asked.name);
        let partitions = asked.partition_indexes.iter().map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            let at = usize::try_from(*index).unwrap_or(usize::MAX);
            let Some(log) = topic.and_then(|topic| topic.logs.get(at)) else {
                return answer.with_error_code(UNKNOWN_TOPIC_OR_PARTITION);
            };
            if cluster.strict && cluster.moved_partition(*index, Some(log)).is_some() {
                return answer.with_error_code(NOT_LEADER_OR_FOLLOWER);
            }
            let producers = log.producers().map(|(id, epoch, last_sequence)| {
                ProducerState::default()
                    .with_producer_id(id.into())
                    .with_producer_epoch(i32::from(epoch))
                    .with_last_sequence(last_sequence)
                    .with_coordinator_epoch(-1)
                    .with_current_txn_start_offset(-1)
            });
            let open = log.transactions().map(|(id, first)| {
                ProducerState::default()
                    .with_producer_id(id.into())
                    .with_coordinator_epoch(-1)
                    .with_current_txn_start_offset(first)
            });
            answer.with_active_producers(producers.chain(open).collect())
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(asked.name).with_partitions(partitions)
    });
    let answer = DescribeProducersResponse::default().with_topics(topics.collect());
    reply::frame(request.head, &answer)
}
