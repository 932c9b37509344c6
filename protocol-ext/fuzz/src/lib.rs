//! The targets of the hostile run, as libFuzzer wants them: bytes in, a panic if a promise breaks.
//!
//! A response does not say what it answers, so its first two bytes here are API key and version.

use bytes::Bytes;
use protocol_ext::codec::Codec;
use protocol_ext::hostile::random::Random;
use protocol_ext::hostile::targets::{Checked, OfFrames, OfSections, frames, records};
use protocol_ext::hostile::{Frame, RESPONSES};

/// The codecs, by the first byte of a `codec` input.
pub const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn kept(checked: Checked) {
    if let Err(promise) = checked {
        panic!("{promise}");
    }
}

fn show(frame: &Frame, readers: &[OfFrames]) {
    for read in readers {
        kept(read(frame, &mut Random::new(frame.bytes.len() as u64, 1)));
    }
}

fn show_section(section: &Bytes, readers: &[OfSections]) {
    for read in readers {
        kept(read(section, &mut Random::new(section.len() as u64, 1)));
    }
}

/// A request frame: head, header, walks, decodes, the answer that refuses it.
pub fn request(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let frame = Frame { name: String::new(), api: -1, version: -1, request: true, bytes };
    let readers: [OfFrames; 4] = [frames::head, frames::walk_all, frames::guarded, frames::replies];
    show(&frame, &readers);
}

fn of_broker(data: &[u8]) -> Option<Frame> {
    let [api, version, frame @ ..] = data else { return None };
    let (api, version) = (i16::from(*api), i16::from(*version));
    let bytes = Bytes::copy_from_slice(frame);
    Some(Frame { name: String::new(), api, version, request: false, bytes })
}

/// A response frame: header, walks, addresses, versions, decodes.
pub fn response(data: &[u8]) {
    let Some(frame) = of_broker(data) else { return };
    let readers: [OfFrames; 6] = [
        frames::head,
        frames::walk_all,
        frames::address,
        frames::front,
        frames::version_rows,
        frames::guarded,
    ];
    show(&frame, &readers);
}

/// A response with a tail: the scan, whole and in pieces, and both ways to rewrite the tail.
pub fn tail(data: &[u8]) {
    let Some(mut frame) = of_broker(data) else { return };
    let with_tail = RESPONSES.iter().filter(|layout| [0, 1, 78, 79].contains(&layout.api));
    let with_tail: Vec<i16> = with_tail.map(|layout| layout.api).collect();
    frame.api = with_tail[usize::try_from(frame.api).unwrap_or(0) % with_tail.len()];
    show(&frame, &[frames::scan_pieces as OfFrames, frames::tails]);
}

/// A records field: entries, batches, records, other producer fields, split.
pub fn batch(data: &[u8]) {
    let readers: [OfSections; 3] = [records::batches, records::producer, records::split_by_key];
    show_section(&Bytes::copy_from_slice(data), &readers);
}

/// A records field whose first batch is given a true length and CRC: the rewriter and the split.
pub fn rewrite(data: &[u8]) {
    let section = records::mended(data, data.len() > 12);
    let readers: [OfSections; 3] = [records::rewrite, records::split_by_key, records::producer];
    show_section(&section, &readers);
}

/// A compressed body: decompressed under a cap, compressed, decompressed.
pub fn codec(data: &[u8]) {
    let [codec, packed @ ..] = data else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    kept(records::unpack(codec, &Bytes::copy_from_slice(packed)));
}

/// A value that may be a reference.
pub fn reference(data: &[u8]) {
    let signed = records::signed().unwrap_or_else(|error| panic!("{error}"));
    kept(records::reference(data, data != signed));
}
