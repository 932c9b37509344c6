//! Bytes behind the last field of a request: brokers pass over them, and librdkafka leaves three
//! where it asks for all topics.

use kafka_protocol::messages::{
    AddPartitionsToTxnResponse, DeleteTopicsRequest, DeleteTopicsResponse, FetchResponse,
    ListOffsetsResponse, MetadataResponse, ProduceResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::transactions::add;
use super::{TOPIC, start};
use crate::exact::numbered;
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched, list_offsets, metadata, name, produce};
use crate::harness::{Checked, ensure, ensure_eq, noise};

const SURPLUS: [u8; 3] = [0, 7, 0xff];
const CORRELATION: i32 = 7_000;

/// Asks with more bytes than the request has.
async fn ask<Q, A>(client: &mut Client, api: i16, version: i16, request: &Q) -> Checked<A>
where
    Q: Encodable + HeaderVersion,
    A: Decodable + HeaderVersion,
{
    let frame = request_frame(api, version, CORRELATION, request);
    let length = i32::try_from(frame.len() - 4 + SURPLUS.len()).expect("small");
    let longer = [&length.to_be_bytes(), &frame[4..], &SURPLUS].concat();
    client.send_raw(&longer).await?;
    answer(&client.receive().await?, version, CORRELATION)
}

#[tokio::test]
async fn bytes_behind_a_request_are_passed_over() -> Checked {
    let (_brokers, proxy) = start(None, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    for version in 0..=13 {
        let expected = client.metadata(version).await?;
        let answer: MetadataResponse = ask(&mut client, 3, version, &metadata(version)).await?;
        ensure_eq!(answer.topics, expected.topics, "topics in version {version}");
        ensure!(!answer.topics.is_empty(), "no topics in version {version}");
    }
    let batch = numbered(5, 0, 4);
    let asked = produce(9, -1, TOPIC, &[(0, batch.clone())]);
    let answer: ProduceResponse = ask(&mut client, 0, 9, &asked).await?;
    ensure_eq!(answer.responses[0].partition_responses[0].error_code, 0, "error of Produce");
    let answer: ListOffsetsResponse = ask(&mut client, 2, 5, &list_offsets(TOPIC)).await?;
    let end = answer.topics[0].partitions[0].offset;
    ensure!(end > 0, "the end of partition 0 is {end}");
    let asked = fetch(12, TOPIC, &[(0, 0)], 1 << 20);
    let answer: FetchResponse = ask(&mut client, 1, 12, &asked).await?;
    let (_, error, records) = fetched(answer)?.remove(0);
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(!records.is_empty(), "nothing is read");
    Ok(())
}

#[tokio::test]
async fn bytes_behind_a_refused_request_are_passed_over() -> Checked {
    const INVALID_TXN_STATE: i16 = 48;
    const TOPIC_DELETION_DISABLED: i16 = 73;
    let (_brokers, proxy) = start(None, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(9).await?;
    let answer: AddPartitionsToTxnResponse = ask(&mut client, 24, 3, &add(&[TOPIC])).await?;
    let code = answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
    ensure_eq!(code, INVALID_TXN_STATE, "error of AddPartitionsToTxn");
    let asked = DeleteTopicsRequest::default().with_topic_names(vec![name(TOPIC)]);
    let answer: DeleteTopicsResponse = ask(&mut client, 20, 5, &asked).await?;
    ensure_eq!(answer.responses[0].error_code, TOPIC_DELETION_DISABLED, "error of DeleteTopics");
    Ok(())
}

#[tokio::test]
async fn bytes_behind_what_is_stored_and_read_again_are_passed_over() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let sent = single(noise(1, 30_000));
    let asked = produce(9, -1, "t", &[(0, sent.clone())]);
    let answer: ProduceResponse = ask(&mut client, 0, 9, &asked).await?;
    ensure_eq!(answer.responses[0].partition_responses[0].error_code, 0, "error of Produce");
    let held =
        brokers.cluster().log("t", 0).is_some_and(|log| log.batches().all(|b| b.len() < 1000));
    ensure!(held, "the value was not stored");
    let answer: FetchResponse =
        ask(&mut client, 1, 12, &fetch(12, "t", &[(0, 0)], i32::MAX)).await?;
    let (_, error, records) = fetched(answer)?.remove(0);
    ensure_eq!(error, 0, "error of Fetch");
    let values = |batch| read(batch).into_iter().map(|record| record.value).collect::<Vec<_>>();
    ensure_eq!(values(&records), values(&sent), "values");
    Ok(())
}
