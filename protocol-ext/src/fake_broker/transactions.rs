//! AddPartitionsToTxn and EndTxn of clients: whoever has an older epoch is fenced.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse,
};

use super::{FakeCluster, Request};
use crate::reply;
use crate::wire::WireError;

const INVALID_PRODUCER_EPOCH: i16 = 47;

pub(super) fn add_partitions(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: AddPartitionsToTxnRequest = request.decode()?;
    let (id, epoch) = (asked.v3_and_below_producer_id.0, asked.v3_and_below_producer_epoch);
    let code = if cluster.fences(id, epoch) { INVALID_PRODUCER_EPOCH } else { 0 };
    let topics = asked.v3_and_below_topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name)
            .with_results_by_partition(rows.collect())
    });
    let answer =
        AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn end(cluster: &mut FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: EndTxnRequest = request.decode()?;
    let (id, epoch) = (asked.producer_id.0, asked.producer_epoch);
    let fenced = cluster.fences(id, epoch);
    if !fenced {
        cluster.end_transactions(id, epoch, asked.committed);
    }
    let code = if fenced { INVALID_PRODUCER_EPOCH } else { 0 };
    reply::frame(request.head, &EndTxnResponse::default().with_error_code(code))
}
