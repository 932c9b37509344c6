//! Large values in a store, by clients that know nothing of it, on a real Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use serde_json::{Value, json};

use super::librdkafka::{TIMEOUT, producer, read, send};
use super::{command, expect, kcat};
use crate::ports;
use crate::process::Scratch;
use crate::proxy::{HOST, NODES, Proxy, Tables};
use crate::rig::{Place, Rig, tell};

/// Partitions of its topic.
pub const PARTITIONS: usize = 2;

/// A proxy with a local store, and a topic whose values above 1,000 bytes go there, by a rule with
/// this line.
pub fn start(rig: &mut Rig, store: &Scratch, rule: &str) -> (Proxy, Place) {
    start_with(rig, &local(store), (rule, String::new()), &json!({}))
}

/// The lines of `[store]` for a folder.
pub fn local(store: &Scratch) -> String {
    format!("kind = \"local\"\npath = {:?}\n", store.path().join("objects"))
}

/// The same with these lines of `[store]`, `[[offload]]` and `[listen]`, and with what is set for
/// the topic.
pub fn start_with(
    rig: &mut Rig,
    store: &str,
    (rule, listen): (&str, String),
    configs: &Value,
) -> (Proxy, Place) {
    let topic = format!("stored-{}", uuid::Uuid::new_v4().simple());
    rig.create_topic_with(&topic, PARTITIONS, configs);
    let brokers = rig.cluster.bootstrap();
    let brokers: Vec<&str> = brokers.split(',').collect();
    let more = format!(
        "[store]\n{store}\
         [[offload]]\ntopics = [{topic:?}]\nthreshold_bytes = 1000\n{rule}\n",
    );
    let advertise = HOST.to_owned();
    let cluster = format!("bootstrap = {brokers:?}");
    let tables = Tables { advertise, listen, cluster, more };
    let proxy = Proxy::configured(tables, rig.faults.as_deref());
    let mut place = Place::proxied(proxy.port, &rig.cluster.brokers(), &topic);
    place.bootstrap = format!("{HOST}:{}", proxy.port);
    (proxy, place)
}

/// A share group of two Java consumers: every value is what was sent, each accepted once, one
/// released and one rejected on the way.
pub fn share_group(rig: &mut Rig) {
    let store = Scratch::new("store");
    let (proxy, place) = start(rig, &store, "");
    let Some(outcome) = rig.java.run("share", command(&place, &json!({"size": 30_000}))) else {
        return rig.skip("share group beside a store");
    };
    expect(&outcome, "/accepted", 98);
    expect(&outcome, "/released", 2);
    expect(&outcome, "/rejected", 2);
    expect(&outcome, "/wrong values", 0);
    let restored = proxy.metric("firebreak_offload_objects_total{op=\"restore\"}");
    assert!(restored > 80.0, "{restored} values restored");
    rig.executed();
}

/// A passthrough listener: kcat, which takes record batches only from brokers that show Produce,
/// and a newer librdkafka read references there, and what they write is refused and nowhere.
pub fn raw_references(rig: &mut Rig) {
    let store = Scratch::new("store");
    let port = ports::free(&[HOST], NODES + 1);
    let listen = format!(
        "passthrough = {{ bootstrap = \"{HOST}:{port}\", ports = \"{}-{}\" }}",
        port + 1,
        port + NODES,
    );
    let (_proxy, place) = start_with(rig, &local(&store), ("", listen), &json!({}));
    let sender = producer(&place.bootstrap, &[]);
    send(&sender, &place.topic, 0..30, 60_000);
    sender.flush(TIMEOUT).unwrap();
    let mut raw = Place::proxied(port, &rig.cluster.brokers(), &place.topic);
    raw.bootstrap = format!("{HOST}:{port}");
    let from = ["-C", "-q", "-e", "-t", &raw.topic, "-o", "beginning", "-f", "%S\\n"];
    let sizes = kcat::kcat(&raw.bootstrap, &[&from], "");
    let count = |bytes: &str| sizes.lines().filter(|line| *line == bytes).count();
    assert_eq!((count("112"), count("0")), (28, 2), "bytes of values read by kcat: {sizes}");
    assert_eq!(read(&raw, &[], 30).len(), 30, "records read by librdkafka");
    let mut write = kcat::command(20);
    write.args(["kcat", "-P", "-b", &raw.bootstrap, "-t", &raw.topic, "-X", "retries=0"]);
    let mut child = write.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"no\n").unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("Topic authorization failed"), "kcat writes: {said}");
    assert_eq!(read(&place, &[], 30).len(), 30, "records after a write that was refused");
    rig.executed();
}

