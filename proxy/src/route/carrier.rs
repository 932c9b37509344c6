//! Requests that brokers serve by a virtual topic's carrier, where not all of one may go on: some
//! rows are answered here, the rest by the home broker.
//!
//! request -> rows taken out and told here -> the rest goes on, or nothing does -> one answer.
//! Commits of offsets go on as they are, since groups know logical offsets only. Invariants: what
//! is not refused reaches the broker as its client wrote it; of what clients must not see nothing
//! does, and they are told that it does not exist.

mod commits;
mod configs;
mod epochs;
mod markers;
mod partitions;
mod structure;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable};
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::legs::bounded;
use super::topics::{TopicId, Topics};
use super::virtual_topics::{Named, VirtualTopics};
use crate::fault;

/// INVALID_REQUEST.
const INVALID_REQUEST: i16 = 42;

/// What names and ids stand for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Virtual topics.
    pub routed: &'a VirtualTopics,
    /// Topics of brokers.
    pub topics: &'a Topics,
    /// Of which API they are asked.
    pub key: i16,
}

impl Known<'_> {
    fn named(&self, name: &str) -> Named {
        match self.routed.named(name) {
            Named::Hidden if fault::on(fault::of_hidden(self.key)) => Named::Plain,
            named => named,
        }
    }

    /// Takes out the topics that clients must not see. What is told of them has as many rows as
    /// they name partitions.
    fn hidden<T>(
        &self,
        topics: &mut Vec<T>,
        name: impl Fn(&T) -> &str,
        partitions: impl Fn(&T) -> usize,
    ) -> Result<Vec<T>, WireError> {
        let hidden = topics.extract_if(.., |topic| self.named(name(topic)) == Named::Hidden);
        let hidden: Vec<T> = hidden.collect();
        bounded(hidden.iter().map(partitions))?;
        Ok(hidden)
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
    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError>;

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

/// Does something with the type of an API's requests.
macro_rules! of_api {
    ($key:expr, $do:ident($($with:expr),*), $other:expr) => {
        match $key {
            api::OFFSET_COMMIT => $do::<m::OffsetCommitRequest>($($with),*),
            api::TXN_OFFSET_COMMIT => $do::<m::TxnOffsetCommitRequest>($($with),*),
            api::OFFSET_FOR_LEADER_EPOCH => $do::<m::OffsetForLeaderEpochRequest>($($with),*),
            api::CREATE_PARTITIONS => $do::<m::CreatePartitionsRequest>($($with),*),
            api::CREATE_TOPICS => $do::<m::CreateTopicsRequest>($($with),*),
            api::DELETE_TOPICS => $do::<m::DeleteTopicsRequest>($($with),*),
            api::WRITE_TXN_MARKERS => $do::<m::WriteTxnMarkersRequest>($($with),*),
            api::DESCRIBE_CONFIGS => $do::<m::DescribeConfigsRequest>($($with),*),
            api::ALTER_CONFIGS => $do::<m::AlterConfigsRequest>($($with),*),
            api::INCREMENTAL_ALTER_CONFIGS => {
                $do::<m::IncrementalAlterConfigsRequest>($($with),*)
            }
            api::ALTER_REPLICA_LOG_DIRS => $do::<m::AlterReplicaLogDirsRequest>($($with),*),
            api::ELECT_LEADERS => $do::<m::ElectLeadersRequest>($($with),*),
            api::ALTER_PARTITION_REASSIGNMENTS => {
                $do::<m::AlterPartitionReassignmentsRequest>($($with),*)
            }
            api::OFFSET_DELETE => $do::<m::OffsetDeleteRequest>($($with),*),
            api::DESCRIBE_PRODUCERS => $do::<m::DescribeProducersRequest>($($with),*),
            _ => $other,
        }
    };
}

/// Looks into a request; `None` if it goes on as it is.
pub fn parted(known: Known<'_>, head: Head, frame: &Bytes) -> Result<Option<Parted>, WireError> {
    of_api!(head.api, part(known, head, frame), Ok(None))
}

/// The one answer to a request that was parted: what was told here, beside the broker's.
pub fn joined(head: Head, told: &Bytes, beside: &Bytes) -> Result<Bytes, WireError> {
    let Head { api, version, .. } = head;
    of_api!(api, join(head, told, beside), Err(WireError::Version { api, version }))
}

fn part<R: Shared>(
    known: Known<'_>,
    head: Head,
    frame: &Bytes,
) -> Result<Option<Parted>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let mut request: R = guard::request(head.api, head.version, frame, at)?;
    let Some(told) = request.take_out(known)? else { return Ok(None) };
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
