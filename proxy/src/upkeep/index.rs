//! What earlier runs of `gc` read of a log, so that the next one reads only what came behind it.
//!
//! begin: index -> is it of this log? -> read from its last batch on -> more, page by page ->
//! finish: a new generation of the index is put, those before are removed.
//!
//! An index says of a log between two offsets which packs its batches refer to, and up to which
//! offset. It takes the place of reading, so it must never lack a pack that reading would find:
//!
//! * Made. It is written only from what was read, all of it, up to what every replica in sync had,
//!   and from an index that was gone on from. Whatever looks like a reference counts, signed or
//!   not, committed or aborted: also what the records of an aborted transaction refer to.
//! * Of one log. Pages that one leader took follow each other; where the leader changes between
//!   two, one answer must hold both sides (`Reading::read`). Else a leader that was elected while
//!   the log was read, and that lacks some of it, would go unseen.
//! * Whole. Length and CRC fit, and its writer knew the same references (`format`). Too many packs
//!   are no index (`packs`), never a part of one.
//! * Of this one. Cluster, topic id and partition are those of the log: a topic that was deleted
//!   and made anew has another id. The log begins no earlier than it did, for what was before is
//!   not in the index any more. And the batch that the index ends with is in the log, with its
//!   first offset, its leader epoch and its CRC. An epoch has one leader, and replicas that have
//!   the same batch of an epoch have the same log before it: so a log that was truncated below the
//!   end, by an unclean election or by a crash, and grew again has another batch there. Records
//!   that come later are behind the end, which is where reading begins.
//! * Forgotten is a pack only where the log begins behind the last *batch* that refers to it. A
//!   batch over the beginning is given out whole, with records before it.
//! * Compaction takes records out of the middle, so there an index would keep what could go. It
//!   adds none, so an index from before a change of the policy lacks nothing.
//! * In doubt a log is read whole, as if there were no index, and one line says why. Which of
//!   several generations is used, as after a run that was killed or beside another one, costs time
//!   only: each was true when it was written, and is checked when it is read.
//!
//! All else stays as without an index: the store is listed before logs are read, and nothing is
//! deleted that was not unreferenced in two runs, the grace apart. One log's packs are in memory at
//! a time.

mod format;
mod packs;
mod policy;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use protocol_ext::batch::BatchHeader;
use serde::Serialize;
use sha2::{Digest, Sha256};

use self::format::{Doubt, Head, Log, Mark};
use self::packs::Packs;
use self::policy::Policy;
use super::log::{Cluster, Found, Page, Partition, behind};
use super::scope::hex;
use super::sweep::all;
use super::{Task, UpkeepError};
use crate::store::{Listed, ObjectStore, StoreError};
use crate::{clock, fault, random};

/// What logs cost to read, and what indexes saved.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Logs {
    /// Partitions that were read.
    partitions: usize,
    /// Those of them that were read behind the end of an index only.
    indexed: usize,
    /// Indexes that were not used.
    doubted: usize,
    /// Offsets that were read, and bytes of their batches.
    offsets: u64,
    bytes: u64,
    /// Offsets that were not read, since an index knows them.
    skipped: u64,
}

impl fmt::Display for Logs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, indexed, offsets, bytes, skipped, .. } = self;
        writeln!(out, "logs       {offsets:>9} offsets {bytes:>16} bytes  were read")?;
        write!(out, "skipped    {skipped:>9} offsets, by indexes of ")?;
        writeln!(out, "{indexed} of {partitions} partitions")
    }
}

/// The log of a partition while it is read.
#[derive(Debug)]
pub struct Reading {
    log: Log,
    /// Offset to go on at.
    next: i64,
    /// The index that was gone on from.
    before: Option<Head>,
    /// What the log refers to, as far as it was read.
    packs: Packs,
    /// The last batch that was read.
    last: Option<BatchHeader>,
    /// What was read of it and not given out yet.
    page: Option<Vec<Found>>,
    offsets: i64,
    bytes: usize,
    /// Whether an index is to come of it.
    is_kept: bool,
}

impl Reading {
    /// Keys of the packs that an index says the log refers to, before any `more` is read.
    pub fn known(&self, cluster: &str) -> impl Iterator<Item = String> {
        self.packs.objects(cluster)
    }

