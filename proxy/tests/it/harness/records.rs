//! Records and batches: made for producers, read back for comparison.

use std::ops::Range;

use bytes::Bytes;
use protocol_ext::batch::{self, BatchHeader, Batches, Caps, Entry, OpenBatch};
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::varint::{write_varint, write_varlong};

/// A record as a client sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.value.as_ref().map(Vec::len);
        write!(out, "record at {} with a value of {value:?} bytes", self.offset)
    }
}

const CAPS: Caps = Caps { body_bytes_max: 1 << 28, rewritten_bytes_max: 1 << 28 };
const BASE_TIMESTAMP: i64 = 1_700_000_000_000;

/// Records with these values, with keys, growing timestamps and twice the same header key.
pub fn records(values: &[Vec<u8>]) -> Vec<Record> {
    let record = |(offset, value): (i64, &Vec<u8>)| Record {
        offset,
        timestamp: BASE_TIMESTAMP + offset * 3,
        key: Some(format!("key-{offset}").into_bytes()),
        value: Some(value.clone()),
        headers: vec![
            (b"h".to_vec(), Some(b"1".to_vec())),
            (b"h".to_vec(), None),
            (b"a".to_vec(), Some(offset.to_be_bytes().to_vec())),
        ],
    };
    (0..).zip(values).map(record).collect()
}

/// The batch that a producer would send, its first record at offset 0.
pub fn batch(codec: Codec, framing: Framing, records: &[Record]) -> Bytes {
    let mut body = Vec::new();
    for record in records {
        let mut fields = vec![0];
        write_varlong(&mut fields, record.timestamp - BASE_TIMESTAMP);
        write_varint(&mut fields, i32::try_from(record.offset).expect("small"));
        put(&mut fields, record.key.as_deref());
        put(&mut fields, record.value.as_deref());
        write_varint(&mut fields, i32::try_from(record.headers.len()).expect("few"));
        for (key, value) in &record.headers {
            put(&mut fields, Some(key));
            put(&mut fields, value.as_deref());
        }
        write_varint(&mut body, i32::try_from(fields.len()).expect("small"));
        body.extend_from_slice(&fields);
    }
    let count = i32::try_from(records.len()).expect("few");
    let header = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: codec.bits(),
        last_offset_delta: count - 1,
        base_timestamp: BASE_TIMESTAMP,
        max_timestamp: records.iter().map(|r| r.timestamp).max().unwrap_or(BASE_TIMESTAMP),
        producer_id: 4711,
        producer_epoch: 3,
        base_sequence: 17,
        records_count: count,
    };
    batch::build(header, framing, &body).expect("a batch")
}

/// A batch of one record with this value, not compressed.
pub fn single(value: Vec<u8>) -> Bytes {
    batch(Codec::None, Framing::Plain, &records(&[value]))
}

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_varint(out, -1),
        Some(bytes) => {
            write_varint(out, i32::try_from(bytes.len()).expect("small"));
            out.extend_from_slice(bytes);
        }
    }
}

/// Whether all batches of a section have the CRC of their bytes.
pub fn sound(section: &Bytes) -> bool {
    Batches::new(section).all(|entry| match entry {
        Ok(Entry::Batch { range, .. }) => batch::verify_crc(&section[range]).is_ok(),
        _ => false,
    })
}

/// The heads of the whole batches of a records section, their CRCs checked.
pub fn heads(section: &Bytes) -> Vec<BatchHeader> {
    entries(section).into_iter().map(|(header, _)| header).collect()
}

/// All records of a section, batch by batch.
pub fn read(section: &Bytes) -> Vec<Record> {
    let mut out = Vec::new();
    for (header, range) in entries(section) {
        let open = OpenBatch::open(section.slice(range), &CAPS).expect("a batch");
        for record in open.records() {
            let record = record.expect("a record");
            let headers = record.headers().map(|header| {
                let header = header.expect("a header");
                (header.key.to_vec(), header.value.map(<[u8]>::to_vec))
            });
            out.push(Record {
                offset: header.base_offset + i64::from(record.offset_delta),
                timestamp: header.base_timestamp + record.timestamp_delta,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: headers.collect(),
            });
        }
    }
    out
}

fn entries(section: &Bytes) -> Vec<(BatchHeader, Range<usize>)> {
    let whole = Batches::new(section).map(|entry| match entry.expect("an entry") {
        Entry::Batch { range, header } => {
            batch::verify_crc(&section[range.clone()]).expect("a CRC that fits");
            (header, range)
        }
        other => panic!("{other:?} in a section"),
    });
    whole.collect()
}
