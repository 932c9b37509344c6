//! Produce: large values of a request go to the store, references into the request.
//!
//! sections -> topics by rule -> batches opened within their bound -> large values -> packs ->
//! store, side by side -> references into the batches. Invariant: a reference leaves this file only
//! after its pack is durable.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{FutureExt, join_all, try_join_all};
use protocol_ext::batch::{BatchError, Batches, Caps, Entry, OpenBatch};
use protocol_ext::header::{self, Head};
use protocol_ext::reference::{REFERENCE_BYTES, Reference};
use protocol_ext::replace::{Replacement, RewriteError, RewriteOptions};
use protocol_ext::schema::requests;
use protocol_ext::walk::Check;
use protocol_ext::wire::WireError;

use super::Offload;
use super::packs::{self, Pack, Place};
use super::sections::{Change, Section, TopicRef, change, sections};
use super::spoiled::spoiled;
use crate::config::{OffloadRule, OnStoreFailure};
use crate::fault;
use crate::inflate::Opened;
use crate::limits::{LARGE_VALUES_MAX, RESTORED_BYTES_MAX, SECTIONS_MAX};
use crate::metrics::OffloadOp;
use crate::route::topics::TopicId;
use crate::store::StoreError;
use crate::tasks::busy;

/// KAFKA_STORAGE_ERROR.
pub const STORAGE_ERROR: i16 = 56;
/// MESSAGE_TOO_LARGE: producers split such a batch.
const TOO_LARGE: i16 = 10;
/// UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC: i16 = 3;
/// UNKNOWN_TOPIC_ID.
const UNKNOWN_TOPIC_ID: i16 = 100;

/// What became of a Produce request.
#[derive(Debug, Default)]
pub struct Produced {
    /// The frame to forward instead, without its length, in pieces; `None`: as it came.
    pub new: Option<Vec<Bytes>>,
    /// Partitions whose values could not be stored, by their place in the request, and what the
    /// client is told: nothing of them may be forwarded.
    pub refused: BTreeMap<usize, i16>,
}

/// What is done with a request so far.
struct Work<'f> {
    frame: &'f Bytes,
    found: &'f [Section],
    /// The section that is looked at next.
    next: usize,
    changes: Vec<Change>,
    refused: BTreeMap<usize, i16>,
    values: usize,
    /// The topic that could not be asked for last: it is not asked for again.
    unknown: Option<(TopicRef, i16)>,
}

impl Work<'_> {
    /// What was found out of a section's topic, if that is why nothing can be stored for it.
    fn known_unknown(&self, section: &Section) -> Result<(), i16> {
        match &self.unknown {
            // Who cannot be asked for one topic is not asked for others: each takes its time.
            Some((topic, code)) if *topic == section.topic || *code == STORAGE_ERROR => Err(*code),
            Some(_) | None => Ok(()),
        }
    }
}

