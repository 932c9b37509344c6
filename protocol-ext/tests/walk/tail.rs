//! The tail of a streamed answer is found however the stream is cut, and rewritten exactly or in
//! the same number of bytes.

use bytes::Bytes;
use kafka_protocol::messages as codec;
use kafka_protocol::protocol::Decodable;
use proptest::prelude::*;
use protocol_ext::address::Addresses;
use protocol_ext::scan::{ENDPOINTS, Scan, Scanned, is_plain_produced};
use protocol_ext::schema::{Message, responses};
use protocol_ext::tail;

use super::address::{Told, told};
use super::tree::{Body, Sample, Tree, sample, sample_of};

const MESSAGES: [&Message; 4] = [
    &responses::PRODUCE,
    &responses::FETCH,
    &responses::SHARE_FETCH,
    &responses::SHARE_ACKNOWLEDGE,
];

fn tailed() -> impl Strategy<Value = Sample> {
    (0..MESSAGES.len()).prop_flat_map(|n| sample(MESSAGES[n]))
}

/// Where the tail of a frame starts, by the writer: behind all fields before the endpoints.
fn tail_at(sample: &Sample) -> usize {
    let endpoints = sample.body.fields.iter().position(|(name, ..)| *name == ENDPOINTS);
    let before = endpoints.unwrap_or(sample.body.fields.len());
    let front = Body { fields: sample.body.fields[..before].to_vec(), ..Body::default() };
    let mut out = Vec::new();
    front.write(false, &mut Vec::new());
    front.write(sample.is_flexible(), &mut out);
    // The writer puts an empty section of tags behind the fields of a flexible structure.
    let tags = usize::from(sample.is_flexible());
    let header = 4 + tags;
    header + out.len() - tags
}

/// Feeds a frame in pieces of these sizes, in turn, as a connection does: what was not taken comes
/// again in front of the next piece.
fn scanned(
    scan: &mut Scan,
    frame: &[u8],
    sizes: &[usize],
) -> Result<Option<usize>, protocol_ext::wire::WireError> {
    let (mut passed, mut held) = (0, 0);
    for size in sizes.iter().cycle() {
        let end = frame.len().min(passed + held + size);
        match scan.feed(&frame[passed..end])? {
            Scanned::Tail(n) => return Ok(Some(passed + n)),
            Scanned::More(n) => passed += n,
        }
        held = end - passed;
        assert!(held <= 12, "{held} bytes are kept: more than a small value");
        if end == frame.len() {
            return Ok(None);
        }
    }
    Ok(None)
}

fn endpoints_of(body: &Body) -> Option<&Tree> {
    let fields = body.fields.iter().map(|(name, _, tree)| (*name, tree));
    let tags = body.tags.iter().map(|(_, name, _, tree)| (*name, tree));
    fields.chain(tags).find(|(name, _)| *name == ENDPOINTS).map(|(_, tree)| tree)
}

/// A Produce response of these topics with so many partitions each, with nothing else in it.
fn plain(version: i16, topics: &[usize]) -> Vec<u8> {
    let one = |n: usize| u8::try_from(n + 1).expect("a count of one byte");
    let mut frame = vec![0, 0, 0, 7, 0, one(topics.len())];
    for partitions in topics {
        match version {
            13 => frame.extend([0xab; 16]),
            _ => frame.extend(b"\x05test"),
        }
        frame.push(one(*partitions));
        for partition in 0..*partitions {
            frame.extend([0, 0, 0, one(partition)]);
            frame.extend([0xff; 26]);
            frame.extend([1, 0, 0]);
        }
        frame.push(0);
    }
    frame.extend([0, 0, 0, 9, 0]);
    frame
}

#[test]
fn a_plain_produce_response_is_known_by_its_form() {
    for (version, topics) in [(9, vec![1]), (12, vec![1]), (13, vec![1]), (13, vec![3, 0, 120])] {
        let frame = plain(version, &topics);
        assert_eq!(is_plain_produced(version, &frame), Ok(true), "{version} {topics:?}");
        let mut scan = Scan::new(&responses::PRODUCE, version, frame.len()).expect("a version");
        assert_eq!(scan.feed(&frame), Ok(Scanned::Tail(frame.len() - 1)));
        assert_ne!(is_plain_produced(version, &frame[..frame.len() - 1]), Ok(true));
        let behind = [&frame[..], &[0]].concat();
        assert_eq!(is_plain_produced(version, &behind), Ok(false));
    }
    assert_eq!(is_plain_produced(8, &plain(8, &[1])), Ok(false));
    assert_eq!(is_plain_produced(14, &plain(14, &[1])), Ok(false));
}

