//! Fetch of virtual topics keeps to the bytes asked for, and waits for its turn.

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use kafka_protocol::protocol::Decodable;
use protocol_ext::fake_broker::Fault;
use protocol_ext::header::{self, Head};

use super::{NORCAL, OTHER, TOPIC, located, start};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::Folder;
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched, list_offsets};
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, noise, until};

const FETCH: i16 = 1;
const VERSION: i16 = 12;
const BATCH: usize = 300_000;
const ALL: [(i32, i64); 4] = [(0, 0), (1, 0), (2, 0), (3, 0)];

fn request(bytes_max: i32, partition_bytes_max: i32) -> FetchRequest {
    let mut request = fetch(VERSION, TOPIC, &ALL, bytes_max);
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = partition_bytes_max;
    }
    request
}

/// Bytes of records and whole batches of each partition, in the order asked for.
async fn sizes(client: &mut Client, request: &FetchRequest) -> Checked<Vec<(i32, usize, usize)>> {
    let answer: FetchResponse = client.call(FETCH, VERSION, request).await?;
    let mut sizes = Vec::new();
    for (partition, code, records) in fetched(answer)? {
        ensure_eq!(code, 0, "error of partition {partition}");
        sizes.push((partition, records.len(), read(&records).len()));
    }
    Ok(sizes)
}

/// An answer is as long as the client wants it at most; only its first batch may be longer.
pub async fn an_answer_keeps_to_its_bytes(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    for topic in [NORCAL, OTHER] {
        for partition in 0..2 {
            for seed in 0..5 {
                let batch = located(None, noise(seed, BATCH));
                let mut cluster = brokers.cluster();
                cluster.log(topic, partition).expect("a log").append(&batch).expect("a batch");
            }
        }
    }
    let mut client = Client::connect(proxy.port).await?;
    let all = i32::MAX;
    let bytes = |sizes: &[(i32, usize, usize)]| sizes.iter().map(|(_, n, _)| n).sum::<usize>();
    let batches = |sizes: &[(i32, usize, usize)]| sizes.iter().map(|(.., n)| n).sum::<usize>();

    let got = sizes(&mut client, &request(all, all)).await?;
    ensure_eq!(batches(&got), 20, "batches without a bound");
    let bound = 1_000_000;
    let got = sizes(&mut client, &request(bound, all)).await?;
    ensure!(bytes(&got) <= 1_000_000, "{} bytes of {bound}", bytes(&got));
    ensure!(batches(&got) >= 2, "only {} batches of {bound} bytes", batches(&got));
    let got = sizes(&mut client, &request(1000, all)).await?;
    ensure_eq!(batches(&got), 1, "batches where the first is too long");
    ensure!(got[0].2 == 1, "the batch is not of the first partition: {got:?}");
    let got = sizes(&mut client, &request(all, 700_000)).await?;
    ensure!(got.iter().all(|(.., n)| *n == 2), "batches of 700,000 bytes each: {got:?}");
    let got = sizes(&mut client, &request(all, 1000)).await?;
    ensure_eq!(batches(&got), 1, "batches where every first one is too long");
    Ok(())
}

#[tokio::test]
async fn an_answer_of_several_brokers_keeps_to_the_bytes_asked_for() -> Checked {
    an_answer_keeps_to_its_bytes(None).await
}

/// Small steps get everything there is, in order.
#[tokio::test]
async fn a_reader_of_small_answers_sees_every_record_once() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup).await;
    for topic in [NORCAL, OTHER] {
        for partition in 0..2 {
            for seed in 0..20 {
                let batch = located(None, noise(seed, 2000));
                let mut cluster = brokers.cluster();
                cluster.log(topic, partition).expect("a log").append(&batch).expect("a batch");
            }
        }
    }
    let mut client = Client::connect(proxy.port).await?;
    let (mut from, mut seen) = (ALL, [0; 4]);
    while seen.iter().sum::<usize>() < 80 {
        let request = fetch(VERSION, TOPIC, &from, 5000);
        let answer: FetchResponse = client.call(FETCH, VERSION, &request).await?;
        let mut any = false;
        for (partition, code, records) in fetched(answer)? {
            ensure_eq!(code, 0, "error of partition {partition}");
            let at = from.iter().position(|(p, _)| *p == partition).expect("asked for");
            for record in read(&records) {
                ensure_eq!(record.offset, from[at].1, "offset in partition {partition}");
                ensure!(record.value == Some(noise(seen[at] as u64, 2000)), "another value");
                from[at].1 += 1;
                seen[at] += 1;
                any = true;
            }
        }
        ensure!(any, "nothing came though there is more");
        // As clients do: who got something stands behind the others.
        from.rotate_left(1);
        seen.rotate_left(1);
    }
    Ok(())
}

