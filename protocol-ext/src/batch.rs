//! Record batches (v2): the 61-byte head, the way over a records section, CRC, and opening.
//!
//! Flow: `Batches` cuts a records section into entries without touching records; a batch of
//! interest is opened (`OpenBatch`), which decompresses it at most once; `records()` walks it.
//! Invariant: every length is checked against what remains; legacy message sets and the cut
//! last batch of a Fetch answer are told apart from damage and pass opaque.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{self, Codec, CodecError, Framing};
use crate::records::Records;

/// Bytes of a v2 batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of base offset and length, which the length field does not count.
pub const LOG_OVERHEAD: usize = 12;

const LENGTH: Range<usize> = 8..12;
const LEADER_EPOCH: Range<usize> = 12..16;
const MAGIC: usize = 16;
const CRC: Range<usize> = 17..21;
/// First byte under the CRC.
const CRC_FROM: usize = 21;
/// Smallest message of the old format: CRC, magic, attributes, two null lengths.
const LEGACY_BYTES_MIN: usize = 14;

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
        usize::try_from(self.batch_length)
            .ok()
            .map(|len| len + LOG_OVERHEAD)
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

/// One entry of a records section; ranges count from the section's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A whole v2 batch.
    Batch {
        /// Where it lies.
        range: Range<usize>,
        /// Its head.
        header: BatchHeader,
    },
    /// A whole message (or wrapper message) of the old formats, magic 0 or 1.
    Legacy {
        /// Where it lies.
        range: Range<usize>,
    },
    /// A batch that goes on behind the end: legal as the last of a Fetch answer.
    Partial {
        /// What is there of it.
        range: Range<usize>,
    },
}

/// Iterator over the entries of a records section. Stops after an error or a `Partial`.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    section: &'a [u8],
    pos: usize,
}

impl<'a> Batches<'a> {
    /// Entries of `section`, the bytes of a Produce or Fetch partition's records field.
    pub fn new(section: &'a [u8]) -> Batches<'a> {
        Batches { section, pos: 0 }
    }

    fn entry(&self) -> Result<Entry, BatchError> {
        let rest = &self.section[self.pos..];
        let partial = Entry::Partial {
            range: self.pos..self.section.len(),
        };
        let Some(head) = rest.first_chunk::<{ MAGIC + 1 }>() else {
            return Ok(partial);
        };
        let length = i32::from_be_bytes(field(head, LENGTH.start));
        let wire_len = usize::try_from(length).map_err(|_| BatchError::Length(length))?;
        let wire_len = wire_len + LOG_OVERHEAD;
        let smallest = match head[MAGIC] {
            0 | 1 => LOG_OVERHEAD + LEGACY_BYTES_MIN,
            2 => HEADER_BYTES,
            other => return Err(BatchError::Magic(other.cast_signed())),
        };
        if wire_len < smallest {
            return Err(BatchError::Length(length));
        }
        if wire_len > rest.len() {
            return Ok(partial);
        }
        let range = self.pos..self.pos + wire_len;
        if head[MAGIC] == 2 {
            Ok(Entry::Batch {
                range,
                header: BatchHeader::parse(rest)?,
            })
        } else {
            Ok(Entry::Legacy { range })
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Entry, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.section.len() {
            return None;
        }
        let entry = self.entry();
        self.pos = match &entry {
            Ok(Entry::Batch { range, .. } | Entry::Legacy { range }) => range.end,
            Ok(Entry::Partial { .. }) | Err(_) => self.section.len(),
        };
        Some(entry)
    }
}

/// CRC-32C (Castagnoli) of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Checks the CRC of one whole batch.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let (Some(stored), Some(covered)) = (batch.get(CRC), batch.get(CRC_FROM..)) else {
        return Err(BatchError::Short { len: batch.len() });
    };
    let stored = u32::from_be_bytes(field(stored, 0));
    let computed = crc32c(covered);
    if stored == computed {
        Ok(())
    } else {
        Err(BatchError::Crc { stored, computed })
    }
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
    let target = batch
        .get_mut(LEADER_EPOCH)
        .ok_or(BatchError::Short { len })?;
    target.copy_from_slice(&epoch.to_be_bytes());
    Ok(())
}

/// Completes a batch whose bytes are all there: the head with its true length, then the CRC.
pub(crate) fn seal(header: BatchHeader, batch: &mut [u8]) -> Result<(), BatchError> {
    let length = i32::try_from(batch.len() - LOG_OVERHEAD).map_err(|_| BatchError::Length(-1))?;
    BatchHeader {
        batch_length: length,
        ..header
    }
    .write(batch);
    let crc = crc32c(&batch[CRC_FROM..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Bounds for opening and rewriting one batch.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Most bytes that the decompressed records may take.
    pub body_bytes_max: usize,
    /// Most bytes that a rewritten batch's records may take before compression.
    pub rewritten_bytes_max: usize,
}

/// A batch with its records at hand, decompressed once; kept while uploads go on.
#[derive(Clone, Debug)]
pub struct OpenBatch {
    raw: Bytes,
    header: BatchHeader,
    codec: Codec,
    framing: Framing,
    body: Bytes,
    crc_checked: bool,
}

impl OpenBatch {
    /// Opens exactly one v2 batch. The CRC is left for [`OpenBatch::check_crc`]; whatever builds
    /// a new batch from this one checks it first.
    pub fn open(raw: Bytes, caps: &Caps) -> Result<OpenBatch, BatchError> {
        let header = BatchHeader::parse(&raw)?;
        let wire_len = header
            .wire_len()
            .ok_or(BatchError::Length(header.batch_length))?;
        if raw.len() < wire_len {
            return Err(BatchError::Short { len: raw.len() });
        }
        if raw.len() > wire_len {
            return Err(BatchError::Trailing(raw.len() - wire_len));
        }
        let codec = header.codec()?;
        let (framing, body) = if codec == Codec::None || raw.len() == HEADER_BYTES {
            let bytes_max = caps.body_bytes_max;
            if raw.len() - HEADER_BYTES > bytes_max {
                return Err(CodecError::TooLarge { bytes_max }.into());
            }
            (Framing::Plain, raw.slice(HEADER_BYTES..))
        } else {
            let mut body = Vec::new();
            let packed = &raw[HEADER_BYTES..];
            let framing = codec::decompress(codec, packed, caps.body_bytes_max, &mut body)?;
            (framing, Bytes::from(body))
        };
        Ok(OpenBatch {
            raw,
            header,
            codec,
            framing,
            body,
            crc_checked: false,
        })
    }

    /// Checks the CRC, once.
    pub fn check_crc(&mut self) -> Result<(), BatchError> {
        self.ensure_crc()?;
        self.crc_checked = true;
        Ok(())
    }

    pub(crate) fn ensure_crc(&self) -> Result<(), BatchError> {
        if self.crc_checked {
            Ok(())
        } else {
            verify_crc(&self.raw)
        }
    }

    /// The batch as it came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Its head.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Its codec's framing.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The records, decompressed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Walks the records.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.body, self.header.records_count.cast_unsigned())
    }

    /// A value (or any part of the body) as `Bytes`, without a copy. `None` if out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        self.body.get(range.clone()).map(|_| self.body.slice(range))
    }
}

/// `N` bytes at `at`, which the callers have checked to be there.
#[inline(always)]
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