/// A batch with large values.
struct Large<'a> {
    section: usize,
    topic: Arc<str>,
    topic_id: TopicId,
    open: Opened,
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
        let found = sections(&requests::PRODUCE, head.version, frame, at, SECTIONS_MAX)?;
        let changes = vec![Change::default(); found.len()];
        let (refused, unknown) = (BTreeMap::new(), None);
        let mut work = Work { frame, found: &found, next: 0, changes, refused, values: 0, unknown };
        // Batches that are opened at once are stored at once. Those that have no room beside them
        // come next.
        while work.next < found.len() {
            let large = self.large(&mut work).await;
            self.replaced(large, &mut work).await;
        }
        let Work { changes, refused, .. } = work;
        if changes.iter().all(|change| change.records.is_none()) {
            return Ok(Produced { new: None, refused });
        }
        let edits = change(&requests::PRODUCE, head.version, frame, at, &changes, &mut Check)?;
        Ok(Produced { new: Some(edits.chain(frame)), refused })
    }

    /// Stores the values of batches and puts what stands for them into the changes.
    async fn replaced(&self, mut large: Vec<Large<'_>>, work: &mut Work<'_>) {
        let mut stored = Vec::with_capacity(large.len());
        for batch in &mut large {
            let partition = work.found[batch.section].partition;
            let place = Place { topic: &batch.topic, topic_id: batch.topic_id, partition };
            let values = std::mem::take(&mut batch.values);
            stored.push(self.store_values(place, batch.rule, values, work.frame).boxed());
        }
        let stored = join_all(stored).await;
        for (batch, stored) in large.iter().zip(stored) {
            match stored {
                Ok(references) => match self.with_references(batch, &references) {
                    Ok(records) => work.changes[batch.section].records = records,
                    Err(code) => {
                        work.refused.insert(batch.section, code);
                    }
                },
                Err(error) => {
                    let topic = &batch.topic;
                    if let Some(left_out) = self.lines.allows("offload_store") {
                        let why = "large values cannot be stored";
                        tracing::warn!(%error, %topic, left_out, "{why}");
                    }
                    if !self.stays_inline(batch) {
                        work.refused.insert(batch.section, STORAGE_ERROR);
                    }
                }
            }
        }
    }

    /// The batch with references in place of its values; `None`: it goes on as it came.
    fn with_references(
        &self,
        batch: &Large<'_>,
        references: &References,
    ) -> Result<Option<Vec<Bytes>>, i16> {
        let options = RewriteOptions::default();
        let open = &batch.open.batch;
        // What is longer would not be opened on Fetch.
        let bytes_max = self.caps.body_bytes_max.max(open.body().len());
        let caps = Caps { rewritten_bytes_max: bytes_max, ..self.caps };
        let rewritten = busy(open.body().len(), || open.rewrite(references, &options, &caps));
        match rewritten {
            Ok(new) => Ok(Some(vec![spoiled(new.into_bytes(), fault::on("stale-crc"))])),
            Err(RewriteError::TooLarge { .. }) => Err(TOO_LARGE),
            Err(error) => {
                // A damaged batch is the broker's to refuse, in its own words.
                tracing::debug!(%error, "batch goes on as it came");
                Ok(None)
            }
        }
    }

    /// Whether a batch whose values could not be stored may go on as it came.
    fn stays_inline(&self, batch: &Large<'_>) -> bool {
        let OnStoreFailure::Inline { batch_bytes_max } = batch.rule.on_store_failure else {
            return false;
        };
        let bytes = batch.open.batch.raw().len();
        let stays = bytes <= batch_bytes_max && (!batch.guarded || fault::on("forgery-inline"));
        if stays {
            self.metrics.offload(OffloadOp::Inline, bytes);
        }
        stays
    }

    /// The next batches with large values: as many as have room together, and none if there are no
    /// more. Those that cannot be stored are refused; the others are none of their business.
    async fn large(&self, work: &mut Work<'_>) -> Vec<Large<'_>> {
        let mut large: Vec<Large<'_>> = Vec::new();
        while let Some(section) = work.found.get(work.next) {
            let alone = large.iter().all(|batch| batch.open.room.is_none());
            match self.large_of(section, work, alone).await {
                Ok(Some(Some(mut batch))) => {
                    batch.section = work.next;
                    work.values += batch.values.len();
                    large.push(batch);
                }
                Ok(Some(None)) => {}
                Ok(None) => break,
                Err(code) => {
                    work.refused.insert(work.next, code);
                }
            }
            work.next += 1;
        }
        large
    }

    /// The batch of a section, if it has large values; `None` if there is no room to look beside
    /// others, which is waited for by who is `alone`.
    async fn large_of(
        &self,
        section: &Section,
        work: &mut Work<'_>,
        alone: bool,
    ) -> Result<Option<Option<Large<'_>>>, i16> {
        let named = self.name(section, work).await?;
        let Some(name) = named else { return Ok(Some(None)) };
        let (Some(rule), Some(raw)) = (self.rule(&name), self.only_batch(section)) else {
            return Ok(Some(None));
        };
        let opened = match alone {
            true => Some(self.inflate.open(raw).await),
            false => self.inflate.try_open(raw),
        };
        let Some(opened) = opened else { return Ok(None) };
        let Some(mut batch) = self.with_large_values(opened, rule, &name) else {
            return Ok(Some(None));
        };
        let bytes: usize = batch.values.iter().map(|(_, value)| value.len()).sum();
        // Consumers are given one batch at least, and none beyond what they take.
        let beyond = batch.values.len() > 1 && bytes > RESTORED_BYTES_MAX;
        if work.values + batch.values.len() > LARGE_VALUES_MAX
            || (beyond && !fault::on("long-batches-stored"))
        {
            return Err(TOO_LARGE);
        }
        batch.topic_id = self.id(section, &name, work).await?;
        Ok(Some(Some(batch)))
    }

    /// The batch of a section. Brokers take exactly one; anything else is theirs to refuse.
    fn only_batch<'a>(&self, section: &'a Section) -> Option<&'a Bytes> {
        let mut entries = Batches::new(&section.records);
        let (Some(Ok(entry)), None) = (entries.next(), entries.next()) else { return None };
        match entry {
            Entry::Batch { .. } => Some(&section.records),
            Entry::Legacy { .. } | Entry::Partial { .. } => {
                self.metrics.legacy_batches.inc();
                None
            }
        }
    }

    fn with_large_values<'a>(
        &self,
        opened: Result<Opened, BatchError>,
        rule: &'a OffloadRule,
        topic: &Arc<str>,
    ) -> Option<Large<'a>> {
        let open = match opened {
            Ok(open) => open,
            Err(error) => {
                self.unopened(&error, topic);
                return None;
            }
        };
        let bytes = open.batch.body().len();
        let found = busy(bytes, || large_values(&open.batch, rule.threshold_bytes));
        let (values, guarded) = found?;
        let (topic, topic_id) = (topic.clone(), TopicId::default());
        Some(Large { section: 0, topic, topic_id, open, values, rule, guarded })
    }

    /// The name of a section's topic; `None` if no rule can match. A topic that the asked broker
    /// has not heard of yet is refused with the retriable code that such a broker would give.
    async fn name(&self, section: &Section, work: &mut Work<'_>) -> Result<Option<Arc<str>>, i16> {
        let id = match &section.topic {
            TopicRef::Name(name) => return Ok(self.rule(name).is_some().then(|| name.clone())),
            TopicRef::Id(id) => *id,
        };
        if let Some(name) = self.topics.known_name(&id) {
            return Ok(Some(name));
        }
        work.known_unknown(section)?;
        let name = self.topics.name(id).await.map_err(|error| self.unasked(&error));
        let name = name.and_then(|name| name.ok_or(UNKNOWN_TOPIC_ID));
        work.unknown = name.as_ref().err().map(|code| (section.topic.clone(), *code));
        name.map(Some)
    }

    /// The id of a section's topic.
    async fn id(&self, section: &Section, name: &str, work: &mut Work<'_>) -> Result<TopicId, i16> {
        if let TopicRef::Id(id) = &section.topic {
            return Ok(*id);
        }
        work.known_unknown(section)?;
        let id = self.topics.id(name).await.map_err(|error| self.unasked(&error));
        let id = id.and_then(|id| id.ok_or(UNKNOWN_TOPIC));
        work.unknown = id.as_ref().err().map(|code| (section.topic.clone(), *code));
        id
    }

    fn unasked(&self, error: &io::Error) -> i16 {
        if let Some(left_out) = self.lines.allows("offload_topic") {
            tracing::warn!(%error, left_out, "topic of a large value cannot be asked for");
        }
        STORAGE_ERROR
    }

    /// Stores the values of one batch and gives the references to them.
    async fn store_values(
        &self,
        place: Place<'_>,
        rule: &OffloadRule,
        values: Vec<packs::Large>,
        frame: &Bytes,
    ) -> Result<References, StoreError> {
        let bytes = values.iter().map(|(_, value)| value.len()).sum();
        let packs = busy(bytes, || self.packs(place, rule.codec, values));
        let too_large = |_| StoreError::Io(std::io::ErrorKind::FileTooLarge.into());
        let packs = packs.map_err(too_large)?;
        let puts: Vec<_> = packs.into_iter().map(|pack| self.put(pack, frame).boxed()).collect();
        let mut references = try_join_all(puts).await?.concat();
        references.sort_unstable_by_key(|reference| reference.at);
        Ok(references)
    }

    async fn put(&self, pack: Pack, frame: &Bytes) -> Result<References, StoreError> {
        if !fault::on("ack-before-durable") {
            self.store.put(&pack.key, &pack.object).await?;
        }
        let bytes = pack.object.iter().map(|piece| piece.bytes.len()).sum();
        self.metrics.offload(OffloadOp::Put, bytes);
        for (key, value, format) in &pack.values {
            self.metrics.offload(OffloadOp::Store, value.len());
            let format = if fault::on("formats-untold") { 0 } else { *format };
            self.metrics.formats.stored(format, value.len());
            let inflated = !frame.as_ptr_range().contains(&value.as_ptr());
            self.parts.keep(*key, value, if inflated { usize::MAX } else { frame.len() });
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
            if values.len() > LARGE_VALUES_MAX {
                break;
            }
            values.push((record.at, open.slice(record.value_range())?));
        }
    }
    (!values.is_empty()).then_some((values, guarded))
}
