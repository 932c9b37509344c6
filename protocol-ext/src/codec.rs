//! The five compression codecs of a record batch, made safe for bytes from a peer.
//!
//! Flow: `decompress` fills a `Vec` and tells the framing it met; `compress` appends the same
//! codec and framing again.
//! Invariant: the output never has room for more than the caller's cap; a bomb is found while
//! streaming, not afterwards. No call panics, whatever the bytes.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

/// What bits 0-2 of a batch's attributes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Records lie in the batch as they are.
    None,
    /// One or more gzip members.
    Gzip,
    /// Snappy, raw or in xerial's framing.
    Snappy,
    /// One LZ4 frame.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

/// How a codec's stream is wrapped. Only snappy knows more than one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// The codec's only or plain form (raw snappy: librdkafka, franz-go).
    #[default]
    Plain,
    /// xerial's snappy-java framing (Java, sarama, kafka-python).
    Xerial,
}

/// Why bytes could not be decompressed or compressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Bits 0-2 of the attributes name no codec (5, 6 or 7).
    #[error("unknown compression codec {0}")]
    Unknown(u8),
    /// The output would pass the cap.
    #[error("decompressed size passes {bytes_max} bytes")]
    TooLarge {
        /// The cap that was given.
        bytes_max: usize,
    },
    /// The stream breaks its own format.
    #[error("corrupt {codec:?} stream: {why}")]
    Corrupt {
        /// The codec that refused.
        codec: Codec,
        /// Which rule was broken.
        why: &'static str,
    },
    /// The compressor itself failed (out of memory in the C library).
    #[error("{0:?} compressor failed")]
    Compressor(Codec),
}

impl Codec {
    /// The codec that a batch's attributes name.
    pub fn from_attributes(attributes: i16) -> Result<Codec, CodecError> {
        Ok(match attributes & 0x7 {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            other => return Err(CodecError::Unknown(other.to_le_bytes()[0])),
        })
    }

    /// Bits 0-2 of the attributes.
    pub fn bits(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }
}

/// Replaces the content of `out` by the decompressed `src`, at most `bytes_max` bytes, and tells
/// the framing. After an error `out` holds some prefix; its capacity never passes
/// `max(capacity before, bytes_max)`.
pub fn decompress(
    codec: Codec,
    src: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<Framing, CodecError> {
    out.clear();
    match codec {
        Codec::None => {
            make_room(out, src.len(), bytes_max)?;
            out.extend_from_slice(src);
            Ok(Framing::Plain)
        }
        Codec::Gzip => gzip::decompress(src, bytes_max, out),
        Codec::Snappy => snappy::decompress(src, bytes_max, out),
        Codec::Lz4 => lz4::decompress(src, bytes_max, out),
        Codec::Zstd => zstd::decompress(src, bytes_max, out),
    }
}

/// What `src` says that it becomes, for a first try: a hostile stream lies, so the caller gives
/// `decompress` a cap all the same. `None` if the stream does not say.
pub fn hinted_bytes(codec: Codec, src: &[u8]) -> Option<usize> {
    match codec {
        Codec::None => Some(src.len()),
        Codec::Gzip => Some(gzip::hinted_len(src)),
        Codec::Snappy => snappy::hinted_len(src),
        Codec::Lz4 => lz4::hinted_len(src),
        Codec::Zstd => zstd::bound(src),
    }
}

/// Appends the compressed `src` to `out`.
pub fn compress(
    codec: Codec,
    framing: Framing,
    src: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    match codec {
        Codec::None => out.extend_from_slice(src),
        Codec::Gzip => gzip::compress(src, out)?,
        Codec::Snappy => snappy::compress(framing, src, out)?,
        Codec::Lz4 => lz4::compress(src, out)?,
        Codec::Zstd => zstd::compress(src, out)?,
    }
    Ok(())
}

/// Reserves room for `extra` more bytes: doubling, but never beyond the cap.
fn make_room(out: &mut Vec<u8>, extra: usize, bytes_max: usize) -> Result<(), CodecError> {
    let wanted = out.len().saturating_add(extra);
    if wanted > bytes_max {
        return Err(CodecError::TooLarge { bytes_max });
    }
    if wanted > out.capacity() {
        let target = out.capacity().saturating_mul(2).clamp(wanted, bytes_max);
        out.reserve_exact(target - out.len());
    }
    Ok(())
}

/// Makes `out` longer by `extra` zeroes under the cap and lends the new part.
fn grow(out: &mut Vec<u8>, extra: usize, bytes_max: usize) -> Result<&mut [u8], CodecError> {
    make_room(out, extra, bytes_max)?;
    let start = out.len();
    out.resize(start + extra, 0);
    Ok(&mut out[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_codec_agree_and_unknown_codecs_are_named() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert_eq!(Codec::from_attributes(codec.bits() | 0x78), Ok(codec));
        }
        assert_eq!(Codec::from_attributes(0x16), Err(CodecError::Unknown(6)));
    }

    #[test]
    fn a_stream_says_at_least_what_it_becomes_and_not_much_more() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 50).to_le_bytes()).collect();
        for (codec, framing) in [
            (Codec::Snappy, Framing::Plain),
            (Codec::Snappy, Framing::Xerial),
            (Codec::Lz4, Framing::Plain),
            (Codec::Zstd, Framing::Plain),
        ] {
            let mut packed = Vec::new();
            compress(codec, framing, &text, &mut packed).unwrap();
            let hint = hinted_bytes(codec, &packed).unwrap();
            let fits = text.len()..=text.len() + 128 * 1024;
            assert!(fits.contains(&hint), "{codec:?} {framing:?} says {hint}");
            // What is cut short says something or nothing, but never without bound.
            let cut = (0..64).filter_map(|n| hinted_bytes(codec, &packed[..n])).max();
            assert!(cut.is_none_or(|hint| hint <= *fits.end()), "{codec:?} {framing:?} {cut:?}");
        }
        assert_eq!(hinted_bytes(Codec::Gzip, b"xxxx\x10\0\0\0"), Some(16));
    }

    #[test]
    fn room_doubles_but_stops_at_the_cap() {
        let mut out = Vec::new();
        grow(&mut out, 600, 1000).unwrap();
        grow(&mut out, 100, 1000).unwrap();
        assert_eq!(out.capacity(), 1000);
        assert_eq!(grow(&mut out, 301, 1000), Err(CodecError::TooLarge { bytes_max: 1000 }));
        assert_eq!(out.len(), 700);
    }
}