    /// The next references; `None` at the end.
    pub async fn more(
        &mut self,
        cluster: &mut Cluster,
        at: &Partition,
        signed: &impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<Found>>, UpkeepError> {
        if self.page.is_none() && self.next < self.log.end {
            let (page, found) = self.read(cluster, at, signed).await?;
            self.turn(&page, found);
        }
        let found = self.page.take();
        if self.is_kept {
            for one in found.iter().flatten() {
                self.packs.add(&one.reference, one.last);
            }
        }
        Ok(found)
    }

    /// Reads a page. Where another leader took what it begins with, it is read again from the batch
    /// before on: in one answer both are of one log. What cannot be told to be of one log has no
    /// index.
    async fn read(
        &mut self,
        cluster: &mut Cluster,
        at: &Partition,
        signed: &impl Fn(&[u8]) -> bool,
    ) -> Result<(Page, Vec<Found>), UpkeepError> {
        let read = cluster.page(at, self.next, signed).await?;
        let epoch = |batch: BatchHeader| batch.partition_leader_epoch;
        let last = match self.last.filter(|_| self.is_kept && !fault::on("index-of-two-logs")) {
            Some(last) if read.0.first.map(epoch) != Some(epoch(last)) => Mark::of(&last),
            _ => return Ok(read),
        };
        let again = match cluster.page(at, self.next - 1, signed).await {
            // It is gone meanwhile, as where retention had the log begin later.
            Err(UpkeepError::Log { .. }) if !fault::on("gone-batch-ends-gc") => None,
            again => Some(again?),
        };
        if let Some((page, mut found)) = again
            && page.next > self.next
            && page.first.is_some_and(|first| last.is(&first))
        {
            found.retain(|one| one.offset >= self.next);
            return Ok((page, found));
        }
        self.is_kept = false;
        Ok(read)
    }

    fn turn(&mut self, page: &Page, found: Vec<Found>) {
        self.is_kept &= !page.old_format;
        self.offsets += page.next - self.next;
        self.bytes += page.bytes;
        self.next = page.next;
        self.last = page.last;
        self.page = Some(found);
    }

    /// What an index of it would be made of, if there can be one.
    fn head(&self) -> Option<Head> {
        let last = self.last.filter(|last| behind(last) == self.next)?;
        Some(Head::new(Log { end: self.next, ..self.log }, Mark::of(&last)))
    }
}

/// The indexes that a store has.
pub struct Indexes<'a> {
    store: &'a ObjectStore,
    /// Where they are.
    folder: String,
    /// SHA-256 of the cluster's id.
    cluster: [u8; 32],
    /// Whether they stand for what was read before.
    reads: bool,
    /// Whether new ones are written.
    writes: bool,
    /// Generations by topic id and partition, the newest last; taken out as they are dealt with.
    there: BTreeMap<(String, i32), Vec<Listed>>,
    policies: HashMap<String, Policy>,
    logs: Logs,
}

