//! Frames of real clients and brokers (`tests/golden`) against our walkers and the
//! kafka-protocol crate.
//!
//! index.tsv -> frames -> (a) the crate decodes and encodes the same bytes, (b) our layouts walk
//! each frame to its last byte, (c) every batch of records keeps its CRC and its records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use protocol_ext::address::{Addresses, Rewrite};
use protocol_ext::api::{self, Answer};
use protocol_ext::batch::{Batches, Caps, Entry, OpenBatch, verify_crc};
use protocol_ext::codec::Codec;
use protocol_ext::header::{self, Head};
use protocol_ext::replace::{Replacement, RewriteOptions, Rewritten, replace_values};
use protocol_ext::scan::{Scan, Scanned};
use protocol_ext::schema::{Message, Role, requests, responses};
use protocol_ext::walk::{self, Check, Value, Visit};
use protocol_ext::{tail, versions};

const FRAME_BYTES_MAX: usize = 64 * 1024;
const UNSUPPORTED_VERSION: i16 = 35;
const CAPS: Caps = Caps { body_bytes_max: 1 << 20, rewritten_bytes_max: 1 << 20 };

/// One line of the index with its frame.
struct Frame {
    file: String,
    client: String,
    key: i16,
    /// Version of the layout: 0 for the answer to an ApiVersions request that is too new.
    version: i16,
    asked: i16,
    request: bool,
    correlation: i32,
    holds: BTreeSet<String>,
    bytes: Bytes,
}

impl Frame {
    fn body_at(&self) -> usize {
        if self.request {
            let head = Head::parse(&self.bytes).expect("a head");
            header::request_body_at(head, &self.bytes).expect("a request header")
        } else {
            header::response_body_at(self.key, self.version, &self.bytes).expect("a header")
        }
    }

    /// Our layout of it, if there is one that knows its version.
    fn layout(&self) -> Option<&'static Message> {
        let ours = if self.request { REQUESTS } else { RESPONSES };
        let known = |layout: &&&Message| (layout.min..=layout.max).contains(&self.version);
        ours.iter().find(|layout| layout.api == self.key).filter(known).copied()
    }

    fn holds(&self, word: &str) -> bool {
        self.holds.contains(word)
    }
}

const REQUESTS: &[&Message] =
    &[&requests::PRODUCE, &requests::FETCH, &requests::METADATA, &requests::LIST_OFFSETS];
