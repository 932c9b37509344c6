//! One record of the load: it says who it is, and every byte of it can be checked.
//!
//! value = magic 4, producer 4, counter 8, transaction 8 (0: none), length 4, payload, CRC-32C 4.
//! The payload follows from producer, counter and length, the partition from the counter, the key
//! from the producer. Invariant: no two records of a run are equal, and none is as long as a
//! reference.

use crc_fast::crc32_iscsi as crc;
use protocol_ext::reference::{REFERENCE_BYTES, REFERENCE_MAGIC};
use sha2::{Digest, Sha256};

use crate::random::Random;

/// Partitions of each topic.
pub const PARTITIONS: i32 = 4;

/// Who a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the producer, over both kinds.
    pub producer: u32,
    /// Place in the order of that producer's records, from 0.
    pub counter: usize,
    /// The producer's transaction, from 1; 0 without transactions.
    pub transaction: u64,
}

/// A value as its producer remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its length.
    pub bytes: usize,
    sha256: [u8; 32],
}

impl Fingerprint {
    /// That of a value.
    pub fn of(value: &[u8]) -> Self {
        Self { bytes: value.len(), sha256: Sha256::digest(value).into() }
    }
}

/// How long the values of a producer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Small ones, and one of ten of 20-60 KB.
    Usual,
    /// These, some of 1-9 MB, and a few that a store is sent in parts.
    Large,
}

/// Why bytes are no record of this load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Torn {
    /// A reference where its value must be.
    #[error("a raw reference")]
    Reference,
    /// Too short for any record, without the magic, or of another length than it says.
    #[error("a value of {0} bytes that is none of this load")]
    Foreign(usize),
    /// The bytes are not those that were summed up.
    #[error("the checksum does not fit")]
    Checksum,
    /// Whole, but not the payload of that identity.
    #[error("the payload is another record's")]
    Payload,
    /// The length or the SHA-256 of what was produced is another one.
    #[error("not the value that was produced")]
    Produced,
    /// Another producer's key.
    #[error("the key is another producer's")]
    Key,
    /// Not where its counter belongs.
    #[error("another partition's record")]
    Partition,
}

/// Builds the value of `identity`, `length` bytes long.
pub fn write(identity: &Identity, length: usize) -> Vec<u8> {
    let length = length.max(HEAD_BYTES + CRC_BYTES);
    let mut value = Vec::with_capacity(length);
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&identity.producer.to_be_bytes());
    value.extend_from_slice(&(identity.counter as u64).to_be_bytes());
    value.extend_from_slice(&identity.transaction.to_be_bytes());
    value.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    let mut left = length - HEAD_BYTES - CRC_BYTES;
    for block in payload(identity, length) {
        let bytes = left.min(block.len());
        value.extend_from_slice(&block[..bytes]);
        left -= bytes;
        if left == 0 {
            break;
        }
    }
    value.extend_from_slice(&crc(&value).to_be_bytes());
    value
}

