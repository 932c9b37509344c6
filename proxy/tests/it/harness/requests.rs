//! The requests that tests send most.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::client::Client;
use super::{Checked, ensure_eq, failure};

/// First versions that name topics by id.
const PRODUCE_WITH_IDS: i16 = 13;
const FETCH_WITH_IDS: i16 = 13;

/// A topic's name as the codec crate wants it.
pub fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

/// The id that the fake cluster gives a topic.
pub fn id(topic: &str) -> Uuid {
    let mut cluster = protocol_ext::fake_broker::FakeCluster::new(Vec::new());
    cluster.add_topic(topic, 1);
    cluster.topics[0].id
}

/// Produce of one batch to each of some partitions.
pub fn produce(version: i16, acks: i16, topic: &str, batches: &[(i32, Bytes)]) -> ProduceRequest {
    let partitions = batches.iter().map(|(partition, batch)| {
        PartitionProduceData::default().with_index(*partition).with_records(Some(batch.clone()))
    });
    let data = TopicProduceData::default().with_partition_data(partitions.collect());
    let data = if version >= PRODUCE_WITH_IDS {
        data.with_topic_id(id(topic))
    } else {
        data.with_name(name(topic))
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![data])
}

/// Fetch from (partition, offset) pairs.
pub fn fetch(version: i16, topic: &str, from: &[(i32, i64)], bytes_max: i32) -> FetchRequest {
    let partitions = from.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(i32::MAX)
    });
    let asked = FetchTopic::default().with_partitions(partitions.collect());
    let asked = if version >= FETCH_WITH_IDS {
        asked.with_topic_id(id(topic))
    } else {
        asked.with_topic(name(topic))
    };
    let request = FetchRequest::default().with_max_wait_ms(100).with_max_bytes(bytes_max);
    let request = request.with_topics(vec![asked]);
    if version < 15 { request.with_replica_id((-1).into()) } else { request }
}

/// ListOffsets for the end of partition 0.
pub fn list_offsets(topic: &str) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
}

/// Metadata of all topics.
pub fn metadata(version: i16) -> MetadataRequest {
    let request = MetadataRequest::default();
    if version == 0 { request.with_topics(Some(Vec::new())) } else { request.with_topics(None) }
}

impl Client {
    /// Asks for metadata.
    pub async fn metadata(&mut self, version: i16) -> Checked<MetadataResponse> {
        self.call(3, version, &metadata(version)).await
    }

    /// Produces one batch with acks=all and gives error code and base offset.
    pub async fn produce(
        &mut self,
        version: i16,
        topic: &str,
        partition: i32,
        batch: &Bytes,
    ) -> Checked<(i16, i64)> {
        let request = produce(version, -1, topic, &[(partition, batch.clone())]);
        let answer: ProduceResponse = self.call(0, version, &request).await?;
        let answered = answer.responses.first().and_then(|t| t.partition_responses.first());
        let answered = answered.ok_or_else(|| failure("Produce answer without a partition"))?;
        ensure_eq!(answered.index, partition, "partition answered");
        Ok((answered.error_code, answered.base_offset))
    }

    /// Fetches one partition and gives error code and records.
    pub async fn fetch(
        &mut self,
        version: i16,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: i32,
    ) -> Checked<(i16, Bytes)> {
        let request = fetch(version, topic, &[(partition, offset)], bytes_max);
        let answer: FetchResponse = self.call(1, version, &request).await?;
        let mut answered = fetched(answer)?;
        ensure_eq!(answered.len(), 1, "partitions answered");
        let (index, error, records) = answered.remove(0);
        ensure_eq!(index, partition, "partition answered");
        Ok((error, records))
    }
}

/// Partitions of a Fetch answer: (index, error code, records).
pub fn fetched(answer: FetchResponse) -> Checked<Vec<(i32, i16, Bytes)>> {
    ensure_eq!(answer.error_code, 0, "error of a Fetch answer");
    let topic = answer.responses.into_iter().next();
    let topic = topic.ok_or_else(|| failure("Fetch answer without a topic"))?;
    let partitions = topic.partitions.into_iter();
    Ok(partitions
        .map(|p| (p.partition_index, p.error_code, p.records.unwrap_or_default()))
        .collect())
}
