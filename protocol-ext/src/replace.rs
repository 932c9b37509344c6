//! Replacing values in a batch, in two passes with anything (uploads, downloads) in between.
//!
//! Flow: `OpenBatch::open`, walk `records()` and remember `RecordView::at` of those to replace;
//! later `OpenBatch::rewrite` with the new values. `replace_values` does both at once.
//! Invariant: without replacements the same `Bytes` come back; with them every byte but the named
//! values, the lengths around them, the batch length and the CRC is copied. Nothing is given out
//! unless the input's CRC fits, so damage is never made to look sound.

use bytes::Bytes;

use crate::batch::{
    BatchError, BatchHeader, CRC, CRC_FROM, Caps, HEADER_BYTES, OpenBatch, Twin, append_known,
    build, crc32c_appended, length_field,
};
use crate::codec::{Codec, CodecError, Framing};
use crate::records::{RecordAt, RecordError, RecordView, read_record};
use crate::varint::{VARINT_BYTES_MAX, varint_len, write_varint};

/// A record and its new value.
#[derive(Clone, Debug)]
pub struct Replacement<V> {
    /// From [`RecordView::at`] of the same batch.
    pub at: RecordAt,
    /// The value to put there.
    pub value: V,
    /// Its CRC-32C, if it is known: long values are not read for it then.
    pub crc: Option<u32>,
    /// The CRC-32C of the value that is there, if it is known.
    pub old_crc: Option<u32>,
}

impl<V> Replacement<V> {
    /// A value of which no CRC is known.
    pub fn of(at: RecordAt, value: V) -> Self {
        Self { at, value, crc: None, old_crc: None }
    }
}

/// How to write the new batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct RewriteOptions {
    /// Another codec than the batch's own; unused when nothing is replaced.
    pub codec: Option<Codec>,
}

/// What came of a rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// Nothing to replace: the bytes that came in, not a copy.
    Same(Bytes),
    /// A new batch.
    New(Bytes),
}

/// Why a batch could not be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The batch is damaged or too large.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records are malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The replacements are out of order, repeat a record, or do not name one of this batch.
    #[error("replacement {0} does not name a later record of this batch")]
    Replacement(usize),
    /// Control batches are the broker's own.
    #[error("values of a control batch are not replaced")]
    Control,
    /// The new records would pass the cap, or what a batch can hold.
    #[error("rewritten records take {bytes} bytes, allowed are {bytes_max}")]
    TooLarge {
        /// Bytes needed.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
}

impl From<CodecError> for RewriteError {
    fn from(error: CodecError) -> RewriteError {
        RewriteError::Batch(BatchError::Codec(error))
    }
}

impl Rewritten {
    /// The batch, old or new.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Rewritten::Same(bytes) | Rewritten::New(bytes) => bytes,
        }
    }
}

impl OpenBatch {
    /// Writes the batch with `replacements`, which are sorted by record.
    pub fn rewrite<V: AsRef<[u8]>>(
        &self,
        replacements: &[Replacement<V>],
        options: &RewriteOptions,
        caps: &Caps,
    ) -> Result<Rewritten, RewriteError> {
        if replacements.is_empty() {
            return Ok(Rewritten::Same(self.raw().clone()));
        }
        if self.header().is_control() {
            return Err(RewriteError::Control);
        }
        let body_bytes = self.planned_bytes(replacements)?;
        // a batch's length field counts in 31 bits
        let bytes_max = caps.rewritten_bytes_max.min(i32::MAX as usize - HEADER_BYTES);
        if body_bytes > bytes_max {
            return Err(RewriteError::TooLarge { bytes: body_bytes, bytes_max });
        }
        let codec = options.codec.unwrap_or(self.codec());
        let mut header = *self.header();
        header.attributes = header.attributes & !0x7 | codec.bits();
        if codec == Codec::None && self.codec() == Codec::None {
            return self.rewrite_plain(replacements, body_bytes).map(Rewritten::New);
        }
        self.ensure_crc()?;
        let mut body = Vec::with_capacity(body_bytes);
        self.pieces(replacements, |piece| match piece {
            Piece::Shared(bytes) | Piece::New(bytes) | Piece::Value(bytes, _) => {
                body.extend_from_slice(bytes);
            }
            Piece::Old(_) | Piece::OldValue(..) => {}
        })?;
        Ok(Rewritten::New(build(header, self.framing_for(codec), &body)?))
    }

