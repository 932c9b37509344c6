//! A crowd: more clients at once than a machine has ports for, half of them slow or silent. Those
//! that do as clients do are served, and what the process holds keeps to its bounds.
//!
//! All connect; most ask something. Then the storm: some send half a request and wait, some ask
//! for much and do not read, and come again whenever they are cut off; the others go on as before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firebreak::limits::IO_BUFFER_BYTES;
use firebreak::metrics::Side;
use firebreak::net::sim::{WRITE_BYTES_MAX, set_write_bytes_max};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use turmoil::net::TcpStream;
use turmoil::{Builder, Sim};

use crate::brokers;
use crate::connection::{FIRST, PROXY, decoded_body, frame};
use crate::memory::live_bytes;
use crate::proxy::{self, Features};
use crate::records::{self, NO_SEQUENCE, Numbered, batch};
use crate::scenario::{Outcome, client_host, prepare, step, watched};
use crate::topology::topic_name;
use crate::world::World;

/// How large a crowd is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Clients.
    pub clients: usize,
    /// `limits.buffered_bytes_max`.
    pub buffered_bytes_max: usize,
}

const HOSTS: usize = 20;
const PARTITIONS: usize = 8;
/// Time in which all come.
const GATHERING: (u64, u64) = (1000, 5500);
/// When the storm begins, and how long it takes to grow.
const STORM: Duration = Duration::from_secs(8);
const GROWS_MS: u64 = 3000;
/// What a client asks in the storm, and the time it waits for each answer.
const ROUNDS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(25);
/// By then all are served.
const LATEST: Duration = Duration::from_secs(150);
/// Bytes of a request that is sent slowly: the first at once, then so many at a time, not to its
/// end.
const REQUEST_BYTES: u32 = 800_000;
const FIRST_BYTES: usize = 6_000;
const SENT_BYTES: usize = 60_000;
const TRICKLE: (usize, Duration) = (1_000, Duration::from_millis(300));
/// Bytes of a value that is not read to its end; readers' sockets hold less.
const LARGE_BYTES: u32 = 60_000;
const SEGMENTS: usize = 64;
const SEGMENT_BYTES: usize = 512;
/// Bytes of the values that clients have stored.
const VALUE_BYTES: u32 = 3_000;
/// Bytes that the proxy and the simulation itself may hold for a client that asked something and
/// waits: both ends of two connections.
const QUIET_BYTES_MAX: usize = 32 * 1024;
/// The same, more of it in a storm.
const BESIDES_BYTES: usize = 8 * 1024;
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;

/// What a client of a crowd is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Asks, and reads answers.
    Sound,
    /// Never sends a byte.
    Silent,
    /// Sends the first bytes of a length.
    Begins,
    /// Sends a large request a little at a time, again and again.
    Sends,
    /// Asks for a large answer and does not read it, again and again.
    Asks,
}

impl Kind {
    fn of(n: usize) -> Self {
        match n % 16 {
            0..8 => Self::Sound,
            8..13 => Self::Silent,
            13 => Self::Begins,
            14 => Self::Sends,
            _ => Self::Asks,
        }
    }
}

/// What a crowd saw.
#[derive(Debug, Default)]
struct Seen {
    /// Longest wait for an answer.
    longest: Cell<Duration>,
    /// Acknowledged: small records, and values that were to be stored.
    acked: RefCell<Vec<Numbered>>,
    stored: Cell<usize>,
}

/// Runs a crowd.
pub fn run(seed: u64, size: Size) -> Outcome {
    let outcome = watched(seed, |world| simulate(world, size));
    set_write_bytes_max(WRITE_BYTES_MAX);
    outcome
}

