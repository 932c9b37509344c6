//! Replacing values: nothing but the named values, lengths and CRC may change.

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use protocol_ext::batch::{BatchHeader, Caps, OpenBatch, crc32c, verify_crc};
use protocol_ext::codec::Codec;
use protocol_ext::replace::{Replacement, RewriteError, RewriteOptions, Rewritten, replace_values};

use crate::generate::{
    CAPS, Made, Rec, body_of, codec, control_batch, data_batch, noise, opened, record,
    stored_batch, walked,
};

/// Bytes of values that are long enough for their CRCs to be joined.
const LONG: Range<usize> = 16_384..40_000;

/// New values for some records: references, empty ones, large ones.
fn choices() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let value = prop_oneof![
        3 => any::<u64>().prop_map(|seed| noise(seed, 112)),
        1 => Just(Vec::new()),
        1 => (any::<u64>(), 100usize..200_000).prop_map(|(seed, len)| noise(seed, len)),
    ];
    prop::collection::vec(prop::option::of(value), 12)
}

fn without_length_and_crc(batch: &Bytes) -> BatchHeader {
    BatchHeader { batch_length: 0, crc: 0, ..BatchHeader::parse(batch).unwrap() }
}

fn expected(made: &Made, choices: &[Option<Vec<u8>>], codec: Codec) -> Made {
    let mut records = made.records.clone();
    for (record, choice) in records.iter_mut().zip(choices) {
        if let Some(value) = choice {
            record.value = Some(value.clone());
        }
    }
    let attributes = made.header.attributes & !7 | codec.bits();
    Made::new(records, BatchHeader { attributes, ..made.header }, made.framing)
}

