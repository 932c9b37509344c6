//! Names, ids and leaders of topics: asked of the brokers on a miss, never guessed.
//!
//! A leader that is missing, or was wrong, is asked for again by whoever needs it; each topic at
//! most once in `LEADERS_PAUSE`, however many need it.

mod questions;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use parking_lot::RwLock;

use super::addresses::Directory;
use crate::clock::{self, Tick};
use crate::fault;
use crate::limits::{LEADERS_PAUSE, Limits};
use crate::telemetry::LineLimits;
use questions::{Questions, Wanted};

/// A name may be given to a new topic, so what is known of it ages.
const NAME_AGE_MAX: Duration = Duration::from_secs(5);
/// Topics remembered; beyond it everything is asked again.
const TOPICS_MAX: usize = 100_000;

/// A topic's id on the wire.
pub type TopicId = [u8; 16];

/// The leader of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Its broker.
    pub node: i32,
    /// Its epoch: a broker that led before answers questions with another one.
    pub epoch: i32,
}

/// What is known of a topic's leaders.
#[derive(Debug)]
struct Leaders {
    /// Of the partitions that have one.
    by_partition: HashMap<i32, Leader>,
    asked: Tick,
    /// One of them was wrong.
    doubted: bool,
}

impl Leaders {
    /// Whether nothing is to be asked for a partition now.
    fn settles(&self, partition: i32) -> bool {
        let known = self.by_partition.contains_key(&partition) && !self.doubted;
        known || clock::now() - self.asked < LEADERS_PAUSE || fault::on("leaders-kept")
    }
}

/// What brokers say of a topic's partitions.
pub type Rows = Arc<[MetadataResponsePartition]>;

/// What is known of topics.
#[derive(Debug)]
pub struct Topics {
    directory: Arc<Directory>,
    limits: Limits,
    lines: Arc<LineLimits>,
    names: RwLock<HashMap<TopicId, Arc<str>>>,
    ids: RwLock<HashMap<Arc<str>, (TopicId, Tick)>>,
    leaders: RwLock<HashMap<Arc<str>, Leaders>>,
    kept_rows: RwLock<HashMap<Arc<str>, Option<Rows>>>,
    questions: Questions,
}

impl Topics {
    /// Knows nothing yet.
    pub fn new(directory: Arc<Directory>, limits: Limits, lines: Arc<LineLimits>) -> Self {
        Self {
            directory,
            limits,
            lines,
            names: RwLock::default(),
            ids: RwLock::default(),
            leaders: RwLock::default(),
            kept_rows: RwLock::default(),
            questions: Questions::default(),
        }
    }

    /// Asks the brokers whatever somebody wants to know, for ever; dropped at shutdown.
    pub async fn serve(&self) {
        let mut held = None;
        loop {
            let question = self.questions.next().await;
            let answer = question.put(&self.directory, &self.limits, &mut held).await;
            match answer {
                Ok(topics) => {
                    self.take(&question.wanted, topics);
                    question.tell(Ok(()));
                }
                Err(error) => {
                    self.note_asked(&question.wanted);
                    if let Some(left_out) = self.lines.allows("topics") {
                        let topics = question.wanted.len();
                        tracing::warn!(topics, %error, left_out, "topics cannot be asked for");
                    }
                    question.tell(Err(&error));
                }
            }
        }
    }

    /// The name of a topic, if it was asked for before.
    pub fn known_name(&self, id: &TopicId) -> Option<Arc<str>> {
        self.names.read().get(id).cloned()
    }

    /// The name of a topic; `None` if the cluster has no topic of that id.
    pub async fn name(&self, id: TopicId) -> io::Result<Option<Arc<str>>> {
        if let Some(name) = self.known_name(&id) {
            return Ok(Some(name));
        }
        self.questions.ask([Wanted::Id(id)]).await?;
        Ok(self.known_name(&id))
    }

    /// Has the names of topics asked for that are not known, all at once.
    pub async fn want_names(&self, ids: impl Iterator<Item = TopicId>) -> io::Result<()> {
        let unknown = ids.filter(|id| self.known_name(id).is_none()).map(Wanted::Id);
        self.questions.ask(unknown).await
    }

    /// The id of a topic; `None` if the cluster has no topic of that name.
    pub async fn id(&self, name: &str) -> io::Result<Option<TopicId>> {
        if let Some(id) = self.known_id(name) {
            return Ok(Some(id));
        }
        self.questions.ask([Wanted::Name(name.into())]).await?;
        Ok(self.known_id(name))
    }

    fn known_id(&self, name: &str) -> Option<TopicId> {
        let (id, since) = *self.ids.read().get(name)?;
        (clock::now() - since < NAME_AGE_MAX).then_some(id)
    }