fn simulate(world: &Rc<World>, size: Size) {
    set_write_bytes_max(SEGMENT_BYTES);
    world.idle.set(LATEST * 2);
    let features = Features { offload: true, routed: false };
    prepare(world, features, PARTITIONS);
    let mut sim = Builder::new()
        .rng_seed(world.seed)
        .tick_duration(Duration::from_millis(5))
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(SEGMENTS)
        .ephemeral_ports(20_000..=65_535)
        .build();
    let seen = Rc::new(Seen::default());
    hosts(&mut sim, world, features, size, &seen);
    let connected = |side| {
        let plane = world.plane.borrow();
        let open = plane.as_ref().map_or(0, |plane| plane.metrics.open_connections(side));
        usize::try_from(open).unwrap_or(0)
    };
    let before = live_bytes();
    while sim.elapsed() < STORM {
        if !step(&mut sim, world) {
            return;
        }
    }
    let quiet = live_bytes() - before;
    let open = connected(Side::Client);
    world.count_by("clients connected", open as u64);
    world.count_by("broker connections", connected(Side::Broker) as u64);
    world.count_by("bytes held for a quiet client", (quiet / size.clients) as u64);
    if open != size.clients {
        world.violate(format!("{open} of {} clients are connected", size.clients));
    }
    if quiet > size.clients * QUIET_BYTES_MAX {
        world.violate(format!("{} bytes held for each quiet client", quiet / size.clients));
    }
    let mut peak = (0, 0);
    while world.busy.get() > 0 {
        if !step(&mut sim, world) {
            return;
        }
        let held = live_bytes().saturating_sub(before + quiet);
        let most = bytes_max(size, waiting(world));
        peak = peak.max((held, most));
        if held > most {
            return world.violate(format!("{held} bytes held in the storm, {most} may be"));
        }
        if sim.elapsed() > LATEST {
            return world.violate(format!("{} clients are not served", world.busy.get()));
        }
    }
    world.count_by("seconds", sim.elapsed().as_secs());
    world.count_by("bytes held in the storm", peak.0 as u64);
    world.count_by("bytes that might be then", peak.1 as u64);
    let longest = u64::try_from(seen.longest.get().as_millis()).expect("small");
    world.count_by("milliseconds of the longest wait", longest);
    check_kept(world, &seen);
}

/// Clients that wait for room.
fn waiting(world: &World) -> usize {
    let Some(plane) = world.plane.borrow().clone() else { return 0 };
    let restored = plane.offload.as_ref().map_or(0, |offload| offload.restored_room().waiting());
    plane.requests.waiting() + plane.responses.waiting() + restored
}

/// Bytes that a storm may take: all room; a buffer for each client that is within a request or
/// waits for room; what sockets hold of answers that nobody reads; and a little for each client.
fn bytes_max(size: Size, waiting: usize) -> usize {
    let some = size.clients / 16;
    let buffers = (2 * some + waiting) * IO_BUFFER_BYTES;
    let sockets = some * SEGMENTS * SEGMENT_BYTES;
    size.buffered_bytes_max + buffers + sockets + size.clients * BESIDES_BYTES
}

fn hosts(sim: &mut Sim<'_>, world: &Rc<World>, features: Features, size: Size, seen: &Rc<Seen>) {
    for n in 0..brokers::HOSTS {
        let world = world.clone();
        sim.host(brokers::host(n), move || brokers::run(world.clone(), n));
    }
    let limits = format!(
        "frame_bytes_max = 1000000\nbuffered_bytes_max = {}\nconnections_max = {}\n\
         first_request_ms = 300000\nframe_progress_ms = 1000\nidle_ms = 300000",
        size.buffered_bytes_max,
        size.clients * 2,
    );
    let config = proxy::config(features, &limits);
    let of_proxy = world.clone();
    sim.host(PROXY, move || proxy::run(of_proxy.clone(), config.clone()));
    let sound = (0..size.clients).filter(|n| Kind::of(*n) == Kind::Sound).count();
    world.busy.set(sound);
    for host in 0..HOSTS {
        let (world, seen) = (world.clone(), seen.clone());
        sim.host(client_host(host), move || {
            let (world, seen) = (world.clone(), seen.clone());
            async move {
                if host == 0 {
                    fill(&world).await;
                }
                for n in (0..size.clients).filter(|n| n / 16 % HOSTS == host) {
                    let member = Member { world: world.clone(), seen: seen.clone(), n };
                    tokio::task::spawn_local(member.live());
                }
                std::future::pending::<()>().await;
                Ok(())
            }
        });
    }
}

/// Puts a large value at the start of every partition.
async fn fill(world: &World) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    for partition in 0..i32::try_from(PARTITIONS).expect("few") {
        let node = leader(world, "big-x", partition);
        let mut open = Open::new(node).await.expect("a connection");
        let record = Numbered { producer: u32::MAX, partition, number: 0, bytes: LARGE_BYTES };
        let request = produce("big-x", record);
        let answer: ProduceResponse =
            open.ask("fill", PRODUCE, 9, &request).await.expect("an answer");
        assert_eq!(error_of(&answer), Some(0), "a value was not stored");
    }
}

fn leader(world: &World, topic: &str, partition: i32) -> i32 {
    let cluster = world.cluster.borrow();
    let topic = cluster.topics.iter().find(|t| t.name == topic).expect("a topic");
    topic.logs[usize::try_from(partition).expect("small")].leader.expect("a leader").0
}

