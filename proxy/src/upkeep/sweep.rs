//! Store against logs: what is referred to and missing, what is there and not referred to.
//!
//! list -> read every log, or what its index does not know -> compare -> (gc) marks of earlier
//! passes -> new marks, deletions. Marks are objects of the store, so that they survive whoever
//! made them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use protocol_ext::reference::{KeyRing, Reference};

use super::index::{Indexes, Logs};
use super::log::{Cluster, Found, Partition, Shown};
use super::scope::{Scope, hex, opened, topic_of};
use super::uploads::{self, Uploads};
use super::{Progress, Task, UpkeepError, deep, deletions};
use crate::config::Config;
use crate::filters::offload::object_key;
use crate::store::owner::{self, Owner};
use crate::store::{Listed, ObjectStore, Piece, StoreError};
use crate::{clock, fault};

/// A reference, and the object that it names.
#[derive(Debug, Clone)]
pub struct Place {
    topic: String,
    partition: i32,
    offset: i64,
    object: String,
}

/// Objects, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    objects: usize,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, listed: &Listed) {
        self.objects += 1;
        self.bytes += listed.bytes;
    }
}

/// What came of a sweep.
#[derive(Debug, Default)]
pub struct Report {
    dry_run: bool,
    stored: Sum,
    referred: Sum,
    references: usize,
    /// Those to an object that is not there, or too short.
    dangling: Vec<Place>,
    /// Values that look like references and that nobody follows.
    unsigned: usize,
    /// The first of them.
    forged: Vec<Place>,
    /// Not referred to, and old enough to be so for good.
    orphans: Sum,
    /// Not referred to yet.
    young: Sum,
    /// Not referred to, of topics that the cluster does not show.
    hidden: Sum,
    damaged: Vec<String>,
    marked: Sum,
    deleted: Sum,
    uploads: Uploads,
    logs: Logs,
}

