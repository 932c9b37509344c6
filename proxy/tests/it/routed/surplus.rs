//! Bytes behind the last field of a request: brokers pass over them, and librdkafka leaves three
//! where it asks for all topics.

use kafka_protocol::messages::{
    FetchResponse, ListOffsetsResponse, MetadataResponse, ProduceResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::{TOPIC, start};
use crate::exact::numbered;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::requests::{fetch, fetched, list_offsets, metadata, produce};
use crate::harness::{Checked, ensure, ensure_eq};

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
