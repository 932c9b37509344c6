//! Legs: the parts of an exchange that go to several brokers, over the proxy's own connections.
//!
//! One file per API knows how to split a request and merge the answers. Invariant: one request at
//! a time on a connection; a connection whose exchange failed is not used again.

mod exact;
pub mod fetch;
pub mod list_offsets;
mod look_up;
pub mod metadata;
pub mod produce;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use kafka_protocol::protocol::Encodable;
use protocol_ext::wire::WireError;

use super::addresses::{Directory, Door};
use super::topics::Topics;
use super::virtual_topics::VirtualTopics;
use crate::limits::Limits;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;
use exact::{Gate, Streams};

/// What a client is told when the leader of a partition is not known or not reached: retriable,
/// nothing was appended (NOT_LEADER_OR_FOLLOWER).
pub const NOT_LEADER: i16 = 6;
/// What a client is told of a partition that does not exist (UNKNOWN_TOPIC_OR_PARTITION).
pub const UNKNOWN_PARTITION: i16 = 3;

/// A request to one broker.
#[derive(Debug)]
pub struct Leg {
    /// The broker.
    pub node: i32,
    /// API key.
    pub key: i16,
    /// Version.
    pub version: i16,
    /// Its body.
    pub body: Bytes,
    /// Time it may take.
    pub limit: Duration,
}

/// Why a leg has no answer.
#[derive(Debug)]
pub enum LegError {
    /// It was never sent.
    NotSent(io::Error),
    /// It was sent, perhaps in part, and may have taken effect.
    Unknown(io::Error),
}

/// The connections that one client's legs use.
#[derive(Debug, Default)]
pub struct Legs {
    open: HashMap<i32, BrokerConnection>,
    streams: Streams,
}

/// What legs need to know of the world.
#[derive(Debug, Clone, Copy)]
pub struct Ways<'a> {
    /// Where brokers are.
    pub directory: &'a Directory,
    /// Topic ids and leaders.
    pub topics: &'a Topics,
    /// Bounds.
    pub limits: &'a Limits,
    /// What is routed.
    pub routed: &'a VirtualTopics,
}

impl Legs {
    /// Sends all legs at once, at most one per broker, and gives their answers in order.
    async fn run(&mut self, ways: Ways<'_>, legs: Vec<Leg>) -> Vec<Result<Bytes, LegError>> {
        self.run_gated(ways, legs, None).await
    }

    /// As `run`, but nothing is sent once the gate is shut.
    async fn run_gated(
        &mut self,
        ways: Ways<'_>,
        legs: Vec<Leg>,
        gate: Option<&Gate<'_>>,
    ) -> Vec<Result<Bytes, LegError>> {
        let open: Vec<_> = legs.iter().map(|leg| self.open.remove(&leg.node)).collect();
        let runs = legs.iter().zip(open).map(|(leg, open)| one(ways, leg, open, gate));
        let mut answers = Vec::with_capacity(legs.len());
        for (leg, ran) in legs.iter().zip(join_all(runs).await) {
            answers.push(ran.map(|(answer, connection)| {
                self.open.insert(leg.node, connection);
                answer
            }));
        }
        answers
    }
}

async fn one(
    ways: Ways<'_>,
    leg: &Leg,
    open: Option<BrokerConnection>,
    gate: Option<&Gate<'_>>,
) -> Result<(Bytes, BrokerConnection), LegError> {
    let open = open.and_then(|mut open| open.is_open().then_some(open));
    let mut connection = match open {
        Some(connection) => connection,
        None => {
            let stream =
                ways.directory.connect(Door::Node(leg.node), ways.limits, &Login::Proxy).await;
            BrokerConnection::new(stream.map_err(LegError::NotSent)?)
        }
    };
    if gate.is_some_and(|gate| !gate.is_open()) {
        return Err(LegError::NotSent(io::ErrorKind::TimedOut.into()));
    }
    let body = std::slice::from_ref(&leg.body);
    let exchange = connection.exchange(leg.key, leg.version, body);
    let answer = tokio::time::timeout(leg.limit, exchange).await;
    let late = |_| LegError::Unknown(io::ErrorKind::TimedOut.into());
    Ok((answer.map_err(late)?.map_err(LegError::Unknown)?, connection))
}

fn encoded(key: i16, version: i16, body: &impl Encodable) -> Result<Bytes, WireError> {
    let mut out = BytesMut::new();
    body.encode(&mut out, version).map_err(|_| WireError::Body { api: key, version })?;
    Ok(out.freeze())
}

/// Groups `items` by the leader of their partition; those without a known leader come apart.
async fn by_leader<T>(
    topics: &Topics,
    items: Vec<T>,
    place: impl Fn(&T) -> (&str, i32),
) -> (HashMap<i32, Vec<T>>, Vec<T>) {
    let (mut led, mut lost) = (HashMap::<i32, Vec<T>>::new(), Vec::new());
    for item in items {
        let (topic, partition) = place(&item);
        match topics.leader(topic, partition).await {
            Some(leader) => led.entry(leader.node).or_default().push(item),
            None => lost.push(item),
        }
    }
    (led, lost)
}
