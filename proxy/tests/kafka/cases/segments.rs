//! Days: segments end under a producer and a reader, and neither may notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::proxy::{HOST, Proxy, Tables};
use crate::rig::Rig;

/// Partitions of each slot.
const PARTITIONS: i32 = 2;
const SLOTS: [&str; 3] = ["norcal", "socal", "other"];
const ROLLS: usize = 5;
const LIMIT: Duration = Duration::from_secs(120);

/// What became of records.
#[derive(Default)]
struct Reports {
    written: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.written.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => self.failed.lock().unwrap().push(error.to_string()),
        }
    }
}

/// Five rolls under an idempotent producer: every record that was acknowledged is read once, in
/// the order of its key, by a reader that meets no gap and no reset.
pub fn rolls_under_load(rig: &mut Rig) {
    let (proxy, topic) = start(rig);
    let bootstrap = format!("{HOST}:{}", proxy.port);
    let before = segments(&proxy, &topic);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (bootstrap, topic, stop) = (bootstrap.clone(), topic.clone(), stop.clone());
        move || write(&bootstrap, &topic, &stop)
    });
    let sent = Arc::new(AtomicUsize::new(usize::MAX));
    let reader = std::thread::spawn({
        let (bootstrap, topic, sent) = (bootstrap, topic.clone(), sent.clone());
        move || read(&bootstrap, &topic, &sent)
    });
    for _ in 0..ROLLS {
        std::thread::sleep(Duration::from_secs(2));
        roll(&proxy, &topic);
    }
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    sent.store(written, Ordering::Relaxed);
    let read = reader.join().unwrap();
    assert_eq!(read, written, "records read, of those written");
    let after = segments(&proxy, &topic);
    for (slot, count) in &after {
        assert_eq!(*count, before[slot] + ROLLS, "segments of {slot}");
    }
    assert_eq!(after.len(), SLOTS.len(), "slots");
    let contradictions = "firebreak_routed_parts_total{result=\"contradiction\"}";
    assert!(proxy.metric(contradictions) < 0.5, "contradictions");
    assert_eq!(proxy.logged("has grown"), 0, "sealed segments that grew");
    println!("{written} records over {after:?} segments");
    rig.executed();
}

/// A proxy with a topic with days, once each slot has a segment.
fn start(rig: &Rig) -> (Proxy, String) {
    let topic = format!("days-{}", uuid::Uuid::new_v4().simple());
    let brokers = rig.cluster.bootstrap();
    let brokers: Vec<&str> = brokers.split(',').collect();
    let proxy = Proxy::configured(
        Tables {
            advertise: HOST.to_owned(),
            listen: String::new(),
            cluster: format!("bootstrap = {brokers:?}"),
            more: format!(
                "[[virtual_topic]]\nname = {topic:?}\npartitions = {PARTITIONS}\ndays = true\n\
             region = {{ header = \"region\" }}\n\
             [[region]]\nname = \"norcal\"\n[[region]]\nname = \"socal\"\n"
            ),
        },
        rig.faults.as_deref(),
    );
    let until = Instant::now() + LIMIT;
    while segments(&proxy, &topic).values().filter(|count| **count > 0).count() < SLOTS.len() {
        assert!(Instant::now() < until, "no segments:\n{}", proxy.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    (proxy, topic)
}

/// Segments of each slot.
fn segments(proxy: &Proxy, topic: &str) -> BTreeMap<String, usize> {
    let answer = proxy.get(&format!("/topics/{topic}")).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let told: Value = serde_json::from_str(body).unwrap();
    let slots = told["slots"].as_array().unwrap().iter();
    let counts = slots.map(|slot| {
        let name = slot["slot"].as_str().unwrap().to_owned();
        (name, slot["segments"].as_array().unwrap().len())
    });
    counts.collect()
}

/// As an operator does it.
fn roll(proxy: &Proxy, topic: &str) {
    let out = proxy.command(&["topic", "roll", topic, "--admin", &proxy.admin()]);
    assert_eq!(out.lines().count(), SLOTS.len(), "new segments: {out}");
}

/// Writes until it is stopped; gives the records that were acknowledged.
fn write(bootstrap: &str, topic: &str, stop: &AtomicBool) -> usize {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true");
    config.set("linger.ms", "5").set("message.timeout.ms", "60000");
    let producer: ThreadedProducer<Reports> =
        config.create_with_context(Reports::default()).unwrap();
    let mut number = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            let (value, key) = (number.to_string(), format!("key-{}", number % 8));
            let region = SLOTS[number / 8 % SLOTS.len()];
            let header = Header { key: "region", value: Some(region) };
            let headers = OwnedHeaders::new().insert(header);
            let record = BaseRecord::to(topic).key(&key).payload(&value).headers(headers);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let failed = producer.context().failed.lock().unwrap();
    assert!(failed.is_empty(), "{} records failed: {:?}", failed.len(), failed.first());
    let written = producer.context().written.load(Ordering::Relaxed);
    assert_eq!(written, number, "records acknowledged, of those sent");
    written
}

/// Reads all partitions until everything that was sent has come; gives how many records did.
fn read(bootstrap: &str, topic: &str, sent: &AtomicUsize) -> usize {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", format!("{topic}-reader"));
    config.set("auto.offset.reset", "error").set("enable.auto.commit", "false");
    let reader: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    let partitions = PARTITIONS * i32::try_from(SLOTS.len()).unwrap();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
    }
    reader.assign(&all).unwrap();
    let (mut seen, mut next) = (BTreeSet::new(), BTreeMap::<i32, i64>::new());
    let mut newest = BTreeMap::<(i32, String), usize>::new();
    let mut until = Instant::now() + LIMIT;
    while seen.len() < sent.load(Ordering::Relaxed) {
        assert!(Instant::now() < until, "{} records, and nothing more comes", seen.len());
        match reader.poll(Duration::from_millis(200)) {
            None => {}
            // Leaders move and connections end; a reset or a gap is something else.
            Some(Err(KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange),
            ))) => panic!("a reset: {code}"),
            Some(Err(error)) => println!("reader: {error}"),
            Some(Ok(message)) => {
                until = Instant::now() + LIMIT;
                let at = next.entry(message.partition()).or_default();
                assert_eq!(message.offset(), *at, "offset in partition {}", message.partition());
                *at += 1;
                let text =
                    |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                let number: usize = text(message.payload()).parse().unwrap();
                assert!(seen.insert(number), "record {number} came twice");
                let key = (message.partition(), text(message.key()));
                if let Some(before) = newest.insert(key, number) {
                    assert!(before < number, "record {number} came behind {before}");
                }
            }
        }
    }
    seen.len()
}
