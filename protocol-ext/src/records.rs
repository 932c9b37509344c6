//! Zero-copy walk over the decompressed records of a v2 batch.
//!
//! Flow: `Records` reads one record's fields a step and skips key, value and headers by their
//! lengths; `RecordView::headers` reads headers only when asked.
//! Invariant: no allocation, no panic; a record's fields lie inside it, the records fill the body
//! exactly, and their number is the one in the head - else the walk ends with an error.

use std::ops::Range;

use crate::varint::{read_varint, read_varlong};

/// One record, borrowed from the body.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Where it lies, for a later rewrite.
    pub at: RecordAt,
    /// Unused by Kafka today.
    pub attributes: i8,
    /// Milliseconds from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// From the batch's base offset.
    pub offset_delta: i32,
    /// `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Header count and headers as they lie in the body.
    pub headers_raw: &'a [u8],
    pub(crate) layout: Layout,
}

/// The position of a record in its batch's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordAt {
    /// 0-based number in the batch.
    pub index: u32,
    /// Byte position in the body.
    pub(crate) start: usize,
}

/// Byte positions inside the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// First byte behind the record's length.
    pub fields: usize,
    /// First byte of the offset delta.
    pub offset_delta: usize,
    /// First byte of the key's length, behind the offset delta.
    pub key_len: usize,
    /// First byte of the value's length.
    pub value_len: usize,
    /// First byte of the value.
    pub value: usize,
    /// First byte behind the value.
    pub value_end: usize,
    /// First byte behind the record.
    pub end: usize,
}

/// A record header, borrowed. Keys may repeat; order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// UTF-8 by convention, not checked.
    pub key: &'a [u8],
    /// `None` is a null value.
    pub value: Option<&'a [u8]>,
}

/// Why the records of a batch cannot be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A field reaches beyond its record, or a record beyond the body.
    #[error("record {index} is cut or its lengths disagree")]
    Malformed {
        /// 0-based number in the batch.
        index: u32,
    },
    /// Bytes follow the last record.
    #[error("{0} bytes behind the last record")]
    Trailing(usize),
    /// A header reaches beyond its record or their number is wrong.
    #[error("record headers are malformed")]
    Headers,
}

impl RecordView<'_> {
    /// Where the value lies in the body; empty for a tombstone.
    pub fn value_range(&self) -> Range<usize> {
        self.layout.value..self.layout.value_end
    }

    /// The record's headers in their order.
    pub fn headers(&self) -> Headers<'_> {
        Headers::new(self.headers_raw)
    }
}

/// Iterator over the records of a body; after an error it ends.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    body: &'a [u8],
    pos: usize,
    index: u32,
    count: u32,
}

impl<'a> Records<'a> {
    /// Walks `body`, which must hold exactly `count` records.
    pub fn new(body: &'a [u8], count: u32) -> Records<'a> {
        Records { body, pos: 0, index: 0, count }
    }

    #[cold]
    #[inline(never)]
    fn finish(&mut self) -> Option<Result<RecordView<'a>, RecordError>> {
        let behind = self.body.len().saturating_sub(self.pos);
        self.pos = self.body.len();
        (behind > 0).then_some(Err(RecordError::Trailing(behind)))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return self.finish();
        }
        let at = RecordAt { index: self.index, start: self.pos };
        if let Some(record) = read_record(self.body, at) {
            self.pos = record.layout.end;
            self.index += 1;
            Some(Ok(record))
        } else {
            let index = self.index;
            self.index = self.count;
            self.pos = self.body.len();
            Some(Err(RecordError::Malformed { index }))
        }
    }
}

/// The record at `at`, `None` if it is not one.
#[inline(always)]
pub(crate) fn read_record(body: &[u8], at: RecordAt) -> Option<RecordView<'_>> {
    let mut pos = at.start;
    let length = usize::try_from(read_varint(body, &mut pos)?).ok()?;
    let fields = pos;
    let end = fields.checked_add(length)?;
    let record = body.get(..end)?;
    let attributes = record.get(pos)?.cast_signed();
    pos += 1;
    let timestamp_delta = read_varlong(record, &mut pos)?;
    let offset_delta_at = pos;
    let offset_delta = read_varint(record, &mut pos)?;
    let key_len = pos;
    let key = read_nullable(record, &mut pos)?;
    let value_len = pos;
    let value = read_nullable(record, &mut pos)?;
    let value_end = pos;
    let headers_raw = record.get(value_end..)?;
    let layout = Layout {
        fields,
        offset_delta: offset_delta_at,
        key_len,
        value_len,
        value: value_end - value.map_or(0, <[u8]>::len),
        value_end,
        end,
    };
    Some(RecordView {
        at,
        attributes,
        timestamp_delta,
        offset_delta,
        key,
        value,
        headers_raw,
        layout,
    })
}

