//! What is held whole is bounded by configuration, however many clients there are and whatever
//! batches inflate to.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{FetchResponse, ProduceResponse};
use protocol_ext::codec::{Codec, Framing};

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::{batch, read, records, single};
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};

const MIB: usize = 1024 * 1024;
const VALUE: usize = 6 * MIB;
const CLIENTS: u64 = 24;
/// Room for one such request and one such answer at a time.
const BUDGET: &str = "frame_bytes_max = 8388608\nbuffered_bytes_max = 16777216";
/// The budget, and what the process and its allocator may need besides. Without a budget the
/// values alone would take twice that.
const GROWTH_BYTES_MAX: usize = (16 + 60) * MIB;

#[tokio::test]
async fn many_large_values_at_once_take_their_turns_within_the_byte_budget() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    // On a machine with other work nobody is closed for being slow.
    let setup = Setup::new(&brokers, None).limit(BUDGET).limit("frame_progress_ms = 300000");
    let proxy = setup.offload(&store, 1000).start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(12).await?;
        clients.push(client);
    }
    let before = proxy.resident_bytes();
    let mut tasks = tokio::task::JoinSet::new();
    for (n, mut client) in (0..).zip(clients) {
        tasks.spawn(async move {
            let batch = single(noise(n, VALUE));
            let correlation = client.send(0, 9, &produce(9, -1, "t", &[(0, batch)])).await?;
            let answer: ProduceResponse = answer(&client.receive().await?, 9, correlation)?;
            Ok((answer.responses[0].partition_responses[0].error_code, client))
        });
    }
    let mut clients = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let done: Checked<(i16, Client)> = done.expect("no panic");
        let (error, client) = done?;
        ensure_eq!(error, 0, "error of Produce");
        clients.push(client);
    }
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes while values were stored");

    // All of them back: every client fetches one.
    let mut tasks = tokio::task::JoinSet::new();
    for (n, mut client) in (0_i64..).zip(clients) {
        tasks.spawn(async move {
            let correlation = client.send(1, 11, &fetch(11, "t", &[(0, n)], 1000)).await?;
            let answer: FetchResponse = answer(&client.receive().await?, 11, correlation)?;
            let (_, error, section) = fetched(answer)?.remove(0);
            ensure_eq!(error, 0, "error of Fetch");
            let records = read(&section);
            ensure_eq!(records.len(), 1, "records of Fetch");
            let length = records[0].value.as_ref().map(Vec::len);
            ensure_eq!(length, Some(VALUE), "bytes of the value");
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic")?;
    }
    Ok(())
}

#[tokio::test]
async fn large_and_small_values_of_one_client_keep_their_order() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let size = |n: u64| if n.is_multiple_of(3) { 40_000 } else { 100 };
    let mut asked = Vec::new();
    for n in 0..60 {
        let request = produce(9, -1, "t", &[(0, single(noise(n, size(n))))]);
        asked.push(client.send(0, 9, &request).await?);
    }
    for (n, correlation) in (0..).zip(asked) {
        let answer: ProduceResponse = answer(&client.receive().await?, 9, correlation)?;
        let partition = &answer.responses[0].partition_responses[0];
        ensure_eq!((partition.error_code, partition.base_offset), (0, n), "answer {n}");
    }
    let (error, section) = client.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of Fetch");
    for (n, record) in (0..).zip(read(&section)) {
        ensure!(record.value == Some(noise(n, size(n))), "value {n} is another one");
    }
    Ok(())
}

/// Readers that ask for restored values and read nothing.
async fn stuck(brokers: &Brokers, port: u16, readers: usize) -> Checked<Vec<Client>> {
    let before = brokers.cluster().count(1);
    let mut stuck = Vec::new();
    for _ in 0..readers {
        let mut reader = Client::connect_with_buffer(port, 4096).await?;
        reader.send(1, 11, &fetch(11, "t", &[(0, 0)], i32::MAX)).await?;
        stuck.push(reader);
    }
    let all = || brokers.cluster().count(1) >= before + readers;
    until("all questions at the broker", async || all().then_some(())).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(stuck)
}

