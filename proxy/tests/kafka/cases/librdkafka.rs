//! librdkafka through the rdkafka crate: the same questions as the Java clients get.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiKey;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::expect;
use super::records::{ACKS, CODECS};
use crate::raw;
use crate::rig::{Place, Rig};

pub fn every_codec_with_every_acks(rig: &mut Rig) {
    for codec in CODECS {
        for acks in ACKS {
            let settings = [("compression.type", codec), ("acks", acks), ("linger.ms", "20")];
            produce_and_read_back(rig, &format!("librdkafka {codec}, acks={acks}"), &settings);
        }
    }
}

pub fn idempotent_producer(rig: &mut Rig) {
    produce_and_read_back(rig, "librdkafka idempotent", &[("enable.idempotence", "true")]);
}

fn produce_and_read_back(rig: &mut Rig, what: &str, settings: &[(&str, &str)]) {
    rig.compare(what, 2, |_, place| {
        let producer = producer(&place.bootstrap, settings);
        send(&producer, &place.topic, 0..60, 200);
        producer.flush(TIMEOUT).unwrap();
        let read = read(place, &[], 60);
        assert_eq!(read.len(), 60, "{what}");
        json!([producer.context().answers(), read])
    });
}

pub fn a_record_of_thirty_megabytes(rig: &mut Rig) {
    rig.compare("librdkafka 30 MB", 1, |_, place| {
        let large = ("message.max.bytes", "41943040");
        let producer = producer(&place.bootstrap, &[large]);
        send(&producer, &place.topic, 1..2, 30 << 20);
        producer.flush(TIMEOUT).unwrap();
        let read = read(place, &[("fetch.message.max.bytes", "1048576")], 1);
        json!([producer.context().answers(), read])
    });
}

/// Commit, abort, commit; what both isolation levels read.
pub fn transactions(rig: &mut Rig) {
    rig.compare("librdkafka transactions", 2, |_, place| {
        let id = format!("{}-id", place.topic);
        let producer = producer(&place.bootstrap, &[("transactional.id", &id)]);
        producer.init_transactions(TIMEOUT).unwrap();
        for (records, commit) in [(0..20, true), (20..40, false), (40..60, true)] {
            producer.begin_transaction().unwrap();
            send(&producer, &place.topic, records, 100);
            producer.flush(TIMEOUT).unwrap();
            if commit {
                producer.commit_transaction(TIMEOUT).unwrap();
            } else {
                producer.abort_transaction(TIMEOUT).unwrap();
            }
        }
        let committed = read(place, &[("isolation.level", "read_committed")], 40);
        let uncommitted = read(place, &[("isolation.level", "read_uncommitted")], 60);
        assert_eq!((committed.len(), uncommitted.len()), (40, 60));
        json!([producer.context().answers(), committed, uncommitted])
    });
}

pub fn classic_group(rig: &mut Rig) {
    group(rig, "classic");
}

/// KIP-848.
pub fn consumer_group(rig: &mut Rig) {
    // librdkafka speaks version 1 and later; 3.9 has the early version 0 only.
    let heartbeat = ApiKey::ConsumerGroupHeartbeat;
    if *raw::versions(&rig.cluster.address(1), heartbeat).unwrap().end() < 1 {
        return rig.skip("librdkafka consumer group: ConsumerGroupHeartbeat 1");
    }
    group(rig, "consumer");
}

/// Two members share four partitions, read everything, commit; a third resumes at the commit.
fn group(rig: &mut Rig, protocol: &str) {
    rig.compare(&format!("librdkafka {protocol} group"), 4, |_, place| {
        let producer = producer(&place.bootstrap, &[]);
        send(&producer, &place.topic, 0..80, 50);
        producer.flush(TIMEOUT).unwrap();
        let members = [member(place, protocol), member(place, protocol)];
        let until = Instant::now() + Duration::from_secs(60);
        let mut seen = BTreeSet::new();
        let shared = || members.iter().all(|m| m.assignment().unwrap().count() == 2);
        while !(shared() && seen.len() == 80 && committed(&members[0], place) == [20; 4]) {
            assert!(Instant::now() < until, "{protocol}: {} read, shared {}", seen.len(), shared());
            members.iter().for_each(|member| read_and_commit(member, &mut seen));
        }
        leave(&members);
        drop(members);
        send(&producer, &place.topic, 80..84, 50);
        producer.flush(TIMEOUT).unwrap();
        let third = member(place, protocol);
        let until = Instant::now() + Duration::from_secs(60);
        let mut resumed = BTreeSet::new();
        while resumed.len() < 4 || committed(&third, place) != [21; 4] {
            assert!(Instant::now() < until, "{protocol}: resumed {resumed:?}");
            read_and_commit(&third, &mut resumed);
        }
        leave(&[third]);
        json!([seen.len(), resumed])
    });
}

