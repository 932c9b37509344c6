//! What a value is, by its first bytes: a hint for compression and a metric label, never a gate.
//!
//! Flow: magic numbers, also behind a schema registry's five bytes; of TIFF also the first
//! directory, for what its pixels are. Invariant: every read is checked; at most 64 KiB is looked
//! at; no answer is ever needed for correctness.

/// Formats that are told apart. The numbers stand in references and packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Format {
    /// None of the others.
    Unknown = 0,
    /// TIFF, classic or big.
    Tiff = 1,
    /// TIFF with a GeoKey directory (tag 34735).
    GeoTiff = 2,
    /// JPEG.
    Jpeg = 3,
    /// PNG.
    Png = 4,
    /// JPEG 2000, file or bare code stream.
    Jp2 = 5,
    /// HDF5, also NetCDF 4.
    Hdf5 = 6,
    /// NetCDF classic (1, 2, 5).
    NetCdf = 7,
    /// NITF or NSIF.
    Nitf = 8,
    /// GRIB 1 or 2.
    Grib = 9,
    /// FITS.
    Fits = 10,
    /// WebP.
    WebP = 11,
    /// AVIF or HEIC.
    Heif = 12,
    /// ZIP, also what is built on it (KMZ, GeoPackage archives, office documents).
    Zip = 13,
    /// gzip.
    Gzip = 14,
    /// Zstandard.
    Zstd = 15,
}

/// Names by number, for metrics.
pub const NAMES: [&str; 16] = [
    "unknown", "tiff", "geotiff", "jpeg", "png", "jp2", "hdf5", "netcdf", "nitf", "grib", "fits",
    "webp", "heif", "zip", "gzip", "zstd",
];

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detected {
    /// Its format.
    pub format: Format,
    /// Whether its bulk is compressed already.
    pub packed: bool,
    /// Bytes of one number in its bulk (1, 2, 4 or 8), where the format says; 0 where not.
    pub width: u8,
}

/// Looks at a value.
pub fn detect(value: &[u8]) -> Detected {
    let found = detect_bare(value);
    match value.first_chunk::<5>() {
        // A schema registry's magic byte and schema id.
        Some([0, ..]) if found.format == Format::Unknown => detect_bare(&value[5..]),
        _ => found,
    }
}

fn detect_bare(value: &[u8]) -> Detected {
    let plain = |format| Detected { format, packed: false, width: 0 };
    let packed = |format| Detected { format, packed: true, width: 0 };
    let starts = |magic: &[u8]| value.starts_with(magic);
    match value {
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => tiff(value),
        [0xff, 0xd8, 0xff, ..] => packed(Format::Jpeg),
        [0x1f, 0x8b, 8, ..] => packed(Format::Gzip),
        [b'P', b'K', 3 | 5 | 7, 4 | 6 | 8, ..] => packed(Format::Zip),
        [b'C', b'D', b'F', 1 | 2 | 5, ..] => plain(Format::NetCdf),
        _ if starts(b"\x89PNG\r\n\x1a\n") => packed(Format::Png),
        _ if starts(b"\0\0\0\x0cjP  \r\n\x87\n") || starts(b"\xff\x4f\xff\x51") => {
            packed(Format::Jp2)
        }
        _ if starts(b"\x28\xb5\x2f\xfd") => packed(Format::Zstd),
        _ if starts(b"GRIB") => packed(Format::Grib),
        _ if starts(b"NITF") || starts(b"NSIF") => plain(Format::Nitf),
        _ if starts(b"SIMPLE  =") => fits(value),
        _ if starts(b"RIFF") && value.get(8..12) == Some(b"WEBP") => packed(Format::WebP),
        _ if value.get(4..8) == Some(b"ftyp") && is_heif(value) => packed(Format::Heif),
        _ if is_hdf5(value) => plain(Format::Hdf5),
        _ => plain(Format::Unknown),
    }
}

fn is_heif(value: &[u8]) -> bool {
    let brands: [&[u8]; 5] = [b"avif", b"avis", b"heic", b"heix", b"mif1"];
    value.get(8..12).is_some_and(|brand| brands.contains(&brand))
}

/// The signature stands at 0 or, behind a user block, at 512 or a doubling of it.
fn is_hdf5(value: &[u8]) -> bool {
    let at = |at: usize| value.get(at..at + 8) == Some(b"\x89HDF\r\n\x1a\n");
    at(0) || (9..16).any(|power| at(1 << power))
}

