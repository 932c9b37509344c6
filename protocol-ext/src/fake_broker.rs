//! A broker without sockets, for tests: a request frame in, what to do on the wire out.
//!
//! frame -> head -> one file per API -> answer -> scripted fault -> steps for the socket shell.
//! Invariant: without a fault it answers as a broker would: in order, batches as they were stored,
//! damaged ones refused, and nothing for acks=0.

mod admin;
mod alter_configs;
mod api_versions;
mod describe_cluster;
mod describe_configs;
mod describe_producers;
mod describe_quorum;
mod fault;
mod fetch;
mod fetch_sessions;
mod find_coordinator;
mod init_producer_id;
mod list_offsets;
mod log;
mod metadata;
mod offsets;
mod partitions;
mod produce;
mod sasl;
mod share_acknowledge;
mod share_fetch;
mod transactions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, StrBytes};
use uuid::Uuid;

use crate::header::{self, Head};
use crate::wire::WireError;

pub use fault::{Fault, Step};
pub use fetch_sessions::FetchSessions;
pub use log::FakeLog;
pub use sasl::FakeSession;
pub use share_fetch::Locks;

/// A broker as the others tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeNode {
    /// Its id.
    pub id: i32,
    /// The host it advertises.
    pub host: String,
    /// The port it advertises.
    pub port: u16,
}

/// A topic with its partitions' logs.
#[derive(Debug, Clone)]
pub struct FakeTopic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// One log a partition.
    pub logs: Vec<FakeLog>,
    /// What is set for it, by name.
    pub configs: BTreeMap<String, String>,
}

/// A request that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Broker that got it.
    pub node: i32,
    /// Its head.
    pub head: Head,
    /// Bytes of its frame.
    pub bytes: usize,
}

/// One partition answers with an error, and all answers that can carry endpoints carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The partition.
    pub partition: i32,
    /// Its error code.
    pub error: i16,
    /// The endpoints of the tail (KIP-951); the first one is the new leader.
    pub endpoints: Vec<FakeNode>,
}

/// All brokers of a cluster, which share one state.
#[derive(Debug)]
pub struct FakeCluster {
    /// The brokers as they are advertised.
    pub nodes: Vec<FakeNode>,
    /// Rows of ApiVersions: key, least and greatest version.
    pub versions: Vec<(i16, i16, i16)>,
    /// The rows that a broker tells which is of another release.
    pub versions_of: BTreeMap<i32, Vec<(i16, i16, i16)>>,
    /// The topics.
    pub topics: Vec<FakeTopic>,
    /// A partition whose leader moved, if any.
    pub moved: Option<Moved>,
    /// Partitions that refuse batches, by topic, index and error code.
    pub refusing: Vec<(String, i32, i16)>,
    /// Partitions that answer one batch with an error, by topic, index and error code, and whether
    /// they append it all the same.
    pub erring: Vec<(String, i32, i16, bool)>,
    /// Partitions without a leader, by topic and index.
    pub leaderless: Vec<(String, i32)>,
    /// Brokers that have not heard of what is set for topics.
    pub behind: Vec<i32>,
    /// Brokers that have a replica of every partition and are down.
    pub down: Vec<i32>,
    /// Kafka's id of the cluster.
    pub id: String,
    /// Topics that Metadata tells an error of, and which.
    pub troubled: Vec<(String, i16)>,
    /// Configuration of every broker that DescribeConfigs shows.
    pub configs: Vec<(String, String)>,
    /// Whether brokers are as strict as real ones: only its leader serves a partition, and every
    /// sequence is checked.
    pub strict: bool,
    /// Offsets that groups committed: topic, partition and offset, oldest first.
    pub commits: Vec<(String, i32, i64)>,
    /// Fetch sessions; `None`: every request is answered as it stands.
    pub fetch_sessions: Option<FetchSessions>,
    /// What share consumers acquired; `None`: they get everything each time.
    pub locks: Option<Locks>,
    /// Every request that came, oldest first.
    pub seen: Vec<Seen>,
    /// Frames of this API are kept.
    pub keeping: Option<i16>,
    /// The frames that were kept, oldest first.
    pub kept: Vec<(i32, Bytes)>,
    /// Names and passwords; with some, every connection must log in first.
    pub users: Vec<(String, String)>,
    /// Time after which a session must be renewed; zero: never.
    pub lifetime: Duration,
    /// Users that logged in, oldest first.
    pub logins: Vec<String>,
    /// Users, topics and the operations that they may do with them (bits as in KIP-430); who is
    /// not listed for a topic may do everything.
    pub allowed: Vec<(String, String, i32)>,
    /// Requests in transactions that were refused since another process has taken over.
    pub fenced: usize,
    /// Producer id and epoch of each transactional id.
    transactional: HashMap<String, (i64, i16)>,
    /// Who asks now.
    asking: Option<String>,
    /// The broker that is asked now.
    at: i32,
    faults: VecDeque<(i16, Fault)>,
    held: Option<Bytes>,
    producer_ids: i64,
    sessions: u64,
}

