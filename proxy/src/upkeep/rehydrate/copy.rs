//! Reads a log and writes its copy.
//!
//! Fetch -> committed records, opened and their checksums checked -> batches of a MiB, or of one
//! record -> note -> values of some batches at once -> write. Invariant: a value is written only if
//! the reference's length, CRC and hash fit it.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::{Batches, Caps, Entry, OpenBatch};
use protocol_ext::part::hash;
use protocol_ext::records::{RecordAt, RecordView};
use protocol_ext::reference::{KeyRing, Reference, ReferenceError};
use protocol_ext::resend::{Resent, resend};

use super::aborted::Aborted;
use super::journal::{Journal, Note};
use super::unsigned::Refused;
use super::{Copied, Order, Place, target, unsigned};
use crate::config::Config;
use crate::fault;
use crate::filters::offload::{Losses, PartFailure, Parts, Want, object_key};
use crate::metrics::Metrics;
use crate::store::ObjectStore;
use crate::store::cache::PartKey;
use crate::upkeep::UpkeepError;
use crate::upkeep::log::{Cluster, Committed, Partition};
use crate::upkeep::scope::opened;

/// Copies partitions.
pub struct Copy<'a> {
    config: &'a Config,
    keys: &'a KeyRing,
    store: Arc<ObjectStore>,
    parts: Parts,
    losses: Losses,
    order: &'a Order,
    /// The brokers.
    pub cluster: &'a mut Cluster,
}

/// A record to copy, and the value to fetch for it.
struct Taken {
    /// Which of the opened batches it is in.
    batch: usize,
    at: RecordAt,
    offset: i64,
    want: Option<Box<Want>>,
}

/// Records that become one batch.
#[derive(Default)]
struct Chunk {
    records: Vec<Taken>,
    /// Bytes that it will have, nearly.
    bytes: usize,
    /// Values that look like references and are none.
    unsigned: u64,
}

impl Chunk {
    fn next(&self) -> i64 {
        self.records.last().map_or(0, |record| record.offset + 1)
    }

    fn count(&self) -> i32 {
        i32::try_from(self.records.len()).unwrap_or(i32::MAX)
    }

    fn wants(&self) -> impl Iterator<Item = &Want> {
        self.records.iter().filter_map(|record| record.want.as_deref())
    }
}

/// Some of a log, ready to be copied.
#[derive(Default)]
struct Stretch {
    opened: Vec<OpenBatch>,
    opened_bytes: usize,
    chunks: Vec<Chunk>,
    /// Records in the chunks.
    records: usize,
    /// Offset behind all that was looked at.
    next: i64,
    /// Values in the chunks that look like references and are not followed.
    refused: Vec<Refused>,
}

