//! The one process that decides: it leads while its writer is not fenced.
//!
//! candidate (no sign of life of a leader for a while) -> take over -> the log read to the end ->
//! open intents finished -> leads: a sign of life every second, a roll at 00:00 UTC or on command,
//! old segments deleted. Order of every change: intent -> brokers -> facts. Invariant: a process
//! decides by what it has read of the log behind its own take-over, so nothing is decided twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::ask::Asker;
use super::day::{day_of, next_name};
use super::looks::{self, Look};
use super::plan::{Rolled, due, expired, intent_key, intent_of, is_taken, json, segment_key};
use super::record::{Intent, Key, Layout, Leader, SegmentFact};
use super::seal::{self, Made};
use super::table::Table;
use super::tail::Read;
use super::writer::{WriteError, Writer};
use crate::clock;
use crate::data_plane::DataPlane;
use crate::random;
use crate::route::virtual_topics::{PLACEMENT_TOPIC, Routed};

/// How often a leader gives a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// Without one for so long a candidate takes over.
const SILENCE: Duration = Duration::from_secs(3);
/// What was read longer ago says nothing about who is silent.
const FRESH: Duration = Duration::from_secs(2);
/// Time until what was written must have been read.
const READ_BACK: Duration = Duration::from_secs(15);
/// A candidate tries so long to take over while a broker that it needs is down.
const TAKE_OVER_MAX: Duration = Duration::from_secs(15);
/// A sealed segment must not have grown after this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Most replicas of the log.
const REPLICAS_MAX: usize = 3;

/// What somebody asks of the leader.
#[derive(Debug)]
pub enum Command {
    /// Ends the open segments of a topic; answers with the names of the new ones.
    Roll {
        /// The virtual topic.
        topic: String,
        /// The answer.
        done: oneshot::Sender<Result<Vec<String>, Refused>>,
    },
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// Somebody else leads: where its admin port is.
    Elsewhere(String),
    /// Nobody leads now.
    Nobody,
    /// There is no such topic with days.
    Unknown,
    /// It was begun, and somebody else will end it.
    Failed(String),
}

/// Who this process is to others.
#[derive(Debug, Clone)]
pub struct Who {
    /// Its id: a new one with every start.
    pub id: String,
    /// Its admin port.
    pub admin: String,
}

/// Leads whenever nobody does, for ever; dropped at shutdown.
pub async fn run(
    plane: Arc<DataPlane>,
    who: Who,
    read: watch::Receiver<Read>,
    commands: mpsc::Receiver<Command>,
) {
    if !plane.routed.iter().flat_map(|all| all.all()).any(|topic| topic.days) {
        return;
    }
    let mut seat = Seat { plane, who, read, commands, looks: Vec::new() };
    seat.make_log().await;
    let mut waits = true;
    loop {
        if waits {
            seat.wait_for_silence().await;
        }
        waits = match seat.lead().await {
            WriteError::Fenced => {
                tracing::info!("another process leads the placement");
                true
            }
            WriteError::Unknown(error) => {
                if let Some(left_out) = seat.plane.lines.allows("leads") {
                    tracing::warn!(%error, left_out, "leads the placement no more");
                }
                seat.read_anew().await;
                // Who lost a broker, and its seat to nobody, waits for nobody's silence.
                seat.last_leader().as_ref() != Some(&seat.who.id)
            }
        };
        seat.looks.clear();
    }
}

/// How the log is kept. A sign of life a second is some 25 MB a day, of which the last one counts:
/// files are short, so that they are closed and compacted soon, and what a start reads stays small.
/// What is in the log must not be lost with one broker. Its times are the brokers': who writes with
/// a clock of its own that is ahead would be refused.
fn log_configs(replicas: i16) -> Vec<(&'static str, &'static str)> {
    let in_sync = if replicas >= 3 { "2" } else { "1" };
    vec![
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "3600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("max.compaction.lag.ms", "7200000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", in_sync),
        ("unclean.leader.election.enable", "false"),
    ]
}

struct Seat {
    plane: Arc<DataPlane>,
    who: Who,
    read: watch::Receiver<Read>,
    commands: mpsc::Receiver<Command>,
    looks: Vec<Look>,
}

