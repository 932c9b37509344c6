//! What a seal waits for: no replica may take a write any more, and nothing may come later.

use bytes::Bytes;
use protocol_ext::split::{ProducerFields, with_producer};

use super::leader::{another, ensure_written, roll, segments, send, start};
use super::log::transactional;
use crate::exact::numbered;
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Proxy;
use crate::harness::{Checked, Faults, ensure_eq};

/// Longer than a roll takes that waits for nothing, on a machine that has nothing else to do.
const WATCHED: std::time::Duration = std::time::Duration::from_millis(1500);

/// A roll while something stands in its way: it must wait, and be done once that is gone.
async fn rolls_only_after(
    faults: Faults,
    hinder: impl Fn(&Brokers, &str),
    release: impl Fn(&Brokers, &str),
) -> Checked<(Brokers, Proxy)> {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    let open = segments(&proxy).await?.remove(0).0;
    hinder(&brokers, &open);
    let looked = async {
        tokio::time::sleep(WATCHED).await;
        let all = segments(&proxy).await;
        release(&brokers, &open);
        Ok(all?.iter().filter(|(topic, ..)| topic.contains("norcal")).count())
    };
    let (rolled, early): (Checked, Checked<usize>) = tokio::join!(roll(&proxy), looked);
    ensure_eq!(early?, 1, "segments of the slot while the roll must wait");
    rolled?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    Ok((brokers, proxy))
}

/// A broker that has not heard of the seal takes writes.
pub async fn a_seal_waits_for_every_broker(faults: Faults) -> Checked {
    let hinder = |brokers: &Brokers, _: &str| brokers.cluster().behind.push(0);
    let release = |brokers: &Brokers, _: &str| brokers.cluster().behind.clear();
    let (brokers, proxy) = rolls_only_after(faults, hinder, release).await?;
    ensure_written(&brokers, &proxy, 8).await
}

#[tokio::test]
async fn a_seal_waits_until_every_broker_refuses_writes() -> Checked {
    a_seal_waits_for_every_broker(None).await
}

/// A broker that is down may stay so for long, and writes wait for the seal: it is not asked. It
/// cannot lead again before it knows what was decided meanwhile.
pub async fn a_seal_waits_for_no_broker_that_is_down(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    brokers.cluster().down.push(9);
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    roll(&proxy).await?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    ensure_written(&brokers, &proxy, 8).await
}

#[tokio::test]
async fn a_seal_is_done_while_a_broker_is_down() -> Checked {
    a_seal_waits_for_no_broker_that_is_down(None).await
}

/// A transaction could never be ended in a sealed segment.
pub async fn a_seal_waits_for_transactions(faults: Faults) -> Checked {
    let hinder = |brokers: &Brokers, open: &str| {
        let empty = transactional(&one_number());
        let mut cluster = brokers.cluster();
        cluster.log(open, 0).expect("a log").append(&empty).expect("a batch");
    };
    let release = |brokers: &Brokers, open: &str| {
        let mut cluster = brokers.cluster();
        cluster.log(open, 0).expect("a log").end_transaction(super::log::PRODUCER, 0, true);
    };
    rolls_only_after(faults, hinder, release).await.map(drop)
}

#[tokio::test]
async fn a_seal_waits_until_no_transaction_is_open() -> Checked {
    a_seal_waits_for_transactions(None).await
}

/// What is not replicated yet comes later for readers, and would lie behind the seal.
pub async fn a_seal_waits_for_replicas(faults: Faults) -> Checked {
    let set = |brokers: &Brokers, open: &str, replicated| {
        brokers.cluster().log(open, 0).expect("a log").replicated = replicated;
    };
    let hinder = |brokers: &Brokers, open: &str| set(brokers, open, Some(1));
    let release = |brokers: &Brokers, open: &str| set(brokers, open, None);
    let (brokers, proxy) = rolls_only_after(faults, hinder, release).await?;
    ensure_written(&brokers, &proxy, 8).await
}

#[tokio::test]
async fn a_seal_waits_until_everything_is_replicated() -> Checked {
    a_seal_waits_for_replicas(None).await
}

/// A batch of one record.
fn one_number() -> Bytes {
    let fields = ProducerFields { id: 77, epoch: 0, base_sequence: 0 };
    with_producer(&numbered(77, 100, 1), fields).expect("a batch")
}

/// What comes behind a seal in spite of it is seen, also by whoever leads next.
pub async fn growth_is_seen_by_the_next_leader(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    roll(&proxy).await?;
    let sealed = segments(&proxy).await?.remove(0).0;
    drop((client, proxy));
    let late = numbered(6, 0, 1);
    brokers.cluster().log(&sealed, 0).expect("a log").append(&late).expect("a batch");
    let next = another(&brokers, faults).await?;
    next.metric_becomes("firebreak_sealed_segments_grown_total", 1.0).await
}

#[tokio::test]
async fn a_segment_that_grew_is_told_by_the_next_leader() -> Checked {
    growth_is_seen_by_the_next_leader(None).await
}
