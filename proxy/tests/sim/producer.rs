//! Producers as Java's: batches of a partition go out in order, several at once where they have
//! sequences, and again, in order, until they are acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse,
};
use tokio::time::Instant;

use crate::connection::{BOOTSTRAP, Connection, Lost};
use crate::ledger::Promise;
use crate::records::{NO_SEQUENCE, Numbered, Sequence, batch};
use crate::topology::{Client, topic_name};
use crate::world::{Phase, World};

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
const INIT_PRODUCER_ID: i16 = 22;
/// First version that names topics by id.
const WITH_IDS: i16 = 13;
/// Batches of a partition, and requests of a connection, that are under way at once.
const IN_FLIGHT_MAX: usize = 5;
/// Batches of a partition that wait or are under way.
const BATCHES_MAX: usize = 8;
const BACKOFF: Duration = Duration::from_millis(100);
const OUT_OF_ORDER: i16 = 45;
/// No broker here says so: the proxy could not store a value, or one of a batch before.
const NOT_STORED: i16 = 56;
/// Counts batches that are answered so.
pub const NOT_STORED_BATCHES: &str = "batches not stored";
const DUPLICATE: i16 = 46;
/// Codes after which Java sends a batch again, of those a broker may have here.
const AGAIN: [i16; 8] = [3, 5, 6, 7, 19, 20, 100, 9];
/// A leader is not that, or a topic is not known.
const STALE: [i16; 4] = [3, 5, 6, 100];

/// What a producer does.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Its number.
    pub number: u32,
    /// Topics and whether large values are sent there.
    pub topics: Vec<(String, bool)>,
    /// What it is promised.
    pub promise: Promise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// Under way over this connection; whether it was the oldest when it was sent.
    Flying(usize, bool),
    Again(Instant),
}

struct Batch {
    records: Vec<Numbered>,
    bytes: Bytes,
    state: State,
}

/// Topic and partition.
type Place = (String, i32);
/// A batch by its place and the number of its first record.
type Sent = (Place, u32);
type Answer = (Vec<Sent>, usize, Result<ProduceResponse, Lost>);
type Flight = Pin<Box<dyn Future<Output = Answer>>>;

struct Producer {
    client: Client,
    orders: Orders,
    version: i16,
    id: i64,
    sequences: BTreeMap<Place, i32>,
    queues: BTreeMap<Place, VecDeque<Batch>>,
    flights: FuturesUnordered<Flight>,
}

/// Sends until trouble is over, then sees off what is left.
pub async fn run(world: Rc<World>, orders: Orders) {
    let client = Client::new(&world, &format!("p{}", orders.number));
    let topics: Vec<String> = orders.topics.iter().map(|(topic, _)| topic.clone()).collect();
    client.learn(&topics).await;
    if orders.promise == Promise::AtMost {
        fire(&world, &client, &orders).await;
        world.busy.set(world.busy.get() - 1);
        return;
    }
    let id = match orders.promise {
        Promise::Exactly => producer_id(&world, &client).await,
        Promise::AtLeast | Promise::AtMost => -1,
    };
    let mut producer = Producer {
        version: i16::try_from(world.between(9, 13)).expect("small"),
        client,
        orders,
        id,
        sequences: BTreeMap::new(),
        queues: BTreeMap::new(),
        flights: FuturesUnordered::new(),
    };
    producer.run(&topics).await;
    world.busy.set(world.busy.get() - 1);
    producer.client.close_all();
}

async fn producer_id(world: &World, client: &Client) -> i64 {
    loop {
        if let Ok(open) = client.to_port(BOOTSTRAP).await {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1);
            let answer: Result<InitProducerIdResponse, _> =
                open.call(INIT_PRODUCER_ID, 4, &request).await;
            match answer {
                Ok(answer) if answer.error_code == 0 => return answer.producer_id.0,
                Ok(answer) => {
                    world.violate(format!("InitProducerId: error {}", answer.error_code));
                }
                Err(Lost) => {}
            }
        }
        tokio::time::sleep(BACKOFF).await;
    }
}

