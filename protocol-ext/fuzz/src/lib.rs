//! The targets of the hostile run, as libFuzzer wants them: bytes in, a panic if a promise breaks.
//! What each reader made of an input is told to who wants to count it.
//!
//! A response does not say what it answers, so its first two bytes here are API key and version.

use bytes::Bytes;
use protocol_ext::codec::Codec;
use protocol_ext::hostile::random::Random;
use protocol_ext::hostile::targets::{Checked, OfFrames, OfSections, Verdict, frames, records};
use protocol_ext::hostile::{Frame, RESPONSES};

/// The codecs, by the first byte of a `codec` input.
pub const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Takes what a reader made of an input.
pub type Seen<'a> = &'a mut dyn FnMut(Verdict);

/// A target: an input, and who takes what its readers make of it.
pub type Target = fn(&[u8], Seen<'_>);

/// All of them by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("request", request),
    ("response", response),
    ("tail", tail),
    ("batch", batch),
    ("rewrite", rewrite),
    ("codec", codec),
    ("reference", reference),
];

fn kept(checked: Checked, seen: Seen<'_>) {
    match checked {
        Ok(verdict) => seen(verdict),
        Err(promise) => panic!("{promise}"),
    }
}

fn show(frame: &Frame, readers: &[OfFrames], seen: Seen<'_>) {
    for read in readers {
        kept(read(frame, &mut Random::new(frame.bytes.len() as u64, 1)), seen);
    }
}

fn show_section(section: &Bytes, readers: &[OfSections], seen: Seen<'_>) {
    for read in readers {
        kept(read(section, &mut Random::new(section.len() as u64, 1)), seen);
    }
}

/// A request frame: head, header, walks, decodes, the answer that refuses it.
pub fn request(data: &[u8], seen: Seen<'_>) {
    let bytes = Bytes::copy_from_slice(data);
    let frame = Frame { name: String::new(), api: -1, version: -1, request: true, bytes };
    let readers: [OfFrames; 4] = [frames::head, frames::walk_all, frames::guarded, frames::replies];
    show(&frame, &readers, seen);
}

fn of_broker(data: &[u8]) -> Option<Frame> {
    let [api, version, frame @ ..] = data else { return None };
    let (api, version) = (i16::from(*api), i16::from(*version));
    let bytes = Bytes::copy_from_slice(frame);
    Some(Frame { name: String::new(), api, version, request: false, bytes })
}

/// A response frame: header, walks, addresses, versions, decodes.
pub fn response(data: &[u8], seen: Seen<'_>) {
    let Some(frame) = of_broker(data) else { return };
    let readers: [OfFrames; 6] = [
        frames::head,
        frames::walk_all,
        frames::address,
        frames::front,
        frames::version_rows,
        frames::guarded,
    ];
    show(&frame, &readers, seen);
}

/// A response with a tail: the scan, whole and in pieces, and both ways to rewrite the tail.
pub fn tail(data: &[u8], seen: Seen<'_>) {
    let Some(mut frame) = of_broker(data) else { return };
    let with_tail = RESPONSES.iter().filter(|layout| [0, 1, 78, 79].contains(&layout.api));
    let with_tail: Vec<i16> = with_tail.map(|layout| layout.api).collect();
    frame.api = with_tail[usize::try_from(frame.api).unwrap_or(0) % with_tail.len()];
    show(&frame, &[frames::scan_pieces as OfFrames, frames::tails], seen);
}

/// A records field: entries, batches, records, other producer fields, split.
pub fn batch(data: &[u8], seen: Seen<'_>) {
    let readers: [OfSections; 3] = [records::batches, records::producer, records::split_by_key];
    show_section(&Bytes::copy_from_slice(data), &readers, seen);
}

/// A records field whose first batch is given a true length and CRC: the rewriter and the split.
pub fn rewrite(data: &[u8], seen: Seen<'_>) {
    let section = records::mended(data, data.len() > 12);
    let readers: [OfSections; 3] = [records::rewrite, records::split_by_key, records::producer];
    show_section(&section, &readers, seen);
}

/// A compressed body: decompressed under a cap, compressed, decompressed.
pub fn codec(data: &[u8], seen: Seen<'_>) {
    let [codec, packed @ ..] = data else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    kept(records::unpack(codec, &Bytes::copy_from_slice(packed)), seen);
}

/// A value that may be a reference.
pub fn reference(data: &[u8], seen: Seen<'_>) {
    let signed = records::signed().unwrap_or_else(|error| panic!("{error}"));
    kept(records::reference(data, data != signed), seen);
}
