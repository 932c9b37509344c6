//! A few hostile bytes never make anyone reserve memory: the guard stands before the codec crate,
//! which reserves for a count before it reads the items.
//!
//! One test in a process of its own, since it counts every allocation.

use std::alloc::System;

use bytes::Bytes;
use kafka_protocol::messages as codec;
use kafka_protocol::protocol::Decodable;
use protocol_ext::schema::Message;
use protocol_ext::schema::{requests, responses};
use protocol_ext::{guard, scan, tail, walk};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Most that a frame of a few bytes may cost.
const BYTES_MAX: usize = 64 * 1024;

struct Nobody;

impl protocol_ext::address::Addresses for Nobody {
    fn of(&self, _: i32) -> (Bytes, u16) {
        (Bytes::from_static(b"proxy"), 1)
    }

    fn scrub(&self, _: &str) -> Option<String> {
        None
    }
}

/// Bodies whose first counts say that billions follow, at every position where a count may stand.
fn hostile() -> Vec<Bytes> {
    let mut bodies = Vec::new();
    for zeros in 0..48 {
        for count in [
            &[0x7f, 0xff, 0xff, 0xff][..],
            &[0x07, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0x7f, 0xff],
        ] {
            let mut body = vec![0; zeros];
            body.extend_from_slice(count);
            body.extend_from_slice(&[0, 0, 0, 1]);
            bodies.push(body.into());
        }
    }
    bodies
}

fn decode_all(key: i16, version: i16, body: &Bytes) {
    macro_rules! responses {
        ($($key:literal => $codec:ty),*) => {
            match key {
                $($key => drop(guard::response::<$codec>(key, version, body, 0)),)*
                _ => {}
            }
        };
    }
    macro_rules! requests {
        ($($key:literal => $codec:ty),*) => {
            match key {
                $($key => drop(guard::request::<$codec>(key, version, body, 0)),)*
                _ => {}
            }
        };
    }
    responses!(
        0 => codec::ProduceResponse,
        1 => codec::FetchResponse,
        2 => codec::ListOffsetsResponse,
        3 => codec::MetadataResponse,
        8 => codec::OffsetCommitResponse,
        18 => codec::ApiVersionsResponse,
        19 => codec::CreateTopicsResponse,
        20 => codec::DeleteTopicsResponse,
        21 => codec::DeleteRecordsResponse,
        23 => codec::OffsetForLeaderEpochResponse,
        27 => codec::WriteTxnMarkersResponse,
        28 => codec::TxnOffsetCommitResponse,
        32 => codec::DescribeConfigsResponse,
        33 => codec::AlterConfigsResponse,
        34 => codec::AlterReplicaLogDirsResponse,
        37 => codec::CreatePartitionsResponse,
        43 => codec::ElectLeadersResponse,
        44 => codec::IncrementalAlterConfigsResponse,
        45 => codec::AlterPartitionReassignmentsResponse,
        47 => codec::OffsetDeleteResponse,
        61 => codec::DescribeProducersResponse
    );
    requests!(
        0 => codec::ProduceRequest,
        1 => codec::FetchRequest,
        2 => codec::ListOffsetsRequest,
        3 => codec::MetadataRequest,
        8 => codec::OffsetCommitRequest,
        19 => codec::CreateTopicsRequest,
        20 => codec::DeleteTopicsRequest,
        21 => codec::DeleteRecordsRequest,
        23 => codec::OffsetForLeaderEpochRequest,
        24 => codec::AddPartitionsToTxnRequest,
        27 => codec::WriteTxnMarkersRequest,
        28 => codec::TxnOffsetCommitRequest,
        32 => codec::DescribeConfigsRequest,
        33 => codec::AlterConfigsRequest,
        34 => codec::AlterReplicaLogDirsRequest,
        37 => codec::CreatePartitionsRequest,
        43 => codec::ElectLeadersRequest,
        44 => codec::IncrementalAlterConfigsRequest,
        45 => codec::AlterPartitionReassignmentsRequest,
        47 => codec::OffsetDeleteRequest,
        61 => codec::DescribeProducersRequest
    );
}

/// What eight bytes cost that go to the codec crate without a guard; the count is kept small so
/// that the machine survives.
fn unguarded() -> usize {
    let region = Region::new(ALLOCATOR);
    let mut body = Bytes::from_static(&[0x00, 0x01, 0xff, 0xff, 0, 0, 0, 1]);
    drop(codec::MetadataResponse::decode(&mut body, 0));
    region.change().bytes_allocated
}

fn walk_all(message: &'static Message, version: i16, body: &Bytes) {
    // Whether these are errors is for other tests; here only what they cost counts.
    let _ = walk::walk(message, version, body, 0, &mut walk::Check);
    let _ = tail::exact(message, version, body, &Nobody);
    let _ = tail::same_length(message, version, body, &Nobody);
    if let Ok(mut scan) = scan::Scan::new(message, version, body.len()) {
        let _ = scan.feed(body);
    }
}

#[test]
fn a_hostile_count_reserves_nothing() {
    let layouts = [
        &requests::PRODUCE,
        &requests::FETCH,
        &responses::PRODUCE,
        &responses::FETCH,
        &responses::METADATA,
        &responses::FIND_COORDINATOR,
        &responses::DESCRIBE_CONFIGS,
        &responses::DESCRIBE_CLUSTER,
        &responses::SHARE_FETCH,
        &responses::SHARE_ACKNOWLEDGE,
    ];
    let (mut worst, mut tried) = (0, 0);
    for body in hostile() {
        for version in 0..=19 {
            for key in 0..62 {
                let region = Region::new(ALLOCATOR);
                decode_all(key, version, &body);
                let cost = region.change().bytes_allocated;
                assert!(cost < BYTES_MAX, "api {key} version {version}: {cost} bytes for {body:?}");
                worst = worst.max(cost);
                tried += 1;
            }
            for layout in layouts {
                let region = Region::new(ALLOCATOR);
                walk_all(layout, version, &body);
                let cost = region.change().bytes_allocated;
                let api = layout.api;
                assert!(cost < BYTES_MAX, "walk of {api} {version}: {cost} bytes for {body:?}");
                worst = worst.max(cost);
                tried += 1;
            }
        }
    }
    assert!(unguarded() > BYTES_MAX, "the codec crate does not reserve any more: no guard needed");
    println!("{tried} hostile bodies, the worst one cost {worst} bytes");
}
