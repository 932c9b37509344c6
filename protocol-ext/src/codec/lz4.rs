//! The LZ4 frame format, read straight into the output and written as Kafka's Java client does.
//!
//! Flow: frame head, then blocks (stored, compressed, depending on earlier output or not), end
//! mark, checksum. Written: version 1, independent 64 KiB blocks, no checksums, which every
//! client reads. Invariant: exactly one frame; each block's size is known before room is made.

use lz4_flex::block as lz4;
use twox_hash::XxHash32;

use super::{Codec, CodecError, Framing, grow, make_room};

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// Head of what Java and librdkafka write: independent 64 KiB blocks, nothing optional.
const HEAD: [u8; 7] = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], 0x60, 0x40, 0x82];
const BLOCK_BYTES: usize = 64 * 1024;
/// How far back a dependent block may point.
const WINDOW: usize = 64 * 1024;
const STORED: u32 = 0x8000_0000;

struct Head {
    linked: bool,
    block_checksum: bool,
    content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

pub(super) fn decompress(
    src: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<Framing, CodecError> {
    let (head, mut rest) = read_head(src)?;
    if let Some(bytes) = head.content_bytes {
        // believed only as far as LZ4 can expand
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes <= src.len().saturating_mul(255) {
            make_room(out, bytes, bytes_max)?;
        }
    }
    loop {
        let word = take_u32(&mut rest, "cut block size")?;
        if word == 0 {
            break;
        }
        let len = (word & !STORED) as usize;
        let (block, tail) = rest.split_at_checked(len).ok_or(corrupt("cut block"))?;
        rest = tail;
        if head.block_checksum && take_u32(&mut rest, "cut block checksum")? != hash(block) {
            return Err(corrupt("block checksum"));
        }
        if word & STORED == 0 {
            read_block(&head, block, bytes_max, out)?;
        } else if len > head.block_bytes_max {
            return Err(corrupt("block larger than declared"));
        } else {
            make_room(out, len, bytes_max)?;
            out.extend_from_slice(block);
        }
    }
    if head.content_checksum && take_u32(&mut rest, "cut content checksum")? != hash(out) {
        return Err(corrupt("content checksum"));
    }
    if head.content_bytes.is_some_and(|bytes| bytes != out.len() as u64) {
        return Err(corrupt("content size"));
    }
    if !rest.is_empty() {
        return Err(corrupt("bytes behind the frame"));
    }
    Ok(Framing::Plain)
}

pub(super) fn compress(src: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let failed = |_| CodecError::Compressor(Codec::Lz4);
    out.extend_from_slice(&HEAD);
    let mut table = lz4::CompressTable::large();
    for chunk in src.chunks(BLOCK_BYTES) {
        let word_at = out.len();
        let start = word_at + 4;
        out.resize(start + lz4::get_maximum_output_size(chunk.len()), 0);
        let packed = lz4::compress_into_with_table(chunk, &mut out[start..], &mut table)
            .map_err(|_| CodecError::Compressor(Codec::Lz4))?;
        let word = if packed < chunk.len() {
            out.truncate(start + packed);
            u32::try_from(packed).map_err(failed)?
        } else {
            out.truncate(start);
            out.extend_from_slice(chunk);
            u32::try_from(chunk.len()).map_err(failed)? | STORED
        };
        out[word_at..start].copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    Ok(())
}

/// The most that all blocks can become: each its declared size.
pub(super) fn hinted_len(src: &[u8]) -> Option<usize> {
    let (head, mut rest) = read_head(src).ok()?;
    let mut total = 0usize;
    loop {
        let word = take_u32(&mut rest, "cut block size").ok()?;
        if word == 0 {
            return Some(total);
        }
        let len = (word & !STORED) as usize;
        let most = if word & STORED == 0 { len.saturating_mul(255) } else { len };
        total = total.saturating_add(most.min(head.block_bytes_max));
        rest = rest.get(len + if head.block_checksum { 4 } else { 0 }..)?;
    }
}

fn read_head(src: &[u8]) -> Result<(Head, &[u8]), CodecError> {
    if !src.starts_with(&MAGIC) {
        return Err(corrupt("not an LZ4 frame"));
    }
    let [flags, sizes] = *src.get(4..).and_then(<[u8]>::first_chunk).ok_or(corrupt("cut head"))?;
    if flags >> 6 != 1 || flags & 0x02 != 0 || sizes & 0x8f != 0 {
        return Err(corrupt("unknown version or reserved bits"));
    }
    if flags & 0x01 != 0 {
        return Err(corrupt("needs a dictionary"));
    }
    let block_bytes_max = match sizes >> 4 {
        code @ 4..=7 => 1usize << (8 + 2 * code),
        _ => return Err(corrupt("block size code")),
    };
    let mut check_at = 6;
    let mut content_bytes = None;
    if flags & 0x08 != 0 {
        let bytes = src.get(6..).and_then(<[u8]>::first_chunk).ok_or(corrupt("cut head"))?;
        content_bytes = Some(u64::from_le_bytes(*bytes));
        check_at += 8;
    }
    let check = *src.get(check_at).ok_or(corrupt("cut head"))?;
    // old clients hashed the magic as well (KAFKA-3160)
    if check != head_check(&src[4..check_at]) && check != head_check(&src[..check_at]) {
        return Err(corrupt("head checksum"));
    }
    let head = Head {
        linked: flags & 0x20 == 0,
        block_checksum: flags & 0x10 != 0,
        content_checksum: flags & 0x04 != 0,
        content_bytes,
        block_bytes_max,
    };
    Ok((head, &src[check_at + 1..]))
}

fn read_block(
    head: &Head,
    block: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    // a small limit is cheaper to clear than to measure; a large one is not
    let len = if head.block_bytes_max <= BLOCK_BYTES {
        head.block_bytes_max.min(block.len().saturating_mul(255))
    } else {
        decoded_len(block).ok_or(corrupt("cut sequence"))?
    };
    if len > head.block_bytes_max {
        return Err(corrupt("block larger than declared"));
    }
    let before = out.len();
    let room = len.min(bytes_max.saturating_sub(before));
    grow(out, room, bytes_max)?;
    let (earlier, target) = out.split_at_mut(before);
    let result = if head.linked {
        let window = &earlier[before.saturating_sub(WINDOW)..];
        lz4::decompress_into_with_dict(block, target, window)
    } else {
        lz4::decompress_into(block, target)
    };
    match result {
        Ok(written) => {
            out.truncate(before + written);
            Ok(())
        }
        Err(lz4::DecompressError::OutputTooSmall { .. }) if room < len => {
            Err(CodecError::TooLarge { bytes_max })
        }
        Err(_) => Err(corrupt("bad sequence")),
    }
}

/// What a block decompresses to, by its sequence lengths alone.
fn decoded_len(block: &[u8]) -> Option<usize> {
    let mut pos = 0;
    let mut total = 0usize;
    loop {
        let token = *block.get(pos)?;
        pos += 1;
        let literals = sequence_len(block, &mut pos, token >> 4)?;
        pos = pos.checked_add(literals)?;
        total = total.checked_add(literals)?;
        if pos == block.len() {
            return Some(total);
        }
        pos += 2;
        total = total.checked_add(sequence_len(block, &mut pos, token & 0xf)? + 4)?;
    }
}

#[inline]
fn sequence_len(block: &[u8], pos: &mut usize, nibble: u8) -> Option<usize> {
    let mut len = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = *block.get(*pos)?;
            *pos += 1;
            len += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Some(len)
}

fn take_u32(rest: &mut &[u8], why: &'static str) -> Result<u32, CodecError> {
    let (word, tail) = rest.split_first_chunk::<4>().ok_or(corrupt(why))?;
    *rest = tail;
    Ok(u32::from_le_bytes(*word))
}

fn head_check(bytes: &[u8]) -> u8 {
    hash(bytes).to_le_bytes()[1]
}

fn hash(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

fn corrupt(why: &'static str) -> CodecError {
    CodecError::Corrupt { codec: Codec::Lz4, why }
}
