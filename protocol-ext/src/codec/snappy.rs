//! Snappy, raw and in xerial's framing (16-byte head, then blocks behind 4-byte lengths).
//!
//! Flow: the head's first 8 bytes decide; each block tells its size first, so room is made before
//! a byte is written. A size that no snappy stream of that length can reach is refused unread.

use super::{Codec, CodecError, Framing, grow};

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEAD: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// Block size of snappy-java.
const XERIAL_BLOCK: usize = 32 * 1024;
/// A three-byte copy gives at most 64 bytes.
const RATIO_MAX: usize = 32;

pub(super) fn decompress(
    src: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<Framing, CodecError> {
    if !src.starts_with(&XERIAL_MAGIC) {
        block(src, bytes_max, out)?;
        return Ok(Framing::Plain);
    }
    let mut rest = src.get(XERIAL_HEAD.len()..).ok_or(corrupt("cut xerial head"))?;
    while !rest.is_empty() {
        // snappy-java reads streams put one behind the other
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEAD.len()..).ok_or(corrupt("cut xerial head"))?;
            continue;
        }
        let (len, tail) = rest.split_first_chunk::<4>().ok_or(corrupt("cut block length"))?;
        let len = u32::from_be_bytes(*len) as usize;
        let (compressed, tail) = tail.split_at_checked(len).ok_or(corrupt("cut block"))?;
        block(compressed, bytes_max, out)?;
        rest = tail;
    }
    Ok(Framing::Xerial)
}

pub(super) fn compress(framing: Framing, src: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut encoder = snap::raw::Encoder::new();
    match framing {
        Framing::Plain => write_block(&mut encoder, src, out),
        Framing::Xerial => {
            out.extend_from_slice(&XERIAL_HEAD);
            for chunk in src.chunks(XERIAL_BLOCK) {
                let len_at = out.len();
                out.extend_from_slice(&[0; 4]);
                write_block(&mut encoder, chunk, out)?;
                let len = u32::try_from(out.len() - len_at - 4)
                    .map_err(|_| CodecError::Compressor(Codec::Snappy))?;
                out[len_at..len_at + 4].copy_from_slice(&len.to_be_bytes());
            }
            Ok(())
        }
    }
}

/// The sizes that all blocks say, one behind the other; of each no more than it can become.
pub(super) fn hinted_len(src: &[u8]) -> Option<usize> {
    let said = |block: &[u8]| {
        let said = snap::raw::decompress_len(block).ok()?;
        Some(said.min(block.len().saturating_mul(RATIO_MAX)))
    };
    if !src.starts_with(&XERIAL_MAGIC) {
        return said(src);
    }
    let mut rest = src.get(XERIAL_HEAD.len()..)?;
    let mut total = 0usize;
    while !rest.is_empty() {
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEAD.len()..)?;
            continue;
        }
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (block, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        total = total.saturating_add(said(block)?);
        rest = tail;
    }
    Some(total)
}

fn block(src: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if src.is_empty() {
        return Err(corrupt("empty block"));
    }
    let len = snap::raw::decompress_len(src).map_err(|_| corrupt("bad size"))?;
    if len > src.len().saturating_mul(RATIO_MAX) {
        return Err(corrupt("impossible size"));
    }
    let target = grow(out, len, bytes_max)?;
    let written =
        snap::raw::Decoder::new().decompress(src, target).map_err(|_| corrupt("bad element"))?;
    if written != len {
        return Err(corrupt("size not reached"));
    }
    Ok(())
}

fn write_block(
    encoder: &mut snap::raw::Encoder,
    src: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let start = out.len();
    out.resize(start + snap::raw::max_compress_len(src.len()), 0);
    let written = encoder
        .compress(src, &mut out[start..])
        .map_err(|_| CodecError::Compressor(Codec::Snappy))?;
    out.truncate(start + written);
    Ok(())
}

fn corrupt(why: &'static str) -> CodecError {
    CodecError::Corrupt { codec: Codec::Snappy, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_block_is_believed_to_become_more_than_it_can() {
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
        assert_eq!(snap::raw::decompress_len(&lie), Ok(u32::MAX as usize));
        assert_eq!(hinted_len(&lie), Some(lie.len() * RATIO_MAX));
        let mut framed = XERIAL_HEAD.to_vec();
        for _ in 0..2 {
            framed.extend_from_slice(&[0, 0, 0, 8]);
            framed.extend_from_slice(&lie);
        }
        assert_eq!(hinted_len(&framed), Some(2 * lie.len() * RATIO_MAX));
    }

    #[test]
    fn xerial_streams_in_a_row_are_read_as_one() {
        let mut src = Vec::new();
        compress(Framing::Xerial, b"one", &mut src).unwrap();
        compress(Framing::Xerial, b"two", &mut src).unwrap();
        let mut out = Vec::new();
        assert_eq!(decompress(&src, 10, &mut out), Ok(Framing::Xerial));
        assert_eq!(out, b"onetwo");
    }

    #[test]
    fn a_size_out_of_reach_is_refused_before_any_allocation() {
        // varint 0x7fffffff, then one literal byte
        let src = [0xff, 0xff, 0xff, 0xff, 0x07, 0x00, 0x41];
        let mut out = Vec::new();
        assert_eq!(decompress(&src, usize::MAX, &mut out), Err(corrupt("impossible size")));
        assert_eq!(out.capacity(), 0);
    }
}
