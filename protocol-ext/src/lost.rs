//! Batches of which some values are lost for good: their records are left out, or stay with no
//! value and a header that says so.
//!
//! Invariant: whatever goes, the batch keeps its offsets, so that a consumer gets on behind it. A
//! batch of no records is one with a count of 0, as compaction leaves it: clients that are shown no
//! batch at all ask for the same offset again and again.

use bytes::Bytes;

use crate::batch::{BatchHeader, OpenBatch, build};
use crate::codec::{Codec, Framing};
use crate::records::{RecordError, RecordView};
use crate::replace::{Replacement, RewriteError};
use crate::varint::{read_varint, write_varint};

/// Key of the header of a record whose value is lost; its value is the number of bytes it had.
pub const MARK: &[u8] = b"firebreak-missing";

/// What becomes of a record whose value is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is left out.
    LeftOut,
    /// It stays with an empty value and the header [`MARK`].
    Marked,
}

/// A value to put in, or the bytes that a lost one had.
pub type Found = Result<Bytes, u32>;

impl OpenBatch {
    /// The batch with values put in, of which some are lost. Sorted by record.
    pub fn rewrite_without(
        &self,
        values: &[Replacement<Found>],
        lost: Lost,
        bytes_max: usize,
    ) -> Result<Bytes, RewriteError> {
        if self.header().is_control() {
            return Err(RewriteError::Control);
        }
        self.ensure_crc()?;
        let found = values.iter().filter_map(|found| found.value.as_ref().ok());
        // References are longer than what records grow by besides values: it never grows.
        let bytes = self.body().len() + found.map(Bytes::len).sum::<usize>();
        let (mut body, mut count) = (Vec::with_capacity(bytes.min(bytes_max)), 0);
        let mut left = values.iter().enumerate().peekable();
        for record in self.records() {
            let record = record?;
            let at = |(_, value): &(usize, &Replacement<Found>)| value.at == record.at;
            let value = left.next_if(at).map(|(_, replacement)| &replacement.value);
            match (value, lost) {
                (Some(Err(_)), Lost::LeftOut) => continue,
                (Some(Err(bytes)), Lost::Marked) => {
                    let headers = marked(record.headers_raw, *bytes);
                    let headers = headers.ok_or(RecordError::Headers)?;
                    self.put(&mut body, &record, Some(&[]), &headers);
                }
                (Some(Ok(value)), _) => {
                    self.put(&mut body, &record, Some(value), record.headers_raw);
                }
                (None, _) => self.put(&mut body, &record, record.value, record.headers_raw),
            }
            count += 1;
            if body.len() > bytes_max {
                return Err(RewriteError::TooLarge { bytes: body.len(), bytes_max });
            }
        }
        if let Some((n, _)) = left.next() {
            return Err(RewriteError::Replacement(n));
        }
        let mut header = BatchHeader { records_count: count, ..*self.header() };
        if count == 0 {
            header.attributes = header.attributes & !0x7 | Codec::None.bits();
            return Ok(build(header, Framing::Plain, &[])?);
        }
        Ok(build(header, self.framing(), &body)?)
    }

    /// Writes a record with another value and other headers.
    fn put(
        &self,
        out: &mut Vec<u8>,
        record: &RecordView<'_>,
        value: Option<&[u8]>,
        headers: &[u8],
    ) {
        let layout = &record.layout;
        let before = &self.body()[layout.fields..layout.value_len];
        let mut length = Vec::with_capacity(5);
        let bytes = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        write_varint(&mut length, bytes);
        let value = value.unwrap_or_default();
        let whole = before.len() + length.len() + value.len() + headers.len();
        write_varint(out, i32::try_from(whole).unwrap_or(i32::MAX));
        out.extend_from_slice(before);
        out.extend_from_slice(&length);
        out.extend_from_slice(value);
        out.extend_from_slice(headers);
    }
}

