//! Fetch: references of a response become the values they stand for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol_ext::address::Rewrite;
use protocol_ext::batch::{BatchError, BatchHeader, Batches, Entry, OpenBatch, crc32c};
use protocol_ext::codec::{Codec, CodecError};
use protocol_ext::header;
use protocol_ext::records::RecordAt;
use protocol_ext::reference::{REFERENCE_MAGIC, Reference, ReferenceError};
use protocol_ext::replace::{Replacement, RewriteOptions};
use protocol_ext::schema::Message;
use protocol_ext::wire::WireError;
use tokio::sync::OwnedSemaphorePermit;

use super::sections::{Change, Section, TopicRef, change, sections};
use super::{Offload, busy};
use crate::fault;
use crate::limits::RESTORED_BYTES_MAX;
use crate::metrics::OffloadOp;
use crate::route::addresses::Directory;
use crate::store::StoreError;

/// KAFKA_STORAGE_ERROR: retriable, and what a broker says whose disk fails.
const STORAGE_ERROR: i16 = 56;
/// UNKNOWN_TOPIC_ID: retriable, what a broker says that has not heard of a topic yet.
const UNKNOWN_TOPIC_ID: i16 = 100;

/// A batch whose values must be restored.
struct Referring {
    open: OpenBatch,
    references: Vec<(RecordAt, Reference)>,
    original_bytes: usize,
}

/// A piece of a partition's records.
enum Piece {
    Same(Bytes),
    Refer(Box<Referring>),
    /// A batch that cannot be opened within bounds, so whether it refers is not known.
    Shut(BatchError),
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
    pub room: Option<OwnedSemaphorePermit>,
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
        let mut left = budget.min(RESTORED_BYTES_MAX);
        let mut planned = Vec::with_capacity(found.len());
        let mut total = 0;
        for section in &found {
            let topic = self.topic_name(section).await;
            let plan = busy(section.records.len(), || self.plan(section, topic.as_deref()));
            let cut = within(plan, &mut left, &mut total);
            planned.push((topic, cut));
        }
        let room = match total {
            0 => None,
            bytes => self.restored.take(bytes).await,
        };
        let mut changes = Vec::with_capacity(found.len());
        for (section, (topic, plan)) in found.iter().zip(planned) {
            changes.push(self.fill(section, topic.as_deref(), plan).await);
        }
        let mut rewrite = Rewrite::new(addresses);
        let edits = change(message, version, frame, at, &changes, &mut rewrite)?;
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

