//! How one value becomes the stored bytes of a part, and back.
//!
//! Flow: `Policy::encode` asks `format`, tries on a sample, compresses if that gains enough;
//! `decode` undoes it by the numbers that the reference carries. Invariant: decoding never makes
//! more than the original's length, and gives that length or an error.

use crate::codec::{self, CodecError, Framing};
use crate::format::{Detected, Format, detect};

/// How stored bytes are compressed. The numbers stand in references and packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    None = 0,
    /// Zstandard, level 1.
    Zstd = 1,
    /// gzip.
    Gzip = 2,
    /// An LZ4 frame.
    Lz4 = 3,
}

/// Which codec to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// None for what is compressed already; else Zstandard, if a sample gains; bytes of numbers
    /// are regrouped first where that gains more.
    #[default]
    Auto,
    /// This one, whatever the value is; what it does not make smaller stays as it is.
    Always(Codec),
}

/// Stored bytes and what they are; `None`: the value itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The stored bytes if they are others than the value's.
    pub bytes: Option<Vec<u8>>,
    /// Number of the codec.
    pub codec: u8,
    /// Bytes of one number whose bytes were regrouped (2, 4, 8), or 0.
    pub filter: u8,
    /// Number of the format.
    pub format: u8,
}

/// Why stored bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// A codec or filter not known here.
    #[error("unknown codec {0} or filter {1}")]
    Unknown(u8, u8),
    /// Damaged, or longer than the original.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Shorter or longer than the original.
    #[error("{got} bytes where the original has {expected}")]
    Length {
        /// Bytes that came out.
        got: usize,
        /// Bytes of the original.
        expected: usize,
    },
}

impl Codec {
    fn of_batch(self) -> codec::Codec {
        match self {
            Codec::None => codec::Codec::None,
            Codec::Zstd => codec::Codec::Zstd,
            Codec::Gzip => codec::Codec::Gzip,
            Codec::Lz4 => codec::Codec::Lz4,
        }
    }
}

impl Policy {
    /// The stored form of a value. A compressor that fails leaves the value as it is.
    pub fn encode(self, value: &[u8]) -> Encoded {
        let found = detect(value);
        let (codec, filter) = match self {
            Policy::Auto => chosen(value, found),
            Policy::Always(codec) => (codec, 0),
        };
        let plain = Encoded { bytes: None, codec: 0, filter: 0, format: found.format as u8 };
        if codec == Codec::None {
            return plain;
        }
        match pack(codec, filter, value) {
            Some(bytes) if gains(bytes.len(), value.len(), KEPT) => {
                Encoded { bytes: Some(bytes), codec: codec as u8, filter, ..plain }
            }
            _ => plain,
        }
    }
}

/// Bytes of a value's hash in packs and references.
pub const HASH_BYTES: usize = 16;

/// The hash of a value: the first bytes of its BLAKE3.
pub fn hash(value: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&blake3::hash(value).as_bytes()[..HASH_BYTES]);
    hash
}

/// Undoes `encode`. `None`: the stored bytes are the value.
pub fn decode(
    codec: u8,
    filter: u8,
    stored: &[u8],
    original_bytes: usize,
) -> Result<Option<Vec<u8>>, PartError> {
    let exact = |got: usize| {
        let expected = original_bytes;
        if got == expected { Ok(()) } else { Err(PartError::Length { got, expected }) }
    };
    let codec = match (codec, filter) {
        (0, 0) => return exact(stored.len()).map(|()| None),
        (1, 0 | 2 | 4 | 8) => codec::Codec::Zstd,
        (2, 0) => codec::Codec::Gzip,
        (3, 0) => codec::Codec::Lz4,
        _ => return Err(PartError::Unknown(codec, filter)),
    };
    let mut out = Vec::new();
    codec::decompress(codec, stored, original_bytes, &mut out)?;
    exact(out.len())?;
    Ok(Some(if filter == 0 { out } else { ungrouped(&out, filter.into()) }))
}

