//! Transactions: a request that would take a virtual topic into one, or a part of one, is refused
//! here, whole.
//!
//! So is whatever names the transactional id of the placement, which is the proxy's own.
//!
//! Produce requests say the same of each batch (`legs/produce.rs`). Offsets of a virtual topic may
//! be committed in one: they are the carrier's. Invariant: of a request that names a virtual topic
//! or a part of one nothing reaches a broker.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnResponse,
    InitProducerIdResponse,
};
use protocol_ext::header::{self, Head};
use protocol_ext::wire::{Reader, WireError};
use protocol_ext::{api, guard, reply};

use super::legs::{UNKNOWN_PARTITION, bounded};
use super::virtual_topics::{Named, VirtualTopics};
use crate::fault;

/// INVALID_TXN_STATE: no retry helps.
pub const INVALID_TXN_STATE: i16 = 48;
/// OPERATION_NOT_ATTEMPTED, since another partition of the request was refused.
const NOT_ATTEMPTED: i16 = 55;

/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
pub const ID_FORBIDDEN: i16 = 53;

/// The refusal of a request about a transaction that cannot be; `None` of any other.
pub fn refusal(
    routed: &VirtualTopics,
    head: Head,
    frame: &Bytes,
) -> Result<Option<Bytes>, WireError> {
    let at = header::request_body_at(head, frame)?;
    if head.api == api::ADD_PARTITIONS_TO_TXN {
        let request = guard::request(head.api, head.version, frame, at)?;
        let answer = partitions_refused(routed, &request)?;
        return answer.map(|answer| reply::frame(head, &answer)).transpose();
    }
    // The transactional id comes first in all of them.
    let mut read = Reader::new(frame, at);
    let id = read.bytes(api::is_flexible(head.api, head.version), false)?.unwrap_or_default();
    if !std::str::from_utf8(id).is_ok_and(|id| routed.is_own_writer(id)) {
        return Ok(None);
    }
    let refused = match head.api {
        api::INIT_PRODUCER_ID => {
            let none = InitProducerIdResponse::default().with_error_code(ID_FORBIDDEN);
            reply::frame(head, &none.with_producer_id((-1).into()).with_producer_epoch(-1))
        }
        api::ADD_OFFSETS_TO_TXN => {
            reply::frame(head, &AddOffsetsToTxnResponse::default().with_error_code(ID_FORBIDDEN))
        }
        _ => reply::frame(head, &EndTxnResponse::default().with_error_code(ID_FORBIDDEN)),
    };
    refused.map(Some)
}

/// All or nothing, as brokers add partitions.
fn partitions_refused(
    routed: &VirtualTopics,
    request: &AddPartitionsToTxnRequest,
) -> Result<Option<AddPartitionsToTxnResponse>, WireError> {
    let of_brokers = request.transactions.iter().flat_map(|transaction| &transaction.topics);
    let topics = request.v3_and_below_topics.iter().chain(of_brokers);
    let ids = request.transactions.iter().map(|transaction| &transaction.transactional_id);
    let mut ids = ids.chain([&request.v3_and_below_transactional_id]);
    let all = ids.any(|id| routed.is_own_writer(id)).then_some(ID_FORBIDDEN);
    if all.is_none() && topics.clone().all(|topic| refused(routed, &topic.name).is_none()) {
        return Ok(None);
    }
    bounded_in_rows(topics.map(|topic| topic.partitions.len()))?;
    let by_transaction = request.transactions.iter().map(|transaction| {
        AddPartitionsToTxnResult::default()
            .with_transactional_id(transaction.transactional_id.clone())
            .with_topic_results(rows(routed, all, &transaction.topics))
    });
    let by_topic = rows(routed, all, &request.v3_and_below_topics);
    Ok(Some(
        AddPartitionsToTxnResponse::default()
            .with_results_by_transaction(by_transaction.collect())
            .with_results_by_topic_v3_and_below(by_topic),
    ))
}

/// A refusal has a row for each partition: so many times as long as what asked for it.
fn bounded_in_rows(partitions: impl Iterator<Item = usize>) -> Result<(), WireError> {
    if fault::on("refusals-unbounded") { Ok(()) } else { bounded(partitions) }
}

/// What is told of a topic that cannot be in a transaction.
fn refused(routed: &VirtualTopics, name: &str) -> Option<i16> {
    match routed.named(name) {
        Named::Virtual => Some(INVALID_TXN_STATE),
        Named::Hidden if fault::on(fault::of_hidden(api::ADD_PARTITIONS_TO_TXN)) => None,
        Named::Hidden => Some(UNKNOWN_PARTITION),
        Named::Plain => None,
    }
}

fn rows(
    routed: &VirtualTopics,
    all: Option<i16>,
    topics: &[AddPartitionsToTxnTopic],
) -> Vec<AddPartitionsToTxnTopicResult> {
    let rows = topics.iter().map(|topic| {
        let code = all.or_else(|| refused(routed, &topic.name)).unwrap_or(NOT_ATTEMPTED);
        let rows = topic.partitions.iter().map(|partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(rows.collect())
    });
    rows.collect()
}
