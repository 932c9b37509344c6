//! What is still to be sent and must not be: a batch of an older epoch, one whose time is over, one
//! behind another that is not durable.

use bytes::Bytes;
use kafka_protocol::messages::ProduceResponse;
use protocol_ext::fake_broker::Fault;
use protocol_ext::split::{ProducerFields, with_producer};

use super::{
    NORCAL, OTHER, PRODUCE, REQUEST_TIMED_OUT, TOPIC, VERSION, ensure_written, heal, numbered,
    numbers, refuse, send, start,
};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::requests::produce;
use crate::harness::{Checked, Faults, QUIET, ensure_eq, until};

const INVALID_PRODUCER_EPOCH: i16 = 47;

/// Sends batches to partition 0 in one request, and does not wait.
async fn ask(client: &mut Client, batches: &[Bytes]) -> Checked<i32> {
    let batches: Vec<(i32, Bytes)> = batches.iter().map(|batch| (0, batch.clone())).collect();
    client.send(PRODUCE, VERSION, &produce(VERSION, -1, TOPIC, &batches)).await
}

/// The error codes of the batches of such a request.
pub(super) async fn told(client: &mut Client, correlation: i32) -> Checked<Vec<i16>> {
    let told: ProduceResponse = answer(&client.receive().await?, VERSION, correlation)?;
    let rows = told.responses.iter().flat_map(|topic| &topic.partition_responses);
    Ok(rows.map(|row| row.error_code).collect())
}

/// Waits until a part has come to a broker.
async fn until_sent(brokers: &Brokers) -> Checked {
    let sent = async || (brokers.cluster().count(PRODUCE) > 0).then_some(());
    until("a part at a broker", sent).await
}

/// Partition 0 has nothing.
#[cfg(feature = "failpoints")]
fn ensure_nothing(brokers: &Brokers) -> Checked {
    for topic in [NORCAL, OTHER] {
        ensure_eq!(numbers(brokers.cluster().log(topic, 0)), Vec::<i32>::new(), "in {topic}");
    }
    Ok(())
}

/// The numbers below 4 of the producer's next epoch.
fn bumped() -> Bytes {
    let bumped = ProducerFields { id: 5, epoch: 1, base_sequence: 0 };
    with_producer(&numbered(5, 0, 4), bumped).expect("a batch")
}

/// A batch is to be sent again when its producer, who gave it up, writes with the next epoch on
/// another connection: the old copy must not be written beside the new one.
pub async fn an_older_epoch_is_not_sent(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    refuse(&brokers, NORCAL);
    refuse(&brokers, OTHER);
    let mut old = Client::connect(proxy.port).await?;
    let asked = ask(&mut old, &[numbered(5, 0, 4)]).await?;
    until_sent(&brokers).await?;
    let mut new = Client::connect(proxy.port).await?;
    let both = produce(VERSION, -1, TOPIC, &[(0, bumped()), (1, bumped())]);
    let again = new.send(PRODUCE, VERSION, &both).await?;
    // Brokers take what is for partition 1: once it is there the epoch was read.
    let there = async || {
        let written = numbers(brokers.cluster().log(NORCAL, 1));
        (!written.is_empty()).then_some(())
    };
    until("the next epoch in partition 1", there).await?;
    // What left before is refused by now.
    tokio::time::sleep(QUIET).await;
    heal(&brokers);
    let codes = told(&mut old, asked).await?;
    ensure_eq!(codes, [REQUEST_TIMED_OUT], "answer to the older epoch");
    ensure_eq!(told(&mut new, again).await?, [0, 0], "answers to the next epoch");
    ensure_written(&brokers, 4)?;
    // One that comes now is told so, and ends nothing of another producer.
    let mixed = produce(VERSION, -1, TOPIC, &[(0, numbered(5, 4, 4)), (1, numbered(6, 0, 4))]);
    let asked = old.send(PRODUCE, VERSION, &mixed).await?;
    let codes = told(&mut old, asked).await?;
    ensure_eq!(codes, [INVALID_PRODUCER_EPOCH, 0], "answers to the older epoch and another's");
    ensure_written(&brokers, 4)
}