#[test]
fn a_tag_or_a_count_that_lies_makes_a_produce_response_other_than_plain() {
    for version in 10..=13 {
        let frame = plain(version, &[1]);
        let end = frame.len();
        let with = |at: usize, bytes: &[u8]| [&frame[..at], bytes, &frame[at + 1..]].concat();
        // An unknown tag of one byte: of the header, the partition, its topic, the answer.
        for at in [4, end - 7, end - 6, end - 1] {
            let tagged = with(at, &[1, 9, 1, 0]);
            assert_eq!(is_plain_produced(version, &tagged), Ok(false), "{version}, byte {at}");
        }
        // Of topics, of partitions.
        for at in [5, end - 40] {
            let many = with(at, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
            assert!(is_plain_produced(version, &many).is_err(), "{version}, count at {at}");
        }
        let overlong = with(end - 1, &[0x80, 0]);
        assert_eq!(is_plain_produced(version, &overlong), Ok(false), "{version}");
    }
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn what_is_plain_by_its_form_has_no_tail(
        version in 9_i16..=13,
        topics in proptest::collection::vec(0_usize..4, 0..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 0..3),
    ) {
        let mut frame = plain(version, &topics);
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let mut scan = Scan::new(&responses::PRODUCE, version, frame.len())
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let tail = scan.feed(&frame);
        if is_plain_produced(version, &frame) == Ok(true) {
            prop_assert_eq!(tail, Ok(Scanned::Tail(frame.len() - 1)));
            prop_assert_eq!(frame.last(), Some(&0));
        }
    }

    #[test]
    fn a_produce_response_with_a_tail_is_not_plain(sample in sample(&responses::PRODUCE)) {
        let (frame, _) = sample.response_frame();
        if frame.len() > tail_at(&sample) + 1 {
            prop_assert_ne!(is_plain_produced(sample.version, &frame), Ok(true));
        }
    }

    #[test]
    fn the_tail_is_found_however_the_stream_is_cut(
        sample in tailed(),
        sizes in proptest::collection::vec(1_usize..40, 1..20),
    ) {
        let (frame, _) = sample.response_frame();
        let mut scan = Scan::new(sample.message, sample.version, frame.len())
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let found = scanned(&mut scan, &frame, &sizes)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(found, Some(tail_at(&sample)));
        prop_assert_eq!(scan.left(), frame.len() - tail_at(&sample));
    }

    #[test]
    fn bytes_of_the_next_frame_are_never_taken(sample in tailed(), more in 0_usize..60) {
        let (mut frame, _) = sample.response_frame();
        let len = frame.len();
        frame.resize(len + more, 0xa5);
        let mut scan = Scan::new(sample.message, sample.version, len)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(scan.feed(&frame), Ok(Scanned::Tail(tail_at(&sample))));
    }

    #[test]
    fn a_frame_that_ends_before_its_tail_is_an_error(
        sample in tailed(),
        cut in any::<prop::sample::Index>(),
        sizes in proptest::collection::vec(1_usize..60, 1..20),
    ) {
        let (frame, _) = sample.response_frame();
        let len = cut.index(tail_at(&sample));
        let mut scan = Scan::new(sample.message, sample.version, len)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(scanned(&mut scan, &frame[..len], &sizes).is_err());
    }

    #[test]
    fn damaged_frames_never_panic_and_never_pass_their_end(
        sample in tailed(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        sizes in proptest::collection::vec(1_usize..60, 1..20),
    ) {
        let (mut frame, _) = sample.response_frame();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let mut scan = Scan::new(sample.message, sample.version, frame.len())
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        if let Ok(found) = scanned(&mut scan, &frame, &sizes) {
            prop_assert!(found.is_some_and(|at| at <= frame.len()), "no end and no error");
            let old = Bytes::from(frame).slice(found.unwrap_or(0)..);
            let told = Told { host: "proxy".to_owned() };
            if let Ok(new) = tail::same_length(sample.message, sample.version, &old, &told) {
                prop_assert_eq!(new.len(), old.len());
            }
        }
    }

    #[test]
    fn an_exact_tail_is_the_end_of_the_rewritten_message(sample in tailed(), told in told()) {
        let (frame, at) = sample.response_frame();
        let frame = Bytes::from(frame);
        let from = tail_at(&sample);
        let new = tail::exact(sample.message, sample.version, &frame.slice(from..), &told)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut rewrite = protocol_ext::address::Rewrite::new(&told);
        let whole = protocol_ext::walk::walk(
            sample.message, sample.version, &frame, at, &mut rewrite,
        );
        let whole = whole.map_err(|error| TestCaseError::fail(error.to_string()))?.apply(&frame);
        prop_assert!(whole.ends_with(&new));
    }

    #[test]
    fn a_tail_of_the_same_length_tells_all_endpoints_or_none_and_keeps_other_tags(
        sample in same_length_sample(),
        told in told(),
    ) {
        let (frame, _) = sample.response_frame();
        let frame = Bytes::from(frame);
        let from = tail_at(&sample);
        let old = frame.slice(from..);
        let Ok(new) = tail::same_length(sample.message, sample.version, &old, &told) else {
            // The one case without an answer: nothing can be cut, and not even a filler fits.
            prop_assert!(old.len() < 16, "{} bytes were not enough", old.len());
            return Ok(());
        };
        prop_assert_eq!(new.len(), old.len());
        prop_assert!(!new.windows(8).any(|part| part == b"upstream"));
        let mut whole = frame[..from].to_vec();
        whole.extend_from_slice(&new);
        let whole = Bytes::from(whole).slice(4 + usize::from(sample.is_flexible())..);
        let (told_endpoints, unknown) = decoded(&sample, whole)?;
        let expected = expected_endpoints(&sample, &told);
        prop_assert!(
            told_endpoints == expected || told_endpoints.is_empty(),
            "{:?} is neither nothing nor {:?}", told_endpoints, expected
        );
        for (tag, content) in &sample.body.unknown {
            let kept = unknown.get(&i32::try_from(*tag).expect("small"));
            prop_assert_eq!(kept.map(|kept| kept.to_vec()), Some(content.clone()));
        }
    }
}

/// Samples of versions that the codec crate knows and that have a section of tags.
fn same_length_sample() -> impl Strategy<Value = Sample> {
    prop_oneof![
        sample_of(&responses::PRODUCE, 10, 13),
        sample_of(&responses::FETCH, 16, 18),
        sample_of(&responses::SHARE_FETCH, 1, 1),
        sample_of(&responses::SHARE_ACKNOWLEDGE, 1, 1),
    ]
}

type Endpoints = Vec<(i32, String, i32)>;
type Unknown = std::collections::BTreeMap<i32, Bytes>;

fn decoded(sample: &Sample, body: Bytes) -> Result<(Endpoints, Unknown), TestCaseError> {
    macro_rules! with {
        ($codec:ty) => {{
            let mut body = body;
            let answer = <$codec>::decode(&mut body, sample.version);
            let answer = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(body.is_empty());
            let endpoints = answer.node_endpoints.iter();
            let endpoints = endpoints.map(|e| (e.node_id.0, e.host.to_string(), e.port));
            Ok((endpoints.collect(), answer.unknown_tagged_fields))
        }};
    }
    match sample.message.api {
        0 => with!(codec::ProduceResponse),
        1 => with!(codec::FetchResponse),
        78 => with!(codec::ShareFetchResponse),
        _ => with!(codec::ShareAcknowledgeResponse),
    }
}

fn expected_endpoints(sample: &Sample, told: &Told) -> Endpoints {
    let Some(Tree::Array(Some(endpoints))) = endpoints_of(&sample.body) else { return Vec::new() };
    let endpoint = |body: &Body| {
        let [(_, _, Tree::Fixed(node)), (_, _, Tree::Content { bytes, .. }), (_, _, port), ..] =
            &body.fields[..]
        else {
            panic!("an endpoint is node, host, port, rack");
        };
        let node = i32::from(node[3]);
        match bytes {
            Some(host) if !host.is_empty() => (node, told.host.clone(), i32::from(told.of(node).1)),
            _ => {
                let Tree::Fixed(port) = port else { panic!("a port is a number") };
                (node, String::new(), i32::from(port[2]) << 8 | i32::from(port[3]))
            }
        }
    };
    endpoints.iter().map(endpoint).collect()
}
