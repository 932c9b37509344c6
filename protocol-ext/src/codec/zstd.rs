//! Zstandard, decompressed in one shot so that a hostile window size allocates nothing.
//!
//! Flow: `bound` walks frame and block headers and gives the most that the stream can become;
//! the output gets that much room, or the cap if the bound is above; then libzstd fills it.
//! The library writes within that room only, and needs no window buffer of its own.
//! The contexts are kept per thread: making one costs more than a small batch.

use std::cell::RefCell;
use std::io::Cursor;

use zstd::zstd_safe::{self, CCtx, DCtx};

use super::{Codec, CodecError, Framing, make_room};

/// Level used when a batch is written again. Clients use 3; 1 is twice as fast, a bit larger.
const LEVEL: i32 = 1;
const FRAME_MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;
const BLOCK_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
    static ENCODER: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
}

pub(super) fn decompress(
    src: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<Framing, CodecError> {
    let bound = bound(src).ok_or(corrupt("cut or malformed frame"))?;
    make_room(out, bound.min(bytes_max), bytes_max)?;
    match DECODER.with_borrow_mut(|decoder| decoder.decompress(out, src)) {
        Ok(written) if written <= bytes_max => Ok(Framing::Plain),
        Ok(_) => Err(CodecError::TooLarge { bytes_max }),
        Err(_) if bound > bytes_max => Err(CodecError::TooLarge { bytes_max }),
        Err(code) => Err(corrupt(zstd_safe::get_error_name(code))),
    }
}

pub(super) fn compress(src: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    out.reserve(zstd_safe::compress_bound(src.len()));
    let mut target = Cursor::new(out);
    target.set_position(start as u64);
    ENCODER
        .with_borrow_mut(|encoder| encoder.compress(&mut target, src, LEVEL))
        .map_err(|_| CodecError::Compressor(Codec::Zstd))?;
    Ok(())
}

/// The most that all frames together can decompress to; `None` if their headers are malformed.
pub(super) fn bound(src: &[u8]) -> Option<usize> {
    let mut rest = src;
    let mut total = 0usize;
    while !rest.is_empty() {
        let magic = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        if magic & 0xFFFF_FFF0 == SKIPPABLE_MAGIC {
            let len = u32::from_le_bytes(*rest.get(4..)?.first_chunk::<4>()?) as usize;
            rest = rest.get(8usize.checked_add(len)?..)?;
            continue;
        }
        if magic != FRAME_MAGIC {
            return None;
        }
        let (frame, tail) = frame_bound(rest)?;
        total = total.saturating_add(frame);
        rest = tail;
    }
    Some(total)
}

/// Bound of the frame at the start of `src`, and what lies behind it (RFC 8878, 3.1.1).
fn frame_bound(src: &[u8]) -> Option<(usize, &[u8])> {
    let descriptor = *src.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 0x3)];
    let (size_bytes, size_base) = match descriptor >> 6 {
        0 => (usize::from(single_segment), 0),
        1 => (2, 256),
        2 => (4, 0),
        _ => (8, 0),
    };
    let size_at = 5 + usize::from(!single_segment) + dictionary_bytes;
    let mut rest = src.get(size_at..)?;
    let (size, tail) = rest.split_at_checked(size_bytes)?;
    let declared = size.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    rest = tail;
    let mut blocks = 0usize;
    loop {
        let (head, tail) = rest.split_first_chunk::<3>()?;
        let head = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let len = (head >> 3) as usize;
        let (stored, produced) = match head >> 1 & 0x3 {
            0 => (len, len),
            1 => (1, len),
            2 => (len, BLOCK_BYTES_MAX),
            _ => return None,
        };
        blocks = blocks.saturating_add(produced);
        rest = tail.get(stored..)?;
        if head & 1 == 1 {
            break;
        }
    }
    if descriptor & 0x4 != 0 {
        rest = rest.get(4..)?;
    }
    if size_bytes == 0 {
        return Some((blocks, rest));
    }
    // a declared size beyond what the blocks can hold is a lie
    let declared = usize::try_from(declared).ok()?.checked_add(size_base)?;
    (declared <= blocks).then_some((declared, rest))
}

fn corrupt(why: &'static str) -> CodecError {
    CodecError::Corrupt { codec: Codec::Zstd, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_exact_where_the_size_is_declared_and_close_where_not() {
        let text = vec![b'x'; 300_000];
        let mut declared = Vec::new();
        compress(&text, &mut declared).unwrap();
        assert_eq!(bound(&declared), Some(text.len()));
        let streamed = zstd::stream::encode_all(&text[..], 3).unwrap();
        let bound = bound(&streamed).unwrap();
        assert!(bound >= text.len() && bound <= text.len() + 2 * BLOCK_BYTES_MAX, "{bound}");
    }

    #[test]
    fn a_bomb_of_repeated_byte_blocks_stops_at_the_cap() {
        let mut src = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58];
        for last in [0u32, 0, 0, 1] {
            let head = last | 1 << 1 | 0x2_0000 << 3;
            src.extend_from_slice(&head.to_le_bytes()[..3]);
            src.push(b'!');
        }
        let mut out = Vec::new();
        assert_eq!(
            decompress(&src, 200_000, &mut out),
            Err(CodecError::TooLarge { bytes_max: 200_000 })
        );
        assert!(out.capacity() <= 200_000);
        decompress(&src, 1 << 20, &mut out).unwrap();
        assert_eq!(out, vec![b'!'; 4 * BLOCK_BYTES_MAX]);
    }
}
