//! Requests of administrators about partitions: of each that there is they are done at once.

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ElectLeadersRequest,
    ElectLeadersResponse, OffsetDeleteRequest, OffsetDeleteResponse, TopicName,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::{FakeCluster, Request};
use crate::reply;
use crate::wire::WireError;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

fn code(cluster: &FakeCluster, topic: &TopicName, index: i32) -> i16 {
    let logs = cluster.topic_by_name(topic).map_or(0, |topic| topic.logs.len());
    let known = usize::try_from(index).is_ok_and(|index| index < logs);
    if known { 0 } else { UNKNOWN_TOPIC_OR_PARTITION }
}

pub(super) fn elect(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: ElectLeadersRequest = request.decode()?;
    let told = asked.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|index| {
            let code = code(cluster, &topic.topic, *index);
            PartitionResult::default().with_partition_id(*index).with_error_code(code)
        });
        let rows = rows.collect();
        ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(rows)
    });
    let answer = ElectLeadersResponse::default().with_replica_election_results(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn reassign(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: AlterPartitionReassignmentsRequest = request.decode()?;
    let told = asked.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            let row = ReassignablePartitionResponse::default().with_partition_index(index);
            row.with_error_code(code(cluster, &topic.name, index))
        });
        let rows = rows.collect();
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(rows)
    });
    let answer = AlterPartitionReassignmentsResponse::default().with_responses(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn delete_offsets(
    cluster: &FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: OffsetDeleteRequest = request.decode()?;
    let told = asked.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            let row = OffsetDeleteResponsePartition::default().with_partition_index(index);
            row.with_error_code(code(cluster, &topic.name, index))
        });
        let rows = rows.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(rows)
    });
    let answer = OffsetDeleteResponse::default().with_topics(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn move_dirs(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: AlterReplicaLogDirsRequest = request.decode()?;
    let told = asked.dirs.into_iter().flat_map(|dir| dir.topics).map(|topic| {
        let rows = topic.partitions.iter().map(|index| {
            let row = AlterReplicaLogDirPartitionResult::default().with_partition_index(*index);
            row.with_error_code(code(cluster, &topic.name, *index))
        });
        let told = AlterReplicaLogDirTopicResult::default().with_topic_name(topic.name.clone());
        told.with_partitions(rows.collect())
    });
    let answer = AlterReplicaLogDirsResponse::default().with_results(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn write_markers(
    cluster: &FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: WriteTxnMarkersRequest = request.decode()?;
    let told = asked.markers.into_iter().map(|marker| {
        let topics = marker.topics.into_iter().map(|topic| {
            let rows = topic.partition_indexes.iter().map(|index| {
                let row = WritableTxnMarkerPartitionResult::default().with_partition_index(*index);
                row.with_error_code(code(cluster, &topic.name, *index))
            });
            let told = WritableTxnMarkerTopicResult::default().with_name(topic.name.clone());
            told.with_partitions(rows.collect())
        });
        let told = WritableTxnMarkerResult::default().with_producer_id(marker.producer_id);
        told.with_topics(topics.collect())
    });
    let answer = WriteTxnMarkersResponse::default().with_markers(told.collect());
    reply::frame(request.head, &answer)
}