impl Seat {
    /// Makes the log, if it is not there.
    async fn make_log(&self) {
        loop {
            let mut asker = Asker::new(&self.plane);
            let brokers = self.plane.directory.brokers().len();
            let replicas = i16::try_from(brokers.clamp(1, REPLICAS_MAX)).unwrap_or(1);
            let log = (PLACEMENT_TOPIC, 1, replicas);
            let made = match asker.shape(PLACEMENT_TOPIC).await {
                Ok(Some(_)) => return,
                Ok(None) if brokers == 0 => Ok(()),
                Ok(None) => seal::create(&mut asker, log, &log_configs(replicas)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = made
                && let Some(left_out) = self.plane.lines.allows("placement_topic")
            {
                tracing::warn!(%error, left_out, "the placement log cannot be made yet");
            }
            tokio::time::sleep(random::jittered(BEAT / 2)).await;
        }
    }

    /// Waits until no leader gave a sign of life for a while; meanwhile commands go elsewhere.
    async fn wait_for_silence(&mut self) {
        let mut last = self.read.borrow_and_update().table.leader.clone();
        let mut since = clock::now();
        let silence = SILENCE + random::jittered(BEAT / 2);
        loop {
            let slept = clock::now();
            tokio::select! {
                biased;
                () = tokio::time::sleep(BEAT / 4) => {}
                Some(command) = self.commands.recv() => {
                    let elsewhere = last.as_ref().filter(|_| clock::now() - since < silence);
                    let admin = elsewhere.map(|leader| leader.admin.clone());
                    command.refuse(admin.map_or(Refused::Nobody, Refused::Elsewhere));
                }
            }
            let read = self.read.borrow_and_update().clone();
            let fresh = read.whole && read.at.is_some_and(|at| clock::now() - at < FRESH);
            // Who did not run has heard nobody: what was read last may be an answer from before.
            let stopped = clock::now() - slept > FRESH;
            if !fresh || stopped || read.table.leader != last {
                (last, since) = (read.table.leader.clone(), clock::now());
            } else if clock::now() - since >= silence {
                return;
            }
        }
    }

    /// Waits until brokers answered twice what is new in the log: the first answer may be one from
    /// before.
    async fn read_anew(&mut self) {
        for _ in 0..2 {
            let seen = self.read.borrow().at;
            while self.read.borrow().at == seen {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(BEAT / 20) => {}
                    Some(command) = self.commands.recv() => command.refuse(Refused::Nobody),
                }
            }
        }
    }

    /// Who led last, as far as was read.
    fn last_leader(&self) -> Option<String> {
        self.read.borrow().table.leader.as_ref().map(|leader| leader.id.clone())
    }

    /// Leads until that ends; why it did.
    async fn lead(&mut self) -> WriteError {
        let before = self.last_leader();
        let until = clock::now() + TAKE_OVER_MAX;
        let mut writer = loop {
            match Writer::take_over(&self.plane).await {
                Ok(writer) => break writer,
                // A broker that was needed is down: soon the cluster has another one for it.
                Err(WriteError::Unknown(_)) if clock::now() < until => {}
                Err(error) => return error,
            }
            tokio::time::sleep(random::jittered(BEAT / 4)).await;
            if self.last_leader() != before {
                return WriteError::Fenced;
            }
        };
        match self.reign(&mut writer).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn reign(&mut self, writer: &mut Writer) -> Result<std::convert::Infallible, WriteError> {
        let beat = self.beat(writer).await?;
        // Everything before it in the log is read once this is.
        self.until_read(|table| table.leader.as_ref() == Some(&beat)).await?;
        self.looks = looks::sealed_lately(&self.read.borrow().table);
        tracing::info!(id = %self.who.id, "leads the placement");
        let plane = self.plane.clone();
        let _leads = plane.metrics.placed.leads();
        let days = plane.routed.iter().flat_map(|all| all.all()).filter(|topic| topic.days);
        let topics: Vec<&Routed> = days.collect();
        loop {
            for topic in &topics {
                self.roll(writer, topic, false).await?;
                self.delete_expired(writer, topic).await?;
            }
            self.look_again(writer).await?;
            tokio::select! {
                biased;
                () = tokio::time::sleep(BEAT) => {}
                Some(command) = self.commands.recv() => {
                    let Command::Roll { topic, done } = command;
                    let found = topics.iter().find(|known| *known.name == *topic);
                    let rolled = match found {
                        Some(topic) => match self.roll(writer, topic, true).await {
                            Ok(names) => Ok(names),
                            Err(error) => {
                                // Who asked may be gone.
                                let _ = done.send(Err(Refused::Failed(error.to_string())));
                                return Err(error);
                            }
                        },
                        None => Err(Refused::Unknown),
                    };
                    let _ = done.send(rolled);
                }
            }
            self.beat(writer).await?;
        }
    }

    /// A sign of life.
    async fn beat(&self, writer: &mut Writer) -> Result<Leader, WriteError> {
        let Who { id, admin } = self.who.clone();
        let leader = Leader { id, admin, at_ms: clock::unix_ms() };
        writer.write(&self.plane, &[(Key::Leader, json(&leader))]).await?;
        Ok(leader)
    }

    /// Does something at brokers, with signs of life meanwhile.
    async fn beating<T>(
        &self,
        writer: &mut Writer,
        work: impl Future<Output = T>,
    ) -> Result<T, WriteError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(BEAT) => drop(self.beat(writer).await?),
            }
        }
    }

    /// Waits until the log says so.
    async fn until_read(&mut self, says: impl Fn(&Table) -> bool) -> Result<(), WriteError> {
        let read = self.read.wait_for(|read| says(&read.table));
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(READ_BACK, read)
            .await
            .map_err(late)?
            .map_err(std::io::Error::other)?;
        Ok(())
    }

    /// Gives every slot a new segment that needs one, or all if `forced`: what was begun is ended
    /// first. Gives the names of the new ones.
    async fn roll(
        &mut self,
        writer: &mut Writer,
        topic: &Routed,
        forced: bool,
    ) -> Result<Vec<String>, WriteError> {
        if !self.has_layout(writer, topic).await? {
            return Ok(Vec::new());
        }
        let table = self.read.borrow().table.clone();
        let due = due(&table, topic, clock::unix_ms(), forced);
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let new = due.iter().filter(|rolled| intent_of(&table, topic, &rolled.slot).is_none());
        let intents = new.map(|Rolled { slot, next, .. }| {
            (intent_key(topic, slot), json(&Intent::Roll { next: next.clone() }))
        });
        let intents: Vec<_> = intents.collect();
        if !intents.is_empty() {
            writer.write(&self.plane, &intents).await?;
        }
        let plane = self.plane.clone();
        // A slot that takes its time keeps no other one waiting.
        let works = due.into_iter().map(|rolled| ends_of(&plane, topic, rolled));
        let mut works: FuturesUnordered<_> = works.collect();
        let mut names = Vec::new();
        while let Some((rolled, ends)) = self.beating(writer, works.next()).await? {
            let slot = rolled.slot.clone();
            match ends {
                Some(ends) => names.push(self.place(writer, topic, rolled, ends).await?),
                None => {
                    // Another name, with the next look.
                    tracing::error!(topic = %rolled.next, "is there and is no empty segment");
                    let taken = rolled.next;
                    let begins = topic.physical_of(&slot);
                    let day = day_of(begins, &taken).unwrap_or_default();
                    let next = next_name(begins, day, |name| {
                        name <= taken.as_str() || is_taken(&table, topic, &slot, name)
                    });
                    let intent = json(&Intent::Roll { next });
                    writer.write(&self.plane, &[(intent_key(topic, &slot), intent)]).await?;
                }
            }
        }
        Ok(names)
    }

    /// Writes the facts of a slot's new segment.
    async fn place(
        &mut self,
        writer: &mut Writer,
        topic: &Routed,
        rolled: Rolled,
        ends: Vec<i64>,
    ) -> Result<String, WriteError> {
        let Rolled { slot, next, old } = rolled;
        let number = old.as_ref().map_or(0, |(number, _)| number + 1);
        let mut records = Vec::new();
        if let Some((old, fact)) = old {
            let physical = fact.bases.iter().zip(&ends).map(|(base, end)| end - base).collect();
            self.looks.push(Look { topic: fact.topic.clone(), ends: physical, at: clock::now() });
            let sealed_at_ms = Some(clock::unix_ms());
            let fact = SegmentFact { ends: Some(ends.clone()), sealed_at_ms, ..fact };
            records.push((segment_key(topic, &slot, old), json(&fact)));
        }
        let fact = SegmentFact { topic: next.clone(), bases: ends, ends: None, sealed_at_ms: None };
        records.push((segment_key(topic, &slot, number), json(&fact)));
        records.push((intent_key(topic, &slot), None));
        writer.write(&self.plane, &records).await?;
        tracing::info!(topic = %topic.name, %slot, number, segment = %next, "a segment is open");
        self.until_read(|table| {
            let segments = table.segments_of(topic, &slot);
            let there = segments.is_some_and(|segments| segments.contains_key(&number));
            there && intent_of(table, topic, &slot).is_none()
        })
        .await?;
        Ok(next)
    }

    /// Whether the log has the layout of the configuration; it is written if there is none.
    async fn has_layout(
        &mut self,
        writer: &mut Writer,
        topic: &Routed,
    ) -> Result<bool, WriteError> {
        let slots = topic.slots().to_vec();
        let own = Layout { partitions: topic.partitions, slots };
        let known = self.read.borrow().table.layouts.get(&*topic.name).cloned();
        match known {
            Some(known) => Ok(known == own),
            None => {
                let key = Key::Topic(topic.name.to_string());
                writer.write(&self.plane, &[(key, json(&own))]).await?;
                self.until_read(|table| table.layouts.get(&*topic.name) == Some(&own)).await?;
                Ok(true)
            }
        }
    }

    /// Deletes segments that were sealed before the days that are kept, oldest first.
    async fn delete_expired(
        &mut self,
        writer: &mut Writer,
        topic: &Routed,
    ) -> Result<(), WriteError> {
        for slot in topic.slots() {
            let table = self.read.borrow().table.clone();
            let (key, now) = (intent_key(topic, slot), clock::unix_ms());
            let expired = match intent_of(&table, topic, slot) {
                Some(Intent::Delete { topic }) => Some(topic.clone()),
                Some(Intent::Roll { .. }) => None,
                None => match expired(&table, topic, slot, now) {
                    Some((number, fact)) => {
                        let deleted = fact.topic.clone();
                        let intent = Intent::Delete { topic: deleted.clone() };
                        // Readers are told first, then it goes.
                        let gone = (segment_key(topic, slot, number), None);
                        writer.write(&self.plane, &[gone, (key.clone(), json(&intent))]).await?;
                        Some(deleted)
                    }
                    None => None,
                },
            };
            if let Some(segment) = expired {
                let plane = self.plane.clone();
                self.beating(writer, seal::delete(&plane, &segment)).await?;
                writer.write(&self.plane, &[(key, None)]).await?;
                self.until_read(|table| intent_of(table, topic, slot).is_none()).await?;
                tracing::info!(topic = %topic.name, slot, %segment, "an old segment is deleted");
            }
        }
        Ok(())
    }

    /// Whether sealed segments stayed as they were.
    async fn look_again(&mut self, writer: &mut Writer) -> Result<(), WriteError> {
        let now = clock::now();
        let looks = std::mem::take(&mut self.looks);
        let (due, later): (Vec<_>, Vec<_>) =
            looks.into_iter().partition(|look| now - look.at >= LOOK_AGAIN);
        self.looks = later;
        if !due.is_empty() {
            let plane = self.plane.clone();
            let unanswered = self.beating(writer, looks::look_at(&plane, due)).await?;
            self.looks.extend(unanswered);
        }
        Ok(())
    }
}

impl Command {
    fn refuse(self, why: Refused) {
        let Self::Roll { done, .. } = self;
        // Who asked may be gone.
        let _ = done.send(Err(why));
    }
}

/// Makes the next segment's topic and seals the open one; gives the logical ends, which are the
/// next one's bases. `None`: that topic cannot be a segment.
async fn ends_of(plane: &DataPlane, topic: &Routed, rolled: Rolled) -> (Rolled, Option<Vec<i64>>) {
    let partitions = topic.partitions;
    if seal::make(plane, &rolled.next, partitions).await == Made::Unusable {
        return (rolled, None);
    }
    let ends = match &rolled.old {
        None => vec![0; usize::try_from(partitions).unwrap_or(0)],
        Some((_, old)) => {
            let ends = seal::seal(plane, &old.topic, partitions).await;
            old.bases.iter().zip(ends).map(|(base, end)| base + end).collect()
        }
    };
    (rolled, Some(ends))
}
