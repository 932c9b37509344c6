//! Batches that may be too large, beside brokers that do not answer: what may be written yet is not
//! cut in halves.

use protocol_ext::fake_broker::Fault;

use super::gate::told;
use super::{
    NORCAL, NOT_ENOUGH_REPLICAS, OTHER, PRODUCE, REQUEST_TIMED_OUT, TOPIC, VERSION, ensure_written,
    heal, numbered, send, start,
};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::requests::produce;
use crate::harness::{Checked, Faults, ensure, ensure_eq};
use crate::routed;

const DESCRIBE_CONFIGS: i16 = 32;
const TOO_LARGE: i16 = 10;
const NOT_AUTHORIZED: i16 = 29;

/// Both slots of partition 0 refuse batches with this code.
fn refuse_as(brokers: &Brokers, code: i16) {
    let refusing = [NORCAL, OTHER].map(|topic| (topic.to_owned(), 0, code));
    brokers.cluster().refusing = refusing.into();
}

/// Sends the first batch of one producer to partition 1, whose leader is asked how long batches may
/// be, and that of another to partition 0; gives what the other is told.
async fn send_both(client: &mut Client) -> Checked<Option<i16>> {
    let both = [(1, numbered(6, 0, 4)), (0, numbered(5, 0, 4))];
    let asked = client.send(PRODUCE, VERSION, &produce(VERSION, -1, TOPIC, &both)).await?;
    Ok(told(client, asked).await?.get(1).copied())
}

/// The answer to a batch was lost, so it may be written yet. Then topics take short ones only, as
/// one leader says; that of the batch has not heard of it, and writes what comes. Only this one may
/// call the batch too large.
pub async fn what_may_be_written_is_sent_again(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    refuse_as(&brokers, NOT_ENOUGH_REPLICAS);
    brokers.cluster().keeping = Some(PRODUCE);
    brokers.cluster().script(PRODUCE, Fault::CloseAfter(0));
    // What nobody told is asked for again soon.
    brokers.cluster().script(DESCRIBE_CONFIGS, Fault::CloseAfter(0));
    let lost = send(&mut client, 0, 4).await?;
    ensure_eq!(lost, REQUEST_TIMED_OUT, "error of a batch whose answer was lost");
    for topic in [NORCAL, OTHER] {
        brokers.cluster().configure(topic, "max.message.bytes", "20");
    }
    brokers.cluster().behind.push(0);
    // It fails once more, and this time it is answered.
    refuse_as(&brokers, NOT_AUTHORIZED);
    let code = send_both(&mut client).await?;
    ensure_eq!(code, Some(NOT_AUTHORIZED), "error while it is refused");
    heal(&brokers);
    ensure_eq!(send_both(&mut client).await?, Some(0), "error once it is taken");
    ensure_written(&brokers, 4)?;
    // Its first copy comes late.
    let (node, frame) = brokers.cluster().kept[0].clone();
    brokers.cluster().receive(node, &frame);
    ensure_written(&brokers, 4)
}

#[tokio::test]
async fn a_batch_that_may_be_written_is_not_called_too_large() -> Checked {
    what_may_be_written_is_sent_again(None).await
}

/// The answer to a batch is lost, and when it is sent again it is called too large: its first copy
/// may be written yet, so nobody may send halves of it now.
pub async fn a_lost_answer_keeps_a_batch_whole(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    refuse_as(&brokers, TOO_LARGE);
    brokers.cluster().script(PRODUCE, Fault::CloseAfter(0));
    for _ in 0..3 {
        let code = send(&mut client, 0, 4).await?;
        ensure_eq!(code, REQUEST_TIMED_OUT, "error of a batch that may be written yet");
    }
    heal(&brokers);
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the batch, sent again");
    ensure_written(&brokers, 4)
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_not_cut_in_halves() -> Checked {
    a_lost_answer_keeps_a_batch_whole(None).await
}

/// A leader does not say how long batches may be: nobody waits long to hear it, and the batch is
/// sent to it.
pub async fn a_silent_leader_is_sent_to(faults: Faults) -> Checked {
    // Longer than a client here waits for an answer.
    let (brokers, proxy) = routed::start(faults, |setup| setup.limit("connect_ms = 60000")).await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(DESCRIBE_CONFIGS, Fault::Never);
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of a batch");
    ensure!(!brokers.cluster().scripted(DESCRIBE_CONFIGS), "nobody asked how long it may be");
    ensure_written(&brokers, 4)
}

#[tokio::test]
async fn a_leader_that_does_not_tell_sizes_is_sent_to() -> Checked {
    a_silent_leader_is_sent_to(None).await
}
