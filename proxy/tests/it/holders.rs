//! Peers that keep room of the byte budget from others: clients that send or read slowly, brokers
//! that do not take.

use std::time::Duration;

use kafka_protocol::messages::{FetchResponse, ListOffsetsResponse, ProduceResponse};
use protocol_ext::fake_broker::Fault;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched, list_offsets, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

const MIB: usize = 1024 * 1024;
const VALUE: usize = 6 * MIB;
/// Room for one request with such a value and one such answer at a time.
const LIMITS: &str = "frame_bytes_max = 8388608\nbuffered_bytes_max = 16777216\n\
    frame_progress_ms = 4000";
const WAITING: &str = "firebreak_buffer_waiting{what=\"requests\"}";
const PAUSE: Duration = Duration::from_millis(100);

fn stalled(blame: &str) -> String {
    format!("firebreak_errors_total{{blame=\"{blame}\",kind=\"stalled\"}}")
}

async fn told(proxy: &Proxy, blame: &str) -> Checked {
    proxy.metric_becomes(&stalled(blame), 1.0).await?;
    let line = || (proxy.logged("of limits.buffered_bytes_max") > 0).then_some(());
    until("a line", async || line()).await
}

/// Ten KiB a second are progress, and no use to those who wait for the megabytes behind them.
pub async fn a_sender_that_keeps_room_is_closed(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, faults).limit(LIMITS).offload(&store, 1000);
    let proxy = setup.start().await;
    let mut good = Client::connect(proxy.port).await?;
    let batch = |n| single(noise(n, VALUE));
    let frame = request_frame(0, 9, 1, &produce(9, -1, "t", &[(0, batch(1))]));
    let mut slow = Client::connect(proxy.port).await?;
    slow.send_raw(&frame[..MIB]).await?;
    // Its request is not read while there is no room for it.
    let mut served = tokio::task::JoinSet::new();
    served.spawn(async move {
        let wanted = good.send(0, 9, &produce(9, -1, "t", &[(0, batch(2))])).await?;
        answer::<ProduceResponse>(&good.receive().await?, 9, wanted)
    });
    for (n, part) in (0..).zip(frame[MIB..].chunks(1100)) {
        ensure!(n < 100, "a slow sender keeps its room");
        if slow.send_raw(part).await.is_err() || proxy.metric(&stalled("client")).await? > 0.0 {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    told(&proxy, "client").await?;
    let answered = served.join_next().await.ok_or_else(|| failure("nobody waits"))?;
    let answer = answered.map_err(failure)??;
    let row = &answer.responses[0].partition_responses[0];
    ensure_eq!((row.error_code, row.base_offset), (0, 0), "answer of who waited");
    ensure_eq!(brokers.cluster().count(0), 1, "Produce requests at the broker");
    Ok(())
}

#[tokio::test]
async fn a_slow_sender_is_closed_when_it_keeps_room_from_others() -> Checked {
    a_sender_that_keeps_room_is_closed(None).await
}

/// Long requests that wait for room keep short questions from nothing: a group would lose a member
/// whose heartbeat came late.
pub async fn short_questions_wait_for_nobody(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, faults).limit(LIMITS).offload(&store, 1000).virtual_topic();
    let proxy = setup.start().await;
    let frame = request_frame(0, 9, 1, &produce(9, -1, "t", &[(0, single(noise(1, VALUE)))]));
    let mut asking = Client::connect(proxy.port).await?;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.port).await?;
        client.send_raw(&frame[..MIB]).await?;
        slow.push(client);
    }
    let waits = async || (proxy.metric(WAITING).await.ok()? > 0.5).then_some(());
    until("somebody who waits for room", waits).await?;
    let wanted = asking.send(2, 7, &list_offsets("t")).await?;
    let answer: ListOffsetsResponse = answer(&asking.receive().await?, 7, wanted)?;
    ensure_eq!(answer.topics.len(), 1, "topics told");
    ensure!(proxy.metric(WAITING).await? > 0.5, "a question waited for room");
    Ok(())
}

#[tokio::test]
async fn a_short_question_is_answered_while_others_wait_for_room() -> Checked {
    short_questions_wait_for_nobody(None).await
}

async fn produced(proxy: &Proxy, values: u64) -> Checked<Client> {
    let mut client = Client::connect(proxy.port).await?;
    for n in 0..values {
        let (error, _) = client.produce(9, "t", 0, &single(noise(n, VALUE))).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    Ok(client)
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_closed_when_it_keeps_room_from_others() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).limit(LIMITS).offload(&store, 1000).start().await;
    let mut client = produced(&proxy, 2).await?;
    let before = brokers.cluster().count(1);
    let mut reader = Client::connect_with_buffer(proxy.port, 4096).await?;
    reader.send(1, 11, &fetch(11, "t", &[(0, 0)], i32::MAX)).await?;
    let asked = || (brokers.cluster().count(1) > before).then_some(());
    until("the question", async || asked()).await?;
    let held = "firebreak_buffered_bytes{what=\"restored\"}";
    let held = async || (proxy.metric(held).await.ok()? > VALUE as f64 / 2.0).then_some(());
    until("room that is held", held).await?;
    let wanted = client.send(1, 11, &fetch(11, "t", &[(0, 1)], 1000)).await?;
    let answer: FetchResponse = answer(&client.receive().await?, 11, wanted)?;
    let (_, error, section) = fetched(answer)?.remove(0);
    ensure_eq!((error, read(&section).len()), (0, 1), "error and values of who waited");
    told(&proxy, "client").await
}

#[tokio::test]
async fn a_broker_that_takes_no_request_keeps_room_only_so_long() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let rule = "on_store_failure = \"inline\"\ninline_bytes_max = 8000000";
    let setup = Setup::new(&brokers, None).limit(LIMITS).offload(&store, 1000).rule(rule);
    let proxy = setup.start().await;
    // Originals go on since nothing can be stored, to a broker that is busy with something else.
    std::fs::remove_dir(store.path().join("pending")).expect("an empty folder");
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::HoldAfter(0));
    client.send(2, 7, &list_offsets("t")).await?;
    until("the request", async || (brokers.cluster().count(2) > 0).then_some(())).await?;
    client.send(0, 9, &produce(9, -1, "t", &[(0, single(noise(1, VALUE)))])).await?;
    told(&proxy, "upstream").await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer from nowhere");
    Ok(())
}

/// A connection that drains in the middle of a request is cut off like any other.
#[tokio::test]
async fn what_stands_still_while_it_drains_is_cut_off() -> Checked {
    let brokers = Brokers::start(1).await;
    let limits = "frame_progress_ms = 1500\nage_ms = 200";
    let proxy = Setup::new(&brokers, None).limit(limits).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let frame = request_frame(0, 9, 1, &produce(9, -1, "t", &[(0, single(noise(1, 3000)))]));
    client.send_raw(&frame[..100]).await?;
    proxy.metric_becomes("firebreak_closed_connections_total{reason=\"old\"}", 1.0).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer to a part of a request");
    let slow = "firebreak_errors_total{blame=\"client\",kind=\"slow_frame\"}";
    proxy.metric_becomes(slow, 1.0).await
}
