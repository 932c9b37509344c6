//! What is held whole is bounded by configuration, however many clients there are.

use std::time::Duration;

use kafka_protocol::messages::{FetchResponse, ProduceResponse};

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::{Checked, ensure, ensure_eq, noise, until};

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
    let proxy = Setup::new(&brokers, None).limit(BUDGET).offload(&store, 1000).start().await;
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
