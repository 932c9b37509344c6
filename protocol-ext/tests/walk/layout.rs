//! Layouts say what Kafka says; a walk shows what was written, changes what it is told, and is the
//! guard against lengths that lie.

use bytes::Bytes;
use kafka_protocol::messages as codec;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;
use protocol_ext::schema::{Message, Role, requests, responses};
use protocol_ext::walk::{Check, Replace, Value, walk, walk_until};

use super::tree::{Body, Sample, Tree, any_sample, sample, sample_of};

/// The codec crate reads the bytes of a layout to the end and writes the same ones.
fn agrees<T: Decodable + Encodable>(sample: &Sample) -> Result<(), TestCaseError> {
    let bytes = Bytes::from(sample.bytes());
    let mut left = bytes.clone();
    let decoded = T::decode(&mut left, sample.version);
    let decoded = decoded.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert!(left.is_empty(), "{} bytes left", left.len());
    let mut again = Vec::new();
    let encoded = decoded.encode(&mut again, sample.version);
    encoded.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&bytes[..], &again[..]);
    Ok(())
}

macro_rules! layout_agrees {
    ($($test:ident: $layout:path, $codec:ty;)*) => {
        proptest! {
            #![proptest_config(super::config())]

            $(#[test]
            fn $test(sample in both::<$codec>(&$layout)) {
                agrees::<$codec>(&sample)?;
            })*
        }
    };
}

/// Messages of the versions that both the layout and the crate know.
fn both<T: kafka_protocol::protocol::Message>(
    layout: &'static Message,
) -> impl Strategy<Value = Sample> {
    sample_of(layout, layout.min.max(T::VERSIONS.min), layout.max.min(T::VERSIONS.max))
}

layout_agrees! {
    produce_requests_agree: requests::PRODUCE, codec::ProduceRequest;
    fetch_requests_agree: requests::FETCH, codec::FetchRequest;
    metadata_requests_agree: requests::METADATA, codec::MetadataRequest;
    list_offsets_requests_agree: requests::LIST_OFFSETS, codec::ListOffsetsRequest;
    add_partitions_requests_agree:
        requests::ADD_PARTITIONS_TO_TXN, codec::AddPartitionsToTxnRequest;
    txn_offset_commit_requests_agree: requests::TXN_OFFSET_COMMIT, codec::TxnOffsetCommitRequest;
    produce_responses_agree: responses::PRODUCE, codec::ProduceResponse;
    fetch_responses_agree: responses::FETCH, codec::FetchResponse;
    metadata_responses_agree: responses::METADATA, codec::MetadataResponse;
    list_offsets_responses_agree: responses::LIST_OFFSETS, codec::ListOffsetsResponse;
    describe_producers_responses_agree:
        responses::DESCRIBE_PRODUCERS, codec::DescribeProducersResponse;
    create_topics_responses_agree: responses::CREATE_TOPICS, codec::CreateTopicsResponse;
    find_coordinator_responses_agree: responses::FIND_COORDINATOR, codec::FindCoordinatorResponse;
    init_producer_id_responses_agree: responses::INIT_PRODUCER_ID, codec::InitProducerIdResponse;
    add_partitions_responses_agree:
        responses::ADD_PARTITIONS_TO_TXN, codec::AddPartitionsToTxnResponse;
    end_txn_responses_agree: responses::END_TXN, codec::EndTxnResponse;
    describe_configs_responses_agree: responses::DESCRIBE_CONFIGS, codec::DescribeConfigsResponse;
    describe_cluster_responses_agree: responses::DESCRIBE_CLUSTER, codec::DescribeClusterResponse;
    describe_quorum_responses_agree: responses::DESCRIBE_QUORUM, codec::DescribeQuorumResponse;
    share_fetch_responses_agree: responses::SHARE_FETCH, codec::ShareFetchResponse;
    share_acknowledge_responses_agree:
        responses::SHARE_ACKNOWLEDGE, codec::ShareAcknowledgeResponse;
}

