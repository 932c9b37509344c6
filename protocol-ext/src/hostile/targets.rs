//! What is done with a mutant, and what must hold whatever it is.
//!
//! A target reads a mutant as the proxy would and says whether it was taken or refused, and why.
//! `Err` is a broken promise: a panic would be one too, and so would memory beyond a cap, which
//! whoever runs the targets counts.

pub mod frames;
pub mod records;

use bytes::Bytes;

use super::Frame;
use super::random::Random;
use crate::address::Addresses;
use crate::batch::BatchError;
use crate::codec::{Codec, CodecError};
use crate::records::RecordError;
use crate::wire::WireError;

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not this target's business.
    Other,
    /// Taken.
    Taken,
    /// Refused, for this reason.
    Refused(&'static str),
}

/// A verdict, or the promise that was broken.
pub type Checked = Result<Verdict, String>;

/// A reader of mutated frames.
pub type OfFrames = fn(&Frame, &mut Random) -> Checked;
/// A reader of mutated records fields.
pub type OfSections = fn(&Bytes, &mut Random) -> Checked;

/// A reader of mutated compressed bodies.
pub type OfBodies = fn(Codec, &Bytes) -> Checked;
/// A reader of references, which is told whether one was changed.
pub type OfReferences = fn(&[u8], bool) -> Checked;

/// Readers of frames, by name.
pub const FRAMES: [(&str, OfFrames); 9] = [
    ("head", frames::head),
    ("walk", frames::walk_all),
    ("address", frames::address),
    ("scan", frames::scan_pieces),
    ("tail", frames::tails),
    ("versions", frames::version_rows),
    ("guard", frames::guarded),
    ("reply", frames::replies),
    ("front", frames::front),
];

/// Readers of records fields, by name.
pub const SECTIONS: [(&str, OfSections); 5] = [
    ("batches", records::batches),
    ("rewrite", records::rewrite),
    ("split", records::split_by_key),
    ("producer", records::producer),
    ("lost", records::lost),
];

/// Reads a mutated compressed body: name and function.
pub const CODEC: (&str, OfBodies) = ("codec", records::unpack);
/// Reads a mutated reference: name and function.
pub const REFERENCE: (&str, OfReferences) = ("reference", records::reference);

/// The only address that clients may see.
#[derive(Debug, Clone, Copy)]
pub struct Proxy;

/// Its host.
pub const PROXY_HOST: &str = "proxy.example.org";
/// What every host of a broker in the corpus holds.
pub const UPSTREAM: [&str; 2] = ["127.0.0.", "upstream"];

impl Addresses for Proxy {
    fn of(&self, _: i32) -> (Bytes, u16) {
        (Bytes::from_static(PROXY_HOST.as_bytes()), 9)
    }

    fn scrub(&self, text: &str) -> Option<String> {
        UPSTREAM.iter().any(|host| text.contains(host)).then(|| "scrubbed".to_owned())
    }
}

fn ensure(holds: bool, promise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(promise.to_owned()) }
}

fn wire(error: &WireError) -> Verdict {
    Verdict::Refused(match error {
        WireError::Truncated { .. } => "truncated",
        WireError::Length { .. } => "length",
        WireError::Varint { .. } => "varint",
        WireError::Trailing { .. } => "trailing",
        WireError::Items { .. } => "items",
        WireError::Body { .. } => "body",
        WireError::Version { .. } => "version",
    })
}

fn batch(error: &BatchError) -> Verdict {
    Verdict::Refused(match error {
        BatchError::Short { .. } => "batch short",
        BatchError::Length(_) => "batch length",
        BatchError::Trailing(_) => "batch trailing",
        BatchError::Magic(_) => "magic",
        BatchError::Count(_) => "batch count",
        BatchError::Crc { .. } => "crc",
        BatchError::Codec(error) => return codec(error),
    })
}

fn codec(error: &CodecError) -> Verdict {
    Verdict::Refused(match error {
        CodecError::Unknown(_) => "codec unknown",
        CodecError::TooLarge { .. } => "too large",
        CodecError::Corrupt { .. } => "corrupt",
        CodecError::Compressor(_) => "compressor",
    })
}

fn record(error: &RecordError) -> Verdict {
    Verdict::Refused(match error {
        RecordError::Malformed { .. } => "record malformed",
        RecordError::Trailing(_) => "record trailing",
        RecordError::Headers => "record headers",
    })
}
