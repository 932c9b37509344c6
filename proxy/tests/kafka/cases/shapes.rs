//! Logs of particular shapes with large values in a store, on a real Kafka: times that brokers
//! give, a cleaner that ran, a topic that was deleted and made anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use super::librdkafka::{TIMEOUT, producer, read_as, send, value};
use super::offload::{PARTITIONS, files, local, start_with};
use super::{command, expect, kcat, objects, sha256, upkeep};
use crate::process::Scratch;
use crate::proxy::Proxy;
use crate::rig::{Place, Rig, tell};

/// Bytes of a large value.
const LARGE: usize = 30_000;

/// A local store, a proxy and a topic for which this is set.
fn start(rig: &mut Rig, configs: &Value) -> (Scratch, Proxy, Place) {
    let store = Scratch::new("store");
    let (proxy, place) = start_with(rig, &local(&store), ("", String::new()), configs);
    (store, proxy, place)
}

/// Hashes of the values of so many records, whatever their order.
fn hashes(place: &Place, count: usize) -> Vec<String> {
    read_as(place, &[], count, |message| sha256(message.payload().unwrap_or_default()))
}

/// Hashes of the values that [`send`] writes.
fn sent(records: std::ops::Range<usize>) -> Vec<String> {
    let value = |i: usize| value(i, if i % 13 == 12 { 0 } else { LARGE });
    let mut all: Vec<String> = records.map(|i| sha256(&value(i))).collect();
    all.sort();
    all
}

/// Nothing is missing and every object is what was stored.
fn is_sound(proxy: &Proxy) -> Value {
    let report = upkeep(proxy, &["fsck", "--deep"]);
    for found in ["dangling", "damaged"] {
        assert_eq!(report[found], json!([]), "{found} in {report:#}");
    }
    assert!(objects(&report, "referred") > 0, "nothing is referred to: {report:#}");
    report
}

/// The broker gives records their times: clients of the proxy are given the same times, with the
/// values that were sent.
pub fn append_times(rig: &mut Rig) {
    let configs = json!({"message.timestamp.type": "LogAppendTime"});
    let (_store, proxy, place) = start(rig, &configs);
    for (codec, records) in [("none", 0..30), ("zstd", 30..60)] {
        let producer = producer(&place.bootstrap, &[("compression.type", codec)]);
        send(&producer, &place.topic, records, LARGE);
        producer.flush(TIMEOUT).unwrap();
    }
    let times = |place: &Place| {
        read_as(place, &[], 60, |message| {
            format!("{}@{} {:?}", message.partition(), message.offset(), message.timestamp())
        })
    };
    let direct = times(&rig.place(false, &place.topic));
    assert_eq!(times(&place), direct, "times through the proxy");
    let stamped = direct.iter().filter(|line| line.contains("LogAppendTime(")).count();
    assert_eq!(stamped, 60, "records with the broker's time: {direct:#?}");
    assert_eq!(hashes(&place, 60), sent(0..60), "values through the proxy");
    let outcome = rig.java.must("consume", command(&place, &json!({"at_least": 60})));
    expect(&outcome, "/records", 60);
    is_sound(&proxy);
    rig.executed();
}

