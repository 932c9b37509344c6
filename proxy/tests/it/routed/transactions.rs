//! Transactions cannot take in virtual topics yet: who tries is told at once.

use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiVersionsRequest, ApiVersionsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{TOPIC, start};
use crate::harness::client::Client;
use crate::harness::requests::name;
use crate::harness::{Checked, Faults, ensure, ensure_eq, until};

const ADD_PARTITIONS: i16 = 24;
const OFFSET_COMMIT: i16 = 28;
const INVALID_TXN_STATE: i16 = 48;
const NOT_ATTEMPTED: i16 = 55;

/// Asks to take these into a transaction.
pub fn add(topics: &[&str]) -> AddPartitionsToTxnRequest {
    let topics = topics.iter().map(|topic| {
        AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![0, 1])
    });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(StrBytes::from_static_str("tx").into())
        .with_v3_and_below_producer_id(5.into())
        .with_v3_and_below_topics(topics.collect())
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
    ensure_eq!(brokers.cluster().count(ADD_PARTITIONS), 0, "requests at a broker");
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

/// A refusal has a row for each partition: of too many the connection ends instead.
pub async fn refusals_are_bounded(faults: Faults) -> Checked {
    const PARTITIONS: usize = 30_000;
    let (_brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let mut request = add(&["t", TOPIC]);
    request.v3_and_below_topics[0].partitions = vec![0; PARTITIONS];
    client.send(ADD_PARTITIONS, 3, &request).await?;
    ensure!(client.receive().await.is_err(), "a row for each of {PARTITIONS}");
    let metric = "firebreak_errors_total{blame=\"client\",kind=\"request\"}";
    proxy.metric_becomes(metric, 1.0).await
}

#[tokio::test]
async fn a_transaction_of_too_many_partitions_is_not_answered() -> Checked {
    refusals_are_bounded(None).await
}

/// Of versions that nobody has seen yet it could not be told whether they name a virtual topic.
#[tokio::test]
async fn later_versions_of_transactions_are_not_offered() -> Checked {
    let brokers = crate::harness::broker::Brokers::start(1).await;
    brokers.cluster().versions.retain(|(key, ..)| ![ADD_PARTITIONS, OFFSET_COMMIT].contains(key));
    brokers.cluster().versions.extend([(ADD_PARTITIONS, 0, 6), (OFFSET_COMMIT, 0, 6)]);
    for (routed, most) in [(false, 6), (true, 5)] {
        let setup = crate::harness::proxy::Setup::new(&brokers, None);
        let setup = if routed { setup.virtual_topic() } else { setup };
        let proxy = setup.start().await;
        let mut client = Client::connect(proxy.port).await?;
        let told: ApiVersionsResponse = client.call(18, 2, &ApiVersionsRequest::default()).await?;
        let rows = told
            .api_keys
            .iter()
            .filter(|row| [ADD_PARTITIONS, OFFSET_COMMIT].contains(&row.api_key));
        let versions: Vec<i16> = rows.map(|row| row.max_version).collect();
        ensure_eq!(versions, [most; 2], "newest versions, virtual topics: {routed}");
    }
    Ok(())
}
