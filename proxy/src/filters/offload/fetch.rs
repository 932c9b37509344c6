//! Fetch: references of a response become the values they stand for.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use protocol_ext::address::Rewrite;
use protocol_ext::batch::{BatchHeader, Batches, Entry};
use protocol_ext::codec::Codec;
use protocol_ext::header;
use protocol_ext::records::RecordAt;
use protocol_ext::reference::{REFERENCE_MAGIC, Reference, ReferenceError};
use protocol_ext::replace::{Replacement, RewriteOptions};
use protocol_ext::schema::Message;
use protocol_ext::wire::WireError;

use super::Offload;
use super::parts::{PartFailure, Value, Want};
use super::sections::{Change, Section, TopicRef, change, sections};
use crate::budget::Room;
use crate::fault;
use crate::inflate::Opened;
use crate::limits::{RESTORED_BYTES_MAX, RESTORING_BYTES};
use crate::metrics::OffloadOp;
use crate::route::addresses::Directory;
use crate::store::cache::PartKey;
use crate::tasks::busy;

/// KAFKA_STORAGE_ERROR: retriable, and what a broker says whose disk fails.
const STORAGE_ERROR: i16 = 56;
/// UNKNOWN_TOPIC_ID: retriable, what a broker says that has not heard of a topic yet.
const UNKNOWN_TOPIC_ID: i16 = 100;

/// Values by part.
type Values = HashMap<PartKey, Value>;

/// A batch whose values must be restored.
struct Referring {
    open: Opened,
    references: Vec<(RecordAt, Want)>,
    original_bytes: usize,
}

/// A piece of a partition's records.
enum Piece {
    Same(Bytes),
    Refer(Box<Referring>),
}

/// What to do with a partition's records.
enum Plan {
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
    /// Restores the values of a Fetch response, `budget` bytes of them at most but always those
    /// of the first batch; cuts each partition at a batch boundary where the budget ends.
    /// Addresses in the tail are rewritten on the way.
    pub async fn restore(
        &self,
        message: &'static Message,
        version: i16,
        frame: &Bytes,
        budget: usize,
        addresses: &Directory,
    ) -> Result<Restored, WireError> {
        let at = header::response_body_at(message.api, version, frame)?;
        let found = sections(message, version, frame, at)?;
        let all = budget.min(RESTORED_BYTES_MAX);
        let mut spent = Spent { left: all, all, ..Spent::default() };
        let mut planned = Vec::with_capacity(found.len());
        for section in &found {
            let topic = self.topic_name(section).await;
            let plan = self.plan(section, topic.as_deref(), &mut spent).await;
            planned.push((topic, plan));
        }
        let mut room = match spent.room {
            0 => None,
            bytes => self.restored.take(bytes).await,
        };
        // The store is waited for, and only so long.
        room.iter_mut().for_each(|room| room.awaits_peer(false));
        let values = self.parts.read(&wanted(&planned)).await;
        let mut changes = Vec::with_capacity(found.len());
        for (section, (topic, plan)) in found.iter().zip(planned) {
            changes.push(self.fill(section, topic.as_deref(), plan, &values));
        }
        let mut rewrite = Rewrite::new(addresses);
        let edits = change(message, version, frame, at, &changes, &mut rewrite)?;
        room.iter_mut().for_each(|room| room.awaits_peer(true));
        Ok(Restored { frame: edits.chain(frame), room })
    }

    async fn topic_name(&self, section: &Section) -> Option<Arc<str>> {
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
        let mut pieces = Vec::new();
        let mut refers = false;
        let mut end = 0;
        for entry in Batches::new(&section.records) {
            let (range, piece) = match entry {
                Ok(Entry::Batch { range, header }) if !header.is_control() => {
                    let batch = section.records.slice(range.clone());
                    let Some(piece) = self.piece(batch, topic, spent).await else {
                        return Plan::Pieces(pieces);
                    };
                    (range, piece)
                }
                Ok(Entry::Batch { range, .. } | Entry::Partial { range }) => {
                    (range.clone(), Piece::Same(section.records.slice(range)))
                }
                Ok(Entry::Legacy { range, .. }) => {
                    self.metrics.legacy_batches.inc();
                    (range.clone(), Piece::Same(section.records.slice(range)))
                }
                // What cannot be read goes to the client as it is; it will say so.
                Err(_) => break,
            };
            // Where nothing refers, the broker has kept to what the client wants.
            let fits = match &piece {
                Piece::Same(bytes) => spent.pass(bytes.len()),
                Piece::Refer(batch) => spent.admit(batch),
            };
            if !fits {
                return Plan::Pieces(pieces);
            }
            end = range.end;
            refers |= !matches!(piece, Piece::Same(_));
            pieces.push(piece);
        }
        pieces.push(Piece::Same(section.records.slice(end..)));
        if refers { Plan::Pieces(pieces) } else { Plan::Pass }
    }

    /// What to do with a batch; `None` if the answer must end before it.
    async fn piece(&self, batch: Bytes, topic: &str, spent: &mut Spent) -> Option<Piece> {
        let codec = BatchHeader::parse(&batch).and_then(|header| Ok(header.codec()?));
        let refers = || memchr::memmem::find(&batch, &REFERENCE_MAGIC).is_some();
        // What cannot be opened is the client's to refuse.
        let Ok(codec) = codec else { return Some(Piece::Same(batch)) };
        if codec == Codec::None && !busy(batch.len(), refers) {
            return Some(Piece::Same(batch));
        }
        let opened = match spent.holds_opened {
            false => Some(self.inflate.open(&batch).await),
            true => self.inflate.try_open(&batch),
        };
        let open = match opened? {
            Ok(open) => open,
            Err(error) => {
                self.unopened(&error, topic);
                return Some(Piece::Same(batch));
            }
        };
        let Some(referring) = busy(open.batch.body().len(), || self.referring(open, topic)) else {
            return Some(Piece::Same(batch));
        };
        Some(Piece::Refer(Box::new(referring)))
    }

