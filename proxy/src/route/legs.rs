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

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use kafka_protocol::protocol::Encodable;
use protocol_ext::wire::WireError;
use tokio::sync::OwnedSemaphorePermit;

use super::addresses::{Directory, Door};
use super::topics::Topics;
use super::virtual_topics::VirtualTopics;
use crate::data_plane::Budget;
use crate::fault;
use crate::limits::{IO_BUFFER_BYTES, LEG_PARTITIONS_MAX, Limits, TOPIC_NAME_BYTES_MAX};
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;
use exact::{Gate, Streams};

/// What a client is told when the leader of a partition is not known or not reached: retriable,
/// nothing was appended (NOT_LEADER_OR_FOLLOWER).
pub const NOT_LEADER: i16 = 6;
/// What a client is told of a partition that does not exist (UNKNOWN_TOPIC_OR_PARTITION).
pub const UNKNOWN_PARTITION: i16 = 3;

/// Refuses a request that names more partitions than any client does.
fn bounded(partitions: usize) -> Result<(), WireError> {
    let max = LEG_PARTITIONS_MAX;
    if partitions > max { Err(WireError::Items { max }) } else { Ok(()) }
}

/// Whether a topic can have this name: longer ones are not looked for.
fn is_name(name: &str) -> bool {
    (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
}

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
    open: BTreeMap<i32, BrokerConnection>,
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
    /// Room for answers. Who holds some waits for no more of it, and for no earlier answer.
    pub room: &'a Budget,
}

/// What came of legs.
struct Ran {
    /// Their answers, in order.
    answers: Vec<Result<Bytes, LegError>>,
    /// Room that the answers take, for as long as something of them is held.
    room: Option<OwnedSemaphorePermit>,
}

impl Legs {
    /// Sends all legs at once, at most one per broker, and gives their answers in order.
    async fn run(&mut self, ways: Ways<'_>, legs: Vec<Leg>) -> Ran {
        self.run_gated(ways, legs, None).await
    }

    /// As `run`, but nothing is sent once the gate is shut.
    ///
    /// Room is taken for all answers at once, when the length of each is known and before one is
    /// read: whoever held room for some and waited for more could wait for ever.
    async fn run_gated(&mut self, ways: Ways<'_>, legs: Vec<Leg>, gate: Option<&Gate<'_>>) -> Ran {
        let open: Vec<_> = legs.iter().map(|leg| self.open.remove(&leg.node)).collect();
        let asked = legs.iter().zip(open).map(|(leg, open)| ask(ways, leg, open, gate));
        let asked = join_all(asked).await;
        let bytes: usize = asked.iter().flatten().map(|(length, _)| *length).sum();
        let room = match bytes {
            n if n <= IO_BUFFER_BYTES || fault::on("legs-take-no-room") => None,
            // What is made of the answers is held beside them.
            n => ways.room.take(n * 2).await,
        };
        let reads = legs.iter().zip(asked).map(|(leg, asked)| read(leg, asked));
        let read = join_all(reads).await;
        let mut answers = Vec::with_capacity(legs.len());
        for (leg, read) in legs.iter().zip(read) {
            answers.push(read.map(|(answer, connection)| {
                self.open.insert(leg.node, connection);
                answer
            }));
        }
        Ran { answers, room }
    }
}

/// Sends a leg and waits until its answer begins; gives the answer's length.
async fn ask(
    ways: Ways<'_>,
    leg: &Leg,
    open: Option<BrokerConnection>,
    gate: Option<&Gate<'_>>,
) -> Result<(usize, BrokerConnection), LegError> {
    let open = open.and_then(|mut connection| connection.is_open().then_some(connection));
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
    let asked = async {
        connection.send(leg.key, leg.version, body).await?;
        connection.answer_bytes().await
    };
    let length = in_time(leg, asked).await?;
    Ok((length, connection))
}

/// Reads the answer of a leg.
async fn read(
    leg: &Leg,
    asked: Result<(usize, BrokerConnection), LegError>,
) -> Result<(Bytes, BrokerConnection), LegError> {
    let (length, mut connection) = asked?;
    let answer = in_time(leg, connection.answer(leg.key, leg.version, length)).await?;
    Ok((answer, connection))
}

async fn in_time<T>(leg: &Leg, done: impl Future<Output = io::Result<T>>) -> Result<T, LegError> {
    let late = |_| LegError::Unknown(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(leg.limit, done).await.map_err(late)?.map_err(LegError::Unknown)
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
) -> (BTreeMap<i32, Vec<T>>, Vec<T>) {
    topics.want_leaders(items.iter().map(&place)).await;
    let (mut led, mut lost) = (BTreeMap::<i32, Vec<T>>::new(), Vec::new());
    for item in items {
        let (topic, partition) = place(&item);
        match topics.leader(topic, partition) {
            Some(leader) => led.entry(leader.node).or_default().push(item),
            None => lost.push(item),
        }
    }
    (led, lost)
}
