//! Values of verified references: from memory, from whoever reads them already, or from the store.
//!
//! wanted -> cache -> reads under way (one per part) -> the cache that proxies share -> ranges of
//! one pack read together -> decoded, checked -> caches, waiters. Invariants: a value is given out
//! only if its length and checksum fit; bytes under way are bounded; whoever waits holds no room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{FutureExt, Shared, join, join_all};
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use protocol_ext::batch::crc32c;
use protocol_ext::part::{PartError, decode, hash};
use protocol_ext::reference::Reference;
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::limits::{FETCH_DEADLINE, GAP_BYTES_MAX, HOT, RANGE_BYTES_MAX, RANGES_AT_ONCE};
use crate::metrics::{CacheResult, Metrics, OffloadOp};
use crate::store::cache::{Cache, PartKey};
use crate::store::shared::{Asked, Shared as SharedCache};
use crate::store::{ObjectStore, Read, StoreError};
use crate::tasks::busy;
use crate::{clock, fault};

/// Why a value cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PartFailure {
    /// The object is not what was stored.
    #[error("object {0} does not fit its checksum")]
    Damaged(String),
    /// It cannot be decompressed.
    #[error("object {0}: {1}")]
    Undecodable(String, PartError),
    /// The store does not give it.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// It is not there, and what would say that it should be is not either.
    #[error("object {0} is missing, and so is what says that this is its store")]
    Elsewhere(String),
    /// It is one of too many that are missing.
    #[error("object {0} is missing, as many others are, and none is found")]
    Many(String),
    /// Not in the time that a client waits.
    #[error("value was not read in time")]
    Late,
}

impl PartFailure {
    /// Whether the object is not there or not what it was; else the store may give it later.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Undecodable(..) => true,
            Self::Store(error) => {
                matches!(**error, StoreError::Missing(_) | StoreError::Short { .. })
            }
            Self::Elsewhere(_) | Self::Many(_) | Self::Late => false,
        }
    }

    /// As what a value counts that is not given out for this; what is late is asked for again.
    pub fn op(&self) -> Option<OffloadOp> {
        match self {
            Self::Damaged(_) | Self::Undecodable(..) => Some(OffloadOp::Damaged),
            Self::Store(error) => Some(match **error {
                StoreError::Short { .. } => OffloadOp::Damaged,
                StoreError::Missing(_) => OffloadOp::Missing,
                _ => OffloadOp::Failed,
            }),
            Self::Elsewhere(_) | Self::Many(_) => Some(OffloadOp::Missing),
            Self::Late => None,
        }
    }
}

/// What became of a value.
pub type Value = Result<Bytes, PartFailure>;

/// What a read under way will end with; `None` until then.
type Landing = Shared<oneshot::Receiver<Value>>;

/// The reader of values.
#[derive(Debug)]
pub struct Parts {
    store: Arc<ObjectStore>,
    cache: Cache,
    shared: Option<Arc<SharedCache>>,
    under_way: Mutex<HashMap<PartKey, Landing>>,
    hot_room: Budget,
    cold_room: Budget,
    values_read: AtomicU64,
    metrics: Arc<Metrics>,
}

/// One value to read.
#[derive(Debug, Clone)]
pub struct Want {
    /// The object.
    pub object: Arc<str>,
    /// What was verified.
    pub reference: Reference,
}

impl Want {
    /// Which part it is.
    pub fn key(&self) -> PartKey {
        (self.reference.pack_id, self.reference.pack_offset)
    }

    fn end(&self) -> u64 {
        self.reference.pack_offset.saturating_add(u64::from(self.reference.stored_bytes))
    }
}

/// A value that this task reads for all who want it.
struct Lead<'a> {
    parts: &'a Parts,
    want: Want,
    land: Option<oneshot::Sender<Value>>,
}

