//! Frames that lie, for tests: sound frames in, mutants out, and what every reader must keep to.
//!
//! corpus (golden, drawn, defaults) -> `Mutator` -> mutant -> targets -> verdict. The same parts
//! serve the in-process run, the run over sockets and the fuzz targets.
//! Invariant: everything follows from a seed and the number of a mutant, so each can be had again.

pub mod corpus;
pub mod defaults;
pub mod drawn;
pub mod mutate;
pub mod random;
pub mod targets;

use bytes::Bytes;

use crate::schema::{Message, requests, responses};

/// A frame without its length, and what it is.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it comes from, for people.
    pub name: String,
    /// API key.
    pub api: i16,
    /// Version of its layout.
    pub version: i16,
    /// From a client; else from a broker.
    pub request: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Frame {
    /// Our layout of it, if there is one that knows its version.
    pub fn layout(&self) -> Option<&'static Message> {
        let ours = if self.request { REQUESTS } else { RESPONSES };
        let known = |layout: &&&Message| (layout.min..=layout.max).contains(&self.version);
        ours.iter().find(|layout| layout.api == self.api).filter(known).copied()
    }
}

/// Every layout of a request.
pub const REQUESTS: &[&Message] = &[
    &requests::PRODUCE,
    &requests::FETCH,
    &requests::METADATA,
    &requests::LIST_OFFSETS,
    &requests::ADD_PARTITIONS_TO_TXN,
    &requests::TXN_OFFSET_COMMIT,
    &requests::OFFSET_COMMIT,
    &requests::OFFSET_FOR_LEADER_EPOCH,
    &requests::CREATE_PARTITIONS,
    &requests::DELETE_TOPICS,
    &requests::DELETE_RECORDS,
    &requests::CREATE_TOPICS,
    &requests::WRITE_TXN_MARKERS,
    &requests::DESCRIBE_CONFIGS,
    &requests::ALTER_CONFIGS,
    &requests::INCREMENTAL_ALTER_CONFIGS,
    &requests::ALTER_REPLICA_LOG_DIRS,
    &requests::ELECT_LEADERS,
    &requests::ALTER_PARTITION_REASSIGNMENTS,
    &requests::OFFSET_DELETE,
    &requests::DESCRIBE_PRODUCERS,
];

/// Every layout of a response.
pub const RESPONSES: &[&Message] = &[
    &responses::PRODUCE,
    &responses::FETCH,
    &responses::METADATA,
    &responses::LIST_OFFSETS,
    &responses::DESCRIBE_PRODUCERS,
    &responses::CREATE_TOPICS,
    &responses::OFFSET_COMMIT,
    &responses::TXN_OFFSET_COMMIT,
    &responses::OFFSET_FOR_LEADER_EPOCH,
    &responses::CREATE_PARTITIONS,
    &responses::DELETE_TOPICS,
    &responses::DELETE_RECORDS,
    &responses::WRITE_TXN_MARKERS,
    &responses::ALTER_REPLICA_LOG_DIRS,
    &responses::ELECT_LEADERS,
    &responses::ALTER_PARTITION_REASSIGNMENTS,
    &responses::OFFSET_DELETE,
    &responses::FIND_COORDINATOR,
    &responses::DESCRIBE_CONFIGS,
    &responses::ALTER_CONFIGS,
    &responses::INCREMENTAL_ALTER_CONFIGS,
    &responses::DESCRIBE_CLUSTER,
    &responses::DESCRIBE_QUORUM,
    &responses::SHARE_FETCH,
    &responses::SHARE_ACKNOWLEDGE,
];
