//! One partition's log in memory: batches with their offsets and leader epoch set.

use std::collections::{BTreeMap, VecDeque};
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
    producers: BTreeMap<i64, Producer>,
    /// Leader and its epoch, where a test sets them; else the brokers share the partitions out.
    pub leader: Option<(i32, i32)>,
    /// Batches that came again and were told the offset they have.
    pub duplicates: usize,
    /// Replicas have so much of it; `None`: all.
    pub replicated: Option<i64>,
    /// First offset of the transaction of each producer id that has one open.
    open: BTreeMap<i64, i64>,
    /// Producer id, first offset and marker of transactions that came to nothing.
    aborted: Vec<(i64, i64, i64)>,
}

/// What is known of a producer id.
#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: i16,
    /// Its last batches: first and last sequence, offset.
    last: VecDeque<(i32, i32, i64)>,
}

/// Batches of a producer that are known again, as brokers keep.
const KNOWN_AGAIN: usize = 5;

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

    /// Appends a message of an old format (magic 0 or 1) as it lies in logs that were never
    /// rewritten.
    pub fn append_legacy(&mut self, message: &[u8]) {
        let mut stored = BytesMut::from(message);
        stored[..8].copy_from_slice(&self.end.to_be_bytes());
        self.batches.push((self.end..self.end + 1, stored.freeze()));
        self.end += 1;
    }

    /// Appends a batch with sequences: a newer epoch starts at 0, one of the last batches of the
    /// same epoch is there already, any other must be the next, an older epoch is refused.
    pub fn append_sequenced(&mut self, records: &[u8]) -> Result<Sequenced, BatchError> {
        let header = BatchHeader::parse(records)?;
        batch::verify_crc(records)?;
        let first = header.base_sequence;
        let last = first.wrapping_add(header.last_offset_delta);
        let epoch = header.producer_epoch;
        if let Some(known) = self.producers.get(&header.producer_id) {
            if epoch < known.epoch {
                return Ok(Sequenced::Refused(OLDER_EPOCH));
            }
            let same = epoch == known.epoch;
            let again = |(a, b, _): &&(i32, i32, i64)| same && (*a, *b) == (first, last);
            if let Some((_, _, base)) = known.last.iter().find(again) {
                self.duplicates += 1;
                return Ok(Sequenced::Duplicate(*base));
            }
            let next = known.last.back().filter(|_| same).map_or(0, |last| last.1.wrapping_add(1));
            if first != next {
                return Ok(Sequenced::Refused(OUT_OF_ORDER));
            }
        }
        let base = self.append(records)?;
        let known = self.producers.entry(header.producer_id).or_default();
        if known.epoch != epoch {
            *known = Producer { epoch, last: VecDeque::new() };
        }
        if known.last.len() == KNOWN_AGAIN {
            known.last.pop_front();
        }
        known.last.push_back((first, last, base));
        Ok(Sequenced::New(base))
    }

    /// Producer id, epoch and last sequence of the last batch of each.
    pub fn producers(&self) -> impl Iterator<Item = (i64, i16, i32)> {
        let last = |known: &Producer| known.last.back().map_or(-1, |last| last.1);
        self.producers.iter().map(move |(id, known)| (*id, known.epoch, last(known)))
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
    pub fn shorten(&mut self, offset: i64) -> Option<i64> {
        let offset = if offset == -1 { self.end } else { offset };
        if offset < 0 || offset > self.end {
            return None;
        }
        self.start = self.start.max(offset);
        self.batches.retain(|(offsets, _)| offsets.end > self.start);
        Some(self.start)
    }

    /// Leaves of each batch what `keep` gives of it, as compaction does: offsets stay.
    pub fn compact(&mut self, mut keep: impl FnMut(&Bytes) -> Option<Bytes>) {
        self.batches.retain_mut(|(_, bytes)| {
            let kept = keep(bytes);
            kept.map(|kept| *bytes = kept).is_some()
        });
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
