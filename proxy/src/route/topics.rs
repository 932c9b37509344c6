//! Names, ids and leaders of topics: asked of the brokers on a miss, never guessed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::RwLock;
use protocol_ext::api;
use tokio::sync::Mutex;

use super::addresses::Directory;
use crate::clock::{self, Tick};
use crate::limits::Limits;
use crate::telemetry::LineLimits;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// Metadata version of the questions: the first that is asked by id (KIP-516 and KAFKA-10345).
const METADATA_VERSION: i16 = 12;
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

/// The leader of each partition of a topic.
type Leaders = Arc<HashMap<i32, Leader>>;

/// What is known of topics.
#[derive(Debug)]
pub struct Topics {
    directory: Arc<Directory>,
    limits: Limits,
    lines: Arc<LineLimits>,
    names: RwLock<HashMap<TopicId, Arc<str>>>,
    ids: RwLock<HashMap<Arc<str>, (TopicId, Tick)>>,
    leaders: RwLock<HashMap<Arc<str>, Leaders>>,
    pinned: RwLock<HashMap<Arc<str>, TopicId>>,
    connection: Mutex<Option<BrokerConnection>>,
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
            pinned: RwLock::default(),
            connection: Mutex::new(None),
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
        let mut topic = MetadataRequestTopic::default();
        topic.topic_id = uuid::Uuid::from_bytes(id);
        topic.name = None;
        self.ask(vec![topic]).await?;
        Ok(self.known_name(&id))
    }

    /// The id of a topic; `None` if the cluster has no topic of that name.
    pub async fn id(&self, name: &str) -> io::Result<Option<TopicId>> {
        if let Some(id) = self.pinned.read().get(name) {
            return Ok(Some(*id));
        }
        let known = |topics: &Self| {
            let (id, since) = *topics.ids.read().get(name)?;
            (clock::now() - since < NAME_AGE_MAX).then_some(id)
        };
        if let Some(id) = known(self) {
            return Ok(Some(id));
        }
        let mut topic = MetadataRequestTopic::default();
        topic.name = Some(TopicName(StrBytes::from_string(name.to_owned())));
        self.ask(vec![topic]).await?;
        Ok(known(self))
    }

    /// The leader of a partition; `None` if there is none now or the cluster cannot be asked.
    pub async fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        let known = |topics: &Self| topics.leaders.read().get(topic).cloned();
        let leaders = match known(self) {
            Some(leaders) => leaders,
            None => {
                self.ask_leaders(&[topic]).await;
                known(self)?
            }
        };
        leaders.get(&partition).copied().filter(|leader| leader.node >= 0)
    }

    /// Asks for the leaders of topics anew, all at once.
    pub async fn ask_leaders(&self, topics: &[&str]) {
        let asked = topics.iter().map(|topic| {
            let name = TopicName(StrBytes::from_string((*topic).to_owned()));
            MetadataRequestTopic::default().with_name(Some(name))
        });
        for topic in topics {
            self.forget(topic);
        }
        if let Err(error) = self.ask(asked.collect()).await
            && let Some(left_out) = self.lines.allows("leaders")
        {
            tracing::warn!(?topics, %error, left_out, "leaders cannot be asked for");
        }
    }

    /// Forgets the leaders of a topic, since one of them was wrong.
    pub fn forget(&self, topic: &str) {
        self.leaders.write().remove(topic);
    }

    /// Takes the name and id of a topic that no broker knows.
    pub fn learn_for_good(&self, id: TopicId, name: &Arc<str>) {
        self.pinned.write().insert(name.clone(), id);
        self.names.write().insert(id, name.clone());
    }

    async fn ask(&self, topics: Vec<MetadataRequestTopic>) -> io::Result<()> {
        let mut request = MetadataRequest::default();
        request.topics = Some(topics);
        request.allow_auto_topic_creation = false;
        let mut held = self.connection.lock().await;
        let asked = tokio::time::timeout(self.limits.connect * 2, async {
            let held_open = held.take().and_then(|mut c| c.is_open().then_some(c));
            let mut connection = match held_open {
                Some(connection) => connection,
                None => {
                    let any = self.directory.connect_any(&self.limits, &Login::Proxy).await?;
                    BrokerConnection::new(any)
                }
            };
            let answer = connection.call(api::METADATA, METADATA_VERSION, &request).await?;
            *held = Some(connection);
            Ok::<MetadataResponse, io::Error>(answer)
        });
        let answer = asked.await.map_err(|_| io::ErrorKind::TimedOut)??;
        for topic in answer.topics {
            if let (0, Some(name)) = (topic.error_code, topic.name) {
                self.learn(topic.topic_id.into_bytes(), &name);
                let leaders = topic.partitions.iter();
                let leaders = leaders.map(|p| {
                    let leader = Leader { node: p.leader_id.0, epoch: p.leader_epoch };
                    (p.partition_index, leader)
                });
                let leaders = leaders.collect();
                self.leaders.write().insert(name.as_str().into(), Arc::new(leaders));
            }
        }
        Ok(())
    }

    fn learn(&self, id: TopicId, name: &str) {
        let name: Arc<str> = name.into();
        let mut names = self.names.write();
        let mut ids = self.ids.write();
        if names.len() >= TOPICS_MAX {
            ids.clear();
            names.clear();
            self.leaders.write().clear();
            for (name, id) in self.pinned.read().iter() {
                names.insert(*id, name.clone());
            }
        }
        names.insert(id, name.clone());
        ids.insert(name, (id, clock::now()));
    }
}
