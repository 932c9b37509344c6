//! Clients that overstay: idle, too old, stuck within a request, too many.

use std::time::Duration;

use kafka_protocol::messages::ListOffsetsResponse;
use protocol_ext::fake_broker::Fault;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::requests::{list_offsets, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};

/// A byte now and then holds a connection only so long, and others are served meanwhile.
pub async fn a_stuck_request_is_cut_off(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).limit("frame_progress_ms = 3000").start().await;
    let kind = "firebreak_errors_total{blame=\"client\",kind=\"slow_frame\"}";
    let mut good = Client::connect(proxy.port).await?;
    let frame = request_frame(0, 9, 1, &produce(9, -1, "t", &[(0, single(noise(1, 3000)))]));
    let mut slow = Client::connect(proxy.port).await?;
    slow.send_raw(&frame[..100]).await?;
    let mut sent = 0;
    // Time in which the rest would not come at this pace.
    while proxy.metric(kind).await? == 0.0 {
        ensure!(sent < 300, "a byte at a time holds a connection, {sent} bytes so far");
        if slow.send_raw(&frame[100 + sent..=100 + sent]).await.is_err() {
            break;
        }
        sent += 1;
        good.metadata(12).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(sent > 3, "cut off after {sent} bytes");
    ensure!(slow.receive_to_end().await?.is_empty(), "an answer to a part of a request");
    until("a line", async || (proxy.logged("request without progress") > 0).then_some(())).await?;
    proxy.metric_becomes(kind, 1.0).await?;
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 1.0).await?;
    proxy.metric_becomes("firebreak_connections{side=\"broker\"}", 1.0).await?;
    good.metadata(12).await?;
    ensure_eq!(brokers.cluster().count(0), 0, "requests at the broker");
    Ok(())
}

#[tokio::test]
async fn a_request_that_comes_a_byte_at_a_time_is_cut_off() -> Checked {
    a_stuck_request_is_cut_off(None).await
}

#[tokio::test]
async fn a_request_in_parts_that_get_on_is_served() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("frame_progress_ms = 3000").start().await;
    let frame = request_frame(0, 9, 1, &produce(9, -1, "t", &[(0, single(noise(1, 30_000)))]));
    let mut client = Client::connect(proxy.port).await?;
    // All of it takes longer than the limit, a part of it much less.
    for part in frame.chunks(2000) {
        client.send_raw(part).await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    client.receive().await?;
    ensure_eq!(brokers.cluster().count(0), 1, "requests at the broker");
    Ok(())
}

/// A broker that does not read is no client's fault.
#[tokio::test]
async fn a_request_that_the_broker_does_not_take_is_not_cut_off() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("frame_progress_ms = 300").start().await;
    brokers.cluster().script(2, Fault::HoldAfter(0));
    let mut client = Client::connect(proxy.port).await?;
    let asked = client.send(2, 7, &list_offsets("t")).await?;
    until("the request", async || (brokers.cluster().count(2) > 0).then_some(())).await?;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    brokers.release();
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, asked)?;
    Ok(())
}

#[tokio::test]
async fn idle_connections_close_and_busy_ones_stay() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("idle_ms = 3000").start().await;
    let mut busy = Client::connect(proxy.port).await?;
    let mut idle = Client::connect(proxy.port).await?;
    idle.metadata(12).await?;
    let closed = "firebreak_closed_connections_total{reason=\"idle\"}";
    until("the end of the idle one", async || {
        let ended = proxy.metric(closed).await.ok()? > 0.0;
        busy.metadata(12).await.ok()?;
        ended.then_some(())
    })
    .await?;
    ensure!(idle.receive_to_end().await?.is_empty(), "bytes from nowhere");
    proxy.metric_becomes(closed, 1.0).await?;
    busy.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn old_connections_close_between_requests() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("age_ms = 400").start().await;
    brokers.cluster().script(2, Fault::HoldAfter(0));
    let mut client = Client::connect(proxy.port).await?;
    let asked = client.send(2, 7, &list_offsets("t")).await?;
    proxy.metric_becomes("firebreak_closed_connections_total{reason=\"old\"}", 1.0).await?;
    brokers.release();
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, asked)?;
    ensure!(client.receive_to_end().await?.is_empty(), "bytes behind the last answer");
    Ok(())
}

/// Nobody answers and nobody asks any more: such a connection drains, and does not for ever.
pub async fn a_drain_that_stands_still_ends(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).limit("idle_ms = 600\ndrain_ms = 300").start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    brokers.cluster().script(2, Fault::Never);
    client.send(2, 7, &list_offsets("t")).await?;
    let closed = "firebreak_closed_connections_total{reason=\"idle\"}";
    proxy.metric_becomes(closed, 1.0).await?;
    for side in ["client", "broker"] {
        let open = format!("firebreak_connections{{side=\"{side}\"}}");
        proxy.metric_becomes(&open, 0.0).await?;
    }
    ensure!(client.receive_to_end().await?.is_empty(), "an answer of nobody");
    Ok(())
}

#[tokio::test]
async fn a_drain_that_waits_for_a_broker_that_never_answers_ends() -> Checked {
    a_drain_that_stands_still_ends(None).await
}

#[tokio::test]
async fn one_address_has_so_many_connections() -> Checked {
    let brokers = Brokers::start(1).await;
    let limit = "connections_per_address_max = 2";
    let proxy = Setup::new(&brokers, None).limit(limit).start().await;
    let mut first = Client::connect(proxy.port).await?;
    first.metadata(12).await?;
    let mut second = Client::connect(proxy.port).await?;
    second.metadata(12).await?;
    ensure!(Client::is_turned_away(proxy.port).await?, "one too many was served");
    let full = "firebreak_errors_total{blame=\"client\",kind=\"full\"}";
    proxy.metric_becomes(full, 1.0).await?;
    let line = "limits.connections_per_address_max reached";
    proxy.says(line, 1).await?;
    drop(second);
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 1.0).await?;
    // The place is given back a little later than the socket.
    until("a place", async || {
        let mut third = Client::connect(proxy.port).await.ok()?;
        third.metadata(12).await.ok()
    })
    .await?;
    Ok(())
}
