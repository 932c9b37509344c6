//! Memory that requests about virtual topics take.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceResponse,
};
use protocol_ext::codec::{Codec, Framing};

use super::{NORCAL, OTHER, TOPIC, located, start, without_sequences};
use crate::harness::client::{Client, answer};
use crate::harness::records::{Record, batch};
use crate::harness::requests::{fetch, fetched, name, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};

const MIB: usize = 1024 * 1024;
const FETCH: i16 = 1;
const ALL: [(i32, i64); 4] = [(0, 0), (1, 0), (2, 0), (3, 0)];
/// Half of it for answers, since there is no store.
const BUDGET: &str = "frame_bytes_max = 8388608\nbuffered_bytes_max = 33554432";
const READERS: usize = 12;
const BATCH: usize = 3 * MIB;
const GROWTH_BYTES_MAX: usize = (16 + 60) * MIB;

/// What is read for slow readers of virtual topics takes its turns within the byte budget, and
/// everybody is served in the end.
pub async fn answers_of_legs_keep_to_the_byte_budget(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup.limit(BUDGET)).await;
    for topic in [NORCAL, OTHER] {
        for partition in 0..2 {
            let batch = located(None, noise(7, BATCH));
            let mut cluster = brokers.cluster();
            cluster.log(topic, partition).expect("a log").append(&batch).expect("a batch");
        }
    }
    let mut warm = Client::connect(proxy.port).await?;
    warm.fetch(12, TOPIC, 0, 1, 1000).await?;
    let before = proxy.resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Client::connect_with_buffer(proxy.port, 4096).await?;
        let asked = reader.send(FETCH, 12, &fetch(12, TOPIC, &ALL, i32::MAX)).await?;
        readers.push((reader, asked));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes for slow readers");
    let mut tasks = tokio::task::JoinSet::new();
    for (mut reader, asked) in readers {
        tasks.spawn(async move {
            let told: FetchResponse = answer(&reader.receive().await?, 12, asked)?;
            let got = fetched(told)?;
            let bytes: usize = got.iter().map(|(.., records)| records.len()).sum();
            ensure!(bytes >= 2 * BATCH, "only {bytes} bytes of {got:?}");
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let done: Checked = done.expect("no panic");
        done?;
    }
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes while they read");
    Ok(())
}

#[tokio::test]
async fn slow_readers_of_a_virtual_topic_keep_to_the_byte_budget() -> Checked {
    answers_of_legs_keep_to_the_byte_budget(None).await
}

/// Partitions of a topic share its name in memory.
#[tokio::test]
async fn a_long_name_with_many_partitions_is_kept_once() -> Checked {
    const PARTITIONS: i32 = 6000;
    let (brokers, proxy) = start(None, |setup| setup).await;
    let long = "n".repeat(30_000);
    brokers.cluster().add_topic(&long, PARTITIONS as usize);
    let mut client = Client::connect(proxy.port).await?;
    client.fetch(12, TOPIC, 0, 0, 1000).await?;
    let before = proxy.resident_bytes();
    let partition = |n| FetchPartition::default().with_partition(n).with_partition_max_bytes(1000);
    let topics = [(TOPIC, 1), (&*long, PARTITIONS)].map(|(topic, partitions)| {
        let partitions = (0..partitions).map(partition).collect();
        FetchTopic::default().with_topic(name(topic)).with_partitions(partitions)
    });
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(100)
        .with_topics(topics.to_vec());
    let told: FetchResponse = client.call(FETCH, 4, &request).await?;
    ensure_eq!(told.responses.len(), 2, "topics of Fetch");
    let partition = |n| ListOffsetsPartition::default().with_partition_index(n).with_timestamp(-1);
    let topics = [(TOPIC, 1), (&*long, PARTITIONS)].map(|(topic, partitions)| {
        let partitions = (0..partitions).map(partition).collect();
        ListOffsetsTopic::default().with_name(name(topic)).with_partitions(partitions)
    });
    let request =
        ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics.to_vec());
    let told: ListOffsetsResponse = client.call(2, 5, &request).await?;
    ensure_eq!(told.topics.len(), 2, "topics of ListOffsets");
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < 60 * MIB, "memory grew by {growth} bytes");
    Ok(())
}

/// No client names so many partitions at once: the connection ends.
#[tokio::test]
async fn too_many_partitions_of_a_virtual_topic_in_one_request_are_refused() -> Checked {
    let (_brokers, proxy) = start(None, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let all: Vec<(i32, i64)> = (0..30_000).map(|n| (n, 0)).collect();
    client.send(FETCH, 12, &fetch(12, TOPIC, &all, 1000)).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer");
    let metric = "firebreak_errors_total{blame=\"client\",kind=\"request\"}";
    proxy.metric_becomes(metric, 1.0).await
}

/// A batch that inflates beyond the longest request is too large, not damaged: nobody sends it
/// again as it is.
pub async fn a_batch_that_inflates_too_far_is_refused(faults: Faults) -> Checked {
    let (_brokers, proxy) = start(faults, |setup| setup.limit(BUDGET)).await;
    let mut client = Client::connect(proxy.port).await?;
    for (bytes, code) in [(7 * MIB, 0), (9 * MIB, TOO_LARGE)] {
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
            let batch = packed(codec, bytes);
            let told = client.produce(9, TOPIC, 0, &batch).await?.0;
            ensure_eq!(told, code, "error of a batch of {bytes} bytes, {codec:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_that_inflates_beyond_the_longest_request_is_too_large() -> Checked {
    a_batch_that_inflates_too_far_is_refused(None).await
}

/// The batches of one request do not inflate to more than two of the longest requests: what is
/// beyond is too large, and what is before is written.
pub async fn batches_do_not_add_up(faults: Faults) -> Checked {
    let (_brokers, proxy) = start(faults, |setup| setup.limit(BUDGET)).await;
    let mut client = Client::connect(proxy.port).await?;
    let batch = packed(Codec::Zstd, 7 * MIB);
    let rows = [0, 1, 2, 3].map(|partition| (partition, batch.clone()));
    let told: ProduceResponse = client.call(0, 9, &produce(9, -1, TOPIC, &rows)).await?;
    let rows = told.responses.iter().flat_map(|topic| &topic.partition_responses);
    let codes: Vec<i16> = rows.map(|row| row.error_code).collect();
    ensure_eq!(codes, [0, 0, TOO_LARGE, TOO_LARGE], "errors of batches that add up");
    Ok(())
}

#[tokio::test]
async fn many_batches_that_inflate_far_are_not_held_together() -> Checked {
    batches_do_not_add_up(None).await
}

const TOO_LARGE: i16 = 10;

/// A batch without sequences of one record that inflates to so many bytes.
fn packed(codec: Codec, bytes: usize) -> Bytes {
    let record = Record {
        offset: 0,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(vec![b'x'; bytes]),
        headers: Vec::new(),
    };
    without_sequences(&batch(codec, Framing::Plain, std::slice::from_ref(&record)))
}
