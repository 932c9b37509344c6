//! A side whose peer does not read is not read either, and nobody else notices.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::FetchResponse;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::{Checked, ensure, ensure_eq, noise, until};

const MIB: usize = 1024 * 1024;
const READERS: usize = 8;
const ANSWER_BYTES: usize = 24 * MIB;
/// Buffers of the readers and some slack of the allocator.
const GROWTH_BYTES_MAX: usize = 8 * MIB;

/// Waits until a count stands still.
async fn settled(count: impl Fn() -> usize) -> Checked<usize> {
    let mut last = usize::MAX;
    until("an end of the flow", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = count();
        let still = now == last;
        last = now;
        still.then_some(now)
    })
    .await
}

#[tokio::test]
async fn readers_that_do_not_read_stop_the_broker_cost_no_memory_and_hinder_nobody() -> Checked {
    let brokers = Brokers::start(1).await;
    // The proxy's own questions would keep the count moving.
    let proxy = Setup::new(&brokers, None).refresh_ms(600_000).start().await;
    let batch = single(noise(6, ANSWER_BYTES));
    brokers.cluster().log("t", 0).expect("a log").append(&batch).expect("a batch");
    let mut other = Client::connect(proxy.port).await?;
    other.metadata(12).await?;
    let before = proxy.resident_bytes();

    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Client::connect_with_buffer(proxy.port, 64 * 1024).await?;
        let correlation = reader.send(1, 16, &fetch(16, "t", &[(0, 0)], i32::MAX)).await?;
        readers.push((reader, correlation));
    }
    let sent = settled(|| brokers.counts(0).sent.load(Ordering::Relaxed)).await?;
    ensure!(sent < READERS * ANSWER_BYTES, "the broker could send everything, {sent} bytes");
    for _ in 0..50 {
        other.metadata(12).await?;
    }
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes");

    for (mut reader, correlation) in readers {
        let answer: FetchResponse = answer(&reader.receive().await?, 16, correlation)?;
        let (_, error, records) = fetched(answer)?.remove(0);
        ensure_eq!(error, 0, "error of the partition");
        ensure!(records[16..] == batch[16..], "records differ from those stored");
    }
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 1.0).await?;
    let paused = proxy.metric("firebreak_reads_paused_seconds_total{side=\"broker\"}").await?;
    ensure!(paused > 0.0, "the pause was not counted");
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes while they read");
    Ok(())
}

#[tokio::test]
async fn a_broker_that_does_not_read_stops_the_client() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    let before = proxy.resident_bytes();
    // The broker reads the next request only once this answer may go.
    brokers.cluster().script(2, protocol_ext::fake_broker::Fault::HoldAfter(0));
    client.send(2, 7, &crate::harness::requests::list_offsets("t")).await?;
    let request = produce(9, 0, "t", &[(0, single(noise(7, 60 * MIB)))]);
    let sent = tokio::time::timeout(Duration::from_secs(2), client.send(0, 9, &request)).await;
    ensure!(sent.is_err(), "60 MiB went somewhere though the broker does not read");
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes");
    Ok(())
}