impl<'a> Indexes<'a> {
    /// Those of the cluster of this name and id, for what `task` does with them: only `gc` does
    /// anything.
    pub async fn open(
        store: &'a ObjectStore,
        (name, id): (&str, &str),
        cluster: &mut Cluster,
        partitions: &[&Partition],
        task: &Task,
    ) -> Result<Self, UpkeepError> {
        let (reads, writes) = match task {
            Task::Gc { dry_run, whole_logs, .. } => (!whole_logs, !dry_run),
            _ => (false, false),
        };
        let mut indexes = Self {
            store,
            folder: format!("{INDEXES}{name}/"),
            cluster: Sha256::digest(id.as_bytes()).into(),
            reads: reads && !fault::on("index-unread"),
            writes,
            there: BTreeMap::new(),
            policies: HashMap::new(),
            logs: Logs::default(),
        };
        if !reads && !writes {
            return Ok(indexes);
        }
        for listed in all(store, &indexes.folder).await? {
            if let Some(log) = log_of(&indexes.folder, &listed.key) {
                indexes.there.entry(log).or_default().push(listed);
            }
        }
        let topics: BTreeSet<&str> = partitions.iter().map(|at| at.topic.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        indexes.policies = policy::policies(cluster, &topics).await?;
        let untold = topics.iter().filter(|topic| !indexes.policies.contains_key(**topic)).count();
        if untold > 0 {
            tracing::warn!(
                topics = untold,
                "cleanup.policy is not told (that needs DescribeConfigs), so logs are read whole"
            );
        }
        Ok(indexes)
    }

    /// Begins to read a log: where an index of it ends, else at its first record.
    pub async fn begin(
        &mut self,
        cluster: &mut Cluster,
        at: &Partition,
        signed: &impl Fn(&[u8]) -> bool,
    ) -> Result<Reading, UpkeepError> {
        let start = cluster.log_start(at).await?;
        let end = cluster.high_watermark(at).await?;
        let (topic_id, partition) = (at.topic_id, at.partition);
        let log = Log { cluster: self.cluster, topic_id, partition, start, end };
        let is_indexed = self.policy(at) == Some(Policy::Deleted);
        let mut reading = Reading {
            log,
            next: start,
            before: None,
            packs: Packs::default(),
            last: None,
            page: None,
            offsets: 0,
            bytes: 0,
            is_kept: is_indexed && self.writes,
        };
        self.logs.partitions += 1;
        let index = if is_indexed && self.reads { self.load(at, &log).await } else { None };
        let Some((head, packs)) = index else { return Ok(reading) };
        let is_last = |batch: BatchHeader| {
            let same = head.last.is(&batch) && behind(&batch) == head.log.end;
            same || fault::on("index-trusted-after-truncation")
        };
        // The last batch is read again, since it tells whether the log is the one that was read.
        let page = match cluster.page(at, head.log.end - 1, signed).await {
            // Whatever is wrong with it shows when all is read.
            Err(UpkeepError::Log { .. }) => None,
            page => Some(page?),
        };
        let page = page.filter(|(page, _)| page.first.is_some_and(is_last));
        let Some((page, found)) = page else {
            self.doubt(at, &Doubt::Batch(head.log.end));
            return Ok(reading);
        };
        reading.next = head.last.first.max(start);
        self.logs.indexed += 1;
        self.logs.skipped += count(reading.next - start);
        reading.turn(&page, found);
        reading.before = Some(head);
        reading.packs = packs;
        Ok(reading)
    }

    /// Ends the reading of a log that was read to its end: keeps what is known of it for the next
    /// run. That this fails is no harm, and is told.
    pub async fn finish(&mut self, at: &Partition, mut reading: Reading) {
        self.logs.offsets += count(reading.offsets);
        self.logs.bytes += reading.bytes as u64;
        if !self.writes {
            return;
        }
        let own = (hex(&at.topic_id), at.partition);
        let mut old = self.there.remove(&own).unwrap_or_default();
        reading.packs.tidy();
        // Where nothing is known to be better, what is there may be of use yet.
        if self.policy(at).is_none() || reading.packs.is_full() {
            return;
        }
        let before = reading.before;
        let same = |head: &Head| {
            before.is_some_and(|before| (before.log, before.last) == (head.log, head.last))
        };
        let done = match reading.head().filter(|_| reading.is_kept) {
            Some(head) if same(&head) => {
                // Nothing came and nothing went: the newest says it already.
                old.pop();
                Ok(())
            }
            Some(head) => self.put(&own, head, reading).await,
            None => Ok(()),
        };
        if let Err(error) = self.removed(done, &old).await {
            tracing::warn!(%error, "indexes cannot be written: the next run reads more");
            // Each try would take its time.
            self.writes = false;
        }
    }

    async fn put(
        &self,
        (topic, partition): &(String, i32),
        head: Head,
        mut reading: Reading,
    ) -> Result<(), StoreError> {
        if fault::on("index-forgets-packs")
            && let Some(before) = reading.before
        {
            reading.packs.forget_before(before.last.first);
        }
        let Some(pieces) = format::pieces(head, reading.packs) else { return Ok(()) };
        let (ms, id) = (clock::unix_ms(), hex(&random::id()));
        let key = format!("{}{topic}/{partition}/{ms:020}-{id}", self.folder);
        self.store.put(&key, &pieces).await
    }

    /// Removes generations, once what takes their place is there.
    async fn removed(
        &self,
        done: Result<(), StoreError>,
        old: &[Listed],
    ) -> Result<(), StoreError> {
        done?;
        for listed in old {
            self.store.delete(&listed.key).await?;
        }
        Ok(())
    }

    /// Removes indexes of logs that were not read, for they are gone or hold no references. What
    /// logs cost to read.
    pub async fn close(mut self) -> Logs {
        let left: Vec<Listed> = std::mem::take(&mut self.there).into_values().flatten().collect();
        if self.writes
            && let Err(error) = self.removed(Ok(()), &left).await
        {
            tracing::warn!(%error, "old indexes cannot be removed");
        }
        self.logs
    }

    /// What a log loses, if that is told, and if its topic can be told from one made anew.
    fn policy(&self, at: &Partition) -> Option<Policy> {
        self.policies.get(&at.topic).copied().filter(|_| at.topic_id != [0; 16])
    }

    /// The newest index of a log, if there is one that holds.
    async fn load(&mut self, at: &Partition, log: &Log) -> Option<(Head, Packs)> {
        let newest = self.newest(at)?.clone();
        match format::load(self.store, &newest, log).await {
            Ok(index) => index,
            Err(doubt) => {
                self.doubt(at, &doubt);
                None
            }
        }
    }

    fn newest(&self, at: &Partition) -> Option<&Listed> {
        let own = self.there.get(&(hex(&at.topic_id), at.partition));
        let of_any = || self.there.iter().find(|((_, n), _)| *n == at.partition);
        let any = if fault::on("index-trusted-after-recreation") { of_any() } else { None };
        own.or(any.map(|(_, listed)| listed))?.last()
    }

    fn doubt(&mut self, at: &Partition, doubt: &Doubt) {
        self.logs.doubted += 1;
        if self.logs.doubted <= DOUBTS_TOLD {
            let (topic, partition) = (&at.topic, at.partition);
            tracing::warn!(topic, partition, %doubt, "an index is not used: the log is read whole");
        }
    }
}

/// The topic id and partition in the key of an index.
fn log_of(folder: &str, key: &str) -> Option<(String, i32)> {
    let mut parts = key.strip_prefix(folder)?.split('/');
    let (topic, partition, _) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    parts.next().is_none().then(|| (topic.to_owned(), partition))
}

/// Offsets, counted.
fn count(offsets: i64) -> u64 {
    u64::try_from(offsets).unwrap_or(0)
}

/// Where indexes are kept.
const INDEXES: &str = "upkeep/v1/index/";
/// Indexes that are not used, and have a line each.
const DOUBTS_TOLD: usize = 20;
