//! Makes the physical topics and the carriers of virtual ones, if they are missing; tries until it
//! is done. Looks out for topics of that name which are no carriers: they are hidden; and for
//! physical ones of another number of partitions: what is beyond theirs can never be written.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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

/// How often topics are looked at: somebody may make or change one later.
const LOOK_OUT: Duration = Duration::from_secs(30);

/// Sees that every physical topic and every carrier exists, and looks out for ever.
pub async fn ensure(plane: Arc<DataPlane>) {
    let Some(routed) = &plane.routed else { return };
    let (mut made, mut told) = (false, TroubleTold::default());
    loop {
        if !made {
            let created = tokio::time::timeout(TIMEOUT * 2, create(&plane, routed)).await;
            match created.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => made = true,
                Err(error) => tracing::warn!(%error, "topics of virtual ones cannot be made yet"),
            }
        }
        let looked = tokio::time::timeout(TIMEOUT * 2, look_out(&plane, routed, &mut told)).await;
        let looked = looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = &looked {
            tracing::warn!(%error, "topics of virtual ones cannot be looked at");
        }
        // One that is gone is made again.
        made &= looked.unwrap_or(true);
        tokio::time::sleep(random::jittered(if made { LOOK_OUT } else { PAUSE })).await;
    }
}

/// What was seen of topics, and told of those that are not as they must be.
#[derive(Debug, Default)]
struct TroubleTold {
    /// Topics that were there: one that was just made may not be known to every broker yet.
    seen: HashSet<String>,
    /// Virtual topics that hide a topic of the cluster.
    hidden: HashSet<Arc<str>>,
    /// Physical topics of another number of partitions.
    misshapen: BTreeSet<String>,
}

/// The physical topics that are made here, and how many partitions each has; with days the
/// placement makes them.
fn physical(routed: &VirtualTopics) -> impl Iterator<Item = (&str, i32)> {
    let topics = routed.all().iter().filter(|topic| !topic.days);
    topics.flat_map(|topic| topic.physical.iter().map(move |name| (&**name, topic.partitions)))
}

/// Looks whether each physical topic has the partitions that it must have, and each carrier is
/// what it must be: a topic with a partition for each logical one, and empty. Tells whether all
/// are there.
async fn look_out(
    plane: &DataPlane,
    routed: &VirtualTopics,
    told: &mut TroubleTold,
) -> io::Result<bool> {
    let any = plane.directory.connect_any(&plane.limits, &Login::Proxy).await?;
    let mut broker = BrokerConnection::new(any);
    let carriers = routed.all().iter().map(|topic| &*topic.name);
    let topics = carriers.chain(physical(routed).map(|(name, _)| name));
    let topics =
        topics.map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    let mut request = MetadataRequest::default().with_topics(Some(topics.collect()));
    request.allow_auto_topic_creation = false;
    let answer: MetadataResponse = broker.call(api::METADATA, METADATA_VERSION, &request).await?;
    let all = look_for_all(&answer.topics, &mut told.seen);
    look_at_physical(plane, routed, &answer.topics, &mut told.misshapen);
    look_at_carriers(plane, routed, answer.topics, &mut told.hidden).await?;
    Ok(all)
}

/// Tells of topics that were there and are gone; gives whether all are there.
fn look_for_all(found: &[MetadataResponseTopic], seen: &mut HashSet<String>) -> bool {
    let mut all = true;
    for topic in found {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        if topic.error_code == 0 {
            seen.insert(name);
        } else if topic.error_code == UNKNOWN_PARTITION {
            all = false;
            if seen.remove(&name) {
                tracing::error!(topic = %name,
                    "a topic of a virtual one is gone: it is made again, empty");
            }
        }
    }
    all
}

/// Tells of physical topics that have more or fewer partitions than they must have.
fn look_at_physical(
    plane: &DataPlane,
    routed: &VirtualTopics,
    found: &[MetadataResponseTopic],
    misshapen: &mut BTreeSet<String>,
) {
    let wanted: BTreeMap<&str, i32> = physical(routed).collect();
    for topic in found.iter().filter(|topic| topic.error_code == 0) {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let Some(wanted) = wanted.get(&*name) else { continue };
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        if partitions == *wanted || fault::on("partitions-uncounted") {
            misshapen.remove(&name);
        } else if misshapen.insert(name.clone()) {
            tracing::error!(topic = %name, partitions, wanted,
                "a physical topic has another number of partitions than its virtual topic: those \
                that it lacks take no records, those beyond are never read");
        }
    }
    plane.metrics.misshapen_topics(misshapen.len());
}

/// Tells of topics that have the name of a virtual one and are not its carrier.
async fn look_at_carriers(
    plane: &DataPlane,
    routed: &VirtualTopics,
    found: Vec<MetadataResponseTopic>,
    hidden: &mut HashSet<Arc<str>>,
) -> io::Result<()> {
    for carrier in found.into_iter().filter(|topic| topic.error_code == 0) {
        let name = carrier.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let Some(topic) = routed.by_name(&name) else { continue };
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
    Ok(())
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
    let carriers = routed.all().iter().filter(|_| !fault::on("no-carrier"));
    let carriers = carriers.map(|topic| (&*topic.name, topic.logical()));
    let topics = physical(routed).chain(carriers).map(|(name, partitions)| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, error_code: i16) -> MetadataResponseTopic {
        MetadataResponseTopic::default()
            .with_name(Some(topic_name(name)))
            .with_error_code(error_code)
    }

    #[test]
    fn only_what_was_there_is_gone() {
        let mut seen = HashSet::new();
        assert!(!look_for_all(&[found("a", UNKNOWN_PARTITION), found("b", 0)], &mut seen));
        assert!(!seen.contains("a") && seen.contains("b"), "what was made a moment ago");
        assert!(look_for_all(&[found("a", 0), found("b", 0)], &mut seen));
        assert!(!look_for_all(&[found("a", 0), found("b", UNKNOWN_PARTITION)], &mut seen));
        assert!(seen.contains("a") && !seen.contains("b"), "told once");
    }
}
