//! Metadata: all brokers; the topics asked for, by name or id. No topic is made.

use bytes::Bytes;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};

use super::{FakeCluster, FakeTopic, Request, text};
use crate::reply;
use crate::wire::WireError;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// Read, write, create, delete, alter, describe, and the two of configurations.
const EVERY_OPERATION: i32 = 0b1101_1111_1000;
const UNKNOWN_TOPIC_ID: i16 = 100;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: MetadataRequest = request.decode()?;
    let version = request.head.version;
    let brokers = cluster.nodes.iter().map(|node| {
        MetadataResponseBroker::default()
            .with_node_id(node.id.into())
            .with_host(text(&node.host))
            .with_port(node.port.into())
    });
    let all = asked.topics.is_none()
        || (version == 0 && asked.topics.as_ref().is_some_and(Vec::is_empty));
    let operations = asked.include_topic_authorized_operations;
    let mut topics: Vec<MetadataResponseTopic> = if all {
        let shown = cluster.topics.iter().filter(|topic| !cluster.forbids(&topic.name));
        shown.map(|topic| known(cluster, topic, version)).collect()
    } else {
        let mut asked = asked.topics.unwrap_or_default();
        // As Kafka does: where a topic is named by its id, those that are named by name are not
        // looked at (KIP-516).
        if asked.iter().any(|asked| asked.name.is_none()) {
            asked.retain(|asked| asked.name.is_none());
        }
        let asked = asked.into_iter().map(|asked| match asked.name {
            Some(name) if cluster.forbids(&name) => MetadataResponseTopic::default()
                .with_name(Some(name))
                .with_error_code(TOPIC_AUTHORIZATION_FAILED),
            Some(name) => match cluster.topic_by_name(&name) {
                Some(topic) => known(cluster, topic, version),
                None => MetadataResponseTopic::default()
                    .with_name(Some(name))
                    .with_error_code(UNKNOWN_TOPIC_OR_PARTITION),
            },
            None => match cluster.topic_by_id(asked.topic_id) {
                Some(topic) if cluster.forbids(&topic.name) => MetadataResponseTopic::default()
                    .with_name((version < 12).then(|| TopicName(text(""))))
                    .with_topic_id(asked.topic_id)
                    .with_error_code(TOPIC_AUTHORIZATION_FAILED),
                Some(topic) => known(cluster, topic, version),
                None => MetadataResponseTopic::default()
                    .with_name((version < 12).then(|| TopicName(text(""))))
                    .with_topic_id(asked.topic_id)
                    .with_error_code(UNKNOWN_TOPIC_ID),
            },
        });
        asked.collect()
    };
    for topic in topics.iter_mut().filter(|topic| operations && topic.error_code == 0) {
        let allowed = topic.name.as_ref().and_then(|name| cluster.allowed(name));
        topic.topic_authorized_operations = allowed.unwrap_or(EVERY_OPERATION);
    }
    let mut answer =
        MetadataResponse::default().with_brokers(brokers.collect()).with_topics(topics);
    if version >= 1 {
        answer.controller_id = cluster.nodes.first().map_or(-1, |node| node.id).into();
    }
    if version >= 2 {
        answer.cluster_id = Some(text(&cluster.id));
    }
    reply::frame(request.head, &answer)
}

fn known(cluster: &FakeCluster, topic: &FakeTopic, version: i16) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.logs).map(|(index, log)| {
        let (replica, epoch) = cluster.leader(index, log);
        let replica = BrokerId(replica);
        let away = cluster.leaderless.contains(&(topic.name.clone(), index));
        let leader = if away { BrokerId(-1) } else { replica };
        let error = if away || leader.0 < 0 && cluster.strict { LEADER_NOT_AVAILABLE } else { 0 };
        let down: Vec<BrokerId> = cluster.down.iter().copied().map(BrokerId).collect();
        let mut partition = MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(leader)
            .with_replica_nodes([&[replica][..], &down].concat())
            .with_isr_nodes(vec![replica]);
        if version >= 5 {
            partition.offline_replicas = down;
        }
        if version >= 7 { partition.with_leader_epoch(epoch) } else { partition }
    });
    let trouble = cluster.troubled.iter().find(|(name, _)| *name == topic.name);
    let answer = MetadataResponseTopic::default()
        .with_error_code(trouble.map_or(0, |(_, error)| *error))
        .with_name(Some(TopicName(text(&topic.name))))
        .with_partitions(partitions.collect());
    if version >= 10 { answer.with_topic_id(topic.id) } else { answer }
}
