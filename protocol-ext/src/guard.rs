//! Checks every length of a message before the kafka-protocol crate decodes it.
//!
//! The crate reserves memory for a count before it reads the items, so a hostile count of a few
//! bytes would make it reserve gigabytes. A walk of the layout refuses such a count first.
//! A decoded item takes up to some 250 bytes of memory where the wire needs two, so their number
//! is bounded as well.

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

use crate::api;
use crate::schema::{Message, requests, responses};
use crate::walk::items;
use crate::wire::{Reader, WireError};

/// Items (topics, partitions, tags) of a request that is decoded: no client names as many.
pub const REQUEST_ITEMS_MAX: usize = 100_000;
/// The same for a response: all partitions of the largest clusters.
pub const RESPONSE_ITEMS_MAX: usize = 1_000_000;

/// Decodes a request's body that starts at `at` of `frame`.
pub fn request<T: Decodable>(
    key: i16,
    version: i16,
    frame: &Bytes,
    at: usize,
) -> Result<T, WireError> {
    let layout = match key {
        api::PRODUCE => &requests::PRODUCE,
        api::FETCH => &requests::FETCH,
        api::LIST_OFFSETS => &requests::LIST_OFFSETS,
        api::METADATA => &requests::METADATA,
        api::ADD_PARTITIONS_TO_TXN => &requests::ADD_PARTITIONS_TO_TXN,
        api::TXN_OFFSET_COMMIT => &requests::TXN_OFFSET_COMMIT,
        api::OFFSET_COMMIT => &requests::OFFSET_COMMIT,
        api::OFFSET_FOR_LEADER_EPOCH => &requests::OFFSET_FOR_LEADER_EPOCH,
        api::CREATE_PARTITIONS => &requests::CREATE_PARTITIONS,
        api::DELETE_TOPICS => &requests::DELETE_TOPICS,
        api::DELETE_RECORDS => &requests::DELETE_RECORDS,
        api::CREATE_TOPICS => &requests::CREATE_TOPICS,
        api::WRITE_TXN_MARKERS => &requests::WRITE_TXN_MARKERS,
        api::DESCRIBE_CONFIGS => &requests::DESCRIBE_CONFIGS,
        api::ALTER_CONFIGS => &requests::ALTER_CONFIGS,
        api::INCREMENTAL_ALTER_CONFIGS => &requests::INCREMENTAL_ALTER_CONFIGS,
        api::ALTER_REPLICA_LOG_DIRS => &requests::ALTER_REPLICA_LOG_DIRS,
        api::ELECT_LEADERS => &requests::ELECT_LEADERS,
        api::ALTER_PARTITION_REASSIGNMENTS => &requests::ALTER_PARTITION_REASSIGNMENTS,
        api::OFFSET_DELETE => &requests::OFFSET_DELETE,
        api::DESCRIBE_PRODUCERS => &requests::DESCRIBE_PRODUCERS,
        _ => return Err(WireError::Version { api: key, version }),
    };
    decode(layout, version, frame, at, REQUEST_ITEMS_MAX)
}

/// Decodes a response's body that starts at `at` of `frame`.
pub fn response<T: Decodable>(
    key: i16,
    version: i16,
    frame: &Bytes,
    at: usize,
) -> Result<T, WireError> {
    let layout = match key {
        api::PRODUCE => &responses::PRODUCE,
        api::FETCH => &responses::FETCH,
        api::LIST_OFFSETS => &responses::LIST_OFFSETS,
        api::METADATA => &responses::METADATA,
        api::CREATE_TOPICS => &responses::CREATE_TOPICS,
        api::DESCRIBE_CONFIGS => &responses::DESCRIBE_CONFIGS,
        api::INCREMENTAL_ALTER_CONFIGS => &responses::INCREMENTAL_ALTER_CONFIGS,
        api::FIND_COORDINATOR => &responses::FIND_COORDINATOR,
        api::INIT_PRODUCER_ID => &responses::INIT_PRODUCER_ID,
        api::ADD_PARTITIONS_TO_TXN => &responses::ADD_PARTITIONS_TO_TXN,
        api::END_TXN => &responses::END_TXN,
        api::DESCRIBE_PRODUCERS => &responses::DESCRIBE_PRODUCERS,
        api::TXN_OFFSET_COMMIT => &responses::TXN_OFFSET_COMMIT,
        api::OFFSET_COMMIT => &responses::OFFSET_COMMIT,
        api::OFFSET_FOR_LEADER_EPOCH => &responses::OFFSET_FOR_LEADER_EPOCH,
        api::CREATE_PARTITIONS => &responses::CREATE_PARTITIONS,
        api::DELETE_TOPICS => &responses::DELETE_TOPICS,
        api::DELETE_RECORDS => &responses::DELETE_RECORDS,
        api::ALTER_CONFIGS => &responses::ALTER_CONFIGS,
        api::WRITE_TXN_MARKERS => &responses::WRITE_TXN_MARKERS,
        api::ALTER_REPLICA_LOG_DIRS => &responses::ALTER_REPLICA_LOG_DIRS,
        api::ELECT_LEADERS => &responses::ELECT_LEADERS,
        api::ALTER_PARTITION_REASSIGNMENTS => &responses::ALTER_PARTITION_REASSIGNMENTS,
        api::OFFSET_DELETE => &responses::OFFSET_DELETE,
        api::API_VERSIONS if version == 0 => {
            let mut read = Reader::new(frame, at);
            read.i16()?;
            let rows = read.length(false, true)?.unwrap_or(0);
            read.take(rows.saturating_mul(VERSION_ROW_BYTES))?;
            return decode_checked(key, version, frame, at);
        }
        _ => return Err(WireError::Version { api: key, version }),
    };
    decode(layout, version, frame, at, RESPONSE_ITEMS_MAX)
}

/// Bytes of one row of an ApiVersions version 0 answer.
const VERSION_ROW_BYTES: usize = 6;

fn decode<T: Decodable>(
    layout: &Message,
    version: i16,
    frame: &Bytes,
    at: usize,
    max: usize,
) -> Result<T, WireError> {
    if items(layout, version, frame, at)? > max {
        return Err(WireError::Items { max });
    }
    decode_checked(layout.api, version, frame, at)
}

fn decode_checked<T: Decodable>(
    api: i16,
    version: i16,
    frame: &Bytes,
    at: usize,
) -> Result<T, WireError> {
    let mut body = frame.slice(at.min(frame.len())..);
    T::decode(&mut body, version).map_err(|_| WireError::Body { api, version })
}