    /// Splits a partition's records into batches that stay and batches that refer.
    fn plan(&self, section: &Section, topic: Option<&str>) -> Plan {
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
                    let piece = self.piece(section.records.slice(range.clone()), topic);
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
            end = range.end;
            refers |= !matches!(piece, Piece::Same(_));
            pieces.push(piece);
        }
        pieces.push(Piece::Same(section.records.slice(end..)));
        if refers { Plan::Pieces(pieces) } else { Plan::Pass }
    }

    fn piece(&self, batch: Bytes, topic: &str) -> Piece {
        match self.referring(&batch, topic) {
            Ok(Some(referring)) => Piece::Refer(Box::new(referring)),
            Err(error @ BatchError::Codec(CodecError::TooLarge { .. })) => Piece::Shut(error),
            // A damaged batch is the client's to refuse.
            Ok(None) | Err(_) => Piece::Same(batch),
        }
    }

    fn referring(&self, batch: &Bytes, topic: &str) -> Result<Option<Referring>, BatchError> {
        let plain = BatchHeader::parse(batch)?.codec()? == Codec::None;
        if plain && memchr::memmem::find(batch, &REFERENCE_MAGIC).is_none() {
            return Ok(None);
        }
        let open = OpenBatch::open(batch.clone(), &self.caps)?;
        let mut references = Vec::new();
        let mut original_bytes = 0;
        for record in open.records() {
            let Ok(record) = record else { return Ok(None) };
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
                    references.push((record.at, reference));
                }
                Err(ReferenceError::NotAReference) => {}
                Err(error) => {
                    self.metrics.offload(OffloadOp::Refused, value.len());
                    tracing::debug!(topic, %error, "value that is no reference of ours passes");
                }
            }
        }
        let refers = !references.is_empty();
        Ok(refers.then_some(Referring { open, references, original_bytes }))
    }

    /// The new content of one partition, its values fetched from the store.
    async fn fill(&self, section: &Section, topic: Option<&str>, plan: Plan) -> Change {
        let pieces = match plan {
            Plan::Pass => return Change::default(),
            Plan::Nameless => {
                return Change { records: Some(Bytes::new()), error: Some(UNKNOWN_TOPIC_ID) };
            }
            Plan::Pieces(pieces) => pieces,
        };
        let mut records = Vec::with_capacity(pieces.len());
        let mut error = None;
        for piece in pieces {
            let restored = match piece {
                Piece::Same(bytes) => Ok(bytes),
                Piece::Refer(referring) => self.rewritten(&referring, section.partition).await,
                Piece::Shut(error) => Err(RestoreError::Shut(error)),
            };
            match restored {
                Ok(batch) => records.push(batch),
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
        let mut joined = BytesMut::with_capacity(records.iter().map(Bytes::len).sum());
        for piece in records {
            joined.extend_from_slice(&piece);
        }
        Change { records: Some(joined.freeze()), error }
    }

    async fn rewritten(&self, batch: &Referring, partition: i32) -> Result<Bytes, RestoreError> {
        let mut replacements = Vec::with_capacity(batch.references.len());
        let offset = batch.open.header().base_offset;
        for (record, reference) in &batch.references {
            let value = self.fetch(reference, partition).await;
            let value = value.map_err(|error| RestoreError::At(offset, Box::new(error)))?;
            replacements.push(Replacement { at: *record, value });
        }
        let options = RewriteOptions::default();
        let rewritten =
            busy(batch.original_bytes, || batch.open.rewrite(&replacements, &options, &self.caps));
        Ok(rewritten?.into_bytes())
    }

    async fn fetch(&self, reference: &Reference, partition: i32) -> Result<Bytes, RestoreError> {
        let key = self.key_of(reference, partition);
        let stored_bytes = reference.stored_bytes as usize;
        let value = self.store.get(&key, reference.pack_offset, stored_bytes).await;
        let value =
            value.inspect_err(|_| self.metrics.offload(OffloadOp::Damaged, stored_bytes))?;
        let sound = busy(value.len(), || crc32c(&value)) == reference.original_crc;
        if !sound && !fault::on("restore-unchecked") {
            self.metrics.offload(OffloadOp::Damaged, stored_bytes);
            return Err(RestoreError::Damaged(key));
        }
        self.metrics.offload(OffloadOp::Restore, value.len());
        Ok(value)
    }
}

/// Why a value cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    /// The object is not what was stored.
    #[error("object {0} does not fit its checksum")]
    Damaged(String),
    /// In the batch at this offset.
    #[error("batch at offset {0}: {1}")]
    At(i64, Box<RestoreError>),
    /// The batch cannot be opened, so what it refers to is not known.
    #[error("batch cannot be opened: {0}")]
    Shut(BatchError),
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The batch cannot take it.
    #[error(transparent)]
    Rewrite(#[from] protocol_ext::replace::RewriteError),
}

/// Cuts a plan where the budget ends. The first batch of the response that refers is always whole.
fn within(plan: Plan, left: &mut usize, total: &mut usize) -> Plan {
    let Plan::Pieces(mut pieces) = plan else { return plan };
    let mut keep = pieces.len();
    for (n, piece) in pieces.iter().enumerate() {
        let Piece::Refer(referring) = piece else { continue };
        let need = referring.original_bytes;
        if need > *left && *total > 0 && !fault::on("budget-ignored") {
            keep = n;
            break;
        }
        *left = left.saturating_sub(need);
        *total += need;
    }
    pieces.truncate(keep);
    Plan::Pieces(pieces)
}
