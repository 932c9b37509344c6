//! The leader of the placement: it makes, rolls and deletes segments, and only one leads.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use serde_json::{Value, json};

use super::{NORCAL, PLACEMENT, ROUTED, TOPIC, write_facts};
use crate::exact::{numbered, numbers};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, until};

/// What whoever leads says when it begins.
pub const LEADS: &str = "leads the placement id=";
const VERSION: i16 = 9;
const INIT_PRODUCER_ID: i16 = 22;

/// Two brokers without any topic of ours, and a proxy that makes them all.
pub async fn start(faults: Faults) -> Checked<(Brokers, Proxy)> {
    let brokers = Brokers::start(2).await;
    let proxy = another(&brokers, faults).await?;
    Ok((brokers, proxy))
}

/// A proxy beside others.
pub async fn another(brokers: &Brokers, faults: Faults) -> Checked<Proxy> {
    away_from_midnight().await;
    let proxy = Setup::new(brokers, faults).limit(ROUTED).start().await;
    until("segments", async || (segments(&proxy).await.ok()?.len() >= 2).then_some(())).await?;
    Ok(proxy)
}

/// Where a day ends, segments are rolled that no test asked for.
pub async fn away_from_midnight() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    const NEAR_MS: u64 = 90_000;
    let left = DAY_MS - firebreak::clock::unix_ms() % DAY_MS;
    if left < NEAR_MS {
        tokio::time::sleep(std::time::Duration::from_millis(left + 1000)).await;
    }
}

/// Physical topic and bases of all segments, slot by slot.
pub async fn segments(proxy: &Proxy) -> Checked<Vec<(String, i64, Option<i64>)>> {
    segments_of(proxy, TOPIC).await
}

/// The same of any topic.
pub async fn segments_of(proxy: &Proxy, topic: &str) -> Checked<Vec<(String, i64, Option<i64>)>> {
    let (_, text) = proxy.admin(&format!("/topics/{topic}")).await?;
    let told: Value = serde_json::from_str(&text).map_err(failure)?;
    let slots = told["slots"].as_array().into_iter().flatten();
    let all = slots.flat_map(|slot| slot["segments"].as_array().into_iter().flatten());
    let shown = all.map(|segment| {
        let topic = segment["topic"].as_str().unwrap_or_default().to_owned();
        (topic, segment["bases"][0].as_i64().unwrap_or(-1), segment["ends"][0].as_i64())
    });
    Ok(shown.collect())
}

/// Asks for a roll until somebody does it.
pub async fn roll(proxy: &Proxy) -> Checked {
    roll_of(proxy, TOPIC).await
}

/// The same of any topic.
pub async fn roll_of(proxy: &Proxy, topic: &str) -> Checked {
    until("a roll", async || {
        let (code, _) = proxy.post(&format!("/topics/{topic}/roll")).await.ok()?;
        (code == 200).then_some(())
    })
    .await
}

pub async fn send(client: &mut Client, sequence: i32, count: i32) -> Checked<i16> {
    Ok(client.produce(VERSION, TOPIC, 0, &numbered(5, sequence, count)).await?.0)
}

