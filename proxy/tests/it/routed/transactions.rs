//! Transactions cannot take in virtual topics yet: who tries is told at once.

use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{TOPIC, start};
use crate::harness::client::Client;
use crate::harness::requests::name;
use crate::harness::{Checked, Faults, ensure_eq, until};

const ADD_PARTITIONS: i16 = 24;
const OFFSET_COMMIT: i16 = 28;
const INVALID_TXN_STATE: i16 = 48;
const NOT_ATTEMPTED: i16 = 55;

fn add(topics: &[&str]) -> AddPartitionsToTxnRequest {
    let topics = topics.iter().map(|topic| {
        AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![0, 1])
    });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(StrBytes::from_static_str("tx").into())
        .with_v3_and_below_producer_id(5.into())
        .with_v3_and_below_topics(topics.collect())
}

fn commit(topics: &[&str]) -> TxnOffsetCommitRequest {
    let topics = topics.iter().map(|topic| {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(3);
        TxnOffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition])
    });
    TxnOffsetCommitRequest::default()
        .with_transactional_id(StrBytes::from_static_str("tx").into())
        .with_group_id(StrBytes::from_static_str("g").into())
        .with_topics(topics.collect())
}

/// No part of such a request reaches a broker.
pub async fn a_transaction_with_a_virtual_topic_is_refused(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(9).await?;
    for version in 0..=3 {
        let told: Checked<AddPartitionsToTxnResponse> =
            client.call(ADD_PARTITIONS, version, &add(&["t", TOPIC])).await;
        let told = told.map_err(|why| {
            crate::harness::failure(format!("AddPartitionsToTxn {version}: {}", why.0))
        })?;
        let codes = told.results_by_topic_v3_and_below.iter().flat_map(|topic| {
            topic.results_by_partition.iter().map(|row| row.partition_error_code)
        });
        let expected = [NOT_ATTEMPTED, NOT_ATTEMPTED, INVALID_TXN_STATE, INVALID_TXN_STATE];
        ensure_eq!(codes.collect::<Vec<_>>(), expected, "codes of version {version}");
    }
    for version in 0..=5 {
        let told: TxnOffsetCommitResponse =
            client.call(OFFSET_COMMIT, version, &commit(&["t", TOPIC])).await?;
        let codes = told.topics.iter().map(|topic| topic.partitions[0].error_code);
        let expected = [INVALID_TXN_STATE; 2];
        ensure_eq!(codes.collect::<Vec<_>>(), expected, "codes of version {version}");
    }
    ensure_eq!(brokers.cluster().count(ADD_PARTITIONS), 0, "requests at a broker");
    ensure_eq!(brokers.cluster().count(OFFSET_COMMIT), 0, "commits at a broker");
    Ok(())
}

#[tokio::test]
async fn a_virtual_topic_cannot_join_a_transaction() -> Checked {
    a_transaction_with_a_virtual_topic_is_refused(None).await
}

#[tokio::test]
async fn transactions_of_other_topics_pass_as_they_are() -> Checked {
    for version in [0, 3, 4, 5] {
        let (brokers, proxy) = start(None, |setup| setup).await;
        let mut client = Client::connect(proxy.port).await?;
        let mut request = add(&["t"]);
        if version > 3 {
            let transaction = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(StrBytes::from_static_str("tx").into())
                .with_topics(request.v3_and_below_topics);
            request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        }
        client.send(ADD_PARTITIONS, version, &request).await?;
        let arrived = async || (brokers.cluster().count(ADD_PARTITIONS) == 1).then_some(());
        until("the request at a broker", arrived).await?;
    }
    Ok(())
}
