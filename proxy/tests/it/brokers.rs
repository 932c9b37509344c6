//! Brokers that come, move and go while the proxy runs.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::ProduceResponse;
use protocol_ext::fake_broker::{Fault, Seen};
use protocol_ext::split::{ProducerFields, with_producer};

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::single;
use crate::harness::requests::{metadata, produce};
use crate::harness::{Checked, Failure, Faults, ensure, ensure_eq, noise, until};

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
    for _ in 0..3 {
        brokers.stop(1);
        ensure!(client.receive_to_end().await?.is_empty(), "bytes from a broker that is gone");
        brokers.add(1).await;
        client = Client::connect(proxy.node(1)).await?;
        brokers.cluster().seen.clear();
        let answer = client.metadata(12).await?;
        ensure_eq!(answer.brokers.len(), 2, "brokers told");
        let of_client = |seen: &&Seen| (seen.node, seen.head.correlation) == (1, 101);
        let asked = brokers.cluster().seen.iter().filter(of_client).count();
        ensure_eq!(asked, 1, "requests of the client at it");
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
async fn all_brokers_that_restart_at_once_are_found_where_they_were() -> Checked {
    let mut brokers = Brokers::start(3).await;
    let setup = Setup::new(&brokers, None).limit("connect_ms = 2000");
    let proxy = setup.start().await;
    let places: Vec<SocketAddr> =
        brokers.bootstrap().iter().map(|place| place.parse().expect("an address")).collect();
    for round in 0..2 {
        let mut clients = Vec::new();
        for id in 0..3_u16 {
            let mut client = Client::connect(proxy.node(id)).await?;
            client.metadata(12).await?;
            clients.push(client);
        }
        (0..3).for_each(|id| brokers.stop(id));
        for client in &mut clients {
            ensure!(client.receive_to_end().await?.is_empty(), "bytes of no broker");
        }
        // While all are away a client is closed, as a refused connection would be.
        let mut early = Client::connect(proxy.node(1)).await?;
        early.send(3, 12, &metadata(12)).await?;
        ensure!(early.receive_to_end().await?.is_empty(), "an answer of no broker");
        let failed = "cluster does not answer";
        until("a failed refresh", async || (proxy.logged(failed) > round).then_some(())).await?;
        for (id, place) in (0..).zip(&places) {
            brokers.add_at(id, *place, &place.ip().to_string()).await;
        }
        let again = "cluster answers again";
        until("a refresh", async || (proxy.logged(again) > round).then_some(())).await?;
    }
    for id in 0..3_u16 {
        let mut client = Client::connect(proxy.node(id)).await?;
        let told = client.metadata(12).await?;
        ensure_eq!(told.brokers.len(), 3, "brokers told");
        let asked = brokers.counts(id.into()).received.load(Ordering::Relaxed);
        ensure!(asked > 0, "broker {id} was not asked");
    }
    Ok(())
}

/// To a client it is a broker that is away, and no stranger on its port.
pub async fn a_client_without_a_broker_is_reset(faults: Faults) -> Checked {
    let mut brokers = Brokers::start(2).await;
    let proxy = Setup::new(&brokers, faults).limit("connect_ms = 2000").start().await;
    brokers.stop(1);
    for node in [1, 4] {
        let mut client = Client::connect(proxy.node(node)).await?;
        client.send(3, 12, &metadata(12)).await?;
        ensure!(client.is_reset().await?, "broker {node} is away and closed in good order");
    }
    let mut client = Client::connect(proxy.node(0)).await?;
    client.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_whose_broker_is_away_is_reset() -> Checked {
    a_client_without_a_broker_is_reset(None).await
}

/// The controller goes, another broker takes its place and a new one comes; then the old id comes
/// back elsewhere. Clients are told of those that are there, at the ports they always had.
pub async fn ids_come_and_go(faults: Faults) -> Checked {
    let mut brokers = Brokers::start(3).await;
    let proxy = Setup::new(&brokers, faults).start().await;
    let told = async |door: u16| {
        let mut client = Client::connect(proxy.node(door)).await?;
        let told = client.metadata(12).await?;
        for broker in &told.brokers {
            let port = i32::from(proxy.port) + 1 + broker.node_id.0;
            ensure_eq!(broker.port, port, "port of broker {}", broker.node_id.0);
        }
        let ids: Vec<i32> = told.brokers.iter().map(|broker| broker.node_id.0).collect();
        Ok::<_, Failure>((ids, told.controller_id.0))
    };
    ensure_eq!(told(1).await?, (vec![0, 1, 2], 0), "brokers and controller");
    brokers.retire(0);
    brokers.add(4).await;
    ensure_eq!(told(4).await?, (vec![1, 2, 4], 1), "brokers and controller without broker 0");
    let mut gone = Client::connect(proxy.node(0)).await?;
    gone.send(3, 12, &metadata(12)).await?;
    ensure!(gone.receive_to_end().await?.is_empty(), "an answer of a broker that is gone");
    brokers.retire(1);
    brokers.add(0).await;
    ensure_eq!(told(0).await?, (vec![0, 2, 4], 0), "brokers and controller without broker 1");
    ensure_eq!(told(4).await?, (vec![0, 2, 4], 0), "what broker 4 tells");
    Ok(())
}

#[tokio::test]
async fn ids_that_come_and_go_keep_their_ports() -> Checked {
    ids_come_and_go(None).await
}

#[tokio::test]
async fn a_port_without_a_broker_closes_and_says_so() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("connect_ms = 500").start().await;
    let mut client = Client::connect(proxy.node(5)).await?;
    client.send(3, 12, &metadata(12)).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer of no broker");
    let metric = "firebreak_errors_total{blame=\"upstream\",kind=\"unreachable\"}";
    proxy.metric_becomes(metric, 1.0).await?;
    proxy.says("cannot connect to broker 5", 1).await
}

/// A broker that ends answers what it has taken and resets the connection on the rest: clients get
/// the answers.
pub async fn answers_of_a_broker_that_ends_arrive(faults: Faults) -> Checked {
    const TIMES: usize = 10;
    let mut arrived = 0;
    for _ in 0..TIMES {
        let brokers = Brokers::start(1).await;
        let proxy = Setup::new(&brokers, faults).start().await;
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(9).await?;
        brokers.cluster().script(0, Fault::CloseAfter(usize::MAX));
        let small = produce(9, -1, "t", &[(0, single(noise(1, 50)))]);
        let large = produce(9, -1, "t", &[(0, single(noise(2, 30_000_000)))]);
        let mut both = request_frame(0, 9, 7, &small).to_vec();
        both.extend_from_slice(&request_frame(0, 9, 8, &large));
        // The connection may end before all of it is sent.
        let _ = client.send_raw(&both).await;
        let frame = client.receive().await;
        arrived += usize::from(frame.is_ok_and(|frame| frame[..4] == 7i32.to_be_bytes()));
    }
    ensure_eq!(arrived, TIMES, "answers that arrived");
    Ok(())
}

#[tokio::test]
async fn answers_of_a_broker_that_ends_are_not_lost() -> Checked {
    answers_of_a_broker_that_ends_arrive(None).await
}

/// The home broker closes an idle connection while a leg is on its way: its answer still comes,
/// also to a request whose value was stored.
pub async fn a_leg_outlives_an_idle_home(faults: Faults) -> Checked {
    leg_outlives_home(faults, 50).await?;
    leg_outlives_home(faults, 20_000).await
}

async fn leg_outlives_home(faults: Faults, value_bytes: usize) -> Checked {
    let brokers = Brokers::start(2).await;
    brokers.cluster().add_topic("v", 2);
    brokers.cluster().add_topic("v-norcal", 1);
    brokers.cluster().add_topic("v-other", 1);
    let routed = "[[virtual_topic]]\nname = \"v\"\npartitions = 1\n\
                  region = { header = \"region\" }\n[[region]]\nname = \"norcal\"\n";
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, 1000).limit(routed).start().await;
    let mut client = Client::connect(proxy.node(1)).await?;
    client.metadata(9).await?;
    brokers.cluster().script(0, Fault::HoldAfter(0));
    let none = ProducerFields { id: -1, epoch: -1, base_sequence: -1 };
    let batch = with_producer(&single(noise(1, value_bytes)), none).expect("a batch");
    let asked = client.send(0, 9, &produce(9, -1, "v", &[(0, batch)])).await?;
    until("the leg", async || (brokers.cluster().count(0) == 1).then_some(())).await?;
    brokers.hang_up(1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    brokers.release();
    let told: ProduceResponse = answer(&client.receive().await?, 9, asked)?;
    ensure_eq!(told.responses[0].partition_responses[0].error_code, 0, "error of Produce");
    Ok(())
}

#[tokio::test]
async fn a_leg_is_answered_though_the_home_broker_closed() -> Checked {
    a_leg_outlives_an_idle_home(None).await
}