/// Every second number is in each slot once and in order, over all its segments.
pub async fn ensure_written(brokers: &Brokers, proxy: &Proxy, end: i32) -> Checked {
    let all = segments(proxy).await?;
    for (slot, odd) in [("norcal", 0), ("other", 1)] {
        let mut found = Vec::new();
        for (topic, base, sealed) in all.iter().filter(|(topic, ..)| topic.contains(slot)) {
            let there = numbers(brokers.cluster().log(topic, 0));
            let start = i64::try_from(found.len()).expect("small");
            ensure_eq!(*base, start, "base of {topic}");
            found.extend(there);
            let end = i64::try_from(found.len()).expect("small");
            ensure!(sealed.is_none_or(|sealed| sealed == end), "{topic} ends at {sealed:?}");
        }
        let expected: Vec<i32> = (0..end).filter(|n| n % 2 == odd).collect();
        ensure_eq!(found, expected, "numbers in {slot}");
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_with_days_gets_its_segments_and_is_rolled() -> Checked {
    segments_are_made_and_rolled(None).await
}

/// Until the log is made and has a leader it cannot be read, which is no reason to warn.
#[tokio::test]
async fn a_placement_log_that_was_just_made_is_told_of_once_at_most() -> Checked {
    let (_brokers, proxy) = start(None).await?;
    let log = proxy.log();
    let lines = log.lines().filter(|line| line.contains("the placement log cannot be read"));
    let lines: Vec<&str> = lines.collect();
    ensure!(lines.len() <= 1 && !lines.concat().contains("WARN"), "lines: {lines:?}");
    Ok(())
}

/// From nothing to three segments of each slot.
pub async fn segments_are_made_and_rolled(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    roll(&proxy).await?;
    let all = segments(&proxy).await?;
    ensure_eq!(all.len(), 4, "segments after a roll");
    ensure!(all[1].0.ends_with(".2"), "the second one of a day is called {}", all[1].0);
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    roll(&proxy).await?;
    ensure_eq!(send(&mut client, 8, 3).await?, 0, "error of the third batch");
    ensure_eq!(segments(&proxy).await?.len(), 6, "segments after two");
    ensure_written(&brokers, &proxy, 11).await?;
    for (slot, records) in [("norcal", 6.0), ("other", 5.0)] {
        let name = format!("firebreak_routed_records_total{{topic=\"fires\",slot=\"{slot}\"}}");
        proxy.metric_becomes(&name, records).await?;
    }
    proxy.metric_becomes("firebreak_routed_batches_total", 3.0).await?;
    proxy.metric_becomes("firebreak_routed_sub_batches_total", 6.0).await?;
    proxy.metric_becomes("firebreak_producer_entries_total", 2.0).await?;
    let (code, _) = proxy.post("/topics/nothing/roll").await?;
    ensure_eq!(code, 404, "answer to a roll of an unknown topic");
    Ok(())
}

/// Somebody else takes over: the one that led writes nothing any more, and leads again only when
/// nobody else does.
#[tokio::test]
async fn a_leader_that_is_fenced_steps_down() -> Checked {
    let (brokers, proxy) = start(None).await?;
    until("a leader", async || (proxy.logged(LEADS) > 0).then_some(())).await?;
    // Not through the proxy: clients may not have this id.
    let mut client = Client::connect_to(&brokers.bootstrap()[0]).await?;
    let id = TransactionalId(StrBytes::from_static_str("firebreak-placement"));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id))
        .with_transaction_timeout_ms(10_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let told: InitProducerIdResponse = client.call(INIT_PRODUCER_ID, 4, &request).await?;
    ensure_eq!(told.error_code, 0, "error of the other one");
    until("it steps down", async || (proxy.logged("another process leads") > 0).then_some(()))
        .await?;
    ensure!(brokers.cluster().fenced > 0, "no write of it was refused");
    let end = brokers.cluster().log(PLACEMENT, 0).expect("the log").end();
    // It leads again after some seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let later = brokers.cluster().log(PLACEMENT, 0).expect("the log").end();
    ensure_eq!(later, end, "end of the log while nobody leads");
    until("it leads again", async || (proxy.logged(LEADS) > 1).then_some(())).await
}

/// Two proxies: one leads, and the other one says who.
#[tokio::test]
async fn one_of_two_leads() -> Checked {
    let (brokers, first) = start(None).await?;
    let second = another(&brokers, None).await?;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let leads = |proxy: &Proxy| proxy.logged(LEADS);
    ensure_eq!((leads(&first), leads(&second)), (1, 0), "who leads");
    let (code, told) = second.post(&format!("/topics/{TOPIC}/roll")).await?;
    ensure_eq!(code, 421, "answer of who does not lead: {told}");
    drop(first);
    until("the other one leads", async || (leads(&second) > 0).then_some(())).await?;
    roll(&second).await?;
    ensure_eq!(segments(&second).await?.len(), 4, "segments after a roll");
    Ok(())
}

/// Soon after a restart the last leader in the log is the proxy itself, as it was: it does not
/// send whoever asks for a roll to its own address.
#[tokio::test]
async fn a_proxy_that_does_not_lead_yet_sends_nobody_to_itself() -> Checked {
    let (brokers, proxy) = super::start(None).await?;
    let path = format!("/topics/{TOPIC}/roll");
    let mut at_ms = 0;
    until("the answer", async || {
        at_ms += 1;
        let last = json!({ "id": "before", "admin": proxy.admin_address(), "at_ms": at_ms });
        write_facts(&brokers, &[("leader", last)]);
        let (code, told) = proxy.post(&path).await.ok()?;
        (code == 503 && told.contains("has the same admin address")).then_some(())
    })
    .await
}

/// At the start of a day, and as well of any later moment, what is of a day before is rolled.
#[tokio::test]
async fn segments_of_a_day_before_are_rolled_unasked() -> Checked {
    let brokers = Brokers::start(2).await;
    let slots = ["norcal", "other"];
    let old = slots.map(|slot| format!("fires-{slot}-2020-01-01"));
    for topic in old.iter().map(String::as_str).chain([PLACEMENT]) {
        brokers.cluster().add_topic(topic, 1);
    }
    let layout = json!({ "partitions": 1, "slots": slots });
    let first = |topic: &str| json!({ "topic": topic, "bases": [0] });
    write_facts(
        &brokers,
        &[
            ("topic/fires", layout),
            ("segment/fires/norcal/0", first(&old[0])),
            ("segment/fires/other/0", first(&old[1])),
        ],
    );
    let proxy = another(&brokers, None).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    until("rolls", async || (segments(&proxy).await.ok()?.len() == 4).then_some(())).await?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    ensure_written(&brokers, &proxy, 8).await?;
    let open = segments(&proxy).await?.into_iter().filter(|(.., end)| end.is_none());
    let open: Vec<String> = open.map(|(topic, ..)| topic).collect();
    ensure!(open.iter().all(|topic| !old.contains(topic)), "still open: {open:?}");
    Ok(())
}

/// The oldest segment goes whole once it was sealed long enough ago, and only that one.
#[tokio::test]
async fn segments_are_deleted_after_their_days() -> Checked {
    let (brokers, proxy) = super::start(None).await?;
    let sealed = json!({ "topic": NORCAL[0], "bases": [0], "ends": [0], "sealed_at_ms": 1 });
    write_facts(
        &brokers,
        &[
            ("segment/fires/norcal/0", sealed),
            ("segment/fires/norcal/1", json!({ "topic": NORCAL[1], "bases": [0] })),
        ],
    );
    let is_there = |topic: &str| brokers.cluster().topics.iter().any(|known| known.name == topic);
    until("a deletion", async || (!is_there(NORCAL[0])).then_some(())).await?;
    until("one segment", async || (segments(&proxy).await.ok()?.len() == 2).then_some(())).await?;
    ensure!(is_there(NORCAL[1]), "the open segment was deleted");
    Ok(())
}
