//! Large values: stored before they are forwarded, restored as they were, never invented.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kafka_protocol::messages::{FetchResponse, ProduceResponse};
use protocol_ext::batch::Batches;
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::pack;
use protocol_ext::part::decode;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{Record, batch, heads, read, records, single, sound};
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

/// Values longer than this are stored.
const THRESHOLD: usize = 1000;
const REFERENCE_BYTES: usize = 112;
const STORAGE_ERROR: i16 = 56;
const ALL: i32 = i32::MAX;

const CODECS: [(Codec, Framing); 6] = [
    (Codec::None, Framing::Plain),
    (Codec::Gzip, Framing::Plain),
    (Codec::Snappy, Framing::Plain),
    (Codec::Snappy, Framing::Xerial),
    (Codec::Lz4, Framing::Plain),
    (Codec::Zstd, Framing::Plain),
];

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    store: Folder,
    ledger: Ledger,
}

async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    brokers.cluster().add_topic("other", 1);
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, THRESHOLD).start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, store, ledger: Ledger::default() })
}

impl Scene {
    /// Batches in the fake broker's log, one after the other.
    fn stored(&self, topic: &str, partition: i32) -> Bytes {
        let mut cluster = self.brokers.cluster();
        let log = cluster.log(topic, partition).expect("a log");
        log.batches().flat_map(|batch| batch.iter().copied()).collect()
    }

    /// Puts a batch into the log as somebody would who does not come through the proxy.
    fn put_directly(&self, topic: &str, partition: i32, batch: &Bytes) {
        let mut cluster = self.brokers.cluster();
        cluster.log(topic, partition).expect("a log").append(batch).expect("a batch");
    }

    /// The values in all objects.
    fn values(&self) -> Vec<Vec<u8>> {
        self.objects().into_values().flat_map(|object| values(&object)).collect()
    }

    /// The objects: file and content.
    fn objects(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.store.path().join("v1"), &mut found);
        found
    }

    async fn count(&self, op: &str) -> Checked<f64> {
        self.proxy.metric(&format!("firebreak_offload_objects_total{{op=\"{op}\"}}")).await
    }

    /// Produces one batch and expects it to be taken.
    async fn take(&mut self, partition: i32, batch: &Bytes) -> Checked<i64> {
        let (error, base) = self.client.produce(9, "t", partition, batch).await?;
        ensure_eq!(error, 0, "error of Produce");
        self.ledger.acknowledged("t", partition, base, batch);
        Ok(base)
    }

    /// Nothing that was acknowledged is lost, no reference dangles, and there is no orphan.
    async fn is_sound(&self, what: &str) -> Checked {
        let held = Held::in_folder(&self.store)?;
        let tally = self.ledger.tally(self.proxy.port, &self.brokers, &held).await?;
        tally.is_sound(what, 0)
    }
}

/// The values in one object, whose own description is checked.
pub fn values(object: &[u8]) -> Vec<Vec<u8>> {
    let (_, parts) = pack::parse(object).expect("a pack");
    let value = |part: pack::Part| {
        let from = usize::try_from(part.offset).expect("small");
        let stored = &object[from..from + part.stored_bytes as usize];
        let original_bytes = part.original_bytes as usize;
        let decoded = decode(part.codec, part.filter, stored, original_bytes).expect("a part");
        decoded.unwrap_or_else(|| stored.to_vec())
    };
    parts.into_iter().map(value).collect()
}

fn collect(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
}

fn mixed_values() -> Vec<Vec<u8>> {
    let sizes = [10, 5000, 0, THRESHOLD, THRESHOLD + 1, 200_000, 999];
    (1..).zip(sizes).map(|(seed, size)| noise(seed, size)).collect()
}

fn shifted(records: &[Record], base: i64) -> Vec<Record> {
    let shift = |record: &Record| Record { offset: record.offset + base, ..record.clone() };
    records.iter().map(shift).collect()
}

