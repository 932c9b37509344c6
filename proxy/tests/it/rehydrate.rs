//! The way out: a copy that is read without the proxy is what was read through it, whatever ended
//! while it was made.

pub mod refusals;

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::crc32c;
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::fake_broker::Fault;
use sha2::{Digest, Sha256};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{Record, batch, heads, read, records, single};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};
use crate::routed::{self, located};
use crate::segments;
use crate::upkeep::{collect, upkeep};

const INIT_PRODUCER_ID: i16 = 22;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const COPY: &str = "t-rehydrated";

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    store: Folder,
    faults: Faults,
}

async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(2).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, store, faults })
}

/// What a consumer can tell of records, their offsets apart.
#[derive(PartialEq)]
struct Seen {
    timestamp: i64,
    key: Option<Vec<u8>>,
    sha256: Option<[u8; 32]>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn seen(records: &[Record]) -> Vec<Seen> {
    let one = |record: &Record| Seen {
        timestamp: record.timestamp,
        key: record.key.clone(),
        sha256: record.value.as_ref().map(|value| Sha256::digest(value).into()),
        headers: record.headers.clone(),
    };
    records.iter().map(one).collect()
}

/// All that lies in the log of a copy.
fn copied_to(brokers: &Brokers, topic: &str, partition: i32) -> Vec<Record> {
    let mut cluster = brokers.cluster();
    let Some(log) = cluster.log(topic, partition) else { return Vec::new() };
    log.batches().flat_map(read).collect()
}

/// All references that lie in a log.
fn references(brokers: &Brokers, topic: &str, partition: i32) -> Vec<Vec<u8>> {
    let values = copied_to(brokers, topic, partition).into_iter().filter_map(|r| r.value);
    values.filter(|value| value.len() == 112 && value.starts_with(b"\xfbREF")).collect()
}

impl Scene {
    async fn send(&mut self, partition: i32, batch: &Bytes) -> Checked {
        let (error, _) = self.client.produce(9, "t", partition, batch).await?;
        ensure_eq!(error, 0, "error of Produce");
        Ok(())
    }

    /// Many batches of all codecs, with values of all sizes.
    async fn send_many(&mut self, partition: i32, seed: u64) -> Checked {
        for (n, codec) in (seed..).zip([Codec::None, Codec::Zstd, Codec::Zstd, Codec::Lz4]) {
            let sizes = [10, 30_000, 0, 700_000, 1001];
            let values: Vec<_> = (n..).zip(sizes).map(|(n, size)| noise(n, size)).collect();
            self.send(partition, &batch(codec, Framing::Plain, &records(&values))).await?;
        }
        Ok(())
    }

    /// A record, and the same in a transaction that is open.
    async fn open_transaction(&mut self, partition: i32, id: u64) -> Checked {
        self.send(partition, &single(noise(id, 20_000))).await?;
        let mut cluster = self.brokers.cluster();
        let log = cluster.log("t", partition).expect("a log");
        let stored = log.batches().last().expect("a batch").clone();
        let mut open = stored.to_vec();
        open[22] |= 1 << 4;
        open[43..51].copy_from_slice(&id.to_be_bytes());
        let crc = crc32c(&open[21..]);
        open[17..21].copy_from_slice(&crc.to_be_bytes());
        log.append(&open).map(drop).map_err(failure)
    }

    /// A transaction in the log that came to nothing, and one that was committed.
    async fn transactions(&mut self, partition: i32) -> Checked {
        for (id, committed) in [(50, false), (51, true)] {
            self.open_transaction(partition, id).await?;
            let mut cluster = self.brokers.cluster();
            let log = cluster.log("t", partition).expect("a log");
            log.end_transaction(id.cast_signed(), 3, committed);
        }
        Ok(())
    }

    /// All that a consumer reads of a partition through the proxy.
    async fn through_proxy(&mut self, partition: i32) -> Checked<Vec<Record>> {
        let mut all: Vec<Record> = Vec::new();
        let end = self.brokers.cluster().log("t", partition).expect("a log").end();
        let mut next = 0;
        while next < end {
            let (error, section) = self.client.fetch(11, "t", partition, next, i32::MAX).await?;
            ensure_eq!(error, 0, "error of Fetch at {next}");
            let last = heads(&section).last().copied();
            let last = last.ok_or_else(|| failure("no batch"))?;
            next = last.base_offset + i64::from(last.last_offset_delta) + 1;
            all.extend(read(&section));
        }
        Ok(all)
    }

    async fn run(&self, args: &[&str]) -> Checked<(i32, serde_json::Value, String)> {
        upkeep(args, &self.proxy.config_file(), self.faults).await
    }

    /// From now on replicas of the copy have so much of it, or all.
    fn replicate(&self, end: Option<i64>) {
        self.brokers.cluster().log(COPY, 0).expect("a log").replicated = end;
    }

