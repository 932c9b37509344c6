//! The topic that a copy is written to: made with what the other one has, and written straight to
//! its leaders.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;
use protocol_ext::split::ProducerFields;

use crate::fault;
use crate::upkeep::UpkeepError;
use crate::upkeep::log::{BATCH_BYTES_MAX, Cluster, Partition, topic_name};

/// Makes the topic `target` with as many partitions and copies as the source has, what is
/// configured for it, and room for long batches.
pub async fn make(
    cluster: &mut Cluster,
    source: &[&Partition],
    target: &str,
) -> Result<(), UpkeepError> {
    let name = source.first().map(|at| at.topic.clone()).unwrap_or_default();
    let configs = configs(cluster, &name).await?.into_iter();
    let own = configs.filter(|config| config.config_source == OF_THE_TOPIC);
    let kept = own.filter_map(|config| Some((config.name.to_string(), config.value?.to_string())));
    let mut configs: Vec<_> = kept.filter(|(name, _)| KEPT.contains(&name.as_str())).collect();
    let most = (BATCH_BYTES_MAX.to_string(), i64::MAX.to_string());
    let own = [
        ("max.message.bytes", most.0),
        // Values now count, and brokers have a limit of their own where nothing is set.
        ("retention.bytes", EVER.to_owned()),
        // Records keep their times, however long ago or ahead.
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("message.timestamp.before.max.ms", most.1.clone()),
        ("message.timestamp.after.max.ms", most.1),
    ];
    configs.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let configs = configs.into_iter().map(|(name, value)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let copies = source.iter().map(|at| at.replicas).max().unwrap_or(1);
    let topic = CreatableTopic::default()
        .with_name(topic_name(target))
        .with_num_partitions(i32::try_from(source.len()).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(copies).unwrap_or(-1))
        .with_configs(configs.collect());
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    let api = (api::CREATE_TOPICS, CREATE_TOPICS_VERSION);
    let answer: CreateTopicsResponse = cluster.ask(None, api, &request).await?;
    match answer.topics.first().map(|topic| (topic.error_code, &topic.error_message)) {
        Some((0, _)) => Ok(()),
        answered => {
            let (code, text) = answered.map_or((-1, None), |(code, text)| (code, text.as_ref()));
            let text = text.map(ToString::to_string).unwrap_or_default();
            Err(UpkeepError::NoCopy(format!("{target} cannot be made: error {code} {text}")))
        }
    }
}

/// Fails if a copy that is there would not keep what is written to it as its topic does.
pub async fn check(cluster: &mut Cluster, source: &str, target: &str) -> Result<(), UpkeepError> {
    let known = |configs: Vec<DescribeConfigsResourceResult>| -> HashMap<String, String> {
        let valued = configs.into_iter().filter_map(|config| {
            let (name, value) = (config.name.to_string(), config.value?.to_string());
            Some((name, value))
        });
        valued.collect()
    };
    let source = known(configs(cluster, source).await?);
    let copy = known(configs(cluster, target).await?);
    match unfit(&source, &copy) {
        Some(why) if !fault::on("any-copy-fits") => {
            Err(UpkeepError::NoCopy(format!("{target} {why}, or name another copy by --to")))
        }
        _ => Ok(()),
    }
}

/// Why a topic of that configuration would lose something of a copy, and what to set.
fn unfit(source: &HashMap<String, String>, copy: &HashMap<String, String>) -> Option<String> {
    let of = |configs: &HashMap<String, String>, name: &str| configs.get(name).cloned();
    if of(copy, "message.timestamp.type").is_some_and(|kind| kind != "CreateTime") {
        return Some("would give records new times: set message.timestamp.type=CreateTime".into());
    }
    let policies = |configs| of(configs, "cleanup.policy").unwrap_or_else(|| DELETE.to_owned());
    let (kept, cleaned) = (policies(source), policies(copy));
    let has = |policies: &str, one: &str| policies.split(',').any(|policy| policy.trim() == one);
    if cleaned.split(',').any(|policy| !has(&kept, policy.trim())) {
        return Some(format!("would be cleaned otherwise: set cleanup.policy={kept}"));
    }
    if !has(&cleaned, DELETE) {
        return None;
    }
    if of(copy, "retention.bytes").is_some_and(|bytes| bytes != EVER) {
        return Some("would delete its beginning while it grows: set retention.bytes=-1".into());
    }
    let (long, short) = (of(source, "retention.ms")?, of(copy, "retention.ms")?);
    let ms = |text: &str| text.parse().ok().filter(|ms: &i64| *ms >= 0).unwrap_or(i64::MAX);
    let why = format!("would delete records earlier: set retention.ms={long}");
    (ms(&short) < ms(&long)).then_some(why)
}

/// All that holds for a topic.
async fn configs(
    cluster: &mut Cluster,
    topic: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, UpkeepError> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic.to_owned()))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let api = (api::DESCRIBE_CONFIGS, DESCRIBE_CONFIGS_VERSION);
    let answer: DescribeConfigsResponse = cluster.ask(None, api, &request).await?;
    let found = answer.results.into_iter().next().unwrap_or_default();
    if found.error_code != 0 {
        return Err(UpkeepError::Topic { topic: topic.to_owned(), code: found.error_code });
    }
    Ok(found.configs)
}

