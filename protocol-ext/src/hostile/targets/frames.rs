//! Readers of whole frames: heads, walks, addresses, scans, tails, decodes, replies.

use bytes::Bytes;
use kafka_protocol::messages as m;
use kafka_protocol::protocol::Decodable;

use super::{Checked, PROXY_HOST, Proxy, UPSTREAM, Verdict, ensure, wire};
use crate::acquired;
use crate::address::Rewrite;
use crate::api::{self, Answer};
use crate::header::{self, Head};
use crate::hostile::Frame;
use crate::hostile::random::Random;
use crate::scan::{Scan, Scanned, is_plain_produced};
use crate::schema::{Message, Role};
use crate::walk::{Check, Replace, Same, Value, walk, walk_until};
use crate::wire::WireError;
use crate::{guard, reply, tail, versions};

/// Bytes that a scan may ask to be kept besides the newest piece.
const KEPT_BYTES_MAX: usize = 16;

/// Where the body starts; a request's own head decides what it is.
fn body_at(frame: &Frame) -> Result<usize, WireError> {
    if frame.request {
        header::request_body_at(Head::parse(&frame.bytes)?, &frame.bytes)
    } else {
        header::response_body_at(frame.api, frame.version, &frame.bytes)
    }
}

/// The layout that the frame claims to have.
fn layout(frame: &Frame) -> Option<&'static Message> {
    if !frame.request {
        return frame.layout();
    }
    let head = Head::parse(&frame.bytes).ok()?;
    Frame { api: head.api, version: head.version, ..frame.clone() }.layout()
}

fn version(frame: &Frame) -> i16 {
    let own = Head::parse(&frame.bytes).ok().filter(|_| frame.request);
    own.map_or(frame.version, |head| head.version)
}

/// Head, client id, header tags.
pub fn head(frame: &Frame, _: &mut Random) -> Checked {
    let id = header::client_id(&frame.bytes);
    ensure(id.len() <= frame.bytes.len(), "a client id longer than its frame")?;
    match body_at(frame) {
        Ok(at) if at <= frame.bytes.len() => Ok(Verdict::Taken),
        Ok(at) => Err(format!("a body at {at} of {}", frame.bytes.len())),
        Err(error) => Ok(wire(&error)),
    }
}

/// The walk as guard, with every marked field changed, and with every one written anew.
pub fn walk_all(frame: &Frame, _: &mut Random) -> Checked {
    let Some(layout) = layout(frame) else { return Ok(Verdict::Other) };
    let (version, bytes) = (version(frame), &frame.bytes);
    let at = match body_at(frame) {
        Ok(at) => at,
        Err(error) => return Ok(wire(&error)),
    };
    let again = |bytes: &Bytes| walk(layout, version, bytes, at, &mut Check).map(|_| ());
    let edits = match walk(layout, version, bytes, at, &mut Check) {
        Ok(edits) => edits,
        Err(error) => return Ok(wire(&error)),
    };
    ensure(edits.apply(bytes).as_ptr() == bytes.as_ptr(), "a walk without edits copied")?;
    let mut change = |role: Role, value: Value<'_>| match value {
        Value::Bytes(raw, _) if role == Role::Acquired => {
            // What is shown of an array is an array.
            let read = acquired::read(raw.unwrap_or_default()).unwrap_or_default();
            Some(Replace::Bytes(Some(acquired::write(&acquired::without(&read, &[])))))
        }
        Value::Bytes(..) => Some(Replace::Bytes(Some(Bytes::from_static(b"yy")))),
        Value::Int(n) => Some(Replace::Int(!n)),
        Value::Uuid(_) => None,
    };
    let edits = walk(layout, version, bytes, at, &mut change).map_err(|e| e.to_string())?;
    let len = edits.len_after(bytes.len());
    let changed = edits.apply(bytes);
    ensure(changed.len() == len, "edits tell another length than they make")?;
    again(&changed).map_err(|error| format!("an edited frame does not walk: {error}"))?;
    let same = |bytes: &Bytes| walk(layout, version, bytes, at, &mut Same).map(|e| e.apply(bytes));
    let once = same(bytes).map_err(|error| error.to_string())?;
    ensure(once.len() <= bytes.len(), "a field written anew takes more bytes")?;
    let twice = same(&once).map_err(|error| format!("written anew it does not walk: {error}"))?;
    ensure(once == twice, "written anew twice it differs")?;
    Ok(Verdict::Taken)
}