proptest! {
    #[test]
    fn nothing_to_replace_gives_the_same_bytes_at_the_same_place(made in stored_batch()) {
        let rewritten = replace_values(&made.batch, &CAPS, &RewriteOptions::default(), |_| {
            None::<Vec<u8>>
        });
        let Rewritten::Same(bytes) = rewritten.unwrap() else { panic!("a new batch") };
        prop_assert_eq!(bytes.as_ptr(), made.batch.as_ptr());
        prop_assert_eq!(bytes.len(), made.batch.len());
    }

    #[test]
    fn in_pieces_is_the_same_batch_and_long_values_are_not_copied(
        made in data_batch(), choices in choices(), known in any::<bool>(),
    ) {
        let open = opened(&made.batch);
        let records = open.records().map(Result::unwrap).zip(&choices);
        let chosen = records.filter_map(|(record, choice)| {
            let value = Bytes::from(choice.clone()?);
            let crc = known.then(|| crc32c(&value));
            let old_crc = known.then(|| crc32c(record.value.unwrap_or_default()));
            Some(Replacement { at: record.at, value, crc, old_crc })
        });
        let chosen: Vec<_> = chosen.collect();
        let options = RewriteOptions::default();
        let whole = open.rewrite(&chosen, &options, &CAPS).unwrap().into_bytes();
        let pieces = open.rewrite_in_pieces(&chosen, &options, &CAPS).unwrap();
        prop_assert_eq!(&pieces.concat(), &whole);
        if open.codec() == Codec::None {
            for long in chosen.iter().filter(|r| r.value.len() >= 16 * 1024) {
                let shared = pieces.iter().any(|piece| piece.as_ptr() == long.value.as_ptr());
                prop_assert!(shared, "a value of {} bytes was copied", long.value.len());
            }
        }
        if !chosen.is_empty() {
            let mut damaged = made.batch.to_vec();
            damaged[40] ^= 1;
            let damaged = OpenBatch::open(damaged.into(), &CAPS).unwrap();
            prop_assert!(damaged.rewrite_in_pieces(&chosen, &options, &CAPS).is_err());
        }
    }

    #[test]
    fn control_batches_pass_unasked_and_are_never_rewritten(made in control_batch()) {
        let rewritten = replace_values(&made.batch, &CAPS, &RewriteOptions::default(), |_| {
            Some([1u8; 112])
        });
        let Rewritten::Same(bytes) = rewritten.unwrap() else { panic!("a new batch") };
        prop_assert_eq!(bytes.as_ptr(), made.batch.as_ptr());
        let open = opened(&made.batch);
        if let Some(record) = open.records().next() {
            let replacement = Replacement::of(record.unwrap().at, [1u8]);
            let result = open.rewrite(&[replacement], &RewriteOptions::default(), &CAPS);
            prop_assert_eq!(result.unwrap_err(), RewriteError::Control);
        }
    }

    #[test]
    fn values_replaced_by_themselves_give_the_same_bytes(made in data_batch()) {
        let rewritten = replace_values(&made.batch, &CAPS, &RewriteOptions::default(), |record| {
            record.value.map(<[u8]>::to_vec)
        });
        let bytes = rewritten.unwrap().into_bytes();
        let codec = Codec::from_attributes(made.header.attributes).unwrap();
        if codec == Codec::None {
            prop_assert_eq!(&bytes, &made.batch);
        }
        prop_assert_eq!(body_of(&bytes), body_of(&made.batch));
    }

    #[test]
    fn only_the_named_values_lengths_and_crc_change(
        made in data_batch(), choices in choices(),
    ) {
        let rewritten = replace_values(&made.batch, &CAPS, &RewriteOptions::default(), |record| {
            choices[record.at.index as usize].clone()
        });
        let bytes = rewritten.unwrap().into_bytes();
        let codec = Codec::from_attributes(made.header.attributes).unwrap();
        let expected = expected(&made, &choices, codec);
        verify_crc(&bytes).unwrap();
        prop_assert_eq!(without_length_and_crc(&bytes), without_length_and_crc(&made.batch));
        let open = opened(&bytes);
        prop_assert_eq!(open.body().clone(), body_of(&expected.batch));
        prop_assert_eq!(walked(&open), expected.records);
        if !open.body().is_empty() {
            prop_assert_eq!(open.framing(), made.framing);
        }
        if codec == Codec::None {
            prop_assert_eq!(bytes, expected.batch);
        }
    }

    #[test]
    fn another_codec_out_changes_the_attributes_codec_bits_and_no_other(
        made in data_batch(), choices in choices(), (codec, _) in codec(),
    ) {
        let options = RewriteOptions { codec: Some(codec) };
        let rewritten = replace_values(&made.batch, &CAPS, &options, |record| {
            choices[record.at.index as usize].clone()
        });
        let Rewritten::New(bytes) = rewritten.unwrap() else { return Ok(()) };
        let expected = expected(&made, &choices, codec);
        verify_crc(&bytes).unwrap();
        prop_assert_eq!(without_length_and_crc(&bytes), without_length_and_crc(&expected.batch));
        prop_assert_eq!(body_of(&bytes), body_of(&expected.batch));
    }

    #[test]
    fn a_second_pass_after_a_pause_gives_what_one_pass_gives(
        made in data_batch(), choices in choices(),
    ) {
        let open = opened(&made.batch);
        let mut found = Vec::new();
        for record in open.records() {
            let record = record.unwrap();
            if choices[record.at.index as usize].is_some() {
                let value = open.slice(record.value_range()).unwrap();
                prop_assert_eq!(&value[..], record.value.unwrap_or_default());
                found.push(record.at);
            }
        }
        let replacements: Vec<_> = found
            .into_iter()
            .map(|at| Replacement::of(at, choices[at.index as usize].clone().unwrap()))
            .collect();
        let options = RewriteOptions::default();
        let later = open.rewrite(&replacements, &options, &CAPS).unwrap();
        let at_once = replace_values(&made.batch, &CAPS, &options, |record| {
            choices[record.at.index as usize].clone()
        });
        prop_assert_eq!(later, at_once.unwrap());
    }

    #[test]
    fn a_damaged_batch_is_never_given_a_sound_crc(
        made in data_batch(), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut damaged = made.batch.to_vec();
        let at = 21 + at.index(damaged.len() - 21);
        damaged[at] ^= 1 << bit;
        let rewritten = replace_values(
            &Bytes::from(damaged), &CAPS, &RewriteOptions::default(), |_| Some([0u8; 112]),
        );
        let rebuilt = matches!(rewritten, Ok(Rewritten::New(_)));
        prop_assert!(!rebuilt);
    }

    #[test]
    fn long_values_with_known_crcs_are_not_read(
        made in data_batch(), record in record(), old in LONG, new in LONG,
    ) {
        let record = Rec { value: Some(noise(1, old)), ..record };
        let header = BatchHeader { records_count: 1, ..made.header };
        let open = opened(&Made::new(vec![record], header, made.framing).batch);
        let at = open.records().next().unwrap().unwrap().at;
        let value = Bytes::from(noise(2, new));
        let (crc, old_crc) = (crc32c(&value), crc32c(&noise(1, old)));
        let options = RewriteOptions::default();
        let rewritten = |crc, old_crc| {
            let replacement = [Replacement { at, value: value.clone(), crc, old_crc }];
            let whole = open.rewrite(&replacement, &options, &CAPS).map(Rewritten::into_bytes);
            let pieces = open.rewrite_in_pieces(&replacement, &options, &CAPS).unwrap();
            (whole, Bytes::from(pieces.concat()))
        };
        let (expected, _) = rewritten(None, None);
        let (whole, pieces) = rewritten(Some(crc), Some(old_crc));
        prop_assert_eq!(&whole, &expected);
        prop_assert_eq!(Ok(&pieces), expected.as_ref());
        verify_crc(&pieces).unwrap();
        // A CRC that is another's is found by whoever reads the batch, or here.
        let (whole, pieces) = rewritten(Some(crc ^ 1), Some(old_crc ^ 1));
        let plain = open.codec() == Codec::None;
        prop_assert_eq!((whole.is_err(), verify_crc(&pieces).is_err()), (plain, plain));
    }

    #[test]
    fn a_rewrite_over_its_cap_is_refused(made in data_batch(), value in 1usize..100_000) {
        prop_assume!(!made.records.is_empty());
        let caps = Caps { rewritten_bytes_max: value, ..CAPS };
        let rewritten = replace_values(&made.batch, &caps, &RewriteOptions::default(), |record| {
            (record.at.index == 0).then(|| vec![7; value])
        });
        let refused = matches!(rewritten, Err(RewriteError::TooLarge { bytes_max, .. }) if bytes_max == value);
        prop_assert!(refused);
    }

    #[test]
    fn replacements_out_of_order_or_twice_are_refused(made in data_batch()) {
        let open = opened(&made.batch);
        let at: Vec<_> = open.records().map(|record| record.unwrap().at).collect();
        prop_assume!(at.len() >= 2);
        for pair in [[at[1], at[0]], [at[0], at[0]]] {
            let replacements = pair.map(|at| Replacement::of(at, [1u8]));
            let result = open.rewrite(&replacements, &RewriteOptions::default(), &CAPS);
            prop_assert_eq!(result.unwrap_err(), RewriteError::Replacement(1));
        }
    }
}