impl Producer {
    async fn run(&mut self, topics: &[String]) {
        let world = self.client.world.clone();
        loop {
            let finishing = world.phase.get() >= Phase::Finish;
            if finishing && self.queues.values().all(VecDeque::is_empty) {
                return;
            }
            if !finishing {
                self.add();
            }
            if self.send_all().await {
                self.client.learn(topics).await;
            }
            let pause = world.rest(5, 60);
            tokio::select! {
                biased;
                Some(answer) = self.flights.next() => self.settle(answer),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Makes a batch for some partition.
    fn add(&mut self) {
        let world = &self.client.world;
        let (topic, large) = self.orders.topics[world.below(self.orders.topics.len())].clone();
        let partitions = usize::try_from(self.client.partitions(&topic)).expect("few");
        if partitions == 0 {
            return;
        }
        let partition = i32::try_from(world.below(partitions)).expect("few");
        let queue = self.queues.entry((topic.clone(), partition)).or_default();
        if queue.len() >= BATCHES_MAX {
            return;
        }
        let mut records = Vec::new();
        for _ in 0..world.between(1, 4) {
            let bytes = match world.below(3) {
                0 if large => world.between(1500, 30_000),
                _ => world.between(16, 400),
            };
            let Orders { promise, number: producer, .. } = self.orders;
            let number = world.ledger.borrow_mut().next(promise, producer, &topic, partition);
            let bytes = u32::try_from(bytes).expect("small");
            records.push(Numbered { producer, partition, number, bytes });
        }
        let first = self.sequences.entry((topic, partition)).or_default();
        let sequence = match self.orders.promise {
            Promise::Exactly => Sequence { id: self.id, epoch: 0, first: *first },
            Promise::AtLeast | Promise::AtMost => NO_SEQUENCE,
        };
        *first += i32::try_from(records.len()).expect("few");
        let bytes = batch(&records, sequence);
        queue.push_back(Batch { records, bytes, state: State::New });
        world.count_by("records sent", queue.back().map_or(0, |b| b.records.len() as u64));
    }

    /// Which batch of a queue may go now over the connection of that number.
    fn sendable(&self, queue: &VecDeque<Batch>, connection: usize) -> Option<usize> {
        let now = Instant::now();
        match queue.front()?.state {
            State::Again(at) if at <= now => return Some(0),
            State::Again(_) => return None,
            State::New | State::Flying(..) => {}
        }
        let next = queue.iter().position(|batch| !matches!(batch.state, State::Flying(..)))?;
        let before = queue.iter().take(next);
        let same = |batch: &Batch| matches!(batch.state, State::Flying(c, _) if c == connection);
        let most = match self.orders.promise {
            Promise::Exactly => IN_FLIGHT_MAX,
            Promise::AtLeast | Promise::AtMost => 1,
        };
        let sound = next < most && before.clone().all(same) && queue[next].state == State::New;
        sound.then_some(next)
    }

    /// Sends what may go; true if a leader is not known.
    async fn send_all(&mut self) -> bool {
        let mut nodes: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
        let mut lost = false;
        for (place, queue) in &self.queues {
            if queue.iter().all(|batch| matches!(batch.state, State::Flying(..))) {
                continue;
            }
            match self.client.leader(&place.0, place.1) {
                Some(node) => nodes.entry(node).or_default().push(place.clone()),
                None => lost = true,
            }
        }
        for (node, places) in nodes {
            match self.client.to_node(node).await {
                Ok(open) if open.in_flight() < IN_FLIGHT_MAX => self.send(&open, node, places),
                Ok(_) => {}
                Err(Lost) => {
                    for (topic, partition) in places {
                        self.client.forget(&topic, partition);
                    }
                    lost = true;
                }
            }
        }
        lost
    }

    fn send(&mut self, open: &Rc<Connection>, node: i32, places: Vec<Place>) {
        let connection = open.number;
        let mut topics: BTreeMap<String, Vec<PartitionProduceData>> = BTreeMap::new();
        let mut sent = Vec::new();
        for place in places {
            let Some(queue) = self.queues.get(&place) else { continue };
            let Some(at) = self.sendable(queue, connection) else { continue };
            let Some(queue) = self.queues.get_mut(&place) else { continue };
            let again = matches!(queue[at].state, State::Again(_));
            if again {
                self.client.world.count("batches sent again");
            }
            queue[at].state = State::Flying(connection, at == 0);
            let first = queue[at].records[0].number;
            self.client.world.say(|| {
                format!("{} sends {place:?} {first}, {at} ahead, to {node}", self.client.name)
            });
            let data = PartitionProduceData::default()
                .with_index(place.1)
                .with_records(Some(queue[at].bytes.clone()));
            topics.entry(place.0.clone()).or_default().push(data);
            sent.push((place, first));
        }
        if sent.is_empty() {
            return;
        }
        let version = self.version;
        let data = topics.into_iter().map(|(topic, partitions)| {
            let data = TopicProduceData::default().with_partition_data(partitions);
            match self.client.id(&topic) {
                Some(id) if version >= WITH_IDS => data.with_topic_id(id),
                _ => data.with_name(topic_name(&topic)),
            }
        });
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(2000)
            .with_topic_data(data.collect());
        let answer = open.send::<_, ProduceResponse>(PRODUCE, version, &request);
        self.flights.push(Box::pin(async move {
            let answered = match answer {
                Ok(answer) => answer.await,
                Err(Lost) => Err(Lost),
            };
            (sent, connection, answered)
        }));
    }

    /// Takes an answer, or that there will be none.
    fn settle(&mut self, (sent, connection, answer): Answer) {
        let Ok(answer) = answer else {
            for sent in sent {
                self.client.forget(&sent.0.0, sent.0.1);
                self.again(&sent, connection);
            }
            return;
        };
        for node in &answer.node_endpoints {
            self.client.check_place(node.node_id.0, &node.host, node.port, "Produce");
        }
        let mut missing = sent;
        for topic in &answer.responses {
            let by_id = |name: &&String| self.client.id(name) == Some(topic.topic_id);
            let name = match topic.name.is_empty() {
                false => topic.name.to_string(),
                true => missing
                    .iter()
                    .map(|((name, _), _)| name)
                    .find(by_id)
                    .cloned()
                    .unwrap_or_default(),
            };
            for row in &topic.partition_responses {
                let place = (name.clone(), row.index);
                if let Some(at) = missing.iter().position(|(one, _)| *one == place) {
                    let sent = missing.remove(at);
                    self.answered(&sent, connection, row.error_code);
                }
            }
        }
        for ((topic, partition), _) in missing {
            let world = &self.client.world;
            world.violate(format!("an answer of Produce says nothing of {topic}-{partition}"));
        }
    }

    /// Where a batch stands that is under way over a connection, and whether it was the oldest.
    fn flying(&self, (place, number): &Sent, connection: usize) -> Option<(usize, bool)> {
        let queue = self.queues.get(place)?;
        let at = queue.iter().position(|batch| batch.records[0].number == *number)?;
        match queue[at].state {
            State::Flying(c, first) if c == connection => Some((at, first)),
            State::Flying(..) | State::New | State::Again(_) => None,
        }
    }

    fn again(&mut self, sent: &Sent, connection: usize) {
        let pause = BACKOFF + self.client.world.ms(0, 20);
        let place = &sent.0;
        if let Some((at, _)) = self.flying(sent, connection)
            && let Some(queue) = self.queues.get_mut(place)
        {
            queue[at].state = State::Again(Instant::now() + pause);
        }
    }

    fn answered(&mut self, sent: &Sent, connection: usize, code: i16) {
        let place = &sent.0;
        let Some((at, first)) = self.flying(sent, connection) else { return };
        let world = self.client.world.clone();
        world.say(|| format!("{} is told {code} of {sent:?}", self.client.name));
        match code {
            0 | DUPLICATE => {
                let batch = self.queues.get_mut(place).and_then(|queue| queue.remove(at));
                if let Some(batch) = batch {
                    world.ledger.borrow_mut().ack(&place.0, &batch.records);
                    world.count_by("records acknowledged", batch.records.len() as u64);
                }
                return;
            }
            // A batch before it was lost.
            OUT_OF_ORDER if !first => world.count("batches out of order"),
            NOT_STORED => world.count(NOT_STORED_BATCHES),
            code if AGAIN.contains(&code) => world.count("batches refused"),
            code => {
                let (topic, partition) = place;
                let name = &self.client.name;
                world.violate(format!("{name}: error {code} for {topic}-{partition}, {at} ahead"));
            }
        }
        if STALE.contains(&code) {
            self.client.forget(&place.0, place.1);
        }
        self.again(sent, connection);
    }
}

/// Sends with acks=0: every record once, whatever becomes of it. Now and then something with an
/// answer is asked over the same connection: nothing else may come before it.
async fn fire(world: &Rc<World>, client: &Client, orders: &Orders) {
    let topics: Vec<String> = orders.topics.iter().map(|(topic, _)| topic.clone()).collect();
    while world.phase.get() < Phase::Finish {
        tokio::time::sleep(world.rest(10, 120)).await;
        let (topic, large) = &orders.topics[world.below(orders.topics.len())];
        let partitions = usize::try_from(client.partitions(topic)).expect("few");
        let partition = i32::try_from(world.below(partitions)).expect("few");
        let Some(node) = client.leader(topic, partition) else {
            client.learn(&topics).await;
            continue;
        };
        let Ok(open) = client.to_node(node).await else {
            client.forget(topic, partition);
            continue;
        };
        let (producer, promise) = (orders.number, orders.promise);
        let number = world.ledger.borrow_mut().next(promise, producer, topic, partition);
        let bytes = if *large && world.one_in(3) { 4000 } else { 60 };
        let record = Numbered { producer, partition, number, bytes };
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch(&[record], NO_SEQUENCE)));
        let data = TopicProduceData::default()
            .with_name(topic_name(topic))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(0)
            .with_timeout_ms(2000)
            .with_topic_data(vec![data]);
        world.count("records sent with acks=0");
        if open.send_only(PRODUCE, 9, &request).is_err() || !world.one_in(4) {
            continue;
        }
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let answer: Result<MetadataResponse, _> = open.call(METADATA, 12, &request).await;
        match answer {
            Ok(answer) => client.take(&answer),
            Err(Lost) => client.learn(&topics).await,
        }
    }
    client.close_all();
}
