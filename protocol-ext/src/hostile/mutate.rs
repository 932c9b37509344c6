//! Mutants: a sound frame with one to four lies in it.
//!
//! Lies aim at what readers trust: lengths, counts, varints, tags, ends. The first bytes (key,
//! version, correlation id) are changed rarely, so that most mutants reach the reader of a body.

use super::random::Random;

/// What a mutation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// One to eight bits turned over.
    Bits,
    /// One byte set to an edge.
    Byte,
    /// A two, four or eight byte integer set to 0, -1, an edge, or 2 GB.
    Integer,
    /// An unsigned varint set to 0 (null), 1, or the most it can hold.
    Varint,
    /// A varint in more bytes than it needs, or without an end.
    Overlong,
    /// A small count or length one off, or doubled.
    Count,
    /// The end cut off.
    Cut,
    /// A part twice.
    Double,
    /// A part gone.
    Gap,
    /// The start of this frame and the end of another.
    Splice,
    /// Tagged fields where there are none.
    Tags,
    /// Bytes put in between.
    Insert,
}

/// All of them; the index is what `Mutator::counts` counts by.
pub const LIES: [Lie; 12] = [
    Lie::Bits,
    Lie::Byte,
    Lie::Integer,
    Lie::Varint,
    Lie::Overlong,
    Lie::Count,
    Lie::Cut,
    Lie::Double,
    Lie::Gap,
    Lie::Splice,
    Lie::Tags,
    Lie::Insert,
];

/// No mutant is longer.
pub const MUTANT_BYTES_MAX: usize = 256 * 1024;
const DOUBLED_BYTES_MAX: usize = 4096;
const BYTES: [u8; 9] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff, 0x1f];
const INTEGERS: [i64; 16] = [
    0,
    1,
    -1,
    -2,
    0x7f,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x7fff_fff0,
    -0x8000_0000,
    0x4000_0000,
    0x0640_0000,
    i64::MAX,
    i64::MIN,
];

/// Makes mutants and counts the lies in them.
#[derive(Debug, Default)]
pub struct Mutator {
    /// How often each of [`LIES`] was told.
    pub counts: [u64; LIES.len()],
}

impl Mutator {
    /// A mutant of `frame`, whose first `head` bytes mostly stay; `other` is what it is spliced
    /// with.
    pub fn mutant(
        &mut self,
        random: &mut Random,
        frame: &[u8],
        head: usize,
        other: &[u8],
    ) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        let lies = 1 + random.below(4).saturating_sub(random.below(3));
        for _ in 0..lies {
            let from = if random.one_in(24) { 0 } else { head.min(bytes.len()) };
            let n = random.below(LIES.len());
            self.counts[n] += 1;
            tell(LIES[n], random, &mut bytes, from, other);
        }
        bytes.truncate(MUTANT_BYTES_MAX);
        bytes
    }
}

fn tell(lie: Lie, random: &mut Random, bytes: &mut Vec<u8>, from: usize, other: &[u8]) {
    let at = from + random.below(bytes.len() - from);
    match lie {
        Lie::Cut | Lie::Double | Lie::Gap | Lie::Splice | Lie::Tags | Lie::Insert => {
            of_shape(lie, random, bytes, at, other);
        }
        _ => of_numbers(lie, random, bytes, from, at),
    }
}

/// Lies about values, lengths and counts.
fn of_numbers(lie: Lie, random: &mut Random, bytes: &mut Vec<u8>, from: usize, at: usize) {
    let span = bytes.len() - from;
    match lie {
        Lie::Bits => {
            for _ in 0..=random.below(8) {
                let at = from + random.below(span);
                let bit = random.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
        }
        Lie::Byte => put(bytes, at, &[BYTES[random.below(BYTES.len())]]),
        Lie::Integer => {
            let n = INTEGERS[random.below(INTEGERS.len())].to_be_bytes();
            let width = [2, 4, 4, 8][random.below(4)];
            put(bytes, at, &n[8 - width..]);
        }
        Lie::Varint => {
            let varints: [&[u8]; 5] = [
                &[0],
                &[1],
                &[0xff, 0xff, 0xff, 0xff, 0x0f],
                &[0xff, 0xff, 0xff, 0x7f],
                &[0x80, 0x80, 0x80, 0x80, 0x08],
            ];
            let varint = varints[random.below(varints.len())];
            bytes.splice(at..bytes.len().min(at + 1), varint.iter().copied());
        }
        Lie::Overlong => {
            let value = bytes.get(at).copied().unwrap_or(0) | 0x80;
            let mut varint = vec![value];
            varint.extend(std::iter::repeat_n(0x80, random.below(10)));
            varint.extend(std::iter::repeat_n(0, usize::from(!random.one_in(4))));
            bytes.splice(at..bytes.len().min(at + 1), varint);
        }
        Lie::Count => {
            // Counts and lengths are small numbers behind zeros, or alone as varints.
            let small = (0..16).map(|n| from + (at - from + n) % span.max(1));
            let at = small.into_iter().find(|at| matches!(bytes.get(*at), Some(1..=60)));
            if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
                let change: fn(u8) -> u8 =
                    [|n| n - 1, |n| n + 1, |n| n * 2, |n: u8| n | 0x40][random.below(4)];
                *byte = change(*byte);
            }
        }
        _ => {}
    }
}

/// Lies about what is there and where it ends.
fn of_shape(lie: Lie, random: &mut Random, bytes: &mut Vec<u8>, at: usize, other: &[u8]) {
    match lie {
        Lie::Cut => bytes.truncate(at),
        Lie::Double => {
            let end = (at + 1 + random.below(DOUBLED_BYTES_MAX)).min(bytes.len());
            let part: Vec<u8> = bytes.get(at..end).unwrap_or(&[]).to_vec();
            bytes.splice(end..end, part);
        }
        Lie::Gap => {
            let end = (at + 1 + random.below(16)).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
        Lie::Splice => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len().max(1)).min(other.len())..]);
        }
        Lie::Tags => {
            let count = 1 + random.below(4);
            let mut tags = vec![u8::try_from(count).unwrap_or(1)];
            for _ in 0..count {
                let size = random.below(6);
                tags.push(random.byte() & 0x7f);
                tags.push(u8::try_from(size).unwrap_or(0));
                tags.extend((0..size).map(|_| random.byte()));
            }
            bytes.splice(at..bytes.len().min(at + 1), tags);
        }
        Lie::Insert => {
            let count = 1 + random.below(12);
            let part: Vec<u8> = (0..count).map(|_| random.byte()).collect();
            bytes.splice(at..at, part);
        }
        _ => {}
    }
}

/// Writes over what is there, as far as it reaches.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(new) {
        *byte = *new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_give_the_same_mutant_and_every_lie_is_told() {
        let frame: Vec<u8> = (0..200).collect();
        let mut mutator = Mutator::default();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..2000 {
            let mutant = mutator.mutant(&mut Random::new(5, n), &frame, 8, b"another frame");
            let again =
                Mutator::default().mutant(&mut Random::new(5, n), &frame, 8, b"another frame");
            assert_eq!(mutant, again);
            seen.insert(mutant);
        }
        assert!(seen.len() > 1700, "{} different mutants", seen.len());
        assert!(mutator.counts.iter().all(|count| *count > 0), "{:?}", mutator.counts);
    }

    #[test]
    fn an_empty_frame_can_be_mutated() {
        for n in 0..2000 {
            Mutator::default().mutant(&mut Random::new(6, n), b"", 8, b"");
        }
    }
}
