//! Requests that brokers serve by a virtual topic's carrier, where not all of one may go on: some
//! rows are answered here, the rest by the home broker.
//!
//! request -> rows taken out and told here -> the rest goes on, or nothing does -> one answer.
//! Commits of offsets go on as they are, since groups know logical offsets only. Invariant: what
//! is not refused reaches the broker as its client wrote it.

mod commits;
mod epochs;
mod structure;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::topics::{TopicId, Topics};
use super::virtual_topics::VirtualTopics;

/// INVALID_REQUEST.
const INVALID_REQUEST: i16 = 42;

/// What names and ids stand for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Virtual topics.
    pub routed: &'a VirtualTopics,
    /// Topics of brokers.
    pub topics: &'a Topics,
}

/// What a topic is to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Virtual,
    /// A physical topic of a virtual one.
    Hidden,
    Plain,
}

impl Known<'_> {
    fn named(&self, name: &str) -> Named {
        match () {
            () if self.routed.by_name(name).is_some() => Named::Virtual,
            () if self.routed.hides(name) => Named::Hidden,
            () => Named::Plain,
        }
    }

    /// The same of a name that may be absent beside an id.
    fn named_or(&self, name: Option<&str>, id: &TopicId) -> Named {
        match name {
            Some(name) => self.named(name),
            None => self.topics.known_name(id).map_or(Named::Plain, |name| self.named(&name)),
        }
    }
}

/// A request of which rows can be taken out.
trait Shared: Decodable + Encodable {
    type Answer: Decodable + Encodable;

    /// Takes out what does not go on; gives the answer to that, `None` if everything goes on.
    fn take_out(&mut self, known: Known<'_>) -> Option<Self::Answer>;

    /// Whether nothing is left to go on.
    fn is_empty(&self) -> bool;

    /// Puts rows of one answer beside those of another.
    fn join(answer: &mut Self::Answer, told: Self::Answer);
}

/// A request of which something does not go on.
#[derive(Debug)]
pub struct Parted {
    /// The frame for the home broker; `None`: nothing goes on.
    pub rest: Option<Bytes>,
    /// The whole answer to the part that does not.
    pub told: Bytes,
}

/// Looks into a request; `None` if it goes on as it is.
pub fn parted(known: Known<'_>, head: Head, frame: &Bytes) -> Result<Option<Parted>, WireError> {
    use kafka_protocol::messages as m;
    match head.api {
        api::OFFSET_COMMIT => part::<m::OffsetCommitRequest>(known, head, frame),
        api::TXN_OFFSET_COMMIT => part::<m::TxnOffsetCommitRequest>(known, head, frame),
        api::OFFSET_FOR_LEADER_EPOCH => part::<m::OffsetForLeaderEpochRequest>(known, head, frame),
        api::CREATE_PARTITIONS => part::<m::CreatePartitionsRequest>(known, head, frame),
        api::DELETE_TOPICS => part::<m::DeleteTopicsRequest>(known, head, frame),
        _ => Ok(None),
    }
}

/// The one answer to a request that was parted: what was told here, beside the broker's.
pub fn joined(head: Head, told: &Bytes, beside: &Bytes) -> Result<Bytes, WireError> {
    use kafka_protocol::messages as m;
    match head.api {
        api::OFFSET_COMMIT => join::<m::OffsetCommitRequest>(head, told, beside),
        api::TXN_OFFSET_COMMIT => join::<m::TxnOffsetCommitRequest>(head, told, beside),
        api::OFFSET_FOR_LEADER_EPOCH => join::<m::OffsetForLeaderEpochRequest>(head, told, beside),
        api::CREATE_PARTITIONS => join::<m::CreatePartitionsRequest>(head, told, beside),
        _ => join::<m::DeleteTopicsRequest>(head, told, beside),
    }
}

fn part<R: Shared>(
    known: Known<'_>,
    head: Head,
    frame: &Bytes,
) -> Result<Option<Parted>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let mut request: R = guard::request(head.api, head.version, frame, at)?;
    let Some(told) = request.take_out(known) else { return Ok(None) };
    let told = reply::frame(head, &told)?;
    if request.is_empty() {
        return Ok(Some(Parted { rest: None, told }));
    }
    let mut rest = BytesMut::from(&frame[..at]);
    let wrong = |_| WireError::Body { api: head.api, version: head.version };
    request.encode(&mut rest, head.version).map_err(wrong)?;
    Ok(Some(Parted { rest: Some(rest.freeze()), told }))
}

fn join<R: Shared>(head: Head, told: &Bytes, beside: &Bytes) -> Result<Bytes, WireError> {
    let read = |frame: &Bytes| {
        let at = header::response_body_at(head.api, head.version, frame)?;
        guard::response::<R::Answer>(head.api, head.version, frame, at)
    };
    let mut answer = read(beside)?;
    R::join(&mut answer, read(told)?);
    reply::frame(head, &answer)
}
