//! Bytes from an enemy: nothing panics, nothing grows past its cap.

use bytes::Bytes;
use proptest::prelude::*;
use protocol_ext::batch::{Batches, Caps, HEADER_BYTES, OpenBatch};
use protocol_ext::codec::{Codec, decompress};
use protocol_ext::records::{Headers, Records};
use protocol_ext::reference::Reference;
use protocol_ext::replace::{Replacement, RewriteOptions, replace_values};
use protocol_ext::split::{SplitOptions, split};
use protocol_ext::varint::{read_unsigned, read_varint, read_varlong};

use crate::generate::{codec, produced_batch, stored_batch};

const SMALL: Caps = Caps { body_bytes_max: 300_000, rewritten_bytes_max: 400_000 };

/// One change to a valid batch.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    let edge = prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xfe, 0xff]);
    prop_oneof![
        3 => (at(), edge).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        3 => (at(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => at().prop_map(Mutation::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (at(), 1usize..2000).prop_map(|(at, len)| Mutation::Repeat(at, len)),
    ]
}

/// Changes the bytes from `from` on.
fn mutate(bytes: &mut Vec<u8>, from: usize, mutation: &Mutation) {
    let span = bytes.len().saturating_sub(from);
    if span == 0 {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => bytes[from + at.index(span)] = *byte,
        Mutation::Flip(at, bit) => bytes[from + at.index(span)] ^= 1 << bit,
        Mutation::Cut(at) => bytes.truncate(from + at.index(span)),
        Mutation::Insert(at, extra) => {
            let at = from + at.index(span);
            bytes.splice(at..at, extra.iter().copied());
        }
        Mutation::Repeat(at, len) => {
            let at = from + at.index(span);
            let end = (at + len).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

/// Makes length and CRC fit again, so that the damage lies behind the first checks.
fn repair(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        let length = u32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = protocol_ext::batch::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Everything that the proxy may do with a batch.
fn exercise(bytes: &[u8]) {
    for entry in Batches::new(bytes) {
        let _ = entry;
    }
    let batch = Bytes::copy_from_slice(bytes);
    let Ok(open) = OpenBatch::open(batch.clone(), &SMALL) else { return };
    assert!(open.body().len() <= SMALL.body_bytes_max);
    let mut found = Vec::new();
    for record in open.records() {
        let Ok(record) = record else { break };
        assert!(open.slice(record.value_range()).is_some());
        for header in record.headers() {
            let _ = header;
        }
        found.push(Replacement::of(record.at, [5u8; 112]));
    }
    let _ = open.rewrite(&found, &RewriteOptions::default(), &SMALL);
    let _ = open.rewrite(&found, &RewriteOptions { codec: Some(Codec::Lz4) }, &SMALL);
    let _ = split(&open, &SplitOptions::default(), |record| {
        record.key.map_or(0, |key| key.first().copied().unwrap_or(1))
    });
    let _ = replace_values(&batch, &SMALL, &RewriteOptions::default(), |record| {
        record.value.map(|value| value.repeat(2))
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_mutated_batch_never_panics(
        made in stored_batch(), mutations in prop::collection::vec(mutation(), 1..4), fix in any::<bool>(),
    ) {
        let mut bytes = made.batch.to_vec();
        for mutation in &mutations {
            mutate(&mut bytes, 0, mutation);
        }
        if fix {
            repair(&mut bytes);
        }
        exercise(&bytes);
    }

    #[test]
    fn mutated_records_behind_a_sound_head_never_panic(
        made in produced_batch(), mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let mut bytes = made.batch.to_vec();
        for mutation in &mutations {
            mutate(&mut bytes, HEADER_BYTES, mutation);
        }
        repair(&mut bytes);
        exercise(&bytes);
    }

    #[test]
    fn mutated_streams_of_every_codec_stay_under_the_cap(
        made in produced_batch(), mutations in prop::collection::vec(mutation(), 0..6), bytes_max in 0usize..200_000,
    ) {
        let codec = Codec::from_attributes(made.header.attributes).unwrap();
        let mut bytes = made.batch[HEADER_BYTES..].to_vec();
        for mutation in &mutations {
            mutate(&mut bytes, 0, mutation);
        }
        let mut out = Vec::new();
        let result = decompress(codec, &bytes, bytes_max, &mut out);
        prop_assert!(out.capacity() <= bytes_max.max(8), "{} > {}", out.capacity(), bytes_max);
        prop_assert!(result.is_err() || out.len() <= bytes_max);
    }

    #[test]
    fn any_bytes_are_survived_by_every_reader(
        bytes in prop::collection::vec(any::<u8>(), 0..300), count in any::<u32>(), (codec, _) in codec(),
    ) {
        exercise(&bytes);
        let mut out = Vec::new();
        let _ = decompress(codec, &bytes, 10_000, &mut out);
        prop_assert!(out.capacity() <= 10_000);
        for record in Records::new(&bytes, count) {
            if record.is_err() { break }
        }
        let _ = Headers::new(&bytes).count();
        let _ = Reference::parse_unverified(&bytes);
        for at in 0..bytes.len() + 2 {
            for read in [
                |b: &[u8], p: &mut usize| read_unsigned(b, p).is_some(),
                |b: &[u8], p: &mut usize| read_varint(b, p).is_some(),
                |b: &[u8], p: &mut usize| read_varlong(b, p).is_some(),
            ] {
                let mut pos = at;
                let got = read(&bytes, &mut pos);
                let sound = if got { pos > at && pos <= bytes.len() } else { pos == at };
                prop_assert!(sound);
            }
        }
    }
}

#[test]
fn a_count_larger_than_the_records_ends_the_walk() {
    assert!(Records::new(&[], u32::MAX).next().unwrap().is_err());
    let mut walk = Records::new(&[], u32::MAX);
    let _ = walk.next();
    assert!(walk.next().is_none());
}
