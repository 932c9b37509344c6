//! Records that say who sent them: producer, partition, number, and bytes that follow from these.

use bytes::Bytes;
use protocol_ext::batch::{self, BatchHeader, Batches, Caps, Entry, OpenBatch};
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::hostile::random::Random;
use protocol_ext::reference::Reference;
use protocol_ext::varint::{write_varint, write_varlong};

/// Header that routes records of the virtual topic.
pub const REGION: &[u8] = b"region";

const CAPS: Caps = Caps { body_bytes_max: 1 << 26, rewritten_bytes_max: 1 << 26 };
const BASE_TIMESTAMP: i64 = 1_700_000_000_000;
const HEAD_BYTES: usize = 16;

/// A record as its producer counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    /// Who sent it.
    pub producer: u32,
    /// Partition it was sent to, as clients see the topic.
    pub partition: i32,
    /// Its number there, from 0 on.
    pub number: u32,
    /// Bytes of its value.
    pub bytes: u32,
}

impl Numbered {
    /// The value: it follows from the rest.
    pub fn value(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.bytes as usize);
        value.extend(self.producer.to_be_bytes());
        value.extend(self.partition.to_be_bytes());
        value.extend(self.number.to_be_bytes());
        value.extend(self.bytes.to_be_bytes());
        let seed = u64::from(self.producer) << 32 | u64::from(self.number);
        let mut noise = Random::new(seed, u64::from(self.partition.unsigned_abs()));
        while value.len() < self.bytes as usize {
            value.extend(noise.draw().to_le_bytes());
        }
        value.truncate((self.bytes as usize).max(HEAD_BYTES));
        value
    }

    /// The record of a value; `None` if it is not as it was sent.
    pub fn of(value: &[u8]) -> Option<Self> {
        let field = |n: usize| Some(u32::from_be_bytes(value[n * 4..n * 4 + 4].try_into().ok()?));
        if value.len() < HEAD_BYTES {
            return None;
        }
        let partition = i32::try_from(field(1)?).ok()?;
        let read = Self { producer: field(0)?, partition, number: field(2)?, bytes: field(3)? };
        (read.bytes as usize == value.len() && read.value() == value).then_some(read)
    }
}

/// Producer id, epoch and sequence of a batch; -1 for those without.
#[derive(Debug, Clone, Copy)]
pub struct Sequence {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub first: i32,
}

/// Of a batch that is not counted.
pub const NO_SEQUENCE: Sequence = Sequence { id: -1, epoch: -1, first: -1 };

/// The batch of some records; those with an even number name the region.
pub fn batch(records: &[Numbered], sequence: Sequence) -> Bytes {
    let mut body = Vec::new();
    for (offset, record) in (0..).zip(records) {
        let mut fields = vec![0];
        write_varlong(&mut fields, i64::from(offset));
        write_varint(&mut fields, offset);
        put(&mut fields, &record.number.to_be_bytes());
        put(&mut fields, &record.value());
        let region: &[u8] = if record.number % 2 == 0 { b"norcal" } else { b"elsewhere" };
        write_varint(&mut fields, 1);
        put(&mut fields, REGION);
        put(&mut fields, region);
        write_varint(&mut body, i32::try_from(fields.len()).expect("small"));
        body.extend_from_slice(&fields);
    }
    let count = i32::try_from(records.len()).expect("few");
    let header = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: Codec::None.bits(),
        last_offset_delta: count - 1,
        base_timestamp: BASE_TIMESTAMP,
        max_timestamp: BASE_TIMESTAMP + i64::from(count) - 1,
        producer_id: sequence.id,
        producer_epoch: sequence.epoch,
        base_sequence: sequence.first,
        records_count: count,
    };
    batch::build(header, Framing::Plain, &body).expect("a batch")
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, i32::try_from(bytes.len()).expect("small"));
    out.extend_from_slice(bytes);
}

/// Records of a batch of which the log has a reference only.
pub fn references(batch: &Bytes) -> usize {
    let open = OpenBatch::open(batch.clone(), &CAPS).expect("a batch of a log");
    let records = open.records().map(|record| record.expect("a record of a log"));
    records.filter(|record| record.value.is_some_and(Reference::looks_like)).count()
}

/// Offsets and records of a section of batches, or what is wrong with it.
pub fn read(section: &Bytes) -> Result<Vec<(i64, Numbered)>, String> {
    let mut out = Vec::new();
    for entry in Batches::new(section) {
        let (range, header) = match entry.map_err(|error| error.to_string())? {
            Entry::Batch { range, header } => (range, header),
            Entry::Partial { .. } => break,
            Entry::Legacy { .. } => return Err("a batch of old".to_owned()),
        };
        batch::verify_crc(&section[range.clone()]).map_err(|error| error.to_string())?;
        let open = OpenBatch::open(section.slice(range), &CAPS).map_err(|e| e.to_string())?;
        for record in open.records() {
            let record = record.map_err(|error| error.to_string())?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let value = record.value.unwrap_or_default();
            let numbered = Numbered::of(value);
            let numbered = numbered.ok_or_else(|| {
                format!("value of {} bytes at offset {offset} is not as it was sent", value.len())
            })?;
            out.push((offset, numbered));
        }
    }
    Ok(out)
}