/// Versions that are handled here.
const VERSIONS: [(i16, i16, i16); 31] = [
    (0, 3, 13),
    (1, 4, 18),
    (2, 1, 10),
    (3, 0, 13),
    (8, 2, 9),
    (10, 0, 6),
    (18, 0, 4),
    (19, 2, 7),
    (20, 1, 6),
    (21, 0, 2),
    (22, 0, 5),
    (23, 2, 4),
    (24, 0, 3),
    (26, 0, 3),
    (27, 1, 1),
    (28, 0, 5),
    (32, 1, 4),
    (33, 0, 2),
    (34, 1, 2),
    (37, 0, 3),
    (43, 0, 2),
    (44, 0, 1),
    (45, 0, 1),
    (47, 0, 0),
    (55, 0, 2),
    (60, 0, 2),
    (61, 0, 0),
    (17, 0, 1),
    (36, 0, 2),
    (78, 1, 2),
    (79, 1, 2),
];

impl FakeCluster {
    /// A cluster of `nodes` without topics.
    pub fn new(nodes: Vec<FakeNode>) -> Self {
        Self {
            nodes,
            versions: VERSIONS.to_vec(),
            versions_of: BTreeMap::new(),
            topics: Vec::new(),
            moved: None,
            refusing: Vec::new(),
            erring: Vec::new(),
            fetch_sessions: None,
            locks: None,
            leaderless: Vec::new(),
            down: Vec::new(),
            id: "fake".to_owned(),
            troubled: Vec::new(),
            configs: Vec::new(),
            strict: false,
            behind: Vec::new(),
            commits: Vec::new(),
            seen: Vec::new(),
            keeping: None,
            kept: Vec::new(),
            users: Vec::new(),
            lifetime: Duration::ZERO,
            logins: Vec::new(),
            allowed: Vec::new(),
            fenced: 0,
            transactional: HashMap::new(),
            asking: None,
            at: -1,
            faults: VecDeque::new(),
            held: None,
            producer_ids: 1000,
            sessions: 0,
        }
    }

    /// Makes a topic; its id follows from its name.
    pub fn add_topic(&mut self, name: &str, partitions: usize) {
        let mut id = [7; 16];
        for (n, byte) in name.bytes().enumerate() {
            id[n % 16] ^= byte.rotate_left(u32::try_from(n / 16).unwrap_or(0) % 8);
        }
        let logs = vec![FakeLog::default(); partitions];
        let (name, id, configs) = (name.to_owned(), Uuid::from_bytes(id), BTreeMap::new());
        self.topics.push(FakeTopic { name, id, logs, configs });
    }

    /// Sets something for a topic.
    pub fn configure(&mut self, topic: &str, name: &str, value: &str) {
        let topics = self.topics.iter_mut().filter(|t| t.name == topic);
        topics.for_each(|t| drop(t.configs.insert(name.to_owned(), value.to_owned())));
    }

    /// The log of a partition, for tests that look at or put batches there.
    pub fn log(&mut self, topic: &str, partition: i32) -> Option<&mut FakeLog> {
        let topic = self.topics.iter_mut().find(|t| t.name == topic)?;
        topic.logs.get_mut(usize::try_from(partition).ok()?)
    }

