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
use crate::harness::{Checked, ensure, ensure_eq, noise};

const THRESHOLD: usize = 1000;
const ALL: i32 = i32::MAX;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    _store: Folder,
}

async fn scene(change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = change(Setup::new(&brokers, None).offload(&store, THRESHOLD));
    let proxy = setup.start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, _store: store })
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
}

/// The batch with some bytes changed and a CRC that fits.
fn changed(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut out = batch.to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;

#[tokio::test]
async fn a_batch_with_the_brokers_append_time_keeps_it() -> Checked {
    let mut scene = scene(|setup| setup).await?;
    let value = noise(1, 20_000);
    let stored = scene.referring(&single(value.clone())).await?;
    let stamped = changed(&stored, ATTRIBUTES, &[0, 0x08]);
    let stamped = changed(&stamped, MAX_TIMESTAMP, &1_800_000_000_000_i64.to_be_bytes());
    scene.append(1, &stamped);
    let (error, section) = scene.fetch(1, 0).await?;
    ensure_eq!(error, 0, "error of Fetch");
    let header = heads(&section)[0];
    ensure!(header.is_log_append_time(), "the append time is lost");
    ensure_eq!(header.max_timestamp, 1_800_000_000_000, "append time");
    ensure!(read(&section)[0].value == Some(value), "the value differs");
    Ok(())
}

#[tokio::test]
async fn gaps_that_compaction_left_stay_as_they_are() -> Checked {
    let mut scene = scene(|setup| setup).await?;
    let large: Vec<_> = (0..3).map(|n| noise(n, 20_000)).collect();
    for codec in [Codec::None, Codec::Zstd] {
        let mut sent = records(&large);
        for (record, offset) in sent.iter_mut().zip([0, 4, 7]) {
            record.offset = offset;
        }
        let made = batch(codec, Framing::Plain, &sent);
        let stored = scene.referring(&made).await?;
        let gapped = changed(&stored, LAST_OFFSET_DELTA, &9_i32.to_be_bytes());
        scene.append(1, &gapped);
        let (error, section) = scene.fetch(1, 0).await?;
        ensure_eq!(error, 0, "error of Fetch");
        let last = heads(&section).last().map(|header| header.last_offset_delta);
        ensure_eq!(last, Some(9), "last offset delta");
        let got: Vec<_> = read(&section).into_iter().rev().take(3).map(|r| r.value).collect();
        let expected: Vec<_> = large.iter().rev().cloned().map(Some).collect();
        ensure!(got == expected, "values differ with {codec:?}");
    }
    Ok(())
}

#[tokio::test]
async fn control_batches_pass_and_transactions_are_restored_with_their_marks() -> Checked {
    let mut scene = scene(|setup| setup).await?;
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
    let heads = heads(&section);
    ensure!(heads[0].is_transactional() && !heads[0].is_control(), "the first batch's marks");
    ensure!(heads[1].is_control(), "the second batch is no control batch any more");
    let got = read(&section);
    ensure!(got[0].value == Some(value), "the value differs");
    ensure_eq!(got[1].value.as_ref().map(Vec::len), Some(112), "bytes of the marker's value");
    Ok(())
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
    scene.append(2, &single(noise(1, 500)));
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
    Ok(())
}

/// Five partitions of 30 MB each, 50 MB asked for: the first is whole, and all come in turn.
#[tokio::test]
async fn large_values_of_many_partitions_come_one_after_the_other() -> Checked {
    const VALUE: usize = 30_000_000;
    let mut scene = scene(|setup| setup).await?;
    for partition in 0..3 {
        let sent = single(noise(partition, VALUE));
        let partition = i32::try_from(partition).unwrap_or(0);
        let (error, _) = scene.client.produce(9, "t", partition, &sent).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    let mut left = vec![(0, 0), (1, 0), (2, 0)];
    let mut answers = 0;
    while !left.is_empty() {
        let answer: FetchResponse =
            scene.client.call(1, 11, &fetch(11, "t", &left, 50_000_000)).await?;
        answers += 1;
        let mut bytes = 0;
        for (partition, error, section) in fetched(answer)? {
            ensure_eq!(error, 0, "error of partition {partition}");
            bytes += section.len();
            if !section.is_empty() {
                let expected = noise(u64::from(partition.unsigned_abs()), VALUE);
                ensure!(read(&section)[0].value == Some(expected), "value {partition} differs");
                left.retain(|(p, _)| *p != partition);
            }
        }
        ensure!(bytes <= 50_000_000, "{bytes} bytes where 50 MB were asked for");
        ensure!(answers <= 3, "{} partitions never come", left.len());
    }
    Ok(())
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
