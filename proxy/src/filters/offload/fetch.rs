//! Fetch: references of a response become the values they stand for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol_ext::address::Rewrite;
use protocol_ext::batch::{Batches, Entry, OpenBatch, crc32c};
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
            TopicRef::Name(name) => Some(name.as_str().into()),
            TopicRef::Id(id) => match self.topics.name(*id).await {
                Ok(name) => name,
                Err(error) => {
                    tracing::warn!(%error, "name of a fetched topic cannot be asked for");
                    None
                }
            },
        }
    }

    /// Splits a partition's records into batches that stay and batches that refer; `None` if no
    /// batch refers.
    fn plan(&self, section: &Section, topic: Option<&str>) -> Option<Vec<Piece>> {
        let topic = topic?;
        let mut pieces = Vec::new();
        let mut refers = false;
        for entry in Batches::new(&section.records) {
            let (range, referring) = match entry.ok()? {
                Entry::Batch { range, header } if !header.is_control() => {
                    let batch = section.records.slice(range.clone());
                    (range, self.referring(batch, topic))
                }
                Entry::Batch { range, .. } | Entry::Partial { range } => (range, None),
                Entry::Legacy { range, .. } => {
                    self.metrics.legacy_batches.inc();
                    (range, None)
                }
            };
            refers |= referring.is_some();
            pieces.push(match referring {
                Some(referring) => Piece::Refer(Box::new(referring)),
                None => Piece::Same(section.records.slice(range)),
            });
        }
        refers.then_some(pieces)
    }

    fn referring(&self, batch: Bytes, topic: &str) -> Option<Referring> {
        let header = protocol_ext::batch::BatchHeader::parse(&batch).ok()?;
        let plain = header.codec().ok()? == protocol_ext::codec::Codec::None;
        if plain && memchr::memmem::find(&batch, &REFERENCE_MAGIC).is_none() {
            return None;
        }
        let open = OpenBatch::open(batch, &self.caps).ok()?;
        let mut references = Vec::new();
        let mut original_bytes = 0;
        for record in open.records() {
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
                    references.push((record.at, reference));
                }
                Err(ReferenceError::NotAReference) => {}
                Err(error) => {
                    self.metrics.offload(OffloadOp::Refused, value.len());
                    tracing::debug!(topic, %error, "value that is no reference of ours passes");
                }
            }
        }
        (!references.is_empty()).then_some(Referring { open, references, original_bytes })
    }

    /// The new content of one partition, its values fetched from the store.
    async fn fill(
        &self,
        section: &Section,
        topic: Option<&str>,
        plan: Option<Vec<Piece>>,
    ) -> Change {
        let Some(pieces) = plan else { return Change::default() };
        let mut records = Vec::with_capacity(pieces.len());
        let mut error = None;
        for piece in pieces {
            match piece {
                Piece::Same(bytes) => records.push(bytes),
                Piece::Refer(referring) => {
                    match self.rewritten(&referring, section.partition).await {
                        Ok(batch) => records.push(batch),
                        Err(why) => {
                            let topic = topic.unwrap_or_default();
                            let partition = section.partition;
                            let offset = referring.open.header().base_offset;
                            tracing::error!(topic, partition, offset, %why, "value cannot be restored");
                            error = records.is_empty().then_some(STORAGE_ERROR);
                            break;
                        }
                    }
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
        for (record, reference) in &batch.references {
            let value = self.fetch(reference, partition).await?;
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
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The batch cannot take it.
    #[error(transparent)]
    Rewrite(#[from] protocol_ext::replace::RewriteError),
}

/// Cuts a plan where the budget ends. The first batch of the response that refers is always whole.
fn within(plan: Option<Vec<Piece>>, left: &mut usize, total: &mut usize) -> Option<Vec<Piece>> {
    let mut pieces = plan?;
    let mut keep = pieces.len();
    for (n, piece) in pieces.iter().enumerate() {
        let Piece::Refer(referring) = piece else { continue };
        let need = referring.original_bytes;
        if need > *left && *total > 0 {
            keep = n;
            break;
        }
        *left = left.saturating_sub(need);
        *total += need;
    }
    pieces.truncate(keep);
    Some(pieces)
}
