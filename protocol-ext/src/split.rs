//! Splitting a producer's batch by slot (virtual topics).
//!
//! Flow: one walk asks the slot of each record and sums sizes; if all agree the batch passes as
//! it is; else a second walk copies each record into its slot's batch with a new offset delta.
//! Invariant: within a slot records keep their order; every byte of a record but its length and
//! offset delta is copied; each part is a batch that a broker accepts by itself.

use bytes::Bytes;

use crate::batch::{
    BatchError, BatchHeader, HEADER_BYTES, OpenBatch, build, head_over, seal, verify_crc,
};
use crate::codec::{Codec, CodecError};
use crate::records::{RecordAt, RecordError, RecordView};
use crate::varint::{varint_len, write_varint};

/// Producer fields to write instead of the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerFields {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of each part's first record.
    pub base_sequence: i32,
}

/// How to write the parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitOptions {
    /// Overrides the producer fields of every part; a batch that stays whole is copied then.
    pub producer: Option<ProducerFields>,
}

/// The part of a batch that goes to one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubBatch {
    /// The slot asked for.
    pub slot: u8,
    /// A batch of its own, or the source's if all its records go to this slot.
    pub batch: Pieces,
    /// Records in it.
    pub records: u32,
}

/// A batch in two pieces, so that another head takes no copy of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// The first 61 bytes, up to the records.
    pub head: Bytes,
    /// The records, compressed or not.
    pub body: Bytes,
}

impl Pieces {
    /// The pieces of a whole batch.
    fn of(mut batch: Bytes) -> Pieces {
        let body = batch.split_off(HEADER_BYTES.min(batch.len()));
        Pieces { head: batch, body }
    }

    /// Bytes of the batch.
    #[expect(clippy::len_without_is_empty, reason = "no batch is empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The batch in one piece: a copy.
    pub fn joined(&self) -> Bytes {
        Bytes::from([&self.head[..], &self.body].concat())
    }
}

/// Why a batch cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The batch is damaged or too large.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records are malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Offset deltas are not 0, 1, 2 ..., as brokers ask of producers.
    #[error("record {index} has offset delta {offset_delta}")]
    Offsets {
        /// 0-based number in the batch.
        index: u32,
        /// What it says.
        offset_delta: i32,
    },
    /// Control records and empty batches come from brokers, never from producers.
    #[error("a control or empty batch cannot be split")]
    NotFromProducer,
}

impl From<CodecError> for SplitError {
    fn from(error: CodecError) -> SplitError {
        SplitError::Batch(BatchError::Codec(error))
    }
}