impl Lead<'_> {
    /// Gives the value to all who want it.
    fn end(&mut self, value: Value, found: &Mutex<HashMap<PartKey, Value>>) {
        found.lock().insert(self.want.key(), value.clone());
        // Nobody may be waiting for it.
        let _ = self.land.take().map(|land| land.send(value));
    }
}

impl Drop for Lead<'_> {
    /// Whoever waits sees the sender go and reads the value itself.
    fn drop(&mut self) {
        self.parts.under_way.lock().remove(&self.want.key());
    }
}

/// Parts of one pack that are read together.
struct Range<'a> {
    leads: Vec<Lead<'a>>,
    from: u64,
    end: u64,
}

impl Range<'_> {
    fn bytes(&self) -> usize {
        usize::try_from(self.end - self.from).unwrap_or(usize::MAX)
    }
}

impl Parts {
    /// Reads from a store, with so much room for values that are kept and for those on their way,
    /// of which readers that lag have a half of their own.
    pub fn new(
        store: Arc<ObjectStore>,
        cache_bytes: usize,
        read_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            cache: Cache::new(cache_bytes),
            shared: None,
            under_way: Mutex::default(),
            hot_room: Budget::new(read_bytes / 2),
            cold_room: Budget::new(read_bytes / 2),
            values_read: AtomicU64::new(0),
            metrics,
        }
    }

    /// The same, with a cache that other proxies share.
    pub fn sharing(self, shared: Option<Arc<SharedCache>>) -> Self {
        Self { shared, ..self }
    }

    /// That cache.
    pub fn shared(&self) -> Option<Arc<SharedCache>> {
        self.shared.clone()
    }

    /// Keeps a value that was just stored, so that readers at the tail need no store. Its memory
    /// has `held` bytes.
    pub fn keep(&self, key: PartKey, value: &Bytes, held: usize) {
        if !fault::on("stored-not-kept") {
            self.cache.keep(key, value, held);
        }
        if let Some(shared) = self.shared.as_ref().filter(|_| !fault::on("stored-not-shared")) {
            shared.put(&key, value);
        }
    }

    /// Reads values, each once, whatever is wanted twice. After the deadline those that are there
    /// are given, and the others are late.
    pub async fn read(&self, wants: &[Want]) -> HashMap<PartKey, Value> {
        self.read_within(wants, FETCH_DEADLINE).await
    }

    /// The same with another deadline.
    pub async fn read_within(&self, wants: &[Want], limit: Duration) -> HashMap<PartKey, Value> {
        let found = Mutex::new(HashMap::with_capacity(wants.len()));
        let all = self.read_all(wants, &found);
        if tokio::time::timeout(limit, all).await.is_err() {
            self.metrics.offload_late.inc();
            if fault::on("late-loses-others") {
                found.lock().clear();
            }
        }
        found.into_inner()
    }

    /// Reads one value that was looked for before: by itself, from the store, and asked once.
    /// Whoever asks has room for it.
    pub async fn once(&self, want: &Want) -> Value {
        let Reference { pack_offset, stored_bytes, .. } = want.reference;
        let read = self.store.get_alone(&want.object, pack_offset, stored_bytes as usize).await;
        self.metrics.offload(OffloadOp::Get, read.as_ref().map_or(0, |read| read.bytes.len()));
        let value = match read {
            Ok(read) => value(want, &read, pack_offset, true),
            Err(error) => Err(PartFailure::Store(Arc::new(error))),
        };
        self.note(&value);
        value
    }

    /// Values that came from the store so far.
    pub fn values_read(&self) -> u64 {
        self.values_read.load(Ordering::Relaxed)
    }

    fn note(&self, value: &Value) {
        self.values_read.fetch_add(u64::from(value.is_ok()), Ordering::Relaxed);
    }

    async fn read_all(&self, wants: &[Want], found: &Mutex<HashMap<PartKey, Value>>) {
        loop {
            let mut leads = Vec::new();
            let mut follows = Vec::new();
            for want in wants {
                let key = want.key();
                if found.lock().contains_key(&key) {
                    continue;
                }
                if let Some(value) = self.cache.get(&key) {
                    self.metrics.cache(CacheResult::Hit);
                    found.lock().insert(key, Ok(value));
                    continue;
                }
                self.lead_or_follow(want, &mut leads, &mut follows);
            }
            if leads.is_empty() && follows.is_empty() {
                return;
            }
            let leads = self.read_shared(leads, found).await;
            leads.iter().for_each(|_| self.metrics.cache(CacheResult::Miss));
            let reads: Vec<_> =
                ranges(leads).into_iter().map(|r| self.read_range(r, found).boxed()).collect();
            let reading = stream::iter(reads).buffer_unordered(RANGES_AT_ONCE).count();
            let following: Vec<_> = follows.into_iter().map(|f| follow(f, found).boxed()).collect();
            join(reading, join_all(following)).await;
        }
    }

    fn lead_or_follow<'a>(
        &'a self,
        want: &Want,
        leads: &mut Vec<Lead<'a>>,
        follows: &mut Vec<(PartKey, Landing)>,
    ) {
        let key = want.key();
        let mut under_way = self.under_way.lock();
        if let Some(landing) = under_way.get(&key).filter(|_| !fault::on("every-reader-asks")) {
            let own = leads.iter().any(|lead| lead.want.key() == key);
            if !own {
                self.metrics.cache(CacheResult::Joined);
                follows.push((key, landing.clone()));
            }
            return;
        }
        let (land, landing) = oneshot::channel();
        let land = Some(land);
        under_way.insert(key, landing.shared());
        leads.push(Lead { parts: self, want: want.clone(), land });
    }

    /// Takes from the cache that proxies share what is there; the others are left.
    async fn read_shared<'a>(
        &self,
        leads: Vec<Lead<'a>>,
        found: &Mutex<HashMap<PartKey, Value>>,
    ) -> Vec<Lead<'a>> {
        let Some(shared) = &self.shared else { return leads };
        let may_be_there = |lead: &Lead<'_>| {
            let reference = &lead.want.reference;
            let hot = is_hot(reference) || fault::on("cold-values-shared");
            let takes = shared.takes(reference.original_bytes as usize);
            hot && takes && !fault::on("shared-unasked")
        };
        let (leads, mut left): (Vec<_>, Vec<_>) = leads.into_iter().partition(may_be_there);
        let asked = leads.iter().map(|lead| Asked {
            key: lead.want.key(),
            bytes: lead.want.reference.original_bytes as usize,
        });
        let asked: Vec<_> = asked.collect();
        let fits = |n: usize, value: &Bytes| is_genuine(&leads[n].want.reference, value);
        let values = shared.get(&asked, fits).await;
        for (mut lead, value) in leads.into_iter().zip(values) {
            match value {
                Some(value) => {
                    self.metrics.cache(CacheResult::Shared);
                    self.cache.keep(lead.want.key(), &value, value.len());
                    lead.end(Ok(value), found);
                }
                None if fault::on("shared-misses-final") => {
                    lead.end(Err(PartFailure::Late), found);
                }
                None => left.push(lead),
            }
        }
        left
    }

    async fn read_range(&self, range: Range<'_>, found: &Mutex<HashMap<PartKey, Value>>) {
        let Some(first) = range.leads.first() else { return };
        let hot = is_hot(&first.want.reference);
        let beside = hot || fault::on("laggards-beside-others");
        let room = if beside { &self.hot_room } else { &self.cold_room };
        let _room = room.take(range.bytes()).await;
        let object = first.want.object.clone();
        let read = self.store.get(&object, range.from, range.bytes()).await;
        self.metrics.offload(OffloadOp::Get, read.as_ref().map_or(0, |read| read.bytes.len()));
        self.metrics.offload_hedged.inc_by(self.store.take_hedged());
        let read = read.map_err(Arc::new);
        let alone = range.leads.len() == 1;
        for mut lead in range.leads {
            let key = lead.want.key();
            let value = match &read {
                Ok(read) => value(&lead.want, read, range.from, alone),
                Err(error) => Err(PartFailure::Store(error.clone())),
            };
            self.note(&value);
            if let Ok(value) = &value
                && (hot || fault::on("cold-values-kept"))
            {
                // It has its memory to itself.
                self.cache.keep(key, value, value.len());
                if let Some(shared) = self.shared.as_ref().filter(|_| !fault::on("read-not-shared"))
                {
                    shared.put(&key, value);
                }
            }
            lead.end(value, found);
        }
    }
}

