//! Codecs: round trips, frames as other libraries write them, and caps while streaming.

use std::io::Write;

use proptest::prelude::*;
use protocol_ext::codec::{Codec, CodecError, Framing, compress, decompress};

use crate::generate::{codec, noise};

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (any::<u8>(), 0usize..50_000).prop_map(|(byte, len)| vec![byte; len]),
        (any::<u64>(), 0usize..50_000).prop_map(|(seed, len)| noise(seed, len)),
        (any::<u64>(), 1usize..60, 0usize..900)
            .prop_map(|(seed, len, times)| noise(seed, len).repeat(times)),
    ];
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
}

fn lz4_frame(text: &[u8], info: lz4_flex::frame::FrameInfo) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

proptest! {
    #[test]
    fn what_is_compressed_comes_back_in_the_same_framing(
        text in texts(), (codec, framing) in codec(),
    ) {
        let mut packed = vec![1, 2, 3];
        compress(codec, framing, &text, &mut packed).unwrap();
        prop_assert_eq!(&packed[..3], &[1, 2, 3], "appends");
        let mut out = vec![9; 10];
        let read = decompress(codec, &packed[3..], text.len(), &mut out).unwrap();
        prop_assert_eq!(read, framing);
        prop_assert_eq!(out, text);
    }

    #[test]
    fn every_cap_below_the_size_is_kept_while_streaming(
        text in texts(), (codec, framing) in codec(), share in 0.0f64..1.0,
    ) {
        let mut packed = Vec::new();
        compress(codec, framing, &text, &mut packed).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to len")]
        let bytes_max = (text.len() as f64 * share) as usize;
        prop_assume!(bytes_max < text.len());
        let mut out = Vec::new();
        let result = decompress(codec, &packed, bytes_max, &mut out);
        prop_assert_eq!(result, Err(CodecError::TooLarge { bytes_max }));
        prop_assert!(out.capacity() <= bytes_max.max(8), "{} > {}", out.capacity(), bytes_max);
    }

    #[test]
    fn lz4_frames_of_every_kind_are_read(
        text in texts(), linked in any::<bool>(), block_sum in any::<bool>(),
        content_sum in any::<bool>(), size in any::<bool>(), block in 4usize..8,
    ) {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
        let sizes =
            [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
        let info = FrameInfo::new()
            .block_mode(if linked { BlockMode::Linked } else { BlockMode::Independent })
            .block_checksums(block_sum)
            .content_checksum(content_sum)
            .content_size(size.then_some(text.len() as u64))
            .block_size(sizes[block - 4]);
        let packed = lz4_frame(&text, info);
        let mut out = Vec::new();
        decompress(Codec::Lz4, &packed, text.len(), &mut out).unwrap();
        prop_assert_eq!(&out, &text);
        // and where there is a sum, no other text passes for this one
        if content_sum || block_sum {
            let mut changed = packed.clone();
            let at = changed.len() - 20.min(changed.len() - 1);
            changed[at] ^= 0x10;
            let mut other = Vec::new();
            let result = decompress(Codec::Lz4, &changed, text.len() + 100, &mut other);
            // the change may hit a match that says the same from elsewhere
            prop_assert!(result.is_err() || other == text);
        }
    }

    #[test]
    fn zstd_frames_without_a_declared_size_are_read(text in texts(), level in 1i32..5) {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), level).unwrap();
        encoder.include_checksum(true).unwrap();
        for chunk in text.chunks(7000) {
            encoder.write_all(chunk).unwrap();
        }
        let mut packed = encoder.finish().unwrap();
        packed.extend_from_slice(&zstd::bulk::compress(b"another frame", 1).unwrap());
        let mut out = Vec::new();
        decompress(Codec::Zstd, &packed, text.len() + 13, &mut out).unwrap();
        prop_assert_eq!(out, [&text[..], b"another frame"].concat());
    }

    #[test]
    fn gzip_of_any_level_and_with_a_name_is_read(text in texts(), level in 0u32..10) {
        let mut encoder = flate2::GzBuilder::new()
            .filename("records")
            .write(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(&text).unwrap();
        let packed = encoder.finish().unwrap();
        let mut out = Vec::new();
        decompress(Codec::Gzip, &packed, text.len(), &mut out).unwrap();
        prop_assert_eq!(out, text);
    }
}

#[test]
fn a_bomb_of_every_codec_stops_at_the_cap() {
    let bytes_max = 1 << 20;
    let zeroes = vec![0; 64 << 20];
    for (codec, framing) in [
        (Codec::Gzip, Framing::Plain),
        (Codec::Snappy, Framing::Plain),
        (Codec::Snappy, Framing::Xerial),
        (Codec::Lz4, Framing::Plain),
        (Codec::Zstd, Framing::Plain),
    ] {
        let mut packed = Vec::new();
        compress(codec, framing, &zeroes, &mut packed).unwrap();
        let mut out = Vec::new();
        let result = decompress(codec, &packed, bytes_max, &mut out);
        assert_eq!(result, Err(CodecError::TooLarge { bytes_max }), "{codec:?}");
        assert!(out.capacity() <= bytes_max, "{codec:?} {}", out.capacity());
    }
}

#[test]
fn an_old_client_s_lz4_head_checksum_is_taken() {
    let mut packed = Vec::new();
    compress(Codec::Lz4, Framing::Plain, b"hello hello hello", &mut packed).unwrap();
    // KAFKA-3160: the sum went over the magic as well
    packed[6] = twox_hash::XxHash32::oneshot(0, &packed[..6]).to_le_bytes()[1];
    let mut out = Vec::new();
    decompress(Codec::Lz4, &packed, 100, &mut out).unwrap();
    assert_eq!(out, b"hello hello hello");
    packed[6] ^= 1;
    assert!(decompress(Codec::Lz4, &packed, 100, &mut out).is_err());
}
