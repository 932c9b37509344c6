//! Requests by hand: what no client library lets a test choose, such as the version and the broker.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// One connection, one request at a time unless `send` and `receive` are used apart.
pub struct Raw {
    stream: TcpStream,
    correlation: i32,
}

impl Raw {
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, correlation: 0 })
    }

    /// Sends a request of the crate's types and decodes its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.start(version, request)?;
        decode(version, self.receive()?)
    }

    /// Sends a request and returns its correlation id.
    pub fn start<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).map_err(io::Error::other)?;
        self.send(R::KEY, version, R::header_version(version), &body)
    }

    /// Sends a body of any bytes; `header` is the version of the request header.
    pub fn send(&mut self, key: i16, version: i16, header: i16, body: &[u8]) -> io::Result<i32> {
        self.correlation += 1;
        let head = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("raw")));
        let mut frame = BytesMut::new();
        head.encode(&mut frame, header).map_err(io::Error::other)?;
        frame.extend_from_slice(body);
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(&frame)?;
        Ok(self.correlation)
    }

    /// The next frame, without its length. An end of the stream is `UnexpectedEof`.
    pub fn receive(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }
}

/// An answer of the crate's types.
pub fn decode<T: Decodable + HeaderVersion>(version: i16, mut frame: Bytes) -> io::Result<T> {
    ResponseHeader::decode(&mut frame, T::header_version(version)).map_err(io::Error::other)?;
    T::decode(&mut frame, version).map_err(io::Error::other)
}

/// The versions of an API that are offered at this address and that the crate can write.
pub fn versions(address: &str, api: ApiKey) -> io::Result<RangeInclusive<i16>> {
    let request = kafka_protocol::messages::ApiVersionsRequest::default();
    let answer = Raw::connect(address)?.call(0, &request)?;
    let found = answer.api_keys.iter().find(|offered| offered.api_key == api as i16);
    let ours = api.valid_versions();
    // Version 2 of the share APIs is written by hand.
    let newest =
        if matches!(api, ApiKey::ShareFetch | ApiKey::ShareAcknowledge) { 2 } else { ours.max };
    #[expect(clippy::reversed_empty_ranges, reason = "an API that is not offered has no versions")]
    Ok(found.map_or(1..=0, |api| api.min_version.max(ours.min)..=api.max_version.min(newest)))
}

/// Metadata of the whole cluster, as one broker sees it.
pub fn metadata(address: &str) -> io::Result<MetadataResponse> {
    let request = MetadataRequest::default().with_topics(None);
    Raw::connect(address)?.call(5, &request)
}

/// How many partitions of a topic have a leader, as one broker sees it.
pub fn leaders(address: &str, name: &str) -> io::Result<usize> {
    let metadata = metadata(address)?;
    let ours = metadata.topics.iter().filter(|t| t.name.as_ref().is_some_and(|n| **n == *name));
    let partitions = ours.flat_map(|topic| &topic.partitions);
    Ok(partitions.filter(|partition| partition.leader_id.0 >= 0).count())
}

/// A topic name of the crate's type.
pub fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// What [`health`] found.
#[derive(Debug)]
pub struct Health {
    pub brokers: Vec<i32>,
    /// Partitions without a leader or with a replica that is not in sync.
    pub short: usize,
}

/// Which brokers are listed, and whether all partitions are whole.
pub fn health(address: &str) -> io::Result<Health> {
    let metadata = metadata(address)?;
    let mut brokers: Vec<i32> = metadata.brokers.iter().map(|broker| broker.node_id.0).collect();
    brokers.sort_unstable();
    let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
    let short = partitions
        .filter(|p| p.leader_id.0 < 0 || p.isr_nodes.len() < p.replica_nodes.len())
        .count();
    Ok(Health { brokers, short })
}