/// A record's headers, their count in front, with the mark of a lost value of so many bytes behind
/// them. `None` if they are malformed.
pub fn marked(headers_raw: &[u8], bytes: u32) -> Option<Vec<u8>> {
    let mut at = 0;
    let count = read_varint(headers_raw, &mut at)?;
    let mut out = Vec::with_capacity(headers_raw.len() + 40);
    write_varint(&mut out, count.checked_add(1)?);
    out.extend_from_slice(&headers_raw[at..]);
    for text in [MARK, bytes.to_string().as_bytes()] {
        write_varint(&mut out, i32::try_from(text.len()).ok()?);
        out.extend_from_slice(text);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Caps, HEADER_BYTES, verify_crc};

    const CAPS: Caps = Caps { body_bytes_max: 10_000, rewritten_bytes_max: 10_000 };

    /// Three records at offsets 0, 2 and 7 with one header each.
    fn source(codec: Codec) -> OpenBatch {
        let mut body = Vec::new();
        for delta in [0, 2, 7] {
            let mut record = vec![0, 0];
            write_varint(&mut record, delta);
            record.extend_from_slice(&[2, b'k', 4, b'v', b'v', 2, 2, b'h', 1]);
            write_varint(&mut body, i32::try_from(record.len()).unwrap());
            body.extend_from_slice(&record);
        }
        let header = BatchHeader {
            base_offset: 100,
            batch_length: 0,
            partition_leader_epoch: 7,
            crc: 0,
            attributes: codec.bits() | 1 << 4,
            last_offset_delta: 9,
            base_timestamp: 1000,
            max_timestamp: 5000,
            producer_id: 1,
            producer_epoch: 2,
            base_sequence: 3,
            records_count: 3,
        };
        let batch = build(header, Framing::Plain, &body).unwrap();
        OpenBatch::open(batch, &CAPS).unwrap()
    }

    fn rewritten(source: &OpenBatch, values: &[Option<Found>], lost: Lost) -> OpenBatch {
        let records = source.records().map(|record| record.unwrap().at).zip(values);
        let values =
            records.filter_map(|(at, value)| value.clone().map(|value| Replacement::of(at, value)));
        let values: Vec<_> = values.collect();
        let batch = source.rewrite_without(&values, lost, 10_000).unwrap();
        verify_crc(&batch).unwrap();
        OpenBatch::open(batch, &CAPS).unwrap()
    }

    #[test]
    fn a_lost_record_goes_and_the_others_keep_their_offsets() {
        for codec in [Codec::None, Codec::Zstd] {
            let source = source(codec);
            let new = Bytes::from_static(b"another");
            let open = rewritten(&source, &[Some(Err(9)), Some(Ok(new)), None], Lost::LeftOut);
            let header = BatchHeader {
                batch_length: open.header().batch_length,
                crc: open.header().crc,
                records_count: 2,
                ..*source.header()
            };
            assert_eq!(*open.header(), header);
            let read: Vec<_> = open.records().map(Result::unwrap).collect();
            let read: Vec<_> = read.iter().map(|r| (r.offset_delta, r.value.unwrap())).collect();
            assert_eq!(read, [(2, &b"another"[..]), (7, b"vv")]);
        }
    }

    #[test]
    fn where_all_are_lost_an_empty_batch_keeps_the_offsets() {
        let source = source(Codec::Zstd);
        let open = rewritten(&source, &[Some(Err(9)), Some(Err(9)), Some(Err(9))], Lost::LeftOut);
        assert_eq!(open.raw().len(), HEADER_BYTES);
        let header = open.header();
        assert_eq!((header.base_offset, header.last_offset_delta), (100, 9));
        assert_eq!((header.records_count, header.attributes), (0, 1 << 4));
    }

    #[test]
    fn a_marked_record_has_no_value_and_a_header_behind_its_own() {
        let source = source(Codec::Lz4);
        let open = rewritten(&source, &[None, Some(Err(1234)), None], Lost::Marked);
        assert_eq!(open.header().records_count, 3);
        let record = open.records().nth(1).unwrap().unwrap();
        assert_eq!((record.offset_delta, record.value), (2, Some(&b""[..])));
        let headers: Vec<_> = record.headers().map(Result::unwrap).collect();
        let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
        assert_eq!(headers, [(&b"h"[..], None), (MARK, Some(&b"1234"[..]))]);
    }

    #[test]
    fn what_names_no_record_or_grows_too_long_is_refused() {
        let source = source(Codec::None);
        let at = source.records().nth(1).unwrap().unwrap().at;
        let twice = [Replacement::of(at, Err(1)), Replacement::of(at, Err(1))];
        let error = source.rewrite_without(&twice, Lost::LeftOut, 10_000).unwrap_err();
        assert_eq!(error, RewriteError::Replacement(1));
        let long = [Replacement::of(at, Ok(Bytes::from(vec![7; 500])))];
        let error = source.rewrite_without(&long, Lost::LeftOut, 400).unwrap_err();
        assert!(matches!(error, RewriteError::TooLarge { .. }), "{error}");
    }
}
