//! Producers with sequences on virtual topics: every acknowledged record is in the brokers' logs
//! once, in order, whatever fails in between.

pub mod gate;
pub mod large;

use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::OpenBatch;
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::fake_broker::{FakeLog, Fault};
use protocol_ext::split::{ProducerFields, with_producer};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{self, Record, batch};
use crate::harness::requests::produce;
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, until};
use crate::routed::looked_out;

const TOPIC: &str = "fires";
const NORCAL: &str = "fires-norcal";
const OTHER: &str = "fires-other";
const ROUTED: &str = "\n[[virtual_topic]]\nname = \"fires\"\npartitions = 2\n\
    region = { header = \"region\" }\n[[region]]\nname = \"norcal\"\n";
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const PRODUCE: i16 = 0;
const VERSION: i16 = 9;
const CAPS: protocol_ext::batch::Caps =
    protocol_ext::batch::Caps { body_bytes_max: 1 << 20, rewritten_bytes_max: 1 << 20 };

async fn start(faults: Faults) -> (Brokers, Proxy) {
    let brokers = Brokers::start(2).await;
    brokers.cluster().add_topic(NORCAL, 2);
    brokers.cluster().add_topic(OTHER, 2);
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).start().await;
    looked_out(&brokers).await;
    (brokers, proxy)
}

/// A batch of a producer with epoch 0 whose records are numbered from `sequence` on; every second
/// one goes to the region.
pub fn numbered(producer: i64, sequence: i32, count: i32) -> Bytes {
    let records = (0..count).map(|n| {
        let number = sequence + n;
        let region = (number % 2 == 0).then(|| b"norcal".to_vec());
        Record {
            offset: n.into(),
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(number.to_string().into_bytes()),
            headers: vec![(b"region".to_vec(), region)],
        }
    });
    let plain = batch(Codec::None, Framing::Plain, &records.collect::<Vec<_>>());
    let fields = ProducerFields { id: producer, epoch: 0, base_sequence: sequence };
    with_producer(&plain, fields).expect("a batch")
}

/// The numbers in a log, in order.
pub fn numbers(log: Option<&mut FakeLog>) -> Vec<i32> {
    let batches = log.expect("a log").batches();
    let values = batches.flat_map(|batch| {
        let open = OpenBatch::open(batch.clone(), &CAPS).expect("a batch");
        let records: Vec<Vec<u8>> =
            open.records().map(|r| r.expect("a record").value.expect("a value").to_vec()).collect();
        records
    });
    values.map(|v| String::from_utf8(v).expect("text").parse().expect("a number")).collect()
}

/// Both regions of partition 0 have exactly the numbers below `end`.
fn ensure_written(brokers: &Brokers, end: i32) -> Checked {
    for (topic, odd) in [(NORCAL, 0), (OTHER, 1)] {
        let expected: Vec<i32> = (0..end).filter(|n| n % 2 == odd).collect();
        ensure_eq!(numbers(brokers.cluster().log(topic, 0)), expected, "numbers in {topic}");
    }
    Ok(())
}

fn refuse(brokers: &Brokers, topic: &str) {
    brokers.cluster().refusing.push((topic.to_owned(), 0, NOT_ENOUGH_REPLICAS));
}

fn heal(brokers: &Brokers) {
    brokers.cluster().refusing.clear();
}

async fn send(client: &mut Client, sequence: i32, count: i32) -> Checked<i16> {
    let (code, offset) = client.produce(VERSION, TOPIC, 0, &numbered(5, sequence, count)).await?;
    ensure!(code != 0 || count == 1 || offset == -1, "offset {offset} of a batch in two logs");
    Ok(code)
}