/// Waits for a value that another task reads. A task that went away leaves it to the next round.
async fn follow((key, landing): (PartKey, Landing), found: &Mutex<HashMap<PartKey, Value>>) {
    if let Ok(value) = landing.await {
        found.lock().insert(key, value);
    }
}

/// The value in the bytes of a range, in memory of its own: what is one of several is copied, so
/// that nobody who keeps it keeps the others.
fn value(want: &Want, range: &Read, from: u64, alone: bool) -> Value {
    let Reference { pack_offset, stored_bytes, original_bytes, codec, filter, .. } = want.reference;
    let at = usize::try_from(pack_offset - from).unwrap_or(usize::MAX);
    let stored = range.bytes.slice(at..at + stored_bytes as usize);
    let original_bytes = original_bytes as usize;
    // Known where the range is the value.
    let known = range.crc.filter(|_| alone && codec == 0);
    busy(if known.is_some() { 0 } else { original_bytes }, || {
        let decoded = decode(codec, filter, &stored, original_bytes);
        let undecodable = |error| PartFailure::Undecodable(want.object.to_string(), error);
        let value = match decoded.map_err(undecodable)? {
            Some(value) => Bytes::from(value.into_boxed_slice()),
            None if alone => stored.clone(),
            None => Bytes::copy_from_slice(&stored),
        };
        let crc = known.unwrap_or_else(|| crc32c(&value));
        let sound = crc == want.reference.original_crc;
        if sound || fault::on("restore-unchecked") {
            return Ok(value);
        }
        Err(PartFailure::Damaged(want.object.to_string()))
    })
}

