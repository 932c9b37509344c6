//! Produce: large values of a request go to the store, references into the request.
//!
//! sections -> topics by rule -> large values -> packs -> store, side by side -> references into
//! the batches. Invariant: a reference leaves this file only after its pack is durable.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{FutureExt, join_all, try_join_all};
use protocol_ext::batch::{Batches, Entry, OpenBatch};
use protocol_ext::header::{self, Head};
use protocol_ext::reference::{REFERENCE_BYTES, Reference};
use protocol_ext::replace::{Replacement, RewriteOptions};
use protocol_ext::schema::requests;
use protocol_ext::walk::Check;
use protocol_ext::wire::WireError;

use super::packs::{self, Pack, Place};
use super::sections::{Change, Section, TopicRef, change, sections};
use super::{Offload, busy};
use crate::config::{OffloadRule, OnStoreFailure};
use crate::fault;
use crate::metrics::OffloadOp;
use crate::route::topics::TopicId;
use crate::store::StoreError;

/// KAFKA_STORAGE_ERROR.
const STORAGE_ERROR: i16 = 56;
/// UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC: i16 = 3;
/// UNKNOWN_TOPIC_ID.
const UNKNOWN_TOPIC_ID: i16 = 100;

/// What became of a Produce request.
#[derive(Debug)]
pub enum Produced {
    /// No large value: the frame goes on as it came.
    Same,
    /// The frame to forward instead, without its length, in pieces.
    New(Vec<Bytes>),
    /// Values could not be stored: nothing may be forwarded, the client gets this code.
    Refused(i16),
}

/// A batch with large values.
struct Large<'a> {
    section: usize,
    open: OpenBatch,
    values: Vec<packs::Large>,
    rule: &'a OffloadRule,
    /// Whether a value looks like a reference: it must never reach the log.
    guarded: bool,
}

/// What stands for the values of a batch.
type References = Vec<Replacement<[u8; REFERENCE_BYTES]>>;

impl Offload {
    /// Stores the large values of a Produce request and gives the request to forward.
    pub async fn produce(&self, head: Head, frame: &Bytes) -> Result<Produced, WireError> {
        let at = header::request_body_at(head, frame)?;
        let found = sections(&requests::PRODUCE, head.version, frame, at)?;
        let mut names = Vec::with_capacity(found.len());
        for section in &found {
            match self.topic(section).await {
                Ok(topic) => names.push(topic),
                Err(code) => return Ok(Produced::Refused(code)),
            }
        }
        let mut large = busy(frame.len(), || self.large(&found, &names));
        if large.is_empty() {
            return Ok(Produced::Same);
        }
        let mut stored = Vec::with_capacity(large.len());
        for batch in &mut large {
            let Some((topic, id)) = &names[batch.section] else { continue };
            let partition = found[batch.section].partition;
            let place = Place { topic, topic_id: *id, partition };
            let values = std::mem::take(&mut batch.values);
            stored.push(self.store_values(place, batch.rule, values).boxed());
        }
        let stored = join_all(stored).await;
        let mut changes = vec![Change::default(); found.len()];
        for (batch, stored) in large.iter().zip(stored) {
            let references = match stored {
                Ok(references) => references,
                Err(error) => {
                    let topic = &found[batch.section].topic;
                    if let Some(left_out) = self.lines.allows("offload_store") {
                        let why = "large values cannot be stored";
                        tracing::warn!(%error, ?topic, left_out, "{why}");
                    }
                    if !self.stays_inline(batch) {
                        return Ok(Produced::Refused(STORAGE_ERROR));
                    }
                    continue;
                }
            };
            changes[batch.section].records = self.with_references(batch, &references);
        }
        let edits = change(&requests::PRODUCE, head.version, frame, at, &changes, &mut Check)?;
        Ok(Produced::New(edits.chain(frame)))
    }

    /// The batch with references in place of its values; `None`: it goes on as it came.
    fn with_references(&self, batch: &Large<'_>, references: &References) -> Option<Vec<Bytes>> {
        let options = RewriteOptions::default();
        let rewritten =
            busy(batch.open.body().len(), || batch.open.rewrite(references, &options, &self.caps));
        match rewritten {
            Ok(new) => Some(vec![spoiled(new.into_bytes())]),
            Err(error) => {
                // A damaged batch is the broker's to refuse, in its own words.
                tracing::debug!(%error, "batch goes on as it came");
                None
            }
        }
    }

    /// Whether a batch whose values could not be stored may go on as it came.
    fn stays_inline(&self, batch: &Large<'_>) -> bool {
        let OnStoreFailure::Inline { batch_bytes_max } = batch.rule.on_store_failure else {
            return false;
        };
        let bytes = batch.open.raw().len();
        let stays = bytes <= batch_bytes_max && (!batch.guarded || fault::on("forgery-inline"));
        if stays {
            self.metrics.offload(OffloadOp::Inline, bytes);
        }
        stays
    }

