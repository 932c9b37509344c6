//! The way out: copies a topic to another one in which values stand where references stood, so
//! that it can be read without the proxy.
//!
//! Flow, partition by partition: where the last run ended (`journal`) -> committed records of the
//! log -> batches, noted in the store -> values -> Produce with acks=all. Invariant: however often
//! it ends and begins again, every record is in the copy once and in order.

mod aborted;
mod copy;
mod journal;
mod target;
mod unsigned;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::reference::KeyRing;
use protocol_ext::split::ProducerFields;
use serde::Serialize;

use self::copy::Copy;
use super::log::{Cluster, Partition};
use super::scope::{SUFFIX, parents, sources};
use super::{Progress, UpkeepError, sweep};
use crate::config::Config;
use crate::fault;
use crate::route::virtual_topics::PLACEMENT_TOPIC;
use crate::store::ObjectStore;

/// How far a copy is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Offset in the log to go on at.
    source: i64,
    /// Offset in the copy that the next record gets.
    target: i64,
    /// Who writes it, with the next sequence.
    producer: ProducerFields,
}

impl Place {
    /// Goes on behind a batch of so many records.
    fn pass(&mut self, records: i32, source: i64) {
        self.source = source;
        self.target += i64::from(records);
        let sequence = i64::from(self.producer.base_sequence) + i64::from(records);
        // Sequences go on at 0 behind the greatest.
        let sequence = sequence % (i64::from(i32::MAX) + 1);
        self.producer.base_sequence = i32::try_from(sequence).unwrap_or(0);
    }
}

/// What a run did for a partition.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Copied {
    topic: String,
    target: String,
    partition: i32,
    /// Offset in the log behind the last record that is in the copy.
    up_to: i64,
    /// Records in the copy, those of earlier runs among them.
    in_copy: i64,
    /// Records that this run wrote.
    records: u64,
    /// Values among them that came from the store.
    values: u64,
    /// Bytes of these.
    value_bytes: u64,
    /// Records among them whose values are gone, and that were copied without.
    lost: u64,
    /// Values that look like references and that nobody follows: copied as they are.
    unsigned: u64,
    /// Offsets whose records the log lost before they were copied.
    lost_before: i64,
    /// Offset behind the last of these.
    #[serde(skip)]
    lost_up_to: i64,
    /// Offsets behind the start of a transaction that is open: not copied yet.
    held_back: i64,
    /// Offsets that the leader has and some of its replicas have not: not copied yet.
    unreplicated: i64,
    /// Records that the copy had and has no more, since its retention deleted them again.
    trimmed: i64,
}

impl Copied {
    /// Counts a batch that is in the copy, by its records and by the values that were wanted.
    fn count<'a>(&mut self, records: usize, values: impl Iterator<Item = Option<&'a Bytes>>) {
        self.records += records as u64;
        for value in values {
            match value {
                Some(value) => {
                    self.values += 1;
                    self.value_bytes += value.len() as u64;
                }
                None => self.lost += 1,
            }
        }
    }

    /// Counts offsets that the log lost, each once.
    fn lose(&mut self, offsets: Range<i64>) {
        self.lost_before += (offsets.end - offsets.start.max(self.lost_up_to)).max(0);
        self.lost_up_to = self.lost_up_to.max(offsets.end);
    }
}

/// What a run did.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    partitions: Vec<Copied>,
}

impl Report {
    /// Whether each log was copied to its end.
    pub fn is_whole(&self) -> bool {
        let is_whole = |one: &Copied| {
            (one.held_back == 0 || fault::on("held-back-untold"))
                && (one.unreplicated == 0 || fault::on("unreplicated-untold"))
        };
        self.partitions.iter().all(is_whole)
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["records", "values", "bytes of values", "in the copy"];
        let [a, b, c, d] = titles;
        writeln!(out, "{a:>12} {b:>12} {c:>16} {d:>14}")?;
        for one in &self.partitions {
            let Copied { topic, target, partition, records, values, .. } = one;
            let (bytes, all) = (one.value_bytes, one.in_copy);
            write!(out, "{records:>12} {values:>12} {bytes:>16} {all:>14}  ")?;
            writeln!(out, "{topic}/{partition} to {target}")?;
            if one.unsigned > 0 {
                let what = "values look like references and are none: copied as they are";
                writeln!(out, "{:>12} {what}", one.unsigned)?;
            }
            if one.lost > 0 {
                let what = "values are gone: their records were copied without, and marked";
                writeln!(out, "{:>12} {what}", one.lost)?;
            }
            if one.lost_before > 0 {
                let what = "offsets were deleted from the log before they were copied";
                writeln!(out, "{:>12} {what}", one.lost_before)?;
            }
            if one.held_back > 0 {
                let what =
                    "offsets behind an open transaction are not copied: run it once it ended";
                writeln!(out, "{:>12} {what}", one.held_back)?;
            }
            if one.unreplicated > 0 {
                let what = "offsets that replicas do not have yet are not copied: run it once \
                            they have";
                writeln!(out, "{:>12} {what}", one.unreplicated)?;
            }
            if one.trimmed > 0 {
                let what = "records were deleted from the copy again by its retention";
                writeln!(out, "{:>12} {what}", one.trimmed)?;
            }
        }
        Ok(())
    }
}

/// What to copy.
#[derive(Debug, Clone)]
pub struct Order {
    /// The topic, virtual or not.
    pub topic: String,
    /// The copy's name; by default that of the topic and `-rehydrated`.
    pub to: Option<String>,
    /// Records whose values are gone are copied without; else it ends there.
    pub mark_missing: bool,
    /// Values that look like references to something, and that are not followed, are copied as
    /// they are; else it ends there.
    pub keep_unsigned: bool,
}

