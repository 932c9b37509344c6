//! Fetch: references of a response become the values they stand for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use protocol_ext::acquired::{self, Acquired};
use protocol_ext::address::Rewrite;
use protocol_ext::batch::{BatchHeader, Batches, Entry};
use protocol_ext::codec::Codec;
use protocol_ext::header;
use protocol_ext::records::RecordAt;
use protocol_ext::reference::{REFERENCE_MAGIC, Reference, ReferenceError};
use protocol_ext::replace::{Replacement, RewriteOptions};
use protocol_ext::schema::Message;
use protocol_ext::wire::WireError;

use super::aborted::Aborted;
use super::parts::{PartFailure, Value, Want};
use super::sections::{Change, Section, TopicRef, change, sections};
use super::spent::Spent;
use super::spoiled::{another_head, spoiled};
use super::{Offload, Reading, Wanted};
use crate::budget::Room;
use crate::fault;
use crate::inflate::Opened;
use crate::limits::{ANSWERED_SECTIONS_MAX, RESTORED_BYTES_MAX};
use crate::metrics::OffloadOp;
use crate::route::addresses::Directory;
use crate::store::cache::PartKey;
use crate::tasks::busy;

/// KAFKA_STORAGE_ERROR: retriable, and what a broker says whose disk fails.
pub(super) const STORAGE_ERROR: i16 = 56;
/// UNKNOWN_TOPIC_ID: retriable, what a broker says that has not heard of a topic yet.
pub(super) const UNKNOWN_TOPIC_ID: i16 = 100;

/// Values by part.
pub(super) type Values = HashMap<PartKey, Value>;

/// A batch whose values must be restored.
pub(super) struct Referring {
    pub open: Opened,
    pub references: Vec<(RecordAt, Want)>,
    pub original_bytes: usize,
}

/// A piece of a partition's records.
pub(super) enum Piece {
    /// Batches that stay, however many follow each other.
    Same(Bytes),
    Refer(Box<Referring>),
}

/// What a batch is.
pub(super) enum Found {
    Stays,
    Refers(Box<Referring>),
    /// It needs room that this answer cannot wait for.
    NoRoom,
}

/// What to do with a partition's records.
pub(super) enum Plan {
    /// No batch refers: they pass.
    Pass,
    /// Batch by batch.
    Pieces(Vec<Piece>),
    /// The topic's name is not known, so no signature can be checked: the client asks again.
    Nameless,
}

/// A response with its values restored.
#[derive(Debug)]
pub struct Restored {
    /// The frame, without its length, in pieces.
    pub frame: Vec<Bytes>,
    /// Room that the restored values take; held until they are written.
    pub room: Option<Room>,
}

