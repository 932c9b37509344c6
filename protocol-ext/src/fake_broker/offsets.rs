//! OffsetCommit, TxnOffsetCommit and OffsetForLeaderEpoch: any offset of a topic that exists is
//! taken; the end of every epoch is that of the log.

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::{FakeCluster, Request};
use crate::reply;
use crate::wire::WireError;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

fn taken(cluster: &mut FakeCluster, topic: &str, partition: i32, offset: i64) -> i16 {
    if cluster.log(topic, partition).is_none() {
        return UNKNOWN_TOPIC_OR_PARTITION;
    }
    cluster.commits.push((topic.to_owned(), partition, offset));
    0
}

pub(super) fn commit(cluster: &mut FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: OffsetCommitRequest = request.decode()?;
    let topics = asked.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(taken(cluster, &topic.name, index, asked.committed_offset))
        });
        let rows = rows.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(rows)
    });
    let answer = OffsetCommitResponse::default().with_topics(topics.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn commit_in_transaction(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: TxnOffsetCommitRequest = request.decode()?;
    let topics = asked.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(taken(cluster, &topic.name, index, asked.committed_offset))
        });
        let rows = rows.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(rows)
    });
    let answer = TxnOffsetCommitResponse::default().with_topics(topics.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn for_leader_epoch(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: OffsetForLeaderEpochRequest = request.decode()?;
    let topics = asked.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let row = EpochEndOffset::default().with_partition(asked.partition);
            match cluster.log(&topic.topic, asked.partition) {
                Some(log) => row.with_leader_epoch(0).with_end_offset(log.end()),
                None => row.with_error_code(UNKNOWN_TOPIC_OR_PARTITION),
            }
        });
        let rows = rows.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(rows)
    });
    let answer = OffsetForLeaderEpochResponse::default().with_topics(topics.collect());
    reply::frame(request.head, &answer)
}
