//! Answers leave in the order of requests, whatever the requests and however the bytes are cut.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, ListOffsetsResponse, MetadataResponse, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::fake_broker::Fault;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::single;
use crate::harness::requests::{fetch, list_offsets, metadata, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};

/// A request and how its answer is read; `None` if there is none.
struct Question {
    frame: Bytes,
    correlation: i32,
    check: Option<Check>,
}

/// Looks at an answer to the request of that correlation id.
type Check = fn(&Bytes, i32) -> Checked;

/// Every kind of exchange in turn: patched, opaque, with a tail, without an answer.
fn question(correlation: i32) -> Question {
    let batch = single(noise(1, 40));
    let frame = |api, version| (api, version, correlation);
    let (frame, check): (Bytes, Option<Check>) = match correlation % 7 {
        0 => (framed(frame(3, 12), &metadata(12)), Some(|f, c| read::<MetadataResponse>(f, 12, c))),
        1 => (
            framed(frame(2, 7), &list_offsets("t")),
            Some(|f, c| read::<ListOffsetsResponse>(f, 7, c)),
        ),
        2 => (
            framed(
                frame(18, 3),
                &ApiVersionsRequest::default()
                    .with_client_software_name(StrBytes::from_static_str("it"))
                    .with_client_software_version(StrBytes::from_static_str("1")),
            ),
            Some(|f, c| read::<ApiVersionsResponse>(f, 3, c)),
        ),
        3 => (framed(frame(0, 9), &produce(9, 0, "t", &[(2, batch)])), None),
        4 => (
            framed(frame(1, 16), &fetch(16, "t", &[(1, 0)], 1 << 20)),
            Some(|f, c| read::<FetchResponse>(f, 16, c)),
        ),
        5 => (
            framed(
                frame(10, 3),
                &FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("g")),
            ),
            Some(|f, c| read::<FindCoordinatorResponse>(f, 3, c)),
        ),
        _ => (
            framed(frame(0, 11), &produce(11, -1, "t", &[(2, batch)])),
            Some(|f, c| read::<ProduceResponse>(f, 11, c)),
        ),
    };
    Question { frame, correlation, check }
}

fn framed<Q>((api, version, correlation): (i16, i16, i32), request: &Q) -> Bytes
where
    Q: kafka_protocol::protocol::Encodable + kafka_protocol::protocol::HeaderVersion,
{
    request_frame(api, version, correlation, request)
}

fn read<A>(frame: &Bytes, version: i16, correlation: i32) -> Checked
where
    A: kafka_protocol::protocol::Decodable + kafka_protocol::protocol::HeaderVersion,
{
    answer::<A>(frame, version, correlation).map(drop)
}

/// Sends so many questions at once and reads all answers.
async fn ask(client: &mut Client, questions: i32, byte_by_byte: bool) -> Checked {
    let questions: Vec<Question> = (0..questions).map(question).collect();
    let burst: Vec<u8> = questions.iter().flat_map(|q| q.frame.iter().copied()).collect();
    if byte_by_byte {
        client.send_slowly(&burst).await?;
    } else {
        client.send_raw(&burst).await?;
    }
    for question in &questions {
        let Some(check) = question.check else { continue };
        check(&client.receive().await?, question.correlation)?;
    }
    ensure!(client.is_quiet().await, "something comes behind the last answer");
    Ok(())
}

/// Hundreds of requests in flight are answered in their order.
pub async fn pipelined_requests_are_answered_in_order(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).start().await;
    let mut client = Client::connect(proxy.port).await?;
    ask(&mut client, 700, false).await?;
    let batches = brokers.cluster().log("t", 2).map_or(0, |log| log.batches().count());
    ensure_eq!(batches, 200, "batches stored");
    Ok(())
}

/// acks=0 has no answer: the next answer is the next request's.
pub async fn acks_0_has_no_answer(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let batch = single(noise(2, 3000));
    for n in 0..20 {
        client.send(0, 9, &produce(9, 0, "t", &[(0, batch.clone())])).await?;
        client.send(0, 3, &produce(3, 0, "t", &[(0, batch.clone())])).await?;
        let (error, base) = client.produce(9, "t", 1, &batch).await?;
        ensure_eq!((error, base), (0, n), "answer of the request with acks=all");
        client.metadata(12).await?;
    }
    ensure!(client.is_quiet().await, "an answer to acks=0 came");
    let batches = brokers.cluster().log("t", 0).map_or(0, |log| log.batches().count());
    ensure_eq!(batches, 40, "batches stored with acks=0");
    Ok(())
}

/// An answer made by the proxy waits for the answers that are due before it.
pub async fn a_local_answer_waits_for_its_turn(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, 1000).start().await;
    // Without its folder of pending files the store takes nothing: Produce is answered here.
    std::fs::remove_dir(store.path().join("pending")).expect("an empty folder");
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    brokers.cluster().script(2, Fault::HoldAfter(0));
    let slow = client.send(2, 7, &list_offsets("t")).await?;
    let local = client.send(0, 9, &produce(9, -1, "t", &[(0, single(noise(3, 5000)))])).await?;
    let last = client.send(2, 7, &list_offsets("t")).await?;
    let refused = "cannot be stored";
    until("the refusal", async || (proxy.logged(refused) > 0).then_some(())).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    brokers.release();
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, slow)?;
    let refused = answer::<ProduceResponse>(&client.receive().await?, 9, local)?;
    ensure_eq!(refused.responses[0].partition_responses[0].error_code, 56, "error of Produce");
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, last)?;
    Ok(())
}

#[tokio::test]
async fn hundreds_of_requests_in_flight_are_answered_in_their_order() -> Checked {
    pipelined_requests_are_answered_in_order(None).await
}

#[tokio::test]
async fn acks_0_has_no_answer_and_shifts_none() -> Checked {
    acks_0_has_no_answer(None).await
}

#[tokio::test]
async fn an_answer_made_here_waits_for_those_before_it() -> Checked {
    a_local_answer_waits_for_its_turn(None).await
}

#[tokio::test]
async fn requests_may_come_byte_by_byte() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    ask(&mut client, 70, true).await
}

#[tokio::test]
async fn answers_may_come_byte_by_byte() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.write_at_most(1);
    ask(&mut client, 70, false).await
}

#[tokio::test]
async fn an_exchange_survives_every_split_of_its_request_and_its_answer() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).refresh_ms(600_000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    for n in (0..7).filter(|n| n % 7 != 3) {
        let Question { frame, correlation, check } = question(n);
        let check = check.expect("all but the third have an answer");
        for split in 1..frame.len() {
            client.send_raw(&frame[..split]).await?;
            tokio::time::sleep(Duration::from_micros(300)).await;
            client.send_raw(&frame[split..]).await?;
            check(&client.receive().await?, correlation)?;
        }
        let api = i16::from_be_bytes([frame[4], frame[5]]);
        for split in 1..120 {
            brokers.cluster().script(api, Fault::Pieces(vec![split]));
            client.send_raw(&frame).await?;
            check(&client.receive().await?, correlation)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_with_more_requests_than_the_queue_holds_waits_and_gets_them_all() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::HoldAfter(0));
    let asked = 5000;
    let burst: Vec<u8> =
        (0..asked).flat_map(|n| request_frame(2, 7, n, &list_offsets("t"))).collect();
    client.send_raw(&burst).await?;
    ensure!(client.is_quiet().await, "an answer came though the broker holds the first one");
    brokers.release();
    for n in 0..asked {
        read::<ListOffsetsResponse>(&client.receive().await?, 7, n)?;
    }
    Ok(())
}
