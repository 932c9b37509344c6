//! References in every shape that a broker's log can give to a batch: append times, gaps of
//! compaction, transaction markers, aborted transactions, bombs; and the budgets of large answers.

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use protocol_ext::batch::{BatchHeader, crc32c};
use protocol_ext::codec::{Codec, Framing};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{batch, heads, read, records, single};
use crate::harness::requests::{fetch, fetched};
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};

const THRESHOLD: usize = 1000;
const REFERENCE_BYTES: usize = 112;
const ALL: i32 = i32::MAX;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    store: Folder,
    ledger: Ledger,
}

async fn scene(change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    scene_with(None, change).await
}

async fn scene_with(faults: Faults, change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = change(Setup::new(&brokers, faults).offload(&store, THRESHOLD));
    let proxy = setup.start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, store, ledger: Ledger::default() })
}

impl Scene {
    /// Stores a value and gives the batch that lies in the log for it.
    async fn referring(&mut self, sent: &Bytes) -> Checked<Bytes> {
        let (error, _) = self.client.produce(9, "t", 0, sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        let mut cluster = self.brokers.cluster();
        let log = cluster.log("t", 0).expect("a log");
        Ok(log.batches().last().expect("a batch").clone())
    }

    fn append(&self, partition: i32, batch: &Bytes) {
        let mut cluster = self.brokers.cluster();
        cluster.log("t", partition).expect("a log").append(batch).expect("a batch");
    }

    async fn fetch(&mut self, partition: i32, offset: i64) -> Checked<(i16, Bytes)> {
        self.client.fetch(11, "t", partition, offset, ALL).await
    }

    /// Nothing is lost of what the ledger has, no reference dangles, and there is no orphan.
    async fn is_sound(&self, what: &str) -> Checked {
        let held = Held::in_folder(&self.store)?;
        let tally = self.ledger.tally(self.proxy.port, &self.brokers, &held).await?;
        tally.is_sound(what, 0)
    }
}

/// The batch with some bytes changed and a CRC that fits.
pub fn changed(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut out = batch.to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

const ATTRIBUTES: usize = 21;
pub const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;

/// The time that a broker gave a batch is the one that clients are given.
pub async fn append_times_stay(faults: Faults) -> Checked {
    let mut scene = scene_with(faults, |setup| setup).await?;
    for (base, codec) in (0..).zip([Codec::None, Codec::Zstd]) {
        let sent = batch(codec, Framing::Plain, &records(&[noise(1, 20_000)]));
        let stored = scene.referring(&sent).await?;
        let marks = [0, 0x08 | codec.bits().to_be_bytes()[1]];
        let stamped = changed(&stored, ATTRIBUTES, &marks);
        let stamped = changed(&stamped, MAX_TIMESTAMP, &1_800_000_000_000_i64.to_be_bytes());
        scene.append(1, &stamped);
        scene.ledger.acknowledged("t", 1, base, &sent);
        let (error, section) = scene.fetch(1, base).await?;
        ensure_eq!(error, 0, "error of Fetch");
        let header = heads(&section)[0];
        ensure!(header.is_log_append_time(), "the append time is lost with {codec:?}");
        ensure_eq!(header.max_timestamp, 1_800_000_000_000, "append time");
        ensure!(read(&section)[0].value == read(&sent)[0].value, "the value differs");
    }
    scene.is_sound("append times").await
}

#[tokio::test]
async fn a_batch_with_the_brokers_append_time_keeps_it() -> Checked {
    append_times_stay(None).await
}

/// Offsets that compaction has left without a record stay so.
pub async fn gaps_stay(faults: Faults) -> Checked {
    let mut scene = scene_with(faults, |setup| setup).await?;
    let large: Vec<_> = (0..3).map(|n| noise(n, 20_000)).collect();
    for (base, codec) in [(0, Codec::None), (10, Codec::Zstd)] {
        let mut sent = records(&large);
        for (record, offset) in sent.iter_mut().zip([0, 4, 7]) {
            record.offset = offset;
        }
        let made = batch(codec, Framing::Plain, &sent);
        let stored = scene.referring(&made).await?;
        let gapped = changed(&stored, LAST_OFFSET_DELTA, &9_i32.to_be_bytes());
        scene.append(1, &gapped);
        scene.ledger.acknowledged("t", 1, base, &made);
        let (error, section) = scene.fetch(1, 0).await?;
        ensure_eq!(error, 0, "error of Fetch");
        let last = heads(&section).last().map(|header| header.last_offset_delta);
        ensure_eq!(last, Some(9), "last offset delta");
        let got: Vec<_> = read(&section).into_iter().rev().take(3).map(|r| r.value).collect();
        let expected: Vec<_> = large.iter().rev().cloned().map(Some).collect();
        ensure!(got == expected, "values differ with {codec:?}");
    }
    scene.is_sound("gaps of compaction").await
}

#[tokio::test]
async fn gaps_that_compaction_left_stay_as_they_are() -> Checked {
    gaps_stay(None).await
}

/// Markers pass as they are, whatever is in them; batches of transactions keep their marks.
pub async fn markers_pass(faults: Faults) -> Checked {
    let mut scene = scene_with(faults, |setup| setup).await?;
    let value = noise(1, 20_000);
    let stored = scene.referring(&single(value.clone())).await?;
    let transactional = changed(&stored, ATTRIBUTES, &[0, 0x10]);
    // A marker whose value looks like a genuine reference, which no broker writes.
    let control = changed(&stored, ATTRIBUTES, &[0, 0x30]);
    for batch in [&transactional, &control] {
        scene.append(2, batch);
    }
    let (error, section) = scene.fetch(2, 0).await?;
    ensure_eq!(error, 0, "error of Fetch");
    scene.ledger.acknowledged("t", 2, 0, &single(value.clone()));
    let heads = heads(&section);
    ensure_eq!(heads.len(), 2, "batches that came, a marker among them");
    ensure!(heads[0].is_transactional() && !heads[0].is_control(), "the first batch's marks");
    ensure!(heads[1].is_control(), "the second batch is no control batch any more");
    let got = read(&section);
    ensure!(got[0].value == Some(value), "the value differs");
    ensure_eq!(got[1].value.as_ref().map(Vec::len), Some(112), "bytes of the marker's value");
    scene.is_sound("control batches").await
}

#[tokio::test]
async fn control_batches_pass_and_transactions_are_restored_with_their_marks() -> Checked {
    markers_pass(None).await
}

#[tokio::test]
async fn a_bomb_in_the_log_passes_as_it_came_and_takes_no_memory() -> Checked {
    let limits = "frame_bytes_max = 8388608\nbuffered_bytes_max = 67108864";
    let mut scene = scene(|setup| setup.limit(limits)).await?;
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        let bomb = batch(codec, Framing::Plain, &records(&[vec![0; 48 << 20]]));
        ensure!(bomb.len() < 1 << 20, "{} bytes are no bomb", bomb.len());
        scene.append(1, &bomb);
    }
    let small = single(noise(1, 500));
    scene.append(2, &small);
    let before = scene.proxy.resident_bytes();
    for n in 0..3 {
        let both = fetch(11, "t", &[(1, n), (2, 0)], ALL);
        let answer: FetchResponse = scene.client.call(1, 11, &both).await?;
        let got: Vec<_> =
            fetched(answer)?.into_iter().map(|(_, e, s)| (e, !s.is_empty())).collect();
        ensure_eq!(got, [(0, true), (0, true)], "errors and data, bomb {n}");
    }
    let growth = scene.proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < 40 << 20, "memory grew by {growth} bytes");
    // On the way in it is the broker's to refuse or take.
    let bomb = batch(Codec::Gzip, Framing::Plain, &records(&[vec![0; 48 << 20]]));
    let (error, _) = scene.client.produce(9, "t", 0, &bomb).await?;
    ensure_eq!(error, 0, "error of a bomb that the fake broker takes");
    scene.ledger.acknowledged("t", 0, 0, &bomb);
    scene.ledger.acknowledged("t", 2, 0, &small);
    scene.is_sound("bombs").await
}

