//! The sound frames that mutants are made of: captured ones, drawn ones, and defaults.
//!
//! Golden frames are read from `tests/golden`, by its index. Every API and version of the
//! kafka-protocol crate and of our layouts is there in both directions.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use bytes::Bytes;

use super::{Frame, defaults, drawn};
use crate::api;
use crate::batch::{Batches, Entry};
use crate::codec::Codec;
use crate::header::{self, Head};
use crate::schema::Role;
use crate::walk::{Value, walk};

/// Drawn frames of each layout and version.
const DRAWN_PER_VERSION: usize = 6;
const UNSUPPORTED_VERSION: [u8; 2] = 35_i16.to_be_bytes();

/// All frames: golden ones from the folder `golden`, then drawn ones, then defaults.
pub fn all(golden: &Path) -> io::Result<Vec<Frame>> {
    let mut frames = read(golden)?;
    frames.extend(drawn::frames(DRAWN_PER_VERSION));
    frames.extend(defaults::frames());
    Ok(frames)
}

/// The golden frames that the index of a folder names.
pub fn read(golden: &Path) -> io::Result<Vec<Frame>> {
    let index = fs::read_to_string(golden.join("index.tsv"))?;
    index.lines().skip(1).map(|line| frame(golden, line)).collect()
}

fn frame(golden: &Path, line: &str) -> io::Result<Frame> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("index line {line:?}"));
    let columns: Vec<&str> = line.split('\t').collect();
    let [file, _, _, _, key, version, direction, ..] = columns[..] else { return Err(wrong()) };
    let bytes = Bytes::from(fs::read(golden.join(file))?);
    let api: i16 = key.parse().map_err(|_| wrong())?;
    let asked: i16 = version.parse().map_err(|_| wrong())?;
    let request = direction == "request";
    let refused = bytes.get(4..6) == Some(&UNSUPPORTED_VERSION);
    let version = if api == api::API_VERSIONS && !request && refused { 0 } else { asked };
    Ok(Frame { name: file.to_owned(), api, version, request, bytes })
}

/// Every records field in `frames` once.
pub fn sections(frames: &[Frame]) -> Vec<Bytes> {
    let mut found = BTreeSet::new();
    for frame in frames {
        let (Some(layout), Some(at)) = (frame.layout(), body_at(frame)) else { continue };
        let mut see = |role: Role, value: Value<'_>| {
            if let (Role::Records, Value::Bytes(Some(records), at)) = (role, value) {
                found.insert(frame.bytes.slice(at..at + records.len()));
            }
            None
        };
        // A frame that is not sound has no sections: other tests tell.
        let _ = walk(layout, frame.version, &frame.bytes, at, &mut see);
    }
    found.into_iter().filter(|section| !section.is_empty()).collect()
}

/// The compressed records of every batch in `sections`, with their codec.
pub fn packed(sections: &[Bytes]) -> Vec<(Codec, Bytes)> {
    let mut found = Vec::new();
    for section in sections {
        for entry in Batches::new(section) {
            let Ok(Entry::Batch { range, header }) = entry else { continue };
            let body = section.slice(range.start + crate::batch::HEADER_BYTES..range.end);
            match header.codec() {
                Ok(codec) if codec != Codec::None => found.push((codec, body)),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}

/// Where the body of a frame starts.
pub fn body_at(frame: &Frame) -> Option<usize> {
    if frame.request {
        let head = Head::parse(&frame.bytes).ok()?;
        header::request_body_at(head, &frame.bytes).ok()
    } else {
        header::response_body_at(frame.api, frame.version, &frame.bytes).ok()
    }
}