/// FITS tells the width of its numbers in the card BITPIX.
fn fits(value: &[u8]) -> Detected {
    let cards = value[..value.len().min(2880)].as_chunks::<80>().0;
    let bits = cards.iter().find(|card| card.starts_with(b"BITPIX  ="));
    let bits = bits.and_then(|card| str::from_utf8(&card[10..30]).ok()?.trim().parse::<i32>().ok());
    let width = bits.map_or(0, |bits| width(bits.unsigned_abs()));
    Detected { format: Format::Fits, packed: false, width }
}

fn width(bits: u32) -> u8 {
    match bits {
        1..=8 => 1,
        16 => 2,
        32 => 4,
        64 => 8,
        _ => 0,
    }
}

const TAG_BITS_PER_SAMPLE: u16 = 258;
const TAG_COMPRESSION: u16 = 259;
const TAG_GEO_KEYS: u16 = 34735;
const NO_COMPRESSION: u64 = 1;
/// Entries of a directory that are looked at: 20 bytes each.
const ENTRIES_MAX: usize = 1000;

/// Reads the first directory of a TIFF, wherever it lies.
fn tiff(value: &[u8]) -> Detected {
    let read = Ends { value, little: value[0] == b'I', big: value[2] == 43 || value[3] == 43 };
    let mut found = Detected { format: Format::Tiff, packed: true, width: 0 };
    let Some((mut at, count)) = read.directory() else {
        return Detected { packed: false, ..found };
    };
    let (entry_bytes, value_at) = if read.big { (20, 12) } else { (12, 8) };
    for _ in 0..count.min(ENTRIES_MAX) {
        let Some(tag) = read.number(at, 2).and_then(|tag| u16::try_from(tag).ok()) else { break };
        match tag {
            TAG_COMPRESSION => {
                found.packed = read.number(at + value_at, 2) != Some(NO_COMPRESSION);
            }
            TAG_BITS_PER_SAMPLE => found.width = read.bits(at, value_at).map_or(0, width),
            TAG_GEO_KEYS => found.format = Format::GeoTiff,
            _ => {}
        }
        at += entry_bytes;
    }
    found
}

/// A TIFF's numbers, in its byte order.
struct Ends<'a> {
    value: &'a [u8],
    little: bool,
    big: bool,
}

