//! The work of who leads: rolls and deletions, and looks at what was sealed.
//!
//! the day, a command -> intents -> works at brokers, side by side -> facts of all that is done. A
//! sign of life goes with whatever is written, and alone where nothing is. Invariants: a slot has
//! one work at a time; no work waits for another one's, and none for what is written or read here.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::asked::Asked;
use super::day::{day_of, next_name};
use super::leader::{BEAT, Command, Refused, Who};
use super::looks::{self, LOOK_AGAIN, Look};
use super::plan::{Rolled, due, expired, intent_key, intent_of, is_taken, json, segment_key, soon};
use super::record::{Intent, Key, Layout, Leader, SegmentFact};
use super::seal::{self, Made};
use super::table::{Slot, Table};
use super::tail::Read;
use super::writer::{WriteError, Writer};
use crate::data_plane::DataPlane;
use crate::route::virtual_topics::Routed;
use crate::{clock, fault};

/// Time until what was written must have been read.
const READ_BACK: Duration = Duration::from_secs(15);

/// Records of the log.
type Records = Vec<(Key, Option<String>)>;

/// What became of a work.
enum Done<'p> {
    /// A slot's next segment is made and its open one is sealed, with these ends; `None`: what was
    /// to be the next segment is there and cannot be one.
    Rolled(&'p Routed, Rolled, Option<Vec<i64>>),
    /// A segment is deleted.
    Deleted(&'p Routed, String, String),
    /// Segments were looked at; of these no broker told.
    Looked(Vec<Look>),
    /// A topic is made that will be a segment.
    Made,
}

/// One who leads.
pub struct Reign<'p> {
    plane: &'p DataPlane,
    who: Who,
    read: watch::Receiver<Read>,
    writer: Writer,
    topics: Vec<&'p Routed>,
    works: FuturesUnordered<BoxFuture<'p, Done<'p>>>,
    done: Vec<Done<'p>>,
    busy: BTreeSet<Slot>,
    /// Topics of segments whose day begins soon, made or being made.
    soon: BTreeSet<String>,
    rolls: Vec<Asked<'p>>,
    looks: Vec<Look>,
    looks_now: bool,
    beat_ms: u64,
}

impl<'p> Reign<'p> {
    /// Begins; the writer has just taken over.
    pub fn new(
        plane: &'p DataPlane,
        who: Who,
        read: watch::Receiver<Read>,
        writer: Writer,
    ) -> Self {
        let topics = plane.routed.iter().flat_map(|all| all.all()).filter(|topic| topic.days);
        Self {
            plane,
            who,
            read,
            writer,
            topics: topics.collect(),
            works: FuturesUnordered::new(),
            done: Vec::new(),
            busy: BTreeSet::new(),
            soon: BTreeSet::new(),
            rolls: Vec::new(),
            looks: Vec::new(),
            looks_now: false,
            beat_ms: 0,
        }
    }

    /// Leads until that ends; why it did.
    pub async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> WriteError {
        match self.lead(commands).await {
            Ok(never) => match never {},
            Err(error) => {
                for asked in self.rolls.drain(..) {
                    asked.refuse(Refused::Failed(error.to_string()));
                }
                error
            }
        }
    }

    async fn lead(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<Infallible, WriteError> {
        let first = self.append(Vec::new()).await?;
        // Everything before it in the log is read once this is.
        self.until_read(|table| table.leader.as_ref() == Some(&first)).await?;
        tracing::info!(id = %self.who.id, "leads the placement");
        let _leads = self.plane.metrics.placed.leads();
        self.write_layouts().await?;
        self.looks = looks::sealed_lately(&self.table());
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.reset();
        loop {
            self.end_works().await?;
            self.begin_works().await?;
            self.answer();
            if !self.done.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                _ = beats.tick() => drop(self.append(Vec::new()).await?),
                Some(done) = self.works.next() => self.done.push(done),
                Some(command) = commands.recv() => self.take(command),
            }
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
        }
    }