    /// The next answer to `api` goes wrong in this way; further calls queue up.
    pub fn script(&mut self, api: i16, fault: Fault) {
        self.faults.push_back((api, fault));
    }

    /// Whether a fault for `api` is still to come.
    pub fn scripted(&self, api: i16) -> bool {
        self.faults.iter().any(|(key, _)| *key == api)
    }

    /// Requests of one API that came so far.
    pub fn count(&self, api: i16) -> usize {
        self.seen.iter().filter(|seen| seen.head.api == api).count()
    }

    /// Takes a request frame (without its length) for one broker and says what to do on the wire.
    pub fn receive(&mut self, node: i32, frame: &Bytes) -> Vec<Step> {
        self.receive_in(&mut FakeSession::default(), node, frame)
    }

    /// The same, on a connection that may have logged in.
    pub fn receive_in(&mut self, session: &mut FakeSession, node: i32, frame: &Bytes) -> Vec<Step> {
        let Ok(head) = Head::parse(frame) else { return vec![Step::Close] };
        self.seen.push(Seen { node, head, bytes: frame.len() });
        if self.keeping == Some(head.api) {
            self.kept.push((node, frame.clone()));
        }
        if session.holder == 0 {
            self.sessions += 1;
            session.holder = self.sessions;
        }
        if !self.users.is_empty() && session.user.is_none() && !matches!(head.api, 17 | 18 | 36) {
            return vec![Step::Close];
        }
        self.asking.clone_from(&session.user);
        self.at = node;
        let request = Request { head, frame };
        let holder = session.holder;
        let answer = match head.api {
            78 => share_fetch::answer(self, &request, holder).map(Some),
            17 => sasl::handshake(session, &request).map(Some),
            36 => sasl::authenticate(self, session, &request).map(Some),
            _ => self.answer(head, frame),
        };
        let Ok(answer) = answer else { return vec![Step::Close] };
        let at = self.faults.iter().position(|(api, _)| *api == head.api);
        let fault = at.and_then(|at| self.faults.remove(at)).map(|(_, fault)| fault);
        let Some(answer) = answer else { return Vec::new() };
        fault::steps(fault, framed(&answer), &mut self.held)
    }

    /// A connection is gone.
    pub fn closed(&mut self, session: &FakeSession) {
        if let Some(locks) = &mut self.locks {
            locks.release(session.holder);
        }
    }

    fn answer(&mut self, head: Head, frame: &Bytes) -> Result<Option<Bytes>, WireError> {
        let request = Request { head, frame };
        let offered = self.versions.iter().find(|(key, ..)| *key == head.api);
        let offered = offered.is_some_and(|(_, min, max)| (*min..=*max).contains(&head.version));
        let answer = match head.api {
            18 => api_versions::answer(self, &request)?,
            _ if !offered => return Err(unknown(head)),
            0 => return produce::answer(self, &request),
            1 => fetch::answer(self, &request)?,
            2 => list_offsets::answer(self, &request)?,
            3 => metadata::answer(self, &request)?,
            8 => offsets::commit(self, &request)?,
            10 => find_coordinator::answer(self, &request)?,
            19 => admin::create_topics(self, &request)?,
            20 => admin::delete_topics(self, &request)?,
            21 => admin::delete_records(self, &request)?,
            22 => init_producer_id::answer(self, &request)?,
            23 => offsets::for_leader_epoch(self, &request)?,
            24 => transactions::add_partitions(self, &request)?,
            26 => transactions::end(self, &request)?,
            27 => partitions::write_markers(self, &request)?,
            28 => offsets::commit_in_transaction(self, &request)?,
            32 => describe_configs::answer(self, &request)?,
            33 => alter_configs::answer(self, &request)?,
            34 => partitions::move_dirs(self, &request)?,
            37 => admin::create_partitions(self, &request)?,
            43 => partitions::elect(self, &request)?,
            44 => alter_configs::incremental_answer(self, &request)?,
            45 => partitions::reassign(self, &request)?,
            47 => partitions::delete_offsets(self, &request)?,
            55 => describe_quorum::answer(self, &request)?,
            60 => describe_cluster::answer(self, &request)?,
            61 => describe_producers::answer(self, &request)?,
            79 => share_acknowledge::answer(self, &request),
            _ => return Err(unknown(head)),
        };
        Ok(Some(answer))
    }

