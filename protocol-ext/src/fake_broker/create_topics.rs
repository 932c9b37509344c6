//! CreateTopics: topics that are missing are made, with as many partitions as wanted.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::{FakeCluster, Request};
use crate::reply;
use crate::wire::WireError;

const TOPIC_ALREADY_EXISTS: i16 = 36;

pub(super) fn answer(cluster: &mut FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: CreateTopicsRequest = request.decode()?;
    let mut topics = Vec::with_capacity(asked.topics.len());
    for topic in asked.topics {
        let there = cluster.topic_by_name(&topic.name).is_some();
        if !there {
            cluster.add_topic(&topic.name, usize::try_from(topic.num_partitions).unwrap_or(1));
        }
        let code = if there { TOPIC_ALREADY_EXISTS } else { 0 };
        topics.push(CreatableTopicResult::default().with_name(topic.name).with_error_code(code));
    }
    reply::frame(request.head, &CreateTopicsResponse::default().with_topics(topics))
}