    fn table(&self) -> std::sync::Arc<Table> {
        self.read.borrow().table.clone()
    }

    /// Waits for something while works go on.
    async fn beside<T>(
        works: &mut FuturesUnordered<BoxFuture<'p, Done<'p>>>,
        done: &mut Vec<Done<'p>>,
        other: impl Future<Output = T>,
    ) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                given = &mut other => return given,
                Some(work) = works.next() => done.push(work),
            }
        }
    }

    /// Writes records, and with them a sign of life.
    async fn append(&mut self, mut records: Records) -> Result<Leader, WriteError> {
        self.beat_ms = clock::unix_ms().max(self.beat_ms + 1);
        let Who { id, admin } = self.who.clone();
        let leader = Leader { id, admin, at_ms: self.beat_ms };
        records.push((Key::Leader, json(&leader)));
        let write = self.writer.write(self.plane, &records);
        Self::beside(&mut self.works, &mut self.done, write).await?;
        Ok(leader)
    }

    /// Writes records and waits until they are read, or somebody else's sign of life behind them.
    async fn write(&mut self, records: Records) -> Result<(), WriteError> {
        let leader = self.append(records).await?;
        // One transaction takes force at once.
        let own = |last: &Leader| last.id == leader.id;
        let over = |last: &Leader| !own(last) || last.at_ms >= leader.at_ms;
        self.until_read(|table| table.leader.as_ref().is_some_and(over)).await?;
        if self.table().leader.as_ref().is_some_and(own) { Ok(()) } else { Err(WriteError::Fenced) }
    }

    /// Waits until the log says so.
    async fn until_read(&mut self, says: impl Fn(&Table) -> bool) -> Result<(), WriteError> {
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let read = self.read.wait_for(|read| says(&read.table));
        let read = tokio::time::timeout(READ_BACK, read);
        let read = Self::beside(&mut self.works, &mut self.done, read).await;
        drop(read.map_err(late)?.map_err(std::io::Error::other)?);
        Ok(())
    }

    /// Writes the layouts of topics that have none.
    async fn write_layouts(&mut self) -> Result<(), WriteError> {
        let table = self.table();
        let new = self.topics.iter().filter(|topic| !table.layouts.contains_key(&*topic.name));
        let new = new.map(|topic| (Key::Topic(topic.name.to_string()), json(&layout(topic))));
        let records: Records = new.collect();
        if records.is_empty() { Ok(()) } else { self.write(records).await }
    }

    /// Takes a command, unless whoever gave it is gone.
    fn take(&mut self, command: Command) {
        let Command::Roll { topic, done } = command;
        if done.is_closed() {
            return;
        }
        let why = match self.topics.iter().find(|known| *known.name == *topic) {
            None => Refused::Unknown,
            Some(topic) if self.table().layouts.get(&*topic.name) != Some(&layout(topic)) => {
                Refused::Layout
            }
            Some(topic) => {
                self.rolls.push(Asked::new(topic, done));
                return;
            }
        };
        // Who asked may be gone.
        let _ = done.send(Err(why));
    }

    /// Answers what is done, and what is not after a while.
    fn answer(&mut self) {
        let rolls = std::mem::take(&mut self.rolls);
        self.rolls = rolls.into_iter().filter_map(Asked::unanswered).collect();
    }

    /// Begins whatever is due with slots that have no work.
    async fn begin_works(&mut self) -> Result<(), WriteError> {
        self.begin_looks();
        let (table, now) = (self.table(), clock::unix_ms());
        let (mut records, mut begun) = (Records::new(), Vec::new());
        let mut next_ones = BTreeSet::new();
        for topic in self.topics.clone() {
            if table.layouts.get(&*topic.name) == Some(&layout(topic)) {
                self.roll(&table, (topic, now), (&mut records, &mut begun));
                self.delete(&table, (topic, now), (&mut records, &mut begun));
                for next in soon(&table, topic, now) {
                    if !self.soon.contains(&next) {
                        begun.push(made(self.plane, next.clone(), topic.partitions).boxed());
                    }
                    next_ones.insert(next);
                }
            }
        }
        self.soon = next_ones;
        if !records.is_empty() {
            self.write(records).await?;
        }
        self.works.extend(begun);
        Ok(())
    }

    /// Whether a slot has no work; from now on it has.
    fn occupy(&mut self, topic: &Routed, slot: &str) -> bool {
        if fault::on("one-work-at-a-time") && !self.busy.is_empty() {
            return false;
        }
        self.busy.insert((topic.name.to_string(), slot.to_owned()))
    }

    /// New segments for slots that need one.
    fn roll(
        &mut self,
        table: &Table,
        (topic, now): (&'p Routed, u64),
        (records, begun): (&mut Records, &mut Vec<BoxFuture<'p, Done<'p>>>),
    ) {
        let forced = |slot: &str| self.rolls.iter().any(|asked| asked.wants(topic, slot));
        for rolled in due(table, topic, now, forced) {
            if !self.occupy(topic, &rolled.slot) {
                continue;
            }
            if intent_of(table, topic, &rolled.slot).is_none() {
                let intent = Intent::Roll { next: rolled.next.clone() };
                records.push((intent_key(topic, &rolled.slot), json(&intent)));
            }
            begun.push(ends_of(self.plane, topic, rolled).boxed());
        }
    }

    /// Segments that were sealed before the days that are kept go, of each slot the oldest first.
    fn delete(
        &mut self,
        table: &Table,
        (topic, now): (&'p Routed, u64),
        (records, begun): (&mut Records, &mut Vec<BoxFuture<'p, Done<'p>>>),
    ) {
        for slot in topic.slots() {
            let (segment, number) = match intent_of(table, topic, slot) {
                Some(Intent::Delete { topic }) => (topic.clone(), None),
                Some(Intent::Roll { .. }) => continue,
                None => match expired(table, topic, slot, now) {
                    Some((number, fact)) => (fact.topic.clone(), Some(number)),
                    None => continue,
                },
            };
            if !self.occupy(topic, slot) {
                continue;
            }
            if let Some(number) = number {
                // Readers are told first, then it goes.
                let intent = Intent::Delete { topic: segment.clone() };
                records.push((segment_key(topic, slot, number), None));
                records.push((intent_key(topic, slot), json(&intent)));
            }
            let (plane, slot) = (self.plane, slot.clone());
            let work = async move {
                seal::delete(plane, &segment).await;
                Done::Deleted(topic, slot, segment)
            };
            begun.push(work.boxed());
        }
    }

    /// Looks whether sealed segments stayed as they were.
    fn begin_looks(&mut self) {
        let now = clock::now();
        if self.looks_now || !self.looks.iter().any(|look| now - look.at >= LOOK_AGAIN) {
            return;
        }
        let looks = std::mem::take(&mut self.looks);
        let (due, later): (Vec<_>, Vec<_>) =
            looks.into_iter().partition(|look| now - look.at >= LOOK_AGAIN);
        (self.looks, self.looks_now) = (later, true);
        let plane = self.plane;
        let work = async move { Done::Looked(looks::look_at(plane, due).await) };
        self.works.push(work.boxed());
    }

    /// Writes what came of the works that are done.
    async fn end_works(&mut self) -> Result<(), WriteError> {
        while let Some(Some(done)) = self.works.next().now_or_never() {
            self.done.push(done);
        }
        let table = self.table();
        let (mut records, mut ended, mut names) = (Records::new(), Vec::new(), Vec::new());
        for done in std::mem::take(&mut self.done) {
            match done {
                Done::Looked(unanswered) => {
                    self.looks.extend(unanswered);
                    self.looks_now = false;
                }
                Done::Made => {}
                Done::Deleted(topic, slot, segment) => {
                    records.push((intent_key(topic, &slot), None));
                    let of = &topic.name;
                    tracing::info!(topic = %of, slot, %segment, "an old segment is deleted");
                    ended.push((topic.name.to_string(), slot));
                }
                Done::Rolled(topic, rolled, ends) => {
                    let slot = rolled.slot.clone();
                    ended.push((topic.name.to_string(), slot.clone()));
                    match ends {
                        Some(ends) => {
                            names.push((topic, slot, rolled.next.clone()));
                            self.place(topic, rolled, ends, &mut records);
                        }
                        None => records.push(renamed(&table, topic, &rolled)),
                    }
                }
            }
        }
        if !records.is_empty() {
            self.write(records).await?;
        }
        for slot in ended {
            self.busy.remove(&slot);
        }
        for (topic, slot, name) in names {
            tracing::info!(topic = %topic.name, %slot, segment = %name, "a segment is open");
            self.rolls.iter_mut().for_each(|asked| asked.has(topic, &slot, &name));
        }
        Ok(())
    }

    /// The facts of a slot's new segment.
    fn place(&mut self, topic: &Routed, rolled: Rolled, ends: Vec<i64>, records: &mut Records) {
        let Rolled { slot, next, old } = rolled;
        let number = old.as_ref().map_or(0, |(number, _)| number + 1);
        if let Some((old, fact)) = old {
            let physical = fact.bases.iter().zip(&ends).map(|(base, end)| end - base).collect();
            self.looks.push(Look { topic: fact.topic.clone(), ends: physical, at: clock::now() });
            let sealed_at_ms = Some(clock::unix_ms());
            let fact = SegmentFact { ends: Some(ends.clone()), sealed_at_ms, ..fact };
            records.push((segment_key(topic, &slot, old), json(&fact)));
        }
        let fact = SegmentFact { topic: next, bases: ends, ends: None, sealed_at_ms: None };
        records.push((segment_key(topic, &slot, number), json(&fact)));
        records.push((intent_key(topic, &slot), None));
    }
}

fn layout(topic: &Routed) -> Layout {
    Layout { partitions: topic.partitions, slots: topic.slots().to_vec() }
}

/// The intent to give a slot a segment of another name: somebody has taken the one that it was to
/// have.
fn renamed(table: &Table, topic: &Routed, rolled: &Rolled) -> (Key, Option<String>) {
    let (slot, taken) = (rolled.slot.as_str(), rolled.next.as_str());
    tracing::error!(topic = %taken, "is there and is no empty segment");
    let begins = topic.physical_of(slot);
    let day = day_of(begins, taken).unwrap_or_default();
    let next = next_name(begins, day, |name| name <= taken || is_taken(table, topic, slot, name));
    (intent_key(topic, slot), json(&Intent::Roll { next }))
}

/// Makes the topic of a segment whose day begins soon. Whether it can be one is seen then.
async fn made<'p>(plane: &'p DataPlane, next: String, partitions: i32) -> Done<'p> {
    seal::make(plane, &next, partitions).await;
    Done::Made
}

/// Makes the next segment's topic and seals the open one; gives the logical ends, which are the
/// next one's bases.
async fn ends_of<'p>(plane: &'p DataPlane, topic: &'p Routed, rolled: Rolled) -> Done<'p> {
    let partitions = topic.partitions;
    if seal::make(plane, &rolled.next, partitions).await == Made::Unusable {
        return Done::Rolled(topic, rolled, None);
    }
    let ends = match &rolled.old {
        None => vec![0; usize::try_from(partitions).unwrap_or(0)],
        Some((_, old)) => {
            let ends = seal::seal(plane, &old.topic, partitions).await;
            old.bases.iter().zip(ends).map(|(base, end)| base + end).collect()
        }
    };
    Done::Rolled(topic, rolled, Some(ends))
}