#[tokio::test]
async fn what_is_sent_again_is_there_once() -> Checked {
    let (brokers, proxy) = start(None).await;
    let mut client = Client::connect(proxy.port).await?;
    for (sequence, count) in [(0, 4), (0, 4), (4, 3), (7, 1), (4, 3), (7, 1), (8, 2)] {
        ensure_eq!(send(&mut client, sequence, count).await?, 0, "error of {sequence}");
    }
    ensure_written(&brokers, 10)?;
    let metric = "firebreak_routed_parts_total{result=\"duplicate\"}";
    ensure!(proxy.metric(metric).await? > 0.0, "no duplicate was counted");
    Ok(())
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_doubles_nothing() -> Checked {
    let (brokers, proxy) = start(None).await;
    let mut client = Client::connect(proxy.port).await?;
    let mut sequence = 0;
    for fault in [Fault::CloseAfter(0), Fault::CloseAfter(9), Fault::Truncated(12)] {
        brokers.cluster().script(PRODUCE, fault);
        ensure_eq!(send(&mut client, sequence, 4).await?, 0, "error of {sequence}");
        sequence += 4;
    }
    ensure_written(&brokers, sequence)
}

#[tokio::test]
async fn the_first_batch_on_a_connection_follows_what_is_there() -> Checked {
    a_first_batch_follows(None).await
}

/// A client that moves to another connection while a batch is on its way on the first one.
pub async fn a_first_batch_follows(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let mut first = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut first, 0, 4).await?, 0, "error of the first batch");
    let mut second = Client::connect(proxy.port).await?;
    // 4 to 6 are still on their way elsewhere.
    ensure_eq!(send(&mut second, 7, 2).await?, REQUEST_TIMED_OUT, "error of a batch ahead");
    ensure_eq!(send(&mut second, 4, 3).await?, 0, "error of the next batch");
    ensure_eq!(send(&mut second, 7, 2).await?, 0, "error of the one behind it");
    // The first connection missed what was written on the second one.
    until("an answer on the first connection", async || {
        (send(&mut first, 9, 1).await.ok()? == 0).then_some(())
    })
    .await?;
    ensure_written(&brokers, 10)
}

#[tokio::test]
async fn nothing_passes_a_batch_that_failed() -> Checked {
    a_failed_batch_is_not_passed(None).await
}

/// One slot is down for longer than a batch is tried again; what follows must not be written.
pub async fn a_failed_batch_is_not_passed(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    refuse(&brokers, NORCAL);
    ensure_eq!(send(&mut client, 4, 4).await?, REQUEST_TIMED_OUT, "error of the second batch");
    heal(&brokers);
    ensure_eq!(send(&mut client, 8, 2).await?, REQUEST_TIMED_OUT, "error of a batch behind it");
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch, sent again");
    ensure_eq!(send(&mut client, 8, 2).await?, 0, "error of the third batch");
    ensure_written(&brokers, 10)
}

#[tokio::test]
async fn a_batch_is_not_acknowledged_in_part() -> Checked {
    success_is_told_of_whole_batches(None).await
}

/// Success only if every part is durable.
pub async fn success_is_told_of_whole_batches(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    refuse(&brokers, OTHER);
    ensure_eq!(send(&mut client, 0, 4).await?, REQUEST_TIMED_OUT, "error of half a batch");
    heal(&brokers);
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the whole batch");
    ensure_written(&brokers, 4)
}

#[tokio::test]
async fn nothing_is_written_for_a_client_that_left() -> Checked {
    a_part_is_not_sent_late(None).await
}

/// The client gave up and may have sent the record again elsewhere, with a new epoch.
pub async fn a_part_is_not_sent_late(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    refuse(&brokers, NORCAL);
    refuse(&brokers, OTHER);
    let mut client = Client::connect(proxy.port).await?;
    let request = produce(VERSION, -1, TOPIC, &[(0, numbered(5, 0, 4))]);
    client.send(PRODUCE, VERSION, &request).await?;
    until("a part at a broker", async || (brokers.cluster().count(PRODUCE) > 0).then_some(()))
        .await?;
    drop(client);
    tokio::time::sleep(QUIET * 3).await;
    heal(&brokers);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for topic in [NORCAL, OTHER] {
        ensure_eq!(numbers(brokers.cluster().log(topic, 0)), Vec::<i32>::new(), "in {topic}");
    }
    Ok(())
}

#[tokio::test]
async fn a_producer_id_that_does_not_fit_is_refused() -> Checked {
    let (brokers, proxy) = start(None).await;
    let mut client = Client::connect(proxy.port).await?;
    let (code, _) = client.produce(VERSION, TOPIC, 0, &numbered(1 << 26, 0, 2)).await?;
    ensure_eq!(code, 87, "error of a too large producer id");
    ensure_written(&brokers, 0)
}

#[tokio::test]
async fn records_are_unchanged_but_for_their_place() -> Checked {
    let (brokers, proxy) = start(None).await;
    let mut client = Client::connect(proxy.port).await?;
    let source = numbered(5, 0, 6);
    let (code, _) = client.produce(VERSION, TOPIC, 0, &source).await?;
    ensure_eq!(code, 0, "error of Produce");
    for (topic, odd) in [(NORCAL, 0), (OTHER, 1)] {
        let log = brokers.cluster().log(topic, 0).expect("a log").batches().next().cloned();
        let written = records::read(&log.expect("a batch"));
        let expected = records::read(&source).into_iter().filter(|r| r.offset % 2 == odd);
        let expected = (0..).zip(expected).map(|(offset, record)| Record { offset, ..record });
        ensure_eq!(written, expected.collect::<Vec<_>>(), "records in {topic}");
    }
    Ok(())
}