/// Addresses of clients in the place of those of brokers.
pub fn address(frame: &Frame, _: &mut Random) -> Checked {
    let Some(layout) = layout(frame).filter(|_| !frame.request && has_addresses(frame.api)) else {
        return Ok(Verdict::Other);
    };
    let (version, bytes) = (frame.version, &frame.bytes);
    let at = match body_at(frame) {
        Ok(at) => at,
        Err(error) => return Ok(wire(&error)),
    };
    match walk(layout, version, bytes, at, &mut Rewrite::new(&Proxy)) {
        Ok(edits) => names_only_the_proxy(layout, version, &edits.apply(bytes), at)?,
        Err(error) => return Ok(wire(&error)),
    }
    Ok(Verdict::Taken)
}

fn has_addresses(api: i16) -> bool {
    matches!(api::get(api).map(|api| api.answer), Some(Answer::Patch(_) | Answer::Tail(_)))
}

fn names_only_the_proxy(
    layout: &'static Message,
    version: i16,
    frame: &Bytes,
    at: usize,
) -> Result<(), String> {
    let mut leak = None;
    let mut look = |role: Role, value: Value<'_>| {
        let text = value.bytes().unwrap_or_default();
        let leaks = match role {
            Role::Host => !text.is_empty() && text != PROXY_HOST.as_bytes(),
            Role::ErrorText => {
                let text = String::from_utf8_lossy(text);
                UPSTREAM.iter().any(|host| text.contains(host))
            }
            _ => false,
        };
        if leaks {
            leak = Some(format!("{role:?} is {:?}", String::from_utf8_lossy(text)));
        }
        None
    };
    walk(layout, version, frame, at, &mut look)
        .map_err(|error| format!("a rewritten frame does not walk: {error}"))?;
    leak.map_or(Ok(()), Err)
}

/// The only part of Metadata that is walked: its brokers.
pub fn front(frame: &Frame, _: &mut Random) -> Checked {
    let Some(layout) = layout(frame).filter(|l| l.api == api::METADATA && !frame.request) else {
        return Ok(Verdict::Other);
    };
    let (version, bytes) = (frame.version, &frame.bytes);
    let at = match body_at(frame) {
        Ok(at) => at,
        Err(error) => return Ok(wire(&error)),
    };
    let whole = walk(layout, version, bytes, at, &mut Rewrite::new(&Proxy));
    match walk_until(layout, version, bytes, at, "Brokers", &mut Rewrite::new(&Proxy)) {
        Ok(edits) => {
            let patched = edits.apply(bytes);
            let same = whole.is_err() || whole.is_ok_and(|edits| edits.apply(bytes) == patched);
            ensure(same, "brokers alone give another frame than the whole")?;
            Ok(Verdict::Taken)
        }
        Err(error) => {
            ensure(whole.is_err(), "the whole walks and its front does not")?;
            Ok(wire(&error))
        }
    }
}

/// Where the tail is, fed whole and in pieces of any size.
pub fn scan_pieces(frame: &Frame, random: &mut Random) -> Checked {
    let Some(layout) = layout(frame).filter(|_| !frame.request && has_tail(frame.api)) else {
        return Ok(Verdict::Other);
    };
    let whole = found_whole(layout, frame)?;
    let pieces = found_in_pieces(layout, frame, random)?;
    if frame.api == api::PRODUCE && is_plain_produced(frame.version, &frame.bytes) == Ok(true) {
        let bare = whole.as_ref().is_ok_and(|at| matches!(frame.bytes[*at..], [] | [0]));
        ensure(bare, "a plain Produce response with a tail")?;
    }
    match (whole, pieces) {
        (Ok(at), Ok(in_pieces)) if at == in_pieces => Ok(Verdict::Taken),
        (Err(error), Err(_)) => Ok(wire(&error)),
        (whole, pieces) => Err(format!("whole {whole:?}, in pieces {pieces:?}")),
    }
}

