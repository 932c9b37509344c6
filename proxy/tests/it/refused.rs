//! What is refused here of a Produce request: only that, and nothing behind it goes on before it
//! has come again.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsResponse, ProduceRequest, ProduceResponse,
};
use protocol_ext::batch::crc32c;
use protocol_ext::fake_broker::Fault;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched, list_offsets, name, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

const STORAGE_ERROR: i16 = 56;
const UNKNOWN_TOPIC: i16 = 3;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    store: Folder,
}

async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, 1000).start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, store })
}

impl Scene {
    /// Nothing can be stored, or all can again.
    fn store_works(&self, works: bool) {
        let pending = self.store.path().join("pending");
        let done = if works { std::fs::create_dir(pending) } else { std::fs::remove_dir(pending) };
        done.expect("an empty folder or none");
    }

    fn produced(&self) -> usize {
        self.brokers.cluster().count(0)
    }
}

/// The batch as this producer, in this epoch, numbers it.
fn numbered(batch: &Bytes, id: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut out = batch.to_vec();
    out[43..51].copy_from_slice(&id.to_be_bytes());
    out[51..53].copy_from_slice(&epoch.to_be_bytes());
    out[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

/// A batch of one value of so many bytes.
fn sent(bytes: usize, epoch: i16, sequence: i32) -> Bytes {
    numbered(&single(noise(1, bytes)), 7, epoch, sequence)
}

/// Of a producer's batches the first is refused: those behind it, large or small, pipelined or
/// not, are refused too until it comes again, and others are not.
pub async fn followers_of_a_refused_batch_are_refused(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.store_works(false);
    let mut asked = Vec::new();
    for (n, bytes) in (0..).zip([20_000, 100, 100]) {
        let request = produce(9, -1, "t", &[(0, sent(bytes, 0, n))]);
        asked.push(scene.client.send(0, 9, &request).await?);
    }
    for (n, correlation) in (0..).zip(asked) {
        let answer: ProduceResponse = answer(&scene.client.receive().await?, 9, correlation)?;
        let row = &answer.responses[0].partition_responses[0];
        ensure_eq!((row.error_code, row.base_offset), (STORAGE_ERROR, -1), "answer of batch {n}");
    }
    ensure_eq!(scene.produced(), 0, "Produce requests at the broker");
    let (error, _) = scene.client.produce(9, "t", 0, &sent(100, 0, 9)).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of a later batch");
    // Other partitions, producers and batches without a number are none of its business.
    for (partition, batch) in [
        (1, sent(100, 0, 1)),
        (2, numbered(&sent(100, 0, 1), 8, 0, 1)),
        (2, numbered(&sent(100, 0, 1), -1, -1, -1)),
    ] {
        let (error, _) = scene.client.produce(9, "t", partition, &batch).await?;
        ensure_eq!(error, 0, "error of another batch in partition {partition}");
    }
    scene.store_works(true);
    let taken = until("a store that works again", async || {
        let (error, base) = scene.client.produce(9, "t", 0, &sent(20_000, 0, 0)).await.ok()?;
        (error == 0).then_some(base)
    });
    ensure_eq!(taken.await?, 0, "base offset of the batch that came again");
    for n in 1..3 {
        let (error, base) = scene.client.produce(9, "t", 0, &sent(100, 0, n)).await?;
        ensure_eq!((error, base), (0, i64::from(n)), "answer of batch {n}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_behind_a_refused_batch_goes_on_before_it_comes_again() -> Checked {
    followers_of_a_refused_batch_are_refused(None).await
}

#[tokio::test]
async fn a_producer_that_gave_a_batch_up_goes_on_in_its_next_epoch() -> Checked {
    let mut scene = scene(None).await?;
    scene.store_works(false);
    let (error, _) = scene.client.produce(9, "t", 0, &sent(20_000, 0, 4)).await?;
    ensure_eq!(error, STORAGE_ERROR, "error without a store");
    let (error, _) = scene.client.produce(9, "t", 0, &sent(100, 0, 5)).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of its follower");
    let (error, base) = scene.client.produce(9, "t", 0, &sent(100, 1, 0)).await?;
    ensure_eq!((error, base), (0, 0), "answer in the next epoch");
    let (error, base) = scene.client.produce(9, "t", 0, &sent(100, 1, 1)).await?;
    ensure_eq!((error, base), (0, 1), "answer behind it");
    Ok(())
}

fn topic(of: &str, batches: &[(i32, Bytes)]) -> TopicProduceData {
    let data = batches.iter().map(|(partition, batch)| {
        PartitionProduceData::default().with_index(*partition).with_records(Some(batch.clone()))
    });
    TopicProduceData::default().with_name(name(of)).with_partition_data(data.collect())
}

fn both(acks: i16, topics: Vec<TopicProduceData>) -> ProduceRequest {
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(topics)
}

/// A topic that nobody knows, and a partition whose value cannot be stored, stand beside others
/// that have no trouble: these are written, and each is told its own.
pub async fn others_are_written(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let small = single(noise(2, 100));
    let large = single(noise(3, 20_000));
    let gone = topic("gone", &[(0, large.clone()), (1, large.clone())]);
    let ours = topic("t", &[(0, small.clone()), (1, large.clone())]);
    let request = both(-1, vec![gone, ours.clone()]);
    let answer: ProduceResponse = scene.client.call(0, 9, &request).await?;
    ensure_eq!(rows(&answer), expected(0), "answer beside an unknown topic");
    scene.store_works(false);
    let request = both(-1, vec![ours]);
    let answer: ProduceResponse = scene.client.call(0, 9, &request).await?;
    let told = [("t".to_owned(), 0, 0), ("t".to_owned(), 1, STORAGE_ERROR)];
    ensure_eq!(rows(&answer), told, "answer without a store");
    ensure_eq!(answer.responses.len(), 1, "rows of one topic");
    let (_, section) = scene.client.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(read(&section).len(), 2, "small values that were written");
    // Without an answer nobody could be told.
    let request = both(0, vec![topic("t", &[(0, small), (1, large)])]);
    scene.client.send(0, 9, &request).await?;
    ensure!(scene.client.receive_to_end().await?.is_empty(), "an answer to acks=0");
    ensure_eq!(scene.produced(), 2, "Produce requests at the broker");
    Ok(())
}

fn rows(answer: &ProduceResponse) -> Vec<(String, i32, i16)> {
    let topics = answer.responses.iter();
    let rows = topics.flat_map(|topic| {
        topic.partition_responses.iter().map(|p| (topic.name.to_string(), p.index, p.error_code))
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    rows
}

fn expected(error: i16) -> Vec<(String, i32, i16)> {
    let row = |topic: &str, index, error| (topic.to_owned(), index, error);
    let gone = [0, 1].map(|index| row("gone", index, UNKNOWN_TOPIC));
    let ours = [0, 1].map(|index| row("t", index, error));
    [gone, ours].concat()
}

#[tokio::test]
async fn trouble_of_one_partition_is_not_that_of_others() -> Checked {
    others_are_written(None).await
}

/// Requests of one connection without an answer.
const PENDING: f64 = 1024.0;
/// Those whose values may be under way besides.
const STORING: f64 = 8.0;

/// Refusals behind an answer that does not come: the client is read no further than others are.
pub async fn refusals_are_bounded_in_number(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    let mut client = Client::connect(scene.proxy.port).await?;
    scene.brokers.cluster().script(2, Fault::HoldAfter(0));
    let first = client.send(2, 7, &list_offsets("t")).await?;
    let request = produce(9, -1, "gone", &[(0, single(noise(1, 1500)))]);
    let frame = request_frame(0, 9, 5, &request);
    let many: Bytes = frame.iter().copied().cycle().take(frame.len() * 1500).collect();
    let mut sending = tokio::task::JoinSet::new();
    sending.spawn(async move {
        client.send_raw(&many).await?;
        Ok::<_, crate::harness::Failure>(client)
    });
    let counted = "firebreak_requests_total{api=\"Produce\",class=\"full\"}";
    let (mut last, mut same) = (0.0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = scene.proxy.metric(counted).await?;
        same = if now > 900.0 && now <= last { same + 1 } else { 0 };
        last = now;
        ensure!(now <= PENDING + STORING, "{now} requests wait for an answer");
    }
    scene.brokers.release();
    let sent = sending.join_next().await.ok_or_else(|| failure("nobody sends"))?;
    let mut client = sent.map_err(failure)??;
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, first).map(drop)
}

#[tokio::test]
async fn refused_requests_without_an_answer_are_bounded_in_number() -> Checked {
    refusals_are_bounded_in_number(None).await
}

/// Values come back beside plain batches: together they keep to the bytes of the request.
pub async fn plain_batches_count(faults: Faults) -> Checked {
    const LARGE: usize = 600_000;
    const PLAIN: usize = 900;
    let mut scene = scene(faults).await?;
    let (error, _) = scene.client.produce(9, "t", 0, &single(noise(1, LARGE))).await?;
    ensure_eq!(error, 0, "error of Produce");
    for n in 0..600 {
        for partition in 0..2 {
            let (error, _) =
                scene.client.produce(9, "t", partition, &single(noise(n, PLAIN))).await?;
            ensure_eq!(error, 0, "error of Produce");
        }
    }
    let (mut at, mut answers) = ([0, 0], 0);
    while at != [601, 600] {
        let request: FetchRequest = fetch(11, "t", &[(0, at[0]), (1, at[1])], 1_000_000);
        let answer: FetchResponse = scene.client.call(1, 11, &request).await?;
        let mut bytes = 0;
        for (n, (_, error, section)) in fetched(answer)?.into_iter().enumerate() {
            ensure_eq!(error, 0, "error of Fetch");
            bytes += section.len();
            for record in read(&section) {
                ensure_eq!(record.offset, at[n], "offset in partition {n}");
                at[n] += 1;
            }
        }
        ensure!(bytes <= 1_000_000, "{bytes} bytes where 1000000 were asked for");
        answers += 1;
        ensure!(answers < 10, "some records never come");
    }
    Ok(())
}

#[tokio::test]
async fn values_and_plain_batches_keep_to_the_bytes_of_the_request() -> Checked {
    plain_batches_count(None).await
}