/// Tries on a sample which codec and filter pay.
fn chosen(value: &[u8], found: Detected) -> (Codec, u8) {
    if found.packed || value.len() < SAMPLE_BYTES_MIN {
        return (Codec::None, 0);
    }
    // Numbers lie behind a head, so they are looked for in the middle, aligned as the value is.
    let numbers = matches!(
        found.format,
        Format::Tiff
            | Format::GeoTiff
            | Format::Hdf5
            | Format::NetCdf
            | Format::Fits
            | Format::Nitf
    );
    let bytes = value.len().min(SAMPLE_BYTES);
    let from = if numbers { ((value.len() - bytes) / 2) & !7 } else { 0 };
    let sample = &value[from..from + bytes];
    let widths: &[u8] = match (numbers, found.width) {
        (false, _) | (true, 1) => &[0],
        (true, 2) => &[0, 2],
        (true, 4) => &[0, 4],
        (true, 8) => &[0, 8],
        (true, _) => &[0, 2, 4, 8],
    };
    let sizes = widths.iter().filter_map(|width| {
        let packed = pack(Codec::Zstd, *width, sample)?;
        Some((packed.len(), *width))
    });
    match sizes.min() {
        Some((packed, width)) if gains(packed, sample.len(), WORTH_IT) => (Codec::Zstd, width),
        _ => (Codec::None, 0),
    }
}

fn pack(codec: Codec, filter: u8, value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let done = match filter {
        0 => codec::compress(codec.of_batch(), Framing::Plain, value, &mut out),
        width => {
            let grouped = grouped(value, width.into());
            codec::compress(codec.of_batch(), Framing::Plain, &grouped, &mut out)
        }
    };
    done.ok().map(|()| out)
}

/// Whether `packed` is at least `percent` smaller than `bytes`.
fn gains(packed: usize, bytes: usize, percent: usize) -> bool {
    packed.saturating_mul(100) <= bytes.saturating_mul(100 - percent)
}

/// First bytes of all numbers, then second bytes, and so on; what is left over stays behind.
fn grouped(value: &[u8], width: usize) -> Vec<u8> {
    let mut out = vec![0; value.len()];
    match width {
        2 => regroup::<2>(value, &mut out),
        4 => regroup::<4>(value, &mut out),
        _ => regroup::<8>(value, &mut out),
    }
    out
}

fn regroup<const W: usize>(value: &[u8], out: &mut [u8]) {
    let (numbers, rest) = value.as_chunks::<W>();
    let (planes, behind) = out.split_at_mut(numbers.len() * W);
    behind.copy_from_slice(rest);
    let count = numbers.len();
    // Blocks stay in the first cache while every plane takes its byte of them.
    for (block, numbers) in numbers.chunks(BLOCK).enumerate() {
        for n in 0..W {
            let plane = &mut planes[n * count + block * BLOCK..][..numbers.len()];
            for (to, number) in plane.iter_mut().zip(numbers) {
                *to = number[n];
            }
        }
    }
}

fn ungrouped(grouped: &[u8], width: usize) -> Vec<u8> {
    let mut out = vec![0; grouped.len()];
    match width {
        2 => undo_regroup::<2>(grouped, &mut out),
        4 => undo_regroup::<4>(grouped, &mut out),
        _ => undo_regroup::<8>(grouped, &mut out),
    }
    out
}

fn undo_regroup<const W: usize>(grouped: &[u8], out: &mut [u8]) {
    let (numbers, behind) = out.as_chunks_mut::<W>();
    let count = numbers.len();
    behind.copy_from_slice(&grouped[count * W..]);
    for (block, numbers) in numbers.chunks_mut(BLOCK).enumerate() {
        for n in 0..W {
            let plane = &grouped[n * count + block * BLOCK..][..numbers.len()];
            for (number, from) in numbers.iter_mut().zip(plane) {
                number[n] = *from;
            }
        }
    }
}