    /// Without compression the input's CRC is checked while the bytes are copied, and what input
    /// and output have in common is read once for both CRCs.
    fn rewrite_plain<V: AsRef<[u8]>>(
        &self,
        replacements: &[Replacement<V>],
        body_bytes: usize,
    ) -> Result<Bytes, RewriteError> {
        let batch_length = length_field(HEADER_BYTES + body_bytes)?;
        let mut out = Vec::with_capacity(HEADER_BYTES + body_bytes);
        out.resize(HEADER_BYTES, 0);
        BatchHeader { batch_length, ..*self.header() }.write(&mut out);
        let mut crc = Twin::of(&self.raw()[CRC_FROM..HEADER_BYTES]);
        self.pieces(replacements, |piece| match piece {
            Piece::Shared(bytes) => crc.copy_shared(bytes, &mut out),
            Piece::Old(bytes) => crc.skip_old(bytes),
            Piece::OldValue(bytes, i) => crc.skip_known(bytes, replacements[i].old_crc),
            Piece::New(bytes) | Piece::Value(bytes, _) => crc.copy_new(bytes, &mut out),
        })?;
        self.expect_crc(crc.old)?;
        out[CRC].copy_from_slice(&crc.new.to_be_bytes());
        Ok(Bytes::from(out))
    }

    /// The same batch in pieces, of which long values are not copies, and not even read if their
    /// CRC is known. Only a batch without compression has more than one.
    pub fn rewrite_in_pieces(
        &self,
        replacements: &[Replacement<Bytes>],
        options: &RewriteOptions,
        caps: &Caps,
    ) -> Result<Vec<Bytes>, RewriteError> {
        let plain = self.codec() == Codec::None
            && options.codec.is_none_or(|codec| codec == Codec::None)
            && !self.header().is_control();
        if !plain || replacements.is_empty() {
            return Ok(vec![self.rewrite(replacements, options, caps)?.into_bytes()]);
        }
        let body_bytes = self.planned_bytes(replacements)?;
        let bytes_max = caps.rewritten_bytes_max.min(i32::MAX as usize - HEADER_BYTES);
        if body_bytes > bytes_max {
            return Err(RewriteError::TooLarge { bytes: body_bytes, bytes_max });
        }
        self.ensure_crc()?;
        let batch_length = length_field(HEADER_BYTES + body_bytes)?;
        let mut head = [0; HEADER_BYTES];
        BatchHeader { batch_length, ..*self.header() }.write(&mut head);
        let mut chain = Chain { done: Vec::new(), open: Vec::new(), crc: 0 };
        chain.copy(&head[CRC_FROM..]);
        self.pieces(replacements, |piece| match piece {
            Piece::Shared(bytes) | Piece::New(bytes) => chain.copy(bytes),
            Piece::Value(_, i) => chain.share(&replacements[i]),
            Piece::Old(_) | Piece::OldValue(..) => {}
        })?;
        head[CRC].copy_from_slice(&chain.crc.to_be_bytes());
        chain.done.insert(0, Bytes::copy_from_slice(&head[..CRC_FROM]));
        chain.done.push(Bytes::from(chain.open));
        Ok(chain.done)
    }

    /// The framing to write: as it came, or xerial for snappy asked for anew, as Java has it.
    fn framing_for(&self, codec: Codec) -> Framing {
        if codec == self.codec() {
            self.framing()
        } else if codec == Codec::Snappy {
            Framing::Xerial
        } else {
            Framing::Plain
        }
    }

    /// Bytes of the body after the replacements, which are checked on the way.
    fn planned_bytes<V: AsRef<[u8]>>(
        &self,
        replacements: &[Replacement<V>],
    ) -> Result<usize, RewriteError> {
        let mut bytes = self.body().len();
        let mut from = 0;
        for (i, replacement) in replacements.iter().enumerate() {
            let record = self.named_record(replacement.at, from);
            let record = record.ok_or(RewriteError::Replacement(i))?;
            let new = new_lengths(&record, replacement.value.as_ref().len());
            let new = new.ok_or(RewriteError::TooLarge {
                bytes: replacement.value.as_ref().len(),
                bytes_max: i32::MAX as usize,
            })?;
            let old = record.layout.end - record.at.start;
            bytes = bytes - old + varint_len(new.record) + usize::try_from(new.record).unwrap_or(0);
            from = record.layout.end;
        }
        Ok(bytes)
    }