fn has_tail(api: i16) -> bool {
    matches!(api::get(api).map(|api| api.answer), Some(Answer::Tail(_)))
}

fn found_whole(layout: &Message, frame: &Frame) -> Result<Result<usize, WireError>, String> {
    let fed = Scan::new(layout, frame.version, frame.bytes.len())
        .and_then(|mut scan| scan.feed(&frame.bytes));
    match fed {
        Ok(Scanned::Tail(at)) => Ok(Ok(at)),
        Ok(Scanned::More(n)) => Err(format!("wants more than a whole frame, behind byte {n}")),
        Err(error) => Ok(Err(error)),
    }
}

fn found_in_pieces(
    layout: &Message,
    frame: &Frame,
    random: &mut Random,
) -> Result<Result<usize, WireError>, String> {
    let bytes = &frame.bytes;
    let mut scan = match Scan::new(layout, frame.version, bytes.len()) {
        Ok(scan) => scan,
        Err(error) => return Ok(Err(error)),
    };
    let largest = [1, 3, 17, 400, 5000][random.below(5)];
    let (mut passed, mut end) = (0, 0);
    loop {
        if end == bytes.len() && end > 0 {
            return Err("wants more than there is".to_owned());
        }
        end = (end + 1 + random.below(largest)).min(bytes.len());
        match scan.feed(&bytes[passed..end]) {
            Ok(Scanned::More(n)) => passed += n,
            Ok(Scanned::Tail(n)) => {
                let left = bytes.len() - passed - n;
                ensure(scan.left() == left, "a scan forgot how much is left")?;
                return Ok(Ok(passed + n));
            }
            Err(error) => return Ok(Err(error)),
        }
        ensure(end - passed <= KEPT_BYTES_MAX, "a scan keeps more than one small value")?;
        if bytes.is_empty() {
            return Ok(Err(WireError::Truncated { at: 0, need: 4 }));
        }
    }
}

/// Both ways to rewrite a tail.
pub fn tails(frame: &Frame, _: &mut Random) -> Checked {
    let Some(layout) = layout(frame).filter(|_| !frame.request && has_tail(frame.api)) else {
        return Ok(Verdict::Other);
    };
    let (version, bytes) = (frame.version, &frame.bytes);
    let at = match found_whole(layout, frame)? {
        Ok(at) => at,
        Err(error) => return Ok(wire(&error)),
    };
    let old = bytes.slice(at..);
    let sound = body_at(frame).and_then(|at| walk(layout, version, bytes, at, &mut Check)).is_ok();
    let exact = match tail::exact(layout, version, &old, &Proxy) {
        Ok(new) => new,
        Err(error) => {
            ensure(!sound, "a sound frame whose tail is refused")?;
            return Ok(wire(&error));
        }
    };
    let mut made = vec![exact];
    if version >= layout.flexible && !old.is_empty() {
        match tail::same_length(layout, version, &old, &Proxy) {
            Ok(new) => {
                ensure(new.len() == old.len(), "a tail of another length")?;
                made.push(new);
            }
            // No filler may fit where tags cannot be counted; then the connection ends.
            Err(error) => return Ok(wire(&error)),
        }
    }
    for new in made {
        let joined = Bytes::from([&bytes[..at], &new[..]].concat());
        if sound {
            let body = body_at(frame).map_err(|error| error.to_string())?;
            let read = walks(layout, version, &joined, body);
            read.map_err(|error| format!("a frame with a new tail does not walk: {error}"))?;
        }
        let upstream = UPSTREAM.iter().find(|host| holds(&new, host.as_bytes()));
        let own = UPSTREAM.iter().any(|host| holds_outside_hosts(layout, version, &old, host));
        ensure(upstream.is_none() || own, "a tail names the upstream")?;
    }
    Ok(Verdict::Taken)
}

