//! Leaders of physical partitions: lost, found again, and asked for with care.

use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    FetchResponse, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceResponse,
};
use protocol_ext::fake_broker::Fault;

use super::{NORCAL, TOPIC, located, start};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::single;
use crate::harness::requests::{fetch, fetched, list_offsets, name, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

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
    let allowed = since.elapsed().as_millis() / PAUSE.as_millis() + 4;
    ensure!(asked as u128 <= allowed, "{asked} questions where {allowed} are allowed");
    brokers.cluster().leaderless.clear();
    let mut last = [0; 3];
    let healed = until("a leader", async || {
        last = codes(&mut client).await.ok()?;
        (last == [0; 3]).then_some(())
    });
    healed.await.map_err(|_| failure(format!("errors though there is a leader: {last:?}")))
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
    let setup = Setup::new(&brokers, faults).refresh_ms(600_000).limit("connect_ms = 2000");
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

/// Reaches the home broker with a question that needs no leader of the virtual topic.
async fn greet(client: &mut Client) -> Checked {
    let topic = MetadataRequestTopic::default().with_name(Some(name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    client.call::<_, MetadataResponse>(METADATA, 12, &request).await.map(drop)
}

/// Many connections that miss the same thing ask once.
#[tokio::test]
async fn many_that_want_to_know_ask_once() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup.refresh_ms(600_000)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(proxy.port).await?;
        greet(&mut client).await?;
        clients.push(client);
    }
    let asked = brokers.cluster().count(METADATA);
    brokers.cluster().script(METADATA, Fault::Delay(Duration::from_millis(150)));
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move { client.fetch(12, TOPIC, 0, 0, 1000).await });
    }
    while let Some(done) = tasks.join_next().await {
        let (code, _) = done.expect("no panic")?;
        ensure_eq!(code, 0, "error of Fetch");
    }
    let asked = brokers.cluster().count(METADATA) - asked;
    // A question that takes long is put to another broker too.
    ensure!((1..=6).contains(&asked), "{asked} questions of 20 connections");
    Ok(())
}

fn errors(answer: &FetchResponse) -> Vec<i16> {
    let rows = answer.responses.iter().flat_map(|topic| &topic.partitions);
    rows.map(|row| row.error_code).collect()
}

/// Brokers that are asked for ids look at no name: what is wanted by name is asked for apart.
pub async fn names_and_ids_are_asked_for_apart(faults: Faults) -> Checked {
    let store = Folder::new();
    let setup = |setup: Setup| setup.refresh_ms(600_000).offload(&store, 1000);
    let (brokers, proxy) = start(faults, setup).await;
    brokers.cluster().add_topic("u", 1);
    brokers.cluster().add_topic("w", 1);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(12).await?;
        clients.push(client);
    }
    // While one question is under way, an id and a name are wanted. Other brokers are slow too.
    for _ in 0..3 {
        brokers.cluster().script(METADATA, Fault::Delay(Duration::from_millis(1000)));
    }
    let asked = brokers.cluster().count(METADATA);
    let batch = single(noise(1, 5000));
    let request = |version, topic| produce(version, -1, topic, &[(0, batch.clone())]);
    let mut sent = vec![clients[0].send(0, 9, &request(9, "w")).await?];
    let on_its_way = async || (brokers.cluster().count(METADATA) > asked).then_some(());
    until("the first question", on_its_way).await?;
    sent.push(clients[1].send(0, 13, &request(13, "t")).await?);
    sent.push(clients[2].send(0, 9, &request(9, "u")).await?);
    let mut codes = Vec::new();
    for (n, version) in [9, 13, 9].into_iter().enumerate() {
        let told: ProduceResponse = answer(&clients[n].receive().await?, version, sent[n])?;
        codes.push(told.responses[0].partition_responses[0].error_code);
    }
    ensure_eq!(codes, [0; 3], "errors of a name, an id and a name");
    Ok(())
}

#[tokio::test]
async fn a_question_by_id_does_not_lose_one_by_name() -> Checked {
    names_and_ids_are_asked_for_apart(None).await
}