#[test]
fn layouts_reach_at_least_as_far_as_the_codec_crate() {
    fn check<T: kafka_protocol::protocol::Message>(layout: &Message) {
        let (max, known) = (layout.max, T::VERSIONS.max);
        assert!(max >= known, "api {} ends at {max}, the crate at {known}", layout.api);
    }
    check::<codec::ProduceResponse>(&responses::PRODUCE);
    check::<codec::FetchResponse>(&responses::FETCH);
    check::<codec::MetadataResponse>(&responses::METADATA);
    check::<codec::ListOffsetsResponse>(&responses::LIST_OFFSETS);
    check::<codec::FindCoordinatorResponse>(&responses::FIND_COORDINATOR);
    check::<codec::DescribeConfigsResponse>(&responses::DESCRIBE_CONFIGS);
    check::<codec::DescribeClusterResponse>(&responses::DESCRIBE_CLUSTER);
    check::<codec::DescribeQuorumResponse>(&responses::DESCRIBE_QUORUM);
    check::<codec::ShareFetchResponse>(&responses::SHARE_FETCH);
    check::<codec::ShareAcknowledgeResponse>(&responses::SHARE_ACKNOWLEDGE);
    check::<codec::ProduceRequest>(&requests::PRODUCE);
    check::<codec::FetchRequest>(&requests::FETCH);
    check::<codec::MetadataRequest>(&requests::METADATA);
    check::<codec::ListOffsetsRequest>(&requests::LIST_OFFSETS);
    check::<codec::AddPartitionsToTxnRequest>(&requests::ADD_PARTITIONS_TO_TXN);
    check::<codec::TxnOffsetCommitRequest>(&requests::TXN_OFFSET_COMMIT);
}

/// A marked field as a visitor sees it, without positions.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Int(i64),
    Uuid(Vec<u8>),
    Bytes(Option<Vec<u8>>),
}

fn seen(value: Value<'_>) -> Seen {
    match value {
        Value::Int(n) => Seen::Int(n),
        Value::Uuid(id) => Seen::Uuid(id.to_vec()),
        Value::Bytes(bytes, _) => Seen::Bytes(bytes.map(<[u8]>::to_vec)),
    }
}

fn written(body: &Body) -> Vec<(Role, Seen)> {
    let mut out = Vec::new();
    body.each(&mut |_, role, tree| match tree {
        _ if role == Role::None => {}
        Tree::Fixed(bytes) if bytes.len() == 16 => out.push((role, Seen::Uuid(bytes.clone()))),
        Tree::Fixed(bytes) => {
            let negative = bytes[0] & 0x80 != 0;
            let start = if negative { -1 } else { 0 };
            let n = bytes.iter().fold(start, |n: i64, byte| n << 8 | i64::from(*byte));
            out.push((role, Seen::Int(n)));
        }
        Tree::Content { bytes, .. } => out.push((role, Seen::Bytes(bytes.clone()))),
        // Only messages of the flexible format have a marked array.
        Tree::Array(_) => {
            let mut raw = Vec::new();
            tree.write(true, &mut raw);
            out.push((role, Seen::Bytes(Some(raw))));
        }
        Tree::Integers { .. } | Tree::Struct(_) => {}
    });
    out
}

