//! Leaders of physical partitions: lost, found again, and asked for with care.

use std::time::Duration;

use kafka_protocol::messages::ListOffsetsResponse;
use protocol_ext::fake_broker::Fault;

use super::{NORCAL, TOPIC, located, start};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::single;
use crate::harness::requests::list_offsets;
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};

const METADATA: i16 = 3;
const NOT_LEADER: i16 = 6;
/// At most one question about the leaders of a topic in this time.
const PAUSE: Duration = Duration::from_millis(100);

async fn codes(client: &mut Client) -> Checked<[i16; 3]> {
    let batch = located(Some("norcal"), noise(1, 50));
    let (produced, _) = client.produce(9, TOPIC, 0, &batch).await?;
    let (fetched, _) = client.fetch(12, TOPIC, 0, 0, 1000).await?;
    let offsets: ListOffsetsResponse = client.call(2, 5, &list_offsets(TOPIC)).await?;
    Ok([produced, fetched, offsets.topics[0].partitions[0].error_code])
}

/// A partition that has no leader for a while is served again once it has one, and costs brokers
/// few questions meanwhile.
pub async fn a_partition_gets_its_leader_back(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup.refresh_ms(600_000)).await;
    brokers.cluster().leaderless.push((NORCAL.to_owned(), 0));
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(codes(&mut client).await?, [NOT_LEADER; 3], "errors without a leader");
    let (asked, since) = (brokers.cluster().count(METADATA), firebreak::clock::now());
    for _ in 0..100 {
        codes(&mut client).await?;
    }
    let asked = brokers.cluster().count(METADATA) - asked;
    let allowed = since.elapsed().as_millis() / PAUSE.as_millis() + 2;
    ensure!(asked as u128 <= allowed, "{asked} questions where {allowed} are allowed");
    brokers.cluster().leaderless.clear();
    let mut last = [0; 3];
    let healed = until("a leader", async || {
        last = codes(&mut client).await.ok()?;
        (last == [0; 3]).then_some(())
    });
    let healed = tokio::time::timeout(Duration::from_secs(5), healed).await;
    ensure!(healed.is_ok(), "errors though there is a leader: {last:?}");
    Ok(())
}

#[tokio::test]
async fn a_partition_that_had_no_leader_is_served_once_it_has_one() -> Checked {
    a_partition_gets_its_leader_back(None).await
}

#[tokio::test]
async fn a_leader_that_moves_is_found() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup.refresh_ms(600_000)).await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(codes(&mut client).await?, [0; 3], "errors");
    brokers.cluster().refusing.push((NORCAL.to_owned(), 0, NOT_LEADER));
    let batch = located(Some("norcal"), noise(1, 50));
    let (code, _) = client.produce(9, TOPIC, 0, &batch).await?;
    ensure_eq!(code, NOT_LEADER, "error of a leader that moved");
    let asked = brokers.cluster().count(METADATA);
    let anew = until("a question about the leader", async || {
        client.produce(9, TOPIC, 0, &batch).await.ok()?;
        (brokers.cluster().count(METADATA) > asked).then_some(())
    });
    anew.await
}

/// A question on a connection that broke, or that is never answered, is asked once more.
pub async fn a_stale_connection_costs_no_request(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    for topic in ["a", "b", "c"] {
        brokers.cluster().add_topic(topic, 1);
    }
    let store = Folder::new();
    let setup = Setup::new(&brokers, faults).refresh_ms(600_000).limit("connect_ms = 500");
    let proxy = setup.offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let batch = single(noise(1, 5000));
    ensure_eq!(client.produce(9, "a", 0, &batch).await?.0, 0, "error of the first topic");
    brokers.cluster().script(METADATA, Fault::CloseAfter(0));
    ensure_eq!(client.produce(9, "b", 0, &batch).await?.0, 0, "error behind a broken connection");
    brokers.cluster().script(METADATA, Fault::Never);
    ensure_eq!(client.produce(9, "c", 0, &batch).await?.0, 0, "error behind a silent connection");
    Ok(())
}

#[tokio::test]
async fn a_question_on_a_stale_connection_is_asked_again() -> Checked {
    a_stale_connection_costs_no_request(None).await
}

/// Many connections that miss the same thing ask once.
#[tokio::test]
async fn many_that_want_to_know_ask_once() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup.refresh_ms(600_000)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(12).await?;
        clients.push(client);
    }
    let asked = brokers.cluster().count(METADATA);
    brokers.cluster().script(METADATA, Fault::Delay(Duration::from_millis(300)));
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move { client.fetch(12, TOPIC, 0, 0, 1000).await });
    }
    while let Some(done) = tasks.join_next().await {
        let (code, _) = done.expect("no panic")?;
        ensure_eq!(code, 0, "error of Fetch");
    }
    let asked = brokers.cluster().count(METADATA) - asked;
    ensure!(asked <= 2, "{asked} questions of 20 connections");
    Ok(())
}