    /// The record at `at`, if it begins at or behind byte `from`.
    fn named_record(&self, at: RecordAt, from: usize) -> Option<RecordView<'_>> {
        if at.start < from || at.index >= self.header().records_count.cast_unsigned() {
            return None;
        }
        read_record(self.body(), at)
    }

    /// Walks old and new body side by side.
    fn pieces<V: AsRef<[u8]>>(
        &self,
        replacements: &[Replacement<V>],
        mut take: impl FnMut(Piece<'_>),
    ) -> Result<(), RewriteError> {
        let body = self.body();
        let mut length = Vec::with_capacity(VARINT_BYTES_MAX);
        let mut write_length = |value: i32, take: &mut dyn FnMut(Piece<'_>)| {
            length.clear();
            write_varint(&mut length, value);
            take(Piece::New(&length));
        };
        let mut done = 0;
        for (i, replacement) in replacements.iter().enumerate() {
            let value = replacement.value.as_ref();
            let record = self.named_record(replacement.at, done);
            let record = record.ok_or(RewriteError::Replacement(i))?;
            let new = new_lengths(&record, value.len()).ok_or(RewriteError::Replacement(i))?;
            let layout = record.layout;
            take(Piece::Shared(&body[done..record.at.start]));
            take(Piece::Old(&body[record.at.start..layout.fields]));
            write_length(new.record, &mut take);
            take(Piece::Shared(&body[layout.fields..layout.value_len]));
            take(Piece::Old(&body[layout.value_len..layout.value]));
            take(Piece::OldValue(&body[layout.value..layout.value_end], i));
            write_length(new.value, &mut take);
            take(Piece::Value(value, i));
            done = layout.value_end;
        }
        take(Piece::Shared(&body[done..]));
        Ok(())
    }
}

/// A part of the old body, of the new one, or of both.
enum Piece<'a> {
    Shared(&'a [u8]),
    Old(&'a [u8]),
    /// The value that a replacement replaces, and which one does.
    OldValue(&'a [u8], usize),
    New(&'a [u8]),
    /// The value of a replacement, and which one.
    Value(&'a [u8], usize),
}

/// Values shorter than this are copied: a slice of their own would cost more.
const SLICE_BYTES_MIN: usize = 16 * 1024;

/// A batch in pieces, its CRC so far.
struct Chain {
    done: Vec<Bytes>,
    open: Vec<u8>,
    crc: u32,
}

impl Chain {
    fn copy(&mut self, bytes: &[u8]) {
        self.crc = crc32c_appended(self.crc, bytes);
        self.open.extend_from_slice(bytes);
    }

    fn share(&mut self, replacement: &Replacement<Bytes>) {
        let bytes = &replacement.value;
        if bytes.len() < SLICE_BYTES_MIN {
            return self.copy(bytes);
        }
        self.crc = append_known(self.crc, bytes, replacement.crc);
        self.done.push(Bytes::from(std::mem::take(&mut self.open)));
        self.done.push(bytes.clone());
    }
}

/// Opens, selects and rewrites in one go: `select` gives the new value of a record, or `None`.
/// Control batches pass unasked.
pub fn replace_values<V: AsRef<[u8]>>(
    batch: &Bytes,
    caps: &Caps,
    options: &RewriteOptions,
    mut select: impl FnMut(&RecordView<'_>) -> Option<V>,
) -> Result<Rewritten, RewriteError> {
    if BatchHeader::parse(batch)?.is_control() {
        return Ok(Rewritten::Same(batch.clone()));
    }
    let open = OpenBatch::open(batch.clone(), caps)?;
    let mut replacements = Vec::new();
    for record in open.records() {
        let record = record?;
        if let Some(value) = select(&record) {
            replacements.push(Replacement::of(record.at, value));
        }
    }
    open.rewrite(&replacements, options, caps)
}

struct NewLengths {
    record: i32,
    value: i32,
}

/// The record's and value's length fields with a value of `value_bytes`; `None` beyond 31 bits.
fn new_lengths(record: &RecordView<'_>, value_bytes: usize) -> Option<NewLengths> {
    let layout = &record.layout;
    let value = i32::try_from(value_bytes).ok()?;
    let before = layout.value_len - layout.fields;
    let behind = layout.end - layout.value_end;
    let record = before.checked_add(varint_len(value))?.checked_add(value_bytes)?;
    let record = i32::try_from(record.checked_add(behind)?).ok()?;
    Some(NewLengths { record, value })
}