impl<'a> Copy<'a> {
    /// A copy of topics of `cluster`, whose id is `own`, by the keys of its store.
    pub fn new(
        config: &'a Config,
        store: Arc<ObjectStore>,
        keys: &'a KeyRing,
        (cluster, own): (&'a mut Cluster, &str),
        order: &'a Order,
    ) -> Self {
        // Each value is read once, so none is kept.
        let parts = Parts::new(store.clone(), 0, READ_BYTES * 3, Arc::new(Metrics::new()));
        let losses = Losses::new(store.clone(), &config.cluster.name);
        losses.belongs_to(own);
        Self { config, keys, store, parts, losses, order, cluster }
    }

    /// Copies one partition from where its copy ends to the end of its log.
    pub async fn partition(
        &mut self,
        (source, target): (&Partition, &Partition),
        as_another: bool,
        copied: &mut Copied,
        show: &mut impl FnMut(i64),
    ) -> Result<(), UpkeepError> {
        let store = self.store.clone();
        let mut journal = Journal::new(&store, &self.config.cluster.name, source, target);
        // First: what comes meanwhile is behind no transaction.
        let (written, unreplicated) = self.written(source).await?;
        let (first, end) = self.cluster.bounds(source).await?;
        copied.held_back = (written - end).max(0);
        copied.unreplicated = unreplicated;
        self.has_all(target).await?;
        let mut place = self.resume(&mut journal, first, target).await?;
        if as_another || place.producer.id < 0 {
            place.producer = target::producer(self.cluster).await?;
        }
        if place.source < first {
            copied.lose(place.source..first);
            place.source = first;
        }
        while place.source < end {
            let read = self.cluster.committed(source, place.source).await?;
            let stretch = self.stretch(source, &read, place.source)?;
            if stretch.next <= place.source {
                let why = format!("nothing readable at offset {}", place.source);
                return Err(unreadable(source, why));
            }
            if !self.order.keep_unsigned {
                let cluster = &self.config.cluster.name;
                unsigned::judge(&store, cluster, source, &stretch.refused).await?;
            }
            if !stretch.chunks.is_empty() {
                let batches = stretch.chunks.iter().map(|chunk| (chunk.count(), chunk.next()));
                if !journal.put(&Note::new(&place, batches.collect())).await? {
                    return Err(stopped(target, false, BESIDE.to_owned()));
                }
            }
            for chunks in together(&stretch.chunks) {
                let values = self.values(chunks).await?;
                for chunk in chunks {
                    let batch = self.batch(&stretch, chunk, &values, &place, source)?;
                    let offset = target::write(self.cluster, target, batch).await?;
                    if offset != place.target {
                        return Err(meddled(target, offset, place.target));
                    }
                    place.pass(chunk.count(), chunk.next());
                    copied.unsigned += chunk.unsigned;
                    copied.count(chunk.records.len(), chunk.wants().map(|w| values.get(&w.key())));
                    show(place.source - first);
                }
            }
            place.source = place.source.max(stretch.next);
            show(place.source - first);
        }
        (copied.up_to, copied.in_copy) = (place.source, place.target);
        copied.trimmed = self.cluster.bounds(target).await?.0;
        Ok(())
    }

    /// The offset behind what every replica in sync has of a log, and how many its leader has
    /// beyond it. Replicas are on their way to what is written at any time, so they get a moment.
    async fn written(&mut self, at: &Partition) -> Result<(i64, i64), UpkeepError> {
        let end = self.cluster.log_end(at).await?;
        let mut looks = 0;
        loop {
            let written = self.cluster.high_watermark(at).await?;
            looks += 1;
            if written >= end || looks > REPLICAS_LOOKS {
                return Ok((written, (end - written).max(0)));
            }
            tokio::time::sleep(REPLICAS_PAUSE).await;
        }
    }

    /// Fails while the leader has batches of the copy that are not in it yet: its end does not tell
    /// of them, others might be made in their place, and another producer would write them once
    /// more.
    async fn has_all(&mut self, target: &Partition) -> Result<(), UpkeepError> {
        let there = self.cluster.high_watermark(target).await?;
        match self.cluster.log_end(target).await? {
            end if end > there && !fault::on("replicas-unasked") => {
                let why = format!("its replicas have {there} records, and its leader {end}");
                Err(stopped(target, true, why))
            }
            _ => Ok(()),
        }
    }

    /// Where to go on.
    async fn resume(
        &mut self,
        journal: &mut Journal<'_>,
        first: i64,
        target: &Partition,
    ) -> Result<Place, UpkeepError> {
        let (_, written) = self.cluster.bounds(target).await?;
        let nobody = protocol_ext::split::ProducerFields { id: -1, epoch: -1, base_sequence: 0 };
        let from_start = Place { source: first, target: 0, producer: nobody };
        let last = journal.last().await?;
        if fault::on("copy-begins-anew") {
            return Ok(Place { target: written, ..from_start });
        }
        match last {
            None if written == 0 => Ok(from_start),
            Some(note) if note.is_behind(written) => {
                let why = format!("its replicas have {written} records, fewer than were written");
                Err(stopped(target, true, why))
            }
            note => note.and_then(|note| note.place(written)).ok_or_else(|| {
                let why = format!(
                    "it has {written} records, and not those that were written here: name another \
                     topic by --to, or delete this one"
                );
                stopped(target, false, why)
            }),
        }
    }

    /// What of some batches is to be copied from an offset on.
    fn stretch(&self, at: &Partition, read: &Committed, from: i64) -> Result<Stretch, UpkeepError> {
        let mut stretch = Stretch { next: from, ..Stretch::default() };
        let mut aborted = Aborted::new(read);
        for entry in Batches::new(&read.records) {
            let (range, header) = match entry.map_err(|error| unreadable(at, error.to_string()))? {
                Entry::Batch { range, header } => (range, header),
                Entry::Partial { .. } => break,
                Entry::Legacy { .. } => {
                    let why = "messages of an old format cannot be written anew".to_owned();
                    return Err(unreadable(at, why));
                }
            };
            if stretch.opened_bytes > OPENED_BYTES || stretch.records >= RECORDS_MAX {
                break;
            }
            stretch.next = header.base_offset + i64::from(header.last_offset_delta) + 1;
            if aborted.leaves_out(&header) || stretch.next <= from {
                continue;
            }
            let caps = Caps { body_bytes_max: BATCH_BYTES_MAX, rewritten_bytes_max: 0 };
            let open = OpenBatch::open(read.records.slice(range), &caps);
            let mut open = open.map_err(|error| unreadable(at, error.to_string()))?;
            open.check_crc().map_err(|error| unreadable(at, error.to_string()))?;
            self.take(at, open, from, &mut stretch)?;
        }
        Ok(stretch)
    }

    fn take(
        &self,
        at: &Partition,
        open: OpenBatch,
        from: i64,
        stretch: &mut Stretch,
    ) -> Result<(), UpkeepError> {
        let batch = stretch.opened.len();
        let base = open.header().base_offset;
        for record in open.records() {
            let record = record.map_err(|error| unreadable(at, error.to_string()))?;
            let offset = base + i64::from(record.offset_delta);
            if offset < from {
                continue;
            }
            if stretch.records >= RECORDS_MAX {
                stretch.next = offset;
                break;
            }
            stretch.records += 1;
            let (want, unsigned) = match self.want(at, &record) {
                Some(Ok(want)) => (Some(want), 0),
                Some(Err(why)) => {
                    let value = record.value.unwrap_or_default();
                    stretch.refused.push(Refused::new(offset, value, why));
                    (None, 1)
                }
                None => (None, 0),
            };
            let value = record.value.map_or(0, <[u8]>::len);
            let value = want.as_ref().map_or(value, |w| w.reference.original_bytes as usize);
            let rest = record.key.map_or(0, <[u8]>::len) + record.headers_raw.len();
            let bytes = RECORD_BYTES + rest + value;
            let same = |chunk: &&mut Chunk| {
                let first = chunk.records.first().and_then(|first| stretch.opened.get(first.batch));
                first.is_none_or(|first| first.codec() == open.codec())
            };
            let last = stretch.chunks.last_mut().filter(same);
            let taken = Taken { batch, at: record.at, offset, want: want.map(Box::new) };
            match last.filter(|chunk| chunk.bytes + bytes <= CHUNK_BYTES) {
                Some(chunk) => {
                    chunk.records.push(taken);
                    chunk.bytes += bytes;
                    chunk.unsigned += unsigned;
                }
                None => stretch.chunks.push(Chunk { records: vec![taken], bytes, unsigned }),
            }
        }
        stretch.opened_bytes += open.body().len();
        stretch.opened.push(open);
        Ok(())
    }

    /// The value that a record's reference stands for, if it is one that the proxy follows.
    /// `None` if it does not look like one.
    fn want(
        &self,
        at: &Partition,
        record: &RecordView<'_>,
    ) -> Option<Result<Want, ReferenceError>> {
        let value = record.value.filter(|value| Reference::looks_like(value))?;
        let opened = opened(self.config, self.keys, &at.topic, value);
        Some(opened.map(|reference| {
            let Reference { pack_id, topic_id, partition, .. } = &reference;
            let object = object_key(&self.config.cluster.name, pack_id, topic_id, *partition);
            Want { object: object.into(), reference }
        }))
    }

    /// The values of some batches.
    async fn values(&self, chunks: &[Chunk]) -> Result<HashMap<PartKey, Bytes>, UpkeepError> {
        let wants: Vec<Want> = chunks.iter().flat_map(Chunk::wants).cloned().collect();
        let mut values = HashMap::with_capacity(wants.len());
        let mut read = self.parts.read_within(&wants, READ_TIME).await;
        let mut looked = HashSet::new();
        for want in &wants {
            let value = match read.remove(&want.key()) {
                Some(Err(error)) if error.is_damage() => self.losses.look(&self.parts, want).await,
                Some(value) => value,
                // Wanted before, and there or gone.
                None if looked.contains(&want.key()) => continue,
                None => Err(PartFailure::Late),
            };
            match value {
                Ok(value) if is_it(want, &value) => {
                    values.insert(want.key(), value);
                }
                // Told with its place where it is missed.
                Ok(_) => {}
                Err(error) if error.is_damage() => {}
                Err(PartFailure::Store(error)) => return Err(UpkeepError::Asked(error)),
                Err(PartFailure::Late) => return Err(io::Error::from(ErrorKind::TimedOut).into()),
                Err(error) => return Err(UpkeepError::Doubted(error)),
            }
            looked.insert(want.key());
        }
        Ok(values)
    }

    /// The batch that a chunk becomes.
    fn batch(
        &self,
        stretch: &Stretch,
        chunk: &Chunk,
        values: &HashMap<PartKey, Bytes>,
        place: &Place,
        source: &Partition,
    ) -> Result<Bytes, UpkeepError> {
        let mut records = Vec::with_capacity(chunk.records.len());
        for record in &chunk.records {
            let missing = || UpkeepError::Value {
                topic: source.topic.clone(),
                partition: source.partition,
                offset: record.offset,
                object: record.want.as_ref().map_or(String::new(), |w| w.object.to_string()),
            };
            let value = match &record.want {
                None => None,
                Some(_) if fault::on("copy-keeps-references") => None,
                Some(want) => Some(match values.get(&want.key()) {
                    Some(value) => Ok(value.clone()),
                    None if self.order.mark_missing => Err(want.reference.original_bytes),
                    None => return Err(missing()),
                }),
            };
            let opened = stretch.opened.get(record.batch);
            let opened = opened.ok_or_else(|| unreadable(source, "no batch".to_owned()))?;
            records.push(Resent { source: opened, at: record.at, value });
        }
        let batch = resend(&records, place.producer);
        batch.map_err(|error| unreadable(source, error.to_string()))
    }
}

/// Whether a value is the one that a reference was made for.
fn is_it(want: &Want, value: &Bytes) -> bool {
    hash(value) == want.reference.original_hash || fault::on("any-hash-fits")
}

/// Chunks whose values are read at once.
fn together(chunks: &[Chunk]) -> impl Iterator<Item = &[Chunk]> {
    let mut left = chunks;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |chunk: &&Chunk| {
            bytes += chunk.bytes;
            bytes <= READ_BYTES
        };
        let n = left.iter().take_while(fits).count().max(1).min(left.len());
        let (now, later) = left.split_at(n);
        left = later;
        (!now.is_empty()).then_some(now)
    })
}

