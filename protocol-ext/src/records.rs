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
