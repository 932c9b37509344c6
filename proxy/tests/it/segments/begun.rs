//! What a leader began and did not end: whoever leads next ends it, and once.

use std::collections::BTreeMap;

use protocol_ext::fake_broker::Fault;
use serde_json::Value;

use super::leader::{LEADS, another, ensure_written, segments, send, start};
use super::{PLACEMENT, TOPIC};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Proxy;
use crate::harness::records::{Record, heads, read};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, until};

const PRODUCE: i16 = 0;
const LIST_OFFSETS: i16 = 2;
const CREATE_TOPICS: i16 = 19;
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const END_TXN: i16 = 26;
const DESCRIBE_CONFIGS: i16 = 32;
const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
const DESCRIBE_PRODUCERS: i16 = 61;
const INTENTS: &str = "firebreak_placement_intents";

/// Where a leader dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// While it writes down what it is about to do.
    Intent,
    /// While it makes the next segments.
    Make,
    /// While it seals, or writes down that it has.
    Seal,
}

/// Every question that a roll asks.
const STEPS: [(At, i16); 10] = [
    (At::Intent, ADD_PARTITIONS_TO_TXN),
    (At::Intent, PRODUCE),
    (At::Intent, END_TXN),
    (At::Make, CREATE_TOPICS),
    (At::Seal, INCREMENTAL_ALTER_CONFIGS),
    (At::Seal, DESCRIBE_CONFIGS),
    (At::Seal, PRODUCE),
    (At::Seal, DESCRIBE_PRODUCERS),
    (At::Seal, LIST_OFFSETS),
    (At::Seal, END_TXN),
];

/// What transactions that were committed wrote to the placement log, in order.
fn committed(brokers: &Brokers) -> Vec<Record> {
    let mut cluster = brokers.cluster();
    let log = cluster.log(PLACEMENT, 0).expect("the log");
    let (mut open, mut committed) = (BTreeMap::<i64, Vec<Record>>::new(), Vec::new());
    for batch in log.batches() {
        let (header, mut records) = (heads(batch)[0], read(batch));
        let of_producer = open.entry(header.producer_id).or_default();
        if !header.is_control() {
            of_producer.append(&mut records);
        } else if records[0].key.as_ref().is_some_and(|key| key.ends_with(&[1])) {
            committed.append(of_producer);
        } else {
            of_producer.clear();
        }
    }
    committed
}

/// Physical topics that were ever to become segments, slot by slot.
pub fn begun(brokers: &Brokers) -> Vec<String> {
    let mut begun = BTreeMap::<Vec<u8>, Vec<String>>::new();
    for record in committed(brokers) {
        let value: Value =
            serde_json::from_slice(&record.value.unwrap_or_default()).unwrap_or_default();
        if let Some(next) = value["roll"]["next"].as_str() {
            begun.entry(record.key.unwrap_or_default()).or_default().push(next.to_owned());
        }
    }
    begun.into_values().flatten().collect()
}

/// Begins a roll, whose leader gets no answer to a question of this kind.
async fn roll_until(brokers: &Brokers, proxy: &Proxy, (at, step): (At, i16)) -> Checked {
    let path = format!("/topics/{TOPIC}/roll");
    let silent = async {
        if at == At::Seal {
            brokers.cluster().behind.push(0);
            proxy.metric_becomes(INTENTS, 2.0).await?;
        }
        brokers.cluster().script(step, Fault::Never);
        brokers.cluster().behind.clear();
        let asked = async || (!brokers.cluster().scripted(step)).then_some(());
        until("a question that gets no answer", asked).await
    };
    tokio::select! {
        biased;
        silent = silent => silent,
        rolled = proxy.post(&path) => Err(failure(format!("a roll past {step}: {:?}", rolled?))),
    }
}

/// A leader dies while a broker answers it, at every kind of question that a roll asks. The next
/// one leaves nothing open: every topic that was to become a segment is one, and nothing else is.
pub async fn what_was_begun_is_ended(faults: Faults) -> Checked {
    let (brokers, mut proxy) = start(faults).await?;
    let mut sequence = 0;
    for (at, step) in STEPS {
        proxy.says(LEADS, 1).await?;
        let mut client = Client::connect(proxy.port).await?;
        ensure_eq!(send(&mut client, sequence, 4).await?, 0, "error before {step}");
        sequence += 4;
        drop(client);
        let before = begun(&brokers).len();
        roll_until(&brokers, &proxy, (at, step)).await?;
        drop(proxy);
        proxy = another(&brokers, faults).await?;
        proxy.says(LEADS, 1).await?;
        proxy.metric_becomes(INTENTS, 0.0).await?;
        let mut client = Client::connect(proxy.port).await?;
        let taken = async || (send(&mut client, sequence, 4).await.ok()? == 0).then_some(());
        until("a batch is taken", taken).await?;
        sequence += 4;
        let (begun, all) = (begun(&brokers), segments(&proxy).await?);
        ensure!(at == At::Intent || begun.len() == before + 2, "{step} came before the intents");
        let all: Vec<String> = all.into_iter().map(|(topic, ..)| topic).collect();
        ensure_eq!(all, begun, "segments, and what was begun, after {step}");
        ensure_written(&brokers, &proxy, sequence).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_leads_next_ends_what_was_begun() -> Checked {
    what_was_begun_is_ended(None).await
}
