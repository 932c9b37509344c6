//! Sealing, enforced by brokers: after it nothing can be written to a topic, and its end is known.
//!
//! `max.message.bytes` 0 -> shown by every replica's broker -> a batch of wrong CRC refused as too
//! large by each leader (2 while open; never written) -> no open transaction -> log end = high
//! watermark, both asked with one leader epoch -> the same replicas are up as before. Every step
//! may be done again, by whoever leads.
//! Invariant: an end is told only when no replica takes writes and all there is is replicated. One
//! that is down is not asked: before it can lead it has read the cluster's decisions up to then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeProducersRequest,
    DescribeProducersResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;
use protocol_ext::batch::{self, BatchHeader};
use protocol_ext::codec::Framing;

use super::ask::{Asker, Shape, name};
use crate::data_plane::DataPlane;
use crate::route::legs::SEALED_BY;
use crate::{fault, random};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Time a broker may take, in milliseconds.
const TIMEOUT_MS: i32 = 10_000;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const UNKNOWN_TOPIC: i16 = 3;
const MESSAGE_TOO_LARGE: i16 = 10;
/// A topic, among resources.
const TOPIC: i8 = 2;
/// Of a configuration: set it.
const SET: i8 = 0;
const LATEST: i64 = -1;
/// Asks for the log end instead of the high watermark, as replicas do.
const DEBUGGING_REPLICA: i32 = -2;

/// How segments are made. No record of a batch is refused for its time where others of it, in other
/// segments, are written.
const SEGMENT_CONFIGS: [(&str, &str); 5] = [
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("cleanup.policy", "delete"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
];

type Shapes = BTreeMap<i32, Shape>;

/// Seals a topic and gives the end of each partition; tries until it is done.
pub async fn seal(plane: &DataPlane, topic: &str, partitions: i32) -> Vec<i64> {
    let mut asker = Asker::new(plane);
    loop {
        match attempt(&mut asker, topic, partitions).await {
            Ok(Ok(ends)) => return ends,
            Ok(Err(waits)) => {
                if let Some(left_out) = plane.lines.allows("sealing") {
                    tracing::info!(topic, waits, left_out, "a segment is not sealed yet");
                }
            }
            Err(error) => {
                asker = Asker::new(plane);
                if let Some(left_out) = plane.lines.allows("seal") {
                    tracing::warn!(topic, %error, left_out, "a segment cannot be sealed yet");
                }
            }
        }
        tokio::time::sleep(random::jittered(PAUSE)).await;
    }
}

/// All steps once; what is waited for, if they came to no end.
async fn attempt(
    asker: &mut Asker<'_>,
    topic: &str,
    partitions: i32,
) -> io::Result<Result<Vec<i64>, &'static str>> {
    let Some(shapes) = asker.shape(topic).await? else {
        return Err(io::Error::other("the topic is gone"));
    };
    if !covers(&shapes, partitions) {
        return Ok(Err("a leader"));
    }
    refuse_writes(asker, topic).await?;
    let replicas: BTreeSet<i32> =
        shapes.values().flat_map(|shape| &shape.replicas).copied().collect();
    if !fault::on("seal-unasked") {
        for node in replicas {
            if !is_marked(asker, node, topic).await? {
                return Ok(Err("a broker that does not know it yet"));
            }
        }
        if !refused_by_leaders(asker, topic, &shapes).await? {
            return Ok(Err("a leader that still takes writes"));
        }
    }
    if has_transactions(asker, topic, &shapes).await? && !fault::on("open-transaction-sealed") {
        return Ok(Err("a transaction that is open"));
    }
    let ends = offsets(asker, topic, &shapes, DEBUGGING_REPLICA).await?;
    let marks = offsets(asker, topic, &shapes, -1).await?;
    let settled = ends == marks || fault::on("unreplicated-sealed");
    if asker.shape(topic).await?.as_ref() != Some(&shapes) {
        return Ok(Err("a broker that comes or goes"));
    }
    match (settled && ends.len() == shapes.len()).then_some(marks) {
        Some(marks) => Ok(Ok(marks.into_values().collect())),
        None => Ok(Err("replication")),
    }
}

/// Whether all partitions are there and led.
fn covers(shapes: &Shapes, partitions: i32) -> bool {
    shapes.keys().copied().eq(0..partitions)
}

