//! Request frames, made once, and the few answer fields that a generator must look at.
//!
//! Envelopes are encoded by the kafka-protocol crate; answers are read in place, because the
//! records of a Fetch answer are thrown away as they arrive and never form one buffer.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest,
    RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use crate::error::{BenchError, Result};

/// Where one partition is read from and written to.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of the partition's leader, as the bootstrap address told it.
    pub leader: String,
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic.
    pub topic_id: Uuid,
    /// Index of the partition.
    pub partition: i32,
}

/// An ApiVersions v3 request.
///
/// # Errors
/// When the crate refuses to encode it.
pub fn api_versions() -> Result<BytesMut> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str(CLIENT))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    frame(ApiKey::ApiVersions, API_VERSIONS, &request)
}

/// A Metadata v12 request for one topic.
///
/// # Errors
/// When the crate refuses to encode it.
pub fn metadata(topic: &str) -> Result<BytesMut> {
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default()
        .with_allow_auto_topic_creation(false)
        .with_topics(Some(vec![wanted]));
    frame(ApiKey::Metadata, METADATA, &request)
}

/// A Produce v12 request (acks=1) with one prebuilt batch.
///
/// # Errors
/// When the crate refuses to encode it.
pub fn produce(target: &Target, batch: Bytes) -> Result<BytesMut> {
    let partition =
        PartitionProduceData::default().with_index(target.partition).with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(topic_name(&target.topic))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(1)
        .with_timeout_ms(PRODUCE_TIMEOUT_MS)
        .with_topic_data(vec![topic]);
    frame(ApiKey::Produce, PRODUCE, &request)
}

/// A Fetch v16 request without a session, from the partition's first offset.
///
/// # Errors
/// When the crate refuses to encode it.
pub fn fetch(target: &Target, bytes_max: i32) -> Result<BytesMut> {
    fetch_from(target, 0, bytes_max)
}

/// The same from another offset.
///
/// # Errors
/// When the crate refuses to encode it.
pub fn fetch_from(target: &Target, offset: i64, bytes_max: i32) -> Result<BytesMut> {
    let partition = FetchPartition::default()
        .with_partition(target.partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(bytes_max);
    let topic =
        FetchTopic::default().with_topic_id(target.topic_id).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(FETCH_WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    frame(ApiKey::Fetch, FETCH, &request)
}

/// Writes `correlation` over the correlation id of a finished frame.
pub fn stamp(frame: &mut [u8], correlation: i32) {
    if let Some(place) = frame.get_mut(CORRELATION_AT..CORRELATION_AT + 4) {
        place.copy_from_slice(&correlation.to_be_bytes());
    }
}

/// Reads a Metadata v12 answer: who leads `partition` of its only topic.
///
/// # Errors
/// [`BenchError::Refused`] while the topic or the partition has no leader.
pub fn read_metadata(body: &[u8], partition: i32) -> Result<Target> {
    let mut answer = Cursor(body);
    answer.header()?;
    let mut rest = Bytes::copy_from_slice(answer.0);
    let metadata = MetadataResponse::decode(&mut rest, METADATA)
        .map_err(|error| BenchError::Codec(error.to_string()))?;
    let topic = metadata.topics.first().ok_or(BenchError::Wire("metadata without topic"))?;
    refuse("Metadata", topic.error_code)?;
    let found = topic
        .partitions
        .iter()
        .find(|entry| entry.partition_index == partition)
        .ok_or(BenchError::Wire("metadata without partition"))?;
    refuse("Metadata", found.error_code)?;
    let leader = metadata
        .brokers
        .iter()
        .find(|broker| broker.node_id == found.leader_id)
        .ok_or(BenchError::Wire("metadata without leader"))?;
    Ok(Target {
        leader: format!("{}:{}", leader.host.as_str(), leader.port),
        topic: topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default(),
        topic_id: topic.topic_id,
        partition,
    })
}

/// Reads a Produce v12 answer to a request with one partition.
///
/// # Errors
/// [`BenchError::Refused`] when the partition was refused.
pub fn read_produce(body: &[u8]) -> Result<()> {
    let mut answer = Cursor(body);
    answer.header()?;
    if answer.array()? != 1 {
        return Err(BenchError::Wire("produce answer without its topic"));
    }
    answer.compact_bytes()?;
    if answer.array()? != 1 {
        return Err(BenchError::Wire("produce answer without its partition"));
    }
    answer.skip(4)?;
    refuse("Produce", answer.int16()?)
}

/// Reads the head of a Fetch v16 answer to a request with one partition.
/// Returns the size of the records, in bytes.
///
/// # Errors
/// [`BenchError::Refused`] when the fetch or the partition was refused.
pub fn read_fetch_head(head: &[u8]) -> Result<u64> {
    let mut answer = Cursor(head);
    answer.header()?;
    answer.skip(4)?;
    refuse("Fetch", answer.int16()?)?;
    answer.skip(4)?;
    if answer.array()? != 1 {
        return Err(BenchError::Wire("fetch answer without its topic"));
    }
    answer.skip(16)?;
    if answer.array()? != 1 {
        return Err(BenchError::Wire("fetch answer without its partition"));
    }
    answer.skip(4)?;
    refuse("Fetch", answer.int16()?)?;
    answer.skip(24)?;
    for _ in 0..answer.array()? {
        answer.skip(16)?;
        answer.tags()?;
    }
    answer.skip(4)?;
    Ok(answer.uvarint()?.saturating_sub(1))
}

/// Reads an ApiVersions answer.
///
/// # Errors
/// [`BenchError::Refused`] when the version was refused.
pub fn read_api_versions(body: &[u8]) -> Result<()> {
    let mut answer = Cursor(body);
    answer.skip(4)?;
    refuse("ApiVersions", answer.int16()?)
}

fn frame<Request: Encodable>(api: ApiKey, version: i16, request: &Request) -> Result<BytesMut> {
    let codec = |error: &dyn std::fmt::Display| BenchError::Codec(error.to_string());
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT)));
    let mut out = BytesMut::new();
    out.put_u32(0);
    header.encode(&mut out, 2).map_err(|error| codec(&error))?;
    request.encode(&mut out, version).map_err(|error| codec(&error))?;
    let length = u32::try_from(out.len() - 4).map_err(|error| codec(&error))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn refuse(api: &'static str, code: i16) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(BenchError::Refused { api, code }) }
}