fn member(place: &Place, protocol: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &place.bootstrap)
        .set("group.id", format!("{}-lib", place.topic));
    config.set("group.protocol", protocol).set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "false").set("topic.metadata.refresh.interval.ms", "1000");
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[&place.topic]).unwrap();
    member
}

/// Takes what is there. A commit that a rebalance overtook is made good by whoever owns the
/// partition next.
fn read_and_commit(member: &BaseConsumer, seen: &mut BTreeSet<String>) {
    while let Some(message) = member.poll(Duration::from_millis(50)) {
        seen.insert(place_of(&message.unwrap()));
    }
    let _ = member.commit_consumer_state(CommitMode::Sync);
}

/// Members leave, and only then may be closed: librdkafka's close hangs for good on a rebalance
/// that still waits in its queue (confluentinc/librdkafka#4884), such as the one that another
/// member's end sets off.
fn leave(members: &[BaseConsumer]) {
    members.iter().for_each(BaseConsumer::unsubscribe);
    let until = Instant::now() + TIMEOUT;
    while members.iter().any(|member| member.assignment().unwrap().count() > 0) {
        assert!(Instant::now() < until, "a member does not leave");
        for member in members {
            while member.poll(Duration::from_millis(50)).is_some() {}
        }
    }
}

/// The group's commits; 0 where there is none.
fn committed(member: &BaseConsumer, place: &Place) -> Vec<i64> {
    let mut all = TopicPartitionList::new();
    all.add_partition_range(&place.topic, 0, 3);
    let found = member.committed_offsets(all, TIMEOUT).unwrap();
    found.elements().iter().map(|e| e.offset().to_raw().unwrap_or(0).max(0)).collect()
}

/// Topics, partitions and configurations through librdkafka's admin client.
pub fn admin(rig: &mut Rig) {
    rig.compare("librdkafka admin", 0, |rig, place| {
        let mut config = ClientConfig::new();
        let admin: AdminClient<DefaultClientContext> =
            config.set("bootstrap.servers", &place.bootstrap).create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let wait = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let copies = i32::try_from(rig.cluster.brokers().len()).unwrap().min(3);
        let topic = NewTopic::new(&place.topic, 3, TopicReplication::Fixed(copies));
        let mut steps = Vec::new();
        for _ in 0..2 {
            steps.push(format!("{:?}", wait.block_on(admin.create_topics([&topic], &options))));
        }
        let of_topic = [ResourceSpecifier::Topic(&place.topic), ResourceSpecifier::Broker(1)];
        for result in wait.block_on(admin.describe_configs(&of_topic, &options)).unwrap() {
            let result = result.unwrap();
            let shown = result
                .entries
                .iter()
                .filter(|e| !e.name.contains("listeners") && !e.name.contains("quorum"));
            let mut lines: Vec<String> =
                shown.map(|e| format!("{}={:?}", e.name, e.value)).collect();
            lines.sort();
            steps.extend(lines);
        }
        steps.push(metadata(&admin, &place.topic));
        for _ in 0..2 {
            steps.push(format!(
                "{:?}",
                wait.block_on(admin.delete_topics(&[&place.topic], &options))
            ));
        }
        expect(&json!(steps), "/0", "Ok([Ok(\"TOPIC\")])".replace("TOPIC", &place.topic));
        json!(steps)
    });
}