/// Partitions by their leader.
fn by_leader(shapes: &Shapes) -> BTreeMap<i32, Vec<(i32, i32)>> {
    let mut led = BTreeMap::<i32, Vec<(i32, i32)>>::new();
    for (partition, shape) in shapes {
        led.entry(shape.leader).or_default().push((*partition, shape.epoch));
    }
    led
}

async fn refuse_writes(asker: &mut Asker<'_>, topic: &str) -> io::Result<()> {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(SEALED_BY))
        .with_config_operation(SET)
        .with_value(Some(StrBytes::from_static_str("0")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let key = api::INCREMENTAL_ALTER_CONFIGS;
    let answer: IncrementalAlterConfigsResponse = asker.ask(None, key, 1, &request).await?;
    match answer.responses.first().map(|row| row.error_code) {
        Some(0) => Ok(()),
        code => Err(io::Error::other(format!("error {code:?} of its configuration"))),
    }
}

/// Whether a broker shows the mark of a sealed topic.
async fn is_marked(asker: &mut Asker<'_>, node: i32, topic: &str) -> io::Result<bool> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(topic.to_owned()))
        .with_configuration_keys(Some(vec![StrBytes::from_static_str(SEALED_BY)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer: DescribeConfigsResponse =
        asker.ask(Some(node), api::DESCRIBE_CONFIGS, 4, &request).await?;
    let configs = answer.results.iter().filter(|result| result.error_code == 0);
    let mut configs = configs.flat_map(|result| &result.configs);
    let own = configs.find(|config| *config.name == *SEALED_BY);
    Ok(own.and_then(|config| config.value.as_ref()).is_some_and(|value| value.as_str() == "0"))
}

/// Whether each leader refuses a batch as too large that would be refused for its CRC otherwise.
async fn refused_by_leaders(
    asker: &mut Asker<'_>,
    topic: &str,
    shapes: &Shapes,
) -> io::Result<bool> {
    let batch = broken_batch().map_err(io::Error::other)?;
    for (node, partitions) in by_leader(shapes) {
        let data = partitions.iter().map(|(partition, _)| {
            let data = PartitionProduceData::default().with_index(*partition);
            data.with_records(Some(batch.clone()))
        });
        let data =
            TopicProduceData::default().with_name(name(topic)).with_partition_data(data.collect());
        let request = ProduceRequest::default()
            .with_acks(1)
            .with_timeout_ms(TIMEOUT_MS)
            .with_topic_data(vec![data]);
        let answer: ProduceResponse = asker.ask(Some(node), api::PRODUCE, 9, &request).await?;
        let rows = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let refused = rows.filter(|row| row.error_code == MESSAGE_TOO_LARGE).count();
        if refused != partitions.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A batch of one record whose CRC is wrong.
fn broken_batch() -> Result<Bytes, batch::BatchError> {
    let header = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: 1,
    };
    // A record without key, value and headers: six bytes behind their count.
    let batch = batch::build(header, Framing::Plain, &[12, 0, 0, 0, 1, 1, 0])?;
    let mut broken = batch.to_vec();
    if let Some(byte) = broken.get_mut(CRC_AT) {
        *byte ^= 0xff;
    }
    Ok(broken.into())
}

/// Where a batch has its CRC.
const CRC_AT: usize = 17;

async fn has_transactions(asker: &mut Asker<'_>, topic: &str, shapes: &Shapes) -> io::Result<bool> {
    for (node, partitions) in by_leader(shapes) {
        let indexes = partitions.iter().map(|(partition, _)| *partition).collect();
        let asked = TopicRequest::default().with_name(name(topic)).with_partition_indexes(indexes);
        let request = DescribeProducersRequest::default().with_topics(vec![asked]);
        let answer: DescribeProducersResponse =
            asker.ask(Some(node), api::DESCRIBE_PRODUCERS, 0, &request).await?;
        let rows: Vec<_> = answer.topics.iter().flat_map(|topic| &topic.partitions).collect();
        if rows.len() != partitions.len() || rows.iter().any(|row| row.error_code != 0) {
            return Err(io::Error::other("its producers are not told"));
        }
        let mut producers = rows.iter().flat_map(|row| &row.active_producers);
        if producers.any(|producer| producer.current_txn_start_offset >= 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends of partitions, asked of the leaders of these epochs; those that lead no more are left out.
async fn offsets(
    asker: &mut Asker<'_>,
    topic: &str,
    shapes: &Shapes,
    replica: i32,
) -> io::Result<BTreeMap<i32, i64>> {
    let mut ends = BTreeMap::new();
    for (node, partitions) in by_leader(shapes) {
        let partitions = partitions.iter().map(|(partition, epoch)| {
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(*epoch)
                .with_timestamp(LATEST)
        });
        let asked = ListOffsetsTopic::default()
            .with_name(name(topic))
            .with_partitions(partitions.collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(replica))
            .with_topics(vec![asked]);
        let answer: ListOffsetsResponse =
            asker.ask(Some(node), api::LIST_OFFSETS, 5, &request).await?;
        let rows = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let told = rows.filter(|row| row.error_code == 0);
        ends.extend(told.map(|row| (row.partition_index, row.offset)));
    }
    Ok(ends)
}

/// Where a topic's log ends now, as far as its leaders say.
pub async fn ends_now(asker: &mut Asker<'_>, topic: &str) -> io::Result<BTreeMap<i32, i64>> {
    match asker.shape(topic).await? {
        Some(shapes) => offsets(asker, topic, &shapes, DEBUGGING_REPLICA).await,
        None => Ok(BTreeMap::new()),
    }
}

/// What became of a topic that was to be a new segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is there, led, and empty.
    Ready,
    /// It is there, and somebody wrote to it or made it with another count of partitions.
    Unusable,
}

/// Makes the topic of a new segment and waits until it can be written; tries until it is done.
pub async fn make(plane: &DataPlane, topic: &str, partitions: i32) -> Made {
    let mut asker = Asker::new(plane);
    loop {
        match make_once(&mut asker, topic, partitions).await {
            Ok(Some(made)) => return made,
            Ok(None) => {}
            Err(error) => {
                asker = Asker::new(plane);
                if let Some(left_out) = plane.lines.allows("make") {
                    tracing::warn!(topic, %error, left_out, "a segment cannot be made yet");
                }
            }
        }
        tokio::time::sleep(random::jittered(PAUSE)).await;
    }
}

async fn make_once(
    asker: &mut Asker<'_>,
    topic: &str,
    partitions: i32,
) -> io::Result<Option<Made>> {
    let mut shapes = asker.shape(topic).await?;
    if shapes.is_none() {
        create(asker, (topic, partitions, -1), &SEGMENT_CONFIGS).await?;
        shapes = asker.shape(topic).await?;
    }
    let Some(shapes) = shapes.filter(|shapes| !shapes.is_empty()) else { return Ok(None) };
    if shapes.keys().any(|partition| *partition >= partitions) {
        return Ok(Some(Made::Unusable));
    }
    let ends = offsets(asker, topic, &shapes, DEBUGGING_REPLICA).await?;
    if ends.values().any(|end| *end > 0) {
        return Ok(Some(Made::Unusable));
    }
    let ready = covers(&shapes, partitions) && ends.len() == shapes.len();
    Ok(ready.then_some(Made::Ready))
}

/// Makes a topic of so many partitions and replicas, if it is not there.
pub async fn create(
    asker: &mut Asker<'_>,
    (topic, partitions, replicas): (&str, i32, i16),
    configs: &[(&'static str, &'static str)],
) -> io::Result<()> {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    });
    let new = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(TIMEOUT_MS);
    let answer: CreateTopicsResponse = asker.ask(None, api::CREATE_TOPICS, 4, &request).await?;
    let row = answer.topics.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    match row.error_code {
        0 => {
            tracing::info!(topic, "physical topic made");
            Ok(())
        }
        TOPIC_ALREADY_EXISTS => Ok(()),
        code => {
            let why = row.error_message.unwrap_or_default();
            Err(io::Error::other(format!("error {code} {why}")))
        }
    }
}

/// Deletes a topic; tries until it is gone.
pub async fn delete(plane: &DataPlane, topic: &str) {
    let mut asker = Asker::new(plane);
    loop {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(TIMEOUT_MS);
        let asked = asker.ask(None, api::DELETE_TOPICS, 5, &request).await;
        let code = asked.map(|answer: DeleteTopicsResponse| {
            answer.responses.first().map_or(-1, |row| row.error_code)
        });
        match code {
            Ok(0 | UNKNOWN_TOPIC) => return,
            outcome => {
                asker = Asker::new(plane);
                if let Some(left_out) = plane.lines.allows("delete") {
                    tracing::warn!(topic, ?outcome, left_out, "a segment cannot be deleted yet");
                }
            }
        }
        tokio::time::sleep(random::jittered(PAUSE)).await;
    }
}