fn walks(layout: &Message, version: i16, frame: &[u8], at: usize) -> Result<(), WireError> {
    walk(layout, version, frame, at, &mut Check).map(drop)
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|part| part == what)
}

/// Whether a tail has the text in a rack or in a tag of nobody, where it is not an address to us.
fn holds_outside_hosts(layout: &'static Message, version: i16, tail: &Bytes, text: &str) -> bool {
    let at = layout.fields.iter().position(|f| f.name == crate::scan::ENDPOINTS);
    let cut = Message { fields: at.map_or(&[], |at| &layout.fields[at..]), ..*layout };
    let mut erase =
        |role: Role, _: Value<'_>| (role == Role::Host).then(|| Replace::Bytes(Some(Bytes::new())));
    let erased = walk(&cut, version, tail, 0, &mut erase).map(|edits| edits.apply(tail));
    erased.is_ok_and(|bytes| holds(&bytes, text.as_bytes()))
}

/// The table of versions.
pub fn version_rows(frame: &Frame, _: &mut Random) -> Checked {
    if frame.request || frame.api != api::API_VERSIONS {
        return Ok(Verdict::Other);
    }
    if frame.version == versions::LAYOUT {
        let rows = |bytes: &Bytes| versions::rows(bytes).map_err(|error| error.to_string());
        if let Ok(Some(common)) = versions::common([&frame.bytes, &frame.bytes]) {
            let (common, own) = (rows(&common)?, rows(&frame.bytes)?);
            let same = common.iter().all(|(key, _)| own.contains_key(key));
            ensure(same, "a broker has in common with itself what it has not")?;
        }
    }
    let limit = |bytes: &Bytes| versions::limit(bytes, frame.version, api::servable_range);
    match limit(&frame.bytes) {
        Ok(limited) => {
            let again = limit(&limited).map_err(|error| format!("limited, not read: {error}"))?;
            ensure(again == limited, "limited twice it differs")?;
            Ok(Verdict::Taken)
        }
        Err(error) => Ok(wire(&error)),
    }
}

fn request<T: Decodable>(frame: &Frame, at: usize) -> Result<(), WireError> {
    let api = Head::parse(&frame.bytes)?.api;
    guard::request::<T>(api, version(frame), &frame.bytes, at).map(drop)
}

fn response<T: Decodable>(frame: &Frame, at: usize) -> Result<(), WireError> {
    guard::response::<T>(frame.api, frame.version, &frame.bytes, at).map(drop)
}

/// Decodes the body of a frame that starts there.
type Decode = fn(&Frame, usize) -> Result<(), WireError>;

/// Requests that are decoded somewhere.
const GUARDED_REQUESTS: &[(i16, Decode)] = &[
    (api::PRODUCE, request::<m::ProduceRequest>),
    (api::FETCH, request::<m::FetchRequest>),
    (api::LIST_OFFSETS, request::<m::ListOffsetsRequest>),
    (api::METADATA, request::<m::MetadataRequest>),
    (api::OFFSET_COMMIT, request::<m::OffsetCommitRequest>),
    (api::CREATE_TOPICS, request::<m::CreateTopicsRequest>),
    (api::DELETE_TOPICS, request::<m::DeleteTopicsRequest>),
    (api::DELETE_RECORDS, request::<m::DeleteRecordsRequest>),
    (api::OFFSET_FOR_LEADER_EPOCH, request::<m::OffsetForLeaderEpochRequest>),
    (api::ADD_PARTITIONS_TO_TXN, request::<m::AddPartitionsToTxnRequest>),
    (api::WRITE_TXN_MARKERS, request::<m::WriteTxnMarkersRequest>),
    (api::TXN_OFFSET_COMMIT, request::<m::TxnOffsetCommitRequest>),
    (api::DESCRIBE_CONFIGS, request::<m::DescribeConfigsRequest>),
    (api::ALTER_CONFIGS, request::<m::AlterConfigsRequest>),
    (api::ALTER_REPLICA_LOG_DIRS, request::<m::AlterReplicaLogDirsRequest>),
    (api::CREATE_PARTITIONS, request::<m::CreatePartitionsRequest>),
    (api::ELECT_LEADERS, request::<m::ElectLeadersRequest>),
    (api::INCREMENTAL_ALTER_CONFIGS, request::<m::IncrementalAlterConfigsRequest>),
    (api::ALTER_PARTITION_REASSIGNMENTS, request::<m::AlterPartitionReassignmentsRequest>),
    (api::OFFSET_DELETE, request::<m::OffsetDeleteRequest>),
    (api::DESCRIBE_PRODUCERS, request::<m::DescribeProducersRequest>),
];

