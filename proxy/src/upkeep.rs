//! Upkeep of stored values, from the command line: `fsck` says what fits, `gc` removes what
//! nothing refers to any more, `rehydrate` copies a topic with its values in it, `analyse` says
//! what offload would save.
//!
//! The first two list the store first and read the logs of the cluster afterwards, so whatever is
//! found unreferenced was so after it was listed. Invariant: nothing is deleted that any value in
//! any log that was read looks like referring to, and nothing at all unless every log that can
//! refer to an object was read, now or by an earlier `gc` that left an `index` of it, and the
//! objects are this cluster's. Uploads that were not completed go by their age, if no object of
//! their key is there.

mod analyse;
mod deep;
mod deletions;
mod index;
mod log;
mod prices;
mod rehydrate;
mod scope;
mod sweep;
mod uploads;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol_ext::reference::ReferenceError;

use crate::config::{Config, OffloadRule, StoreKind};
use crate::filters::offload::{PartFailure, glob, keys};
use crate::store::lifecycle::Lifecycle;
use crate::store::{Failures, ObjectStore, StoreError};
pub use rehydrate::Order;

/// What to do.
#[derive(Debug, Clone)]
pub enum Task {
    /// Compare store and logs.
    Fsck {
        /// Read every pack and check its sums.
        deep: bool,
    },
    /// Mark what nothing refers to; delete what was marked long enough ago.
    Gc {
        /// Change nothing.
        dry_run: bool,
        /// Also what belongs to topics that the cluster does not show.
        deleted_topics: bool,
        /// Hours between the two passes, and an object's least age.
        grace_hours: u64,
        /// Reads logs that an index of an earlier run knows, too.
        whole_logs: bool,
    },
    /// Copy a topic to another one, with the values in it.
    Rehydrate(Order),
    /// Rules that a bucket keeps by itself.
    Lifecycle {
        /// Set them; else they are only shown.
        apply: bool,
        /// The rules.
        rules: Lifecycle,
    },
    /// What offload would save for a topic.
    Analyse {
        /// The topic.
        topic: String,
        /// Longer values would be stored; by its rule, else 100,000.
        threshold_bytes: Option<usize>,
        /// A file of prices.
        prices: Option<PathBuf>,
    },
}

/// Why upkeep could not be done.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// There is no `[store]`.
    #[error("the configuration has no [store]")]
    NoStore,
    /// There is no such folder, and upkeep makes none.
    #[error("store.path {0}: there is no store")]
    Absent(PathBuf),
    /// The store cannot be opened or asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A broker cannot be asked.
    #[error("cluster: {0}")]
    Cluster(#[from] io::Error),
    /// There is no such topic.
    #[error("the cluster shows no topic {0}")]
    NoTopic(String),
    /// The prices cannot be read.
    #[error("{file}: {why}")]
    Prices {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The brokers do not say which cluster they are.
    #[error("the brokers tell no id of their cluster, so nobody knows whose objects these are")]
    Nameless,
    /// The objects are another cluster's.
    #[error(
        "the objects below the name \"{name}\" are those of the cluster {owner}, and this is \
         {own}: each needs a cluster.name of its own. If {owner} is gone for good, remove the \
         object {object}"
    )]
    Foreign {
        /// `cluster.name`.
        name: String,
        /// Kafka's id of the cluster that owns the objects.
        owner: String,
        /// That of the cluster that was asked.
        own: String,
        /// The object that says so.
        object: String,
    },
    /// A topic whose log may refer to stored objects is not shown.
    #[error(
        "{0} is not shown by the cluster and may refer to stored objects: its name is asked for \
         with credentials that may not Describe it, or it was not made yet"
    )]
    Unshown(String),
    /// A topic that cannot be told of now.
    #[error("{topic}: the cluster answers error {code}")]
    Topic {
        /// The topic.
        topic: String,
        /// The broker's error.
        code: i16,
    },
    /// A log was not read to its end, so nothing is known to be unreferenced.
    #[error("{topic}/{partition} cannot be read: {why}")]
    Log {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// What the broker says.
        why: String,
    },
    /// A topic cannot be a copy.
    #[error("{0}")]
    NoCopy(String),
    /// A copy cannot be gone on with.
    #[error("the copy {topic}/{partition} cannot be written: {why}")]
    Copy {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Whether the same may succeed a moment later.
        passes: bool,
        /// The broker's error; 0 if it is another one's.
        code: i16,
        /// What is wrong.
        why: String,
    },
    /// What may be a reference is not followed, and its value would be missing in the copy.
    #[error(
        "{topic}/{partition} offset {offset}: a value looks like a reference and is not followed: \
         {why}. Nobody could restore it from the copy: {advice}. If it is a client's own value, \
         --keep-unsigned copies all such values as they are. What was copied before stays"
    )]
    Unsigned {
        /// The topic of the value.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Why it is not followed.
        why: ReferenceError,
        /// What to do.
        advice: &'static str,
    },
    /// A value is gone, so nothing can be written in its place.
    #[error(
        "{topic}/{partition} offset {offset}: {object} is missing or not what was stored; what \
         was copied before stays, and the same command goes on there once it is back"
    )]
    Value {
        /// The topic of the reference.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// The object.
        object: String,
    },
    /// The store may be another one than values were written to.
    #[error("nothing is called lost: {0}")]
    Doubted(PartFailure),
    /// The store does not give a value.
    #[error(transparent)]
    Asked(Arc<StoreError>),
}

