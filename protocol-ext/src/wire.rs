//! Primitive types of the Kafka wire format: a bounds-checked reader and the few writers we need.
//!
//! Invariant: a read never looks past the slice and never allocates; a length that is longer than
//! what remains is an error, so no count from a peer can make anyone reserve memory.
//! Source: <https://kafka.apache.org/protocol#protocol_types>, KIP-482 (compact types, tags).

/// Why bytes are not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ends inside a value.
    #[error("truncated at byte {at}: {need} more bytes wanted")]
    Truncated {
        /// Offset in the frame at which the value starts.
        at: usize,
        /// Bytes missing (a lower bound).
        need: usize,
    },
    /// A length or count is negative (other than null) or longer than the rest of the frame.
    #[error("length {length} at byte {at} does not fit the {left} bytes left")]
    Length {
        /// Offset of the length.
        at: usize,
        /// The length read.
        length: i64,
        /// Bytes left behind it.
        left: usize,
    },
    /// A varint of more than five bytes.
    #[error("varint at byte {at} is too long")]
    Varint {
        /// Offset of the varint.
        at: usize,
    },
    /// Bytes are left after the last field.
    #[error("{left} bytes left after the last field")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// More items than anyone needs, in as few bytes as lengths allow.
    #[error("more than {max} items in one message")]
    Items {
        /// How many are taken.
        max: usize,
    },
    /// The body is not one of its API and version.
    #[error("body of api {api} version {version} cannot be decoded")]
    Body {
        /// API key.
        api: i16,
        /// Version.
        version: i16,
    },
    /// The version is not one whose layout we know.
    #[error("api {api} version {version} is not known here")]
    Version {
        /// API key.
        api: i16,
        /// Version asked for.
        version: i16,
    },
}

/// A cursor over a frame. All reads are big-endian as Kafka's are.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    /// Starts at byte `pos` of `buf` (`pos` past the end reads as an empty rest).
    pub fn new(buf: &'a [u8], pos: usize) -> Self {
        Self { buf, pos: pos.min(buf.len()) }
    }

    /// Offset of the next byte to read.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// Takes `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let end = self.pos.checked_add(n).filter(|end| *end <= self.buf.len());
        let Some(end) = end else {
            return Err(WireError::Truncated { at: self.pos, need: n - self.left() });
        };
        let bytes = &self.buf[self.pos..end];
        self.pos = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// INT8.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// INT16.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// INT32.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// INT64.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// UNSIGNED_VARINT, at most five bytes and 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let at = self.pos;
        let mut value: u32 = 0;
        for shift in [0u32, 7, 14, 21, 28] {
            let byte = self.array::<1>()?[0];
            if shift == 28 && byte > 0x0f {
                return Err(WireError::Varint { at });
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Varint { at })
    }

    /// Length of a string, bytes or array of `flexible` or classic form; `None` is null.
    /// `wide` says that the classic form is an INT32 (bytes, arrays) and not an INT16 (strings).
    pub fn length(&mut self, flexible: bool, wide: bool) -> Result<Option<usize>, WireError> {
        let at = self.pos;
        let length = if flexible {
            i64::from(self.uvarint()?) - 1
        } else if wide {
            i64::from(self.i32()?)
        } else {
            i64::from(self.i16()?)
        };
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(n) if n <= self.left() => Ok(Some(n)),
            _ => Err(WireError::Length { at, length, left: self.left() }),
        }
    }

    /// A string or bytes; `None` is null.
    pub fn bytes(&mut self, flexible: bool, wide: bool) -> Result<Option<&'a [u8]>, WireError> {
        match self.length(flexible, wide)? {
            Some(n) => Ok(Some(self.take(n)?)),
            None => Ok(None),
        }
    }
}

/// Appends an UNSIGNED_VARINT.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Bytes that an UNSIGNED_VARINT takes.
pub fn uvarint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x001f_ffff => 3,
        0x0020_0000..=0x0fff_ffff => 4,
        _ => 5,
    }
}

/// Appends the length of a string (`wide` false), bytes or array (`wide` true); `None` is null.
pub fn put_length(out: &mut Vec<u8>, flexible: bool, wide: bool, length: Option<usize>) {
    let length = length.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    if flexible {
        put_uvarint(out, u32::try_from(length + 1).unwrap_or(u32::MAX));
    } else if wide {
        out.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
    } else {
        out.extend_from_slice(&i16::try_from(length).unwrap_or(i16::MAX).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uvarints_round_trip_at_every_edge() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, u32::MAX] {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            assert_eq!(out.len(), uvarint_len(value));
            assert_eq!(Reader::new(&out, 0).uvarint(), Ok(value));
        }
    }

    #[test]
    fn a_varint_of_more_than_32_bits_is_refused() {
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0x1f], [0x80, 0x80, 0x80, 0x80, 0x80]] {
            let read = Reader::new(&bytes, 0).uvarint();
            assert_eq!(read, Err(WireError::Varint { at: 0 }));
        }
    }

    #[test]
    fn a_length_longer_than_the_rest_is_refused_before_anything_is_reserved() {
        let bytes = [0x7f, 0xff, 0xff, 0xff, 0];
        let read = Reader::new(&bytes, 0).length(false, true);
        assert_eq!(read, Err(WireError::Length { at: 0, length: 0x7fff_ffff, left: 1 }));
    }
}