/// Copies a topic, or each part of a virtual one.
pub async fn rehydrate(
    config: &Config,
    store: Arc<ObjectStore>,
    keys: &KeyRing,
    cluster: &mut Cluster,
    order: &Order,
) -> Result<Report, UpkeepError> {
    let Order { topic, to, .. } = order;
    let shown = cluster.shown().await?;
    // What another cluster's store does not have is not lost.
    let own = sweep::owned(&config.cluster.name, &store, &shown, false).await?;
    let mut report = Report::default();
    for name in sources(config, &shown, topic)? {
        let target = match to {
            Some(to) => format!("{to}{}", name.strip_prefix(&**topic).unwrap_or_default()),
            None => format!("{name}{SUFFIX}"),
        };
        let source: Vec<&Partition> = shown.partitions.iter().filter(|p| p.topic == name).collect();
        check(config, &name, &target)?;
        let there = shown.partitions.iter().filter(|p| p.topic == target).count();
        match there {
            0 => target::make(cluster, &source, &target).await?,
            n if n == source.len() => target::check(cluster, &name, &target).await?,
            n => {
                let wanted = source.len();
                let why = format!("{target} has {n} partitions and {name} has {wanted}");
                return Err(UpkeepError::NoCopy(why));
            }
        }
        let mut copy = Copy::new(config, store.clone(), keys, (cluster, own), order);
        topic_to(&mut copy, &source, &target, &mut report).await?;
    }
    Ok(report)
}

/// Refuses names of topics that are no copies, or that virtual topics take for parts of theirs.
fn check(config: &Config, name: &str, target: &str) -> Result<(), UpkeepError> {
    let why = if target == name {
        "is no copy of itself"
    } else if target == PLACEMENT_TOPIC && !fault::on("any-copy-taken") {
        "says where segments are"
    } else if config.virtual_topics.iter().any(|routed| routed.name == target) {
        "is a virtual topic, which records are not written to directly"
    } else if parents(config, target).next().is_some()
        && !target.ends_with(SUFFIX)
        && !fault::on("any-copy-taken")
    {
        "has the name of a part of a virtual topic"
    } else {
        return Ok(());
    };
    Err(UpkeepError::NoCopy(format!("{target} {why}")))
}

async fn topic_to(
    copy: &mut Copy<'_>,
    source: &[&Partition],
    target: &str,
    report: &mut Report,
) -> Result<(), UpkeepError> {
    let progress = Progress::new();
    let mut all = 0;
    for at in source {
        let (first, end) = copy.cluster.bounds(at).await?;
        all += usize::try_from(end - first).unwrap_or(0);
    }
    let mut done = 0;
    for at in source {
        let before = done;
        let mut copied = Copied {
            topic: at.topic.clone(),
            target: target.to_owned(),
            partition: at.partition,
            ..Copied::default()
        };
        let mut show = |offsets: i64| {
            done = before + usize::try_from(offsets).unwrap_or(0);
            progress.show("copying", done.min(all), all);
        };
        partition_to(copy, at, &mut copied, &mut show).await?;
        report.partitions.push(copied);
    }
    Ok(())
}

/// Copies a partition to its end. What fails for a moment, such as a broker that restarts, begins
/// again where it ended.
async fn partition_to(
    copy: &mut Copy<'_>,
    at: &Partition,
    copied: &mut Copied,
    show: &mut impl FnMut(i64),
) -> Result<(), UpkeepError> {
    let (mut failures, mut as_another) = (0, false);
    loop {
        let before = copied.records;
        let error = match one_run(copy, at, as_another, copied, show).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        failures = if copied.records > before { 1 } else { failures + 1 };
        as_another = match &error {
            UpkeepError::Copy { code, .. } if target::OF_THE_PRODUCER.contains(code) => {
                failures >= NEW_PRODUCER
            }
            // What waits for replicas has written nothing, and waits as another one still.
            UpkeepError::Copy { code: 0, passes: true, .. } => as_another,
            // The batch may be on its way: only its own producer has it known again.
            _ => fault::on("always-another-producer") && failures >= NEW_PRODUCER,
        };
        if !error.may_pass() || failures > FAILURES_MAX {
            return Err(error);
        }
        let (topic, partition) = (&at.topic, at.partition);
        tracing::warn!(topic, partition, %error, "goes on where it ended in a moment");
        tokio::time::sleep(PAUSE * failures).await;
        copy.cluster.hang_up();
    }
}

async fn one_run(
    copy: &mut Copy<'_>,
    at: &Partition,
    as_another: bool,
    copied: &mut Copied,
    show: &mut impl FnMut(i64),
) -> Result<(), UpkeepError> {
    // Leaders move.
    let shown = copy.cluster.shown().await?;
    let find = |topic: &str| {
        let mut all = shown.partitions.iter();
        let found = all.find(|p| p.topic == topic && p.partition == at.partition);
        found.ok_or_else(|| UpkeepError::Unshown(format!("{topic}/{}", at.partition)))
    };
    let (source, target) = (find(&at.topic)?, find(&copied.target)?);
    copy.partition((source, target), as_another, copied, show).await
}

/// Failures in a row after which it is given up.
const FAILURES_MAX: u32 = 6;
/// Failures in a row after which the producer is given up that brokers do not like.
const NEW_PRODUCER: u32 = 3;
/// Pause after a failure; it grows.
const PAUSE: Duration = Duration::from_millis(500);
