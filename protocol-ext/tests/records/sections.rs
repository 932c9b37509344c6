//! Opening, walking, cutting a records section into entries, in-place setters.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use protocol_ext::batch::{
    BatchError, BatchHeader, Batches, Caps, Entry, OpenBatch, set_base_offset,
    set_partition_leader_epoch, verify_crc,
};
use protocol_ext::codec::CodecError;

use crate::generate::{CAPS, opened, produced_batch, stored_batch, walked};

proptest! {
    #[test]
    fn a_batch_opens_to_the_records_it_was_made_of(made in stored_batch()) {
        let open = opened(&made.batch);
        prop_assert_eq!(walked(&open), made.records);
        prop_assert_eq!(open.framing(), if open.body().is_empty() { open.framing() } else { made.framing });
        let expected = BatchHeader {
            batch_length: open.header().batch_length,
            crc: open.header().crc,
            ..made.header
        };
        prop_assert_eq!(*open.header(), expected);
    }

    #[test]
    fn a_section_is_cut_into_batches_messages_and_what_is_left(
        batches in vec(stored_batch(), 0..4),
        legacy in prop::option::of((0u8..2, 14usize..60)),
        cut in prop::option::of(0.0f64..1.0),
    ) {
        let mut section = Vec::new();
        let mut expected = Vec::new();
        if let Some((magic, len)) = legacy {
            let mut message = vec![0; 12 + len];
            message[8..12].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
            message[16] = magic;
            section.extend_from_slice(&message);
            expected.push(Entry::Legacy { range: 0..section.len() });
        }
        for made in &batches {
            let start = section.len();
            section.extend_from_slice(&made.batch);
            let header = BatchHeader::parse(&made.batch).unwrap();
            expected.push(Entry::Batch { range: start..section.len(), header });
        }
        if let (Some(cut), Some(last)) = (cut, batches.last()) {
            let start = section.len() - last.batch.len();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to len")]
            let kept = (last.batch.len() as f64 * cut) as usize;
            section.truncate(start + kept);
            expected.pop();
            if kept > 0 {
                expected.push(Entry::Partial { range: start..start + kept });
            }
        }
        let entries: Vec<Entry> = Batches::new(&section).map(Result::unwrap).collect();
        prop_assert_eq!(entries, expected);
    }

    #[test]
    fn offset_and_epoch_are_set_without_touching_the_crc(
        made in stored_batch(), offset in any::<i64>(), epoch in any::<i32>(),
    ) {
        let mut batch = made.batch.to_vec();
        set_base_offset(&mut batch, offset).unwrap();
        set_partition_leader_epoch(&mut batch, epoch).unwrap();
        verify_crc(&batch).unwrap();
        let before = BatchHeader::parse(&made.batch).unwrap();
        let expected = BatchHeader { base_offset: offset, partition_leader_epoch: epoch, ..before };
        prop_assert_eq!(BatchHeader::parse(&batch).unwrap(), expected);
        prop_assert_eq!(&batch[61..], &made.batch[61..]);
    }

    #[test]
    fn one_changed_bit_under_the_crc_is_noticed(made in produced_batch(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut batch = made.batch.to_vec();
        let at = 21 + at.index(batch.len() - 21);
        batch[at] ^= 1 << bit;
        let noticed = matches!(verify_crc(&batch), Err(BatchError::Crc { .. }));
        prop_assert!(noticed);
    }

    #[test]
    fn a_body_one_byte_over_the_cap_is_refused_and_at_the_cap_is_not(made in stored_batch()) {
        let bytes = opened(&made.batch).body().len();
        let at_cap = Caps { body_bytes_max: bytes, ..CAPS };
        prop_assert!(OpenBatch::open(made.batch.clone(), &at_cap).is_ok());
        if bytes > 0 {
            let below = Caps { body_bytes_max: bytes - 1, ..CAPS };
            let error = OpenBatch::open(made.batch, &below).unwrap_err();
            let expected = CodecError::TooLarge { bytes_max: bytes - 1 };
            prop_assert_eq!(error, BatchError::Codec(expected));
        }
    }
}

#[test]
fn a_batch_with_bytes_behind_or_missing_is_not_opened() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let made = produced_batch().new_tree(&mut runner).unwrap().current();
    let longer = Bytes::from([&made.batch[..], &[0]].concat());
    assert_eq!(OpenBatch::open(longer, &CAPS).unwrap_err(), BatchError::Trailing(1));
    let len = made.batch.len() - 1;
    let shorter = made.batch.slice(..len);
    assert_eq!(OpenBatch::open(shorter, &CAPS).unwrap_err(), BatchError::Short { len });
}