/// An id of a producer of its own.
pub async fn producer(cluster: &mut Cluster) -> Result<ProducerFields, UpkeepError> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(TIMEOUT_MS);
    let api = (api::INIT_PRODUCER_ID, INIT_PRODUCER_ID_VERSION);
    let answer: InitProducerIdResponse = cluster.ask(None, api, &request).await?;
    match answer.error_code {
        0 => Ok(ProducerFields {
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
            base_sequence: 0,
        }),
        code => Err(io::Error::other(format!("no producer id: error {code}")).into()),
    }
}

/// Appends a batch and gives its offset, once every copy in sync has it.
pub async fn write(
    cluster: &mut Cluster,
    at: &Partition,
    batch: Bytes,
) -> Result<i64, UpkeepError> {
    let bytes = batch.len();
    if bytes > WRITTEN_BYTES_MAX {
        let why = format!(
            "a batch of {bytes} bytes fits no request that brokers take: a record of that length \
             cannot be written without the proxy"
        );
        let (topic, partition) = (at.topic.clone(), at.partition);
        return Err(UpkeepError::Copy { topic, partition, passes: false, code: 0, why });
    }
    let partition =
        PartitionProduceData::default().with_index(at.partition).with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(topic_name(&at.topic))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(TIMEOUT_MS)
        .with_topic_data(vec![topic]);
    let api = (api::PRODUCE, PRODUCE_VERSION);
    let answer: ProduceResponse = cluster.ask(Some(at.leader), api, &request).await?;
    let told = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    let failed = |code: i16, why: String| UpkeepError::Copy {
        topic: at.topic.clone(),
        partition: at.partition,
        passes: PASSING.contains(&code) || OF_THE_PRODUCER.contains(&code),
        code,
        why,
    };
    match told {
        Some(told) if told.error_code == 0 => Ok(told.base_offset),
        Some(told) if told.error_code == MESSAGE_TOO_LARGE => {
            let why = format!(
                "a batch of {bytes} bytes is longer than the topic's max.message.bytes: raise it \
                 and begin again where this ended"
            );
            Err(failed(MESSAGE_TOO_LARGE, why))
        }
        Some(told) => {
            let code = told.error_code;
            let text = told.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
            Err(failed(code, format!("the broker answers error {code} {text}")))
        }
        None => Err(failed(0, "the broker says nothing of it".to_owned())),
    }
}

fn text(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

/// What a copy has of its topic's configuration. Not the format of times, since records keep those
/// that consumers see; not how many bytes may stay, since values now count.
const KEPT: [&str; 8] = [
    "cleanup.policy",
    "retention.ms",
    "min.insync.replicas",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "segment.ms",
    "compression.type",
];
/// A policy of cleaning, and the limit that is none.
const DELETE: &str = "delete";
const EVER: &str = "-1";
/// The longest batch that fits one, beside all else that is in it.
const WRITTEN_BYTES_MAX: usize = BATCH_BYTES_MAX - 64 * 1024;
/// Time a broker may take.
const TIMEOUT_MS: i32 = 30_000;
/// Versions that every broker from 3.9 to 4.3 has; the last Produce that names topics is 12.
const CREATE_TOPICS_VERSION: i16 = 4;
const DESCRIBE_CONFIGS_VERSION: i16 = 1;
const INIT_PRODUCER_ID_VERSION: i16 = 1;
const PRODUCE_VERSION: i16 = 9;
/// A topic, as DescribeConfigs numbers resources, and what is set for it alone.
const TOPIC: i8 = 2;
const OF_THE_TOPIC: i8 = 1;
const MESSAGE_TOO_LARGE: i16 = 10;
/// Errors of Produce after which the same may succeed: leaders move, replicas come back, a batch
/// that was lost on the way was not.
const PASSING: [i16; 8] = [3, 5, 6, 7, 19, 20, 46, 56];
/// Errors by which a broker says that it will take nothing of this producer any more: its sequence
/// is out of order, its epoch is old, its id is not known. After any other one the batch may be in
/// the log, where only its producer's sequences have it known again.
pub const OF_THE_PRODUCER: [i16; 3] = [45, 47, 59];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_its_topic_keeps() {
        let ms = "retention.ms";
        let policy = "cleanup.policy";
        let cases: [(&[_], &[_], Option<&str>); 12] = [
            (&[], &[], None),
            (&[], &[("message.timestamp.type", "LogAppendTime")], Some("CreateTime")),
            (&[("message.timestamp.type", "LogAppendTime")], &[], None),
            (&[("retention.bytes", "1")], &[("retention.bytes", "-1")], None),
            (&[("retention.bytes", "1")], &[("retention.bytes", "1")], Some("retention.bytes=-1")),
            (&[], &[(policy, "compact"), ("retention.bytes", "1")], Some("cleanup.policy=delete")),
            (&[(policy, "compact,delete")], &[(policy, "compact"), (ms, "1")], None),
            (&[(policy, "compact")], &[(policy, "compact,delete")], Some("policy=compact")),
            (&[(ms, "777")], &[(ms, "776")], Some("retention.ms=777")),
            (&[(ms, "777")], &[(ms, "777")], None),
            (&[(ms, "777")], &[(ms, "-1")], None),
            (&[(ms, "-1")], &[(ms, "777")], Some("retention.ms=-1")),
        ];
        for (source, copy, expected) in cases {
            let known = |configs: &[(&str, &str)]| {
                let owned = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
                owned.collect::<HashMap<_, _>>()
            };
            let why = unfit(&known(source), &known(copy));
            let fits = match (&why, expected) {
                (Some(why), Some(expected)) => why.ends_with(expected),
                (why, expected) => why.is_none() && expected.is_none(),
            };
            assert!(fits, "{source:?} to {copy:?}: {why:?}");
        }
    }
}