/// Checks a record that was read, and says who it is.
pub fn open(partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Identity, Torn> {
    let value = value.unwrap_or_default();
    if is_reference(value) {
        return Err(Torn::Reference);
    }
    let foreign = Torn::Foreign(value.len());
    if !value.starts_with(MAGIC) || value.len() < HEAD_BYTES + CRC_BYTES {
        return Err(foreign);
    }
    let (body, sum) = value.split_at(value.len() - CRC_BYTES);
    if sum != crc(body).to_be_bytes() {
        return Err(Torn::Checksum);
    }
    let (head, filling) = body.split_at(HEAD_BYTES);
    let identity = Identity {
        producer: u32::try_from(number(&head[4..8])).map_err(|_| foreign)?,
        counter: usize::try_from(number(&head[8..16])).map_err(|_| foreign)?,
        transaction: number(&head[16..24]),
    };
    if number(&head[24..28]) != value.len() as u64 {
        return Err(foreign);
    }
    let blocks = filling.chunks(BLOCK_BYTES).zip(payload(&identity, value.len()));
    for (bytes, block) in blocks {
        if bytes != &block[..bytes.len()] {
            return Err(Torn::Payload);
        }
    }
    if key != Some(self::key(identity.producer).as_bytes()) {
        return Err(Torn::Key);
    }
    if partition != self::partition(identity.counter) {
        return Err(Torn::Partition);
    }
    Ok(identity)
}

/// The key of a producer's records.
pub fn key(producer: u32) -> String {
    format!("producer-{producer}")
}

/// Where a record belongs: producers take partitions in turn.
pub fn partition(counter: usize) -> i32 {
    i32::try_from(counter % usize::try_from(PARTITIONS).unwrap_or(1)).unwrap_or(0)
}

/// A length: one of ten is 20-60 KB, the rest are about 200 bytes; see also [`Sizes::Large`].
pub fn length(random: &mut Random, sizes: Sizes) -> usize {
    let is_large = sizes == Sizes::Large;
    let bytes = if is_large && random.chance(HUGE_PER_MILLE) {
        return huge(random);
    } else if is_large && random.chance(MEGABYTES_PER_MILLE) {
        random.between(1_000_000, 9_000_000)
    } else if random.chance(OFFLOADED_PER_MILLE) {
        random.between(20_000, 60_000)
    } else {
        random.between(120, 280)
    };
    usize::try_from(bytes).unwrap_or(0)
}

/// A length whose object goes to an S3 service in parts, as those from 32 MiB on do.
pub fn huge(random: &mut Random) -> usize {
    usize::try_from(random.between(HUGE_BYTES_MIN as u64, HUGE_BYTES_MAX as u64)).unwrap_or(0)
}

/// Whether a value as it lies in the log is a reference.
pub fn is_reference(value: &[u8]) -> bool {
    value.len() == REFERENCE_BYTES && value.starts_with(&REFERENCE_MAGIC)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// Letters, so that codecs have something to do. Large values are noise: compressed, an object of
/// letters would be shorter than what is sent in parts.
fn payload(identity: &Identity, length: usize) -> impl Iterator<Item = [u8; BLOCK_BYTES]> + use<> {
    let mut random = Random::new(identity.counter as u64, u64::from(identity.producer));
    let is_noise = length >= LARGE_BYTES_MIN;
    std::iter::repeat_with(move || {
        let noise = random.next().to_be_bytes();
        match is_noise {
            true => noise,
            false => noise.map(|byte| LETTERS[usize::from(byte) % LETTERS.len()]),
        }
    })
}

/// Values from here on are large ones: none but [`Sizes::Large`] has them.
pub const LARGE_BYTES_MIN: usize = 1_000_000;
/// Values from here on are stored in parts.
pub const HUGE_BYTES_MIN: usize = 34_000_000;
/// The longest value.
pub const HUGE_BYTES_MAX: usize = 44_000_000;

const MAGIC: &[u8; 4] = b"SOAK";
const HEAD_BYTES: usize = 28;
const CRC_BYTES: usize = 4;
const BLOCK_BYTES: usize = 8;
const OFFLOADED_PER_MILLE: u64 = 100;
const MEGABYTES_PER_MILLE: u64 = 40;
const HUGE_PER_MILLE: u64 = 2;
const LETTERS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { producer: 3, counter: 6, transaction: 9 };

    fn read(value: &[u8]) -> Result<Identity, Torn> {
        open(2, Some(b"producer-3"), Some(value))
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        for length in [120, 200, 60_000, LARGE_BYTES_MIN, LARGE_BYTES_MIN + 3] {
            let value = write(&IDENTITY, length);
            assert_eq!(value.len(), length);
            assert_eq!(read(&value), Ok(IDENTITY));
        }
    }

    #[test]
    fn a_record_with_any_byte_changed_is_torn() {
        let whole = write(&IDENTITY, 150);
        for place in 0..whole.len() {
            let mut value = whole.clone();
            value[place] ^= 1;
            assert!(read(&value).is_err(), "byte {place}");
        }
        assert_eq!(read(&whole[..149]), Err(Torn::Checksum));
        assert_eq!(read(&[]), Err(Torn::Foreign(0)));
    }

    #[test]
    fn a_record_of_another_key_or_partition_is_torn() {
        let value = write(&IDENTITY, 150);
        assert_eq!(open(2, Some(b"producer-4"), Some(&value)), Err(Torn::Key));
        assert_eq!(open(2, None, Some(&value)), Err(Torn::Key));
        assert_eq!(open(1, Some(b"producer-3"), Some(&value)), Err(Torn::Partition));
    }

    #[test]
    fn a_reference_is_told_from_a_value() {
        let mut reference = vec![0; REFERENCE_BYTES];
        reference[..4].copy_from_slice(&REFERENCE_MAGIC);
        assert_eq!(read(&reference), Err(Torn::Reference));
    }

    #[test]
    fn one_record_of_ten_is_large() {
        let mut random = Random::new(1, 1);
        let large = (0..10_000).filter(|_| length(&mut random, Sizes::Usual) > 10_000).count();
        assert!((900..1100).contains(&large), "{large}");
    }

    #[test]
    fn some_of_a_large_producer_s_values_are_megabytes_and_a_few_go_in_parts() {
        let mut random = Random::new(1, 1);
        let lengths: Vec<_> = (0..10_000).map(|_| length(&mut random, Sizes::Large)).collect();
        let large = lengths.iter().filter(|bytes| **bytes >= LARGE_BYTES_MIN).count();
        let huge = lengths.iter().filter(|bytes| **bytes >= HUGE_BYTES_MIN).count();
        assert!((300..600).contains(&large), "{large}");
        assert!((5..50).contains(&huge), "{huge}");
        assert!(lengths.iter().all(|bytes| *bytes <= HUGE_BYTES_MAX));
    }

    #[test]
    fn noise_is_checked_to_its_last_byte() {
        let mut value = write(&IDENTITY, LARGE_BYTES_MIN + 3);
        let at = value.len() - CRC_BYTES - 1;
        value[at] ^= 1;
        let body = value.len() - CRC_BYTES;
        let sum = crc(&value[..body]).to_be_bytes();
        value[body..].copy_from_slice(&sum);
        assert_eq!(read(&value), Err(Torn::Payload));
    }

    #[test]
    fn a_fingerprint_tells_values_of_one_length_apart() {
        assert_eq!(Fingerprint::of(b"ab"), Fingerprint::of(b"ab"));
        assert_ne!(Fingerprint::of(b"ab"), Fingerprint::of(b"ac"));
    }
}
