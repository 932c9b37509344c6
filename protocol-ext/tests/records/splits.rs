//! Splitting by slot: order, sequence of offsets, header fields, and merge = identity.

use bytes::Bytes;
use proptest::prelude::*;
use protocol_ext::batch::{BatchHeader, OpenBatch, verify_crc};
use protocol_ext::split::{ProducerFields, SplitOptions, split, with_producer};

use crate::generate::{CAPS, Made, Rec, opened, produced_batch, walked};

fn slots() -> impl Strategy<Value = Vec<u8>> {
    let few = prop::collection::vec(0u8..3, 200);
    let any_of_all = prop::collection::vec(any::<u8>(), 200);
    prop_oneof![3 => few, 1 => any_of_all]
}

/// Merges the parts again by the slot of each source record.
fn merged(parts: &[(u8, Vec<Rec>)], slots: &[u8], count: usize) -> Vec<Rec> {
    let mut next = [0usize; 256];
    (0i32..)
        .zip(&slots[..count])
        .map(|(offset_delta, slot)| {
            let (_, records) = parts.iter().find(|(of, _)| of == slot).unwrap();
            let at = &mut next[usize::from(*slot)];
            let record = records[*at].clone();
            assert_eq!(usize::try_from(record.offset_delta).unwrap(), *at, "deltas from 0");
            *at += 1;
            Rec { offset_delta, ..record }
        })
        .collect()
}

fn expected_header(made: &Made, records: &[Rec], producer: Option<ProducerFields>) -> BatchHeader {
    let count = i32::try_from(records.len()).unwrap();
    let timestamps = records
        .iter()
        .map(|record| made.header.base_timestamp.saturating_add(record.timestamp_delta));
    let source = made.header;
    BatchHeader {
        last_offset_delta: count - 1,
        records_count: count,
        max_timestamp: timestamps.max().unwrap(),
        producer_id: producer.map_or(source.producer_id, |fields| fields.id),
        producer_epoch: producer.map_or(source.producer_epoch, |fields| fields.epoch),
        base_sequence: producer.map_or(source.base_sequence, |fields| fields.base_sequence),
        ..source
    }
}

fn producer() -> impl Strategy<Value = Option<ProducerFields>> {
    prop::option::of(
        (any::<i64>(), any::<i16>(), any::<i32>())
            .prop_map(|(id, epoch, base_sequence)| ProducerFields { id, epoch, base_sequence }),
    )
}

proptest! {
    #[test]
    fn split_and_merge_is_the_identity_and_every_part_is_a_batch(
        made in produced_batch(), slots in slots(), producer in producer(),
    ) {
        let open = opened(&made.batch);
        let options = SplitOptions { producer };
        let parts = split(&open, &options, |record| slots[record.at.index as usize]).unwrap();
        let mut records = Vec::new();
        for part in &parts {
            let batch = part.batch.joined();
            prop_assert_eq!(batch.len(), part.batch.len());
            verify_crc(&batch).unwrap();
            let open = opened(&batch);
            let of_part = walked(&open);
            prop_assert_eq!(of_part.len(), part.records as usize);
            if parts.len() > 1 {
                let expected = BatchHeader {
                    batch_length: open.header().batch_length,
                    crc: open.header().crc,
                    ..expected_header(&made, &of_part, producer)
                };
                prop_assert_eq!(*open.header(), expected);
                prop_assert_eq!(open.framing(), made.framing);
            }
            records.push((part.slot, of_part));
        }
        prop_assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0));
        prop_assert_eq!(merged(&records, &slots, made.records.len()), made.records);
    }

    #[test]
    fn a_batch_for_one_slot_passes_as_it_came(made in produced_batch(), slot in any::<u8>()) {
        let open = opened(&made.batch);
        let parts = split(&open, &SplitOptions::default(), |_| slot).unwrap();
        prop_assert_eq!(parts.len(), 1);
        prop_assert_eq!(parts[0].slot, slot);
        prop_assert_eq!(parts[0].batch.head.as_ptr(), made.batch.as_ptr());
        prop_assert_eq!(parts[0].batch.body.as_ptr(), made.batch[61..].as_ptr());
        prop_assert_eq!(&parts[0].batch.joined(), &made.batch);
    }

    #[test]
    fn a_damaged_batch_is_neither_split_nor_given_other_producer_fields(
        made in produced_batch(), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut damaged = made.batch.to_vec();
        let at = 21 + at.index(damaged.len() - 21);
        damaged[at] ^= 1 << bit;
        let damaged = Bytes::from(damaged);
        let fields = ProducerFields { id: 1, epoch: 2, base_sequence: 3 };
        prop_assert!(with_producer(&damaged, fields).is_err());
        if let Ok(open) = OpenBatch::open(damaged, &CAPS) {
            prop_assert!(split(&open, &SplitOptions::default(), |_| 0).is_err());
        }
    }

    #[test]
    fn other_producer_fields_change_nothing_else(
        made in produced_batch(), id in any::<i64>(), epoch in any::<i16>(), base_sequence in any::<i32>(),
    ) {
        let fields = ProducerFields { id, epoch, base_sequence };
        let batch = with_producer(&made.batch, fields).unwrap();
        verify_crc(&batch).unwrap();
        let before = BatchHeader::parse(&made.batch).unwrap();
        let after = BatchHeader::parse(&batch).unwrap();
        let expected = BatchHeader {
            producer_id: id, producer_epoch: epoch, base_sequence, crc: after.crc, ..before
        };
        prop_assert_eq!(after, expected);
        prop_assert_eq!(&batch[61..], &made.batch[61..]);
        let options = SplitOptions { producer: Some(fields) };
        let whole = split(&opened(&made.batch), &options, |_| 9).unwrap();
        prop_assert_eq!(&whole[0].batch.joined(), &batch);
        prop_assert_eq!(whole[0].batch.body.as_ptr(), made.batch[61..].as_ptr(), "copied");
    }
}
