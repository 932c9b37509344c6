//! Writers and seals: nothing is lost, doubled or reordered when a segment ends under them.

use std::time::Duration;

use kafka_protocol::messages::ProduceResponse;
use protocol_ext::fake_broker::Fault;

use super::leader::segments;
use super::{NORCAL, OTHER, TOPIC, at_time, roll, seal, start};
use crate::exact::{numbered, numbers};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::requests::produce;
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, until};
use crate::routed::without_sequences;

const PRODUCE: i16 = 0;
const DESCRIBE_PRODUCERS: i16 = 61;
const VERSION: i16 = 9;
const TOO_LARGE: i16 = 10;
const INVALID_RECORD: i16 = 87;
const REQUEST_TIMED_OUT: i16 = 7;

/// Every second number is in each slot, once and in order, over both segments.
fn ensure_written(brokers: &Brokers, end: i32) -> Checked {
    for (segments, odd) in [(NORCAL, 0), (OTHER, 1)] {
        let mut found = Vec::new();
        for topic in segments {
            found.extend(numbers(brokers.cluster().log(topic, 0)));
        }
        let expected: Vec<i32> = (0..end).filter(|n| n % 2 == odd).collect();
        ensure_eq!(found, expected, "numbers in {}", segments[0]);
    }
    Ok(())
}

async fn send(client: &mut Client, sequence: i32, count: i32) -> Checked<i16> {
    let batch = numbered(5, sequence, count);
    Ok(client.produce(VERSION, TOPIC, 0, &batch).await?.0)
}

/// Both slots are sealed at the brokers, and the placement says so a moment later.
async fn roll_late(brokers: &Brokers, ends: [i64; 2]) {
    tokio::time::sleep(Duration::from_millis(150)).await;
    roll(brokers, "norcal", NORCAL, ends[0]);
    roll(brokers, "other", OTHER, ends[1]);
}

/// A producer that meets a seal is answered when the next segment is there.
pub async fn writers_wait_for_the_next_segment(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    for topic in [NORCAL[0], OTHER[0]] {
        seal(&brokers, topic);
    }
    let (code, ()) = tokio::join!(send(&mut client, 4, 4), roll_late(&brokers, [2, 2]));
    ensure_eq!(code?, 0, "answer across the seal");
    ensure_eq!(send(&mut client, 8, 2).await?, 0, "answer behind it");
    ensure_written(&brokers, 10)?;
    // What comes again is in the sealed segments already.
    for (sequence, count) in [(0, 4), (4, 4), (8, 2)] {
        ensure_eq!(send(&mut client, sequence, count).await?, 0, "answer to {sequence} again");
    }
    ensure_written(&brokers, 10)?;
    let mut other = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut other, 0, 4).await?, 0, "answer to what is sealed, elsewhere");
    ensure_eq!(send(&mut other, 10, 2).await?, REQUEST_TIMED_OUT, "answer behind a gap");
    ensure_written(&brokers, 10)
}

#[tokio::test]
async fn a_writer_with_sequences_waits_for_the_next_segment() -> Checked {
    writers_wait_for_the_next_segment(None).await
}

#[tokio::test]
async fn a_writer_without_sequences_waits_for_the_next_segment() -> Checked {
    let (brokers, proxy) = start(None).await?;
    let mut client = Client::connect(proxy.port).await?;
    let batch = at_time(1_700_000_000_001);
    ensure_eq!(client.produce(VERSION, TOPIC, 0, &batch).await?, (0, 0), "the first answer");
    seal(&brokers, NORCAL[0]);
    let sent = client.produce(VERSION, TOPIC, 0, &batch);
    let (sent, ()) = tokio::join!(sent, roll_late(&brokers, [1, 0]));
    ensure_eq!(sent?, (0, 1), "the answer across the seal");
    ensure_eq!(client.produce(VERSION, TOPIC, 0, &batch).await?, (0, 2), "the answer behind it");
    let mut cluster = brokers.cluster();
    let ends = NORCAL.map(|topic| cluster.log(topic, 0).expect("a log").end());
    ensure_eq!(ends, [1, 2], "records in both segments");
    Ok(())
}

