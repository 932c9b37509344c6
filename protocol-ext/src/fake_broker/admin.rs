//! CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords: done at once, for everybody.

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    TopicName,
};

use super::{FakeCluster, FakeLog, Request, text};
use crate::reply;
use crate::wire::WireError;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC_ID: i16 = 100;

pub(super) fn create_topics(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: CreateTopicsRequest = request.decode()?;
    let told = asked.topics.into_iter().map(|topic| {
        let row = CreatableTopicResult::default().with_name(topic.name.clone());
        if cluster.topic_by_name(&topic.name).is_some() {
            return row.with_error_code(TOPIC_ALREADY_EXISTS);
        }
        cluster.add_topic(&topic.name, usize::try_from(topic.num_partitions).unwrap_or(1));
        for config in &topic.configs {
            cluster.configure(&topic.name, &config.name, config.value.as_deref().unwrap_or(""));
        }
        row
    });
    let answer = CreateTopicsResponse::default().with_topics(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn delete_topics(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: DeleteTopicsRequest = request.decode()?;
    let named = asked.topic_names.into_iter().map(|name| (Some(name), uuid::Uuid::nil()));
    let named = named.chain(asked.topics.into_iter().map(|topic| (topic.name, topic.topic_id)));
    let told = named.map(|(name, id)| {
        let found = match &name {
            Some(name) => cluster.topics.iter().position(|topic| topic.name == name.as_str()),
            None => cluster.topics.iter().position(|topic| topic.id == id),
        };
        let unknown = if name.is_some() { UNKNOWN_TOPIC_OR_PARTITION } else { UNKNOWN_TOPIC_ID };
        let row = DeletableTopicResult::default().with_topic_id(id);
        match found.map(|at| cluster.topics.remove(at)) {
            Some(topic) => row.with_name(Some(TopicName(text(&topic.name)))),
            None => row.with_name(name).with_error_code(unknown),
        }
    });
    let answer = DeleteTopicsResponse::default().with_responses(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn create_partitions(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: CreatePartitionsRequest = request.decode()?;
    let told = asked.topics.into_iter().map(|asked| {
        let row = CreatePartitionsTopicResult::default().with_name(asked.name.clone());
        let topic = cluster.topics.iter_mut().find(|topic| topic.name == asked.name.as_str());
        let Some(topic) = topic else { return row.with_error_code(UNKNOWN_TOPIC_OR_PARTITION) };
        topic.logs.resize_with(usize::try_from(asked.count).unwrap_or(0), FakeLog::default);
        row
    });
    let answer = CreatePartitionsResponse::default().with_results(told.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn delete_records(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: DeleteRecordsRequest = request.decode()?;
    let topics = asked.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|asked| {
            let index = asked.partition_index;
            let row = DeleteRecordsPartitionResult::default().with_partition_index(index);
            let row = row.with_low_watermark(-1);
            let Some(log) = cluster.log(&topic.name, index) else {
                return row.with_error_code(UNKNOWN_TOPIC_OR_PARTITION);
            };
            match log.shorten(asked.offset) {
                Some(start) => row.with_low_watermark(start),
                None => row.with_error_code(OFFSET_OUT_OF_RANGE),
            }
        });
        let rows = rows.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(rows)
    });
    let answer = DeleteRecordsResponse::default().with_topics(topics.collect());
    reply::frame(request.head, &answer)
}
