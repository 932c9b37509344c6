//! Metadata about virtual topics.

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use super::{TOPIC, start};
use crate::harness::client::Client;
use crate::harness::requests::{id, name};
use crate::harness::{Checked, ensure, ensure_eq, until};

const METADATA: i16 = 3;

fn about(names: &[&str]) -> MetadataRequest {
    let topics = names.iter().map(|n| MetadataRequestTopic::default().with_name(Some(name(n))));
    MetadataRequest::default().with_topics(Some(topics.collect()))
}

fn rows(answer: &MetadataResponse) -> Vec<(String, i16, usize)> {
    let topics = answer.topics.iter().map(|topic| {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        (name, topic.error_code, topic.partitions.len())
    });
    topics.collect()
}

#[tokio::test]
async fn every_version_of_a_question_about_a_virtual_topic_is_answered() -> Checked {
    let (_brokers, proxy) = start(None, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    for version in 0..=13 {
        let answer: MetadataResponse =
            client.call(METADATA, version, &about(&[TOPIC, "t"])).await?;
        let mut rows = rows(&answer);
        rows.sort_unstable();
        let expected = [(TOPIC.to_owned(), 0, 4), ("t".to_owned(), 0, 3)];
        ensure_eq!(rows, expected, "topics in version {version}");
        for broker in &answer.brokers {
            ensure_eq!(broker.host.as_str(), "127.0.0.1", "host in version {version}");
        }
    }
    Ok(())
}

/// Old clients cannot say that nothing may be made: the proxy says it for them.
#[tokio::test]
async fn no_question_about_a_virtual_topic_makes_a_topic() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup.refresh_ms(600_000)).await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().keeping = Some(METADATA);
    for version in [0, 3, 4, 12] {
        brokers.cluster().kept.clear();
        let _: MetadataResponse = client.call(METADATA, version, &about(&[TOPIC])).await?;
        let (_, frame) = brokers.cluster().kept[0].clone();
        let head = protocol_ext::header::Head::parse(&frame).expect("a head");
        ensure!(head.version >= 4, "version {version} went on as {}", head.version);
        let at = protocol_ext::header::request_body_at(head, &frame).expect("a body");
        let mut body = frame.slice(at..);
        let asked = <MetadataRequest as kafka_protocol::protocol::Decodable>::decode(
            &mut body,
            head.version,
        );
        let makes = asked.expect("a request").allow_auto_topic_creation;
        ensure!(!makes, "version {version} lets brokers make topics");
    }
    Ok(())
}

#[tokio::test]
async fn a_real_topic_of_the_same_name_is_told_of_and_shown_once() -> Checked {
    let brokers = crate::harness::broker::Brokers::start(2).await;
    for topic in [TOPIC, super::NORCAL, super::OTHER] {
        brokers.cluster().add_topic(topic, 2);
    }
    let setup = crate::harness::proxy::Setup::new(&brokers, None).limit(super::ROUTED);
    let proxy = setup.start().await;
    let line = "is hidden by the virtual topic of its name";
    until("a line", async || (proxy.logged(line) > 0).then_some(())).await?;
    proxy.metric_becomes("firebreak_hidden_topics", 1.0).await?;
    let mut client = Client::connect(proxy.port).await?;
    for version in [0, 5, 12] {
        let rows = rows(&client.metadata(version).await?);
        let ours: Vec<_> = rows.iter().filter(|row| row.0 == TOPIC).collect();
        ensure_eq!(ours, [&(TOPIC.to_owned(), 0, 4)], "rows of it in version {version}");
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_asked_for_often_is_asked_on_once() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup.refresh_ms(600_000)).await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().seen.clear();
    let answer: MetadataResponse = client.call(METADATA, 9, &about(&[TOPIC; 1000])).await?;
    ensure_eq!(rows(&answer), [(TOPIC.to_owned(), 0, 4)], "topics");
    let (seen, least) = (brokers.cluster().seen.clone(), 100);
    let ours = seen.iter().filter(|seen| seen.head.correlation > least);
    let bytes: usize = ours.map(|seen| seen.bytes).sum();
    ensure!(bytes < 200, "{bytes} bytes went on");
    Ok(())
}

#[tokio::test]
async fn virtual_and_real_topics_are_found_by_id_together() -> Checked {
    let (_brokers, proxy) = start(None, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let ids = [id(TOPIC), id("t")];
    let topics =
        ids.map(|id| MetadataRequestTopic::default().with_name(None).with_topic_id(id)).to_vec();
    let request = MetadataRequest::default().with_topics(Some(topics));
    for version in [12, 13] {
        let answer: MetadataResponse = client.call(METADATA, version, &request).await?;
        let mut rows = rows(&answer);
        rows.sort_unstable();
        let expected = [(TOPIC.to_owned(), 0, 4), ("t".to_owned(), 0, 3)];
        ensure_eq!(rows, expected, "topics by id in version {version}");
        let virtual_topic = answer.topics.iter().find(|topic| topic.topic_id == ids[0]);
        let partitions = &virtual_topic.expect("just seen").partitions;
        let codes: Vec<i16> = partitions.iter().map(|row| row.error_code).collect();
        ensure_eq!(codes, [0; 4], "errors of its partitions in version {version}");
    }
    Ok(())
}