    /// Name and id of a section's topic; `None` if no rule matches. A topic that the asked broker
    /// has not heard of yet is refused with the retriable code that such a broker would give.
    async fn topic(&self, section: &Section) -> Result<Option<(Arc<str>, TopicId)>, i16> {
        let asked = match &section.topic {
            TopicRef::Name(name) if self.rule(name).is_none() => return Ok(None),
            TopicRef::Name(name) => {
                let id = self.topics.id(name).await;
                id.map(|id| id.map(|id| (name.clone(), id)).ok_or(UNKNOWN_TOPIC))
            }
            TopicRef::Id(id) => {
                let name = self.topics.name(*id).await;
                name.map(|name| name.map(|name| (name, *id)).ok_or(UNKNOWN_TOPIC_ID))
            }
        };
        let found: Result<(Arc<str>, TopicId), i16> = asked.unwrap_or_else(|error| {
            if let Some(left_out) = self.lines.allows("offload_topic") {
                tracing::warn!(%error, left_out, "topic of a large value cannot be asked for");
            }
            Err(STORAGE_ERROR)
        });
        found.map(|(name, id)| self.rule(&name).is_some().then_some((name, id)))
    }

    fn large(&self, found: &[Section], names: &[Option<(Arc<str>, TopicId)>]) -> Vec<Large<'_>> {
        let mut large = Vec::new();
        for (section, (found, name)) in found.iter().zip(names).enumerate() {
            let Some((name, _)) = name else { continue };
            let Some(rule) = self.rule(name) else { continue };
            let mut entries = Batches::new(&found.records);
            // Brokers take exactly one batch a partition; anything else is theirs to refuse.
            let (Some(Ok(entry)), None) = (entries.next(), entries.next()) else { continue };
            match entry {
                Entry::Batch { .. } => {}
                Entry::Legacy { .. } | Entry::Partial { .. } => {
                    self.metrics.legacy_batches.inc();
                    continue;
                }
            }
            let Ok(open) = OpenBatch::open(found.records.clone(), &self.caps) else { continue };
            if let Some((values, guarded)) = large_values(&open, rule.threshold_bytes) {
                large.push(Large { section, open, values, rule, guarded });
            }
        }
        large
    }

    /// Stores the values of one batch and gives the references to them.
    async fn store_values(
        &self,
        place: Place<'_>,
        rule: &OffloadRule,
        values: Vec<packs::Large>,
    ) -> Result<References, StoreError> {
        let bytes = values.iter().map(|(_, value)| value.len()).sum();
        let packs = busy(bytes, || self.packs(place, rule.codec, values));
        let too_large = |_| StoreError::Io(std::io::ErrorKind::FileTooLarge.into());
        let packs = packs.map_err(too_large)?;
        let puts: Vec<_> = packs.into_iter().map(|pack| self.put(pack).boxed()).collect();
        let mut references = try_join_all(puts).await?.concat();
        references.sort_unstable_by_key(|reference| reference.at);
        Ok(references)
    }

    async fn put(&self, pack: Pack) -> Result<References, StoreError> {
        if !fault::on("ack-before-durable") {
            self.store.put(&pack.key, &pack.object).await?;
        }
        self.metrics.offload(OffloadOp::Put, pack.object.iter().map(Bytes::len).sum());
        for (key, value) in &pack.values {
            self.metrics.offload(OffloadOp::Store, value.len());
            self.parts.keep(*key, value);
        }
        Ok(pack.references)
    }
}

/// The values of a batch that must be stored: large ones, and those that look like a reference.
/// `None` if there are none, or if the records cannot be read (then the broker refuses them).
/// Also tells whether one of them looks like a reference.
fn large_values(open: &OpenBatch, threshold: usize) -> Option<(Vec<packs::Large>, bool)> {
    if open.header().is_control() {
        return None;
    }
    let mut values = Vec::new();
    let mut guarded = false;
    for record in open.records() {
        let record = record.ok()?;
        let value = record.value.unwrap_or_default();
        let alike = Reference::looks_like(value);
        if value.len() > threshold || alike {
            guarded |= alike;
            values.push((record.at, open.slice(record.value_range())?));
        }
    }
    (!values.is_empty()).then_some((values, guarded))
}

/// The batch as it is; with a fault on, with a checksum that does not fit.
fn spoiled(batch: Bytes) -> Bytes {
    if !fault::on("stale-crc") {
        return batch;
    }
    let mut spoiled = batch.to_vec();
    if let Some(byte) = spoiled.get_mut(17) {
        *byte ^= 0xff;
    }
    spoiled.into()
}
