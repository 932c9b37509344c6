//! Agreement with the record codec of the kafka-protocol crate, where that is right: no duplicate
//! header keys, create time, no compaction.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;
use protocol_ext::replace::{RewriteOptions, replace_values};
use protocol_ext::split::{SplitOptions, split};

use crate::generate::{CAPS, noise, opened, walked};

const BASE_TIMESTAMP: i64 = 1_700_000_000_000;

fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(vec![
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ])
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let bytes = || {
        prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..100),
            1 => (any::<u64>(), 0usize..100_000).prop_map(|(seed, len)| noise(seed, len)),
        ]
        .prop_map(Bytes::from)
    };
    let headers = prop::collection::btree_map("[a-z]{1,6}", prop::option::of(bytes()), 0..4);
    let record = (0i64..5000, prop::option::of(bytes()), prop::option::of(bytes()), headers);
    prop::collection::vec(record, 1..40).prop_map(|records| {
        (0i32..)
            .zip(records)
            .map(|(i, (after, key, value, headers))| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: 7,
                producer_epoch: 1,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(i),
                sequence: 100 + i,
                timestamp: BASE_TIMESTAMP + after,
                key,
                value,
                headers: headers
                    .into_iter()
                    .map(|(key, value)| (StrBytes::from_string(key), value))
                    .collect::<IndexMap<_, _>>(),
            })
            .collect()
    })
}

fn encoded(records: &[Record], compression: Compression) -> Bytes {
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
    out.freeze()
}

fn decoded(batch: &Bytes) -> Vec<Record> {
    RecordBatchDecoder::decode(&mut batch.clone()).unwrap().records
}

proptest! {
    #[test]
    fn its_batches_are_read_field_by_field(records in records(), compression in compression()) {
        let open = opened(&encoded(&records, compression));
        let base = open.header().base_timestamp;
        for (ours, theirs) in walked(&open).into_iter().zip(&records) {
            prop_assert_eq!(base + ours.timestamp_delta, theirs.timestamp);
            prop_assert_eq!(i64::from(ours.offset_delta), theirs.offset);
            prop_assert_eq!(ours.key.map(Bytes::from), theirs.key.clone());
            prop_assert_eq!(ours.value.map(Bytes::from), theirs.value.clone());
            let headers: IndexMap<_, _> = ours
                .headers
                .into_iter()
                .map(|(key, value)| {
                    (StrBytes::from_string(String::from_utf8(key).unwrap()), value.map(Bytes::from))
                })
                .collect();
            prop_assert_eq!(&headers, &theirs.headers);
        }
    }

    #[test]
    fn our_rewritten_batches_are_read_by_it(
        records in records(), compression in compression(), every in 1usize..4,
    ) {
        let batch = encoded(&records, compression);
        let rewritten = replace_values(&batch, &CAPS, &RewriteOptions::default(), |record| {
            (record.at.index as usize).is_multiple_of(every).then_some([0xFB; 112])
        });
        let read = decoded(&rewritten.unwrap().into_bytes());
        let mut expected = records.clone();
        for record in expected.iter_mut().step_by(every) {
            record.value = Some(Bytes::from_static(&[0xFB; 112]));
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn our_parts_are_read_by_it(
        records in records(), compression in compression(), slots in 1usize..4,
    ) {
        let open = opened(&encoded(&records, compression));
        let slot_of = |index: usize| u8::try_from(index % slots).unwrap();
        let parts = split(&open, &SplitOptions::default(), |record| {
            slot_of(record.at.index as usize)
        });
        for part in parts.unwrap() {
            let mine = records.iter().enumerate().filter(|(i, _)| slot_of(*i) == part.slot);
            let expected: Vec<Record> = (0i32..)
                .zip(mine)
                .map(|(i, (_, record))| Record {
                    offset: i64::from(i),
                    sequence: 100 + i,
                    ..record.clone()
                })
                .collect();
            prop_assert_eq!(decoded(&part.batch.joined()), expected);
        }
    }
}
