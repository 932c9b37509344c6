//! Makes the physical topics and the carriers of virtual ones, if they are missing; tries until it
//! is done. Looks out for topics of that name which are no carriers: they are hidden.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;

use crate::data_plane::DataPlane;
use crate::fault;
use crate::random;
use crate::route::addresses::Door;
use crate::route::legs::UNKNOWN_PARTITION;
use crate::route::virtual_topics::VirtualTopics;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// First version that takes the cluster's default replication factor (KIP-464), not flexible.
const VERSION: i16 = 4;
/// Time a broker may take.
const TIMEOUT_MS: i32 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(10);
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// First version that tells ids.
const METADATA_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// How often hidden topics are looked for: somebody may make one later.
const LOOK_OUT: Duration = Duration::from_secs(30);

/// Sees that every physical topic and every carrier exists, and looks out for ever.
pub async fn ensure(plane: Arc<DataPlane>) {
    let Some(routed) = &plane.routed else { return };
    let (mut made, mut hidden) = (false, HashSet::new());
    loop {
        if !made {
            let created = tokio::time::timeout(TIMEOUT * 2, create(&plane, routed)).await;
            match created.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => made = true,
                Err(error) => tracing::warn!(%error, "topics of virtual ones cannot be made yet"),
            }
        }
        let looked = tokio::time::timeout(TIMEOUT * 2, look_out(&plane, routed, &mut hidden)).await;
        let looked = looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = &looked {
            tracing::warn!(%error, "carriers of virtual topics cannot be looked at");
        }
        // One that is gone is made again.
        made &= looked.unwrap_or(true);
        tokio::time::sleep(random::jittered(if made { LOOK_OUT } else { PAUSE })).await;
    }
}

/// Looks whether each carrier is what it must be: a topic with a partition for each logical one,
/// and empty. Tells whether all are there.
async fn look_out(
    plane: &DataPlane,
    routed: &VirtualTopics,
    hidden: &mut HashSet<Arc<str>>,
) -> io::Result<bool> {
    let any = plane.directory.connect_any(&plane.limits, &Login::Proxy).await?;
    let mut broker = BrokerConnection::new(any);
    let topics = routed
        .all()
        .iter()
        .map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(&topic.name))));
    let mut request = MetadataRequest::default().with_topics(Some(topics.collect()));
    request.allow_auto_topic_creation = false;
    let answer: MetadataResponse = broker.call(api::METADATA, METADATA_VERSION, &request).await?;
    let mut all = true;
    for carrier in answer.topics {
        let name = carrier.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let Some(topic) = routed.by_name(&name) else { continue };
        if carrier.error_code != 0 {
            all &= carrier.error_code != UNKNOWN_PARTITION;
            continue;
        }
        plane.topics.learn(carrier.topic_id.into_bytes(), &topic.name);
        let partitions = i32::try_from(carrier.partitions.len()).unwrap_or(i32::MAX);
        let why = match partitions == topic.logical() {
            false => Some("another number of partitions"),
            true if !fault::on("carriers-unread") && holds_records(plane, &carrier).await? => {
                Some("records")
            }
            true => None,
        };
        match why {
            None => drop(hidden.remove(&topic.name)),
            Some(why) if hidden.insert(topic.name.clone()) => {
                tracing::error!(topic = %name, partitions, wanted = topic.logical(), has = why,
                    "a topic of the cluster is hidden by the virtual topic of its name: clients \
                    of the proxy cannot reach its records, and their groups may not work");
            }
            Some(_) => {}
        }
    }
    plane.metrics.hidden_topics(hidden.len());
    Ok(all)
}

/// Whether a carrier's logs hold records, asked of their leaders.
async fn holds_records(plane: &DataPlane, carrier: &MetadataResponseTopic) -> io::Result<bool> {
    let mut led: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in carrier.partitions.iter().filter(|partition| partition.leader_id.0 >= 0) {
        led.entry(partition.leader_id.0).or_default().push(partition.partition_index);
    }
    let name = carrier.name.clone().unwrap_or_default();
    for (node, partitions) in led {
        let door = Door::Node(node);
        let leader = plane.directory.connect(door, &plane.limits, &Login::Proxy).await?;
        let mut leader = BrokerConnection::new(leader);
        let ends = offsets(&mut leader, &name, &partitions, LATEST).await?;
        let written = ends.iter().filter(|(_, end)| **end > 0).map(|(partition, _)| *partition);
        let written: Vec<i32> = written.collect();
        if written.is_empty() {
            continue;
        }
        let starts = offsets(&mut leader, &name, &written, EARLIEST).await?;
        if written.iter().any(|partition| starts.get(partition) < ends.get(partition)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Offsets of partitions by their index; one that is refused is left out.
async fn offsets(
    leader: &mut BrokerConnection,
    name: &TopicName,
    partitions: &[i32],
    timestamp: i64,
) -> io::Result<BTreeMap<i32, i64>> {
    let asked = partitions.iter().map(|index| {
        ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(timestamp)
    });
    let topic = ListOffsetsTopic::default().with_name(name.clone());
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic.with_partitions(asked.collect())]);
    let answer: ListOffsetsResponse =
        leader.call(api::LIST_OFFSETS, LIST_OFFSETS_VERSION, &request).await?;
    let rows = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    let rows = rows.filter(|row| row.error_code == 0);
    Ok(rows.map(|row| (row.partition_index, row.offset)).collect())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn create(plane: &DataPlane, routed: &VirtualTopics) -> io::Result<()> {
    let any = plane.directory.connect_any(&plane.limits, &Login::Proxy).await?;
    let mut broker = BrokerConnection::new(any);
    let topics = routed.all().iter().flat_map(|topic| {
        // With days the placement makes them.
        let physical = topic.physical.iter().filter(|_| !topic.days);
        let physical = physical.map(|name| (name, topic.partitions));
        let carrier = (&topic.name, topic.logical());
        let carrier = (!fault::on("no-carrier")).then_some(carrier);
        physical.chain(carrier).map(|(name, partitions)| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(partitions)
                .with_replication_factor(-1)
        })
    });
    let request =
        CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(TIMEOUT_MS);
    let answer: CreateTopicsResponse = broker.call(api::CREATE_TOPICS, VERSION, &request).await?;
    for topic in answer.topics {
        let name = topic.name.to_string();
        match topic.error_code {
            0 => tracing::info!(topic = %name, "topic of a virtual one made"),
            TOPIC_ALREADY_EXISTS => {}
            code => {
                let why = topic.error_message.unwrap_or_default();
                return Err(io::Error::other(format!("{name}: error {code} {why}")));
            }
        }
    }
    Ok(())
}