impl UpkeepError {
    /// Whether the command or the configuration asks for what there is not.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoStore | Self::Absent(_) | Self::NoTopic(_) | Self::Prices { .. })
    }

    /// Whether the same may succeed a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Cluster(_) | Self::Log { .. } | Self::Unshown(_) => true,
            Self::Copy { passes, .. } => *passes,
            Self::Store(error) => error.is_transient(),
            Self::Asked(error) => error.is_transient(),
            Self::NoStore
            | Self::Absent(_)
            | Self::NoTopic(_)
            | Self::NoCopy(_)
            | Self::Prices { .. }
            | Self::Nameless
            | Self::Foreign { .. }
            | Self::Topic { .. }
            | Self::Doubted(_)
            | Self::Unsigned { .. }
            | Self::Value { .. } => false,
        }
    }
}

/// Does it, prints what came of it, and tells whether all is well.
pub async fn run(config: &Config, task: &Task, json: bool) -> Result<bool, UpkeepError> {
    let mut cluster = log::Cluster::connect(config)?;
    if let Task::Analyse { topic, threshold_bytes, prices } = task {
        let prices = prices.as_deref().map(prices::Prices::load).transpose()?;
        let threshold = threshold_bytes.unwrap_or_else(|| threshold(config, topic));
        let found = analyse::analyse(config, &mut cluster, topic, threshold, prices).await?;
        let text = if json { serde_json::json!(found).to_string() } else { found.to_string() };
        println!("{}", text.trim_end());
        return Ok(true);
    }
    let settings = config.store.as_ref().ok_or(UpkeepError::NoStore)?;
    if let StoreKind::Local(folder) = &settings.kind
        && !folder.is_dir()
    {
        return Err(UpkeepError::Absent(folder.clone()));
    }
    let store = ObjectStore::open(settings, Failures::default()).map_err(StoreError::Io)?;
    let store = Arc::new(store.patient());
    if let Task::Lifecycle { apply, rules } = task {
        println!("{:#}", rules.json());
        if *apply {
            store.set_lifecycle(*rules).await?;
        }
        return Ok(true);
    }
    let keys = keys::ring(settings).map_err(StoreError::Io)?;
    if let Task::Rehydrate(order) = task {
        let done = rehydrate::rehydrate(config, store, &keys, &mut cluster, order);
        let done = Box::pin(done).await?;
        let text = if json { done.json().to_string() } else { done.to_string() };
        println!("{}", text.trim_end());
        return Ok(done.is_whole());
    }
    let report = Box::pin(sweep::sweep(config, (&store, &keys), &mut cluster, task)).await?;
    let text = if json { report.json().to_string() } else { report.to_string() };
    println!("{}", text.trim_end());
    Ok(report.is_sound())
}

/// Prints what a GB of values costs by a list of prices; no cluster is asked.
pub fn price(prices: &Path, json: bool) -> Result<(), UpkeepError> {
    let table = prices::Prices::load(prices)?.table(None);
    let text = if json { serde_json::json!(table).to_string() } else { table.to_string() };
    println!("{}", text.trim_end());
    Ok(())
}

fn threshold(config: &Config, topic: &str) -> usize {
    let fits = |rule: &&OffloadRule| rule.topics.iter().any(|pattern| glob(pattern, topic));
    config.offload.iter().find(fits).map_or(THRESHOLD_BYTES, |rule| rule.threshold_bytes)
}

/// A line of progress, where somebody looks.
struct Progress(bool);

impl Progress {
    fn new() -> Self {
        Self(io::IsTerminal::is_terminal(&io::stderr()))
    }

    fn show(&self, what: &str, done: usize, all: usize) {
        if self.0 {
            let width = (done * BAR).checked_div(all).unwrap_or(BAR).min(BAR);
            eprint!("\r{what} [{:<BAR$}] {done}/{all} ", "#".repeat(width));
            if done == all {
                eprintln!();
            }
        }
    }
}

const BAR: usize = 30;
/// Values longer than this would be stored by default.
const THRESHOLD_BYTES: usize = 100_000;
