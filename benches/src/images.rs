//! Values of an image workload, made of the sample images: each as it is, and longer ones of the
//! bytes of several, one after the other.
//!
//! Invariant: the same folder gives the same values in the same order, raw and compressed ones,
//! large and small ones mixed.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::error::{BenchError, Result};

/// Images whose bytes are those of the pixels (compose/sample/README.md); others are compressed.
const RAW: [&str; 8] = [
    "RGB.byte.tif",
    "RGB.nc",
    "RGBA.byte.tif",
    "rgb1.tif",
    "rgb2.tif",
    "rgb3.tif",
    "rgb4.tif",
    "shade.tif",
];
/// Shorter ones stay in the log by the default threshold.
const BYTES_MIN: usize = 100_000;
/// Bytes of the longer values, of either kind.
const LONGER: [usize; 3] = [3_000_000, 5_000_000, 8_000_000];
/// Values are taken in steps of this many, so that large and small ones come mixed.
const STEP: usize = 7;

/// The values in the order in which they are sent.
///
/// # Errors
/// When a file cannot be read, or the folder has no images of both kinds.
pub fn values(folder: &Path) -> Result<Vec<Bytes>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.retain(|(_, image)| image.len() > BYTES_MIN);
    files.sort();
    let (raw, compressed): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(name, _)| RAW.contains(&name.as_str()));
    if raw.is_empty() || compressed.is_empty() {
        return Err(BenchError::Count(format!("no images in {}", folder.display())));
    }
    let mut found = Vec::new();
    for kind in [raw, compressed] {
        let images: Vec<Bytes> = kind.into_iter().map(|(_, image)| image.into()).collect();
        let longer = LONGER.iter().enumerate().map(|(n, bytes)| joined(&images, n, *bytes));
        found.extend(longer.collect::<Vec<_>>());
        found.extend(images);
    }
    let count = found.len();
    Ok((0..count).map(|n| found[n * STEP % count].clone()).collect())
}

/// `bytes` bytes of images, one after the other, from the one of number `first` on.
fn joined(images: &[Bytes], first: usize, bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(bytes);
    for image in images.iter().cycle().skip(first) {
        out.extend_from_slice(&image[..image.len().min(bytes - out.len())]);
        if out.len() == bytes {
            break;
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_there_once_and_the_longer_ones_are_of_both_kinds() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/sample/images");
        let values = values(&sample).unwrap();
        assert_eq!(values.len(), 20);
        let mut sizes: Vec<usize> = values.iter().map(Bytes::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes[0], 102_443);
        assert_eq!(sizes[14..], [3_000_000, 3_000_000, 5_000_000, 5_000_000, 8_000_000, 8_000_000]);
        let mut different: Vec<&Bytes> = values.iter().collect();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 20);
    }
}