/// What a visitor that changes everything puts in a field's place.
fn other(role: Role, n: i64) -> Replace {
    match role {
        Role::Node
        | Role::Port
        | Role::ResourceType
        | Role::Partition
        | Role::ErrorCode
        | Role::Acks
        | Role::SessionId
        | Role::Replica
        | Role::PartitionBytes
        | Role::AbortedProducer
        | Role::AbortedFrom => Replace::Int(n % 100),
        _ if n % 7 == 0 => Replace::Bytes(None),
        _ => Replace::Bytes(Some("x".repeat(usize::try_from(n * 13 % 400).unwrap_or(0)).into())),
    }
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn a_walk_shows_every_marked_field_in_wire_order_and_copies_nothing(sample in any_sample()) {
        let (frame, at) = sample.response_frame();
        let frame = Bytes::from(frame);
        let mut fields = Vec::new();
        let mut look = |role, value: Value<'_>| {
            if let Value::Bytes(Some(bytes), from) = value {
                assert_eq!(&frame[from..from + bytes.len()], bytes);
            }
            fields.push((role, seen(value)));
            None
        };
        let edits = walk(sample.message, sample.version, &frame, at, &mut look);
        let edits = edits.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(fields, written(&sample.body));
        prop_assert!(edits.is_empty());
        prop_assert_eq!(edits.apply(&frame).as_ptr(), frame.as_ptr());
    }

    #[test]
    fn edits_change_the_named_fields_and_nothing_else(
        sample in any_sample(),
        chosen in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        let frame = Bytes::from(sample.bytes());
        let (mut n, mut expected) = (0, sample.clone());
        let mut count = 0;
        let mut set = |role, value: Value<'_>| {
            n += 1;
            let wanted = chosen[usize::try_from(n).unwrap_or(0) % chosen.len()];
            let kept = matches!(value, Value::Uuid(_)) || role == Role::Acquired;
            count += usize::from(wanted && !kept);
            (wanted && !kept).then(|| other(role, n))
        };
        let edits = walk(sample.message, sample.version, &frame, 0, &mut set);
        let edits = edits.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut m = 0;
        expected.body.change(&mut |role, tree| {
            m += 1;
            if !chosen[usize::try_from(m).unwrap_or(0) % chosen.len()] {
                return;
            }
            match (tree, other(role, m)) {
                (Tree::Fixed(bytes), Replace::Int(n)) => {
                    let from = 8 - bytes.len();
                    bytes.copy_from_slice(&n.to_be_bytes()[from..]);
                }
                (Tree::Content { bytes, .. }, Replace::Bytes(new)) => {
                    *bytes = new.map(|new| new.to_vec());
                }
                _ => {}
            }
        });
        let expected = expected.bytes();
        prop_assert_eq!(edits.len_after(frame.len()), expected.len());
        prop_assert_eq!(&edits.apply(&frame)[..], &expected[..], "{} edits", count);
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_an_error_and_so_are_bytes_behind_an_answer(
        sample in any_sample(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = sample.bytes();
        let n = cut.index(frame.len());
        prop_assert!(walk(sample.message, sample.version, &frame[..n], 0, &mut Check).is_err());
        frame.push(0);
        let longer = walk(sample.message, sample.version, &frame, 0, &mut Check);
        prop_assert_eq!(longer.is_ok(), sample.message.request);
    }

    #[test]
    fn damaged_bytes_never_panic_and_what_passes_has_lengths_that_fit(
        sample in any_sample(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut frame = sample.bytes();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let frame = Bytes::from(frame);
        let mut erase = |role: Role, value: Value<'_>| match value {
            // In the place of an array only an array is one.
            Value::Bytes(..) if role == Role::Acquired => None,
            Value::Bytes(..) => Some(Replace::Bytes(Some(Bytes::from_static(b"y")))),
            Value::Int(_) | Value::Uuid(_) => None,
        };
        if let Ok(edits) = walk(sample.message, sample.version, &frame, 0, &mut erase) {
            let len = edits.len_after(frame.len());
            let edited = edits.apply(&frame);
            prop_assert_eq!(edited.len(), len);
            let again = walk(sample.message, sample.version, &edited, 0, &mut Check);
            prop_assert!(again.is_ok(), "{:?}", again);
        }
    }

    #[test]
    fn any_bytes_at_all_never_panic(
        layout in 0..super::tree::LAYOUTS.len(),
        version in -2_i16..25,
        frame in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..300,
    ) {
        // Only a panic would be a failure.
        let _ = walk(super::tree::LAYOUTS[layout], version, &frame, at, &mut Check);
    }

    #[test]
    fn brokers_alone_are_all_that_holds_addresses_in_metadata(
        sample in sample(&responses::METADATA),
    ) {
        let frame = Bytes::from(sample.bytes());
        let mut set = |role, value: Value<'_>| match (role, value) {
            (Role::Host, _) => Some(Replace::Bytes(Some(Bytes::from_static(b"proxy")))),
            (Role::Port, _) => Some(Replace::Int(1)),
            _ => None,
        };
        let whole = walk(sample.message, sample.version, &frame, 0, &mut set);
        let front = walk_until(sample.message, sample.version, &frame, 0, "Brokers", &mut set);
        let apply = |edits: Result<protocol_ext::walk::Edits, _>| edits.map(|e| e.apply(&frame));
        prop_assert_eq!(apply(whole), apply(front));
    }
}