/// Whether a value is the one that was referred to, whoever gives it. Others may write to a shared
/// cache, and bytes of any CRC are easily made.
fn is_genuine(reference: &Reference, value: &Bytes) -> bool {
    let is_sound =
        value.len() == reference.original_bytes as usize && crc32c(value) == reference.original_crc;
    let is_same = || busy(value.len(), || hash(value)) == reference.original_hash;
    is_sound && (is_same() || fault::on("shared-hash-unchecked"))
}

/// Whether a value was written lately; readers of others lag and would push out what is new.
fn is_hot(reference: &Reference) -> bool {
    let age = clock::unix_ms().saturating_sub(reference.written_at_ms);
    u128::from(age) <= HOT.as_millis()
}

/// Sorts what is read by place and joins what lies close together in one pack.
fn ranges(mut leads: Vec<Lead<'_>>) -> Vec<Range<'_>> {
    leads.sort_unstable_by_key(|lead| lead.want.key());
    let mut ranges: Vec<Range<'_>> = Vec::new();
    for lead in leads {
        let (from, end) = (lead.want.reference.pack_offset, lead.want.end());
        if let Some(last) = ranges.last_mut()
            && let Some(before) = last.leads.last()
            && before.want.object == lead.want.object
            && (from.saturating_sub(last.end) <= GAP_BYTES_MAX as u64
                || fault::on("gaps-unbounded"))
            && (end - last.from <= RANGE_BYTES_MAX as u64 || fault::on("ranges-unbounded"))
            && !fault::on("ranges-apart")
        {
            last.end = last.end.max(end);
            last.leads.push(lead);
        } else {
            ranges.push(Range { leads: vec![lead], from, end });
        }
    }
    ranges
}
