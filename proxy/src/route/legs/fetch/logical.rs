//! A physical partition's answer to Fetch as the logical partition's: every offset moved by the
//! segment's base, records cut at its end, leader epochs -1.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchResponse};
use protocol_ext::batch::{Batches, Entry, set_base_offset, set_partition_leader_epoch};
use protocol_ext::schema::{Role, responses};
use protocol_ext::walk::{Value, walk};
use protocol_ext::wire::WireError;
use protocol_ext::{api, header};

use super::super::look_up::Place;
use crate::fault;

/// What an answer is translated by.
#[derive(Debug, Clone)]
pub(super) struct Span {
    /// Logical offset of physical offset 0.
    pub base: i64,
    /// Where the logical partition starts.
    pub start: i64,
    /// Of a sealed segment: its length, and where its partition goes on and ends.
    pub sealed: Option<(i64, OpenEnd)>,
}

/// The open segment's part of a partition.
#[derive(Debug, Clone)]
pub(super) struct OpenEnd {
    pub place: Place,
    pub base: i64,
}

/// A physical partition's data as that of logical partition `index`; offsets of batches follow in
/// the frame.
pub(super) fn logical(data: &PartitionData, index: i32, span: &Span) -> PartitionData {
    let mut row = data
        .clone()
        .with_partition_index(index)
        .with_diverging_epoch(EpochEndOffset::default())
        .with_current_leader(LeaderIdAndEpoch::default())
        .with_preferred_read_replica(BrokerId(-1));
    for offset in [&mut row.high_watermark, &mut row.last_stable_offset] {
        *offset += if *offset < 0 { 0 } else { span.base };
    }
    // The oldest segment knows best where the partition starts.
    row.log_start_offset = match (span.base == span.start, row.log_start_offset) {
        (true, unknown @ ..0) => unknown,
        (true, start) => span.base + start,
        (false, _) => span.start,
    };
    for aborted in row.aborted_transactions.iter_mut().flatten() {
        aborted.first_offset += span.base;
    }
    if let (Some(records), Some((length, _))) = (&mut row.records, &span.sealed) {
        records.truncate(bytes_before(records, *length));
    }
    row
}

/// Bytes of the batches that start before a physical offset: what a broker has behind the end of a
/// sealed segment is not part of it.
fn bytes_before(records: &[u8], end: i64) -> usize {
    if fault::on("read-behind-a-seal") {
        return records.len();
    }
    let batches = Batches::new(records).map_while(Result::ok);
    let behind = batches.filter_map(|entry| match entry {
        Entry::Batch { range, header } => (header.base_offset >= end).then_some(range.start),
        Entry::Legacy { .. } | Entry::Partial { .. } => None,
    });
    behind.min().unwrap_or(records.len())
}

/// The bases of the rows that have records, in the order of the answer.
pub(super) fn section_bases(
    answer: &FetchResponse,
    bases: &HashMap<(usize, usize), i64>,
) -> Vec<i64> {
    let topics = answer.responses.iter().enumerate();
    let rows = topics.flat_map(|(t, topic)| {
        let rows = topic.partitions.iter().enumerate();
        rows.filter(|(_, row)| row.records.is_some()).map(move |(n, _)| (t, n))
    });
    rows.map(|of| bases.get(&of).copied().unwrap_or(0)).collect()
}

/// The frame with logical offsets and without leader epochs; `bases` are those of the sections of
/// records, in order.
pub(super) fn translated(version: i16, frame: Bytes, bases: &[i64]) -> Result<Bytes, WireError> {
    let at = header::response_body_at(api::FETCH, version, &frame)?;
    let mut sections = Vec::new();
    let mut look = |role: Role, value: Value<'_>| {
        if let (Role::Records, Value::Bytes(Some(records), from)) = (role, value) {
            sections.push(from..from + records.len());
        }
        None
    };
    walk(&responses::FETCH, version, &frame, at, &mut look)?;
    let mut frame = BytesMut::from(frame);
    for (section, base) in sections.into_iter().zip(bases) {
        let base = if fault::on("bases-forgotten") { 0 } else { *base };
        let section = &mut frame[section];
        let batches = Batches::new(section).map_while(Result::ok);
        let batches = batches.filter_map(|entry| match entry {
            Entry::Batch { range, header } => Some((range, header.base_offset)),
            Entry::Legacy { .. } | Entry::Partial { .. } => None,
        });
        for (range, offset) in batches.collect::<Vec<_>>() {
            let batch = &mut section[range];
            // The entry was just parsed, so it is long enough to have both.
            let _ = set_partition_leader_epoch(batch, -1);
            if base != 0 {
                let _ = set_base_offset(batch, offset + base);
            }
        }
    }
    Ok(frame.freeze())
}
