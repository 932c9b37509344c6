//! Rewrites the tail of Produce, Fetch, ShareFetch and ShareAcknowledge answers (KIP-951).
//!
//! `exact` gives a tail of any length, for frames that are held whole. `same_length` keeps the
//! length, for frames whose head has already gone to the client: the difference is filled with an
//! unknown tagged field, which clients skip (KIP-482); where that cannot be, the endpoints are
//! dropped and clients ask for metadata instead.

use bytes::Bytes;

use crate::address::{Addresses, Rewrite};
use crate::scan::ENDPOINTS;
use crate::schema::{Field, Message};
use crate::walk;
use crate::wire::{Reader, WireError, put_uvarint, uvarint_len};

/// Tag of the filler: unknown to Kafka, one byte on the wire, behind every known tag.
const FILLER_TAG: u32 = 127;
/// The same with two bytes, for the one length that the first cannot make.
const FILLER_TAG_WIDE: u32 = 8191;

/// A tail with the addresses of clients in it; the same `Bytes` if it names no broker.
pub fn exact(
    message: &'static Message,
    version: i16,
    tail: &Bytes,
    addresses: &impl Addresses,
) -> Result<Bytes, WireError> {
    let layout = tail_of(message);
    Ok(walk::walk(&layout, version, tail, 0, &mut Rewrite::new(addresses))?.apply(tail))
}

/// The same in exactly as many bytes as `tail` has.
pub fn same_length(
    message: &'static Message,
    version: i16,
    tail: &Bytes,
    addresses: &impl Addresses,
) -> Result<Bytes, WireError> {
    let new = exact(message, version, tail, addresses)?;
    if new.len() == tail.len() {
        return Ok(new);
    }
    match filled(message, version, &new, tail.len())? {
        Some(filled) => Ok(filled),
        None => {
            let bare = without_endpoints(message, version, tail)?;
            let filled = filled(message, version, &bare, tail.len())?;
            filled.ok_or(WireError::Length { at: 0, length: -2, left: tail.len() })
        }
    }
}

/// The message cut to its tail: the endpoints and, always, the top-level tags.
fn tail_of(message: &'static Message) -> Message {
    let at = message.fields.iter().position(|f| f.name == ENDPOINTS);
    let fields: &'static [Field] = at.map_or(&[], |at| &message.fields[at..]);
    Message { fields, ..*message }
}

/// Splits a tail at its tag section: (in-order endpoints, tag count, tags).
fn parts(
    message: &'static Message,
    version: i16,
    tail: &Bytes,
) -> Result<(Bytes, u32, Bytes), WireError> {
    let tags_at = walk::walk_prefix(&tail_of(message), version, tail)?;
    let mut read = Reader::new(tail, tags_at);
    let count = read.uvarint()?;
    Ok((tail.slice(..tags_at), count, tail.slice(read.pos()..)))
}

fn without_endpoints(
    message: &'static Message,
    version: i16,
    tail: &Bytes,
) -> Result<Bytes, WireError> {
    let (endpoints, count, tags) = parts(message, version, tail)?;
    let mut out = Vec::with_capacity(tail.len());
    if !endpoints.is_empty() {
        put_uvarint(&mut out, 1);
        put_uvarint(&mut out, count);
        out.extend_from_slice(&tags);
        return Ok(out.into());
    }
    let (mut kept, mut body) = (0, Vec::new());
    let mut read = Reader::new(&tags, 0);
    for _ in 0..count {
        let tag = read.uvarint()?;
        let size = read.uvarint()?;
        let content = read.take(size as usize)?;
        if tag != 0 {
            kept += 1;
            put_uvarint(&mut body, tag);
            put_uvarint(&mut body, size);
            body.extend_from_slice(content);
        }
    }
    put_uvarint(&mut out, kept);
    out.extend_from_slice(&body);
    Ok(out.into())
}

