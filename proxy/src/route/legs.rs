//! Legs: the parts of an exchange that go to several brokers, over the proxy's own connections.
//!
//! One file per API knows how to split a request and merge the answers. Invariant: one request at
//! a time on a connection; a connection whose exchange failed is not used again.

pub mod delete_records;
mod deliver;
mod exact;
pub mod fetch;
mod large;
pub mod list_offsets;
mod look_up;
pub mod metadata;
pub mod produce;
mod produce_body;
mod sealed;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use kafka_protocol::protocol::Encodable;
use protocol_ext::wire::WireError;

use super::addresses::{Directory, Door};
use super::permissions::Refused;
use super::topics::{TopicId, Topics};
use super::virtual_topics::VirtualTopics;
use crate::budget::{Budget, Room};
use crate::limits::{IO_BUFFER_BYTES, LEG_PARTITIONS_MAX, Limits, TOPIC_NAME_BYTES_MAX};
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;
use crate::{clock, fault};
use deliver::Gate;
use exact::Streams;
pub use sealed::SEALED_BY;

/// What a client is told when the leader of a partition is not known or not reached: retriable,
/// nothing was appended (NOT_LEADER_OR_FOLLOWER).
pub const NOT_LEADER: i16 = 6;
/// What a client is told of a partition that does not exist (UNKNOWN_TOPIC_OR_PARTITION).
pub const UNKNOWN_PARTITION: i16 = 3;

/// What a client is told of a topic id that the cluster does not know (UNKNOWN_TOPIC_ID).
pub const UNKNOWN_ID: i16 = 100;

/// Refuses a request that names more partitions than any client does, given how many it names of
/// each topic. A topic counts without any, too.
pub(super) fn bounded(partitions: impl Iterator<Item = usize>) -> Result<(), WireError> {
    let max = LEG_PARTITIONS_MAX;
    let named: usize = partitions.map(|partitions| partitions.max(1)).sum();
    if named > max { Err(WireError::Items { max }) } else { Ok(()) }
}

/// Whether a partition's error code can mean that another broker leads it now, or that its topic
/// is another one. Any other error is asked about nowhere else.
fn doubts_leader(code: i16) -> bool {
    matches!(code, UNKNOWN_PARTITION | 5 | NOT_LEADER | 56 | 74..=76 | UNKNOWN_ID)
        || code != 0 && fault::on("any-error-doubts")
}

/// What a client is told of a topic that it must not see, which is what brokers say of one that
/// does not exist; `None` of any other. One that is named by its id has no name.
fn hidden(ways: Ways<'_>, key: i16, name: &str, id: &TopicId) -> Option<i16> {
    let code = match name.is_empty() {
        true => ways.routed.hides_id(id).then_some(UNKNOWN_ID),
        false => ways.routed.hides(name).then_some(UNKNOWN_PARTITION),
    };
    code.filter(|_| !fault::on(fault::of_hidden(key)))
}

/// An id for topics that are named.
const NO_ID: TopicId = [0; 16];

/// Whether a topic can have this name: longer ones are not looked for.
pub fn is_name(name: &str) -> bool {
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
    /// Its body, in pieces.
    pub body: Vec<Bytes>,
    /// Time it may take: to connect, to ask and to read, together.
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
    /// Topics of the request that its client may not use.
    pub refused: &'a Refused,
    /// Bytes that are held beside the answers of legs, and need room with them.
    pub beside: usize,
}

/// What came of legs.
struct Ran {
    /// Their answers, in order.
    answers: Vec<Result<Bytes, LegError>>,
    /// Room that the answers take, for as long as something of them is held.
    room: Option<Room>,
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
        let begin = clock::since_boot();
        let asked = legs.iter().zip(open);
        let asked = asked.map(|(leg, open)| ask(ways, (leg, begin + leg.limit), open, gate));
        let asked = join_all(asked).await;
        let before = clock::since_boot();
        let bytes: usize = asked.iter().flatten().map(|(length, _)| *length).sum();
        let bytes = bytes + ways.beside;
        let room = match bytes {
            n if n <= IO_BUFFER_BYTES || fault::on("legs-take-no-room") => None,
            // What is made of the answers is held beside them.
            n => ways.room.take(n * 2).await,
        };
        // Who waits for room waits for nobody's broker.
        let begin = match fault::on("leg-limits-add-up") {
            true => clock::since_boot(),
            false => begin + (clock::since_boot() - before),
        };
        let reads =
            legs.iter().zip(asked).map(|(leg, asked)| read((leg, begin + leg.limit), asked));
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
    (leg, until): (&Leg, Duration),
    open: Option<BrokerConnection>,
    gate: Option<&Gate<'_>>,
) -> Result<(usize, BrokerConnection), LegError> {
    let open = open.and_then(|mut connection| connection.is_open().then_some(connection));
    let mut connection = match open {
        Some(connection) => connection,
        None => {
            let door = Door::Node(leg.node);
            let connect = ways.directory.connect(door, ways.limits, &Login::Proxy);
            let late = |_| {
                // Perhaps the broker moved.
                ways.directory.wake();
                LegError::NotSent(io::ErrorKind::TimedOut.into())
            };
            let stream = tokio::time::timeout(left(until), connect).await.map_err(late)?;
            BrokerConnection::new(stream.map_err(LegError::NotSent)?)
        }
    };
    if gate.is_some_and(|gate| !gate.is_open()) {
        return Err(LegError::NotSent(io::ErrorKind::TimedOut.into()));
    }
    let asked = async {
        connection.send(leg.key, leg.version, &leg.body).await?;
        connection.answer_bytes().await
    };
    let length = in_time(until, asked).await?;
    Ok((length, connection))
}

/// Reads the answer of a leg.
async fn read(
    (leg, until): (&Leg, Duration),
    asked: Result<(usize, BrokerConnection), LegError>,
) -> Result<(Bytes, BrokerConnection), LegError> {
    let (length, mut connection) = asked?;
    let answer = in_time(until, connection.answer(leg.key, leg.version, length)).await?;
    Ok((answer, connection))
}

/// Time until then.
fn left(until: Duration) -> Duration {
    until.saturating_sub(clock::since_boot())
}

async fn in_time<T>(
    until: Duration,
    done: impl Future<Output = io::Result<T>>,
) -> Result<T, LegError> {
    let late = |_| LegError::Unknown(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(left(until), done).await.map_err(late)?.map_err(LegError::Unknown)
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