/// Large values go to the store, 112 bytes into the log, and come back byte for byte; everything
/// else of every batch stays as it was, for every codec.
pub async fn values_come_back_as_they_were(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let sent = records(&mixed_values());
    for (n, (codec, framing)) in (0..).zip(CODECS) {
        let what = format!("{codec:?} {framing:?}");
        let batch = batch(codec, framing, &sent);
        let base = scene.take(0, &batch).await?;
        ensure_eq!(base, n * 7, "base offset, {what}");
        ensure_eq!(scene.objects().len() as i64, n + 1, "objects at the answer, {what}");
    }
    let stored = scene.stored("t", 0);
    for (header, (codec, _)) in heads(&stored).iter().zip(CODECS) {
        ensure_eq!(header.codec().map_err(failure)?, codec, "codec in the log");
        let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        ensure_eq!(producer, (4711, 3, 17), "producer in the log");
    }
    for (n, record) in read(&stored).into_iter().enumerate() {
        let mut expected = shifted(&sent, (n / 7 * 7) as i64).swap_remove(n % 7);
        let value = record.value.clone().unwrap_or_default();
        if expected.value.as_ref().is_some_and(|value| value.len() > THRESHOLD) {
            ensure_eq!(value.len(), REFERENCE_BYTES, "bytes of a large value in the log");
            expected.value = Some(value);
        }
        ensure!(record == expected, "{record:?} in the log differs in more than its value");
    }
    let large: Vec<_> = mixed_values().into_iter().filter(|v| v.len() > THRESHOLD).collect();
    let stored = scene.values();
    ensure_eq!(stored.len(), large.len() * CODECS.len(), "values in the store");
    ensure!(stored.iter().all(|value| large.contains(value)), "other values are in the store");
    for version in [4, 11, 12, 13, 18] {
        let (error, section) = scene.client.fetch(version, "t", 0, 0, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch {version}");
        ensure!(sound(&section), "a CRC of Fetch {version} does not fit");
        let expected: Vec<Record> = (0..6).flat_map(|n| shifted(&sent, n * 7)).collect();
        ensure!(read(&section) == expected, "records of Fetch {version} are not those sent");
        for (header, (codec, _)) in heads(&section).iter().zip(CODECS) {
            ensure_eq!(header.codec().map_err(failure)?, codec, "codec in Fetch {version}");
        }
    }
    ensure_eq!(scene.count("store").await?, 18.0, "values counted as stored");
    Ok(())
}

#[tokio::test]
async fn large_values_are_stored_replaced_and_restored_for_every_codec() -> Checked {
    values_come_back_as_they_were(None).await
}

#[tokio::test]
async fn large_values_by_topic_id_are_stored_and_restored() -> Checked {
    let mut scene = scene(None).await?;
    let sent = records(&mixed_values());
    let (error, base) =
        scene.client.produce(13, "t", 1, &batch(Codec::Zstd, Framing::Plain, &sent)).await?;
    ensure_eq!((error, base), (0, 0), "answer of Produce 13");
    ensure_eq!(scene.values().len(), 3, "values in the store");
    let (error, section) = scene.client.fetch(18, "t", 1, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch 18");
    ensure!(read(&section) == sent, "records are not those sent");
    Ok(())
}

#[tokio::test]
async fn several_partitions_of_one_request_are_all_stored_and_restored() -> Checked {
    let mut scene = scene(None).await?;
    let batches: Vec<_> =
        (0..3_i32).map(|p| (p, single(noise(p.unsigned_abs().into(), 30_000)))).collect();
    let answer: ProduceResponse = scene.client.call(0, 9, &produce(9, -1, "t", &batches)).await?;
    ensure_eq!(answer.responses[0].partition_responses.len(), 3, "partitions answered");
    let all = [(0, 0), (1, 0), (2, 0)];
    let answer: FetchResponse = scene.client.call(1, 11, &fetch(11, "t", &all, ALL)).await?;
    for ((partition, sent), (index, error, section)) in batches.iter().zip(fetched(answer)?) {
        ensure_eq!((index, error), (*partition, 0), "partition of Fetch");
        ensure!(read(&section) == read(sent), "records of partition {index} differ");
    }
    Ok(())
}

#[tokio::test]
async fn a_large_value_of_acks_0_is_stored_first_and_has_no_answer() -> Checked {
    let mut scene = scene(None).await?;
    let sent = single(noise(3, 50_000));
    scene.client.send(0, 9, &produce(9, 0, "t", &[(0, sent.clone())])).await?;
    // The next answer is that of the next request, and by then the broker has the batch.
    scene.client.metadata(12).await?;
    ensure_eq!(scene.objects().len(), 1, "objects");
    let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == read(&sent), "records differ");
    Ok(())
}

/// A forged reference, and one that was signed for another topic, pass as they are and nothing is
/// read for them.
pub async fn a_forged_reference_is_never_followed(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let secret = noise(4, 40_000);
    scene.take(0, &single(secret)).await?;
    let signed = read(&scene.stored("t", 0)).remove(0).value.unwrap_or_default();
    ensure_eq!(signed.len(), REFERENCE_BYTES, "bytes of a reference");
    let mut forged = signed.clone();
    forged[REFERENCE_BYTES - 1] ^= 1;
    let mut longer = signed.clone();
    longer.push(0);
    let forgeries = batch(Codec::None, Framing::Plain, &records(&[forged, longer]));
    scene.put_directly("t", 0, &forgeries);
    scene.put_directly("other", 0, &single(signed));

    for (topic, offset, planted) in [("t", 1, forgeries), ("other", 0, scene.stored("other", 0))] {
        let (error, section) = scene.client.fetch(11, topic, 0, offset, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch of {topic}");
        let values = |section: &Bytes| read(section).into_iter().map(|r| r.value).collect();
        let (got, expected): (Vec<_>, Vec<_>) = (values(&section), values(&planted));
        ensure!(got == expected, "the forged value in {topic} was changed");
    }
    ensure_eq!(scene.count("refused").await?, 3.0, "references refused");
    ensure_eq!(scene.count("restore").await?, 0.0, "values restored");
    ensure_eq!(scene.count("damaged").await?, 0.0, "objects found damaged");
    scene.is_sound("forged, replayed and cross-topic references").await
}

#[tokio::test]
async fn forged_and_replayed_references_pass_unchanged_and_are_never_followed() -> Checked {
    a_forged_reference_is_never_followed(None).await
}

#[tokio::test]
async fn a_value_that_begins_like_a_reference_is_stored_when_its_request_is_looked_at() -> Checked {
    let mut scene = scene(None).await?;
    let value = [&[0xfb, b'R', b'E', b'F'][..], &noise(5, 50)].concat();
    // Beside a large value; what a small request holds is not looked at.
    let sent = batch(Codec::None, Framing::Plain, &records(&[value, noise(6, 2000)]));
    scene.take(0, &sent).await?;
    ensure_eq!((scene.objects().len(), scene.values().len()), (1, 2), "objects and values");
    let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == read(&sent), "records differ");
    scene.is_sound("a value that begins with the magic").await
}

/// One byte of an object flipped: its partition gets error 56, batches before it are delivered.
pub async fn a_damaged_object_is_an_error_and_never_data(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let (good, bad, behind) = (noise(7, 20_000), noise(8, 30_000), noise(9, 40_000));
    for value in [&good, &bad, &behind] {
        scene.take(0, &single(value.clone())).await?;
    }
    let objects = scene.objects();
    let (file, mut object) =
        objects.into_iter().find(|(_, o)| values(o) == [bad.clone()]).expect("one");
    object[pack::HEAD_BYTES + 15_000] ^= 0x10;
    std::fs::write(&file, object).expect("a file that can be written");

    let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    let came = Batches::new(&section).count();
    ensure!(came == 1, "{came} values came, of which the first is good");
    let values: Vec<_> = read(&section).into_iter().filter_map(|r| r.value).collect();
    ensure!(values == [good], "another value came than the good one");
    ensure_eq!(error, 0, "error of the partition while there are batches before");
    let (error, section) = scene.client.fetch(11, "t", 0, 1, ALL).await?;
    ensure_eq!((error, section.len()), (STORAGE_ERROR, 0), "error and bytes at the damage");
    let (error, section) = scene.client.fetch(11, "t", 0, 2, ALL).await?;
    ensure_eq!(error, 0, "error behind the damage");
    ensure!(read(&section)[0].value.as_ref() == Some(&behind), "the value behind it differs");

    std::fs::remove_file(&file).expect("a file that can be removed");
    let (error, section) = scene.client.fetch(11, "t", 0, 1, ALL).await?;
    ensure_eq!((error, section.len()), (STORAGE_ERROR, 0), "error and bytes without the object");
    let counted = (scene.count("damaged").await?, scene.count("missing").await?);
    ensure_eq!(counted, (2.0, 1.0), "values found damaged, and missing");
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_is_an_error_of_its_partition_and_earlier_batches_are_delivered() -> Checked
{
    a_damaged_object_is_an_error_and_never_data(None).await
}

#[tokio::test]
async fn a_store_that_fails_forwards_nothing_and_is_answered_56() -> Checked {
    let mut scene = scene(None).await?;
    let pending = scene.store.path().join("pending");
    std::fs::remove_dir(&pending).expect("an empty folder");
    let sent = single(noise(10, 20_000));
    for version in [3, 9, 13] {
        let (error, base) = scene.client.produce(version, "t", 0, &sent).await?;
        ensure_eq!((error, base), (STORAGE_ERROR, -1), "answer of Produce {version}");
    }
    ensure_eq!(scene.brokers.cluster().count(0), 0, "Produce requests at the broker");
    // Small values need no store.
    let (error, base) = scene.client.produce(9, "t", 0, &single(noise(11, 100))).await?;
    ensure_eq!((error, base), (0, 0), "answer for a small value");
    // And with acks=0, where nothing can be answered, the connection tells.
    scene.client.send(0, 9, &produce(9, 0, "t", &[(0, sent.clone())])).await?;
    ensure!(scene.client.receive_to_end().await?.is_empty(), "an answer to acks=0");
    ensure_eq!(scene.brokers.cluster().count(0), 1, "Produce requests at the broker");

    std::fs::create_dir(&pending).expect("a folder");
    // After many failures the store is left alone for a moment.
    scene.client = Client::connect(scene.proxy.port).await?;
    let taken = until("a store that works again", async || {
        let (error, base) = scene.client.produce(9, "t", 0, &sent).await.ok()?;
        (error == 0).then_some(base)
    });
    ensure_eq!(taken.await?, 1, "base offset once the store works again");
    scene.ledger.acknowledged("t", 0, 1, &sent);
    scene.is_sound("a store that cannot be written").await
}

#[tokio::test]
async fn small_requests_are_not_held_whole() -> Checked {
    let mut scene = scene(None).await?;
    for n in 0..10 {
        scene.take(0, &single(noise(n, 500))).await?;
    }
    let counted = |class| format!("firebreak_requests_total{{api=\"Produce\",class=\"{class}\"}}");
    ensure_eq!(scene.proxy.metric(&counted("full")).await?, 0.0, "requests held whole");
    scene.take(0, &single(noise(1, 2000))).await?;
    ensure_eq!(scene.proxy.metric(&counted("full")).await?, 1.0, "requests held whole");
    ensure_eq!(scene.proxy.metric(&counted("peek")).await?, 10.0, "requests peeked into");
    Ok(())
}

/// Restored values keep to the budget of the request, cut between batches; the first batch of an
/// answer is whole, once per answer.
pub async fn restored_values_keep_to_the_budget(faults: Faults) -> Checked {
    const VALUE: usize = 1_000_000;
    let mut scene = scene(faults).await?;
    for partition in 0..2 {
        for n in 0..4 {
            scene.take(partition, &single(noise(n, VALUE))).await?;
        }
    }
    let mut offset = 0;
    while offset < 4 {
        let (error, section) = scene.client.fetch(11, "t", 0, offset, 2_500_000).await?;
        ensure_eq!(error, 0, "error at offset {offset}");
        let got = read(&section);
        ensure_eq!(got.len(), 2, "values at offset {offset}");
        for record in got {
            ensure_eq!(record.offset, offset, "offset of a value");
            let expected = noise(offset.unsigned_abs(), VALUE);
            ensure!(record.value == Some(expected), "the value at {offset} differs");
            offset += 1;
        }
    }
    let both = fetch(11, "t", &[(0, 0), (1, 0)], 1000);
    let answer: FetchResponse = scene.client.call(1, 11, &both).await?;
    let counts = fetched(answer)?.into_iter().map(|(_, error, s)| (error, read(&s).len()));
    ensure_eq!(counts.collect::<Vec<_>>(), [(0, 1), (0, 0)], "errors and values by partition");
    Ok(())
}

#[tokio::test]
async fn restored_values_are_cut_between_batches_where_the_budget_ends() -> Checked {
    restored_values_keep_to_the_budget(None).await
}

#[tokio::test]
async fn what_was_stored_is_restored_after_a_restart_and_with_another_threshold() -> Checked {
    let mut scene = scene(None).await?;
    let sent = single(noise(14, 60_000));
    scene.take(0, &sent).await?;
    scene.proxy.terminate();
    ensure!(scene.proxy.ended().await?.success(), "the first process failed");
    let setup = Setup::new(&scene.brokers, None).offload(&scene.store, 10_000_000);
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    let (error, section) = client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == read(&sent), "records differ after a restart");
    Ok(())
}

#[tokio::test]
async fn batches_that_are_damaged_are_the_brokers_to_refuse() -> Checked {
    const CORRUPT_MESSAGE: i16 = 2;
    let mut scene = scene(None).await?;
    let mut damaged = single(noise(15, 20_000)).to_vec();
    damaged[5000] ^= 1;
    let (error, _) = scene.client.produce(9, "t", 0, &damaged.into()).await?;
    ensure_eq!(error, CORRUPT_MESSAGE, "error of a batch whose CRC does not fit");
    Ok(())
}

/// Without its key a full store gives nothing back: the process does not start with another one.
pub async fn a_lost_key_is_not_replaced(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let sent = single(noise(16, 20_000));
    scene.take(0, &sent).await?;
    scene.proxy.terminate();
    ensure!(scene.proxy.ended().await?.success(), "the first process failed");
    let (key, kept) = (scene.store.path().join("reference.key"), scene.store.path().join("kept"));
    std::fs::rename(&key, &kept).map_err(failure)?;
    let setup = Setup::new(&scene.brokers, faults).offload(&scene.store, THRESHOLD).not_ready();
    let mut proxy = setup.start().await;
    let decided = async || (proxy.has_ended() || key.exists()).then_some(());
    until("its end", decided).await?;
    ensure!(!key.exists(), "it started with a new key");
    ensure!(!proxy.ended().await?.success(), "exit code");
    let log = proxy.log();
    ensure!(log.contains("reference.key is missing beside objects"), "the log says: {log}");

    std::fs::rename(&kept, &key).map_err(failure)?;
    let setup = Setup::new(&scene.brokers, None).offload(&scene.store, THRESHOLD);
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    let (error, section) = client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == read(&sent), "records differ with the key put back");
    Ok(())
}

