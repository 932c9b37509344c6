//! Batches for the properties: any records, any header fields, every codec and framing.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use protocol_ext::batch::{BatchHeader, Caps, OpenBatch, build};
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::varint::{write_varint, write_varlong};

pub const CAPS: Caps = Caps { body_bytes_max: 8 << 20, rewritten_bytes_max: 8 << 20 };

/// A record as this test means it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rec {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A batch and what it was made of.
#[derive(Clone, Debug)]
pub struct Made {
    pub records: Vec<Rec>,
    pub header: BatchHeader,
    pub framing: Framing,
    pub batch: Bytes,
}

impl Made {
    pub fn new(records: Vec<Rec>, header: BatchHeader, framing: Framing) -> Made {
        let batch = build(header, framing, &body(&records)).unwrap();
        Made { records, header, framing, batch }
    }
}

pub fn body(records: &[Rec]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let mut fields = vec![0];
        write_varlong(&mut fields, record.timestamp_delta);
        write_varint(&mut fields, record.offset_delta);
        write_nullable(&mut fields, record.key.as_deref());
        write_nullable(&mut fields, record.value.as_deref());
        write_varint(&mut fields, record.headers.len().try_into().unwrap());
        for (key, value) in &record.headers {
            write_nullable(&mut fields, Some(key));
            write_nullable(&mut fields, value.as_deref());
        }
        write_varint(&mut out, fields.len().try_into().unwrap());
        out.extend_from_slice(&fields);
    }
    out
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_varint(out, -1),
        Some(bytes) => {
            write_varint(out, bytes.len().try_into().unwrap());
            out.extend_from_slice(bytes);
        }
    }
}

/// What the walker reads, as owned records.
pub fn walked(open: &OpenBatch) -> Vec<Rec> {
    open.records()
        .map(|record| {
            let record = record.unwrap();
            Rec {
                timestamp_delta: record.timestamp_delta,
                offset_delta: record.offset_delta,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .map(|header| header.unwrap())
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
            }
        })
        .collect()
}

/// The records of `batch` without compression.
pub fn body_of(batch: &Bytes) -> Bytes {
    opened(batch).body().clone()
}

pub fn opened(batch: &Bytes) -> OpenBatch {
    let mut open = OpenBatch::open(batch.clone(), &CAPS).unwrap();
    open.check_crc().unwrap();
    open
}

/// Sizes around every edge of the varints, and some that cross codec blocks.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..70),
        2 => vec(any::<u8>(), 60..300),
        2 => (any::<u8>(), 8_000usize..9_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u64>(), 60_000usize..150_000).prop_map(|(seed, len)| noise(seed, len)),
    ]
}

/// Bytes that no codec makes smaller.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

pub fn record() -> impl Strategy<Value = Rec> {
    let headers = vec((vec(any::<u8>(), 0..8), option::of(vec(any::<u8>(), 0..20))), 0..4);
    let timestamp = prop_oneof![4 => -1000i64..100_000, 1 => any::<i64>()];
    (timestamp, option::of(vec(any::<u8>(), 0..70)), option::of(bytes()), headers).prop_map(
        |(timestamp_delta, key, value, headers)| Rec {
            timestamp_delta,
            offset_delta: 0,
            key,
            value,
            headers,
        },
    )
}

pub fn codec() -> impl Strategy<Value = (Codec, Framing)> {
    prop::sample::select(vec![
        (Codec::None, Framing::Plain),
        (Codec::Gzip, Framing::Plain),
        (Codec::Snappy, Framing::Plain),
        (Codec::Snappy, Framing::Xerial),
        (Codec::Lz4, Framing::Plain),
        (Codec::Zstd, Framing::Plain),
    ])
}

/// Any batch that a log may hold: gaps in the offsets, any attributes, even none of its records.
pub fn stored_batch() -> impl Strategy<Value = Made> {
    (vec((record(), 1i32..300), 0..12), header(), codec(), 0i32..500).prop_map(
        |(records, header, (codec, framing), behind)| {
            let mut offset = -1;
            let records: Vec<Rec> = records
                .into_iter()
                .map(|(record, step)| {
                    offset += step;
                    Rec { offset_delta: offset, ..record }
                })
                .collect();
            let header = BatchHeader {
                attributes: header.attributes & !7 | codec.bits(),
                last_offset_delta: offset.max(0) + behind,
                records_count: records.len().try_into().unwrap(),
                ..header
            };
            Made::new(records, header, framing)
        },
    )
}

/// A batch of the broker's own.
pub fn control_batch() -> impl Strategy<Value = Made> {
    stored_batch().prop_map(|made| {
        let attributes = made.header.attributes | 0x20;
        Made::new(made.records, BatchHeader { attributes, ..made.header }, made.framing)
    })
}

/// A stored batch of which records may be replaced.
pub fn data_batch() -> impl Strategy<Value = Made> {
    stored_batch().prop_filter("control batches pass", |made| made.header.attributes & 0x20 == 0)
}

/// A batch as producers send it: offset deltas 0, 1, 2 ..., at least one record.
pub fn produced_batch() -> impl Strategy<Value = Made> {
    (vec(record(), 1..200), header(), codec()).prop_map(|(records, header, (codec, framing))| {
        let records: Vec<Rec> = (0..)
            .zip(records)
            .map(|(offset_delta, record)| Rec { offset_delta, ..record })
            .collect();
        let count: i32 = records.len().try_into().unwrap();
        let header = BatchHeader {
            base_offset: 0,
            attributes: header.attributes & 0x10 | codec.bits(),
            last_offset_delta: count - 1,
            records_count: count,
            ..header
        };
        Made::new(records, header, framing)
    })
}

fn header() -> impl Strategy<Value = BatchHeader> {
    (any::<[i64; 4]>(), any::<[i32; 2]>(), any::<[i16; 2]>()).prop_map(|(longs, ints, shorts)| {
        BatchHeader {
            base_offset: longs[0],
            batch_length: 0,
            partition_leader_epoch: ints[0],
            crc: 0,
            // one in eight is a control batch
            attributes: shorts[0] & if shorts[0] & 0x700 == 0 { 0x78 } else { 0x58 },
            last_offset_delta: 0,
            base_timestamp: longs[1] >> 8,
            max_timestamp: longs[2],
            producer_id: longs[3],
            producer_epoch: shorts[1],
            base_sequence: ints[1],
            records_count: 0,
        }
    })
}
