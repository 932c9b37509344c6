//! Metadata: virtual names are asked of the brokers as their physical topics, and merged back.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::address::Addresses;
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::{UNKNOWN_ID, UNKNOWN_PARTITION, encoded};
use crate::fault;
use crate::route::addresses::Directory;
use crate::route::permissions::FORBIDDEN;
use crate::route::topics::{TopicId, Topics};
use crate::route::virtual_topics::{Routed, VirtualTopics};

/// LEADER_NOT_AVAILABLE: retriable, what a broker says of a topic that is being made.
const LEADER_NOT_AVAILABLE: i16 = 5;

/// What a Metadata request asked for that the brokers do not know.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Every topic.
    pub all: bool,
    /// Ids of virtual topics, and whether they were asked for by id.
    pub virtual_topics: Vec<([u8; 16], bool)>,
    /// Parts of virtual topics that were asked for by their ids.
    pub parts: Vec<(TopicId, Arc<str>)>,
    /// Of all topics those are shown whose parts are all there: the client may see no others.
    pub only_whole: bool,
    /// Names that clients must not see.
    pub hidden: Vec<String>,
    /// Version that the client is told in; the broker may be asked in another one.
    pub version: i16,
}

/// First version that can say that no topic is to be made.
const WITHOUT_MAKING: i16 = 4;

/// The request to forward in the place of `frame`; `None` if it asks for nothing virtual.
pub async fn request(
    routed: &VirtualTopics,
    topics_of_brokers: &Topics,
    head: Head,
    frame: &Bytes,
) -> Result<Option<(Bytes, Asked)>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let mut body: MetadataRequest = guard::request(api::METADATA, head.version, frame, at)?;
    let mut asked = Asked { version: head.version, ..Asked::default() };
    let Some(topics) = body.topics.take().filter(|t| head.version > 0 || !t.is_empty()) else {
        return Ok(Some((frame.clone(), Asked { all: true, ..asked })));
    };
    let (mut ask, mut parts) = (Vec::with_capacity(topics.len()), Vec::new());
    for topic in topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        let found = routed.by_name(&name).or_else(|| routed.by_id(topic.topic_id.as_bytes()));
        match found {
            Some(found) if asked.virtual_topics.iter().any(|(id, _)| *id == found.id) => {}
            Some(found) => {
                asked.virtual_topics.push((found.id, topic.name.is_none()));
                parts.extend(found.physical.iter().cloned());
            }
            None if routed.hides(&name) => asked.hidden.push(name),
            None => ask.push(topic),
        }
    }
    if asked.virtual_topics.is_empty() && asked.hidden.is_empty() {
        return Ok(None);
    }
    let by_id = ask.iter().any(|topic| topic.name.is_none()) && !fault::on("parts-by-name");
    if by_id {
        // A broker that is asked for an id looks at no name.
        asked.parts = topics_of_brokers.real_ids(&parts).await;
        ask.extend(asked.parts.iter().map(|(id, _)| {
            let id = uuid::Uuid::from_bytes(*id);
            MetadataRequestTopic::default().with_name(None).with_topic_id(id)
        }));
    } else {
        ask.extend(parts.iter().map(|name| {
            let name = TopicName(StrBytes::from_string(name.to_string()));
            MetadataRequestTopic::default().with_name(Some(name))
        }));
    }
    body.topics = Some(ask);
    body.allow_auto_topic_creation = false;
    let version = head.version.max(WITHOUT_MAKING);
    // None of the versions between is flexible: the head has the same layout.
    let mut new = BytesMut::from(&frame[..at]);
    new[2..4].copy_from_slice(&version.to_be_bytes());
    new.extend_from_slice(&encoded(api::METADATA, version, &body)?);
    Ok(Some((new.freeze(), asked)))
}