/// The way out: a topic is copied, the command killed again and again on the way, the proxy ended,
/// and the copy read without it is what was read before, record for record.
pub fn the_way_out(rig: &mut Rig) {
    let store = Scratch::new("store");
    let (mut proxy, place) = start(rig, &store, "");
    for (codec, records) in [("zstd", 0..60), ("none", 60..120), ("lz4", 120..180)] {
        let settings = [("compression.type", codec), ("enable.idempotence", "true")];
        let producer = producer(&place.bootstrap, &settings);
        send(&producer, &place.topic, records, 60_000);
        producer.flush(TIMEOUT).unwrap();
    }
    let id = format!("{}-id", place.topic);
    let transactional = producer(&place.bootstrap, &[("transactional.id", &id)]);
    transactional.init_transactions(TIMEOUT).unwrap();
    for (records, commit) in [(180..190, true), (190..200, false), (200..210, true)] {
        transactional.begin_transaction().unwrap();
        send(&transactional, &place.topic, records, 20_000);
        transactional.flush(TIMEOUT).unwrap();
        match commit {
            true => transactional.commit_transaction(TIMEOUT).unwrap(),
            false => transactional.abort_transaction(TIMEOUT).unwrap(),
        }
    }
    let before = in_order(&read(&place, &COMMITTED, 200));
    let config = proxy.config_file();
    let mut run = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    run.args(["rehydrate", &place.topic, "--json", "--config"]).arg(&config);
    let copy = rig.place(false, &format!("{}-rehydrated", place.topic));
    run.stdout(Stdio::null()).stderr(Stdio::null());
    // A value of the last partition does not come: what is before it is copied, and no more.
    let packs = files(&store.path().join("objects/v1")).into_iter();
    let of_the_last =
        |pack: &PathBuf| pack.parent().is_some_and(|partition| partition.ends_with("1"));
    let last = packs.rev().find(of_the_last).unwrap();
    let away = last.with_extension("away");
    std::fs::rename(&last, &away).unwrap();
    assert!(Command::new("mkfifo").arg(&last).status().unwrap().success(), "a pipe");
    let (held, _) = killed(&mut run, &copy);
    assert!(0 < held && held < 200, "{held} records in the copy at the first kill");
    std::fs::remove_file(&last).unwrap();
    std::fs::rename(&away, &last).unwrap();
    let ended = (0..3).filter(|_| killed(&mut run, &copy).1).count();
    let done = run.stderr(Stdio::piped()).stdout(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "rehydrate: {said}");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let rows = report["partitions"].as_array().unwrap();
    let in_copy: u64 = rows.iter().map(|row| row["in_copy"].as_u64().unwrap()).sum();
    assert_eq!(in_copy, 200, "records in the copy: {report}");
    assert!(proxy.terminate().success(), "end of the proxy");
    let after = in_order(&read(&copy, &COMMITTED, 200));
    assert!(before == after, "the copy differs:\n{before:#?}\n{after:#?}");
    let kills = format!("4 kills, the first at {held} ({ended} runs were over before)");
    tell(&format!("the way out: 200 records, {kills}"));
    rig.executed();
}

/// Begins a run and kills it once the copy has grown; gives the records in the copy then, and
/// whether the run was over before.
fn killed(run: &mut Command, copy: &Place) -> (i64, bool) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &copy.bootstrap);
    let direct: BaseConsumer = config.create().unwrap();
    // A copy that is not made yet has no records.
    let records = || -> i64 {
        let partitions = 0..i32::try_from(PARTITIONS).unwrap();
        let marks = partitions.map(|n| direct.fetch_watermarks(&copy.topic, n, TIMEOUT / 6));
        marks.map(|marks| marks.map_or(0, |(_, end)| end)).sum()
    };
    let before = records();
    let mut child = run.spawn().unwrap();
    let begun = Instant::now();
    let over = loop {
        let over = child.try_wait().unwrap().is_some();
        if over || records() > before {
            break over;
        }
        assert!(begun.elapsed() < TIMEOUT * 2, "the copy does not grow");
        std::thread::sleep(Duration::from_millis(2));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    (records(), over)
}

/// Values are gone at the end of the log and in its middle: by the rule of their topic clients read
/// what is left, get to the end, and do not ask again and again on the way.
pub fn lost_values(rig: &mut Rig) {
    for (policy, left) in [("skip", 20), ("placeholder", 25)] {
        let store = Scratch::new("store");
        let (mut proxy, place) = start(rig, &store, &format!("on_missing = {policy:?}"));
        let producer = producer(&place.bootstrap, &[("linger.ms", "0")]);
        send(&producer, &place.topic, 0..20, 60_000);
        producer.flush(TIMEOUT).unwrap();
        let before = files(&store.path().join("objects/v1"));
        send(&producer, &place.topic, 20..25, 60_000);
        producer.flush(TIMEOUT).unwrap();
        let lost = files(&store.path().join("objects/v1"));
        let lost: Vec<_> = lost.difference(&before).collect();
        assert!(!lost.is_empty(), "nothing was stored");
        lost.iter().for_each(|file| std::fs::remove_file(file).unwrap());
        // Without what it remembers.
        proxy.kill();
        proxy.restart();
        let asked = "firebreak_requests_total{api=\"Fetch\",class=\"full\"}";
        assert_eq!(read(&place, &[], left).len(), left, "records read by librdkafka, {policy}");
        let times = proxy.metric(asked);
        assert!(times < 100.0, "{times} Fetch requests of librdkafka, {policy}");
        let command = command(&place, &json!({"at_least": left}));
        let outcome = rig.java.must("consume", command);
        expect(&outcome, "/records", left);
        let ends: u64 = (0..PARTITIONS)
            .map(|n| outcome[format!("partition {n}")]["position"].as_u64().unwrap())
            .sum();
        assert_eq!(ends, 25, "positions of Java, {policy}: {outcome}");
        let times = proxy.metric(asked) - times;
        assert!(times < 100.0, "{times} Fetch requests of Java, {policy}");
        tell(&format!("{policy}: {} objects gone, {left} records read", lost.len()));
        rig.executed();
    }
}

/// All files below a folder.
pub fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

/// Records by partition in their order, without their offsets: those of a copy have no gaps.
fn in_order(read: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for line in read {
        let (place, rest) = line.split_once(' ').unwrap();
        let (partition, offset) = place.split_once('@').unwrap();
        let of = found.entry(partition.to_owned()).or_default();
        of.insert(offset.parse().unwrap(), rest.to_owned());
    }
    found.into_iter().map(|(name, records)| (name, records.into_values().collect())).collect()
}

const COMMITTED: [(&str, &str); 1] = [("isolation.level", "read_committed")];