/// The broker that answered questions falls silent: the others are asked soon.
pub async fn a_silent_broker_stalls_no_question(faults: Faults) -> Checked {
    let (brokers, proxy) =
        start(faults, |setup| setup.refresh_ms(600_000).limit("connect_ms = 2000")).await;
    let mut clients = Vec::new();
    for door in 0..2_u16 {
        let mut client = Client::connect(proxy.node(door)).await?;
        greet(&mut client).await?;
        clients.push(client);
    }
    brokers.cluster().seen.clear();
    ensure_eq!(clients[0].fetch(12, TOPIC, 0, 0, 1000).await?.0, 0, "error before");
    let asked = brokers.cluster().seen.iter().find(|s| s.head.api == METADATA).map(|s| s.node);
    let asked = asked.expect("a question");
    brokers.freeze(asked);
    let (lives, client) = if asked == 0 { (1, 1) } else { (0, 0) };
    // Partition 2 and 3 are those of the other slot, which nobody asked about yet.
    let (error, _) = clients[client].fetch(12, TOPIC, 2 + lives, 0, 1000).await?;
    ensure_eq!(error, 0, "error beside a silent broker");
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_silent_stalls_no_question_about_leaders() -> Checked {
    a_silent_broker_stalls_no_question(None).await
}

/// Errors that no other broker would answer otherwise cost no question about leaders.
pub async fn errors_of_clients_doubt_no_leader(faults: Faults) -> Checked {
    const OUT_OF_RANGE: i16 = 1;
    const TOO_LARGE: i16 = 10;
    let (brokers, proxy) = start(faults, |setup| setup.refresh_ms(600_000)).await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(codes(&mut client).await?, [0; 3], "errors");
    brokers.cluster().refusing.push((NORCAL.to_owned(), 0, TOO_LARGE));
    let batch = located(Some("norcal"), noise(1, 50));
    let asked = brokers.cluster().count(METADATA);
    for _ in 0..4 {
        tokio::time::sleep(PAUSE * 3 / 2).await;
        ensure_eq!(client.fetch(12, TOPIC, 0, 999, 1000).await?.0, OUT_OF_RANGE, "of Fetch");
        ensure_eq!(client.produce(9, TOPIC, 0, &batch).await?.0, TOO_LARGE, "of Produce");
    }
    let asked = brokers.cluster().count(METADATA) - asked;
    ensure_eq!(asked, 0, "questions because of errors that clients made");
    Ok(())
}

#[tokio::test]
async fn an_error_that_a_client_made_costs_no_question() -> Checked {
    errors_of_clients_doubt_no_leader(None).await
}

/// A leg has one time for all of it: what the others answered is not lost with it.
pub async fn a_slow_leg_has_one_deadline(faults: Faults) -> Checked {
    let (brokers, proxy) =
        start(faults, |setup| setup.refresh_ms(600_000).limit("connect_ms = 2000")).await;
    let mut client = Client::connect(proxy.port).await?;
    let both = fetch(12, TOPIC, &[(0, 0), (1, 0)], 1000);
    let told: FetchResponse = client.call(1, 12, &both).await?;
    ensure_eq!(errors(&told), [0, 0], "errors");
    // A leg of Fetch has three times connect_ms, and the time that the client waits for bytes.
    brokers.cluster().script(1, Fault::DelayThenHold(Duration::from_secs(5), 8));
    let asked = client.send(1, 12, &both).await?;
    let late = async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        brokers.release();
        std::future::pending().await
    };
    let frame = tokio::select! {
        frame = client.receive() => frame?,
        never = late => never,
    };
    let told: FetchResponse = answer(&frame, 12, asked)?;
    let mut codes: Vec<i16> = fetched(told)?.iter().map(|(_, code, _)| *code).collect();
    codes.sort_unstable();
    ensure_eq!(codes, [0, NOT_LEADER], "errors beside a slow leg");
    Ok(())
}

#[tokio::test]
async fn a_leg_that_is_slow_all_the_way_ends_in_time() -> Checked {
    a_slow_leg_has_one_deadline(None).await
}
