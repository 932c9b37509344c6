//! ShareFetch (versions 1 and 2): batches of partition 0 of the first topic, what is acquired of
//! them, and endpoints.
//!
//! Written by hand: the codec crate stops at version 1. Whatever is asked for, this is answered:
//! everything, unless locks are kept; then as many batches as reach the records asked for, of those
//! that nobody holds.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::{FakeCluster, FakeLog, Request};
use crate::batch::BatchHeader;
use crate::header;
use crate::wire::{Reader, WireError, put_uvarint};

/// What share consumers acquired and did not give back, as brokers keep it.
#[derive(Debug, Default)]
pub struct Locks {
    /// Deliveries of each offset, and the connection that holds it.
    records: BTreeMap<i64, (i16, Option<u64>)>,
}

impl Locks {
    /// Deliveries that count of every offset that was ever acquired.
    pub fn deliveries(&self) -> Vec<i16> {
        self.records.values().map(|(deliveries, _)| *deliveries).collect()
    }

    /// Another connection holds these offsets, and is never gone.
    pub fn hold(&mut self, offsets: Range<i64>) {
        self.records.extend(offsets.map(|offset| (offset, (1, Some(u64::MAX)))));
    }

    /// The time of all locks is over: what is held was delivered, and is given out again.
    pub fn expire(&mut self) {
        self.records.values_mut().for_each(|(_, holder)| *holder = None);
    }

    /// Takes back what a connection holds, which is gone: that was no delivery.
    pub(super) fn release(&mut self, gone: u64) {
        for (deliveries, holder) in self.records.values_mut() {
            if *holder == Some(gone) {
                (*deliveries, *holder) = (*deliveries - 1, None);
            }
        }
    }

    /// Acquires batches, up to the one in which so many records are reached.
    fn acquire(&mut self, log: &FakeLog, holder: u64, records_max: i64) -> Vec<(i64, i64, i16)> {
        let mut acquired: Vec<(i64, i64, i16)> = Vec::new();
        let mut left = records_max;
        for header in log.batches().filter_map(|batch| BatchHeader::parse(batch).ok()) {
            if left <= 0 {
                break;
            }
            let last = header.base_offset + i64::from(header.last_offset_delta);
            for offset in header.base_offset..=last {
                let (deliveries, held) = self.records.entry(offset).or_default();
                if held.is_some() {
                    continue;
                }
                (*deliveries, *held) = (*deliveries + 1, Some(holder));
                left -= 1;
                match acquired.last_mut() {
                    Some((_, last, n)) if *last + 1 == offset && n == deliveries => *last = offset,
                    _ => acquired.push((offset, offset, *deliveries)),
                }
            }
        }
        acquired
    }
}

pub(super) fn answer(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
    holder: u64,
) -> Result<Bytes, WireError> {
    let mut locks = cluster.locks.take();
    let topic = cluster.topics.first();
    let log = topic.and_then(|topic| topic.logs.first());
    let acquired = match (log, &mut locks) {
        (None, _) => Vec::new(),
        (Some(log), Some(locks)) => locks.acquire(log, holder, records_max(request)?),
        (Some(log), None) if log.end() == 0 => Vec::new(),
        (Some(log), None) => vec![(0, log.end() - 1, 1)],
    };
    let span = acquired.first().zip(acquired.last()).map(|(a, b)| (a.0, b.1 + 1));
    let records = log.zip(span).map(|(log, span)| log.read(span, usize::MAX, true));
    let records = records.unwrap_or_default();
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
    put_number(&mut out, records.len())?;
    out.put_slice(&records);
    put_number(&mut out, acquired.len())?;
    for (first, last, deliveries) in acquired {
        out.put_i64(first);
        out.put_i64(last);
        out.put_i16(deliveries);
        out.put_u8(0);
    }
    out.put_u8(0);
    out.put_u8(0);
    put_endpoints(&mut out, cluster);
    out.put_u8(0);
    cluster.locks = locks;
    Ok(out.freeze())
}

/// Records asked for at most: behind group, member, epoch, time to wait, and bytes at least and at
/// most.
fn records_max(request: &Request<'_>) -> Result<i64, WireError> {
    let at = header::request_body_at(request.head, request.frame)?;
    let mut read = Reader::new(request.frame, at);
    read.bytes(true, false)?;
    read.bytes(true, false)?;
    read.take(16)?;
    Ok(read.i32()?.into())
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

fn put_number(out: &mut BytesMut, length: usize) -> Result<(), WireError> {
    let wrong = |_| WireError::Length { at: 0, length: i64::MAX, left: 0 };
    let mut bytes = Vec::with_capacity(5);
    put_uvarint(&mut bytes, u32::try_from(length + 1).map_err(wrong)?);
    out.put_slice(&bytes);
    Ok(())
}