    /// Whether who answers now has not heard of what is set for topics.
    fn is_behind(&self) -> bool {
        self.behind.contains(&self.at)
    }

    /// Whether a producer of transactions has an older epoch than another one; if so it is counted.
    fn fences(&mut self, id: i64, epoch: i16) -> bool {
        let mut all = self.transactional.values();
        let older = all.any(|(known, newest)| *known == id && epoch < *newest);
        self.fenced += usize::from(older);
        older
    }

    /// Ends the transaction of a producer in all logs.
    fn end_transactions(&mut self, id: i64, epoch: i16, committed: bool) {
        let logs = self.topics.iter_mut().flat_map(|topic| &mut topic.logs);
        logs.for_each(|log| log.end_transaction(id, epoch, committed));
    }

    fn topic_by_name(&self, name: &str) -> Option<&FakeTopic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    fn topic_by_id(&self, id: Uuid) -> Option<&FakeTopic> {
        self.topics.iter().find(|topic| topic.id == id)
    }

    /// What who asks may do with a topic, if that is not everything.
    fn allowed(&self, topic: &str) -> Option<i32> {
        let asking = self.asking.as_deref().unwrap_or("ANONYMOUS");
        let row = self.allowed.iter().find(|(user, name, _)| user == asking && name == topic);
        row.map(|(_, _, operations)| *operations)
    }

    /// Whether who asks may do nothing with a topic.
    fn forbids(&self, topic: &str) -> bool {
        self.allowed(topic) == Some(0)
    }

    /// Why the broker that is asked does not serve a partition: error code, new leader, epoch.
    fn moved_partition(&self, partition: i32, log: Option<&FakeLog>) -> Option<(i16, i32, i32)> {
        if let Some(moved) = self.moved.as_ref().filter(|moved| moved.partition == partition) {
            let leader = moved.endpoints.first().map_or(-1, |node| node.id);
            return Some((moved.error, leader, MOVED_EPOCH));
        }
        let (leader, epoch) = self.leader(partition, log.filter(|_| self.strict)?);
        (leader != self.at).then_some((NOT_LEADER_OR_FOLLOWER, leader, epoch))
    }

    /// Leader and epoch of a partition; no leader (-1) if the one it had is away.
    fn leader(&self, partition: i32, log: &FakeLog) -> (i32, i32) {
        let nodes = &self.nodes;
        match log.leader {
            Some((leader, epoch)) if nodes.iter().any(|node| node.id == leader) => (leader, epoch),
            Some((_, epoch)) => (-1, epoch),
            None => {
                let at = usize::try_from(partition).unwrap_or(0) % nodes.len().max(1);
                (nodes.get(at).map_or(-1, |node| node.id), 0)
            }
        }
    }

    /// The endpoints of a tail in which partitions name these new leaders.
    fn endpoints(&self, leaders: impl Iterator<Item = i32>) -> Vec<FakeNode> {
        if let Some(moved) = &self.moved {
            return moved.endpoints.clone();
        }
        let leaders: Vec<i32> = leaders.collect();
        self.nodes.iter().filter(|node| leaders.contains(&node.id)).cloned().collect()
    }
}

const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// Epoch of the leader of a partition that a test has moved.
const MOVED_EPOCH: i32 = 9;

struct Request<'a> {
    head: Head,
    frame: &'a Bytes,
}

impl Request<'_> {
    fn decode<T: Decodable>(&self) -> Result<T, WireError> {
        let at = header::request_body_at(self.head, self.frame)?;
        let mut body = self.frame.slice(at..);
        T::decode(&mut body, self.head.version).map_err(|_| unknown(self.head))
    }
}

fn unknown(head: Head) -> WireError {
    WireError::Body { api: head.api, version: head.version }
}

fn framed(answer: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + answer.len());
    out.put_u32(u32::try_from(answer.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(answer);
    out.freeze()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
