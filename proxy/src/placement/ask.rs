//! Questions to brokers, of who looks after the placement: one connection each, kept while it is
//! of use.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use protocol_ext::api;

use crate::data_plane::DataPlane;
use crate::fault;
use crate::route::addresses::Door;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// A broker that says nothing for so long is asked no more.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const METADATA_VERSION: i16 = 12;

/// Connections to brokers.
pub struct Asker<'a> {
    plane: &'a DataPlane,
    open: HashMap<Option<i32>, BrokerConnection>,
}

/// A partition, as brokers tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its leader.
    pub leader: i32,
    /// The leader's epoch.
    pub epoch: i32,
    /// Brokers that have it and are up. One that is not cannot lead before it knows all that the
    /// cluster decided meanwhile.
    pub replicas: Vec<i32>,
}

impl<'a> Asker<'a> {
    /// Knows no broker yet.
    pub fn new(plane: &'a DataPlane) -> Self {
        Self { plane, open: HashMap::new() }
    }

    /// Asks this broker, or any.
    pub async fn ask<Q, A>(
        &mut self,
        node: Option<i32>,
        key: i16,
        version: i16,
        request: &Q,
    ) -> io::Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable,
    {
        let asked = async {
            let kept = self.open.remove(&node);
            let kept = kept.and_then(|mut kept| kept.is_open().then_some(kept));
            let mut broker = match kept {
                Some(kept) => kept,
                None => connect(self.plane, node).await?,
            };
            let answer = broker.call(key, version, request).await?;
            self.open.insert(node, broker);
            Ok(answer)
        };
        tokio::time::timeout(SILENCE_MAX, asked).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// The partitions of a topic that have a leader; `None`: the cluster has no such topic.
    pub async fn shape(&mut self, topic: &str) -> io::Result<Option<BTreeMap<i32, Shape>>> {
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(false);
        let call = self.ask(None, api::METADATA, METADATA_VERSION, &request);
        let answer: MetadataResponse = call.await?;
        let Some(topic) = answer.topics.into_iter().next() else { return Ok(None) };
        match topic.error_code {
            0 => {}
            UNKNOWN_TOPIC => return Ok(None),
            code => return Err(io::Error::other(format!("error {code} of the topic"))),
        }
        let led = topic.partitions.into_iter().filter(|partition| partition.leader_id.0 >= 0);
        let shapes = led.map(|partition| {
            let down = &partition.offline_replicas;
            let up = partition.replica_nodes.iter().filter(|node| {
                !down.contains(node) || fault::on("seal-asks-brokers-that-are-down")
            });
            let replicas = up.map(|node| node.0).collect();
            let (leader, epoch) = (partition.leader_id.0, partition.leader_epoch);
            (partition.partition_index, Shape { leader, epoch, replicas })
        });
        Ok(Some(shapes.collect()))
    }
}

/// A connection to this broker, or any.
pub async fn connect(plane: &DataPlane, node: Option<i32>) -> io::Result<BrokerConnection> {
    let connected = match node {
        Some(node) => {
            let door = Door::Node(node);
            let connect = plane.directory.connect(door, &plane.limits, &Login::Proxy);
            let late = |_| io::ErrorKind::TimedOut;
            tokio::time::timeout(plane.limits.connect, connect).await.map_err(late)??
        }
        None => plane.directory.connect_any(&plane.limits, &Login::Proxy).await?,
    };
    Ok(BrokerConnection::new(connected))
}

/// A topic's name as the codec crate wants it.
pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

const UNKNOWN_TOPIC: i16 = 3;
