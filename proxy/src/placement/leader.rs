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
use super::day::{day, day_of, next_name};
use super::record::{Intent, Key, Layout, Leader, SegmentFact};
use super::seal::{self, Made};
use super::table::Table;
use super::tail::Read;
use super::writer::{WriteError, Writer};
use crate::clock::{self, DAY_MS, Tick};
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
    loop {
        seat.wait_for_silence().await;
        match seat.lead().await {
            WriteError::Fenced => tracing::info!("another process leads the placement"),
            WriteError::Unknown(error) => tracing::warn!(%error, "leads the placement no more"),
        }
        seat.looks.clear();
    }
}

/// A sealed segment to look at again.
struct Look {
    topic: String,
    ends: Vec<i64>,
    at: Tick,
}

struct Seat {
    plane: Arc<DataPlane>,
    who: Who,
    read: watch::Receiver<Read>,
    commands: mpsc::Receiver<Command>,
    looks: Vec<Look>,
}

/// One slot that gets a new segment.
struct Rolled {
    slot: String,
    next: String,
    /// Number and physical topic of the open segment, and its bases.
    old: Option<(u32, SegmentFact)>,
}

impl Seat {
    /// Makes the log, if it is not there.
    async fn make_log(&self) {
        loop {
            let mut asker = Asker::new(&self.plane);
            let brokers = self.plane.directory.brokers().len();
            let replicas = i16::try_from(brokers.clamp(1, REPLICAS_MAX)).unwrap_or(1);
            let compacted = [("cleanup.policy", "compact")];
            let log = (PLACEMENT_TOPIC, 1, replicas);
            let made = match asker.shape(PLACEMENT_TOPIC).await {
                Ok(Some(_)) => return,
                Ok(None) if brokers == 0 => Ok(()),
                Ok(None) => seal::create(&mut asker, log, &compacted).await,
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
            if !fresh || read.table.leader != last {
                (last, since) = (read.table.leader.clone(), clock::now());
            } else if clock::now() - since >= silence {
                return;
            }
        }
    }

    /// Leads until that ends; why it did.
    async fn lead(&mut self) -> WriteError {
        let mut writer = match Writer::take_over(&self.plane).await {
            Ok(writer) => writer,
            Err(error) => return error,
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
        tracing::info!(id = %self.who.id, "leads the placement");
        let plane = self.plane.clone();
        let days = plane.routed.iter().flat_map(|all| all.all()).filter(|topic| topic.days);
        let topics: Vec<&Routed> = days.collect();
        loop {
            for topic in &topics {
                self.roll(writer, topic, false).await?;
                self.delete_expired(writer, topic).await?;
            }
            self.look_again().await;
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
    async fn look_again(&mut self) {
        let now = clock::now();
        let looks = std::mem::take(&mut self.looks);
        let (due, later): (Vec<_>, Vec<_>) =
            looks.into_iter().partition(|look| now - look.at >= LOOK_AGAIN);
        self.looks = later;
        for look in due {
            let Look { topic, ends, .. } = &look;
            match seal::ends_now(&mut Asker::new(&self.plane), topic).await {
                Ok(now) if now.len() == ends.len() => {
                    if now.values().zip(ends).any(|(now, sealed)| now > sealed) {
                        tracing::error!(topic, "a sealed segment has grown: what came is not read");
                    }
                }
                Ok(_) | Err(_) => self.looks.push(look),
            }
        }
    }
}

impl Command {
    fn refuse(self, why: Refused) {
        let Self::Roll { done, .. } = self;
        // Who asked may be gone.
        let _ = done.send(Err(why));
    }
}

/// Slots that get a new segment.
fn due(table: &Table, topic: &Routed, now_ms: u64, forced: bool) -> Vec<Rolled> {
    let slots = topic.slots().iter().enumerate().filter_map(|(number, slot)| {
        let name = topic.physical_of(slot);
        let today = &*day(topic.open_day(number, now_ms) * DAY_MS);
        let segments = table.segments_of(topic, slot);
        let old = segments.and_then(|segments| segments.last_key_value());
        let old = old.map(|(number, fact)| (*number, fact.clone()));
        let next = match intent_of(table, topic, slot) {
            Some(Intent::Roll { next }) => next.clone(),
            Some(Intent::Delete { .. }) => return None,
            None => {
                let begun = old.as_ref().and_then(|(_, fact)| day_of(name, &fact.topic));
                if begun.is_some_and(|begun| begun >= today) && !forced {
                    return None;
                }
                let day = begun.map_or(today, |begun| begun.max(today));
                next_name(name, day, |name| is_taken(table, topic, slot, name))
            }
        };
        Some(Rolled { slot: slot.clone(), next, old })
    });
    slots.collect()
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

/// The oldest segment of a slot, if its time is over.
fn expired<'t>(
    table: &'t Table,
    topic: &Routed,
    slot: &str,
    now_ms: u64,
) -> Option<(u32, &'t SegmentFact)> {
    let (number, oldest) = table.segments_of(topic, slot)?.first_key_value()?;
    let kept_ms = u64::from(topic.retention_days) * DAY_MS;
    let over = oldest.sealed_at_ms.is_some_and(|at| at.saturating_add(kept_ms) < now_ms);
    over.then_some((*number, oldest))
}

fn is_taken(table: &Table, topic: &Routed, slot: &str, name: &str) -> bool {
    let segments = table.segments_of(topic, slot);
    segments.is_some_and(|segments| segments.values().any(|fact| fact.topic == name))
}

fn intent_of<'t>(table: &'t Table, topic: &Routed, slot: &str) -> Option<&'t Intent> {
    table.intents.get(&(topic.name.to_string(), slot.to_owned()))
}

fn intent_key(topic: &Routed, slot: &str) -> Key {
    Key::Intent(topic.name.to_string(), slot.to_owned())
}

fn segment_key(topic: &Routed, slot: &str, number: u32) -> Key {
    Key::Segment(topic.name.to_string(), slot.to_owned(), number)
}

/// A value. These types can always be written; one that could not would be unreadable, and not a
/// record that takes back what its key said.
fn json(value: &impl Serialize) -> Option<String> {
    Some(serde_json::to_string(value).unwrap_or_default())
}