#[tokio::test]
async fn readers_of_restored_values_that_do_not_read_hinder_nobody_within_the_budget() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    for n in 0..2 {
        let (error, _) = client.produce(9, "t", 0, &single(noise(n, VALUE))).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    let _stuck = stuck(&brokers, proxy.port, 8).await?;
    let (error, section) = client.fetch(11, "t", 0, 1, 1000).await?;
    ensure_eq!((error, read(&section).len()), (0, 1), "error and values of another reader");
    Ok(())
}

#[tokio::test]
async fn room_that_a_reader_held_is_given_back_when_it_leaves() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).limit(BUDGET).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    for n in 0..2 {
        let (error, _) = client.produce(9, "t", 0, &single(noise(n, VALUE))).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    // The room is for one of them; the others wait for it, and so does the client.
    let stuck = stuck(&brokers, proxy.port, 3).await?;
    let correlation = client.send(1, 11, &fetch(11, "t", &[(0, 1)], 1000)).await?;
    drop(stuck);
    let answer: FetchResponse = answer(&client.receive().await?, 11, correlation)?;
    let (_, error, section) = fetched(answer)?.remove(0);
    ensure_eq!((error, read(&section).len()), (0, 1), "error and values once there is room");
    Ok(())
}

/// Partitions of a topic whose batches are small and inflate.
const BOMBS: i32 = 48;
/// What one of them inflates to: all that a batch may.
const INFLATED: usize = 8_000_000;
/// The budget; one batch three times, since that one always has room; and what else a process
/// needs. All bombs at once would take 380 MB.
const INFLATED_GROWTH_MAX: usize = (16 + 3 * 8 + 60) * MIB;

/// A batch of some KiB whose second value inflates to so many bytes.
fn bomb(bytes: usize) -> Bytes {
    batch(Codec::Zstd, Framing::Plain, &records(&[noise(9, 2000), vec![7; bytes]]))
}

/// A request of some KiB whose batches become megabytes: they are opened one after the other, on
/// Produce and on Fetch, and all is stored and restored.
pub async fn batches_inflate_within_the_budget(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    brokers.cluster().add_topic("wide", 48);
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).limit(BUDGET).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    let before = proxy.resident_bytes();
    let batches: Vec<_> = (0..BOMBS).map(|n| (n, bomb(INFLATED))).collect();
    let request = produce(9, -1, "wide", &batches);
    let answer: ProduceResponse = client.call(0, 9, &request).await?;
    let codes = answer.responses[0].partition_responses.iter().map(|p| p.error_code);
    ensure_eq!(codes.filter(|code| *code == 0).count(), 48, "partitions without an error");
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    println!("memory grew by {growth} bytes on Produce");
    ensure!(growth < INFLATED_GROWTH_MAX, "memory grew by {growth} bytes: inflated too much");
    let inflated = "firebreak_buffered_bytes{what=\"inflated\"}";
    proxy.metric_becomes(inflated, 0.0).await?;

    for n in 0..BOMBS {
        let (error, section) = client.fetch(11, "wide", n, 0, 1000).await?;
        let values: Vec<_> = read(&section).into_iter().filter_map(|r| r.value).collect();
        ensure_eq!(error, 0, "error of Fetch");
        ensure!(values == [noise(9, 2000), vec![7; INFLATED]], "other values came");
    }
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    println!("memory grew by {growth} bytes on Fetch");
    // What the allocator keeps of the values of earlier answers is not given back at once.
    ensure!(
        growth < INFLATED_GROWTH_MAX + 120 * MIB,
        "memory grew by {growth} bytes: inflated too much"
    );
    Ok(())
}

#[tokio::test]
async fn small_batches_that_inflate_are_opened_within_the_byte_budget() -> Checked {
    batches_inflate_within_the_budget(None).await
}

/// What is longer than one batch may be passes as it came, and stays readable.
#[tokio::test]
async fn a_batch_that_inflates_beyond_a_frame_passes_and_is_read_as_it_came() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).limit(BUDGET).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let sent = bomb(9_000_000);
    let small = noise(1, 5000);
    for batch in [sent, single(small.clone())] {
        let (error, _) = client.produce(9, "t", 0, &batch).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    let (error, section) = client.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of Fetch");
    let values: Vec<_> = read(&section).into_iter().filter_map(|r| r.value).collect();
    ensure!(values == [noise(9, 2000), vec![7; 9_000_000], small], "other values came");
    let passed = "firebreak_offload_objects_total{op=\"unopened\"}";
    proxy.metric_becomes(passed, 2.0).await
}