impl Offload {
    /// Restores the values of a Fetch response, as many bytes as are wanted at most but always
    /// those of the first batch; cuts each partition at a batch boundary where that ends. A
    /// partition gives one batch beyond what is wanted of it, as long as the answer has room.
    /// Addresses in the tail are rewritten on the way.
    pub async fn restore(
        &self,
        (message, version): (&'static Message, i16),
        frame: &Bytes,
        (wanted, reading): (Wanted, &Reading),
        addresses: &Directory,
    ) -> Result<Restored, WireError> {
        let at = header::response_body_at(message.api, version, frame)?;
        let found = sections(message, version, frame, at, ANSWERED_SECTIONS_MAX)?;
        let mut spent = Spent::new(wanted.bytes.min(RESTORED_BYTES_MAX));
        let mut planned: Vec<_> = found.iter().map(|_| (None, Plan::Pass)).collect();
        let mut left_out = None;
        for n in reading.turn.order(&found) {
            let section = &found[n];
            let topic = self.topic_name(section).await;
            spent.enter(wanted.partition_bytes);
            let plan = self.plan(section, topic.as_deref(), &mut spent).await;
            reading.inflation.learn(section, spent.seen);
            let is_empty = matches!(&plan, Plan::Pieces(pieces) if pieces.is_empty());
            left_out = left_out.or(is_empty.then_some(section));
            planned[n] = (topic, plan);
        }
        reading.turn.pass_to(left_out);
        let mut room = match spent.room {
            0 => None,
            bytes => self.restored.take(bytes).await,
        };
        // The store is waited for, and only so long.
        room.iter_mut().for_each(|room| room.awaits_peer(false));
        let wanted = wants(planned.iter().map(|(_, plan)| plan));
        let mut values = self.parts.read(&wanted).await;
        let skips =
            |(topic, _): &&(Option<Arc<str>>, Plan)| self.on_missing(topic.as_deref()).is_some();
        let doubted = wants(planned.iter().filter(skips).map(|(_, plan)| plan));
        self.confirm(&doubted, &mut values).await;
        let mut changes = Vec::with_capacity(found.len());
        for (section, (topic, plan)) in found.iter().zip(planned) {
            changes.push(self.fill(section, topic.as_deref(), plan, &values));
        }
        let mut rewrite = Rewrite::new(addresses);
        let edits = change(message, version, frame, at, &changes, &mut rewrite)?;
        room.iter_mut().for_each(|room| room.awaits_peer(true));
        Ok(Restored { frame: edits.chain(frame), room })
    }

    pub(super) async fn topic_name(&self, section: &Section) -> Option<Arc<str>> {
        if section.records.is_empty() {
            return None;
        }
        match &section.topic {
            TopicRef::Name(name) => Some(name.clone()),
            TopicRef::Id(id) => match self.topics.name(*id).await {
                Ok(name) => name,
                Err(error) => {
                    if let Some(left_out) = self.lines.allows("offload_name") {
                        let why = "name of a fetched topic cannot be asked for";
                        tracing::warn!(%error, left_out, "{why}");
                    }
                    None
                }
            },
        }
    }

    /// Splits a partition's records into batches that stay and batches that refer, up to where the
    /// answer has no room for more.
    async fn plan(&self, section: &Section, topic: Option<&str>, spent: &mut Spent) -> Plan {
        if section.records.is_empty() {
            return Plan::Pass;
        }
        let Some(topic) = topic else { return Plan::Nameless };
        if fault::on("unruled-unrestored") && self.rule(topic).is_none() {
            return Plan::Pass;
        }
        let without = self.on_missing(Some(topic)).is_some();
        let records = &section.records;
        let mut run = Run { records, from: 0, end: 0, pieces: Vec::new() };
        let mut aborted = Aborted::new(&section.aborted);
        for entry in Batches::new(records) {
            let (range, found) = match entry {
                Ok(Entry::Batch { range, header })
                    if !aborted.holds(&header)
                        && (!header.is_control() || fault::on("control-restored")) =>
                {
                    let batch = records.slice(range.clone());
                    (range, self.found(batch, (topic, None), spent).await)
                }
                Ok(Entry::Batch { range, .. } | Entry::Partial { range }) => (range, Found::Stays),
                Ok(Entry::Legacy { range, .. }) => {
                    self.metrics.legacy_batches.inc();
                    (range, Found::Stays)
                }
                // What cannot be read goes to the client as it is; it will say so.
                Err(_) => break,
            };
            // Where nothing refers, the broker has kept to what the client wants.
            match found {
                Found::Stays if spent.pass(range.len()) => run.stay(range),
                Found::Refers(batch) if spent.admit(&batch, without) => run.refer(range, batch),
                Found::Stays | Found::Refers(_) | Found::NoRoom => {
                    let surplus = records.len() - run.end;
                    self.metrics.offload_surplus.inc_by(surplus as u64);
                    return run.cut();
                }
            }
        }
        run.whole()
    }

    /// What a batch of a topic is; of one that a share consumer reads only records that it acquired
    /// are looked at.
    pub(super) async fn found(
        &self,
        batch: Bytes,
        (topic, acquired): (&str, Option<&[Acquired]>),
        spent: &mut Spent,
    ) -> Found {
        let codec = BatchHeader::parse(&batch).and_then(|header| Ok(header.codec()?));
        let refers = || memchr::memmem::find(&batch, &REFERENCE_MAGIC).is_some();
        // What cannot be opened is the client's to refuse.
        let Ok(codec) = codec else { return Found::Stays };
        if codec == Codec::None && !busy(batch.len(), refers) {
            return Found::Stays;
        }
        let opened = match spent.holds_opened {
            false => Some(self.inflate.open(&batch).await),
            true => self.inflate.try_open(&batch),
        };
        let open = match opened {
            Some(Ok(open)) => open,
            Some(Err(error)) => {
                self.unopened(&error, topic);
                return Found::Stays;
            }
            None => return Found::NoRoom,
        };
        let referring = busy(open.batch.body().len(), || self.referring(open, topic, acquired));
        referring.map_or(Found::Stays, |referring| Found::Refers(Box::new(referring)))
    }

    fn referring(
        &self,
        open: Opened,
        topic: &str,
        acquired: Option<&[Acquired]>,
    ) -> Option<Referring> {
        let base = open.batch.header().base_offset;
        let is_read = |delta: i32| {
            let offset = base.saturating_add(i64::from(delta));
            let read = |acquired| acquired::touches(acquired, &(offset..offset.saturating_add(1)));
            acquired.is_none_or(read) || fault::on("whole-batches-read")
        };
        let mut references = Vec::new();
        let mut original_bytes = 0;
        for record in open.batch.records() {
            let record = record.ok()?;
            let value = record.value.unwrap_or_default();
            if !Reference::looks_like(value) || !is_read(record.offset_delta) {
                continue;
            }
            let opened = if fault::on("forged-reference-followed") {
                Reference::parse_unverified(value).map(|(reference, _)| reference)
            } else {
                self.keys.open(value, &self.binding(topic))
            };
            match opened {
                Ok(reference) => {
                    original_bytes += reference.original_bytes as usize;
                    let Reference { pack_id, topic_id, partition, .. } = &reference;
                    let object = self.key_of(pack_id, topic_id, *partition).into();
                    references.push((record.at, Want { object, reference }));
                }
                Err(ReferenceError::NotAReference) => {}
                Err(error) => self.refused(topic, open.batch.header().base_offset, value, error),
            }
        }
        let refers = !references.is_empty();
        refers.then_some(Referring { open, references, original_bytes })
    }

    /// Counts and tells of a value that looks like a reference and is not followed.
    fn refused(&self, topic: &str, batch: i64, value: &[u8], error: ReferenceError) {
        let (op, kind) = match error {
            ReferenceError::UnknownVersion(_) if !fault::on("versions-are-forgeries") => {
                (OffloadOp::Unknown, "offload_unknown")
            }
            _ => (OffloadOp::Refused, "offload_refused"),
        };
        self.metrics.offload(op, value.len());
        if let Some(left_out) = self.lines.allows(kind) {
            let why = "value that looks like a reference is not followed, and passes as it is";
            tracing::warn!(topic, batch, %error, left_out, "{why}");
        }
    }

    /// The new content of one partition.
    fn fill(&self, section: &Section, topic: Option<&str>, plan: Plan, values: &Values) -> Change {
        let pieces = match plan {
            Plan::Pass => return Change::default(),
            Plan::Nameless => {
                return Change {
                    records: Some(Vec::new()),
                    error: Some(UNKNOWN_TOPIC_ID),
                    acquired: None,
                };
            }
            Plan::Pieces(pieces) => pieces,
        };
        let mut records = Vec::with_capacity(pieces.len());
        let mut error = None;
        for piece in pieces {
            let restored = match piece {
                Piece::Same(bytes) => Ok(vec![bytes]),
                Piece::Refer(referring) => self.rewritten(&referring, topic, values),
            };
            match restored {
                Ok(batch) => records.extend(batch),
                Err(RestoreError::At(offset, PartFailure::Late)) => {
                    // The client asks again, and the values may be in memory then.
                    tracing::debug!(offset, topic, "values were not read in time");
                    break;
                }
                Err(why) => {
                    self.unrestored(section, topic, &why);
                    error = records.is_empty().then_some(STORAGE_ERROR);
                    break;
                }
            }
        }
        Change { records: Some(records), error, acquired: None }
    }

    /// Says that a batch cannot be given out.
    pub(super) fn unrestored(&self, section: &Section, topic: Option<&str>, why: &RestoreError) {
        let (topic, partition) = (topic.unwrap_or_default(), section.partition);
        if let Some(left_out) = self.lines.allows("offload_restore") {
            tracing::error!(topic, partition, %why, left_out, "value cannot be restored");
        }
    }

    /// A batch with its values. What is lost for good becomes what the topic's rule says.
    pub(super) fn rewritten(
        &self,
        batch: &Referring,
        topic: Option<&str>,
        values: &Values,
    ) -> Result<Vec<Bytes>, RestoreError> {
        let lost = self.on_missing(topic);
        let mut found = Vec::with_capacity(batch.references.len());
        let (mut bytes, mut gone) = (0, false);
        let open = &batch.open.batch;
        let offset = open.header().base_offset;
        for (at, want) in &batch.references {
            let value = values.get(&want.key()).cloned().unwrap_or(Err(PartFailure::Late));
            let original_bytes = want.reference.original_bytes;
            let value = match value {
                Ok(value) => Ok(value),
                Err(error) if error.is_damage() && lost.is_some() => {
                    self.lost(topic, offset, &error, original_bytes);
                    if fault::on("lost-are-damaged") {
                        self.metrics.offload(OffloadOp::Damaged, original_bytes as usize);
                    }
                    gone = true;
                    Err(original_bytes)
                }
                Err(error) => {
                    if let Some(op) = error.op() {
                        self.metrics.offload(op, original_bytes as usize);
                    }
                    return Err(RestoreError::At(offset, error));
                }
            };
            bytes += value.as_ref().map_or(0, Bytes::len);
            let crc = want.reference.original_crc ^ u32::from(fault::on("other-crc-known"));
            found.push(Replacement { crc: Some(crc), ..Replacement::of(*at, value) });
        }
        for value in found.iter().filter_map(|found| found.value.as_ref().ok()) {
            self.metrics.offload(OffloadOp::Restore, value.len());
        }
        if let (Some(lost), true) = (lost, gone) {
            if fault::on("lost-batches-removed") {
                return Ok(Vec::new());
            }
            let most = self.caps.rewritten_bytes_max;
            return Ok(vec![busy(bytes, || open.rewrite_without(&found, lost, most))?]);
        }
        let values = found.into_iter();
        let values = values.filter_map(|Replacement { at, value, crc, old_crc }| {
            Some(Replacement { at, value: value.ok()?, crc, old_crc })
        });
        let values: Vec<_> = values.collect();
        let options = RewriteOptions::default();
        // Without compression no long value is read.
        let bytes = match open.codec() {
            Codec::None => open.body().len(),
            _ => batch.original_bytes,
        };
        let rewritten = busy(bytes, || open.rewrite_in_pieces(&values, &options, &self.caps));
        let mut pieces = another_head(rewritten?);
        // It holds the checksum.
        pieces.iter_mut().take(1).for_each(|head| {
            *head = spoiled(std::mem::take(head), fault::happens("stale-crc-restored"));
        });
        Ok(pieces)
    }
}

/// Why a value cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    /// In the batch at this offset.
    #[error("batch at offset {0}: {1}")]
    At(i64, PartFailure),
    /// The batch cannot take it.
    #[error(transparent)]
    Rewrite(#[from] protocol_ext::replace::RewriteError),
}

/// The batches of a partition, in order. Those that stay make one piece between two that refer:
/// each piece takes memory, and there may be hundreds of thousands of batches.
pub(super) struct Run<'a> {
    pub records: &'a Bytes,
    /// What stays and is no piece yet: from there,
    pub from: usize,
    /// to here.
    pub end: usize,
    pub pieces: Vec<Piece>,
}