    /// The leader of a partition, as far as is known.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        self.leaders.read().get(topic)?.by_partition.get(&partition).copied()
    }

    /// Has the leaders of partitions asked for, where one is missing or was wrong.
    pub async fn want_leaders(&self, places: impl Iterator<Item = (&str, i32)>) {
        let mut wanted: Vec<&str> = Vec::new();
        {
            let leaders = self.leaders.read();
            for (topic, partition) in places {
                let settled = leaders.get(topic).is_some_and(|known| known.settles(partition));
                if !settled && wanted.last() != Some(&topic) {
                    wanted.push(topic);
                }
            }
        }
        if !wanted.is_empty() {
            self.ask_leaders(&wanted).await;
        }
    }

    /// Asks for the leaders of topics anew, all at once.
    pub async fn ask_leaders(&self, topics: &[&str]) {
        let wanted = topics.iter().map(|topic| Wanted::Name((*topic).into()));
        // Who asks in vain goes on with what is known; the failure has its line in the log.
        let _ = self.questions.ask(wanted).await;
    }

    /// A leader of this topic was wrong.
    pub fn doubt(&self, topic: &str) {
        if let Some(known) = self.leaders.write().get_mut(topic) {
            known.doubted = true;
        }
    }

    /// From now on what brokers say of the partitions of these topics is kept whole.
    pub fn keep_rows(&self, names: impl Iterator<Item = Arc<str>>) {
        let mut kept = self.kept_rows.write();
        names.for_each(|name| {
            kept.entry(name).or_default();
        });
    }

    /// What brokers said last of the partitions of a topic whose rows are kept.
    pub fn rows(&self, name: &str) -> Option<Rows> {
        self.kept_rows.read().get(name)?.clone()
    }

    /// Has topics whose rows are kept asked for, if what is known of them is old or may be wrong.
    pub async fn want_rows(&self, names: &[&str]) {
        let stale: Vec<&str> = {
            let (kept, leaders) = (self.kept_rows.read(), self.leaders.read());
            let is_fresh = |name: &&str| {
                let asked = leaders.get(*name).map(|known| (clock::now() - known.asked, known));
                let is_kept = kept.get(*name).is_some_and(Option::is_some);
                asked.is_some_and(|(age, known)| {
                    age < LEADERS_PAUSE || is_kept && !known.doubted && age < NAME_AGE_MAX
                })
            };
            names.iter().copied().filter(|name| !is_fresh(name)).collect()
        };
        if !stale.is_empty() {
            self.ask_leaders(&stale).await;
        }
    }

    /// Takes a name and id that a broker told a client.
    pub fn learn(&self, id: TopicId, name: &Arc<str>) {
        // A broker of before topic ids tells none.
        if id == [0; 16] {
            return;
        }
        let before = self.ids.write().insert(name.clone(), (id, clock::now()));
        let mut names = self.names.write();
        if let Some((old, _)) = before
            && old != id
            && !fault::on("old-ids-kept")
        {
            names.remove(&old);
        }
        names.insert(id, name.clone());
    }

    fn take(&self, wanted: &[Wanted], topics: Vec<MetadataResponseTopic>) {
        self.note_asked(wanted);
        for topic in topics {
            let (0, Some(name)) = (topic.error_code, topic.name) else { continue };
            let name: Arc<str> = name.as_str().into();
            let id = topic.topic_id.into_bytes();
            self.learn(id, &name);
            if let Some(rows) = self.kept_rows.write().get_mut(&name) {
                *rows = Some(Arc::from(&*topic.partitions));
            }
            let led = topic.partitions.iter().filter(|partition| partition.leader_id.0 >= 0);
            let led = led.map(|partition| {
                let leader = Leader { node: partition.leader_id.0, epoch: partition.leader_epoch };
                (partition.partition_index, leader)
            });
            let by_partition = led.collect();
            let leaders = Leaders { by_partition, asked: clock::now(), doubted: false };
            self.leaders.write().insert(name, leaders);
        }
    }

    /// Topics just asked for are not asked for again at once.
    fn note_asked(&self, wanted: &[Wanted]) {
        self.make_room(wanted.len());
        let mut leaders = self.leaders.write();
        for wanted in wanted {
            let Wanted::Name(name) = wanted else { continue };
            let asked = clock::now();
            let new = || Leaders { by_partition: HashMap::new(), asked, doubted: false };
            leaders.entry(name.clone()).or_insert_with(new).asked = asked;
        }
    }

    fn make_room(&self, more: usize) {
        let (mut names, mut ids) = (self.names.write(), self.ids.write());
        let mut leaders = self.leaders.write();
        if names.len().max(leaders.len()) + more <= TOPICS_MAX {
            return;
        }
        ids.clear();
        names.clear();
        leaders.clear();
    }
}