#[tokio::test]
async fn a_batch_that_is_too_large_in_truth_is_refused() -> Checked {
    let (brokers, proxy) = start(None).await?;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().configure(NORCAL[0], "max.message.bytes", "20");
    ensure_eq!(send(&mut client, 0, 4).await?, TOO_LARGE, "error of a batch with sequences");
    let plain = client.produce(VERSION, TOPIC, 0, &at_time(1_700_000_000_001)).await?;
    ensure_eq!(plain.0, TOO_LARGE, "error of one without");
    Ok(())
}

/// One part of a batch is too large for its topic: nothing of the batch is written, so that the
/// halves, which clients send instead, are.
pub async fn halves_of_what_is_too_large_are_written(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    brokers.cluster().configure(NORCAL[0], "max.message.bytes", "230");
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 2).await?, 0, "error of a small batch");
    ensure_eq!(send(&mut client, 2, 20).await?, TOO_LARGE, "error of a large one");
    ensure_written(&brokers, 2)?;
    ensure_eq!(send(&mut client, 2, 16).await?, TOO_LARGE, "error of half of it");
    ensure_written(&brokers, 2)?;
    let plain = without_sequences(&numbered(5, 2, 20));
    let plain = client.produce(VERSION, TOPIC, 0, &plain).await?;
    ensure_eq!(plain.0, TOO_LARGE, "error of one without sequences");
    ensure_written(&brokers, 2)?;
    for sequence in [2, 12] {
        ensure_eq!(send(&mut client, sequence, 10).await?, 0, "error of the half at {sequence}");
    }
    ensure_written(&brokers, 22)
}

/// A batch is in sealed segments, and too large for those that follow: who sends it again is told
/// that it is there.
#[tokio::test]
async fn what_is_there_is_not_too_large() -> Checked {
    let (brokers, proxy) = start(None).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 20).await?, 0, "error of the first batch");
    roll(&brokers, "norcal", NORCAL, 10);
    roll(&brokers, "other", OTHER, 10);
    let rolled = async || (segments(&proxy).await.ok()?.len() == 4).then_some(());
    until("the placement", rolled).await?;
    for topic in [NORCAL[1], OTHER[1]] {
        brokers.cluster().configure(topic, "max.message.bytes", "100");
    }
    let mut other = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut other, 0, 20).await?, 0, "error of what is in sealed segments");
    ensure_eq!(send(&mut other, 20, 20).await?, TOO_LARGE, "error of the next one");
    ensure_eq!(send(&mut other, 20, 1).await?, 0, "error of a short one");
    ensure_written(&brokers, 21)
}

/// One part of a batch is refused as too large behind another one, which is there: no client may
/// send halves of it.
pub async fn what_is_there_in_part_is_not_cut(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    for topic in [NORCAL[0], OTHER[0]] {
        brokers.cluster().configure(topic, "max.message.bytes", "100000");
    }
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 2).await?, 0, "error of the first batch");
    brokers.cluster().refusing.push((NORCAL[0].to_owned(), 0, TOO_LARGE));
    ensure_eq!(send(&mut client, 2, 4).await?, INVALID_RECORD, "halves of what is there in part");
    ensure_eq!(numbers(brokers.cluster().log(OTHER[0], 0)), [1, 3, 5], "numbers that are there");
    // What is in no slot may be cut, whether one was to have it or both.
    let both = (OTHER[0].to_owned(), 0, TOO_LARGE);
    brokers.cluster().refusing.push(both);
    for count in [1, 4] {
        let refused = client.produce(VERSION, TOPIC, 0, &numbered(6, 0, count)).await?.0;
        ensure_eq!(refused, TOO_LARGE, "error of {count} records that are nowhere");
    }
    brokers.cluster().refusing.clear();
    ensure_eq!(send(&mut client, 2, 4).await?, 0, "error of the batch, sent again");
    ensure_written(&brokers, 6)
}

