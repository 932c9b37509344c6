//! What waits for something holds up nothing else: slots, topics, deletions.

use protocol_ext::fake_broker::Fault;
use serde_json::json;

use super::leader::{self, away_from_midnight, ensure_written, roll, roll_of, segments_of, send};
use super::log::{PRODUCER, transactional};
use super::seals::one_number;
use super::{ROUTED, TOPIC, write_facts};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::{Checked, Faults, ensure_eq, until};

/// Another virtual topic.
const SMOKE: &str = "smoke";
const DESCRIBE_CONFIGS: i16 = 32;

/// Two virtual topics with days.
async fn two_topics(faults: Faults) -> Checked<(Brokers, Proxy)> {
    let brokers = Brokers::start(2).await;
    away_from_midnight().await;
    let both = format!(
        "{ROUTED}\n[[virtual_topic]]\nname = {SMOKE:?}\npartitions = 1\ndays = true\n\
         region = {{ header = \"region\" }}\n"
    );
    let proxy = Setup::new(&brokers, faults).limit(&both).start().await;
    for topic in [TOPIC, SMOKE] {
        let there = async || (segments_of(&proxy, topic).await.ok()?.len() == 2).then_some(());
        until("segments", there).await?;
    }
    Ok((brokers, proxy))
}

/// How many segments of a slot a topic has.
async fn count(proxy: &Proxy, topic: &str, slot: &str) -> Option<usize> {
    let all = segments_of(proxy, topic).await.ok()?;
    Some(all.iter().filter(|(name, ..)| name.contains(slot)).count())
}

/// One slot cannot be sealed: all others, other topics' too, get their segments, and old ones go.
pub async fn a_slot_that_waits_holds_up_no_other(faults: Faults) -> Checked {
    let (brokers, proxy) = two_topics(faults).await?;
    let open = segments_of(&proxy, TOPIC).await?.remove(0).0;
    let empty = transactional(&one_number());
    brokers.cluster().log(&open, 0).expect("a log").append(&empty).expect("a batch");
    let others = async {
        let other = async || (count(&proxy, TOPIC, "other").await? == 2).then_some(());
        until("the other slot", other).await?;
        roll_of(&proxy, SMOKE).await?;
        let old = segments_of(&proxy, SMOKE).await?.remove(0).0;
        let sealed = json!({ "topic": old, "bases": [0], "ends": [0], "sealed_at_ms": 1 });
        write_facts(&brokers, &[("segment/smoke/norcal/0", sealed)]);
        let is_there = || brokers.cluster().topics.iter().any(|topic| topic.name == old);
        until("a deletion", async || (!is_there()).then_some(())).await?;
        let waits = count(&proxy, TOPIC, "norcal").await;
        brokers.cluster().log(&open, 0).expect("a log").end_transaction(PRODUCER, 0, true);
        ensure_eq!(waits, Some(1), "segments of the slot that waits");
        Ok(())
    };
    let (others, waiting): (Checked, Checked) = tokio::join!(others, roll(&proxy));
    others?;
    waiting?;
    ensure_eq!(segments_of(&proxy, TOPIC).await?.len(), 4, "segments in the end");
    Ok(())
}

#[tokio::test]
async fn a_slot_that_cannot_be_sealed_holds_up_no_other() -> Checked {
    a_slot_that_waits_holds_up_no_other(None).await
}

/// A broker takes a question and never answers it: it is asked again, and the roll is done.
pub async fn a_silent_broker_is_asked_again(faults: Faults) -> Checked {
    let (brokers, proxy) = leader::start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    brokers.cluster().script(DESCRIBE_CONFIGS, Fault::Never);
    roll(&proxy).await?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    ensure_written(&brokers, &proxy, 8).await
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_asked_again() -> Checked {
    a_silent_broker_is_asked_again(None).await
}

/// A roll that is under way when somebody asks is the one that they asked for; three that ask in
/// turn and go do not add up.
#[tokio::test]
async fn rolls_that_nobody_waits_for_do_not_add_up() -> Checked {
    let (brokers, proxy) = leader::start(None).await?;
    brokers.cluster().behind.push(0);
    let path = format!("/topics/{TOPIC}/roll");
    for _ in 0..3 {
        tokio::select! {
            biased;
            begun = proxy.metric_becomes("firebreak_placement_intents", 2.0) => begun?,
            rolled = proxy.post(&path) => ensure_eq!(rolled?.0, 0, "answer while a seal waits"),
        }
    }
    brokers.cluster().behind.clear();
    let rolled = async || (segments_of(&proxy, TOPIC).await.ok()?.len() == 4).then_some(());
    until("the roll that was begun", rolled).await?;
    roll(&proxy).await?;
    ensure_eq!(segments_of(&proxy, TOPIC).await?.len(), 6, "segments behind the one asked for");
    Ok(())
}