impl Run<'_> {
    pub fn stay(&mut self, range: Range<usize>) {
        self.end = range.end;
        if fault::on("runs-not-joined") {
            self.close(range.end);
        }
    }

    pub fn refer(&mut self, range: Range<usize>, batch: Box<Referring>) {
        self.close(range.start);
        self.pieces.push(Piece::Refer(batch));
        (self.from, self.end) = (range.end, range.end);
    }

    /// Leaves a batch out.
    pub fn skip(&mut self, range: Range<usize>) {
        self.close(range.start);
        (self.from, self.end) = (range.end, range.end);
    }

    /// Makes a piece of what stays up to `to`.
    fn close(&mut self, to: usize) {
        if self.from < to {
            self.pieces.push(Piece::Same(self.records.slice(self.from..to)));
        }
        self.from = to;
    }

    /// The answer ends behind the last batch.
    pub fn cut(mut self) -> Plan {
        self.close(self.end);
        Plan::Pieces(self.pieces)
    }

    /// The same, and what cannot be read behind it.
    pub fn rest(mut self) -> Plan {
        self.close(self.records.len());
        Plan::Pieces(self.pieces)
    }

    /// All of it is in the answer, also what cannot be read behind the last batch.
    pub fn whole(mut self) -> Plan {
        let refers = self.pieces.iter().any(|piece| matches!(piece, Piece::Refer(_)));
        self.close(self.records.len());
        if refers { Plan::Pieces(self.pieces) } else { Plan::Pass }
    }
}

/// What must be read for the batches of all partitions.
pub(super) fn wants<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<Want> {
    let mut wants = Vec::new();
    for plan in plans {
        let Plan::Pieces(pieces) = plan else { continue };
        for piece in pieces {
            if let Piece::Refer(referring) = piece {
                wants.extend(referring.references.iter().map(|(_, want)| want.clone()));
            }
        }
    }
    wants
}
