//! Frames decoded and written anew in spite of nobody needing it, for runs of the test suite.
//!
//! whole frame -> walk by its layout, if there is one -> the same frame (decode), or the frame as
//! the walker writes it (re-encode). Batches are opened and rebuilt as well.
//! Invariant: what is given out means what came in; where there is one way to write it the bytes
//! are the same, else the connection ends with an error of ours.

use bytes::Bytes;
use protocol_ext::api::{self, Answer};
use protocol_ext::batch::{Batches, Caps, Entry, OpenBatch};
use protocol_ext::codec::Codec;
use protocol_ext::header::{self, Head};
use protocol_ext::records::RecordError;
use protocol_ext::replace::{Replacement, RewriteOptions};
use protocol_ext::schema::{Message, Role, requests, responses};
use protocol_ext::walk::{Same, Value, walk};
use protocol_ext::wire::WireError;

use super::queue::Exchange;
use crate::error::ConnectionError;
use crate::fault::{Forced, forced};

const CAPS: Caps = Caps { body_bytes_max: 1 << 28, rewritten_bytes_max: 1 << 28 };

/// A request as it is to be sent on.
pub fn request(head: Head, frame: Bytes) -> Result<Bytes, ConnectionError> {
    if !forced().holds() {
        return Ok(frame);
    }
    let layout = match head.api {
        api::PRODUCE => &requests::PRODUCE,
        api::FETCH => &requests::FETCH,
        api::LIST_OFFSETS => &requests::LIST_OFFSETS,
        api::METADATA => &requests::METADATA,
        _ => return Ok(frame),
    };
    let at = header::request_body_at(head, &frame);
    at.and_then(|at| anew(layout, head.version, &frame, at)).unwrap_or(Ok(frame))
}

/// An answer as it is to be treated further.
pub fn response(exchange: &Exchange, frame: Bytes) -> Result<Bytes, ConnectionError> {
    if !forced().holds() {
        return Ok(frame);
    }
    let layout = match (api::get(exchange.api).map(|api| api.answer), exchange.api) {
        (Some(Answer::Patch(layout) | Answer::Tail(layout)), _) => layout,
        (_, api::LIST_OFFSETS) => &responses::LIST_OFFSETS,
        (_, api::CREATE_TOPICS) => &responses::CREATE_TOPICS,
        _ => return Ok(frame),
    };
    let at = header::response_body_at(exchange.api, exchange.version, &frame);
    at.and_then(|at| anew(layout, exchange.version, &frame, at)).unwrap_or(Ok(frame))
}

/// The frame written anew. A frame that cannot be walked is left to those whose business it is.
fn anew(
    layout: &Message,
    version: i16,
    frame: &Bytes,
    at: usize,
) -> Result<Result<Bytes, ConnectionError>, WireError> {
    let mut wrong = None;
    let mut look = |role: Role, value: Value<'_>| {
        if let (Role::Records, Value::Bytes(Some(records), _)) = (role, value) {
            wrong = wrong.take().or(batches(records).err());
        }
        None
    };
    walk(layout, version, frame, at, &mut look)?;
    if let Some(wrong) = wrong {
        return Ok(Err(ConnectionError::Filter(wrong)));
    }
    if forced() == Forced::Decode {
        return Ok(Ok(frame.clone()));
    }
    let new = walk(layout, version, frame, at, &mut Same)?.apply(frame);
    // A length may have been written in more bytes than it needs; else there is one way only.
    if new.len() == frame.len() && new != *frame {
        let api = layout.api;
        let what = format!("api {api} version {version} written anew differs");
        return Ok(Err(ConnectionError::Filter(what)));
    }
    Ok(Ok(new))
}

/// Rebuilds each batch with the values it has. Damaged ones are not ours to judge.
fn batches(records: &[u8]) -> Result<(), String> {
    let records = Bytes::copy_from_slice(records);
    for entry in Batches::new(&records) {
        let Ok(Entry::Batch { range, header }) = entry else { continue };
        let raw = records.slice(range);
        let Ok(open) = OpenBatch::open(raw.clone(), &CAPS) else { continue };
        let Ok(values) = values(&open) else { continue };
        if header.is_control() || values.is_empty() || forced() == Forced::Decode {
            continue;
        }
        let Ok(new) = open.rewrite(&values, &RewriteOptions::default(), &CAPS) else { continue };
        let new = new.into_bytes();
        let same = if open.codec() == Codec::None {
            new == raw
        } else {
            OpenBatch::open(new, &CAPS).is_ok_and(|new| new.body() == open.body())
        };
        if !same {
            return Err(format!("a batch rebuilt differs: {:?}", open.header()));
        }
    }
    Ok(())
}

fn values(open: &OpenBatch) -> Result<Vec<Replacement<Bytes>>, RecordError> {
    let mut values = Vec::new();
    for record in open.records() {
        let record = record?;
        if let Some(value) = record.value {
            values.push(Replacement::of(record.at, Bytes::copy_from_slice(value)));
        }
    }
    Ok(values)
}