/// `tail` with a filler tag, `length` bytes in all; `None` if no filler makes that length.
fn filled(
    message: &'static Message,
    version: i16,
    tail: &Bytes,
    length: usize,
) -> Result<Option<Bytes>, WireError> {
    let (endpoints, count, tags) = parts(message, version, tail)?;
    let room = length.checked_sub(endpoints.len() + uvarint_len(count + 1) + tags.len());
    let Some((tag, size)) = room.and_then(filler) else {
        return Ok(None);
    };
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(&endpoints);
    put_uvarint(&mut out, count + 1);
    out.extend_from_slice(&tags);
    put_uvarint(&mut out, tag);
    put_uvarint(&mut out, size);
    out.resize(out.len() + size as usize, 0);
    Ok((out.len() == length).then(|| out.into()))
}

/// Tag and size of a filler field that takes `room` bytes in all.
fn filler(room: usize) -> Option<(u32, u32)> {
    [FILLER_TAG, FILLER_TAG_WIDE].into_iter().find_map(|tag| {
        (1..=5).find_map(|width| {
            let size = u32::try_from(room.checked_sub(uvarint_len(tag) + width)?).ok()?;
            (uvarint_len(size) == width).then_some((tag, size))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::tests::Fixed;
    use crate::schema::responses;
    use crate::wire::put_length;

    #[test]
    fn a_filler_exists_for_every_room_from_two_bytes_on() {
        assert_eq!(filler(0), None);
        assert_eq!(filler(1), None);
        for room in 2..70_000 {
            let (tag, size) = filler(room).expect("a filler");
            assert_eq!(uvarint_len(tag) + uvarint_len(size) + size as usize, room);
        }
    }

    fn fetch_tail(host: &str) -> Bytes {
        let mut endpoints = vec![2, 0, 0, 0, 7];
        put_length(&mut endpoints, true, false, Some(host.len()));
        endpoints.extend_from_slice(host.as_bytes());
        endpoints.extend_from_slice(&[0, 0, 0x23, 0x84, 0, 0]);
        let mut tail = vec![1, 0];
        put_uvarint(&mut tail, u32::try_from(endpoints.len()).expect("short"));
        tail.extend_from_slice(&endpoints);
        tail.into()
    }

    fn share_tail(host: &str) -> Bytes {
        let mut tail = vec![2, 0, 0, 0, 7];
        put_length(&mut tail, true, false, Some(host.len()));
        tail.extend_from_slice(host.as_bytes());
        tail.extend_from_slice(&[0, 0, 0x23, 0x84, 0, 0, 0]);
        tail.into()
    }

    #[test]
    fn a_tail_of_the_same_length_never_names_the_upstream_and_stays_readable() {
        let short = Fixed { host: "p", port: 1 };
        let long = Fixed { host: "a-much-longer-name.of-a-proxy.example.org", port: 1 };
        for (message, version, tail) in [
            (&responses::FETCH, 18, fetch_tail("upstream-host.internal")),
            (&responses::PRODUCE, 12, fetch_tail("10.1.2.3")),
            (&responses::SHARE_FETCH, 2, share_tail("upstream-host.internal")),
            (&responses::SHARE_ACKNOWLEDGE, 1, share_tail("10.1.2.3")),
        ] {
            for addresses in [&short, &long] {
                let new = same_length(message, version, &tail, addresses).expect("a tail");
                assert_eq!(new.len(), tail.len());
                let text = String::from_utf8_lossy(&new);
                assert!(!text.contains("upstream") && !text.contains("10.1.2.3"), "{text}");
                let layout = tail_of(message);
                walk::walk(&layout, version, &new, 0, &mut walk::Check).expect("readable");
            }
        }
    }

    #[test]
    fn a_tail_without_endpoints_passes_as_the_same_bytes() {
        let tail = Bytes::from_static(&[0]);
        let new = exact(&responses::FETCH, 18, &tail, &Fixed { host: "p", port: 1 }).expect("ok");
        assert_eq!(new.as_ptr(), tail.as_ptr());
    }
}
