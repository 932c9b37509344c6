//! Record batches (v2): the 61-byte head, its CRC, and building a batch from its records.
//!
//! Flow: `Batches` cuts a records section into entries without touching records; a batch of
//! interest is opened (`OpenBatch`), which decompresses it at most once; `records()` walks it;
//! `build` or `seal` make a batch anew.
//! Invariant: every length is checked against what remains.

mod crc;
mod open;
mod section;

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{self, Codec, CodecError, Framing};

pub(crate) use crc::{Twin, append_known};
pub use crc::{crc32c, crc32c_appended, crc32c_joined, crc32c_of};
pub use open::{Caps, OpenBatch};
pub use section::{Batches, Entry};

/// Bytes of a v2 batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of base offset and length, which the length field does not count.
pub const LOG_OVERHEAD: usize = 12;

const LENGTH: Range<usize> = 8..12;
const LEADER_EPOCH: Range<usize> = 12..16;
const MAGIC: usize = 16;
pub(crate) const CRC: Range<usize> = 17..21;
/// First byte under the CRC.
pub(crate) const CRC_FROM: usize = 21;

const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;

/// The head of a v2 batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (0 from producers).
    pub base_offset: i64,
    /// Bytes behind this field.
    pub batch_length: i32,
    /// Set by the leader; -1 from producers.
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec (bits 0-2), timestamp type (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Offset of the last record, even a compacted one, relative to the first.
    pub last_offset_delta: i32,
    /// Milliseconds; timestamp deltas count from here.
    pub base_timestamp: i64,
    /// Milliseconds; greatest of the records, or the append time.
    pub max_timestamp: i64,
    /// -1 without idempotence.
    pub producer_id: i64,
    /// -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 without idempotence.
    pub base_sequence: i32,
    /// Records that are there, never negative.
    pub records_count: i32,
}

