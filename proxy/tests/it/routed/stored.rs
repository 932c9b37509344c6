//! Large values of virtual topics: stored, routed as references, put back.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use protocol_ext::batch::Batches;

use super::{NORCAL, OTHER, TOPIC, located, start};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Folder;
use crate::harness::records::read;
use crate::harness::requests::{fetch, fetched};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};

const ALL: i32 = i32::MAX;

/// A record that arrives at one slot and belongs to another is stored once, referred to in its own
/// slot's log under the name that clients use, and comes back as it was.
pub async fn a_routed_value_comes_back(faults: Faults) -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = start(faults, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    let (large, small) = (noise(1, 50_000), noise(2, 500));
    // Partition 0 is norcal's; a record without a region belongs to partition 2.
    for value in [&large, &small] {
        let (code, offset) = client.produce(9, TOPIC, 0, &located(None, value.clone())).await?;
        ensure_eq!((code, offset), (0, -1), "error and offset of Produce");
    }
    ensure_eq!(brokers.cluster().log(NORCAL, 0).expect("a log").end(), 0, "records in norcal");
    let logged = logged(&brokers);
    ensure_eq!(logged.len(), 2, "records in the log");
    ensure!(logged[0].len() == 112, "{} bytes of a large value in the log", logged[0].len());
    ensure!(logged[1] == small, "a small value is another one");
    let (code, records) = client.fetch(12, TOPIC, 2, 0, ALL).await?;
    ensure_eq!(code, 0, "error of Fetch");
    let values = read(&records).into_iter().map(|record| record.value.expect("a value"));
    let lengths: Vec<_> = values.clone().map(|value| value.len()).collect();
    ensure_eq!(lengths, [50_000, 500], "bytes of the values that came back");
    ensure!(values.eq([large, small]), "the values are other ones");
    Ok(())
}

fn logged(brokers: &Brokers) -> Vec<Vec<u8>> {
    let mut cluster = brokers.cluster();
    let log = cluster.log(OTHER, 0).expect("a log");
    let values = log.batches().flat_map(read).map(|record| record.value.expect("a value"));
    values.collect()
}

#[tokio::test]
async fn a_large_value_that_is_routed_to_another_slot_comes_back() -> Checked {
    a_routed_value_comes_back(None).await
}

/// The reference names the virtual topic: in another topic's log it is no reference.
#[tokio::test]
async fn a_reference_of_a_virtual_topic_is_followed_nowhere_else() -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = start(None, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    let batch = located(None, noise(1, 50_000));
    ensure_eq!(client.produce(9, TOPIC, 0, &batch).await?.0, 0, "error of Produce");
    let reference = logged(&brokers).remove(0);
    let copied = located(None, reference.clone());
    brokers.cluster().log("t", 0).expect("a log").append(&copied).expect("a batch");
    let (code, records) = client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(code, 0, "error of Fetch");
    ensure!(read(&records)[0].value == Some(reference), "a reference was followed elsewhere");
    Ok(())
}

/// Legs ask for as much of a log of references as its values have room for, too.
pub async fn a_routed_backlog_is_sent_about_once(faults: Faults) -> Checked {
    const READ: usize = 500;
    let store = Folder::new();
    let (brokers, proxy) = start(faults, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    let large = located(None, noise(1, 110_000));
    ensure_eq!(client.produce(9, TOPIC, 0, &large).await?.0, 0, "error of Produce");
    let referring = {
        let mut cluster = brokers.cluster();
        let log = cluster.log(OTHER, 0).expect("a log");
        let referring = log.batches().next().expect("a batch").clone();
        for _ in 1..2000 {
            log.append(&referring).expect("a batch");
        }
        referring
    };
    let sent_by = |id| brokers.counts(id).sent.load(Ordering::Relaxed);
    let sent = || sent_by(0) + sent_by(1);
    let (mut offset, mut first, mut before) = (0, 0, 0);
    while offset < READ {
        let at = i64::try_from(offset).expect("small");
        let mut asked = fetch(12, TOPIC, &[(2, at)], 50 << 20).with_min_bytes(1);
        asked.topics[0].partitions[0].partition_max_bytes = 1 << 20;
        let answer: FetchResponse = client.call(1, 12, &asked).await?;
        let (_, error, section) = fetched(answer)?.remove(0);
        ensure_eq!(error, 0, "error of Fetch at {offset}");
        let came = Batches::new(&section).count();
        ensure!(came > 0, "nothing came at {offset}");
        if offset == 0 {
            // It tells how long values are.
            (first, before) = (came, sent());
        }
        offset += came;
    }
    let (sent, used) = (sent() - before, (offset - first) * referring.len());
    ensure!(sent <= 2 * used, "brokers sent {sent} bytes for {used} of the log");
    Ok(())
}

#[tokio::test]
async fn legs_are_sent_a_backlog_of_references_about_once() -> Checked {
    a_routed_backlog_is_sent_about_once(None).await
}

/// Bytes of partition 2, from its start, and of partition 3.
async fn lengths(client: &mut Client, offset: i64) -> Checked<Vec<usize>> {
    let mut asked = fetch(12, TOPIC, &[(2, 0), (3, offset)], 50 << 20).with_min_bytes(1);
    let partitions = &mut asked.topics[0].partitions;
    partitions.iter_mut().for_each(|one| one.partition_max_bytes = 1 << 20);
    let answer: FetchResponse = client.call(1, 12, &asked).await?;
    let mut lengths = Vec::new();
    for (partition, error, section) in fetched(answer)? {
        ensure_eq!(error, 0, "error of partition {partition}");
        lengths.push(section.len());
    }
    ensure_eq!(lengths.len(), 2, "partitions answered");
    Ok(lengths)
}

/// A leg gives its first batch whole, however little its log was asked for: the client asked for
/// more, and it is not cut off for what was learned before.
pub async fn what_a_leg_gave_is_not_cut_to_less(faults: Faults) -> Checked {
    const LONG: usize = 50_000;
    let store = Folder::new();
    let (brokers, proxy) = start(faults, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    // Partitions 2 and 3 are led by two brokers.
    let large = located(None, noise(1, 110_000));
    ensure_eq!(client.produce(9, TOPIC, 1, &large).await?.0, 0, "error of Produce");
    let append = |partition: i32, batch: &Bytes| {
        let mut cluster = brokers.cluster();
        cluster.log(OTHER, partition).expect("a log").append(batch).expect("a batch");
    };
    append(0, &located(None, noise(2, 500)));
    let told = lengths(&mut client, 0).await?;
    ensure!(told[0] > 500 && told[1] > 110_000, "{told:?} bytes of both partitions");
    append(1, &located(None, noise(3, LONG)));
    let told = lengths(&mut client, 1).await?;
    let lowered = proxy.metric("firebreak_offload_lowered_fetches_total").await?;
    ensure_eq!(lowered, 1.0, "requests that ask for less");
    ensure!(told[0] > 500, "{told:?} bytes of both partitions");
    ensure!(told[1] > LONG, "what a leg gave was cut off: {told:?} bytes of both partitions");
    Ok(())
}

#[tokio::test]
async fn what_a_leg_gave_is_cut_to_what_the_client_asked_for() -> Checked {
    what_a_leg_gave_is_not_cut_to_less(None).await
}