/// A connection to a virtual broker.
struct Open {
    stream: TcpStream,
    correlation: i32,
}

impl Open {
    async fn new(node: i32) -> std::io::Result<Self> {
        let port = u16::try_from(i32::from(FIRST) + node).map_err(std::io::Error::other)?;
        Ok(Self { stream: TcpStream::connect((PROXY, port)).await?, correlation: 0 })
    }

    /// Asks and waits for the answer.
    async fn ask<Q, A>(&mut self, name: &str, api: i16, v: i16, request: &Q) -> Result<A, String>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.correlation += 1;
        let asked = frame(name, api, v, self.correlation, request);
        let io = |error: std::io::Error| format!("api {api}: {error}");
        self.stream.write_all(&asked).await.map_err(io)?;
        let length = self.stream.read_i32().await.map_err(io)?;
        let mut answer = BytesMut::zeroed(usize::try_from(length).map_err(|e| e.to_string())?);
        self.stream.read_exact(&mut answer).await.map_err(io)?;
        if answer.get(..4) != Some(&self.correlation.to_be_bytes()) {
            return Err(format!("api {api}: the answer is another's"));
        }
        decoded_body(v, &answer.freeze())
    }
}

fn produce(topic: &str, record: Numbered) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(record.partition)
        .with_records(Some(batch(&[record], NO_SEQUENCE)));
    let data =
        TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![data])
}

fn error_of(answer: &ProduceResponse) -> Option<i16> {
    let topic = answer.responses.first()?;
    topic.partition_responses.first().map(|row| row.error_code)
}

