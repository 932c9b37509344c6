//! DeleteRecords on a topic with days: whatever segments hold before an offset is gone.

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::fake_broker::Fault;

use super::read::{fill_two, placed};
use super::{NORCAL, TOPIC, start};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::{Checked, Faults, ensure, ensure_eq};

const DELETE_RECORDS: i16 = 21;
const OUT_OF_RANGE: i16 = 1;

/// Error and low watermark of a request for partition 0.
async fn delete(client: &mut Client, offset: i64) -> Checked<(i16, i64)> {
    let row = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![row]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000);
    let answer: DeleteRecordsResponse = client.call(DELETE_RECORDS, 2, &request).await?;
    let row = &answer.topics[0].partitions[0];
    Ok((row.error_code, row.low_watermark))
}

fn starts(brokers: &Brokers) -> [i64; 2] {
    let mut cluster = brokers.cluster();
    NORCAL.map(|topic| cluster.log(topic, 0).expect("a log").start())
}

/// Five records in a sealed segment, three in the open one: logical offsets 0 to 8.
pub async fn records_before_an_offset_go(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill_two(&brokers, &mut client).await?;
    ensure_eq!(delete(&mut client, -2).await?, (OUT_OF_RANGE, -1), "below everything");
    // Beyond the end: nothing is touched, not what lies before it either.
    ensure_eq!(delete(&mut client, 9).await?, (OUT_OF_RANGE, -1), "beyond the end");
    ensure_eq!(starts(&brokers), [0, 0], "starts after a request beyond the end");
    ensure_eq!(delete(&mut client, 2).await?, (0, 2), "within the sealed segment");
    ensure_eq!(starts(&brokers), [2, 0], "starts after the first one");
    placed(&mut client, 2, 8).await?;
    ensure_eq!(delete(&mut client, 6).await?, (0, 6), "within the open segment");
    ensure_eq!(starts(&brokers), [5, 1], "starts after the second one");
    placed(&mut client, 6, 8).await?;
    ensure_eq!(delete(&mut client, -1).await?, (0, 8), "everything");
    ensure_eq!(starts(&brokers), [5, 3], "starts after the last one");
    placed(&mut client, 8, 8).await
}

/// Where it is not known of a segment whether it was shortened, those behind it stay whole: a
/// reader would meet a hole.
pub async fn no_hole_is_made(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill_two(&brokers, &mut client).await?;
    brokers.cluster().script(DELETE_RECORDS, Fault::CloseAfter(0));
    let (code, _) = delete(&mut client, 6).await?;
    ensure!(code != 0, "a request that was not done is told done");
    ensure_eq!(starts(&brokers), [5, 0], "starts after a failure");
    ensure_eq!(delete(&mut client, 6).await?, (0, 6), "the same again");
    ensure_eq!(starts(&brokers), [5, 1], "starts after it");
    Ok(())
}

#[tokio::test]
async fn a_segment_that_is_not_shortened_keeps_those_behind_it() -> Checked {
    no_hole_is_made(None).await
}

#[tokio::test]
async fn what_segments_hold_before_an_offset_is_deleted() -> Checked {
    records_before_an_offset_go(None).await
}
