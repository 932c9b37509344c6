//! Produce requests that name virtual topics and others together.

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::{Decodable, StrBytes};
use protocol_ext::fake_broker::{Fault, Moved};
use protocol_ext::header::{Head, request_body_at};

use super::{NORCAL, TOPIC, located, start, without_sequences};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::records::{read, single};
use crate::harness::requests::{id, list_offsets, name, produce};
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, until};

const PRODUCE: i16 = 0;
const LIST_OFFSETS: i16 = 2;
const WITH_IDS: i16 = 13;

/// One batch to the virtual topic and one to `t`, each to partition `partition`.
fn mixed(version: i16, acks: i16, partition: i32, value: &[u8]) -> ProduceRequest {
    let data = |topic: &str, batch: Bytes| {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let named = TopicProduceData::default().with_partition_data(vec![data]);
        match version >= WITH_IDS {
            false => named.with_name(name(topic)),
            true => named.with_topic_id(id(topic)),
        }
    };
    let plain = without_sequences(&single(value.to_vec()));
    ProduceRequest::default().with_acks(acks).with_timeout_ms(7654).with_topic_data(vec![
        data(TOPIC, located(Some("norcal"), value.to_vec())),
        data("t", plain),
    ])
}

fn values(brokers: &Brokers, topic: &str, partition: i32) -> Vec<String> {
    let mut cluster = brokers.cluster();
    let log = cluster.log(topic, partition).expect("a log");
    let values = log.batches().flat_map(read).map(|record| record.value.expect("a value"));
    values.map(|value| String::from_utf8(value).expect("text")).collect()
}

/// Batches for topics that are not virtual stay in the order that their client sent them in.
pub async fn plain_batches_keep_their_order(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup.refresh_ms(600_000)).await;
    let mut client = Client::connect(proxy.node(0)).await?;
    client.metadata(9).await?;
    // The leader is known, so that nothing is waited for.
    let (code, _) = client.produce(9, TOPIC, 0, &located(Some("norcal"), b"0".to_vec())).await?;
    ensure_eq!(code, 0, "error of Produce");
    // The home broker takes its next request only once this answer may go.
    brokers.cluster().script(LIST_OFFSETS, Fault::HoldAfter(0));
    let held = client.send(LIST_OFFSETS, 5, &list_offsets("t")).await?;
    let asked = async || (brokers.cluster().count(LIST_OFFSETS) > 0).then_some(());
    until("the question", asked).await?;
    let plain = without_sequences(&single(b"1".to_vec()));
    let first = client.send(PRODUCE, 9, &produce(9, -1, "t", &[(0, plain)])).await?;
    let second = client.send(PRODUCE, 9, &mixed(9, -1, 0, b"2")).await?;
    let plain = without_sequences(&single(b"3".to_vec()));
    let third = client.send(PRODUCE, 9, &produce(9, -1, "t", &[(0, plain)])).await?;
    tokio::time::sleep(QUIET).await;
    brokers.release();
    let frame = client.receive().await?;
    ensure_eq!(frame[..4], held.to_be_bytes()[..], "the answer that was due");
    for correlation in [first, second, third] {
        let told: ProduceResponse = answer(&client.receive().await?, 9, correlation)?;
        for topic in &told.responses {
            let code = topic.partition_responses[0].error_code;
            ensure_eq!(code, 0, "error of {:?}", topic.name);
        }
    }
    ensure_eq!(values(&brokers, "t", 0), ["1", "2", "3"], "values in order");
    ensure_eq!(values(&brokers, NORCAL, 0), ["0", "2"], "values of the virtual topic");
    Ok(())
}

#[tokio::test]
async fn a_plain_batch_beside_a_virtual_one_overtakes_nothing() -> Checked {
    plain_batches_keep_their_order(None).await
}

/// What a request says of itself is said of its plain part too.
pub async fn the_plain_part_is_as_its_client_wrote_it(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.node(0)).await?;
    for version in [3, 8, 9, 12, WITH_IDS] {
        for acks in [1, -1, 0] {
            brokers.cluster().keeping = Some(PRODUCE);
            brokers.cluster().kept.clear();
            let mut request = mixed(version, acks, 0, b"x");
            request.transactional_id = Some(StrBytes::from_static_str("tx").into());
            let correlation = client.send(PRODUCE, version, &request).await?;
            if acks != 0 {
                let told: ProduceResponse = answer(&client.receive().await?, version, correlation)?;
                ensure_eq!(told.responses.len(), 2, "topics answered");
                for topic in &told.responses {
                    let row = &topic.partition_responses[0];
                    ensure!(row.error_code == 0 && row.base_offset >= 0, "answered: {row:?}");
                }
            }
            let plain = until("both parts", async || {
                let mut parts = plain_parts(&brokers);
                parts.pop()
            });
            let plain = plain.await?;
            let what = format!("of version {version}, acks {acks}");
            ensure_eq!(plain.acks, acks, "acks {what}");
            ensure_eq!(plain.timeout_ms, 7654, "timeout {what}");
            let id = plain.transactional_id.as_ref().map(|id| id.0.as_str());
            ensure_eq!(id, Some("tx"), "transactional id {what}");
        }
    }
    Ok(())
}

/// The requests kept so far that carry the topic `t`.
fn plain_parts(brokers: &Brokers) -> Vec<ProduceRequest> {
    let kept = brokers.cluster().kept.clone();
    let requests = kept.iter().map(|(_, frame)| {
        let head = Head::parse(frame).expect("a head");
        let mut body = frame.slice(request_body_at(head, frame).expect("a body")..);
        ProduceRequest::decode(&mut body, head.version).expect("a request")
    });
    let ours = |topic: &TopicProduceData| *topic.name == *"t" || topic.topic_id == id("t");
    requests.filter(|request| request.topic_data.iter().any(ours)).collect()
}

#[tokio::test]
async fn a_plain_part_keeps_acks_timeout_and_transactional_id() -> Checked {
    the_plain_part_is_as_its_client_wrote_it(None).await
}

/// Addresses of a new leader behind a merged answer are the proxy's.
#[tokio::test]
async fn the_answer_of_a_plain_part_names_virtual_brokers() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup).await;
    let endpoints = brokers.cluster().nodes.clone();
    brokers.cluster().add_topic("u", 1);
    let mut client = Client::connect(proxy.node(0)).await?;
    // Partition 1 of every topic has moved.
    brokers.cluster().moved = Some(Moved { partition: 1, error: 6, endpoints });
    let told: ProduceResponse = client.call(PRODUCE, 10, &mixed(10, -1, 1, b"x")).await?;
    ensure_eq!(told.node_endpoints.len(), 2, "endpoints");
    for node in &told.node_endpoints {
        let port = proxy.node(u16::try_from(node.node_id.0).expect("small"));
        ensure_eq!(node.host.as_str(), "127.0.0.1", "host");
        ensure_eq!(node.port, i32::from(port), "port");
    }
    let codes = told.responses.iter().map(|topic| topic.partition_responses[0].error_code);
    ensure_eq!(codes.collect::<Vec<_>>(), [6, 6], "errors");
    Ok(())
}
