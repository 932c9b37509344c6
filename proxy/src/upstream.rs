//! Connections of the proxy's own to brokers: questions, and legs of routed exchanges.
//!
//! One request at a time, as brokers serve them; correlation ids count up.

pub mod access;
pub mod auth;

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use protocol_ext::{api, guard, header};
use tokio::io::AsyncReadExt;

use self::access::Connected;
use crate::clock;
use crate::limits::PATCHED_RESPONSE_BYTES_MAX;
use crate::stream::Stream;
use crate::stream::chain::write_chain;

/// Bytes of an answer that are read with its length: most answers to Produce are shorter.
const FIRST_READ_BYTES: usize = 512;

/// What the proxy calls itself towards brokers.
const CLIENT_ID: &[u8] = b"firebreak";

/// A connection to one broker.
#[derive(Debug)]
pub struct BrokerConnection {
    stream: Stream,
    correlation: i32,
    /// What came with the length of an answer.
    held: BytesMut,
    /// When its session is nearly over, and another connection should take its place.
    stale: Option<clock::Tick>,
    /// Longest answer that is read.
    answer_bytes_max: usize,
}

impl BrokerConnection {
    /// Speaks over a connection that is ready.
    pub fn new(connected: Connected) -> Self {
        let Connected { stream, lifetime } = connected;
        let stale = (!lifetime.is_zero()).then(|| clock::now().checked_add(lifetime / 10 * 8));
        let answer_bytes_max = PATCHED_RESPONSE_BYTES_MAX;
        let (correlation, held) = (0, BytesMut::new());
        Self { stream, correlation, held, stale: stale.flatten(), answer_bytes_max }
    }

    /// Reads answers of so many bytes.
    pub fn with_answers_of(self, answer_bytes_max: usize) -> Self {
        Self { answer_bytes_max, ..self }
    }

    /// The bytes alone, between two exchanges.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether the broker has not closed the connection, as far as one can tell without waiting.
    pub fn is_open(&mut self) -> bool {
        // Between exchanges nothing may come: bytes or an end mean that it is of no use.
        self.stale.is_none_or(|stale| clock::now() < stale) && self.stream.is_quiet()
    }

    /// Sends a typed request and reads its typed answer.
    pub async fn call<Q, A>(&mut self, key: i16, version: i16, request: &Q) -> io::Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable,
    {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).map_err(invalid)?;
        let answer = self.exchange(key, version, &[body.freeze()]).await?;
        guard::response(key, version, &answer, 0).map_err(invalid)
    }

    /// Sends a request body and reads the answer's body.
    pub async fn exchange(&mut self, key: i16, version: i16, body: &[Bytes]) -> io::Result<Bytes> {
        self.send(key, version, body).await?;
        self.receive(key, version).await
    }

    /// Sends a request body in pieces.
    pub async fn send(&mut self, key: i16, version: i16, body: &[Bytes]) -> io::Result<()> {
        self.correlation = self.correlation.wrapping_add(1);
        let head = request_head(key, version, self.correlation);
        let length = head.len() + body.iter().map(Bytes::len).sum::<usize>();
        let length = i32::try_from(length).map_err(invalid)?;
        let mut start = BytesMut::with_capacity(4 + head.len());
        start.put_i32(length);
        start.put_slice(&head);
        let mut pieces = Vec::with_capacity(1 + body.len());
        pieces.push(start.freeze());
        pieces.extend_from_slice(body);
        write_chain(&mut self.stream, &pieces).await
    }

    /// Reads the answer to the last request sent.
    pub async fn receive(&mut self, key: i16, version: i16) -> io::Result<Bytes> {
        let length = self.answer_bytes().await?;
        self.answer(key, version, length).await
    }

    /// Waits for the answer to the last request sent and gives its length; of the rest of it little
    /// is read.
    pub async fn answer_bytes(&mut self) -> io::Result<usize> {
        self.held = BytesMut::with_capacity(FIRST_READ_BYTES);
        while self.held.len() < 4 {
            if self.stream.read_buf(&mut self.held).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let given = self.held.get_i32();
        let length = usize::try_from(given).ok().filter(|n| *n <= self.answer_bytes_max);
        length.filter(|n| *n >= 4).ok_or_else(|| invalid(impossible(given)))
    }

    /// Reads an answer of which the length was read.
    pub async fn answer(&mut self, key: i16, version: i16, length: usize) -> io::Result<Bytes> {
        let mut frame = std::mem::take(&mut self.held);
        frame.reserve(length.min(1 << 20).saturating_sub(frame.len()));
        while frame.len() < length {
            let left = length - frame.len();
            if (&mut self.stream).take(left as u64).read_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let frame = frame.freeze();
        if frame.len() > length || frame[..4] != self.correlation.to_be_bytes() {
            return Err(invalid("answer out of turn"));
        }
        let at = header::response_body_at(key, version, &frame).map_err(invalid)?;
        Ok(frame.slice(at..))
    }
}

/// Why an answer cannot have this length. What another server says first, read as a length, is
/// longer than any answer.
fn impossible(length: i32) -> &'static str {
    let start = length.to_be_bytes();
    let foreign = FOREIGN.iter().find(|(first, _)| start.starts_with(first));
    foreign.map_or("impossible length of a response", |(_, what)| *what)
}

/// The head of a request of the proxy's own, without its length.
pub fn request_head(key: i16, version: i16, correlation: i32) -> BytesMut {
    let mut head = BytesMut::with_capacity(64);
    head.put_i16(key);
    head.put_i16(version);
    head.put_i32(correlation);
    head.put_i16(i16::try_from(CLIENT_ID.len()).unwrap_or(0));
    head.put_slice(CLIENT_ID);
    if api::is_flexible(key, version) {
        head.put_u8(0);
    }
    head
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// How answers of other servers begin.
const FOREIGN: [(&[u8], &str); 4] = [
    (b"HTTP", HTTP),
    // A page and nothing before it, as some answer to what they cannot read.
    (b"<", HTTP),
    (&[0x15, 0x03], TLS),
    (&[0x16, 0x03], TLS),
];
const HTTP: &str = "this is an HTTP server, not a Kafka listener";
const TLS: &str =
    "this is a TLS listener, not a plaintext Kafka listener: tls of [[cluster]] is missing";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_other_protocols_are_known_by_their_first_bytes() {
        for (first, what) in [
            (*b"HTTP", "an HTTP server"),
            (*b"<!DO", "an HTTP server"),
            ([0x15, 3, 3, 0], "a TLS listener"),
            ([0x16, 3, 1, 2], "a TLS listener"),
            ([0xff; 4], "impossible length"),
            ([0; 4], "impossible length"),
        ] {
            let said = impossible(i32::from_be_bytes(first));
            assert!(said.contains(what), "{first:?}: {said}");
        }
    }
}