impl Report {
    /// Whether everything that is referred to is there. What only looks like a reference anybody
    /// can write who may write to a topic.
    pub fn is_sound(&self) -> bool {
        self.dangling.is_empty() && self.damaged.is_empty()
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let sum = |sum: Sum| serde_json::json!({ "objects": sum.objects, "bytes": sum.bytes });
        let place = |at: &Place| {
            serde_json::json!({
                "topic": at.topic, "partition": at.partition, "offset": at.offset,
                "object": at.object,
            })
        };
        let dangling: Vec<_> = self.dangling.iter().map(place).collect();
        let forged: Vec<_> = self.forged.iter().map(place).collect();
        serde_json::json!({
            "dry_run": self.dry_run, "stored": sum(self.stored), "referred": sum(self.referred),
            "references": self.references, "dangling": dangling, "orphans": sum(self.orphans),
            "unsigned": { "values": self.unsigned, "first": forged },
            "young": sum(self.young), "hidden": sum(self.hidden), "damaged": self.damaged,
            "marked": sum(self.marked), "deleted": sum(self.deleted),
            "uploads": self.uploads.json(), "logs": self.logs,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, sum: Sum, what: &str| {
            writeln!(out, "{name:<10} {:>9} objects {:>16} bytes  {what}", sum.objects, sum.bytes)
        };
        line("stored", self.stored, "in the store")?;
        line("referred", self.referred, "by a log")?;
        line("orphans", self.orphans, "no log refers to them")?;
        line("young", self.young, "not referred to, but new: they may be under way")?;
        line("hidden", self.hidden, "of topics that the cluster does not show")?;
        let would = if self.dry_run { "(dry run: nothing was changed)" } else { "" };
        line("marked", self.marked, would)?;
        line("deleted", self.deleted, would)?;
        write!(out, "{}", self.uploads)?;
        write!(out, "{}", self.logs)?;
        writeln!(out, "dangling   {:>9} of {} references", self.dangling.len(), self.references)?;
        list(out, &self.dangling)?;
        if self.unsigned > 0 {
            let what = "values look like references and are none";
            writeln!(out, "unsigned   {:>9} {what}", self.unsigned)?;
            list(out, &self.forged)?;
        }
        for object in &self.damaged {
            writeln!(out, "damaged    {object}")?;
        }
        Ok(())
    }
}

fn list(out: &mut fmt::Formatter<'_>, places: &[Place]) -> fmt::Result {
    places.iter().try_for_each(|Place { topic, partition, offset, object }| {
        writeln!(out, "  {topic}/{partition} offset {offset}: {object}")
    })
}

/// Compares, and for `gc` marks and deletes.
pub async fn sweep(
    config: &Config,
    (store, keys): (&ObjectStore, &KeyRing),
    cluster: &mut Cluster,
    task: &Task,
) -> Result<Report, UpkeepError> {
    let name = &config.cluster.name;
    let mut report = Report::default();
    let stored = stored(store, name, &mut report).await?;
    let shown = cluster.shown().await?;
    let claims = matches!(task, Task::Gc { dry_run: false, .. });
    let own = owned(name, store, &shown, claims).await?;
    let (grace_hours, deleted_topics) = match task {
        Task::Fsck { .. } | Task::Analyse { .. } | Task::Rehydrate(_) | Task::Lifecycle { .. } => {
            (GRACE_HOURS, false)
        }
        Task::Gc { grace_hours, deleted_topics, .. } => (*grace_hours, *deleted_topics),
    };
    let scope = Scope::new(config, stored.keys(), deleted_topics);
    scope.check(&shown)?;
    let read: Vec<&Partition> = shown.partitions.iter().filter(|at| scope.reads(at)).collect();
    let mut indexes = Indexes::open(store, (name, own), cluster, &read, task).await?;
    let sought = Sought { config, store, keys, stored: &stored };
    let needed = sought.needed(cluster, &read, &mut indexes, &mut report).await?;
    report.logs = indexes.close().await;
    let grace_ms = grace_hours.saturating_mul(MS_PER_HOUR);
    let now = clock::unix_ms();
    let topics: HashSet<String> = shown.partitions.iter().map(|p| hex(&p.topic_id)).collect();
    let mut orphans = BTreeMap::new();
    for (key, listed) in &stored {
        if needed.contains(key.as_str()) && !fault::on("gc-forgets-logs") {
            report.referred.add(listed);
        } else if now.saturating_sub(listed.written_at_ms) < grace_ms {
            report.young.add(listed);
        } else if topic_of(key).is_some_and(|topic| topics.contains(topic)) {
            report.orphans.add(listed);
            orphans.insert(key.clone(), listed.clone());
        } else {
            report.hidden.add(listed);
            if deleted_topics || fault::on("deleted-topics-unasked") {
                orphans.insert(key.clone(), listed.clone());
            }
        }
    }
    let order = match task {
        Task::Fsck { deep } => {
            if *deep {
                report.damaged = deep::damaged(store, &stored).await?;
            }
            uploads::Order::Tell
        }
        Task::Gc { dry_run, .. } => {
            report.dry_run = *dry_run;
            collect(store, name, &orphans, now.saturating_sub(grace_ms), &mut report).await?;
            if *dry_run { uploads::Order::Try } else { uploads::Order::Abort }
        }
        Task::Analyse { .. } | Task::Rehydrate(_) | Task::Lifecycle { .. } => return Ok(report),
    };
    report.uploads = uploads::tend(store, name, (now, grace_ms), order).await;
    Ok(report)
}

/// All packs of this cluster by key.
async fn stored(
    store: &ObjectStore,
    cluster: &str,
    report: &mut Report,
) -> Result<BTreeMap<String, Listed>, StoreError> {
    let progress = Progress::new();
    let mut found = BTreeMap::new();
    for shard in 0..=u8::MAX {
        let prefix = format!("v1/{shard:02x}/{cluster}/");
        for listed in all(store, &prefix).await? {
            report.stored.add(&listed);
            found.insert(listed.key.clone(), listed);
        }
        progress.show("listing", usize::from(shard) + 1, 256);
    }
    Ok(found)
}

/// All objects below a prefix, in the order of their keys.
pub async fn all(store: &ObjectStore, prefix: &str) -> Result<Vec<Listed>, StoreError> {
    let mut found: Vec<Listed> = Vec::new();
    loop {
        let after = found.last().map_or(String::new(), |last| last.key.clone());
        let page = store.list(prefix, &after).await?;
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page);
        if fault::on("one-page-listed") {
            return Ok(found);
        }
    }
}

/// The cluster's id. Fails if the objects are another one's; where they are nobody's, they are this
/// one's from now on if it `claims` them.
pub async fn owned<'a>(
    name: &str,
    store: &ObjectStore,
    shown: &'a Shown,
    claims: bool,
) -> Result<&'a str, UpkeepError> {
    let own = shown.cluster_id.as_deref().ok_or(UpkeepError::Nameless)?;
    let owner = match claims {
        true => owner::claim(store, name, own).await?,
        false => owner::of(store, name, own).await?,
    };
    match owner {
        Owner::Other(owner) if !fault::on("owner-unasked") => {
            let (name, own, object) = (name.to_owned(), own.to_owned(), owner::key(name));
            Err(UpkeepError::Foreign { name, owner, own, object })
        }
        Owner::Us | Owner::Nobody | Owner::Other(_) => Ok(own),
    }
}

/// What references are compared with.
struct Sought<'a> {
    config: &'a Config,
    store: &'a ObjectStore,
    keys: &'a KeyRing,
    stored: &'a BTreeMap<String, Listed>,
}

