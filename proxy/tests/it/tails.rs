//! Endpoints behind the records (KIP-951): rewritten exactly in small answers, in the same number
//! of bytes in large ones, wherever the stream is cut.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchResponse, ProduceResponse, ShareAcknowledgeResponse, ShareFetchResponse,
};
use protocol_ext::fake_broker::{FakeLog, FakeNode, Fault, Moved};

use crate::addresses::{ADVERTISED, no_upstream_in};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::{fetch, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};

/// NOT_LEADER_OR_FOLLOWER.
const NOT_LEADER: i16 = 6;
/// Longer than the advertised host: what is cut away is filled.
const LONG: &str = "broker-7.upstream.internal.test";
/// Shorter: there is no room for the advertised host.
const SHORT: &str = "upstream";

/// Endpoints as (node id, host, port).
type Endpoints = Vec<(i32, String, i32)>;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
}

/// One partition moved to node 2, which is told together with node 0 under this host.
async fn scene(faults: Faults, partition: i32, host: &str) -> Checked<Scene> {
    let brokers = Brokers::start(3).await;
    let endpoints = [2, 0].map(|id| FakeNode { id, host: host.to_owned(), port: 9092 });
    let moved = Moved { partition, error: NOT_LEADER, endpoints: endpoints.to_vec() };
    brokers.cluster().moved = Some(moved);
    let proxy = Setup::new(&brokers, faults).advertise(ADVERTISED).start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client })
}

impl Scene {
    fn expected(&self) -> Endpoints {
        let port = |id| i32::from(self.proxy.node(id));
        [(2, port(2)), (0, port(0))].map(|(id, port)| (id, ADVERTISED.to_owned(), port)).to_vec()
    }

    /// Partition 0 holds this batch and nothing else.
    fn stores(&self, batch: &Bytes) {
        let mut log = FakeLog::default();
        log.append(batch).expect("a batch");
        *self.brokers.cluster().log("t", 0).expect("a log") = log;
    }

    async fn ask(&mut self, request: &[u8], what: &str) -> Checked<Bytes> {
        self.client.send_raw(request).await?;
        let frame = self.client.receive().await?;
        no_upstream_in(&frame, what)?;
        Ok(frame)
    }
}

/// A request whose body the fake broker does not read.
fn bare_request(api: i16, version: i16, correlation: i32) -> Bytes {
    let mut frame = BytesMut::from(&[0, 0, 0, 13][..]);
    frame.extend_from_slice(&api.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&correlation.to_be_bytes());
    frame.extend_from_slice(&[0, 2, b'i', b't', 0]);
    frame.freeze()
}

macro_rules! endpoints {
    ($answer:expr) => {
        $answer
            .node_endpoints
            .iter()
            .map(|e| (e.node_id.0, e.host.to_string(), e.port))
            .collect::<Endpoints>()
    };
}

fn produce_endpoints(frame: &Bytes, version: i16) -> Checked<Endpoints> {
    let answer: ProduceResponse = answer(frame, version, 9)?;
    let partition = &answer.responses[0].partition_responses[0];
    ensure_eq!(partition.error_code, NOT_LEADER, "error of Produce");
    ensure_eq!(partition.current_leader.leader_id.0, 2, "leader in Produce");
    Ok(endpoints!(answer))
}

fn fetch_endpoints(frame: &Bytes, version: i16, stored: Option<&Bytes>) -> Checked<Endpoints> {
    let answer: FetchResponse = answer(frame, version, 9)?;
    let partitions = &answer.responses[0].partitions;
    let moved = partitions.last().expect("a partition");
    ensure_eq!(moved.error_code, NOT_LEADER, "error of Fetch");
    ensure_eq!(moved.current_leader.leader_id.0, 2, "leader in Fetch");
    if let Some(stored) = stored {
        let records = partitions[0].records.clone().unwrap_or_default();
        ensure!(records[16..] == stored[16..], "records differ from those stored");
    }
    Ok(endpoints!(answer))
}

fn share_fetch_endpoints(frame: &Bytes, stored: Option<&Bytes>) -> Checked<Endpoints> {
    let answer: ShareFetchResponse = answer(frame, 1, 9)?;
    if let Some(stored) = stored {
        let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
        ensure!(records[16..] == stored[16..], "records differ from those stored");
    }
    Ok(endpoints!(answer))
}

/// Version 2 has one field more than the codec crate knows; it is cut out here.
fn share_acknowledge_endpoints(frame: &Bytes, version: i16) -> Checked<Endpoints> {
    const LOCK_TIMEOUT: std::ops::Range<usize> = 12..16;
    let mut known = BytesMut::from(&frame[..LOCK_TIMEOUT.start]);
    let skip = if version >= 2 { LOCK_TIMEOUT.end } else { LOCK_TIMEOUT.start };
    known.extend_from_slice(&frame[skip..]);
    let answer: ShareAcknowledgeResponse = answer(&known.freeze(), 1, 9)?;
    Ok(endpoints!(answer))
}

/// Produce, versions 10 to 13.
pub async fn produce_tail(faults: Faults) -> Checked {
    let mut scene = scene(faults, 0, LONG).await?;
    for version in 10..=13 {
        let what = format!("Produce {version}");
        let request = produce(version, -1, "t", &[(0, single(noise(1, 10)))]);
        let request = request_frame(0, version, 9, &request);
        let frame = scene.ask(&request, &what).await?;
        ensure_eq!(produce_endpoints(&frame, version)?, scene.expected(), "{what}");
    }
    Ok(())
}

