//! Retention: a month later the oldest segments are gone, and what their records had stored.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::kcat;
use super::virtual_topics::{assert_same, kcat_reads};
use crate::process::Scratch;
use crate::proxy::{HOST, Proxy, Tables};
use crate::rig::Rig;

const SLOTS: [&str; 3] = ["norcal", "socal", "other"];
const OF_SLOT: usize = 40;
/// Days that segments are kept, and later than that.
const KEPT: u32 = 30;
const LATER: u32 = 31;
const LIMIT: Duration = Duration::from_secs(120);

/// With the clock moved by 31 days the segments that were sealed before, and the objects that their
/// records had stored, are gone; what came after the seal is read whole.
pub fn a_month_later(rig: &mut Rig) {
    let objects = Scratch::new("objects");
    let (mut proxy, topic) = start(rig, objects.path());
    let bootstrap = format!("{HOST}:{}", proxy.port);
    let old = produce(&bootstrap, &topic, "old");
    let old_objects = stored(objects.path());
    let old_segments = segments(&proxy, &topic);
    assert_eq!(old_segments.len(), SLOTS.len(), "segments: {old_segments:?}");
    proxy.command(&["topic", "roll", &topic, "--admin", &proxy.admin()]);
    let young = produce(&bootstrap, &topic, "young");
    let young_objects: BTreeSet<PathBuf> =
        stored(objects.path()).difference(&old_objects).cloned().collect();
    assert!(!old_objects.is_empty() && !young_objects.is_empty(), "nothing was stored");
    let all = [old, young.clone()].concat();
    assert_same(&kcat_reads(&bootstrap, &topic), &all, "read before");

    assert!(proxy.terminate().success(), "{}", proxy.log_tail());
    proxy.ahead_days = LATER;
    proxy.restart();
    let until = Instant::now() + LIMIT;
    while !shown(rig).is_disjoint(&old_segments) {
        assert!(Instant::now() < until, "segments are kept:\n{}", proxy.log_tail());
        std::thread::sleep(Duration::from_millis(200));
    }
    let left = segments(&proxy, &topic);
    assert!(left.is_disjoint(&old_segments), "{left:?} after {old_segments:?}");
    assert_eq!(left.len(), 2 * SLOTS.len(), "sealed and open segments: {left:?}");
    assert_same(&kcat_reads(&bootstrap, &topic), &young, "read from the beginning");
    refused_without_reset(&bootstrap, &topic);
    rig.executed();

    let kept: BTreeSet<PathBuf> = old_objects.union(&young_objects).cloned().collect();
    assert_eq!(stored(objects.path()), kept, "objects before gc");
    // The first pass marks, one that is later than the grace deletes.
    for days in [LATER, LATER + 2] {
        proxy.ahead_days = days;
        proxy.command(&["gc", "--config", &proxy.config_file()]);
    }
    assert_eq!(stored(objects.path()), young_objects, "objects after gc");
    proxy.command(&["fsck", "--deep", "--config", &proxy.config_file()]);
    assert_same(&kcat_reads(&bootstrap, &topic), &young, "read after gc");
    println!("{} objects deleted, {} left", old_objects.len(), young_objects.len());
    rig.executed();
}

/// A reader that has no rule for it is told that its offset is out of range, in each partition that
/// lost something.
fn refused_without_reset(bootstrap: &str, topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", format!("{topic}-reader"));
    config.set("auto.offset.reset", "error").set("enable.auto.commit", "false");
    let reader: BaseConsumer = config.create().unwrap();
    for partition in 0..i32::try_from(SLOTS.len()).unwrap() {
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
        reader.assign(&at).unwrap();
        let until = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < until, "partition {partition}: no error at offset 0");
            match reader.poll(Duration::from_millis(200)) {
                None => {}
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => break,
                Some(Err(error)) => println!("reader: {error}"),
                Some(Ok(_)) => panic!("partition {partition}: a record at offset 0"),
            }
        }
    }
}

/// A proxy with a topic with days of one partition each, whose longer values are stored.
fn start(rig: &Rig, objects: &Path) -> (Proxy, String) {
    let topic = format!("aged-{}", uuid::Uuid::new_v4().simple());
    let brokers = rig.cluster.bootstrap();
    let brokers: Vec<&str> = brokers.split(',').collect();
    let proxy = Proxy::configured(
        Tables {
            advertise: HOST.to_owned(),
            listen: String::new(),
            cluster: format!("bootstrap = {brokers:?}"),
            more: format!(
                "[store]\nkind = \"local\"\npath = {objects:?}\n\
                 [[offload]]\ntopics = [\"aged-*\"]\nthreshold_bytes = 1000\n\
                 [[virtual_topic]]\nname = {topic:?}\npartitions = 1\ndays = true\n\
                 retention_days = {KEPT}\nregion = {{ header = \"region\" }}\n\
                 [[region]]\nname = \"norcal\"\n[[region]]\nname = \"socal\"\n"
            ),
        },
        rig.faults.as_deref(),
    );
    let until = Instant::now() + LIMIT;
    while segments(&proxy, &topic).len() < SLOTS.len() {
        assert!(Instant::now() < until, "no segments:\n{}", proxy.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    (proxy, topic)
}

/// Small and large records to every slot; gives their values.
fn produce(bootstrap: &str, topic: &str, what: &str) -> Vec<String> {
    let of_slot = |slot: &str| {
        let value = |n: usize| {
            let long = if n.is_multiple_of(4) { 5000 } else { 10 };
            format!("{what}-{slot}-{n}-").repeat(long / 10)
        };
        let values: Vec<String> = (0..OF_SLOT).map(value).collect();
        let header = format!("region={slot}");
        let text: String = values.iter().map(|value| format!("{value}\n")).collect();
        kcat::kcat(bootstrap, &[&["-P", "-t", topic, "-H", &header]], &text);
        values
    };
    SLOTS.iter().copied().flat_map(of_slot).collect()
}

/// The physical topics of all slots.
fn segments(proxy: &Proxy, topic: &str) -> BTreeSet<String> {
    let answer = proxy.get(&format!("/topics/{topic}")).unwrap();
    let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let slots = told["slots"].as_array().unwrap().iter();
    let segments = slots.flat_map(|slot| slot["segments"].as_array().unwrap());
    segments.map(|segment| segment["topic"].as_str().unwrap().to_owned()).collect()
}

/// The topics that brokers have.
fn shown(rig: &Rig) -> BTreeSet<String> {
    let told = kcat::kcat(&rig.cluster.bootstrap(), &[&["-L", "-J"]], "");
    let told: Value = serde_json::from_str(&told).unwrap();
    let topics = told["topics"].as_array().unwrap().iter();
    topics.map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect()
}

/// The files of a store.
fn stored(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![folder.join("v1")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}