impl<'a> Sought<'a> {
    /// Keys of the stored packs that some log refers to; what is missing of what was read goes to
    /// the report.
    async fn needed(
        &self,
        cluster: &mut Cluster,
        partitions: &[&Partition],
        indexes: &mut Indexes<'_>,
        report: &mut Report,
    ) -> Result<HashSet<&'a str>, UpkeepError> {
        let progress = Progress::new();
        let mut needed: HashSet<&'a str> = HashSet::new();
        for (n, at) in partitions.iter().enumerate() {
            let signed = |value: &[u8]| self.is_signed(at, value);
            let mut log = indexes.begin(cluster, at, &signed).await?;
            needed.extend(log.known(&self.config.cluster.name).filter_map(|key| self.listed(&key)));
            while let Some(page) = log.more(cluster, at, &signed).await? {
                for found in page {
                    report.references += 1;
                    needed.extend(self.listed(&self.compare(at, &found, report).await?));
                }
            }
            indexes.finish(at, log).await;
            progress.show("reading logs", n + 1, partitions.len());
        }
        Ok(needed)
    }

    /// The key as it was listed; nothing is decided about what was not.
    fn listed(&self, object: &str) -> Option<&'a str> {
        self.stored.get_key_value(object).map(|(key, _)| key.as_str())
    }

    /// Whether clients of that topic would be given the value that a reference stands for.
    fn is_signed(&self, at: &Partition, value: &[u8]) -> bool {
        opened(self.config, self.keys, &at.topic, value).is_ok() || fault::on("look-alikes-trusted")
    }

    /// The object of a reference. That it is not there, or that nobody follows the reference,
    /// goes to the report.
    async fn compare(
        &self,
        at: &Partition,
        found: &Found,
        report: &mut Report,
    ) -> Result<String, UpkeepError> {
        let Reference { pack_id, topic_id, partition, .. } = &found.reference;
        let object = object_key(&self.config.cluster.name, pack_id, topic_id, *partition);
        let place = || Place {
            topic: at.topic.clone(),
            partition: at.partition,
            offset: found.offset,
            object: object.clone(),
        };
        let end = found.reference.pack_offset.saturating_add(found.reference.stored_bytes.into());
        if !found.signed {
            report.unsigned += 1;
            if report.forged.len() < FORGED_SHOWN {
                report.forged.push(place());
            }
        } else if self.stored.get(&object).is_none_or(|listed| listed.bytes < end)
            && self.is_lost(&object, end).await?
        {
            report.dangling.push(place());
        }
        Ok(object)
    }

    /// Whether an object that was not listed, or was too short, is so now: the log was read later
    /// and may refer to what was stored meanwhile.
    async fn is_lost(&self, object: &str, end: u64) -> Result<bool, StoreError> {
        if fault::on("listing-trusted") {
            return Ok(true);
        }
        match self.store.size(object).await {
            Ok(bytes) => Ok(bytes < end),
            Err(StoreError::Missing(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Deletes the orphans that an earlier pass marked long enough ago; marks the others.
async fn collect(
    store: &ObjectStore,
    cluster: &str,
    orphans: &BTreeMap<String, Listed>,
    marked_before: u64,
    report: &mut Report,
) -> Result<(), StoreError> {
    let folder = format!("{MARKS}{cluster}/");
    let old = all(store, &folder).await?;
    let mut marks: HashMap<String, u64> = HashMap::new();
    for listed in &old {
        let bytes = usize::try_from(listed.bytes).unwrap_or(usize::MAX);
        let text = store.get(&listed.key, 0, bytes).await?.bytes;
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some((at, key)) = line.split_once(' ')
                && let Ok(at) = at.parse::<u64>()
            {
                let since = marks.entry(key.to_owned()).or_insert(at);
                *since = (*since).min(at);
            }
        }
    }
    let now = clock::unix_ms();
    let mut kept = String::new();
    let mut deletable = Vec::new();
    for (key, listed) in orphans {
        let since = marks.get(key).copied().unwrap_or(now);
        if since <= marked_before || fault::on("gc-in-one-pass") {
            report.deleted.add(listed);
            deletable.push(key.as_str());
        } else {
            report.marked.add(listed);
            kept.push_str(&format!("{since} {key}\n"));
        }
    }
    if report.dry_run {
        return Ok(());
    }
    // Deletions come first: a crash between leaves marks of objects that are gone: no harm.
    deletions::delete(store, &deletable, "deleting").await?;
    if !kept.is_empty() {
        store.put(&format!("{folder}{now:020}"), &[Piece::of(kept)]).await?;
    }
    let old: Vec<&str> = old.iter().map(|listed| listed.key.as_str()).collect();
    deletions::delete(store, &old, "removing marks").await
}

/// Where marks are kept.
const MARKS: &str = "upkeep/v1/marks/";
/// Objects that are younger may belong to requests under way.
const GRACE_HOURS: u64 = 24;
const MS_PER_HOUR: u64 = 3_600_000;
/// Values that only look like references, and are shown.
const FORGED_SHOWN: usize = 20;