#[tokio::test]
async fn a_store_whose_key_is_lost_is_refused_and_one_with_its_key_put_back_serves() -> Checked {
    a_lost_key_is_not_replaced(None).await
}

#[tokio::test]
async fn failures_of_the_store_are_counted_by_what_was_asked_and_told() -> Checked {
    let mut scene = scene(None).await?;
    let count = |op: &str, kind: &str| {
        format!("firebreak_store_failures_total{{op=\"{op}\",kind=\"{kind}\"}}")
    };
    scene.take(0, &single(noise(17, 20_000))).await?;
    let objects: Vec<_> = scene.objects().into_keys().collect();
    std::fs::remove_file(&objects[0]).map_err(failure)?;
    let (error, _) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of a lost object");
    ensure_eq!(scene.proxy.metric(&count("get", "missing")).await?, 1.0, "lost objects");
    ensure_eq!(scene.count("missing").await?, 1.0, "missing values");
    until("a line", async || (scene.proxy.logged("object store failed") > 0).then_some(())).await?;

    std::fs::remove_dir(scene.store.path().join("pending")).map_err(failure)?;
    let (error, _) = scene.client.produce(9, "t", 0, &single(noise(18, 20_000))).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of a store that cannot be written");
    ensure!(scene.proxy.metric(&count("put", "io")).await? >= 5.0, "attempts are not counted");
    let lines = scene.proxy.logged("object store failed");
    ensure!(lines <= 14, "{lines} lines about it");
    Ok(())
}