/// The answer for the client: addresses of the proxy, virtual topics in, physical ones out.
pub fn response(
    routed: &VirtualTopics,
    version: i16,
    frame: &Bytes,
    asked: &Asked,
    addresses: &Directory,
) -> Result<Bytes, WireError> {
    let at = header::response_body_at(api::METADATA, version, frame)?;
    let mut body: MetadataResponse = guard::response(api::METADATA, version, frame, at)?;
    for broker in &mut body.brokers {
        let (host, port) = addresses.of(broker.node_id.0);
        broker.host = StrBytes::try_from(host).unwrap_or_default();
        broker.port = i32::from(port);
    }
    let mut physical = HashMap::new();
    let mut shown = Vec::with_capacity(body.topics.len());
    for topic in std::mem::take(&mut body.topics) {
        let named = topic.name.as_ref().map(|name| name.to_string());
        let name = named.filter(|name| !name.is_empty()).or_else(|| {
            let part = asked.parts.iter().find(|(id, _)| id == topic.topic_id.as_bytes());
            part.map(|(_, name)| name.to_string())
        });
        let name = name.unwrap_or_default();
        if routed.hides(&name) {
            physical.insert(name, topic);
        } else if routed.by_name(&name).is_none() {
            shown.push(topic);
        }
    }
    for topic in routed.all() {
        let wanted = asked.virtual_topics.iter().find(|(id, _)| *id == topic.id);
        let parts = topic.physical.iter().map(|part| physical.get(&**part));
        let forbidden = parts.clone().flatten().any(|part| part.error_code == FORBIDDEN);
        let whole = parts.clone().all(|part| part.is_some());
        match wanted {
            Some((id, by_id)) if forbidden => shown.push(unseen(topic, asked.version, *id, *by_id)),
            None if !asked.all || asked.only_whole && (forbidden || !whole) => {}
            Some(_) | None => shown.push(merged(topic, &physical)),
        }
    }
    for name in &asked.hidden {
        let name = TopicName(StrBytes::from_string(name.clone()));
        let unknown = MetadataResponseTopic::default().with_name(Some(name));
        shown.push(unknown.with_error_code(UNKNOWN_PARTITION));
    }
    body.topics = shown;
    let mut new = BytesMut::from(&frame[..at]);
    new.extend_from_slice(&encoded(api::METADATA, asked.version, &body)?);
    Ok(new.freeze())
}

/// What a broker says of a topic that the client may not see.
fn unseen(topic: &Routed, version: i16, id: [u8; 16], by_id: bool) -> MetadataResponseTopic {
    let name = if by_id { String::new() } else { topic.name.to_string() };
    let name = Some(TopicName(StrBytes::from_string(name)));
    // The first version whose names may be absent.
    let unseen =
        MetadataResponseTopic::default().with_name(name.filter(|_| !by_id || version < 12));
    match by_id {
        true => unseen.with_topic_id(uuid::Uuid::from_bytes(id)).with_error_code(UNKNOWN_ID),
        false => unseen.with_error_code(FORBIDDEN),
    }
}

/// One virtual topic from the physical topics of its slots. The leader epoch is always -1, so
/// that clients never see one go back.
fn merged(
    topic: &Routed,
    physical: &HashMap<String, MetadataResponseTopic>,
) -> MetadataResponseTopic {
    let name = TopicName(StrBytes::from_string(topic.name.to_string()));
    let mut merged = MetadataResponseTopic::default()
        .with_name(Some(name))
        .with_topic_id(uuid::Uuid::from_bytes(topic.id));
    // What a client may do is what it may do with every part.
    let parts = topic.physical.iter().filter_map(|part| physical.get(&**part));
    let operations = parts.map(|part| part.topic_authorized_operations).reduce(|a, b| a & b);
    merged.topic_authorized_operations = operations.unwrap_or(i32::MIN);
    for q in 0..topic.logical() {
        let place = topic.place(q);
        let slot = place.and_then(|(slot, p)| Some((physical.get(&*topic.physical[slot])?, p)));
        let found = slot.and_then(|(slot, p)| {
            slot.partitions.iter().find(|partition| partition.partition_index == p)
        });
        let partition = found.cloned().unwrap_or_else(|| {
            MetadataResponsePartition::default()
                .with_error_code(LEADER_NOT_AVAILABLE)
                .with_leader_id(BrokerId(-1))
        });
        merged.partitions.push(partition.with_partition_index(q).with_leader_epoch(-1));
    }
    merged
}