    /// Whether the copy of a partition is these records.
    fn is_copy(&self, partition: i32, expected: &[Record]) -> Checked {
        let copied = copied_to(&self.brokers, COPY, partition);
        let offsets: Vec<i64> = copied.iter().map(|record| record.offset).collect();
        let dense: Vec<i64> = (0..expected.len() as i64).collect();
        ensure!(offsets == dense, "{} records, not {}", offsets.len(), dense.len());
        let same = seen(&copied) == seen(expected);
        ensure!(same, "SHA-256 of what is in copy {partition} differs");
        Ok(())
    }
}

/// A copy, read without the proxy, is what the proxy's clients read before.
pub async fn a_copy_is_what_was_read_before(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.brokers.cluster().configure("t", "retention.ms", "777");
    scene.brokers.cluster().configure("t", "retention.bytes", "1000");
    scene.send_many(0, 1).await?;
    scene.transactions(0).await?;
    // What only looks like a reference: nothing is where it says.
    let mut forged = references(&scene.brokers, "t", 0).remove(0);
    forged[48..64].copy_from_slice(&noise(9, 16));
    let put = scene.brokers.cluster().log("t", 0).expect("a log").append(&single(forged));
    put.map_err(failure)?;
    scene.send_many(0, 200).await?;
    scene.send_many(1, 300).await?;
    let mut expected = [scene.through_proxy(0).await?, scene.through_proxy(1).await?];
    // Records of the aborted transaction and the markers are nobody's.
    let markers = expected[0].iter().filter(|record| record.headers.is_empty()).count();
    ensure_eq!(markers, 2, "markers");
    let aborted = 20 + 1;
    expected[0].retain(|record| record.offset != aborted && !record.headers.is_empty());

    scene.proxy.terminate();
    ensure!(scene.proxy.ended().await?.success(), "end of the proxy");
    scene.brokers.cluster().strict = true;
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code: {said}");
    scene.is_copy(0, &expected[0])?;
    scene.is_copy(1, &expected[1])?;
    let first = &report["partitions"][0];
    let n = |name: &str| first[name].as_u64().unwrap_or(99_999);
    ensure_eq!((n("records"), n("values"), n("unsigned")), (44, 27, 1), "{first}");
    let mut cluster = scene.brokers.cluster();
    let copy = cluster.topics.iter_mut().find(|topic| topic.name == COPY).expect("a copy");
    ensure_eq!(copy.logs.len(), 3, "partitions of the copy");
    let configs: Vec<_> = copy.configs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let ever = i64::MAX.to_string();
    let expected = [
        ("max.message.bytes", "104857600"),
        ("message.timestamp.after.max.ms", &ever),
        ("message.timestamp.before.max.ms", &ever),
        ("message.timestamp.type", "CreateTime"),
        ("retention.bytes", "-1"),
        ("retention.ms", "777"),
    ];
    ensure_eq!(configs, expected, "configuration of the copy");
    Ok(())
}

#[tokio::test]
async fn a_topic_is_copied_whole_and_read_without_the_proxy() -> Checked {
    a_copy_is_what_was_read_before(None).await
}

/// Answers are lost, the command is killed with batches under way: each run goes on where the copy
/// ends, and in the end every record is there once.
pub async fn a_copy_goes_on_where_it_ended(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    for n in 0..5 {
        scene.send_many(0, n * 10).await?;
    }
    let expected = scene.through_proxy(0).await?;
    scene.brokers.cluster().strict = true;
    // A broker closes before its answer: the run itself goes on.
    scene.brokers.cluster().script(0, Fault::CloseAfter(0));
    // The command is killed while an answer does not come, once the batch is there and once it was
    // refused.
    for killed in 0..4 {
        let before = scene.brokers.cluster().count(0);
        let refused = (COPY.to_owned(), 0, NOT_ENOUGH_REPLICAS);
        scene.brokers.cluster().refusing.extend((killed % 2 == 1).then_some(refused));
        scene.brokers.cluster().script(0, Fault::Never);
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
        command.args(["rehydrate", "t", "--config"]).arg(scene.proxy.config_file());
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command.envs(scene.faults.iter().map(|faults| ("FAILPOINTS", faults)));
        let mut child = command.spawn().map_err(failure)?;
        let reached = until("a batch under way", async || {
            let scripted = scene.brokers.cluster().scripted(0);
            (!scripted || child.try_wait().ok()?.is_some()).then_some(())
        });
        reached.await?;
        child.kill().map_err(failure)?;
        child.wait().map_err(failure)?;
        scene.brokers.cluster().refusing.clear();
        let sent = scene.brokers.cluster().count(0) - before;
        ensure!(sent > 0, "run {killed} sent nothing");
    }
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code: {said}");
    scene.is_copy(0, &expected)?;
    let done = report["partitions"][0]["records"].as_u64().unwrap_or(0);
    ensure!(done > 0 && done < expected.len() as u64, "the last run wrote {done} records");

    // What comes later is copied by the next run, and nothing else.
    scene.brokers.cluster().strict = false;
    scene.send_many(0, 900).await?;
    let expected = scene.through_proxy(0).await?;
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code of the run behind it: {said}");
    ensure_eq!(report["partitions"][0]["records"].as_u64(), Some(20), "records of that run");
    scene.is_copy(0, &expected)
}

#[tokio::test]
async fn a_copy_that_ends_goes_on_and_has_every_record_once() -> Checked {
    a_copy_goes_on_where_it_ended(None).await
}

#[tokio::test]
async fn a_copy_stands_where_a_value_is_gone_and_touches_no_other_topic() -> Checked {
    let mut scene = scene(None).await?;
    scene.send(0, &single(noise(1, 20_000))).await?;
    scene.send(0, &single(noise(2, 30_000))).await?;
    let expected = scene.through_proxy(0).await?;
    // One that somebody else wrote to is left alone.
    scene.brokers.cluster().add_topic("full", 3);
    let put = scene.brokers.cluster().log("full", 0).expect("a log").append(&single(vec![1]));
    put.map_err(failure)?;
    let (code, _, said) = scene.run(&["rehydrate", "t", "--to", "full"]).await?;
    ensure!(code == 3 && said.contains("name another topic by --to"), "{code}: {said}");

    let mut objects = Vec::new();
    collect(&scene.store.path().join("v1"), &mut objects);
    let last = objects.iter().find(|path| path.metadata().is_ok_and(|m| m.len() > 29_000));
    let last = last.ok_or_else(|| failure("no object"))?;
    let away = last.with_extension("away");
    std::fs::rename(last, &away).map_err(failure)?;
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure!(code == 3 && said.contains("t/0 offset 1:"), "{code}: {said}");
    let args = ["rehydrate", "t", "--to", "marked", "--mark-missing"];
    let (code, report, said) = scene.run(&args).await?;
    ensure_eq!(code, 0, "exit code where missing values are marked: {said}");
    ensure_eq!(report["partitions"][0]["lost"].as_u64(), Some(1), "values marked");
    let marked = copied_to(&scene.brokers, "marked", 0).pop().ok_or_else(|| failure("no copy"))?;
    let mark = (b"firebreak-missing".to_vec(), Some(b"30000".to_vec()));
    ensure!(marked.headers.contains(&mark) && marked.offset == 1, "{marked:?} has no mark");
    std::fs::rename(&away, last).map_err(failure)?;
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code once the value is back: {said}");
    scene.is_copy(0, &expected)
}

/// A wrong bucket or name: what it does not have is no loss, and nothing is copied without.
pub async fn another_clusters_store_is_refused(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(0, &single(noise(1, 20_000))).await?;
    let owner = scene.store.path().join("upkeep/v1/owner/fake");
    until("an owner", async || owner.is_file().then_some(())).await?;
    std::fs::write(&owner, "elsewhere").map_err(failure)?;
    let (code, _, said) = scene.run(&["rehydrate", "t", "--mark-missing"]).await?;
    let told = code == 3 && said.contains("are those of the cluster elsewhere");
    ensure!(told, "another cluster's store: {code}: {said}");
    ensure!(copied_to(&scene.brokers, COPY, 0).is_empty(), "records in the copy");
    Ok(())
}

#[tokio::test]
async fn nothing_is_copied_by_another_clusters_store() -> Checked {
    another_clusters_store_is_refused(None).await
}

/// A batch that is in the leader's log and not in all of its replicas' is answered with an error,
/// again and again: no other producer writes it once more.
pub async fn a_batch_that_waits_for_replicas_is_there_once(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send_many(0, 1).await?;
    let expected = scene.through_proxy(0).await?;
    scene.brokers.cluster().add_topic(COPY, 3);
    scene.brokers.cluster().strict = true;
    let few = (COPY.to_owned(), 0, NOT_ENOUGH_REPLICAS, false);
    scene.brokers.cluster().erring = vec![few; 4];
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code once there are enough replicas: {said}");
    // One for each partition.
    ensure_eq!(scene.brokers.cluster().count(INIT_PRODUCER_ID), 3, "producers");
    scene.is_copy(0, &expected)?;

    // The last batch is in the leader's log alone, and the log grows meanwhile by what would have
    // been in that batch: it waits for the replicas.
    scene.brokers.cluster().strict = false;
    scene.send(0, &single(noise(100, 20_000))).await?;
    scene.brokers.cluster().strict = true;
    let end = scene.brokers.cluster().log(COPY, 0).expect("a log").end();
    scene.replicate(Some(end));
    let appended = (COPY.to_owned(), 0, NOT_ENOUGH_REPLICAS_AFTER_APPEND, true);
    scene.brokers.cluster().erring = vec![appended; 7];
    for seed in 101..103 {
        let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
        ensure!(code == 3 && said.contains("and its leader"), "before the replicas: {said}");
        scene.brokers.cluster().erring.clear();
        scene.brokers.cluster().strict = false;
        scene.send(0, &single(noise(seed, 100))).await?;
        scene.brokers.cluster().strict = true;
    }
    scene.brokers.cluster().strict = false;
    let expected = scene.through_proxy(0).await?;
    scene.brokers.cluster().strict = true;
    scene.replicate(None);
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code once the replicas have it: {said}");
    scene.is_copy(0, &expected)?;

    // A producer that is not known any more is replaced where nothing is missing.
    scene.brokers.cluster().strict = false;
    scene.send_many(0, 200).await?;
    let expected = scene.through_proxy(0).await?;
    scene.brokers.cluster().strict = true;
    let producers = scene.brokers.cluster().count(INIT_PRODUCER_ID);
    let unknown = (COPY.to_owned(), 0, UNKNOWN_PRODUCER_ID, false);
    scene.brokers.cluster().erring = vec![unknown; 3];
    // What the new one writes may be on its way while its answer is lost: it writes that again.
    for _ in 0..3 {
        scene.brokers.cluster().script(0, Fault::Delay(Duration::ZERO));
    }
    scene.brokers.cluster().script(0, Fault::CloseAfter(0));
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code with a producer that is not known: {said}");
    // Of partitions that hold nothing none is noted.
    let begun = scene.brokers.cluster().count(INIT_PRODUCER_ID) - producers;
    ensure_eq!(begun, 2 + 1, "producers then");
    scene.is_copy(0, &expected)
}

#[tokio::test]
async fn another_producer_never_writes_what_may_be_there() -> Checked {
    a_batch_that_waits_for_replicas_is_there_once(None).await
}

/// What lies behind an open transaction is not copied, and that is told and no success.
pub async fn an_open_transaction_is_told(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(0, &single(noise(1, 20_000))).await?;
    scene.transactions(0).await?;
    scene.open_transaction(0, 60).await?;
    scene.send(0, &single(noise(2, 30_000))).await?;
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(report["partitions"][0]["held_back"].as_i64(), Some(2), "offsets told: {said}");
    ensure_eq!(code, 1, "exit code with an open transaction: {said}");
    scene.brokers.cluster().log("t", 0).expect("a log").end_transaction(60, 3, true);
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code once it ended: {said}");
    ensure_eq!(report["partitions"][0]["in_copy"].as_i64(), Some(7), "records in the copy");
    Ok(())
}

#[tokio::test]
async fn a_copy_that_ends_before_an_open_transaction_is_none() -> Checked {
    an_open_transaction_is_told(None).await
}

/// A copy is no part of a virtual topic, nor the log that tells of its segments.
pub async fn a_copy_is_no_part_of_a_virtual_topic(faults: Faults) -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = segments::start_as(None, |setup| setup.offload(&store, 1000)).await?;
    let file = proxy.config_file();
    let count = || brokers.cluster().count(0);
    let sent = count();
    for name in [segments::PLACEMENT, segments::TOPIC, "fires-norcal-2999-01-07"] {
        let args = ["rehydrate", "t", "--to", name];
        let (code, _, said) = upkeep(&args, &file, faults).await?;
        ensure!(code == 3 && said.contains(name), "{name} is taken for a copy: {code}: {said}");
        ensure_eq!(count(), sent, "Produce requests for {name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_copy_with_a_name_that_virtual_topics_have_is_refused() -> Checked {
    a_copy_is_no_part_of_a_virtual_topic(None).await
}

#[tokio::test]
async fn every_part_of_a_virtual_topic_is_copied() -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = routed::start(None, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    let value = noise(1, 50_000);
    let sent = located(None, value.clone());
    let (error, _) = client.produce(9, routed::TOPIC, 0, &sent).await?;
    ensure_eq!(error, 0, "error of Produce");
    let args = ["rehydrate", routed::TOPIC];
    let (code, _, said) = upkeep(&args, &proxy.config_file(), None).await?;
    ensure_eq!(code, 0, "exit code: {said}");
    let copy = format!("{}-rehydrated", routed::OTHER);
    let mut cluster = brokers.cluster();
    let log = cluster.log(&copy, 0).ok_or_else(|| failure("no copy of a part"))?;
    let values: Vec<_> = log.batches().flat_map(read).filter_map(|r| r.value).collect();
    ensure!(values.contains(&value), "the value is not in {copy}");
    Ok(())
}