const RESPONSES: &[&Message] = &[
    &responses::PRODUCE,
    &responses::FETCH,
    &responses::METADATA,
    &responses::LIST_OFFSETS,
    &responses::CREATE_TOPICS,
    &responses::FIND_COORDINATOR,
    &responses::DESCRIBE_CONFIGS,
    &responses::DESCRIBE_CLUSTER,
    &responses::SHARE_FETCH,
    &responses::SHARE_ACKNOWLEDGE,
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn frames() -> Vec<Frame> {
    let index = fs::read_to_string(root().join("index.tsv")).expect("an index");
    index.lines().skip(1).map(frame).collect()
}

fn frame(line: &str) -> Frame {
    let columns: Vec<&str> = line.split('\t').collect();
    let [file, client, _, _, key, version, direction, correlation, holds] = columns[..] else {
        panic!("nine columns in {line}");
    };
    let bytes = Bytes::from(fs::read(root().join(file)).expect("the file of an index line"));
    let key: i16 = key.parse().expect("an API key");
    let asked: i16 = version.parse().expect("a version");
    let request = direction == "request";
    let refused = key == api::API_VERSIONS && !request && error_code(&bytes) == UNSUPPORTED_VERSION;
    Frame {
        file: file.to_owned(),
        client: client.to_owned(),
        key,
        version: if refused { 0 } else { asked },
        asked,
        request,
        correlation: correlation.parse().expect("a correlation id"),
        holds: holds.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        bytes,
    }
}

fn error_code(api_versions: &[u8]) -> i16 {
    i16::from_be_bytes([api_versions[4], api_versions[5]])
}

#[test]
fn the_index_names_every_file_and_the_heads_of_the_frames_agree_with_it() {
    let frames = frames();
    let named: BTreeSet<PathBuf> = frames.iter().map(|frame| root().join(&frame.file)).collect();
    let clients: BTreeSet<&str> = frames.iter().map(|frame| frame.client.as_str()).collect();
    let on_disk: BTreeSet<PathBuf> = clients
        .iter()
        .flat_map(|client| fs::read_dir(root().join(client)).expect("a folder for the client"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(named, on_disk);
    for frame in &frames {
        assert!(frame.bytes.len() <= FRAME_BYTES_MAX, "{}", frame.file);
        let start = if frame.request { 4 } else { 0 };
        let head = frame.bytes[start..start + 4].try_into().expect("four bytes");
        assert_eq!(i32::from_be_bytes(head), frame.correlation, "{}", frame.file);
        if frame.request {
            let head = Head::parse(&frame.bytes).expect("a head");
            assert_eq!((head.api, head.version), (frame.key, frame.asked), "{}", frame.file);
        }
        assert!(api::get(frame.key).is_some(), "{}: an API we do not know", frame.file);
    }
}

#[test]
fn the_corpus_holds_what_the_other_tests_are_about() {
    let frames = frames();
    for client in ["java", "java-3.9", "librdkafka", "kcat", "franz-go"] {
        for codec in ["plain", "gzip", "snappy", "lz4", "zstd"] {
            let has = |key, request| {
                let mut of = frames.iter().filter(|f| f.client == client && f.key == key);
                of.any(|f| f.request == request && f.holds(codec))
            };
            assert!(has(api::PRODUCE, true), "{client} never sent {codec}");
            assert!(has(api::FETCH, false), "{client} never got {codec}");
        }
    }
    let fetched =
        ["transactional", "control", "append-time", "empty", "compacted", "magic1", "nearest"];
    for word in fetched {
        assert!(frames.iter().any(|f| f.key == api::FETCH && f.holds(word)), "no fetched {word}");
    }
    for (key, from) in [(api::PRODUCE, 10), (api::FETCH, 16), (SHARE_FETCH, 1)] {
        let seen: BTreeSet<i16> = frames
            .iter()
            .filter(|f| f.key == key && f.holds("endpoints"))
            .map(|f| f.version)
            .collect();
        let layout = RESPONSES.iter().find(|layout| layout.api == key).expect("a layout");
        assert_eq!(seen, (from..=layout.max).collect(), "endpoints of api {key}");
    }
}

const SHARE_FETCH: i16 = 78;

// ---- the kafka-protocol crate ---------------------------------------------------------------

/// What the crate made of a body.
enum Crate {
    /// It does not know the version.
    Unknown,
    /// Body length it read, and what it writes for it.
    Read(usize, Bytes),
}

type Codecs = (fn(&Frame) -> Crate, fn(&Frame) -> Crate);

fn of<R: Request>() -> (i16, Codecs) {
    (R::KEY, (through::<R>, through::<R::Response>))
}

fn through<T>(frame: &Frame) -> Crate
where
    T: Decodable + Encodable + HeaderVersion + kafka_protocol::protocol::Message,
{
    let version = frame.version;
    if version < T::VERSIONS.min || version > T::VERSIONS.max {
        return Crate::Unknown;
    }
    let flexible = T::header_version(version) == if frame.request { 2 } else { 1 };
    let tags = frame.key != api::API_VERSIONS || frame.request;
    let ours = api::is_flexible(frame.key, version) && tags;
    assert_eq!(ours, flexible, "{}: flexible or not", frame.file);
    let mut body = frame.bytes.slice(frame.body_at()..);
    let before = body.len();
    let message = T::decode(&mut body, version);
    let message = message.unwrap_or_else(|error| panic!("{}: {error}", frame.file));
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap_or_else(|error| panic!("{}: {error}", frame.file));
    Crate::Read(before - body.len(), out.freeze())
}

macro_rules! codecs {
    ($($request:ident)*) => { HashMap::from([$(of::<m::$request>()),*]) };
}

#[rustfmt::skip]
fn codecs() -> HashMap<i16, Codecs> {
    codecs! {
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
        OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
        LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
        SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
        DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
        AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest
        TxnOffsetCommitRequest DescribeAclsRequest CreateAclsRequest DeleteAclsRequest
        DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
        DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        CreateDelegationTokenRequest RenewDelegationTokenRequest ExpireDelegationTokenRequest
        DescribeDelegationTokenRequest DeleteGroupsRequest ElectLeadersRequest
        IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest
        AlterClientQuotasRequest DescribeUserScramCredentialsRequest
        AlterUserScramCredentialsRequest DescribeQuorumRequest UpdateFeaturesRequest
        DescribeClusterRequest DescribeProducersRequest UnregisterBrokerRequest
        DescribeTransactionsRequest ListTransactionsRequest ConsumerGroupHeartbeatRequest
        ConsumerGroupDescribeRequest GetTelemetrySubscriptionsRequest PushTelemetryRequest
        ListConfigResourcesRequest DescribeTopicPartitionsRequest ShareGroupHeartbeatRequest
        ShareGroupDescribeRequest ShareFetchRequest ShareAcknowledgeRequest AddRaftVoterRequest
        RemoveRaftVoterRequest DescribeShareGroupOffsetsRequest AlterShareGroupOffsetsRequest
        DeleteShareGroupOffsetsRequest
    }
}

#[test]
fn the_crate_reads_every_frame_it_knows_to_the_end_and_writes_the_same_bytes() {
    let codecs = codecs();
    let (mut same, mut unknown, mut odd) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for frame in frames() {
        let read = codecs.get(&frame.key).map(|of| if frame.request { of.0 } else { of.1 });
        let body = frame.bytes.slice(frame.body_at()..);
        match read.map_or(Crate::Unknown, |read| read(&frame)) {
            Crate::Unknown => {
                let name = format!("{} v{}", api::name(frame.key), frame.version);
                *unknown.entry(name).or_default() += 1;
            }
            Crate::Read(length, written) if length == body.len() && written == body => same += 1,
            Crate::Read(length, _) if length == body.len() => {
                odd.push(format!("{}: written otherwise", frame.file));
            }
            Crate::Read(length, _) => {
                odd.push(format!("{}: {} bytes left", frame.file, body.len() - length));
            }
        }
    }
    println!("same bytes through the crate: {same}; versions it does not know: {unknown:?}");
    assert_eq!(odd, ODD);
    assert!(same > 1000);
}

/// librdkafka ends this request with one empty tag section too many; brokers do not mind.
const ODD: &[&str] = &["librdkafka/AlterUserScramCredentials-v0-request.bin: 1 bytes left"];

// ---- our layouts ----------------------------------------------------------------------------

/// The addresses that a frame itself names.
#[derive(Default)]
struct Named {
    node: i32,
    host: Bytes,
    of: BTreeMap<i32, (Bytes, u16)>,
}

impl Named {
    fn in_frame(frame: &Frame, layout: &Message) -> Self {
        let mut named = Named::default();
        let mut see = |role: Role, value: Value<'_>| {
            match role {
                Role::Node => named.node = i32::try_from(value.int()).expect("a node id"),
                Role::Host => named.host = Bytes::copy_from_slice(value.bytes().unwrap_or(b"")),
                Role::Port => {
                    let port = u16::try_from(value.int()).unwrap_or(0);
                    named.of.insert(named.node, (named.host.clone(), port));
                }
                _ => {}
            }
            None
        };
        walk::walk(layout, frame.version, &frame.bytes, frame.body_at(), &mut see)
            .unwrap_or_else(|error| panic!("{}: {error}", frame.file));
        named.of.retain(|_, (host, _)| !host.is_empty());
        named
    }
}

impl Addresses for Named {
    fn of(&self, node: i32) -> (Bytes, u16) {
        self.of[&node].clone()
    }

    fn scrub(&self, _: &str) -> Option<String> {
        None
    }
}

/// One address for every broker.
struct Proxy;

impl Addresses for Proxy {
    fn of(&self, _: i32) -> (Bytes, u16) {
        (Bytes::from_static(b"proxy.example.org"), 9)
    }

    fn scrub(&self, text: &str) -> Option<String> {
        text.contains("127.0.0.").then(|| "scrubbed".to_owned())
    }
}

#[test]
fn our_layouts_walk_every_frame_to_its_last_byte() {
    let (mut walked, mut by_api) = (0, BTreeMap::<(i16, bool), BTreeSet<i16>>::new());
    for frame in frames() {
        let Some(layout) = frame.layout() else { continue };
        let edits = walk::walk(layout, frame.version, &frame.bytes, frame.body_at(), &mut Check)
            .unwrap_or_else(|error| panic!("{}: {error}", frame.file));
        assert_eq!(edits.apply(&frame.bytes).as_ptr(), frame.bytes.as_ptr(), "{}", frame.file);
        by_api.entry((frame.key, frame.request)).or_default().insert(frame.version);
        walked += 1;
    }
    println!("walked to the end: {walked}");
    for ((key, request), seen) in &by_api {
        let what = if *request { "request" } else { "response" };
        println!("  {} {what}: {seen:?}", api::name(*key));
    }
    assert_eq!(by_api.len(), REQUESTS.len() + RESPONSES.len(), "a layout without a frame");
}

#[test]
fn own_addresses_give_the_same_bytes_and_other_ones_leave_no_address_behind() {
    let mut rewritten = 0;
    for frame in frames().iter().filter(|frame| !frame.request) {
        let (Some(layout), Some(of)) = (frame.layout(), api::get(frame.key)) else { continue };
        if !matches!(of.answer, Answer::Patch(_) | Answer::Tail(_)) {
            continue;
        }
        let named = Named::in_frame(frame, layout);
        let mut same = Rewrite::new(&named);
        let mut own = |role: Role, value: Value<'_>| match role {
            Role::ConfigValue => None,
            _ => same.field(role, value),
        };
        let own = rewritten_by(&mut own, frame, layout);
        assert_eq!(own, frame.bytes, "{}: own addresses", frame.file);
        let moved = rewritten_by(&mut Rewrite::new(&Proxy), frame, layout);
        assert!(!contains(&moved, b"127.0.0."), "{}: an address stays", frame.file);
        rewritten += usize::from(moved != frame.bytes);
    }
    println!("frames with addresses rewritten: {rewritten}");
    assert!(rewritten > 50);
}

fn rewritten_by(visit: &mut impl Visit, frame: &Frame, layout: &Message) -> Bytes {
    let edits = walk::walk(layout, frame.version, &frame.bytes, frame.body_at(), visit);
    edits.unwrap_or_else(|error| panic!("{}: {error}", frame.file)).apply(&frame.bytes)
}

#[test]
fn the_tail_is_found_in_pieces_of_any_size_and_rewritten_in_its_place() {
    let (mut tails, mut endpoints) = (0, 0);
    for frame in frames().iter().filter(|frame| !frame.request) {
        let Some(Answer::Tail(layout)) = api::get(frame.key).map(|api| api.answer) else {
            continue;
        };
        let whole = tail_at(frame, layout, frame.bytes.len());
        for piece in [1, 7, 4096] {
            assert_eq!(tail_at(frame, layout, piece), whole, "{}: pieces of {piece}", frame.file);
        }
        let end = frame.bytes.slice(whole..);
        let flexible = frame.version >= layout.flexible;
        let same = tail::same_length(layout, frame.version, &end, &Proxy);
        let same = if flexible { same.expect("a tail") } else { end.clone() };
        assert_eq!(same.len(), end.len(), "{}", frame.file);
        let joined = [&frame.bytes[..whole], &same[..]].concat();
        let at = frame.body_at();
        walk::walk(layout, frame.version, &joined, at, &mut Check).expect("still readable");
        assert!(!contains(&joined, b"127.0.0."), "{}: an address stays", frame.file);
        if !frame.holds("endpoints") {
            assert_eq!(joined, frame.bytes, "{}: changed without need", frame.file);
        }
        tails += 1;
        endpoints += usize::from(frame.holds("endpoints"));
    }
    println!("tails: {tails}, with endpoints: {endpoints}");
    assert!(endpoints > 0 && tails > endpoints);
}

/// Offset of the tail, found by feeding at most `piece` new bytes at a time.
fn tail_at(frame: &Frame, layout: &Message, piece: usize) -> usize {
    let mut scan = Scan::new(layout, frame.version, frame.bytes.len()).expect("a known version");
    let (mut passed, mut end) = (0, 0);
    loop {
        end = (end + piece).min(frame.bytes.len());
        match scan.feed(&frame.bytes[passed..end]).expect("a sound frame") {
            Scanned::More(bytes) => passed += bytes,
            Scanned::Tail(bytes) => return passed + bytes,
        }
    }
}

#[test]
fn limiting_versions_to_what_the_broker_has_changes_nothing() {
    let mut answers = 0;
    for frame in frames().iter().filter(|f| !f.request && f.key == api::API_VERSIONS) {
        let limited = versions::limit(&frame.bytes, frame.asked, |_, min, max| Some((min, max)));
        assert_eq!(limited.expect("an answer"), frame.bytes, "{}", frame.file);
        answers += 1;
    }
    assert!(answers > 0);
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|part| part == what)
}