/// Names of topics in the requests of that API that came from this client.
fn topics_asked_by(brokers: &Brokers, client: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (_, frame) in &brokers.cluster().kept {
        if header::client_id(frame) == client {
            let head = Head::parse(frame).expect("a head");
            let mut body = frame.slice(header::request_body_at(head, frame).expect("a body")..);
            let topics: Vec<_> = if head.api == FETCH {
                let asked = FetchRequest::decode(&mut body, head.version).expect("a request");
                asked.topics.into_iter().map(|topic| topic.topic).collect()
            } else {
                let asked = ListOffsetsRequest::decode(&mut body, head.version).expect("a request");
                asked.topics.into_iter().map(|topic| topic.name).collect()
            };
            names.extend(topics.into_iter().map(|name| name.to_string()));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The proxy may read more than its clients: what is not virtual is read as the client.
#[tokio::test]
async fn topics_that_are_not_virtual_are_read_as_their_client() -> Checked {
    let (brokers, proxy) = start(None, |setup| setup).await;
    for (topic, seed) in [("t", 1), (NORCAL, 2), (OTHER, 3)] {
        let batch = located(None, noise(seed, 2000));
        brokers.cluster().log(topic, 0).expect("a log").append(&batch).expect("a batch");
    }
    let mut client = Client::connect(proxy.node(0)).await?;
    client.metadata(12).await?;
    brokers.cluster().keeping = Some(FETCH);
    for version in [4, 7, VERSION] {
        brokers.cluster().kept.clear();
        let mut request = fetch(version, "t", &[(0, 0)], i32::MAX);
        request.topics.extend(fetch(version, TOPIC, &ALL, i32::MAX).topics);
        let told: FetchResponse = client.call(FETCH, version, &request).await?;
        let records = told.responses.iter().flat_map(|topic| {
            topic.partitions.iter().map(|row| row.records.as_ref().map_or(0, Bytes::len))
        });
        let whole: Vec<_> = records.map(|bytes| bytes > 2000).collect();
        ensure_eq!(whole, [true, true, false, true, false], "rows with records, {version}");
        ensure_eq!(topics_asked_by(&brokers, "it"), ["t"], "topics asked for as the client");
        let own = topics_asked_by(&brokers, "firebreak");
        ensure_eq!(own, [NORCAL, OTHER], "topics asked for as the proxy");
    }
    brokers.cluster().keeping = Some(2);
    brokers.cluster().kept.clear();
    let mut request = list_offsets("t");
    request.topics.extend(list_offsets(TOPIC).topics);
    let told: ListOffsetsResponse = client.call(2, 5, &request).await?;
    let ends = told.topics.iter().map(|topic| (topic.name.to_string(), topic.partitions[0].offset));
    let mut ends: Vec<_> = ends.collect();
    ends.sort_unstable();
    ensure_eq!(ends, [(TOPIC.to_owned(), 1), ("t".to_owned(), 1)], "ends");
    ensure_eq!(topics_asked_by(&brokers, "it"), ["t"], "topics asked about as the client");
    ensure_eq!(topics_asked_by(&brokers, "firebreak"), [NORCAL], "asked about as the proxy");
    Ok(())
}

/// Room for one restored value of `VALUE` bytes at a time.
const BUDGET: &str = "frame_bytes_max = 8388608\nbuffered_bytes_max = 16777216";
const VALUE: usize = 6 * 1024 * 1024;

/// Values of a virtual topic are put back when it is their answer's turn: who waits for the
/// answers before must not hold the room that these need.
pub async fn restored_values_wait_for_their_turn(faults: Faults) -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = start(faults, |setup| setup.offload(&store, 1000).limit(BUDGET)).await;
    // Partition 0 of both is led by node 0.
    let mut client = Client::connect(proxy.node(0)).await?;
    let (code, _) = client.produce(9, "t", 0, &single(noise(1, VALUE))).await?;
    ensure_eq!(code, 0, "error of Produce");
    let (code, _) = client.produce(9, TOPIC, 0, &located(Some("norcal"), noise(2, VALUE))).await?;
    ensure_eq!(code, 0, "error of Produce to the virtual topic");
    for _ in 0..3 {
        brokers.cluster().seen.clear();
        brokers.cluster().script(FETCH, Fault::HoldAfter(0));
        let plain = client.send(FETCH, 11, &fetch(11, "t", &[(0, 0)], 1000)).await?;
        until("the first question", async || (brokers.cluster().count(FETCH) > 0).then_some(()))
            .await?;
        let ours = client.send(FETCH, 11, &fetch(11, TOPIC, &[(0, 0)], 1000)).await?;
        tokio::time::sleep(QUIET).await;
        brokers.release();
        let short = std::time::Duration::from_secs(5);
        for (correlation, seed) in [(plain, 1), (ours, 2)] {
            let frame = tokio::time::timeout(short, client.receive()).await;
            let Ok(frame) = frame else {
                return Err(crate::harness::failure(format!("answer {seed} never came")));
            };
            let told: FetchResponse = answer(&frame?, 11, correlation)?;
            let (_, code, records): (i32, i16, Bytes) = fetched(told)?.remove(0);
            ensure_eq!(code, 0, "error of answer {seed}");
            let values = read(&records);
            ensure!(values[0].value == Some(noise(seed, VALUE)), "another value");
        }
    }
    Ok(())
}

#[tokio::test]
async fn values_of_a_virtual_topic_are_put_back_when_it_is_their_turn() -> Checked {
    restored_values_wait_for_their_turn(None).await
}