/// Iterator over a record's headers; after an error it ends.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    raw: &'a [u8],
    pos: usize,
    left: u32,
    broken: bool,
}

impl<'a> Headers<'a> {
    /// Reads the raw header section of a record (its count first).
    pub fn new(raw: &'a [u8]) -> Headers<'a> {
        let mut pos = 0;
        let count = read_varint(raw, &mut pos).and_then(|count| u32::try_from(count).ok());
        let left = count.unwrap_or(0);
        // without headers nothing may follow the count
        let broken = count.is_none() || (left == 0 && pos != raw.len());
        Headers { raw, pos, left, broken }
    }

    fn read(&mut self) -> Option<HeaderView<'a>> {
        let key_len = usize::try_from(read_varint(self.raw, &mut self.pos)?).ok()?;
        let key = take(self.raw, &mut self.pos, key_len)?;
        let value = read_nullable(self.raw, &mut self.pos)?;
        let last = self.left == 1;
        (!last || self.pos == self.raw.len()).then_some(HeaderView { key, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<HeaderView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.broken) {
            self.left = 0;
            return Some(Err(RecordError::Headers));
        }
        if self.left == 0 {
            return None;
        }
        let header = self.read();
        self.left = if header.is_some() { self.left - 1 } else { 0 };
        Some(header.ok_or(RecordError::Headers))
    }
}

#[inline(always)]
fn read_nullable<'a>(buf: &'a [u8], pos: &mut usize) -> Option<Option<&'a [u8]>> {
    match usize::try_from(read_varint(buf, pos)?) {
        Ok(len) => take(buf, pos, len).map(Some),
        Err(_) => Some(None),
    }
}

#[inline(always)]
fn take<'a>(buf: &'a [u8], pos: &mut usize, len: usize) -> Option<&'a [u8]> {
    let end = pos.checked_add(len)?;
    let part = buf.get(*pos..end)?;
    *pos = end;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// length 10, attributes 0, timestamp 1, offset 0, null key, value `ab`, one header `h`: null
    const RECORD: [u8; 11] = [20, 0, 2, 0, 1, 4, b'a', b'b', 2, 2, b'h'];

    fn with_header_value() -> Vec<u8> {
        let mut record = RECORD.to_vec();
        record[0] = 22;
        record.push(1);
        record
    }

    #[test]
    fn a_record_is_read_in_place() {
        let body = with_header_value().repeat(2);
        let records: Vec<_> = Records::new(&body, 2).map(Result::unwrap).collect();
        let second = records[1];
        assert_eq!((second.at.index, second.at.start), (1, 12));
        assert_eq!((second.timestamp_delta, second.offset_delta), (1, 0));
        assert_eq!((second.key, second.value), (None, Some(&b"ab"[..])));
        assert_eq!(&body[second.value_range()], b"ab");
        let headers: Vec<_> = second.headers().collect();
        assert_eq!(headers, [Ok(HeaderView { key: b"h", value: None })]);
    }

    #[test]
    fn too_few_too_many_and_cut_records_end_the_walk_with_an_error() {
        let body = with_header_value();
        let walk = |body: &[u8], count| {
            Records::new(body, count).map(|r| r.map(|r| r.at.index)).collect::<Vec<_>>()
        };
        assert_eq!(walk(&body, 1), [Ok(0)]);
        assert_eq!(walk(&body, 0), [Err(RecordError::Trailing(12))]);
        assert_eq!(walk(&body, 2), [Ok(0), Err(RecordError::Malformed { index: 1 })]);
        for cut in 0..body.len() {
            assert_eq!(walk(&body[..cut], 1), [Err(RecordError::Malformed { index: 0 })], "{cut}");
        }
    }

    #[test]
    fn a_field_may_not_reach_beyond_its_record_into_the_next() {
        let mut body = with_header_value().repeat(2);
        body[5] = 16;
        assert_eq!(
            Records::new(&body, 2).next().map(|r| r.map(|r| r.at.index)),
            Some(Err(RecordError::Malformed { index: 0 }))
        );
    }

    #[test]
    fn wrong_header_counts_are_told() {
        for raw in [&[4, 2, b'h', 1][..], &[0, 9], &[], &[1], &[2, 2, b'h', 1, 0], &[2, 3, 1]] {
            assert_eq!(Headers::new(raw).last(), Some(Err(RecordError::Headers)), "{raw:?}");
        }
        assert_eq!(Headers::new(&[0]).count(), 0);
    }
}