/// Values of one batch that no answer would hold together are refused as too large, which has
/// producers split it; what fits is stored.
pub async fn batches_beyond_an_answer_are_split(faults: Faults) -> Checked {
    const MESSAGE_TOO_LARGE: i16 = 10;
    const VALUE: usize = 17 << 20;
    let mut scene = scene(faults).await?;
    for (values, expected) in [(4, MESSAGE_TOO_LARGE), (3, 0)] {
        let sent = batch(Codec::Zstd, Framing::Plain, &records(&vec![vec![0; VALUE]; values]));
        let (error, _) = scene.client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, expected, "error of a batch of {values} long values");
    }
    ensure_eq!(scene.values().len(), 3, "values in the store");
    Ok(())
}

#[tokio::test]
async fn a_batch_whose_values_no_answer_can_hold_is_refused() -> Checked {
    batches_beyond_an_answer_are_split(None).await
}

/// A reference of a later version passes as it is and is counted apart from forgeries; of both a
/// line is written.
pub async fn later_versions_are_no_forgeries(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.take(0, &single(noise(1, 40_000))).await?;
    let signed = read(&scene.stored("t", 0)).remove(0).value.unwrap_or_default();
    let mut later = signed.clone();
    later[4] = 9;
    let mut forged = signed;
    forged[111] ^= 1;
    let planted = batch(Codec::None, Framing::Plain, &records(&[later.clone(), forged.clone()]));
    scene.put_directly("t", 0, &planted);
    let (error, section) = scene.client.fetch(11, "t", 0, 1, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    let got: Vec<_> = read(&section).into_iter().filter_map(|record| record.value).collect();
    ensure!(got == [later, forged], "values that are not followed were changed");
    ensure_eq!(scene.count("unknown").await?, 1.0, "references of unknown versions");
    ensure_eq!(scene.count("refused").await?, 1.0, "references refused");
    for why in ["unknown reference version 9", "the signature does not fit"] {
        until(why, async || (scene.proxy.logged(why) > 0).then_some(())).await?;
    }
    Ok(())
}

#[tokio::test]
async fn references_of_later_versions_are_told_apart_from_forgeries() -> Checked {
    later_versions_are_no_forgeries(None).await
}

/// Of a partition no more is restored than is wanted of it, but for its first batch, also where a
/// request of a session does not say it again.
pub async fn restored_values_keep_to_what_partitions_want(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    for partition in 0..2 {
        for n in 0..3 {
            scene.take(partition, &single(noise(n, 500_000))).await?;
        }
    }
    let mut asked = fetch(11, "t", &[(0, 0), (1, 0)], ALL);
    for (wanted, values) in [(1_200_000, 2), (700_000, 1), (1000, 1), (i32::MAX, 3)] {
        let partitions = &mut asked.topics[0].partitions;
        partitions.iter_mut().for_each(|one| one.partition_max_bytes = wanted);
        let answer: FetchResponse = scene.client.call(1, 11, &asked).await?;
        let counts = fetched(answer)?.into_iter().map(|(_, error, s)| (error, read(&s).len()));
        let counts: Vec<_> = counts.collect();
        ensure_eq!(counts, [(0, values); 2], "errors and values with {wanted} bytes wanted");
    }
    Ok(())
}

#[tokio::test]
async fn restored_values_are_cut_where_a_partition_has_enough() -> Checked {
    restored_values_keep_to_what_partitions_want(None).await
}

/// Values that are stored are counted by what their first bytes say they are.
pub async fn formats_are_counted(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let of = |magic: &[u8], bytes: usize| [magic, &noise(1, bytes - magic.len())].concat();
    let [jpeg, png] = [&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n"];
    let sent = records(&[of(jpeg, 5000), of(jpeg, 7000), of(png, 3000), vec![b' '; 4000]]);
    scene.take(0, &batch(Codec::None, Framing::Plain, &sent)).await?;
    // What is not stored is not counted.
    scene.take(0, &single(of(b"GRIB", 500))).await?;
    for (format, values, bytes) in [
        ("jpeg", 2.0, 12_000.0),
        ("png", 1.0, 3000.0),
        ("unknown", 1.0, 4000.0),
        ("grib", 0.0, 0.0),
    ] {
        let metric = |of: &str| format!("firebreak_offload_format_{of}_total{{format={format:?}}}");
        let counted = scene.proxy.metric(&metric("values")).await?;
        let bytes_of = scene.proxy.metric(&metric("bytes")).await?;
        ensure_eq!((counted, bytes_of), (values, bytes), "values and bytes of format {format}");
    }
    Ok(())
}

#[tokio::test]
async fn stored_values_are_counted_by_format() -> Checked {
    formats_are_counted(None).await
}

/// Where every frame is held whole values are stored and restored as they are otherwise.
#[cfg(feature = "failpoints")]
pub async fn forced_modes_store_values(faults: Faults) -> Checked {
    for mode in ["decode", "reencode"] {
        let brokers = Brokers::start(1).await;
        let store = Folder::new();
        let setup = Setup::new(&brokers, faults).offload(&store, THRESHOLD).forced(mode);
        let proxy = setup.start().await;
        let client = Client::connect(proxy.port).await?;
        let mut scene = Scene { brokers, proxy, client, store, ledger: Ledger::default() };
        let sent = batch(Codec::None, Framing::Plain, &records(&mixed_values()));
        for (version, base) in [(9, 0), (3, 7)] {
            let (error, at) = scene.client.produce(version, "t", 0, &sent).await?;
            ensure_eq!((error, at), (0, base), "error and offset, {mode}");
        }
        ensure_eq!(scene.values().len(), 6, "values in the store, {mode}");
        let log = read(&scene.stored("t", 0));
        let longest = log.iter().filter_map(|record| Some(record.value.as_ref()?.len())).max();
        ensure_eq!(longest, Some(THRESHOLD), "longest value in the log, {mode}");
        let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch, {mode}");
        let sent = read(&sent);
        ensure!(read(&section) == [sent.clone(), shifted(&sent, 7)].concat(), "records, {mode}");
    }
    Ok(())
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn values_are_stored_where_every_frame_is_held_whole() -> Checked {
    forced_modes_store_values(None).await
}