/// Fetch, versions 16 to 18.
pub async fn fetch_tail(faults: Faults) -> Checked {
    let mut scene = scene(faults, 0, LONG).await?;
    for version in 16..=18 {
        let what = format!("Fetch {version}");
        let request = request_frame(1, version, 9, &fetch(version, "t", &[(0, 0)], 1 << 20));
        let frame = scene.ask(&request, &what).await?;
        ensure_eq!(fetch_endpoints(&frame, version, None)?, scene.expected(), "{what}");
    }
    Ok(())
}

/// ShareFetch, versions 1 and 2.
pub async fn share_fetch_tail(faults: Faults) -> Checked {
    let mut scene = scene(faults, 0, LONG).await?;
    for version in 1..=2 {
        let what = format!("ShareFetch {version}");
        let frame = scene.ask(&bare_request(78, version, 9), &what).await?;
        ensure_eq!(share_fetch_endpoints(&frame, None)?, scene.expected(), "{what}");
    }
    Ok(())
}

/// ShareAcknowledge, versions 1 and 2.
pub async fn share_acknowledge_tail(faults: Faults) -> Checked {
    let mut scene = scene(faults, 0, LONG).await?;
    for version in 1..=2 {
        let what = format!("ShareAcknowledge {version}");
        let frame = scene.ask(&bare_request(79, version, 9), &what).await?;
        ensure_eq!(share_acknowledge_endpoints(&frame, version)?, scene.expected(), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn small_produce_answers_have_exact_endpoints() -> Checked {
    produce_tail(None).await
}

#[tokio::test]
async fn small_fetch_answers_have_exact_endpoints() -> Checked {
    fetch_tail(None).await
}

#[tokio::test]
async fn small_share_fetch_answers_have_exact_endpoints() -> Checked {
    share_fetch_tail(None).await
}

#[tokio::test]
async fn share_acknowledge_answers_have_exact_endpoints() -> Checked {
    share_acknowledge_tail(None).await
}

/// Sizes of records that put the tail behind 16 KiB, behind one I/O buffer, and around its edge.
fn large_sizes() -> Vec<usize> {
    let edge = 128 * 1024;
    let around = (edge - 420..edge + 40).step_by(23);
    [17 * 1024, 40_000, 300_000, 1_000_000].into_iter().chain(around).collect()
}

/// Large Fetch and ShareFetch answers whose tail must keep its length.
async fn same_length(host: &str, fits: bool) -> Checked {
    // Partition 0 has the records, partition 1 moved.
    let mut scene = scene(None, 1, host).await?;
    let expected = if fits { scene.expected() } else { Vec::new() };
    for size in large_sizes() {
        let batch = single(noise(11, size));
        scene.stores(&batch);
        for version in [16, 18] {
            let what = format!("Fetch {version} of {size} bytes");
            let request = fetch(version, "t", &[(0, 0), (1, 0)], i32::MAX);
            let frame = scene.ask(&request_frame(1, version, 9, &request), &what).await?;
            ensure_eq!(fetch_endpoints(&frame, version, Some(&batch))?, expected, "{what}");
        }
        let what = format!("ShareFetch of {size} bytes");
        let frame = scene.ask(&bare_request(78, 2, 9), &what).await?;
        // Its endpoints are an array in front of the tags: both fit or both go.
        ensure_eq!(share_fetch_endpoints(&frame, Some(&batch))?, expected, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn large_answers_keep_their_length_and_have_endpoints_where_they_fit() -> Checked {
    same_length(LONG, true).await
}

#[tokio::test]
async fn large_answers_drop_endpoints_that_do_not_fit() -> Checked {
    same_length(SHORT, false).await
}

#[tokio::test]
async fn a_large_produce_answer_keeps_its_length() -> Checked {
    let mut scene = scene(None, 0, LONG).await?;
    // Partitions that do not exist make the answer long.
    let batch = single(noise(12, 10));
    let batches: Vec<_> = (0..2000).map(|partition| (partition, batch.clone())).collect();
    for version in [10, 12] {
        let what = format!("large Produce {version}");
        let request = request_frame(0, version, 9, &produce(version, -1, "t", &batches));
        let frame = scene.ask(&request, &what).await?;
        ensure!(frame.len() > 17 * 1024, "the answer has only {} bytes", frame.len());
        ensure_eq!(produce_endpoints(&frame, version)?, scene.expected(), "{what}");
    }
    Ok(())
}

/// The tail of an answer of this size, cut at every position in turn.
async fn every_split(size: usize, host: &str) -> Checked {
    let mut scene = scene(None, 1, host).await?;
    let batch = single(noise(13, size));
    scene.stores(&batch);
    let request = request_frame(1, 17, 9, &fetch(17, "t", &[(0, 0), (1, 0)], i32::MAX));
    let expected = scene.ask(&request, "the first answer").await?;
    fetch_endpoints(&expected, 17, Some(&batch))?;
    // A large answer has the length that the broker gave it, a small one is shorter.
    let shorter = if size > 16 * 1024 { 0 } else { 2 * (host.len() - ADVERTISED.len()) };
    let upstream_bytes = 4 + expected.len() + shorter;
    for behind in 1..250 {
        let split = upstream_bytes - behind;
        scene.brokers.cluster().script(1, Fault::Pieces(vec![split]));
        let frame = scene.ask(&request, "an answer in two pieces").await?;
        ensure!(frame == expected, "the answer differs if it is cut at {split}");
    }
    Ok(())
}

#[tokio::test]
async fn a_small_answer_may_be_cut_anywhere_around_its_tail() -> Checked {
    every_split(2000, LONG).await
}

#[tokio::test]
async fn a_large_answer_may_be_cut_anywhere_around_its_tail() -> Checked {
    every_split(20_000, LONG).await?;
    every_split(20_000, SHORT).await
}

#[tokio::test]
async fn an_answer_longer_than_a_buffer_may_be_cut_anywhere_around_its_tail() -> Checked {
    every_split(140_000, LONG).await
}