/// What librdkafka makes of a Metadata answer: nodes, addresses, how many partitions.
fn metadata(admin: &AdminClient<DefaultClientContext>, topic: &str) -> String {
    let metadata = admin.inner().fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let brokers = metadata.brokers().iter();
    let mut nodes: Vec<String> =
        brokers.map(|b| format!("{} {}:{}", b.id(), b.host(), b.port())).collect();
    nodes.sort();
    format!("{nodes:?} {} partitions", metadata.topics()[0].partitions().len())
}

/// Every delivery report, in words.
#[derive(Default, Clone)]
pub struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    /// What came of each record.
    pub fn answers(&self) -> Vec<String> {
        let mut all = self.0.lock().unwrap().clone();
        all.sort();
        all
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0.lock().unwrap().push(match result {
            Ok(message) => place_of(message),
            Err((error, _)) => error.to_string(),
        });
    }
}

fn place_of(message: &BorrowedMessage<'_>) -> String {
    format!("{}@{}", message.partition(), message.offset())
}

pub fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> ThreadedProducer<Reports> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("message.timeout.ms", "60000");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create_with_context(Reports::default()).unwrap()
}

/// Records with null keys, empty values and doubled headers among them; partition = number of
/// partitions' turn.
pub fn send(
    producer: &ThreadedProducer<Reports>,
    topic: &str,
    records: std::ops::Range<usize>,
    size: usize,
) {
    let partitions = producer.client().fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let partitions = partitions.topics()[0].partitions().len();
    for i in records {
        let key = format!("key-{i}");
        let value = value(i, if i % 13 == 12 { 0 } else { size });
        let headers = OwnedHeaders::new()
            .insert(Header { key: "twice", value: Some("1") })
            .insert(Header { key: "none", value: None::<&str> })
            .insert(Header { key: "twice", value: Some("2") });
        let mut record = BaseRecord::to(topic).payload(&value).headers(headers);
        record = record.partition(i32::try_from(i % partitions).unwrap());
        record = record.timestamp(1_750_000_000_000 + i64::try_from(i).unwrap());
        if i % 7 > 0 {
            record = record.key(&key);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
}

/// Half repetition, half noise (a linear congruence): compressible, but not to nothing.
pub fn value(seed: usize, size: usize) -> Vec<u8> {
    let mut state = u32::try_from(seed).unwrap();
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    noise.take(size / 2).chain(std::iter::repeat_n(b'x', size - size / 2)).collect()
}

/// Reads all partitions from the start until `count` records came, and a little longer for any too
/// many.
pub fn read(place: &Place, settings: &[(&str, &str)], count: usize) -> Vec<String> {
    read_as(place, settings, count, in_words)
}

/// The same, with what is wanted of each record.
pub fn read_as(
    place: &Place,
    settings: &[(&str, &str)],
    count: usize,
    wanted: impl Fn(&BorrowedMessage<'_>) -> String,
) -> Vec<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &place.bootstrap).set("group.id", "reads-alone");
    config.set("enable.partition.eof", "true");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(&place.topic), TIMEOUT).unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        partitions.add_partition_offset(&place.topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let (mut all, mut ended) = (Vec::new(), BTreeSet::new());
    let until = Instant::now() + Duration::from_secs(60);
    while all.len() < count || ended.len() < partitions.count() {
        assert!(Instant::now() < until, "{} of {count} records, ends {ended:?}", all.len());
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                ended.remove(&message.partition());
                all.push(wanted(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    all.sort();
    all
}

fn in_words(message: &BorrowedMessage<'_>) -> String {
    let digest =
        |bytes: &[u8]| format!("{} bytes {:02x?}", bytes.len(), &Sha256::digest(bytes)[..8]);
    let headers: Vec<String> = message
        .headers()
        .map(|headers| headers.iter().map(|h| format!("{}={:?}", h.key, h.value)).collect())
        .unwrap_or_default();
    let value: Value = message.payload().map(digest).into();
    let key = message.key().map(String::from_utf8_lossy);
    format!("{} {key:?} {value} {:?} {headers:?}", place_of(message), message.timestamp())
}

pub const TIMEOUT: Duration = Duration::from_secs(60);