/// Five partitions of 30 MB each, 50 MB asked for, by the same request again and again: an answer
/// holds the first batch that it has room for whole, and each partition has its turn.
pub async fn partitions_take_turns(faults: Faults) -> Checked {
    const VALUE: usize = 30_000_000;
    const PARTITIONS: i32 = 5;
    let mut scene = scene_with(faults, |setup| setup).await?;
    scene.brokers.cluster().add_topic("large", 5);
    let value = |partition: i32| noise(u64::from(partition.unsigned_abs()), VALUE);
    for partition in 0..PARTITIONS {
        let sent = single(value(partition));
        let (error, base) = scene.client.produce(9, "large", partition, &sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        scene.ledger.acknowledged("large", partition, base, &sent);
    }
    let all: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    let asked = fetch(11, "large", &all, 50_000_000);
    let mut left: Vec<_> = (0..PARTITIONS).collect();
    for _ in 0..PARTITIONS {
        let answer: FetchResponse = scene.client.call(1, 11, &asked).await?;
        let mut bytes = 0;
        for (partition, error, section) in fetched(answer)? {
            ensure_eq!(error, 0, "error of partition {partition}");
            bytes += section.len();
            if !section.is_empty() {
                let came = read(&section).remove(0).value;
                ensure!(came == Some(value(partition)), "value {partition} differs");
                left.retain(|other| *other != partition);
            }
        }
        ensure!((VALUE..=50_000_000).contains(&bytes), "{bytes} bytes of 50 MB asked for");
    }
    ensure!(left.is_empty(), "partitions that never come: {left:?}");
    scene.is_sound("5 partitions of 30 MB, 50 MB asked for").await
}

#[tokio::test]
async fn large_values_of_many_partitions_come_one_after_the_other() -> Checked {
    partitions_take_turns(None).await
}

/// Values of aborted transactions are not read for who drops them, and all others are.
pub async fn aborted_values_are_not_read(faults: Faults) -> Checked {
    const VALUE: usize = 20_000;
    let mut scene = scene_with(faults, |setup| setup).await?;
    // Two producers, and what became of their transactions; the last one is in none.
    let written = [(1, Some(false)), (2, Some(true)), (1, Some(true)), (3, None)];
    let mut batches = Vec::new();
    for (n, (producer, _)) in (0..).zip(written) {
        let sent = single(noise(n, VALUE));
        let stored = scene.referring(&sent).await?;
        // In a transaction it comes twice.
        let copies = if producer == 3 { 1 } else { 2 };
        (0..copies).for_each(|copy| {
            scene.ledger.acknowledged("t", 1, i64::try_from(n).unwrap_or(0) * 3 + copy, &sent);
        });
        batches.push(changed(&stored, PRODUCER_ID, &i64::to_be_bytes(producer)));
    }
    for (batch, (producer, end)) in batches.iter().zip(written) {
        let Some(committed) = end else {
            scene.append(1, batch);
            continue;
        };
        // A second batch of it, and only then its end.
        let transactional = changed(batch, ATTRIBUTES, &[0, 0x10]);
        scene.append(1, &transactional);
        scene.append(1, &transactional);
        let mut cluster = scene.brokers.cluster();
        cluster.log("t", 1).expect("a log").end_transaction(producer, 3, committed);
    }
    let got = async || scene.proxy.metric("firebreak_offload_objects_total{op=\"restore\"}").await;
    let mut client = Client::connect(scene.proxy.port).await?;
    let mut before = got().await?;
    for (isolation, restored) in [(1, 5.0), (0, 7.0)] {
        let asked = fetch(11, "t", &[(1, 0)], ALL).with_isolation_level(isolation);
        let answer: FetchResponse = client.call(1, 11, &asked).await?;
        let (_, error, section) = fetched(answer)?.remove(0);
        ensure_eq!(error, 0, "error of Fetch");
        let values = read(&section).into_iter().filter_map(|record| record.value);
        let values: Vec<_> = values.filter(|value| value.len() >= REFERENCE_BYTES).collect();
        let sent = [0, 0, 1, 1, 2, 2, 3].map(|n| noise(n, VALUE));
        for (n, (value, sent)) in values.iter().zip(&sent).enumerate() {
            let dropped = isolation == 1 && n < 2;
            ensure!(dropped || value == sent, "value {n} of {} bytes differs", value.len());
        }
        ensure_eq!(values.len(), sent.len(), "values that came");
        let after = got().await?;
        ensure_eq!(after - before, restored, "values read with isolation level {isolation}");
        before = after;
    }
    scene.is_sound("aborted transactions").await
}

#[tokio::test]
async fn values_of_aborted_transactions_are_not_read_for_who_drops_them() -> Checked {
    aborted_values_are_not_read(None).await
}

#[tokio::test]
async fn an_empty_batch_beside_a_reference_stays() -> Checked {
    let mut scene = scene(|setup| setup).await?;
    let value = noise(1, 20_000);
    let stored = scene.referring(&single(value.clone())).await?;
    let header = BatchHeader::parse(&stored).expect("a head");
    let empty = BatchHeader { records_count: 0, last_offset_delta: 3, ..header };
    let empty = protocol_ext::batch::build(empty, Framing::Plain, &[]).expect("a batch");
    scene.append(1, &empty);
    scene.append(1, &stored);
    let (error, section) = scene.fetch(1, 0).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure_eq!(heads(&section).len(), 2, "batches");
    let got = read(&section);
    ensure!(got.len() == 1 && got[0].value == Some(value), "the value differs");
    Ok(())
}