/// A client moves on to its next epoch partition by partition: what it began in the one before is
/// written also when another partition has the next already, and in one request with that.
pub async fn an_epoch_is_that_of_its_partition(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    refuse(&brokers, NORCAL);
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, REQUEST_TIMED_OUT, "error of half a batch");
    let (code, _) = client.produce(VERSION, TOPIC, 1, &bumped()).await?;
    ensure_eq!(code, 0, "error of the next epoch in partition 1");
    heal(&brokers);
    let both = produce(VERSION, -1, TOPIC, &[(0, numbered(5, 0, 4)), (1, bumped())]);
    let asked = client.send(PRODUCE, VERSION, &both).await?;
    ensure_eq!(told(&mut client, asked).await?, [0, 0], "answers to both epochs");
    ensure_written(&brokers, 4)
}

#[tokio::test]
async fn an_epoch_ends_nothing_in_another_partition() -> Checked {
    an_epoch_is_that_of_its_partition(None).await
}

#[tokio::test]
async fn a_batch_of_an_older_epoch_is_not_sent_any_more() -> Checked {
    an_older_epoch_is_not_sent(None).await
}

/// A process is stopped while a batch is to be sent again, and goes on when its time is over. With
/// `dispatch-ms=return(500)`.
#[cfg(feature = "failpoints")]
pub async fn a_part_has_its_time(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    refuse(&brokers, NORCAL);
    refuse(&brokers, OTHER);
    let mut client = Client::connect(proxy.port).await?;
    let asked = ask(&mut client, &[numbered(5, 0, 4)]).await?;
    tokio::time::sleep(QUIET).await;
    proxy.signal("STOP");
    // What is on its way to a broker is refused meanwhile.
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    heal(&brokers);
    proxy.signal("CONT");
    let codes = told(&mut client, asked).await?;
    ensure_nothing(&brokers)?;
    ensure_eq!(codes, [REQUEST_TIMED_OUT], "answer to a batch whose time is over");
    Ok(())
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_batch_whose_time_is_over_is_not_sent_any_more() -> Checked {
    a_part_has_its_time(Some("dispatch-ms=return(500)")).await
}

/// Two batches of one stream in one request, and two requests at once: the second batch is not sent
/// before the first one is durable in all its parts.
pub async fn one_batch_of_a_stream_is_out(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    refuse(&brokers, NORCAL);
    let asked = ask(&mut client, &[numbered(5, 0, 4), numbered(5, 4, 4)]).await?;
    let codes = told(&mut client, asked).await?;
    let other = numbers(brokers.cluster().log(OTHER, 0));
    ensure_eq!(other, [1, 3], "numbers in {OTHER} beside half a batch");
    ensure_eq!(codes, [REQUEST_TIMED_OUT; 2], "answers to both");
    heal(&brokers);
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch, sent again");
    brokers.cluster().seen.clear();
    brokers.cluster().script(PRODUCE, Fault::HoldAfter(0));
    let second = ask(&mut client, &[numbered(5, 4, 4)]).await?;
    let third = ask(&mut client, &[numbered(5, 8, 4)]).await?;
    until_sent(&brokers).await?;
    tokio::time::sleep(QUIET).await;
    ensure_eq!(brokers.cluster().count(PRODUCE), 1, "requests at brokers while one has no answer");
    brokers.release();
    ensure_eq!(told(&mut client, second).await?, [0], "answer to the second batch");
    ensure_eq!(told(&mut client, third).await?, [0], "answer to the third batch");
    ensure_written(&brokers, 12)
}

#[tokio::test]
async fn one_batch_of_a_stream_is_out_at_a_time() -> Checked {
    one_batch_of_a_stream_is_out(None).await
}