#[tokio::test]
async fn a_batch_that_is_there_in_part_is_not_cut_in_halves() -> Checked {
    what_is_there_in_part_is_not_cut(None).await
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_one_slot_is_refused_whole() -> Checked {
    halves_of_what_is_too_large_are_written(None).await
}

/// The answer to a batch is lost, then its segment is sealed: it must not be written to the next.
pub async fn a_retry_across_a_seal_doubles_nothing(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.node(1)).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    brokers.cluster().seen.clear();
    // Both slots are led by node 0, which is not the client's: one request has both parts.
    brokers.cluster().script(PRODUCE, Fault::HoldAfter(0));
    let request = produce(VERSION, -1, TOPIC, &[(0, numbered(5, 4, 4))]);
    let correlation = client.send(PRODUCE, VERSION, &request).await?;
    let written = async || (brokers.cluster().count(PRODUCE) > 0).then_some(());
    until("a part at a broker", written).await?;
    for topic in [NORCAL[0], OTHER[0]] {
        seal(&brokers, topic);
    }
    brokers.hang_up(0);
    tokio::time::sleep(QUIET).await;
    roll_late(&brokers, [4, 4]).await;
    let told: ProduceResponse = answer(&client.receive().await?, VERSION, correlation)?;
    let code = told.responses[0].partition_responses[0].error_code;
    ensure_eq!(code, 0, "answer to the batch");
    ensure_written(&brokers, 8)?;
    ensure_eq!(send(&mut client, 8, 2).await?, 0, "answer to the next one");
    ensure_written(&brokers, 10)
}

#[tokio::test]
async fn a_batch_that_a_sealed_segment_has_is_not_written_again() -> Checked {
    a_retry_across_a_seal_doubles_nothing(None).await
}

/// A broker whose log is shorter than the seal says led once and does not know all: no look-up
/// believes it.
pub async fn a_short_answer_is_no_answer(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    roll(&brokers, "norcal", NORCAL, 3);
    roll(&brokers, "other", OTHER, 2);
    let rolled = async || (segments(&proxy).await.ok()?.len() == 4).then_some(());
    until("the placement", rolled).await?;
    let code = send(&mut client, 4, 4).await?;
    ensure_eq!(code, REQUEST_TIMED_OUT, "error of a batch behind a seal that cannot be seen");
    ensure!(numbers(brokers.cluster().log(NORCAL[1], 0)).is_empty(), "it was written");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_its_seal_is_not_believed() -> Checked {
    a_short_answer_is_no_answer(None).await
}

/// What a sealed segment says of producers does not change: it is asked for once, whoever writes.
pub async fn a_sealed_segment_is_asked_about_once(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    for topic in [NORCAL[0], OTHER[0]] {
        seal(&brokers, topic);
    }
    roll_late(&brokers, [2, 2]).await;
    brokers.cluster().keeping = Some(DESCRIBE_PRODUCERS);
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error behind the seal");
    for n in 2..5 {
        let mut other = Client::connect(proxy.port).await?;
        ensure_eq!(send(&mut other, n * 4, 4).await?, 0, "error on another connection");
        ensure_eq!(send(&mut other, 0, 4).await?, 0, "answer to what is sealed");
    }
    let cluster = brokers.cluster();
    let of = |topic: &str| {
        let frames = cluster.kept.iter().map(|(_, frame)| frame);
        frames.filter(|frame| frame.windows(topic.len()).any(|at| at == topic.as_bytes())).count()
    };
    ensure_eq!((of(NORCAL[0]), of(OTHER[0])), (1, 1), "questions about the sealed segments");
    ensure!(of(NORCAL[1]) >= 3, "the open segment was not asked about");
    drop(cluster);
    ensure_written(&brokers, 20)
}

#[tokio::test]
async fn what_a_sealed_segment_has_is_asked_once() -> Checked {
    a_sealed_segment_is_asked_about_once(None).await
}
