//! What a client knows of the cluster, and its connections to virtual brokers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::connection::{BOOTSTRAP, Connection, FIRST, Lost, PROXY};
use crate::world::World;

const METADATA: i16 = 3;
/// Pause before a client asks again.
const BACKOFF: Duration = Duration::from_millis(100);

/// A client.
pub struct Client {
    /// The world it is in.
    pub world: Rc<World>,
    /// Its name.
    pub name: String,
    open: RefCell<BTreeMap<u16, Rc<Connection>>>,
    leaders: RefCell<BTreeMap<(String, i32), i32>>,
    ids: RefCell<BTreeMap<String, Uuid>>,
}

/// A topic's name as the codec crate wants it.
pub fn topic_name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

impl Client {
    /// A client that knows nothing.
    pub fn new(world: &Rc<World>, name: &str) -> Self {
        Self {
            world: world.clone(),
            name: name.to_owned(),
            open: RefCell::default(),
            leaders: RefCell::default(),
            ids: RefCell::default(),
        }
    }

    /// The connection to a port of the proxy, opened if need be.
    pub async fn to_port(&self, port: u16) -> Result<Rc<Connection>, Lost> {
        let open = self.open.borrow().get(&port).cloned();
        if let Some(open) = open.filter(|open| !open.is_closed()) {
            return Ok(open);
        }
        let opened = Connection::open(&self.world, &self.name, port).await?;
        self.open.borrow_mut().insert(port, opened.clone());
        Ok(opened)
    }

    /// The connection to a virtual broker.
    pub async fn to_node(&self, node: i32) -> Result<Rc<Connection>, Lost> {
        let port = u16::try_from(i32::from(FIRST) + node).map_err(|_| Lost)?;
        self.to_port(port).await
    }

    /// Closes everything.
    pub fn close_all(&self) {
        for open in std::mem::take(&mut *self.open.borrow_mut()).into_values() {
            open.close();
        }
    }

    /// The leader of a partition, as far as it is known.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.leaders.borrow().get(&(topic.to_owned(), partition)).copied().filter(|node| *node >= 0)
    }

    /// The id of a topic, as far as it is known.
    pub fn id(&self, topic: &str) -> Option<Uuid> {
        self.ids.borrow().get(topic).copied()
    }

    /// Partitions that are known.
    pub fn partitions(&self, topic: &str) -> i32 {
        let leaders = self.leaders.borrow();
        i32::try_from(leaders.keys().filter(|(name, _)| name == topic).count()).expect("few")
    }

    /// Forgets a partition's leader, since it is none.
    pub fn forget(&self, topic: &str, partition: i32) {
        self.leaders.borrow_mut().remove(&(topic.to_owned(), partition));
    }

    /// Asks for topics until there is an answer.
    pub async fn learn(&self, topics: &[String]) {
        loop {
            // Any virtual broker may be asked, as clients do that know some.
            let port = match self.world.below(4) {
                0 => BOOTSTRAP,
                _ => self.some_port(),
            };
            if let Ok(open) = self.to_port(port).await
                && self.learn_from(&open, topics).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(BACKOFF + self.world.ms(0, 50)).await;
        }
    }

    fn some_port(&self) -> u16 {
        let leaders: Vec<i32> = self.leaders.borrow().values().copied().collect();
        let node = leaders.get(self.world.below(leaders.len())).copied().filter(|node| *node >= 0);
        node.and_then(|node| u16::try_from(i32::from(FIRST) + node).ok()).unwrap_or(BOOTSTRAP)
    }

    async fn learn_from(&self, open: &Connection, topics: &[String]) -> Result<(), Lost> {
        let version = i16::try_from(self.world.between(10, 12)).expect("small");
        let asked = topics.iter();
        let asked = asked.map(|t| MetadataRequestTopic::default().with_name(Some(topic_name(t))));
        let request = MetadataRequest::default()
            .with_topics(Some(asked.collect()))
            .with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = open.call(METADATA, version, &request).await?;
        self.take(&answer);
        Ok(())
    }

    /// Takes an answer to Metadata, in which every broker must be a virtual one.
    pub fn take(&self, answer: &MetadataResponse) {
        for broker in &answer.brokers {
            self.check_place(broker.node_id.0, &broker.host, broker.port, "Metadata");
        }
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            if topic.error_code == 0 && !topic.topic_id.is_nil() {
                self.ids.borrow_mut().insert(name.to_string(), topic.topic_id);
            }
            for partition in &topic.partitions {
                let place = (name.to_string(), partition.partition_index);
                self.leaders.borrow_mut().insert(place, partition.leader_id.0);
            }
        }
    }

    /// Checks that a broker is told as the virtual one it is.
    pub fn check_place(&self, node: i32, host: &str, port: i32, what: &str) {
        if host != PROXY || port != i32::from(FIRST) + node {
            let name = &self.name;
            self.world.violate(format!("{name}: {what} says that {node} is at {host}:{port}"));
        }
    }
}