/// Splits one batch by the slot that `slot_of` gives each record. Parts come by rising slot.
pub fn split(
    batch: &OpenBatch,
    options: &SplitOptions,
    slot_of: impl FnMut(&RecordView<'_>) -> u8,
) -> Result<Vec<SubBatch>, SplitError> {
    let header = batch.header();
    if header.is_control() || header.records_count == 0 {
        return Err(SplitError::NotFromProducer);
    }
    batch.ensure_crc()?;
    let Plan { part_of, mut parts } = plan(batch, slot_of)?;
    if let [part] = &parts[..] {
        let whole = match options.producer {
            None => Pieces::of(batch.raw().clone()),
            Some(producer) => overridden(batch.raw().clone(), batch.header(), producer)?,
        };
        return Ok(vec![SubBatch { slot: part.slot, batch: whole, records: part.records }]);
    }
    for part in &mut parts {
        part.out.reserve_exact(HEADER_BYTES + part.body_bytes);
        part.out.resize(HEADER_BYTES, 0);
        part.records = 0;
    }
    for (record, part) in batch.records().zip(&part_of) {
        parts[usize::from(*part)].push(batch.body(), &record?);
    }
    parts.sort_by_key(|part| part.slot);
    parts.into_iter().map(|part| part.finish(batch, options)).collect()
}

/// A copy of `batch` with other producer fields and its CRC, checked before, redone. The records
/// stay compressed.
pub fn with_producer(batch: &Bytes, producer: ProducerFields) -> Result<Bytes, BatchError> {
    verify_crc(batch)?;
    Ok(overridden(batch.clone(), &BatchHeader::parse(batch)?, producer)?.joined())
}

fn overridden(
    batch: Bytes,
    header: &BatchHeader,
    producer: ProducerFields,
) -> Result<Pieces, BatchError> {
    let body = Pieces::of(batch).body;
    let head = head_over(producer.over(*header), &body)?;
    Ok(Pieces { head, body })
}

impl ProducerFields {
    fn over(self, header: BatchHeader) -> BatchHeader {
        BatchHeader {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.base_sequence,
            ..header
        }
    }
}

struct Plan {
    /// Index into `parts` of each record.
    part_of: Vec<u8>,
    /// In order of first appearance.
    parts: Vec<Part>,
}

struct Part {
    slot: u8,
    records: u32,
    body_bytes: usize,
    max_timestamp: i64,
    out: Vec<u8>,
}

fn plan(
    batch: &OpenBatch,
    mut slot_of: impl FnMut(&RecordView<'_>) -> u8,
) -> Result<Plan, SplitError> {
    let mut index_of: [Option<u8>; 256] = [None; 256];
    let mut parts: Vec<Part> = Vec::new();
    let mut part_of = Vec::new();
    for record in batch.records() {
        let record = record?;
        let RecordAt { index, .. } = record.at;
        if i64::from(record.offset_delta) != i64::from(index) {
            return Err(SplitError::Offsets { index, offset_delta: record.offset_delta });
        }
        let slot = slot_of(&record);
        let known = &mut index_of[usize::from(slot)];
        // there are at most 256 parts, so the index fits
        let part = *known.get_or_insert_with(|| {
            parts.push(Part::new(slot));
            u8::try_from(parts.len() - 1).unwrap_or(u8::MAX)
        });
        part_of.push(part);
        parts[usize::from(part)].count(&record, batch.header().base_timestamp);
    }
    Ok(Plan { part_of, parts })
}

impl Part {
    fn new(slot: u8) -> Part {
        Part { slot, records: 0, body_bytes: 0, max_timestamp: i64::MIN, out: Vec::new() }
    }

    fn count(&mut self, record: &RecordView<'_>, base_timestamp: i64) {
        let length = record_length(record, self.records);
        self.body_bytes += varint_len(length) + length.unsigned_abs() as usize;
        let timestamp = base_timestamp.saturating_add(record.timestamp_delta);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.records += 1;
    }

    fn push(&mut self, body: &[u8], record: &RecordView<'_>) {
        let layout = &record.layout;
        write_varint(&mut self.out, record_length(record, self.records));
        self.out.extend_from_slice(&body[layout.fields..layout.offset_delta]);
        write_varint(&mut self.out, self.records.cast_signed());
        self.out.extend_from_slice(&body[layout.key_len..layout.end]);
        self.records += 1;
    }

    fn finish(self, source: &OpenBatch, options: &SplitOptions) -> Result<SubBatch, SplitError> {
        let mut header = BatchHeader {
            last_offset_delta: self.records.cast_signed() - 1,
            max_timestamp: self.max_timestamp,
            records_count: self.records.cast_signed(),
            ..*source.header()
        };
        if let Some(producer) = options.producer {
            header = producer.over(header);
        }
        let batch = if source.codec() == Codec::None {
            let mut out = self.out;
            seal(header, &mut out)?;
            Bytes::from(out)
        } else {
            build(header, source.framing(), &self.out[HEADER_BYTES..])?
        };
        Ok(SubBatch { slot: self.slot, batch: Pieces::of(batch), records: self.records })
    }
}

/// The length field of `record` with another offset delta: the delta takes no more bytes than
/// before, since a record never moves back within its slot.
fn record_length(record: &RecordView<'_>, offset_delta: u32) -> i32 {
    let layout = &record.layout;
    let old = layout.key_len - layout.offset_delta;
    let bytes = layout.end - layout.fields - old + varint_len(offset_delta.cast_signed());
    // not larger than the field it replaces, so it fits
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Caps;
    use crate::codec::Framing;

    const CAPS: Caps = Caps { body_bytes_max: 10_000, rewritten_bytes_max: 10_000 };

    fn batch(attributes: i16, offset_deltas: &[i32]) -> OpenBatch {
        let mut body = Vec::new();
        for delta in offset_deltas {
            let mut record = vec![0, 0];
            write_varint(&mut record, *delta);
            record.extend_from_slice(&[1, 1, 0]);
            write_varint(&mut body, i32::try_from(record.len()).unwrap());
            body.extend_from_slice(&record);
        }
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: i32::try_from(offset_deltas.len()).unwrap(),
        };
        let batch = build(header, Framing::Plain, &body).unwrap();
        OpenBatch::open(batch, &CAPS).unwrap()
    }

    #[test]
    fn what_no_producer_sends_is_not_split() {
        let split = |open: &OpenBatch| split(open, &SplitOptions::default(), |_| 0).unwrap_err();
        assert_eq!(split(&batch(0x20, &[0])), SplitError::NotFromProducer);
        assert_eq!(split(&batch(0, &[])), SplitError::NotFromProducer);
        let gap = SplitError::Offsets { index: 1, offset_delta: 2 };
        assert_eq!(split(&batch(0, &[0, 2])), gap);
    }

    #[test]
    fn every_slot_there_is_can_be_used_at_once() {
        let deltas: Vec<i32> = (0..256).collect();
        let parts = split(&batch(0, &deltas), &SplitOptions::default(), |record| {
            255 - u8::try_from(record.at.index).unwrap()
        });
        let slots: Vec<u8> = parts.unwrap().iter().map(|part| part.slot).collect();
        assert_eq!(slots, (0..=255).collect::<Vec<u8>>());
    }
}
