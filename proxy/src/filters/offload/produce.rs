//! Produce: large values of a request go to the store, references into the request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::{Batches, Entry, OpenBatch, crc32c};
use protocol_ext::header::{self, Head};
use protocol_ext::records::RecordAt;
use protocol_ext::reference::{REFERENCE_BYTES, Reference};
use protocol_ext::replace::{Replacement, RewriteOptions};
use protocol_ext::schema::requests;
use protocol_ext::walk::Check;
use protocol_ext::wire::WireError;
use sha2::{Digest, Sha256};

use super::sections::{Change, Section, TopicRef, change, sections};
use super::{Offload, busy};
use crate::metrics::OffloadOp;
use crate::route::topics::TopicId;
use crate::store::StoreError;
use crate::{clock, fault, random};

/// Attempts to store an object before the request is refused.
const ATTEMPTS_MAX: u32 = 3;
/// Pause before the second attempt; it doubles.
const BACKOFF: Duration = Duration::from_millis(50);
/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);

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
struct Large {
    section: usize,
    open: OpenBatch,
    values: Vec<(RecordAt, Bytes)>,
}

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
        let large = busy(frame.len(), || self.large(&found, &names));
        if large.is_empty() {
            return Ok(Produced::Same);
        }
        let mut changes = vec![Change::default(); found.len()];
        for batch in large {
            let Some((name, id)) = &names[batch.section] else { continue };
            let partition = found[batch.section].partition;
            let mut replacements = Vec::with_capacity(batch.values.len());
            for (record, value) in batch.values {
                match self.store(name, *id, partition, value).await {
                    Ok(reference) => {
                        replacements.push(Replacement { at: record, value: reference });
                    }
                    Err(error) => {
                        if let Some(left_out) = self.lines.allows("offload_store") {
                            let why = "large value cannot be stored";
                            tracing::warn!(%error, topic = %name, left_out, "{why}");
                        }
                        return Ok(Produced::Refused(STORAGE_ERROR));
                    }
                }
            }
            let options = RewriteOptions::default();
            let rewritten = busy(batch.open.body().len(), || {
                batch.open.rewrite(&replacements, &options, &self.caps)
            });
            match rewritten {
                Ok(new) => changes[batch.section].records = Some(spoiled(new.into_bytes())),
                // A damaged batch is the broker's to refuse, in its own words.
                Err(error) => tracing::debug!(%error, "batch goes on as it came"),
            }
        }
        let edits = change(&requests::PRODUCE, head.version, frame, at, &changes, &mut Check)?;
        Ok(Produced::New(edits.chain(frame)))
    }

    /// Name and id of a section's topic; `None` if no rule matches. A topic that the asked broker
    /// has not heard of yet is refused with the retriable code that such a broker would give.
    async fn topic(&self, section: &Section) -> Result<Option<(Arc<str>, TopicId)>, i16> {
        let asked = match &section.topic {
            TopicRef::Name(name) if self.threshold(name).is_none() => return Ok(None),
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
        found.map(|(name, id)| self.threshold(&name).is_some().then_some((name, id)))
    }

    fn large(&self, found: &[Section], names: &[Option<(Arc<str>, TopicId)>]) -> Vec<Large> {
        let mut large = Vec::new();
        for (section, (found, name)) in found.iter().zip(names).enumerate() {
            let Some((name, _)) = name else { continue };
            let Some(threshold) = self.threshold(name) else { continue };
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
            if let Some(values) = large_values(&open, threshold) {
                large.push(Large { section, open, values });
            }
        }
        large
    }

    /// Stores one value and signs a reference to it.
    async fn store(
        &self,
        topic: &str,
        topic_id: TopicId,
        partition: i32,
        value: Bytes,
    ) -> Result<[u8; REFERENCE_BYTES], StoreError> {
        let pack_id = random::id();
        let too_large = |_| StoreError::Io(std::io::ErrorKind::FileTooLarge.into());
        let bytes = u32::try_from(value.len()).map_err(too_large)?;
        let (crc, sha) = busy(value.len(), || (crc32c(&value), Sha256::digest(&value)));
        let mut original_sha256 = [0; 16];
        original_sha256.copy_from_slice(&sha[..16]);
        let reference = Reference {
            flags: 0,
            store_alias: 0,
            codec: 0,
            filter: 0,
            content_type: 0,
            shard: pack_id[0],
            written_at_ms: clock::unix_ms(),
            stored_bytes: bytes,
            original_bytes: bytes,
            original_crc: crc,
            pack_offset: 0,
            data_key_id: 0,
            pack_id,
            topic_id,
            original_sha256,
        };
        let key = self.key_of(&reference, partition);
        if !fault::on("ack-before-durable") {
            self.put(&key, &value).await?;
        }
        self.metrics.offload(OffloadOp::Store, value.len());
        Ok(self.keys.sign(&reference, &self.binding(topic)))
    }

    async fn put(&self, key: &str, value: &Bytes) -> Result<(), StoreError> {
        let mut backoff = BACKOFF;
        let mut attempt = 1;
        loop {
            let put = tokio::time::timeout(ATTEMPT, self.store.put(key, value.clone())).await;
            let timed_out = |_| Err(StoreError::Io(std::io::ErrorKind::TimedOut.into()));
            match put.unwrap_or_else(timed_out) {
                Ok(()) => return Ok(()),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error),
                Err(error) => tracing::debug!(%error, attempt, "store failed, again"),
            }
            tokio::time::sleep(random::jittered(backoff)).await;
            backoff *= 2;
            attempt += 1;
        }
    }
}

/// The values of a batch that must be stored: large ones, and those that look like a reference.
/// `None` if there are none, or if the records cannot be read (then the broker refuses them).
fn large_values(open: &OpenBatch, threshold: usize) -> Option<Vec<(RecordAt, Bytes)>> {
    if open.header().is_control() {
        return None;
    }
    let mut values = Vec::new();
    for record in open.records() {
        let record = record.ok()?;
        let value = record.value.unwrap_or_default();
        if value.len() > threshold || Reference::looks_like(value) {
            values.push((record.at, open.slice(record.value_range())?));
        }
    }
    (!values.is_empty()).then_some(values)
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