fn unreadable(at: &Partition, why: String) -> UpkeepError {
    UpkeepError::Log { topic: at.topic.clone(), partition: at.partition, why }
}

fn meddled(target: &Partition, offset: i64, expected: i64) -> UpkeepError {
    let why = format!(
        "a batch was written at offset {offset} and not at {expected}: somebody else writes to it; \
         delete it and begin anew"
    );
    stopped(target, false, why)
}

fn stopped(target: &Partition, passes: bool, why: String) -> UpkeepError {
    let (topic, partition) = (target.topic.clone(), target.partition);
    UpkeepError::Copy { topic, partition, passes, code: 0, why }
}

/// Two runs for one copy.
const BESIDE: &str = "another run writes to it: let one of them end, and begin again if need be";
/// Looks at replicas that do not have all yet, and the time between two of them.
const REPLICAS_LOOKS: u32 = 20;
const REPLICAS_PAUSE: Duration = Duration::from_millis(100);
/// Time for values that are read at once: a slow store is waited for.
const READ_TIME: Duration = Duration::from_secs(600);

/// Records become batches of so many bytes, which brokers take that were not told otherwise.
const CHUNK_BYTES: usize = 960 * 1024;
/// Bytes of a record besides its key, value and headers, at most.
const RECORD_BYTES: usize = 32;
/// Values that are read at once.
const READ_BYTES: usize = 32 * 1024 * 1024;
/// Opened batches that are held at once, but for the last of them.
const OPENED_BYTES: usize = 64 * 1024 * 1024;
/// Records that are held at once; what follows of their batch is read anew.
const RECORDS_MAX: usize = 200_000;
/// Longest batch that is opened.
const BATCH_BYTES_MAX: usize = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use protocol_ext::batch::{BatchHeader, build};
    use protocol_ext::codec::{Codec, Framing};
    use protocol_ext::varint::write_varint;

    use super::*;
    use crate::config::raw::Flags;
    use crate::filters::offload::keys;
    use crate::store::Failures;

    fn batch(records: i32) -> Bytes {
        let mut body = Vec::new();
        for delta in 0..records {
            // No attributes, no time, no key, an empty value and no header.
            let mut record = vec![0, 0];
            write_varint(&mut record, delta);
            record.extend_from_slice(&[1, 0, 0]);
            write_varint(&mut body, i32::try_from(record.len()).expect("short"));
            body.extend_from_slice(&record);
        }
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: Codec::Zstd.bits(),
            last_offset_delta: records - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: records,
        };
        build(header, Framing::Plain, &body).expect("a batch")
    }

    #[test]
    fn a_batch_of_many_records_is_copied_in_stretches_without_gaps() {
        let folder = std::env::temp_dir().join(format!("stretch-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("objects")).expect("a folder");
        let text = format!(
            "[[cluster]]\nbootstrap = [\"127.0.0.1:1\"]\n[store]\nkind = \"local\"\npath = {:?}\n",
            folder.join("objects")
        );
        let config = Config::parse(&text, &Flags::default()).expect("valid");
        let settings = config.store.as_ref().expect("a store");
        let keys = keys::ring(settings).expect("keys");
        let store = Arc::new(ObjectStore::open(settings, Failures::default()).expect("a store"));
        let mut cluster = Cluster::connect(&config).expect("no connection yet");
        let (topic, to) = ("t".to_owned(), None);
        let order = Order { topic, to, mark_missing: false, keep_unsigned: false };
        let copy = Copy::new(&config, store, &keys, (&mut cluster, "c"), &order);
        let (topic, topic_id) = ("t".to_owned(), [1; 16]);
        let at = Partition { topic, topic_id, partition: 0, replicas: 1, leader: 0 };
        let most = i32::try_from(RECORDS_MAX).expect("small");
        let read = Committed { records: batch(most + 5), aborted: Vec::new() };
        let mut from = 0;
        for records in [RECORDS_MAX, 5] {
            let stretch = copy.stretch(&at, &read, from).expect("a stretch");
            let offsets = stretch.chunks.iter().flat_map(|chunk| &chunk.records);
            let offsets: Vec<i64> = offsets.map(|record| record.offset).collect();
            assert_eq!(offsets.len(), records);
            assert!((from..stretch.next).eq(offsets), "a gap behind {from}");
            from = stretch.next;
        }
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