/// Asks for the large value of a partition.
fn fetch(partition: i32) -> FetchRequest {
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(0)
        .with_partition_max_bytes(100);
    let asked = FetchTopic::default().with_topic(topic_name("big-x")).with_partitions(vec![asked]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(100)
        .with_max_bytes(100)
        .with_topics(vec![asked])
}

/// One of the crowd.
struct Member {
    world: Rc<World>,
    seen: Rc<Seen>,
    n: usize,
}

impl Member {
    async fn live(self) {
        let start = Instant::now();
        let (from, to) = GATHERING;
        tokio::time::sleep(self.world.ms(from, to)).await;
        let kind = Kind::of(self.n);
        let partition = i32::try_from(self.world.below(PARTITIONS)).expect("few");
        let node = leader(&self.world, "big-x", partition);
        let Ok(mut open) = Open::new(node).await else {
            return self.complain("could not connect");
        };
        if matches!(kind, Kind::Sound | Kind::Sends | Kind::Asks) {
            self.learn(&mut open).await;
        }
        tokio::time::sleep_until(start + STORM + self.world.ms(0, GROWS_MS)).await;
        match kind {
            Kind::Sound => self.work(&mut open, partition).await,
            Kind::Silent => {}
            Kind::Begins => {
                // It may be gone by now.
                let _ = open.stream.write_all(&[0, 0]).await;
            }
            Kind::Sends => self.send_slowly(open, node, partition).await,
            Kind::Asks => self.ask_in_vain(open, node, partition).await,
        }
        // Nobody leaves.
        std::future::pending::<()>().await;
    }

    fn complain(&self, why: impl std::fmt::Display) {
        self.world.violate(format!("client {}: {why}", self.n));
    }

    fn name(&self) -> String {
        format!("m{}", self.n)
    }

    async fn asked<Q, A>(&self, open: &mut Open, api: i16, v: i16, request: &Q) -> Option<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let began = Instant::now();
        let name = self.name();
        let answer = tokio::time::timeout(PATIENCE, open.ask(&name, api, v, request)).await;
        self.seen.longest.set(self.seen.longest.get().max(began.elapsed()));
        self.world.count("answers");
        match answer {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(why)) => self.complain(why),
            Err(_) => self.complain(format!("no answer to {api} in {PATIENCE:?}")),
        }
        None
    }

    async fn learn(&self, open: &mut Open) {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let answer: Option<MetadataResponse> = self.asked(open, METADATA, 12, &request).await;
        if answer.is_some_and(|answer| answer.brokers.len() != brokers::HOSTS) {
            self.complain("Metadata without all brokers");
        }
    }

    /// What a client does all day.
    async fn work(&self, open: &mut Open, partition: i32) {
        for round in 0..ROUNDS {
            let producer = u32::try_from(self.n).expect("few");
            let number = u32::try_from(round).expect("few");
            match self.world.below(4) {
                0 => self.learn(open).await,
                1 => {
                    let answer: Option<FetchResponse> =
                        self.asked(open, FETCH, 11, &fetch(partition)).await;
                    self.check_value(answer);
                }
                kind => {
                    let bytes = if kind == 2 { VALUE_BYTES } else { 100 };
                    let record = Numbered { producer, partition, number, bytes };
                    let request = produce("big-x", record);
                    let answer: Option<ProduceResponse> =
                        self.asked(open, PRODUCE, 9, &request).await;
                    match answer.as_ref().and_then(error_of) {
                        Some(0) if kind == 2 => self.seen.stored.set(self.seen.stored.get() + 1),
                        Some(0) => self.seen.acked.borrow_mut().push(record),
                        error => self.complain(format!("Produce: {error:?}")),
                    }
                }
            }
            tokio::time::sleep(self.world.ms(0, 3000)).await;
        }
        self.world.busy.set(self.world.busy.get() - 1);
    }

    fn check_value(&self, answer: Option<FetchResponse>) {
        let row = answer.and_then(|mut answer| answer.responses.pop()?.partitions.pop());
        let records = row.and_then(|row| row.records).unwrap_or_default();
        match records::read(&records) {
            Ok(records) if records.iter().any(|(_, record)| record.bytes == LARGE_BYTES) => {
                self.world.count("large values read");
            }
            Ok(_) => self.complain("the large value did not come"),
            Err(why) => self.complain(why),
        }
    }

    /// Sends large requests a little at a time, each until it is cut off.
    async fn send_slowly(&self, mut open: Open, node: i32, partition: i32) {
        loop {
            let frame = self.large_request(partition);
            let (mut from, mut to) = tokio::io::split(open.stream);
            let trickle = async {
                to.write_all(&frame[..FIRST_BYTES]).await?;
                for piece in frame[FIRST_BYTES..].chunks(TRICKLE.0) {
                    tokio::time::sleep(TRICKLE.1).await;
                    to.write_all(piece).await?;
                }
                std::io::Result::Ok(())
            };
            let mut byte = [0];
            tokio::select! {
                biased;
                _ = from.read(&mut byte) => self.world.count("senders cut off"),
                sent = trickle => self.world.count(match sent {
                    Ok(()) => "slow requests sent to their ends",
                    Err(_) => "senders cut off",
                }),
            }
            drop((from, to));
            tokio::time::sleep(self.world.ms(1000, 3000)).await;
            let Ok(opened) = Open::new(node).await else {
                return self.complain("could not come again");
            };
            open = opened;
        }
    }

    /// What a slow sender gets to send of a request before it is cut off.
    fn large_request(&self, partition: i32) -> Bytes {
        let record = Numbered { producer: u32::MAX, partition, number: 1, bytes: REQUEST_BYTES };
        let request = frame(&self.name(), PRODUCE, 9, 1, &produce("big-x", record));
        Bytes::copy_from_slice(&request[..SENT_BYTES])
    }

    /// Asks for a large value and does not read it.
    async fn ask_in_vain(&self, mut open: Open, node: i32, partition: i32) {
        loop {
            let request = frame(&self.name(), FETCH, 11, 1, &fetch(partition));
            // Cut off or not: it sees nothing, since it does not read.
            let _ = open.stream.write_all(&request).await;
            tokio::time::sleep(self.world.ms(3000, 6000)).await;
            self.world.count("answers not read");
            drop(open);
            let Ok(opened) = Open::new(node).await else {
                return self.complain("could not come again");
            };
            open = opened;
        }
    }
}

/// What was acknowledged must be in the logs, once.
fn check_kept(world: &World, seen: &Seen) {
    let cluster = world.cluster.borrow();
    let batches = || cluster.topics.iter().flat_map(|topic| &topic.logs).flat_map(|l| l.batches());
    let mut copies: BTreeMap<Numbered, usize> = BTreeMap::new();
    let mut references = 0;
    for batch in batches() {
        match records::references(batch) {
            0 => {
                let read = records::read(batch).unwrap_or_default();
                read.into_iter().for_each(|(_, n)| *copies.entry(n).or_default() += 1);
            }
            some => references += some,
        }
    }
    let acked = seen.acked.borrow();
    let lost = acked.iter().filter(|record| copies.get(record) != Some(&1)).count();
    if lost > 0 {
        world.violate(format!("{lost} of {} acknowledged records are not there once", acked.len()));
    }
    let stored = seen.stored.get() + PARTITIONS;
    if references != stored {
        world.violate(format!("{references} references of {stored} values that were stored"));
    }
    world.count_by("records acknowledged", acked.len() as u64);
    world.count_by("values stored", stored as u64);
}