// ---- records --------------------------------------------------------------------------------

/// Records fields of a frame.
fn sections(frame: &Frame) -> Vec<Bytes> {
    let carries = match frame.key {
        api::PRODUCE => frame.request,
        api::FETCH | SHARE_FETCH => !frame.request,
        _ => false,
    };
    let Some(layout) = frame.layout().filter(|_| carries) else {
        return Vec::new();
    };
    let mut sections = Vec::new();
    let mut see = |role: Role, value: Value<'_>| {
        if let (Role::Records, Value::Bytes(Some(records), at)) = (role, value) {
            sections.push(frame.bytes.slice(at..at + records.len()));
        }
        None
    };
    walk::walk(layout, frame.version, &frame.bytes, frame.body_at(), &mut see).expect("sound");
    sections
}

/// A record in full, owned.
#[derive(Debug, PartialEq)]
struct Record(i8, i64, i32, Option<Bytes>, Option<Bytes>, Bytes);

fn records(batch: &OpenBatch, file: &str) -> Vec<Record> {
    let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let read = batch.records().map(|record| {
        let r = record.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(r.headers().all(|header| header.is_ok()), "{file}: headers");
        let raw = Bytes::copy_from_slice(r.headers_raw);
        let (key, value) = (owned(r.key), owned(r.value));
        Record(r.attributes, r.timestamp_delta, r.offset_delta, key, value, raw)
    });
    read.collect()
}

