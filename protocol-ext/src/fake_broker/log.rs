//! One partition's log in memory: batches with their offsets and leader epoch set.

use std::collections::HashMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchError, BatchHeader};

const OUT_OF_ORDER: i16 = 45;
const OLDER_EPOCH: i16 = 47;

/// The log of a partition.
#[derive(Debug, Clone, Default)]
pub struct FakeLog {
    batches: Vec<(Range<i64>, Bytes)>,
    end: i64,
    producers: HashMap<i64, Last>,
}

/// The last batch of a producer id.
#[derive(Debug, Clone, Copy)]
struct Last {
    epoch: i16,
    sequences: (i32, i32),
    base: i64,
}

/// What an append by a producer with sequences came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequenced {
    /// Written at this offset.
    New(i64),
    /// It was there, at this offset.
    Duplicate(i64),
    /// Refused with this code.
    Refused(i16),
}

impl FakeLog {
    /// Appends one batch as a broker does: CRC checked, base offset and leader epoch set.
    pub fn append(&mut self, records: &[u8]) -> Result<i64, BatchError> {
        let header = BatchHeader::parse(records)?;
        batch::verify_crc(records)?;
        let base = self.end;
        let mut stored = BytesMut::from(records);
        batch::set_base_offset(&mut stored, base)?;
        batch::set_partition_leader_epoch(&mut stored, 0)?;
        self.end = base + i64::from(header.last_offset_delta) + 1;
        self.batches.push((base..self.end, stored.freeze()));
        Ok(base)
    }

    /// Appends a message of an old format (magic 0 or 1) as it lies in logs that were never
    /// rewritten.
    pub fn append_legacy(&mut self, message: &[u8]) {
        let mut stored = BytesMut::from(message);
        stored[..8].copy_from_slice(&self.end.to_be_bytes());
        self.batches.push((self.end..self.end + 1, stored.freeze()));
        self.end += 1;
    }

    /// Appends a batch of one of many epochs: a newer epoch starts at 0, the same one repeats
    /// its last batch, an older one is refused.
    pub fn append_sequenced(&mut self, records: &[u8]) -> Result<Sequenced, BatchError> {
        let header = BatchHeader::parse(records)?;
        batch::verify_crc(records)?;
        let first = header.base_sequence;
        let sequences = (first, first.wrapping_add(header.last_offset_delta));
        let epoch = header.producer_epoch;
        match self.producers.get(&header.producer_id) {
            Some(last) if epoch < last.epoch => return Ok(Sequenced::Refused(OLDER_EPOCH)),
            Some(last) if epoch == last.epoch && sequences == last.sequences => {
                return Ok(Sequenced::Duplicate(last.base));
            }
            Some(last) => {
                let next = if epoch == last.epoch { last.sequences.1.wrapping_add(1) } else { 0 };
                if first != next {
                    return Ok(Sequenced::Refused(OUT_OF_ORDER));
                }
            }
            None => {}
        }
        let base = self.append(records)?;
        self.producers.insert(header.producer_id, Last { epoch, sequences, base });
        Ok(Sequenced::New(base))
    }

    /// Producer id, epoch and last sequence of the last batch of each.
    pub fn producers(&self) -> impl Iterator<Item = (i64, i16, i32)> {
        self.producers.iter().map(|(id, last)| (*id, last.epoch, last.sequences.1))
    }

    /// Offset behind the last record.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The batches as they are stored.
    pub fn batches(&self) -> impl Iterator<Item = &Bytes> {
        self.batches.iter().map(|(_, bytes)| bytes)
    }

    /// The batches from `offset` on that fit `bytes_max`, the first one even if it does not.
    pub(super) fn read(&self, offset: i64, bytes_max: usize, first_whole: bool) -> Bytes {
        let mut out: Vec<&Bytes> = Vec::new();
        let mut len = 0;
        for (offsets, bytes) in &self.batches {
            if offsets.end <= offset {
                continue;
            }
            if len + bytes.len() > bytes_max && !(out.is_empty() && first_whole) {
                break;
            }
            len += bytes.len();
            out.push(bytes);
        }
        match out.as_slice() {
            [one] => (*one).clone(),
            many => many.iter().flat_map(|bytes| bytes.iter().copied()).collect(),
        }
    }
}