/// The cleaner has taken records out of batches, and whole batches: what is left is read by every
/// client, and packs that nothing is left of go.
pub fn cleaned(rig: &mut Rig) {
    let configs = json!({
        "cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.001",
    });
    let (store, mut proxy, place) = start(rig, &configs);
    let mut latest = BTreeMap::new();
    // What the second round writes the third one writes again.
    for (round, (codec, keys)) in [("none", 24), ("zstd", 8), ("lz4", 8)].into_iter().enumerate() {
        let settings = [("compression.type", codec), ("linger.ms", "200")];
        write(&place, &settings, &mut latest, (0..keys).map(|n| (n, round * 100 + n, LARGE)));
        // Later than a segment is written to.
        std::thread::sleep(Duration::from_millis(1300));
    }
    // Nothing of the segments before these is written to any more.
    let last = (0..PARTITIONS).map(|n| (1000 + n, n, 100));
    write(&place, &[], &mut latest, last);
    let direct = rig.place(false, &place.topic);
    let places = |place: &Place| {
        read_as(place, &[], latest.len(), |message| {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            format!("{}@{} {key}", message.partition(), message.offset())
        })
    };
    let until = Instant::now() + TIMEOUT;
    while places(&direct).len() > latest.len() {
        assert!(Instant::now() < until, "the cleaner leaves {} records", places(&direct).len());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(places(&place), places(&direct), "records through the proxy");
    let expected: Vec<String> = latest.iter().map(|(key, hash)| format!("{key} {hash}")).collect();
    assert_eq!(by_key(&place, latest.len()), expected, "values by key");
    let from = ["-C", "-q", "-e", "-t", &place.topic, "-o", "beginning", "-f", "%k\\n"];
    let keys = kcat::kcat(&place.bootstrap, &[&from], "");
    assert_eq!(keys.lines().count(), latest.len(), "records read by kcat: {keys}");
    let outcome = rig.java.must("consume", command(&place, &json!({"at_least": latest.len()})));
    expect(&outcome, "/records", latest.len());

    let before = is_sound(&proxy);
    let unreferred = objects(&before, "stored") - objects(&before, "referred");
    assert!(unreferred > 0, "every pack is referred to: {before:#}");
    // The first pass marks, one that is later than the grace deletes.
    proxy.ahead_days = 2;
    assert_eq!(objects(&upkeep(&proxy, &["gc"]), "marked"), unreferred, "packs that are marked");
    proxy.ahead_days = 4;
    assert_eq!(objects(&upkeep(&proxy, &["gc"]), "deleted"), unreferred, "packs that are deleted");
    let after = is_sound(&proxy);
    assert_eq!(objects(&after, "stored"), objects(&before, "referred"), "packs left");
    let left = files(&store.path().join("objects/v1")).len();
    assert_eq!(left as u64, objects(&after, "stored"), "files left");
    assert_eq!(by_key(&place, latest.len()), expected, "values by key after gc");
    tell(&format!("cleaned: {} records left, {unreferred} packs deleted", latest.len()));
    rig.executed();
}

/// Records of these keys, seeds and bytes, each in the partition of its key; the hash of each value
/// is the latest of its key.
fn write(
    place: &Place,
    settings: &[(&str, &str)],
    latest: &mut BTreeMap<String, String>,
    records: impl Iterator<Item = (usize, usize, usize)>,
) {
    let producer = producer(&place.bootstrap, settings);
    for (n, seed, bytes) in records {
        let (key, value) = (format!("key-{n:04}"), value(seed, bytes));
        let partition = i32::try_from(n % PARTITIONS).unwrap();
        let record = BaseRecord::to(&place.topic).key(&key).payload(&value).partition(partition);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        latest.insert(key, sha256(&value));
    }
    producer.flush(TIMEOUT).unwrap();
}

/// Keys, in order, and the hashes of their values.
fn by_key(place: &Place, count: usize) -> Vec<String> {
    read_as(place, &[], count, |message| {
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        format!("{key} {}", sha256(message.payload().unwrap_or_default()))
    })
}

/// A topic is deleted and another one made under its name while the proxy runs: its readers are
/// given its own values, and of the old one's objects nothing is taken for its.
pub fn made_anew(rig: &mut Rig) {
    let (store, mut proxy, place) = start(rig, &json!({}));
    let first = producer(&place.bootstrap, &[]);
    send(&first, &place.topic, 0..26, LARGE);
    first.flush(TIMEOUT).unwrap();
    assert_eq!(hashes(&place, 26), sent(0..26), "values of the first topic");
    let old = files(&store.path().join("objects/v1")).len() as u64;
    assert!(old > 0, "nothing was stored");
    drop(first);
    let deleted = json!({"bootstrap": rig.cluster.bootstrap(), "topic": place.topic});
    rig.java.must("delete-topic", deleted);
    rig.create_topic(&place.topic, PARTITIONS);

    // The one names the topic, the other one its id.
    let second = producer(&place.bootstrap, &[]);
    send(&second, &place.topic, 100..126, LARGE);
    second.flush(TIMEOUT).unwrap();
    assert_eq!(hashes(&place, 26), sent(100..126), "values of the second topic");
    let java = json!({"partitions": PARTITIONS, "count": 22, "size": LARGE});
    let outcome = rig.java.must("produce", command(&place, &java));
    expect(&outcome, "/answers", json!({"offset given": 22}));
    let outcome = rig.java.must("consume", command(&place, &json!({"at_least": 48})));
    expect(&outcome, "/records", 48);
    let report = is_sound(&proxy);
    let (stored, referred) = (objects(&report, "stored"), objects(&report, "referred"));
    assert_eq!(stored - referred, old, "packs of the topic that is gone: {report:#}");
    // They stay unless somebody says that such topics are gone.
    for days in [2, 4] {
        proxy.ahead_days = days;
        let report = upkeep(&proxy, &["gc"]);
        assert_eq!((objects(&report, "hidden"), objects(&report, "deleted")), (old, 0), "by gc");
    }
    let outcome = rig.java.must("consume", command(&place, &json!({"at_least": 48})));
    expect(&outcome, "/records", 48);
    rig.executed();
}
