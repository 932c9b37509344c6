//! Prebuilt record batches (magic 2, no codec), made once before a measurement.
//!
//! The values are pseudo-random bytes of a fixed seed, so that every run carries the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// Builds one batch of `records` records with values of `value_bytes` each.
#[must_use]
pub fn build(records: u32, value_bytes: u32) -> Bytes {
    let mut noise = SEED;
    of_values(records, |_| (0..value_bytes).map(|_| next_byte(&mut noise)).collect())
}

/// The same with JSON values: one object each, with a place in California in its middle.
#[must_use]
pub fn located(records: u32, value_bytes: u32) -> Bytes {
    of_values(records, |n| {
        let (north, east) = (f64::from(n * 37 % 90) / 10.0, f64::from(n * 53 % 90) / 10.0);
        let place = format!("\"latitude\":{:.4},\"longitude\":{:.4}", 32.6 + north, east - 124.0);
        let filler = (value_bytes as usize).saturating_sub(place.len() + 25);
        let (before, after) = ("a".repeat(filler / 2), "z".repeat(filler - filler / 2));
        format!("{{\"before\":\"{before}\",{place},\"after\":\"{after}\"}}").into_bytes()
    })
}

fn of_values(records: u32, mut value: impl FnMut(u32) -> Vec<u8>) -> Bytes {
    let records = records.max(1);
    let mut body = BytesMut::new();
    for delta in 0..records {
        let value = value(delta);
        let mut record = BytesMut::new();
        record.put_u8(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::from(delta));
        put_varint(&mut record, -1);
        put_varint(&mut record, i64::try_from(value.len()).unwrap_or(i64::MAX));
        record.extend_from_slice(&value);
        put_varint(&mut record, 0);
        put_varint(&mut body, i64::try_from(record.len()).unwrap_or(i64::MAX));
        body.extend_from_slice(&record);
    }
    let sealed = seal(records, &body);
    let mut batch = BytesMut::with_capacity(sealed.len() + PREFIX_BYTES);
    batch.put_i64(0);
    batch.put_u32(length(sealed.len() + CRC_END - PREFIX_END));
    batch.put_i32(-1);
    batch.put_u8(MAGIC);
    batch.put_u32(crc(&sealed));
    batch.extend_from_slice(&sealed);
    batch.freeze()
}

/// The part of the batch that its CRC covers.
fn seal(records: u32, body: &[u8]) -> BytesMut {
    let mut sealed = BytesMut::with_capacity(body.len() + 40);
    sealed.put_u16(0);
    sealed.put_u32(records - 1);
    sealed.put_i64(TIMESTAMP_MS);
    sealed.put_i64(TIMESTAMP_MS);
    sealed.put_i64(-1);
    sealed.put_i16(-1);
    sealed.put_i32(-1);
    sealed.put_u32(records);
    sealed.extend_from_slice(body);
    sealed
}

fn crc(bytes: &[u8]) -> u32 {
    let wide = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(wide & u64::from(u32::MAX)).unwrap_or(0)
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.put_u8(low_byte(zigzag) | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(low_byte(zigzag));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// xorshift64: cheap, and incompressible enough.
fn next_byte(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_be_bytes()[0]
}

const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const MAGIC: u8 = 2;
/// A fixed time in the past, so that every run sends the same bytes; topics keep by size, not age.
const TIMESTAMP_MS: i64 = 1_600_000_000_000;
/// Bytes before the part under the CRC.
const PREFIX_BYTES: usize = 21;
/// End of base offset and batch length, which the length does not count.
const PREFIX_END: usize = 12;
/// Where the part under the CRC begins.
const CRC_END: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn the_kafka_protocol_crate_reads_what_is_built() {
        let batch = build(7, 300);
        let set = RecordBatchDecoder::decode(&mut batch.clone()).unwrap();
        assert_eq!(set.records.len(), 7);
        for (offset, record) in (0..).zip(&set.records) {
            assert_eq!(record.offset, offset);
            assert_eq!(record.value.as_ref().map(Bytes::len), Some(300));
        }
    }

    #[test]
    fn values_with_a_place_have_the_size_that_was_asked_for() {
        let set = RecordBatchDecoder::decode(&mut located(9, 300).clone()).unwrap();
        for record in &set.records {
            let value = record.value.as_ref().expect("a value");
            assert_eq!(value.len(), 300, "{value:?}");
            let value: serde_json::Value = serde_json::from_slice(value).unwrap();
            assert!(value["latitude"].as_f64().unwrap() > 32.0, "{value}");
        }
    }

    #[test]
    fn the_same_batch_is_built_twice() {
        assert_eq!(build(3, 10), build(3, 10));
    }
}
