//! A batch with its records at hand.
//!
//! Invariant: decompressed at most once and under a cap; the bytes that came in are kept.

use std::ops::Range;

use bytes::Bytes;

use super::{BatchError, BatchHeader, HEADER_BYTES, fitted, verify_crc};
use crate::codec::{self, Codec, CodecError, Framing};
use crate::records::Records;

/// Bounds for opening and rewriting one batch.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Most bytes that the decompressed records may take.
    pub body_bytes_max: usize,
    /// Most bytes that a rewritten batch's records may take before compression.
    pub rewritten_bytes_max: usize,
}

/// A batch with its records at hand, decompressed once; kept while uploads go on.
#[derive(Clone, Debug)]
pub struct OpenBatch {
    raw: Bytes,
    header: BatchHeader,
    codec: Codec,
    framing: Framing,
    body: Bytes,
    crc_checked: bool,
}

impl OpenBatch {
    /// Opens exactly one v2 batch. The CRC is left for [`OpenBatch::check_crc`]; whatever builds
    /// a new batch from this one checks it first.
    pub fn open(raw: Bytes, caps: &Caps) -> Result<OpenBatch, BatchError> {
        let header = BatchHeader::parse(&raw)?;
        let wire_len = header.wire_len().ok_or(BatchError::Length(header.batch_length))?;
        if raw.len() < wire_len {
            return Err(BatchError::Short { len: raw.len() });
        }
        if raw.len() > wire_len {
            return Err(BatchError::Trailing(raw.len() - wire_len));
        }
        let codec = header.codec()?;
        let (framing, body) = if codec == Codec::None || raw.len() == HEADER_BYTES {
            let bytes_max = caps.body_bytes_max;
            if raw.len() - HEADER_BYTES > bytes_max {
                return Err(CodecError::TooLarge { bytes_max }.into());
            }
            (Framing::Plain, raw.slice(HEADER_BYTES..))
        } else {
            let mut body = Vec::new();
            let packed = &raw[HEADER_BYTES..];
            let framing = codec::decompress(codec, packed, caps.body_bytes_max, &mut body)?;
            (framing, fitted(body))
        };
        Ok(OpenBatch { raw, header, codec, framing, body, crc_checked: false })
    }

    /// Checks the CRC, once.
    pub fn check_crc(&mut self) -> Result<(), BatchError> {
        self.ensure_crc()?;
        self.crc_checked = true;
        Ok(())
    }

    pub(crate) fn ensure_crc(&self) -> Result<(), BatchError> {
        if self.crc_checked { Ok(()) } else { verify_crc(&self.raw) }
    }

    /// Compares a CRC that was computed on the way.
    pub(crate) fn expect_crc(&self, computed: u32) -> Result<(), BatchError> {
        let stored = self.header.crc;
        if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }

    /// The batch as it came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Its head.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Its codec's framing.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The records, decompressed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Walks the records.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.body, self.header.records_count.cast_unsigned())
    }

    /// A value (or any part of the body) as `Bytes`, without a copy. `None` if out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        self.body.get(range.clone()).map(|_| self.body.slice(range))
    }
}
