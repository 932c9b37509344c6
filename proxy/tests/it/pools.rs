//! Readers that lag: what they read is not kept, and they have room of their own.

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;

use crate::harness::aged::aged;
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched};
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, failure, noise, until};

const THRESHOLD: usize = 1000;
const ALL: i32 = i32::MAX;

async fn take(client: &mut Client, topic: &str, partition: i32, value: &[u8]) -> Checked {
    let (error, _) = client.produce(9, topic, partition, &single(value.to_vec())).await?;
    ensure_eq!(error, 0, "error of Produce to {topic}/{partition}");
    Ok(())
}

/// Appends to a partition what refers to its last value as one that was written long ago.
fn append_aged(brokers: &Brokers, s3: &S3, from: i32, to: i32) -> Checked {
    let stored = {
        let mut cluster = brokers.cluster();
        let log = cluster.log("t", from).ok_or_else(|| failure("no log"))?;
        log.batches().last().cloned().ok_or_else(|| failure("no batch"))?
    };
    let old = aged(&stored, "t", &s3.key_file())?;
    let mut cluster = brokers.cluster();
    let log = cluster.log("t", to).ok_or_else(|| failure("no log"))?;
    log.append(&old).map(drop).map_err(failure)
}

fn values(section: &Bytes) -> Vec<Vec<u8>> {
    read(section).into_iter().filter_map(|record| record.value).collect()
}

/// Waits until a start has asked the store for all that it asks for.
async fn settled(s3: &S3) -> Checked {
    until("an owner", async || s3.has_owner().then_some(())).await?;
    tokio::time::sleep(QUIET).await;
    Ok(())
}

/// More of old values is read than there is memory for values: the one at the tail stays in it.
pub async fn old_values_push_nothing_out(faults: Faults) -> Checked {
    const MEMORY: usize = 8 << 20;
    const OLD: u64 = 12;
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    // What it stores stays in its own memory: another one reads.
    let writer = Setup::new(&brokers, None).offload_s3(&s3, THRESHOLD).start().await;
    let mut client = Client::connect(writer.port).await?;
    let tail = noise(99, 300_000);
    take(&mut client, "t", 0, &tail).await?;
    for n in 0..OLD {
        take(&mut client, "t", 1, &noise(n, 1_000_000)).await?;
        append_aged(&brokers, &s3, 1, 2)?;
    }
    let setup = Setup::new(&brokers, faults).offload_s3(&s3, THRESHOLD).cache_bytes(MEMORY);
    let reader = setup.start().await;
    let mut client = Client::connect(reader.port).await?;
    for (partition, sent) in [
        (0, vec![tail.clone()]),
        (2, (0..OLD).map(|n| noise(n, 1_000_000)).collect()),
        (0, vec![tail]),
    ] {
        let (error, section) = client.fetch(11, "t", partition, 0, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch");
        ensure!(values(&section) == sent, "values of partition {partition} differ");
    }
    ensure!(s3.count(Kind::Get) >= 13, "{} reads of the store", s3.count(Kind::Get));
    let hits = reader.metric("firebreak_offload_cache_total{result=\"hit\"}").await?;
    ensure_eq!(hits, 1.0, "values at the tail found in memory");
    Ok(())
}

#[tokio::test]
async fn old_values_are_not_kept_and_push_no_new_one_out_of_memory() -> Checked {
    old_values_push_nothing_out(None).await
}

/// The store gives old values no more, and takes all room that there is for them: who reads at the
/// tail does not wait.
pub async fn laggards_wait_alone(faults: Faults) -> Checked {
    // Room of 4 MiB for old values on their way, and as much for new ones.
    const LIMITS: &str = "frame_bytes_max = 8388608\nbuffered_bytes_max = 67108864";
    // Two of these take so much of it that there is none for a new value of this size beside them.
    const OLD: usize = 1_900_000;
    const NEW: usize = 500_000;
    let brokers = Brokers::start(1).await;
    brokers.cluster().add_topic("tail", 1);
    let s3 = S3::start().await;
    let setup = Setup::new(&brokers, faults).offload_s3(&s3, THRESHOLD).limit(LIMITS);
    let proxy = setup.start().await;
    settled(&s3).await?;
    let mut client = Client::connect(proxy.port).await?;
    take(&mut client, "tail", 0, &noise(99, NEW)).await?;
    for partition in 0..3 {
        take(&mut client, "t", partition, &old(partition, OLD)).await?;
        append_aged(&brokers, &s3, partition, partition)?;
    }
    ask_twice_for_the_last_time(&mut client, &s3, &proxy).await?;

    s3.always(Kind::Get, Fault::Silent);
    let before = s3.count(Kind::Get);
    let mut laggard = Client::connect(proxy.port).await?;
    let asked = fetch(11, "t", &[(0, 1), (1, 1), (2, 1)], ALL);
    let correlation = laggard.send(1, 11, &asked).await?;
    let held = async || (s3.count(Kind::Get) >= before + 2).then_some(());
    until("two reads that are not answered", held).await?;
    s3.always(Kind::Get, Fault::None);
    let (error, section) = client.fetch(11, "tail", 0, 0, ALL).await?;
    ensure!(laggard.is_quiet().await, "who lags was answered before who reads at the tail");
    ensure_eq!(error, 0, "error of Fetch at the tail");
    ensure!(values(&section) == [noise(99, NEW)], "the value at the tail differs");

    let answer: FetchResponse = answer(&laggard.receive().await?, 11, correlation)?;
    for (partition, error, section) in fetched(answer)? {
        ensure_eq!(error, 0, "error of old values");
        ensure!(values(&section) == [old(partition, OLD)], "old value {partition} differs");
    }
    Ok(())
}

fn old(partition: i32, bytes: usize) -> Vec<u8> {
    noise(u64::from(partition.unsigned_abs()), bytes)
}

/// One read in twenty may be asked twice: with this one none of the next ones is.
async fn ask_twice_for_the_last_time(client: &mut Client, s3: &S3, proxy: &Proxy) -> Checked {
    s3.script(Kind::Get, &[Fault::Slow(QUIET * 2)]);
    let (error, section) = client.fetch(11, "tail", 0, 0, ALL).await?;
    ensure_eq!((error, section.is_empty()), (0, false), "error of Fetch, and whether it is empty");
    let hedged = proxy.metric("firebreak_offload_hedged_total").await?;
    ensure!(hedged >= 1.0, "nothing was asked twice");
    Ok(())
}

#[tokio::test]
async fn readers_that_lag_keep_nobody_waiting_who_reads_at_the_tail() -> Checked {
    laggards_wait_alone(None).await
}