/// Why bytes are not the batch they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a head, or than the length field says.
    #[error("batch of {len} bytes is shorter than it says")]
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// The length field is negative or too small for its format.
    #[error("impossible batch length {0}")]
    Length(i32),
    /// More bytes than the length field says.
    #[error("{0} bytes behind the batch")]
    Trailing(usize),
    /// Neither 2 nor a legacy magic.
    #[error("unknown magic {0}")]
    Magic(i8),
    /// A negative records count.
    #[error("impossible record count {0}")]
    Count(i32),
    /// The CRC does not match.
    #[error("CRC is {computed:08x}, the batch says {stored:08x}")]
    Crc {
        /// From the head.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// The records could not be decompressed.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl BatchHeader {
    /// Reads the head at the start of `batch`.
    #[inline]
    pub fn parse(batch: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(head) = batch.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Short { len: batch.len() });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(head, 0)),
            batch_length: i32::from_be_bytes(field(head, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(head, 12)),
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            records_count: i32::from_be_bytes(field(head, 57)),
        };
        if head[MAGIC] != 2 {
            return Err(BatchError::Magic(head[MAGIC].cast_signed()));
        }
        if header.wire_len().is_none_or(|len| len < HEADER_BYTES) {
            return Err(BatchError::Length(header.batch_length));
        }
        if header.records_count < 0 {
            return Err(BatchError::Count(header.records_count));
        }
        Ok(header)
    }

    /// The codec named by the attributes.
    pub fn codec(&self) -> Result<Codec, CodecError> {
        Codec::from_attributes(self.attributes)
    }

    /// A transaction marker or another record of the broker's own.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Timestamps are the broker's append time.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// Bytes of the whole batch, `None` if the length field is negative.
    fn wire_len(&self) -> Option<usize> {
        usize::try_from(self.batch_length).ok().map(|len| len + LOG_OVERHEAD)
    }

    /// Writes the head, magic included, over the first bytes of `batch` (>= 61 of them).
    pub(crate) fn write(&self, batch: &mut [u8]) {
        batch[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        batch[LENGTH].copy_from_slice(&self.batch_length.to_be_bytes());
        batch[LEADER_EPOCH].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        batch[MAGIC] = 2;
        batch[CRC].copy_from_slice(&self.crc.to_be_bytes());
        batch[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        batch[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        batch[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        batch[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        batch[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        batch[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        batch[57..61].copy_from_slice(&self.records_count.to_be_bytes());
    }
}

/// Checks the CRC of one whole batch.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let (Some(stored), Some(covered)) = (batch.get(CRC), batch.get(CRC_FROM..)) else {
        return Err(BatchError::Short { len: batch.len() });
    };
    let stored = u32::from_be_bytes(field(stored, 0));
    let computed = crc32c(covered);
    if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
}

/// Sets the base offset in place; it lies outside the CRC.
pub fn set_base_offset(batch: &mut [u8], offset: i64) -> Result<(), BatchError> {
    let len = batch.len();
    let target = batch.get_mut(..8).ok_or(BatchError::Short { len })?;
    target.copy_from_slice(&offset.to_be_bytes());
    Ok(())
}

/// Sets the partition leader epoch in place; it lies outside the CRC.
pub fn set_partition_leader_epoch(batch: &mut [u8], epoch: i32) -> Result<(), BatchError> {
    let len = batch.len();
    let target = batch.get_mut(LEADER_EPOCH).ok_or(BatchError::Short { len })?;
    target.copy_from_slice(&epoch.to_be_bytes());
    Ok(())
}

/// A batch of `header` over `body`, the uncompressed records: compressed by the codec that the
/// attributes name, with the true length and CRC. Counts and deltas are the caller's.
pub fn build(header: BatchHeader, framing: Framing, body: &[u8]) -> Result<Bytes, BatchError> {
    let codec = header.codec()?;
    let guess = if codec == Codec::None { body.len() } else { body.len() / 2 };
    let mut out = Vec::with_capacity(HEADER_BYTES + guess);
    out.resize(HEADER_BYTES, 0);
    codec::compress(codec, framing, body, &mut out)?;
    seal(header, &mut out)?;
    Ok(fitted(out))
}

/// Completes a batch whose bytes are all there: the head with its true length, then the CRC.
pub(crate) fn seal(header: BatchHeader, batch: &mut [u8]) -> Result<(), BatchError> {
    let batch_length = length_field(batch.len())?;
    BatchHeader { batch_length, ..header }.write(batch);
    let crc = crc32c(&batch[CRC_FROM..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// The head of a batch whose records are elsewhere, with its true length and CRC.
pub(crate) fn head_over(header: BatchHeader, body: &[u8]) -> Result<Bytes, BatchError> {
    let batch_length = length_field(HEADER_BYTES + body.len())?;
    let mut head = [0; HEADER_BYTES];
    BatchHeader { batch_length, ..header }.write(&mut head);
    let crc = crc32c_of(&[&head[CRC_FROM..], body]);
    head[CRC].copy_from_slice(&crc.to_be_bytes());
    Ok(Bytes::copy_from_slice(&head))
}

/// The length field of a batch of `wire_bytes`.
pub(crate) fn length_field(wire_bytes: usize) -> Result<i32, BatchError> {
    i32::try_from(wire_bytes - LOG_OVERHEAD).map_err(|_| BatchError::Length(i32::MAX))
}

/// `bytes` without room that nobody will use: batches live on in queues that count their length.
fn fitted(mut bytes: Vec<u8>) -> Bytes {
    if bytes.capacity() - bytes.len() > bytes.len() / 8 {
        bytes.shrink_to_fit();
    }
    Bytes::from(bytes)
}

/// `N` bytes at `at`, which the callers have checked to be there.
#[inline(always)]
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: 1,
            batch_length: 49,
            partition_leader_epoch: 3,
            crc: 0,
            attributes: 0x38,
            last_offset_delta: 4,
            base_timestamp: 5,
            max_timestamp: 6,
            producer_id: 7,
            producer_epoch: 8,
            base_sequence: 9,
            records_count: 0,
        }
    }

    #[test]
    fn an_empty_batch_keeps_every_field_at_its_place() {
        let batch = build(header(), Framing::Plain, &[]).unwrap();
        assert_eq!(batch.len(), HEADER_BYTES);
        verify_crc(&batch).unwrap();
        let read = BatchHeader::parse(&batch).unwrap();
        assert_eq!(read, BatchHeader { crc: read.crc, ..header() });
        assert!(read.is_control() && read.is_transactional() && read.is_log_append_time());
        let at: Vec<u8> = [7, 15, 16, 22, 26, 34, 42, 50, 52, 56, 60].map(|i| batch[i]).to_vec();
        assert_eq!(at, [1, 3, 2, 0x38, 4, 5, 6, 7, 8, 9, 0]);
    }

    #[test]
    fn impossible_heads_are_told_apart() {
        let batch = build(header(), Framing::Plain, &[]).unwrap();
        let parse = |at: usize, bytes: &[u8]| {
            let mut batch = batch.to_vec();
            batch[at..at + bytes.len()].copy_from_slice(bytes);
            BatchHeader::parse(&batch).unwrap_err()
        };
        assert_eq!(parse(16, &[3]), BatchError::Magic(3));
        assert_eq!(parse(16, &[1]), BatchError::Magic(1));
        assert_eq!(parse(8, &[0, 0, 0, 48]), BatchError::Length(48));
        assert_eq!(parse(8, &[0xff; 4]), BatchError::Length(-1));
        assert_eq!(parse(57, &[0xff; 4]), BatchError::Count(-1));
        assert_eq!(BatchHeader::parse(&batch[..60]), Err(BatchError::Short { len: 60 }));
        assert_eq!(verify_crc(&batch[..20]), Err(BatchError::Short { len: 20 }));
    }
}
