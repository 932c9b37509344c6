//! What no byte sent to a client may hold: an upstream address.
//!
//! Two searches of every response: as text (any loopback host but the proxy's, any upstream port
//! after a colon), and by decoding the answers that have a field for an address, where host *and*
//! port must be the ones that stand for that node. The decoder is the kafka-protocol crate's, not
//! the proxy's own walkers.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, DescribeClusterResponse, DescribeQuorumResponse, FetchResponse,
    FindCoordinatorResponse, MetadataResponse, ProduceResponse, ResponseHeader,
    ShareAcknowledgeResponse, ShareFetchResponse,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, StrBytes};
use memchr::memmem;

use crate::proxy::{ADVERTISED, NODES};

/// What is allowed on one proxy.
pub struct Rules {
    pub upstream_ports: Vec<u16>,
    pub bootstrap: u16,
    /// Node `n` is served on `first + n`.
    pub first: u16,
}

/// What was searched and found so far.
#[derive(Default, Clone)]
pub struct Findings {
    pub apis: BTreeMap<(i16, i16), Counts>,
    /// Every violation, in words.
    pub leaks: Vec<String>,
    pub out_of_order: Vec<String>,
}

/// Counts of one API in one version.
#[derive(Default, Clone)]
pub struct Counts {
    pub responses: usize,
    pub bytes: usize,
    pub addresses: usize,
    /// Responses that ended in a list of node endpoints (KIP-951).
    pub tails: usize,
}

/// One address in an answer, and the node it stands for, where it says.
struct Address {
    node: Option<i32>,
    host: String,
    port: i64,
}

impl Findings {
    pub fn total(&self, of: impl Fn(&Counts) -> usize) -> usize {
        self.apis.values().map(of).sum()
    }

    /// Sums over the versions of one API.
    pub fn of(&self, api: ApiKey, of: impl Fn(&Counts) -> usize) -> usize {
        let rows = self.apis.iter().filter(|((key, _), _)| *key == api as i16);
        rows.map(|(_, counts)| of(counts)).sum()
    }

    /// Searches one response frame (without its length).
    pub fn search(&mut self, rules: &Rules, key: i16, version: i16, frame: &[u8]) {
        let what = name(key, version);
        let counts = self.apis.entry((key, version)).or_default();
        counts.responses += 1;
        counts.bytes += frame.len();
        self.leaks
            .extend(rules.text_leaks(frame).into_iter().map(|leak| format!("{what}: {leak}")));
        match addresses(key, version, frame) {
            Ok(None) => {}
            Ok(Some((found, tail))) => {
                counts.addresses += found.len();
                counts.tails += usize::from(tail);
                let wrong = found.iter().filter(|address| !rules.allows(address));
                self.leaks.extend(
                    wrong.map(|a| format!("{what}: node {:?} at {}:{}", a.node, a.host, a.port)),
                );
            }
            Err(reason) => self.leaks.push(format!("{what}: cannot be read: {reason}")),
        }
    }
}

impl Rules {
    fn allows(&self, address: &Address) -> bool {
        let nobody = address.port == -1 && address.host.is_empty();
        let (first, last) = (i64::from(self.bootstrap), i64::from(self.first + NODES - 1));
        let right = match address.node {
            Some(node) => address.port == i64::from(self.first) + i64::from(node),
            None => (first..=last).contains(&address.port),
        };
        nobody || (address.host == ADVERTISED && right)
    }