/// The unread rest of an answer.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn skip(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.get(bytes..).ok_or(SHORT)?;
        Ok(())
    }

    fn int16(&mut self) -> Result<i16> {
        let (value, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(i16::from_be_bytes(*value))
    }

    fn uvarint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.0.split_first().ok_or(SHORT)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BenchError::Wire("varint of more than five bytes"))
    }

    fn array(&mut self) -> Result<u64> {
        Ok(self.uvarint()?.saturating_sub(1))
    }

    fn compact_bytes(&mut self) -> Result<()> {
        let length = self.array()?;
        self.skip(usize::try_from(length).map_err(|_| SHORT)?)
    }

    /// Correlation id and tags of response header v1.
    fn header(&mut self) -> Result<()> {
        self.skip(4)?;
        self.tags()
    }

    fn tags(&mut self) -> Result<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let length = self.uvarint()?;
            self.skip(usize::try_from(length).map_err(|_| SHORT)?)?;
        }
        Ok(())
    }
}

const CLIENT: &str = "firebreak-bench";
const API_VERSIONS: i16 = 3;
const METADATA: i16 = 12;
/// Version of every Produce request made here.
pub const PRODUCE: i16 = 12;
/// Version of every Fetch request made here.
pub const FETCH: i16 = 16;
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
const FETCH_WAIT_MS: i32 = 500;
/// The correlation id follows length, API key and version.
const CORRELATION_AT: usize = 8;
const SHORT: BenchError = BenchError::Wire("answer ends too early");

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::produce_response::{
        PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{FetchResponse, ProduceResponse};

    fn answer<Response: Encodable>(version: i16, response: &Response) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_i32(1);
        out.put_u8(0);
        response.encode(&mut out, version).unwrap();
        out
    }

    #[test]
    fn a_refused_partition_of_a_produce_answer_is_an_error() {
        let partition = PartitionProduceResponse::default().with_error_code(6);
        let topic = TopicProduceResponse::default()
            .with_name(topic_name("t"))
            .with_partition_responses(vec![partition]);
        let response = ProduceResponse::default().with_responses(vec![topic]);
        let read = read_produce(&answer(PRODUCE, &response));
        assert!(matches!(read, Err(BenchError::Refused { api: "Produce", code: 6 })));
    }

    #[test]
    fn the_head_of_a_fetch_answer_tells_the_size_of_the_records() {
        let partition = PartitionData::default().with_records(Some(Bytes::from(vec![7; 70_000])));
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let response = FetchResponse::default().with_responses(vec![topic]);
        assert_eq!(read_fetch_head(&answer(FETCH, &response)).unwrap(), 70_000);
    }

    #[test]
    fn a_stamp_changes_the_correlation_id_only() {
        let mut frame = api_versions().unwrap();
        let before = frame.clone();
        stamp(&mut frame, 0x0102_0304);
        assert_eq!(&frame[8..12], &[1, 2, 3, 4]);
        assert_eq!(frame[..8], before[..8]);
        assert_eq!(frame[12..], before[12..]);
    }
}
