//! Metadata: a virtual topic is asked for as its carrier, which has its name and id, on the
//! client's own connection, so that its broker says what it may know. The partitions of the answer
//! are those of the physical topics; these themselves are taken out.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::address::Addresses;
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::{UNKNOWN_ID, UNKNOWN_PARTITION, Ways, encoded};
use crate::fault;
use crate::route::chain::Chain;
use crate::route::placement::Placement;
use crate::route::topics::TopicId;
use crate::route::virtual_topics::{Routed, VirtualTopics};

/// LEADER_NOT_AVAILABLE: retriable, what a broker says of a topic that is being made.
const LEADER_NOT_AVAILABLE: i16 = 5;

/// What a Metadata request asked for that brokers are not told, or not so.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Names that clients must not see.
    pub hidden: Vec<String>,
    /// The topics that are asked for are shown; else all there are.
    pub some: bool,
    /// Version that the client is told in; the broker may be asked in another one.
    pub version: i16,
}

/// First version that can say that no topic is to be made.
const WITHOUT_MAKING: i16 = 4;

/// The request to forward in the place of `frame`; `None` if it asks for nothing virtual. Has the
/// physical topics of those that it asks for looked up.
pub async fn request(
    ways: Ways<'_>,
    head: Head,
    frame: &Bytes,
) -> Result<Option<(Bytes, Asked)>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let mut body: MetadataRequest = guard::request(api::METADATA, head.version, frame, at)?;
    let mut asked = Asked { version: head.version, ..Asked::default() };
    let Some(topics) = body.topics.take().filter(|t| head.version > 0 || !t.is_empty()) else {
        want_rows(ways, ways.routed.all().iter()).await;
        return Ok(Some((frame.clone(), asked)));
    };
    asked.some = true;
    let by_id = topics.iter().any(|topic| topic.name.is_none());
    let (mut ask, mut found) = (Vec::with_capacity(topics.len()), Vec::<&Routed>::new());
    for topic in topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        match ways.routed.by_name(&name).or_else(|| ways.routed.by_id(topic.topic_id.as_bytes())) {
            Some(known) if found.iter().any(|other| other.name == known.name) => {}
            Some(known) => {
                found.push(known);
                ask.push(topic);
            }
            None if ways.routed.hides(&name) => asked.hidden.push(name),
            None => ask.push(topic),
        }
    }
    // Which topic an id stands for may be known by nobody here before its broker says so.
    if found.is_empty() && asked.hidden.is_empty() && !by_id {
        return Ok(None);
    }
    match by_id {
        true => want_rows(ways, ways.routed.all().iter()).await,
        false => want_rows(ways, found.into_iter()).await,
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

/// Has what is shown of these topics asked for: what brokers say of their open segments.
async fn want_rows<'a>(ways: Ways<'_>, topics: impl Iterator<Item = &'a Routed>) {
    let placement = ways.routed.placements().now();
    let open = topics.flat_map(|topic| {
        let chains = (0..topic.physical.len()).filter_map(|slot| placement.chain(topic, slot));
        chains.filter_map(Chain::newest).map(|open| &*open.topic).collect::<Vec<&str>>()
    });
    ways.topics.want_rows(&open.collect::<Vec<&str>>()).await;
}

/// The answer for the client: addresses of the proxy, partitions of virtual topics in, physical
/// topics out.
pub fn response(
    ways: Ways<'_>,
    version: i16,
    frame: &Bytes,
    asked: &Asked,
) -> Result<Bytes, WireError> {
    let at = header::response_body_at(api::METADATA, version, frame)?;
    let mut body: MetadataResponse = guard::response(api::METADATA, version, frame, at)?;
    for broker in &mut body.brokers {
        let (host, port) = ways.directory.of(broker.node_id.0);
        broker.host = StrBytes::try_from(host).unwrap_or_default();
        broker.port = i32::from(port);
    }
    let mut shown = Vec::with_capacity(body.topics.len());
    for topic in std::mem::take(&mut body.topics) {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        match ways.routed.by_name(&name) {
            Some(known) => shown.push(of_virtual(ways, known, topic)),
            None if !hides(ways.routed, &name) => shown.push(topic),
            // Asked for by its id, which is nothing to clients either.
            None if asked.some => {
                shown.push(topic_of(None).with_topic_id(topic.topic_id).with_error_code(UNKNOWN_ID))
            }
            None => {}
        }
    }
    let hidden = asked.hidden.iter();
    shown.extend(hidden.map(|name| topic_of(Some(name)).with_error_code(UNKNOWN_PARTITION)));
    body.topics = shown;
    let mut new = BytesMut::from(&frame[..at]);
    new.extend_from_slice(&encoded(api::METADATA, asked.version, &body)?);
    Ok(new.freeze())
}

fn hides(routed: &VirtualTopics, name: &str) -> bool {
    routed.hides(name) && !fault::on("segments-shown")
}

fn topic_of(name: Option<&str>) -> MetadataResponseTopic {
    let name = name.map(|name| TopicName(StrBytes::from_string(name.to_owned())));
    MetadataResponseTopic::default().with_name(name)
}

/// A virtual topic, from what the client's broker says of its carrier.
fn of_virtual(
    ways: Ways<'_>,
    routed: &Routed,
    carrier: MetadataResponseTopic,
) -> MetadataResponseTopic {
    match carrier.error_code {
        0 => {}
        // Nothing is told of it before its id can be: clients keep the first one that they see.
        UNKNOWN_PARTITION if !fault::on("missing-carrier-told") => {
            return carrier.with_error_code(LEADER_NOT_AVAILABLE);
        }
        _ => return carrier,
    }
    // Older versions tell no id.
    let id: TopicId = carrier.topic_id.into_bytes();
    if id != [0; 16] {
        ways.topics.learn(id, &routed.name);
    }
    let placement = ways.routed.placements().now();
    let partitions = (0..routed.logical()).map(|q| partition(ways, &placement, routed, q));
    let partitions = partitions.collect();
    carrier.with_partitions(partitions)
}

/// A logical partition. The leader epoch is always -1, so that clients never see one go back.
fn partition(
    ways: Ways<'_>,
    placement: &Placement,
    routed: &Routed,
    q: i32,
) -> MetadataResponsePartition {
    let open = routed.place(q).and_then(|(slot, p)| Some((placement.open(routed, slot, p)?, p)));
    let rows = open.and_then(|(open, p)| Some((ways.topics.rows(open.topic)?, p)));
    let row = rows.and_then(|(rows, p): (Arc<[MetadataResponsePartition]>, i32)| {
        rows.iter().find(|row| row.partition_index == p).cloned()
    });
    let row = row.unwrap_or_else(|| {
        MetadataResponsePartition::default()
            .with_error_code(LEADER_NOT_AVAILABLE)
            .with_leader_id(BrokerId(-1))
    });
    row.with_partition_index(q).with_leader_epoch(-1)
}
