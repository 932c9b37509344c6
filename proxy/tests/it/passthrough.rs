//! Listeners behind which logs are read as they are, and nothing is written.

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    ApiVersionsResponse, DeleteTopicsRequest, IncrementalAlterConfigsRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup, free_block};
use crate::harness::records::{read, single};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};
use crate::routed::carrier::old_request;
use crate::routed::located;
use crate::segments;

/// TOPIC_AUTHORIZATION_FAILED.
const FORBIDDEN: i16 = 29;

/// The line of the configuration, and the port.
fn beside() -> (u16, String) {
    let port = free_block();
    let (first, last) = (port + 1, port + 4);
    let line =
        format!("passthrough = {{ bootstrap = \"127.0.0.1:{port}\", ports = \"{first}-{last}\" }}");
    (port, line)
}

/// What one client stores another one reads as a reference, on purpose, and at ports of its own.
pub async fn references_are_given_raw(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    let store = Folder::new();
    let (beside, line) = beside();
    let setup = Setup::new(&brokers, faults).offload(&store, 1000).listen(&line);
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    let value = noise(1, 20_000);
    let (error, _) = client.produce(9, "t", 0, &single(value.clone())).await?;
    ensure_eq!(error, 0, "error of Produce");

    let mut raw = Client::connect(beside).await?;
    let (error, section) = raw.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of a raw Fetch");
    let reference = read(&section)[0].value.clone().unwrap_or_default();
    ensure!(reference.starts_with(b"\xfbREF"), "the passthrough restores values");
    ensure_eq!(reference.len(), 112, "bytes of what it gives");
    let told: MetadataResponse = raw.metadata(12).await?;
    let ports: Vec<i32> = told.brokers.iter().map(|broker| broker.port).collect();
    ensure_eq!(ports, [i32::from(beside) + 1, i32::from(beside) + 2], "ports told there");
    let (error, section) = client.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section)[0].value.as_ref() == Some(&value), "the value differs");
    Ok(())
}

#[tokio::test]
async fn a_passthrough_listener_gives_references() -> Checked {
    references_are_given_raw(None).await
}

/// Whether a client there is told of an API, and served.
async fn offers<Q>(port: u16, key: i16, version: i16, request: &Q) -> Checked<(bool, bool)>
where
    Q: kafka_protocol::protocol::Encodable + kafka_protocol::protocol::HeaderVersion,
{
    let mut raw = Client::connect(port).await?;
    let asked = kafka_protocol::messages::ApiVersionsRequest::default();
    let told: ApiVersionsResponse = raw.call(api::API_VERSIONS, 0, &asked).await?;
    let told = told.api_keys.iter().any(|row| row.api_key == key);
    raw.send(key, version, request).await?;
    // However the connection ends, there is no answer.
    Ok((told, matches!(raw.receive_or_end().await, Ok(Some(_)))))
}

/// Nothing is written there: neither to topics nor to what virtual topics are made of, which stays
/// hidden; virtual topics themselves are read.
pub async fn nothing_is_written(faults: Faults) -> Checked {
    let store = Folder::new();
    let (beside, line) = beside();
    let setup = |setup: Setup| setup.offload(&store, 1000).listen(&line);
    let (brokers, proxy): (Brokers, Proxy) = segments::start_as(faults, setup).await?;
    let mut client = Client::connect(proxy.port).await?;
    let sent = located(Some("norcal"), noise(1, 20_000));
    let (error, _) = client.produce(9, segments::TOPIC, 0, &sent).await?;
    ensure_eq!(error, 0, "error of Produce");

    let mut raw = Client::connect(beside).await?;
    let told: MetadataResponse = raw.metadata(12).await?;
    let names: Vec<String> =
        told.topics.iter().filter_map(|topic| Some(topic.name.as_ref()?.to_string())).collect();
    let hidden = |name: &&String| name.starts_with("fires-") || name.starts_with("__");
    ensure_eq!(names.iter().filter(hidden).count(), 0, "hidden topics among {names:?}");
    ensure!(names.iter().any(|name| name == segments::TOPIC), "no virtual topic in {names:?}");
    let (error, section) = raw.fetch(11, segments::TOPIC, 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of a raw Fetch");
    let reference = read(&section)[0].value.clone().unwrap_or_default();
    ensure!(reference.starts_with(b"\xfbREF"), "no reference but {} bytes", reference.len());

    let refused = (false, false);
    for topic in ["t", segments::TOPIC, segments::NORCAL[0], segments::PLACEMENT] {
        let before = brokers.cluster().log(topic, 0).map(|log| log.end());
        let batch = single(vec![1]);
        // librdkafka reads no batches from a broker that does not show Produce.
        let (error, _) = Client::connect(beside).await?.produce(9, topic, 0, &batch).await?;
        ensure_eq!(error, FORBIDDEN, "error of Produce to {topic}");
        let produce = crate::harness::requests::produce(9, 0, topic, &[(0, batch)]);
        let got = offers(beside, api::PRODUCE, 9, &produce).await?;
        ensure_eq!(got, (true, false), "Produce to {topic} without acks: told, answered");
        // Of versions that are older than batches no answer is made.
        for version in 0..3 {
            let mut old = Client::connect(beside).await?;
            old.send_raw(&old_request(api::PRODUCE, version, topic)).await?;
            let ended = !matches!(old.receive_or_end().await, Ok(Some(_)));
            ensure!(ended, "Produce {version} to {topic} is answered");
        }
        let name = StrBytes::from_string(topic.to_owned());
        let named = DeleteTopicState::default().with_name(Some(name.clone().into()));
        let delete = DeleteTopicsRequest::default().with_topic_names(vec![name.into()]);
        let delete = delete.with_topics(vec![named]).with_timeout_ms(1000);
        let got = offers(beside, api::DELETE_TOPICS, 6, &delete).await?;
        ensure_eq!(got, refused, "DeleteTopics of {topic}: told, answered");
        let alter = IncrementalAlterConfigsRequest::default();
        let got = offers(beside, 44, 1, &alter).await?;
        ensure_eq!(got, refused, "AlterConfigs of {topic}: told, answered");
        let after = brokers.cluster().log(topic, 0).map(|log| log.end());
        // The leader of the placement writes to its log at any time.
        ensure!(after == before || topic == segments::PLACEMENT, "{topic} was changed");
    }
    Ok(())
}

#[tokio::test]
async fn a_passthrough_listener_writes_nothing() -> Checked {
    nothing_is_written(None).await
}
