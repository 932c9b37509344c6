//! Brokers that come, move and go while the proxy runs.

use std::sync::atomic::Ordering;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::{Checked, Faults, ensure, ensure_eq, until};

#[tokio::test]
async fn each_virtual_broker_stands_for_its_own_broker() -> Checked {
    let brokers = Brokers::start(3).await;
    let proxy = Setup::new(&brokers, None).start().await;
    for id in 0..3_u16 {
        let mut client = Client::connect(proxy.node(id)).await?;
        brokers.cluster().seen.clear();
        client.metadata(12).await?;
        let node = i32::from(id);
        let seen = brokers.cluster().seen.iter().any(|s| s.node == node && s.head.correlation > 99);
        ensure!(seen, "the request for broker {id} went elsewhere");
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_moved_to_another_port_is_found_again() -> Checked {
    a_broker_that_moved_is_found(None).await
}

/// A broker that closed and came back elsewhere is behind the same port of the proxy.
pub async fn a_broker_that_moved_is_found(faults: Faults) -> Checked {
    let mut brokers = Brokers::start(2).await;
    // The refresh is too far away to help: the failed connection must ask.
    let proxy = Setup::new(&brokers, faults).refresh_ms(600_000).start().await;
    let mut client = Client::connect(proxy.node(1)).await?;
    client.metadata(12).await?;
    let accepted = brokers.counts(1).accepted.load(Ordering::Relaxed);
    ensure!(accepted > 0, "broker 1 was not asked");
    for _ in 0..3 {
        brokers.stop(1);
        ensure!(client.receive_to_end().await?.is_empty(), "bytes from a broker that is gone");
        brokers.add(1).await;
        client = Client::connect(proxy.node(1)).await?;
        let answer = client.metadata(12).await?;
        ensure_eq!(answer.brokers.len(), 2, "brokers told");
        ensure_eq!(brokers.counts(1).accepted.load(Ordering::Relaxed), 1, "connections at it");
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_added_can_be_reached_by_its_port() -> Checked {
    let mut brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(client.metadata(12).await?.brokers.len(), 1, "brokers told at first");
    brokers.add(1).await;
    let told = client.metadata(12).await?.brokers;
    ensure_eq!(told.len(), 2, "brokers told");
    ensure_eq!(told[1].port, i32::from(proxy.node(1)), "port of the new broker");
    let mut added = Client::connect(proxy.node(1)).await?;
    added.metadata(12).await?;
    ensure!(brokers.counts(1).accepted.load(Ordering::Relaxed) > 0, "it was not asked");
    Ok(())
}

#[tokio::test]
async fn the_cluster_is_found_though_every_broker_of_the_configuration_moved() -> Checked {
    let mut brokers = Brokers::start(2).await;
    let proxy = Setup::new(&brokers, None).start().await;
    brokers.stop(0);
    brokers.add(0).await;
    // Broker 1 still tells of broker 0; once that is learned, broker 1 may move as well.
    let port = brokers.cluster().nodes[0].port;
    until("broker 0 learned anew", async || {
        let (_, status) = proxy.admin("/status").await.ok()?;
        status.contains(&format!("127.0.0.2:{port}")).then_some(())
    })
    .await?;
    brokers.stop(1);
    brokers.add(1).await;
    let mut client = Client::connect(proxy.node(1)).await?;
    client.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn a_port_without_a_broker_closes_and_says_so() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("connect_ms = 500").start().await;
    let mut client = Client::connect(proxy.node(5)).await?;
    client.send(3, 12, &crate::harness::requests::metadata(12)).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer of no broker");
    let metric = "firebreak_errors_total{blame=\"upstream\",kind=\"unreachable\"}";
    proxy.metric_becomes(metric, 1.0).await?;
    // The line is written behind the count, and read by a thread of its own.
    let line = "no way to broker 5";
    until("a line", async || (proxy.logged(line) > 0).then_some(())).await?;
    ensure_eq!(proxy.logged(line), 1, "lines about it");
    Ok(())
}
