//! The images that are shipped as a sample: what is told of them, and how small they become.

use std::path::Path;

use protocol_ext::format::{Format, detect};
use protocol_ext::part::{Codec, Policy, decode};

/// Percent of an image without compression that are stored at most.
const PERCENT_MAX: usize = 60;

fn image(name: &str) -> Vec<u8> {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/sample/images");
    std::fs::read(images.join(name)).expect("an image of the sample")
}

/// Percent of a value that are stored, and codec and filter. The value comes back from there.
fn stored(policy: Policy, value: &[u8]) -> (usize, u8, u8) {
    let encoded = policy.encode(value);
    let stored = encoded.bytes.as_deref().unwrap_or(value);
    let back = decode(encoded.codec, encoded.filter, stored, value.len()).expect("a sound part");
    assert!(back.as_deref().unwrap_or(stored) == value, "another value came back");
    ((stored.len() * 100).div_ceil(value.len()), encoded.codec, encoded.filter)
}

#[test]
fn images_without_compression_take_at_most_60_percent() {
    for (name, format) in [
        ("RGB.byte.tif", Format::GeoTiff),
        ("RGBA.byte.tif", Format::GeoTiff),
        ("rgb1.tif", Format::GeoTiff),
        ("rgb2.tif", Format::GeoTiff),
        ("rgb3.tif", Format::GeoTiff),
        ("rgb4.tif", Format::GeoTiff),
        ("shade.tif", Format::GeoTiff),
        ("RGB.nc", Format::NetCdf),
    ] {
        let value = image(name);
        let found = detect(&value);
        assert_eq!((found.format, found.packed), (format, false), "{name}");
        let (percent, codec, filter) = stored(Policy::Auto, &value);
        println!("{name}: {percent} % of {} bytes, filter {filter}", value.len());
        assert!(percent <= PERCENT_MAX, "{name}: {percent} %");
        assert_eq!(codec, Codec::Zstd as u8, "{name}");
    }
}

#[test]
fn images_that_are_compressed_are_stored_as_they_are() {
    for (name, format) in [
        ("cogeo.tif", Format::GeoTiff),
        ("goes.tif", Format::GeoTiff),
        ("rgb_deflate.tif", Format::GeoTiff),
        ("rgb_lzw.tif", Format::GeoTiff),
        ("world.rgb.tif", Format::GeoTiff),
        ("389225main_sw_1965_1024.jpg", Format::Jpeg),
        ("sentinel2-sample.png", Format::Png),
    ] {
        let value = image(name);
        let found = detect(&value);
        assert_eq!((found.format, found.packed), (format, true), "{name}");
        assert_eq!(stored(Policy::Auto, &value), (100, 0, 0), "{name}");
    }
    assert_eq!(detect(&image("two-subs.h5")).format, Format::Hdf5);
}

/// Pixels as a sensor of 12 bits gives them: 16-bit numbers, the lowest 4 bits of which are noise.
/// Bytes of such numbers are regrouped, and without that they take more.
#[test]
fn numbers_of_two_bytes_take_at_most_60_percent_and_only_regrouped() {
    let mut value = format!("{:80}BITPIX  =                   16{:50}", "SIMPLE  = T", "");
    value.push_str(&" ".repeat(2880 - value.len()));
    let mut value = value.into_bytes();
    let mut noise = 1_u32;
    for pixel in &image("RGB.byte.tif")[..600_000] {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = u16::from(*pixel) << 4 | u16::from(noise.to_be_bytes()[0] >> 4);
        value.extend(number.to_be_bytes());
    }
    let (regrouped, codec, filter) = stored(Policy::Auto, &value);
    let (plain, ..) = stored(Policy::Always(Codec::Zstd), &value);
    println!("16-bit numbers: {regrouped} % regrouped, {plain} % as they are");
    assert_eq!((codec, filter), (Codec::Zstd as u8, 2));
    assert!(regrouped <= PERCENT_MAX && plain > PERCENT_MAX, "{regrouped} % and {plain} %");
}