    fn text_leaks(&self, frame: &[u8]) -> Vec<String> {
        let mut leaks = Vec::new();
        for at in memmem::find_iter(frame, LOOPBACK) {
            let rest = &frame[at + LOOPBACK.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // A port may follow that looks like a digit: the string's length says where it ends.
            let whole = at > 0 && usize::from(frame[at - 1]) == LOOPBACK.len() + 2;
            let digits = if whole { digits.min(1) } else { digits };
            if &rest[..digits] != b"1" {
                leaks.push(format!("text {}", around(frame, at)));
            }
        }
        for port in &self.upstream_ports {
            let text = format!(":{port}");
            for at in memmem::find_iter(frame, text.as_bytes()) {
                leaks.push(format!("text {}", around(frame, at)));
            }
        }
        leaks
    }
}

fn around(frame: &[u8], at: usize) -> String {
    let part = &frame[at.saturating_sub(30)..(at + 30).min(frame.len())];
    part.escape_ascii().to_string()
}

fn name(key: i16, version: i16) -> String {
    ApiKey::try_from(key)
        .map_or_else(|()| format!("api {key} v{version}"), |api| format!("{api:?} v{version}"))
}

/// The addresses of one answer, and whether they are a KIP-951 tail; `None` for an API that has
/// none.
fn addresses(key: i16, version: i16, frame: &[u8]) -> Result<Option<(Vec<Address>, bool)>, String> {
    let Ok(api) = ApiKey::try_from(key) else { return Ok(None) };
    macro_rules! endpoints {
        ($type:ty, $node:ident) => {{
            let answer: $type = decode(frame, version)?;
            answer
                .node_endpoints
                .iter()
                .map(|e| address(Some(e.node_id.$node()), &e.host, e.port))
                .collect()
        }};
    }
    let (found, tail): (Vec<Address>, bool) = match api {
        ApiKey::Metadata => {
            let answer: MetadataResponse = decode(frame, version)?;
            let brokers = answer.brokers.iter();
            (brokers.map(|b| address(Some(b.node_id.0), &b.host, b.port)).collect(), false)
        }
        ApiKey::FindCoordinator => {
            let answer: FindCoordinatorResponse = decode(frame, version)?;
            let mut all: Vec<Address> = answer
                .coordinators
                .iter()
                .map(|c| address(Some(c.node_id.0), &c.host, c.port))
                .collect();
            if version < 4 {
                all.push(address(Some(answer.node_id.0), &answer.host, answer.port));
            }
            (all, false)
        }
        ApiKey::DescribeCluster => {
            let answer: DescribeClusterResponse = decode(frame, version)?;
            let brokers = answer.brokers.iter();
            (brokers.map(|b| address(Some(b.broker_id.0), &b.host, b.port)).collect(), false)
        }
        ApiKey::DescribeQuorum => {
            let answer: DescribeQuorumResponse = decode(frame, version)?;
            let listeners = answer.nodes.iter().flat_map(|node| &node.listeners);
            (listeners.map(|l| address(None, &l.host, i32::from(l.port))).collect(), false)
        }
        ApiKey::Produce if version >= 10 => (endpoints!(ProduceResponse, plain), true),
        ApiKey::Fetch if version >= 16 => (endpoints!(FetchResponse, plain), true),
        // Version 2 of both is version 1 but for one field; the crate knows 1 only.
        ApiKey::ShareFetch if version == 2 => return addresses(key, 1, frame),
        ApiKey::ShareAcknowledge if version == 2 => {
            return addresses(key, 1, &without_lock_time(frame));
        }
        ApiKey::ShareFetch => (endpoints!(ShareFetchResponse, plain), true),
        ApiKey::ShareAcknowledge => (endpoints!(ShareAcknowledgeResponse, plain), true),
        _ => return Ok(None),
    };
    let tail = tail && !found.is_empty();
    Ok(Some((found, tail)))
}

/// A ShareAcknowledge answer without the field that version 2 added: four bytes after the error
/// message.
pub fn without_lock_time(frame: &[u8]) -> Vec<u8> {
    let message = 4 + 1 + 4 + 2; // correlation id, tags of the header, throttle time, error code
    let length = frame.get(message).map_or(0, |length| usize::from(*length).saturating_sub(1));
    let field = (message + 1 + length).min(frame.len());
    let rest = frame.get(field + 4..).unwrap_or_default();
    [&frame[..field], rest].concat()
}

fn address(node: Option<i32>, host: &StrBytes, port: i32) -> Address {
    Address { node, host: host.to_string(), port: port.into() }
}

/// Node ids are plain numbers in some of the crate's messages and wrapped in others.
trait NodeId {
    fn plain(&self) -> i32;
}

impl NodeId for i32 {
    fn plain(&self) -> i32 {
        *self
    }
}

impl NodeId for kafka_protocol::messages::BrokerId {
    fn plain(&self) -> i32 {
        self.0
    }
}

fn decode<T: Decodable + HeaderVersion + 'static>(frame: &[u8], version: i16) -> Result<T, String> {
    let mut bytes = Bytes::copy_from_slice(frame);
    let header = ResponseHeader::decode(&mut bytes, T::header_version(version));
    header.map_err(|error| error.to_string())?;
    T::decode(&mut bytes, version).map_err(|error| error.to_string())
}

const LOOPBACK: &[u8] = b"127.0.0.";