/// Responses that are.
const GUARDED_RESPONSES: &[(i16, Decode)] = &[
    (api::PRODUCE, response::<m::ProduceResponse>),
    (api::FETCH, response::<m::FetchResponse>),
    (api::LIST_OFFSETS, response::<m::ListOffsetsResponse>),
    (api::METADATA, response::<m::MetadataResponse>),
    (api::OFFSET_COMMIT, response::<m::OffsetCommitResponse>),
    (api::API_VERSIONS, response::<m::ApiVersionsResponse>),
    (api::CREATE_TOPICS, response::<m::CreateTopicsResponse>),
    (api::DELETE_TOPICS, response::<m::DeleteTopicsResponse>),
    (api::DELETE_RECORDS, response::<m::DeleteRecordsResponse>),
    (api::OFFSET_FOR_LEADER_EPOCH, response::<m::OffsetForLeaderEpochResponse>),
    (api::WRITE_TXN_MARKERS, response::<m::WriteTxnMarkersResponse>),
    (api::TXN_OFFSET_COMMIT, response::<m::TxnOffsetCommitResponse>),
    (api::DESCRIBE_CONFIGS, response::<m::DescribeConfigsResponse>),
    (api::ALTER_CONFIGS, response::<m::AlterConfigsResponse>),
    (api::ALTER_REPLICA_LOG_DIRS, response::<m::AlterReplicaLogDirsResponse>),
    (api::CREATE_PARTITIONS, response::<m::CreatePartitionsResponse>),
    (api::ELECT_LEADERS, response::<m::ElectLeadersResponse>),
    (api::INCREMENTAL_ALTER_CONFIGS, response::<m::IncrementalAlterConfigsResponse>),
    (api::ALTER_PARTITION_REASSIGNMENTS, response::<m::AlterPartitionReassignmentsResponse>),
    (api::OFFSET_DELETE, response::<m::OffsetDeleteResponse>),
    (api::DESCRIBE_PRODUCERS, response::<m::DescribeProducersResponse>),
];

/// Decodes by the kafka-protocol crate, behind the guard.
pub fn guarded(frame: &Frame, _: &mut Random) -> Checked {
    let at = match body_at(frame) {
        Ok(at) => at,
        Err(error) => return Ok(wire(&error)),
    };
    let api = if frame.request {
        Head::parse(&frame.bytes).map_or(-1, |head| head.api)
    } else {
        frame.api
    };
    let known = if frame.request { GUARDED_REQUESTS } else { GUARDED_RESPONSES };
    let Some((_, decode)) = known.iter().find(|(key, _)| *key == api) else {
        return Ok(Verdict::Other);
    };
    let read = decode(frame, at);
    Ok(read.map_or_else(|error| wire(&error), |()| Verdict::Taken))
}

/// The answer to a Produce request that is refused.
pub fn replies(frame: &Frame, _: &mut Random) -> Checked {
    let Ok(head) = Head::parse(&frame.bytes) else { return Ok(Verdict::Other) };
    if !frame.request || head.api != api::PRODUCE {
        return Ok(Verdict::Other);
    }
    match reply::produce_error(head, &frame.bytes, 56) {
        Ok(answer) => {
            let at = header::response_body_at(api::PRODUCE, head.version, &answer);
            let at = at.map_err(|error| error.to_string())?;
            guard::response::<m::ProduceResponse>(api::PRODUCE, head.version, &answer, at)
                .map_err(|error| format!("a reply that cannot be read: {error}"))?;
            Ok(Verdict::Taken)
        }
        Err(error) => Ok(wire(&error)),
    }
}
