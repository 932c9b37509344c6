//! One partition's log in memory: batches with their offsets and leader epoch set.

use std::collections::HashMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::batch::{self, BatchError, BatchHeader};
use crate::codec::Framing;

/// Attributes of a marker: transactional and control.
const MARKER: i16 = 1 << 4 | 1 << 5;
const OUT_OF_ORDER: i16 = 45;
const OLDER_EPOCH: i16 = 47;

/// The log of a partition.
#[derive(Debug, Clone, Default)]
pub struct FakeLog {
    batches: Vec<(Range<i64>, Bytes)>,
    start: i64,
    end: i64,
    producers: HashMap<i64, Last>,
    /// Replicas have so much of it; `None`: all.
    pub replicated: Option<i64>,
    /// First offset of the transaction of each producer id that has one open.
    open: HashMap<i64, i64>,
    /// Producer id, first offset and marker of transactions that came to nothing.
    aborted: Vec<(i64, i64, i64)>,
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
        if header.is_transactional() && !header.is_control() {
            self.open.entry(header.producer_id).or_insert(base);
        }
        self.end = base + i64::from(header.last_offset_delta) + 1;
        self.batches.push((base..self.end, stored.freeze()));
        Ok(base)
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

    /// Ends the transaction of a producer id, if it has one open.
    pub fn end_transaction(&mut self, id: i64, epoch: i16, committed: bool) {
        let Some(first) = self.open.remove(&id) else { return };
        let marker = self.end;
        if !committed {
            self.aborted.push((id, first, marker));
        }
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: MARKER,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: -1,
            records_count: 1,
        };
        // Key: version 0 and the kind; value: version 0 and the coordinator's epoch.
        let kind = u8::from(committed);
        let record = [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 0, 0];
        if let Ok(batch) = batch::build(header, Framing::Plain, &record) {
            // It is what was just built.
            let _ = self.append(&batch);
        }
    }

    /// Offset behind what all replicas have.
    pub fn high_watermark(&self) -> i64 {
        self.replicated.map_or(self.end, |replicated| replicated.min(self.end))
    }

    /// Producer ids with an open transaction, and where it starts.
    pub fn transactions(&self) -> impl Iterator<Item = (i64, i64)> {
        self.open.iter().map(|(id, first)| (*id, *first))
    }

    /// Offset of the first record of an open transaction, or the end.
    pub fn stable_end(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// Producer ids and first offsets of transactions that came to nothing and end behind `offset`.
    pub(super) fn aborted_behind(&self, offset: i64) -> impl Iterator<Item = (i64, i64)> {
        let behind = self.aborted.iter().filter(move |(.., marker)| *marker >= offset);
        behind.map(|(id, first, _)| (*id, *first))
    }

    /// Offset behind the last record.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Offset and timestamp of the first batch that is not older, or (for -3) of the one with the
    /// largest timestamp.
    pub(super) fn first_at(&self, timestamp: i64) -> Option<(i64, i64)> {
        let batches = self.batches.iter().filter_map(|(offsets, bytes)| {
            Some((offsets.start, BatchHeader::parse(bytes).ok()?.max_timestamp))
        });
        match timestamp {
            0.. => batches.into_iter().find(|(_, time)| *time >= timestamp),
            _ => batches.rev().max_by_key(|(_, time)| *time),
        }
    }

    /// Deletes what lies before an offset, -1 being the end; gives the new start, `None` beyond
    /// the end.
    pub(super) fn shorten(&mut self, offset: i64) -> Option<i64> {
        let offset = if offset == -1 { self.end } else { offset };
        if offset < 0 || offset > self.end {
            return None;
        }
        self.start = self.start.max(offset);
        self.batches.retain(|(offsets, _)| offsets.end > self.start);
        Some(self.start)
    }

    /// Offset of the first record.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The batches as they are stored.
    pub fn batches(&self) -> impl Iterator<Item = &Bytes> {
        self.batches.iter().map(|(_, bytes)| bytes)
    }

    /// The batches from `offset` to `end` that fit `bytes_max`, the first one even if it does not.
    pub(super) fn read(
        &self,
        (offset, end): (i64, i64),
        bytes_max: usize,
        first_whole: bool,
    ) -> Bytes {
        let mut out: Vec<&Bytes> = Vec::new();
        let mut len = 0;
        for (offsets, bytes) in &self.batches {
            if offsets.end <= offset || offsets.start >= end {
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