#[test]
fn every_batch_keeps_its_crc_its_bytes_and_its_records() {
    let mut count = BTreeMap::<String, usize>::new();
    for frame in frames() {
        for section in sections(&frame) {
            for entry in Batches::new(&section) {
                match entry.unwrap_or_else(|error| panic!("{}: {error}", frame.file)) {
                    Entry::Batch { range, .. } => {
                        let kind = one_batch(&section.slice(range), &frame.file);
                        *count.entry(kind).or_default() += 1;
                    }
                    Entry::Legacy { .. } => *count.entry("legacy".to_owned()).or_default() += 1,
                    Entry::Partial { .. } => {
                        assert!(!frame.request, "{}: a cut batch from a producer", frame.file);
                        *count.entry("cut".to_owned()).or_default() += 1;
                    }
                }
            }
        }
    }
    println!("batches: {count:?}");
    for kind in ["None", "Gzip", "Snappy", "Lz4", "Zstd", "control", "empty", "legacy"] {
        assert!(count.contains_key(kind), "no {kind} among {count:?}");
    }
}

/// CRC, identity and round trips of one batch; tells its kind.
fn one_batch(batch: &Bytes, file: &str) -> String {
    verify_crc(batch).unwrap_or_else(|error| panic!("{file}: {error}"));
    let open = OpenBatch::open(batch.clone(), &CAPS).unwrap_or_else(|e| panic!("{file}: {e}"));
    let before = records(&open, file);
    let keep = RewriteOptions::default();
    let none = replace_values(batch, &CAPS, &keep, |_| None::<Bytes>).expect("nothing to do");
    assert!(matches!(&none, Rewritten::Same(same) if same.as_ptr() == batch.as_ptr()), "{file}");
    let values: Vec<Replacement<Bytes>> = open
        .records()
        .map(|record| record.expect("read before"))
        .filter_map(|r| r.value.map(|v| (r.at, Bytes::copy_from_slice(v))))
        .map(|(at, value)| Replacement::of(at, value))
        .collect();
    for codec in [None, Some(Codec::None), Some(Codec::Zstd), Some(Codec::Snappy)] {
        if values.is_empty() || open.header().is_control() {
            break;
        }
        let options = RewriteOptions { codec };
        let new = open.rewrite(&values, &options, &CAPS).expect("the same values").into_bytes();
        let mut again = OpenBatch::open(new, &CAPS).expect("a batch");
        again.check_crc().expect("a true CRC");
        assert_eq!(records(&again, file), before, "{file}");
        let (old, new) = (open.header(), again.header());
        assert_eq!(old.attributes & !7, new.attributes & !7, "{file}");
        assert_eq!(old.last_offset_delta, new.last_offset_delta, "{file}");
        assert_eq!(old.max_timestamp, new.max_timestamp, "{file}");
        if codec.unwrap_or(open.codec()) == Codec::None && open.codec() == Codec::None {
            assert_eq!(again.raw(), batch, "{file}: the same values, other bytes");
        }
    }
    match open.header() {
        header if header.is_control() => "control".to_owned(),
        header if header.records_count == 0 => "empty".to_owned(),
        _ => format!("{:?}", open.codec()),
    }
}
