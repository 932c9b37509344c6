//! Large frames pass while they come, in memory that does not depend on their size.

use kafka_protocol::messages::{FetchResponse, ProduceResponse};
use protocol_ext::fake_broker::Fault;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::{Checked, ensure, ensure_eq, noise, until};
use bytes::{Bytes, BytesMut};
use std::sync::atomic::Ordering;

const MIB: usize = 1024 * 1024;
/// What one connection with a frame of any size may add to the process.
const GROWTH_BYTES_MAX: usize = 6 * MIB;

/// Fetch of 50 MB, of which the broker holds all but the first two MiB until a client has one.
async fn fetch_passes(version: i16) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let batch = single(noise(4, 50 * MIB));
    brokers.cluster().log("t", 0).expect("a log").append(&batch).expect("a batch");
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    let before = proxy.resident_bytes();
    let sent_before = brokers.counts(0).sent.load(Ordering::Relaxed);

    brokers.cluster().script(1, Fault::HoldAfter(2 * MIB));
    let correlation = client.send(1, version, &fetch(version, "t", &[(0, 0)], i32::MAX)).await?;
    let first = client.receive_bytes(MIB).await?;
    let sent = brokers.counts(0).sent.load(Ordering::Relaxed) - sent_before;
    ensure!(sent < 3 * MIB, "the broker had sent {sent} bytes");
    brokers.release();

    let length = u32::from_be_bytes([first[0], first[1], first[2], first[3]]) as usize;
    let rest = client.receive_bytes(4 + length - first.len()).await?;
    let mut whole = BytesMut::from(&first[4..]);
    whole.extend_from_slice(&rest);
    let answer: FetchResponse = answer(&whole.freeze(), version, correlation)?;
    let (_, error, records) = fetched(answer)?.remove(0);
    ensure_eq!(error, 0, "error of the partition");
    ensure!(records[16..] == batch[16..], "records differ from those stored");
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes");
    Ok(())
}

#[tokio::test]
async fn the_first_bytes_of_a_large_answer_arrive_before_the_last_are_sent() -> Checked {
    fetch_passes(11).await
}

#[tokio::test]
async fn the_same_for_an_answer_that_may_have_a_tail_of_addresses() -> Checked {
    fetch_passes(18).await
}

#[tokio::test]
async fn the_first_bytes_of_a_large_request_arrive_before_the_last_are_sent() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let batch = single(noise(5, 50 * MIB));
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    let before = proxy.resident_bytes();
    let received = || brokers.counts(0).received.load(Ordering::Relaxed);
    let received_before = received();

    let frame: Bytes = request_frame(0, 9, 7, &produce(9, 1, "t", &[(0, batch.clone())]));
    client.send_raw(&frame[..2 * MIB]).await?;
    until("first bytes at the broker", async || (received() - received_before > MIB).then_some(()))
        .await?;
    client.send_raw(&frame[2 * MIB..]).await?;
    let answer: ProduceResponse = answer(&client.receive().await?, 9, 7)?;
    ensure_eq!(answer.responses[0].partition_responses[0].error_code, 0, "error of Produce");
    let stored = brokers.cluster().log("t", 0).and_then(|log| log.batches().next().cloned());
    ensure!(stored.is_some_and(|stored| stored[16..] == batch[16..]), "the batch changed");
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes");
    Ok(())
}
