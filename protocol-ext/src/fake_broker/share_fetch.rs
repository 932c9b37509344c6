//! ShareFetch (versions 1 and 2): all batches of partition 0 of the first topic, all acquired, and
//! endpoints.
//!
//! Written by hand: the codec crate stops at version 1. Whatever is asked for, this is answered.

use bytes::{BufMut, Bytes, BytesMut};

use super::{FakeCluster, Request};
use crate::wire::{WireError, put_uvarint};

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let topic = cluster.topics.first();
    let log = topic.and_then(|topic| topic.logs.first());
    let records = log.map(|log| log.read((0, i64::MAX), usize::MAX, true)).unwrap_or_default();
    let mut out = BytesMut::with_capacity(records.len() + 256);
    out.put_i32(request.head.correlation);
    out.put_u8(0);
    out.put_i32(0);
    out.put_i16(0);
    out.put_u8(0);
    out.put_i32(30_000);
    out.put_u8(2);
    out.put_slice(topic.map_or(&[0; 16], |topic| topic.id.as_bytes()));
    out.put_u8(2);
    out.put_i32(0);
    out.put_i16(cluster.moved_partition(0, None).map_or(0, |(error, ..)| error));
    out.put_u8(0);
    out.put_i16(0);
    out.put_u8(0);
    put_leader(&mut out, cluster);
    put_length(&mut out, records.len())?;
    out.put_slice(&records);
    match log.map_or(0, super::FakeLog::end) {
        0 => out.put_u8(1),
        end => {
            out.put_u8(2);
            out.put_i64(0);
            out.put_i64(end - 1);
            out.put_i16(1);
            out.put_u8(0);
        }
    }
    out.put_u8(0);
    out.put_u8(0);
    put_endpoints(&mut out, cluster);
    out.put_u8(0);
    Ok(out.freeze())
}

/// The new leader of partition 0, a structure.
pub(super) fn put_leader(out: &mut BytesMut, cluster: &FakeCluster) {
    let leader = cluster.moved_partition(0, None).map_or(-1, |(_, leader, _)| leader);
    out.put_i32(leader);
    out.put_i32(if leader < 0 { -1 } else { 9 });
    out.put_u8(0);
}

/// The endpoints, an array that is always there.
pub(super) fn put_endpoints(out: &mut BytesMut, cluster: &FakeCluster) {
    let endpoints = cluster.endpoints(std::iter::empty());
    out.put_u8(u8::try_from(endpoints.len() + 1).unwrap_or(u8::MAX));
    for node in endpoints {
        out.put_i32(node.id);
        out.put_u8(u8::try_from(node.host.len() + 1).unwrap_or(u8::MAX));
        out.put_slice(node.host.as_bytes());
        out.put_i32(node.port.into());
        out.put_u8(0);
        out.put_u8(0);
    }
}

fn put_length(out: &mut BytesMut, length: usize) -> Result<(), WireError> {
    let wrong = |_| WireError::Length { at: 0, length: i64::MAX, left: 0 };
    let mut bytes = Vec::with_capacity(5);
    put_uvarint(&mut bytes, u32::try_from(length + 1).map_err(wrong)?);
    out.put_slice(&bytes);
    Ok(())
}