/// Bytes that are tried.
const SAMPLE_BYTES: usize = 64 * 1024;
/// Less is not worth a codec.
const SAMPLE_BYTES_MIN: usize = 64;
/// Percent that a sample must gain for the whole to be compressed.
const WORTH_IT: usize = 10;
/// Percent that the whole must gain to be stored so.
const KEPT: usize = 5;
/// Numbers regrouped at once.
const BLOCK: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(policy: Policy, value: &[u8]) -> Encoded {
        let encoded = policy.encode(value);
        let stored = encoded.bytes.as_deref().unwrap_or(value);
        let back = decode(encoded.codec, encoded.filter, stored, value.len()).unwrap();
        assert_eq!(back.as_deref().unwrap_or(stored), value);
        encoded
    }

    /// A FITS image of slowly rising 32-bit numbers with noise in the lowest byte.
    fn raster(numbers: u32) -> Vec<u8> {
        let mut out = format!("{:80}BITPIX  =                   32{:50}", "SIMPLE  = T", "");
        out.push_str(&" ".repeat(2880 - 160));
        let mut out = out.into_bytes();
        let mut noise = 1u32;
        for n in 0..numbers {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            out.extend(((n / 50) << 8 | noise >> 24).to_be_bytes());
        }
        out
    }

    #[test]
    fn numbers_are_regrouped_where_that_gains_and_noise_stays_as_it_is() {
        let value = raster(100_000);
        let encoded = round_trip(Policy::Auto, &value);
        assert_eq!((encoded.codec, encoded.filter), (1, 4));
        let plain = pack(Codec::Zstd, 0, &value).unwrap();
        assert!(encoded.bytes.unwrap().len() * 10 < plain.len() * 9);
        let mut noise = vec![0; 100_000];
        let mut state = 1u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
        let encoded = round_trip(Policy::Auto, &noise);
        assert_eq!((encoded.bytes, encoded.codec), (None, 0));
        let jpeg = [&[0xff, 0xd8, 0xff][..], &[0; 10_000]].concat();
        assert_eq!(round_trip(Policy::Auto, &jpeg).codec, 0);
        assert_eq!(round_trip(Policy::Always(Codec::Gzip), &jpeg).codec, 2);
        let text = b"{\"latitude\":38.5,\"longitude\":-121.5}".repeat(1000);
        assert_eq!(round_trip(Policy::Auto, &text).codec, 1);
    }

    #[test]
    fn what_is_not_the_original_is_refused() {
        let value = b"wildfire".repeat(1000);
        let bytes = Policy::Auto.encode(&value).bytes.unwrap();
        assert!(decode(1, 0, &bytes, value.len() - 1).is_err());
        let short = decode(1, 0, &bytes, value.len() + 1);
        assert_eq!(short, Err(PartError::Length { got: 8000, expected: 8001 }));
        assert!(decode(0, 0, &bytes, value.len()).is_err());
        assert_eq!(decode(9, 0, &bytes, 1), Err(PartError::Unknown(9, 0)));
        assert_eq!(decode(1, 3, &bytes, 1), Err(PartError::Unknown(1, 3)));
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            value in prop::collection::vec(any::<u8>(), 0..20_000), runs in 1..50usize,
            width in prop::sample::select(vec![2usize, 4, 8]),
        ) {
            let long: Vec<u8> = value.iter().flat_map(|b| std::iter::repeat_n(*b, runs)).collect();
            for codec in [Codec::None, Codec::Zstd, Codec::Gzip, Codec::Lz4] {
                round_trip(Policy::Always(codec), &long);
            }
            round_trip(Policy::Auto, &long);
            prop_assert_eq!(ungrouped(&grouped(&value, width), width), value);
        }

        #[test]
        fn any_stored_bytes_make_an_error_or_the_length_that_was_asked_for(
            stored in prop::collection::vec(any::<u8>(), 0..500), codec in 0..5u8,
            filter in 0..9u8, bytes in 0..2000usize,
        ) {
            if let Ok(Some(value)) = decode(codec, filter, &stored, bytes) {
                prop_assert_eq!(value.len(), bytes);
            }
        }
    }
}
