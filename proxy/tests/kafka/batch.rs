//! Record batches and old message sets, byte by byte.

use crc_fast::{CrcAlgorithm, checksum};

/// A record batch (magic 2) of uncompressed records without keys, created at a fixed time.
pub fn records(values: &[&str]) -> Vec<u8> {
    let count = i32::try_from(values.len()).unwrap();
    let mut inside = Vec::new(); // what the checksum covers
    inside.extend(0_i16.to_be_bytes()); // attributes
    inside.extend((count - 1).to_be_bytes());
    inside.extend(TIME.to_be_bytes());
    inside.extend(TIME.to_be_bytes());
    inside.extend((-1_i64).to_be_bytes()); // producer id
    inside.extend((-1_i16).to_be_bytes()); // producer epoch
    inside.extend((-1_i32).to_be_bytes()); // base sequence
    inside.extend(count.to_be_bytes());
    for (delta, value) in values.iter().enumerate() {
        let mut record = vec![0, 0]; // attributes, timestamp delta
        record.extend(varint(delta));
        record.push(1); // no key
        record.extend(varint(value.len()));
        record.extend(value.as_bytes());
        record.push(0); // no headers
        inside.extend(varint(record.len()));
        inside.extend(record);
    }
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend(u32::try_from(inside.len() + 9).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes()); // partition leader epoch
    batch.push(2);
    batch.extend(crc(CrcAlgorithm::Crc32Iscsi, &inside));
    batch.extend(inside);
    batch
}

/// A message set of magic 0 or 1, one uncompressed message a value.
pub fn message_set(magic: u8, values: &[&str]) -> Vec<u8> {
    let mut set = Vec::new();
    for (offset, value) in values.iter().enumerate() {
        let mut inside = vec![magic, 0]; // and no compression
        if magic == 1 {
            inside.extend(TIME.to_be_bytes());
        }
        inside.extend((-1_i32).to_be_bytes()); // no key
        inside.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        inside.extend(value.as_bytes());
        set.extend((offset as u64).to_be_bytes());
        set.extend(u32::try_from(inside.len() + 4).unwrap().to_be_bytes());
        set.extend(crc(CrcAlgorithm::Crc32IsoHdlc, &inside));
        set.extend(inside);
    }
    set
}

fn crc(algorithm: CrcAlgorithm, bytes: &[u8]) -> [u8; 4] {
    u32::try_from(checksum(algorithm, bytes)).unwrap().to_be_bytes()
}

/// Zigzag, of a number that is not negative.
fn varint(value: usize) -> Vec<u8> {
    let mut rest = value << 1;
    let mut bytes = Vec::new();
    while rest > 0x7f {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

const TIME: i64 = 1_750_000_000_000;
