//! One partition's log in memory: batches with their offsets and leader epoch set.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchError, BatchHeader};

/// The log of a partition.
#[derive(Debug, Clone, Default)]
pub struct FakeLog {
    batches: Vec<(Range<i64>, Bytes)>,
    end: i64,
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