impl Ends<'_> {
    fn number(&self, at: usize, bytes: usize) -> Option<u64> {
        let bytes = self.value.get(at..at.checked_add(bytes)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// Where the entries of the first directory begin, and how many there are.
    fn directory(&self) -> Option<(usize, usize)> {
        let (from, from_bytes, count_bytes) = if self.big { (8, 8, 8) } else { (4, 4, 2) };
        let at = usize::try_from(self.number(from, from_bytes)?).ok()?;
        let count = usize::try_from(self.number(at, count_bytes)?).ok()?;
        Some((at.checked_add(count_bytes)?, count))
    }

    /// Bits of the first sample: in the entry, or where it points if there are many samples.
    fn bits(&self, entry: usize, value_at: usize) -> Option<u32> {
        let (count_bytes, inline_bytes) = if self.big { (8, 8) } else { (4, 4) };
        let count = self.number(entry + 4, count_bytes)?;
        let at = if count.checked_mul(2)? <= inline_bytes {
            entry + value_at
        } else {
            let pointer_bytes = if self.big { 8 } else { 4 };
            usize::try_from(self.number(entry + value_at, pointer_bytes)?).ok()?
        };
        u32::try_from(self.number(at, 2)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian TIFF of one directory at its end.
    fn tiff_of(compression: u16, bits: u16, geo: bool) -> Vec<u8> {
        let mut out = b"II\x2a\0\x20\0\0\0".to_vec();
        out.resize(32, 7);
        let entry = |tag: u16, value: u16| {
            let mut entry = tag.to_le_bytes().to_vec();
            entry.extend([3, 0, 1, 0, 0, 0]);
            entry.extend(u32::from(value).to_le_bytes());
            entry
        };
        let mut entries = vec![entry(258, bits), entry(259, compression)];
        if geo {
            entries.push(entry(34735, 0));
        }
        out.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
        out.extend(entries.concat());
        out
    }

    /// A BigTIFF of one directory at its end, in either byte order.
    fn big_tiff_of(little: bool, compression: u16, bits: u16) -> Vec<u8> {
        let number = |value: u64, bytes: usize| {
            let mut number = value.to_le_bytes()[..bytes].to_vec();
            if !little {
                number.reverse();
            }
            number
        };
        let mut out = if little { b"II\x2b\0".to_vec() } else { b"MM\0\x2b".to_vec() };
        out.extend([number(8, 2), number(0, 2), number(32, 8)].concat());
        out.resize(32, 7);
        out.extend(number(3, 8));
        for (tag, value) in [(258, bits), (259, compression), (34735, 0)] {
            out.extend([number(tag, 2), number(3, 2), number(1, 8)].concat());
            // A short stands at the front of its field.
            out.extend([number(value.into(), 2), vec![0; 6]].concat());
        }
        out
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let padded = |magic: &[u8]| [magic, &[0; 600]].concat();
        for (value, format, packed) in [
            (padded(b"\xff\xd8\xff\xe0"), Format::Jpeg, true),
            (padded(b"\x89PNG\r\n\x1a\n"), Format::Png, true),
            (padded(b"\x89HDF\r\n\x1a\n"), Format::Hdf5, false),
            ([&[1; 512][..], b"\x89HDF\r\n\x1a\n"].concat(), Format::Hdf5, false),
            (padded(b"CDF\x01"), Format::NetCdf, false),
            (padded(b"CDF\x02"), Format::NetCdf, false),
            (padded(b"CDF\x05"), Format::NetCdf, false),
            (padded(b"CDF\x03"), Format::Unknown, false),
            (padded(b"RIFF\0\0\0\0WEBP"), Format::WebP, true),
            (padded(b"\0\0\0\x1cftypavif"), Format::Heif, true),
            (padded(b"\0\0\0\x18ftypheic"), Format::Heif, true),
            (padded(b"\0\0\0\x18ftypheix"), Format::Heif, true),
            (padded(b"\0\0\0\x18ftypmif1"), Format::Heif, true),
            (padded(b"\0\0\0\x1cftypisom"), Format::Unknown, false),
            (padded(b"PK\x03\x04"), Format::Zip, true),
            (padded(b"GRIB"), Format::Grib, true),
            (padded(b"NITF02.10"), Format::Nitf, false),
            (padded(b"\0\0\0\x0cjP  \r\n\x87\n"), Format::Jp2, true),
            (padded(b"\x28\xb5\x2f\xfd"), Format::Zstd, true),
            (padded(b"\x1f\x8b\x08"), Format::Gzip, true),
            (padded(b"\x1f\x8b\x07"), Format::Unknown, false),
            (padded(b"\xff\x4f\xff\x51"), Format::Jp2, true),
            (padded(b"\0\0\0\0\x07\xff\xd8\xff\xe0"), Format::Jpeg, true),
            (padded(b"{\"a\":1}"), Format::Unknown, false),
            (Vec::new(), Format::Unknown, false),
        ] {
            let found = detect(&value);
            assert_eq!(
                (found.format, found.packed),
                (format, packed),
                "{:?}",
                &value[..8.min(value.len())]
            );
            assert_eq!(NAMES.len(), 16);
        }
    }

    #[test]
    fn a_tiff_says_whether_it_is_compressed_and_how_wide_its_samples_are() {
        let found = detect(&tiff_of(1, 16, true));
        assert_eq!(found, Detected { format: Format::GeoTiff, packed: false, width: 2 });
        let found = detect(&tiff_of(5, 8, false));
        assert_eq!(found, Detected { format: Format::Tiff, packed: true, width: 1 });
        for little in [true, false] {
            let found = detect(&big_tiff_of(little, 1, 16));
            let expected = Detected { format: Format::GeoTiff, packed: false, width: 2 };
            assert_eq!(found, expected, "BigTIFF, {little}");
            let found = detect(&big_tiff_of(little, 8, 32));
            assert_eq!(found, Detected { packed: true, width: 4, ..expected }, "{little}");
        }
        let mut fits = format!("{:80}BITPIX  =                  -32{:50}", "SIMPLE  = T", "");
        fits.push_str(&" ".repeat(2880));
        let found = detect(fits.as_bytes());
        assert_eq!(found, Detected { format: Format::Fits, packed: false, width: 4 });
    }

    #[test]
    fn cut_and_hostile_values_are_read_without_panic() {
        let whole = tiff_of(1, 16, true);
        for end in 0..whole.len() {
            detect(&whole[..end]);
            let mut hostile = whole.clone();
            hostile[end] = 0xff;
            detect(&hostile);
            hostile[2] = 43;
            detect(&hostile);
        }
    }
}