    fn referring(&self, open: Opened, topic: &str) -> Option<Referring> {
        let mut references = Vec::new();
        let mut original_bytes = 0;
        for record in open.batch.records() {
            let record = record.ok()?;
            let value = record.value.unwrap_or_default();
            if !Reference::looks_like(value) {
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
                Err(error) => {
                    self.metrics.offload(OffloadOp::Refused, value.len());
                    tracing::debug!(topic, %error, "value that is no reference of ours passes");
                }
            }
        }
        let refers = !references.is_empty();
        refers.then_some(Referring { open, references, original_bytes })
    }

    /// The new content of one partition.
    fn fill(&self, section: &Section, topic: Option<&str>, plan: Plan, values: &Values) -> Change {
        let pieces = match plan {
            Plan::Pass => return Change::default(),
            Plan::Nameless => {
                return Change { records: Some(Vec::new()), error: Some(UNKNOWN_TOPIC_ID) };
            }
            Plan::Pieces(pieces) => pieces,
        };
        let mut records = Vec::with_capacity(pieces.len());
        let mut error = None;
        for piece in pieces {
            let restored = match piece {
                Piece::Same(bytes) => Ok(vec![bytes]),
                Piece::Refer(referring) => self.rewritten(&referring, values),
            };
            match restored {
                Ok(batch) => records.extend(batch),
                Err(RestoreError::At(offset, PartFailure::Late)) => {
                    // The client asks again, and the values may be in memory then.
                    tracing::debug!(offset, topic, "values were not read in time");
                    break;
                }
                Err(why) => {
                    let (topic, partition) = (topic.unwrap_or_default(), section.partition);
                    if let Some(left_out) = self.lines.allows("offload_restore") {
                        let text = "value cannot be restored";
                        tracing::error!(topic, partition, %why, left_out, "{text}");
                    }
                    error = records.is_empty().then_some(STORAGE_ERROR);
                    break;
                }
            }
        }
        Change { records: Some(records), error }
    }

    fn rewritten(&self, batch: &Referring, values: &Values) -> Result<Vec<Bytes>, RestoreError> {
        let mut replacements = Vec::with_capacity(batch.references.len());
        let open = &batch.open.batch;
        let offset = open.header().base_offset;
        for (record, want) in &batch.references {
            let value = values.get(&want.key()).cloned().unwrap_or(Err(PartFailure::Late));
            let value = value.map_err(|error| RestoreError::At(offset, error))?;
            self.metrics.offload(OffloadOp::Restore, value.len());
            replacements.push(Replacement { at: *record, value });
        }
        let options = RewriteOptions::default();
        let rewritten = busy(batch.original_bytes, || {
            open.rewrite_in_pieces(&replacements, &options, &self.caps)
        });
        Ok(rewritten?)
    }
}

/// Why a value cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    /// In the batch at this offset.
    #[error("batch at offset {0}: {1}")]
    At(i64, PartFailure),
    /// The batch cannot take it.
    #[error(transparent)]
    Rewrite(#[from] protocol_ext::replace::RewriteError),
}

/// What must be read for the batches of all partitions.
fn wanted(planned: &[(Option<Arc<str>>, Plan)]) -> Vec<Want> {
    let mut wants = Vec::new();
    for (_, plan) in planned {
        let Plan::Pieces(pieces) = plan else { continue };
        for piece in pieces {
            if let Piece::Refer(referring) = piece {
                wants.extend(referring.references.iter().map(|(_, want)| want.clone()));
            }
        }
    }
    wants
}

/// What the batches of one response take so far.
#[derive(Default)]
struct Spent {
    /// Of the client's budget, and that.
    left: usize,
    all: usize,
    /// Whether any batch is taken.
    has_any: bool,
    /// Of memory.
    room: usize,
    /// Whether a batch is held that was inflated.
    holds_opened: bool,
}

impl Spent {
    /// Whether a batch that stays as it is still fits, beside values that the broker does not know
    /// of.
    fn pass(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left || self.room == 0 || fault::on("plain-bytes-uncounted");
        if fits && !fault::on("plain-bytes-uncounted") {
            self.left = self.left.saturating_sub(bytes);
            self.has_any = true;
        }
        fits
    }

    /// Whether a batch that refers still fits. The first one of the response always does.
    fn admit(&mut self, batch: &Referring) -> bool {
        let need = batch.original_bytes;
        let bytes = need + batch.open.batch.raw().len();
        // One that never fits comes as the first that refers.
        let first = self.room == 0 && (!self.has_any || bytes > self.all);
        if bytes > self.left && !first && !fault::on("budget-ignored") {
            return false;
        }
        self.has_any = true;
        self.left = self.left.saturating_sub(bytes);
        // What is compressed is built anew beside its values; else values are not copied.
        let copies = if batch.open.batch.codec() == Codec::None { 1 } else { 3 };
        self.room += need * copies + batch.references.len() * RESTORING_BYTES;
        self.holds_opened |= batch.open.room.is_some();
        true
    }
}
