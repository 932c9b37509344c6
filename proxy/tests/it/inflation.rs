//! Backlogs of references: what brokers send of a log is about what its values leave room for.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use kafka_protocol::messages::{FetchRequest, FetchResponse, RequestHeader};
use kafka_protocol::protocol::Decodable;
use protocol_ext::batch::{Batches, Entry};
use protocol_ext::fake_broker::FetchSessions;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

const VALUE: usize = 110_000;
/// As consumers ask unless told otherwise.
const PARTITION_BYTES: i32 = 1 << 20;
const BYTES: i32 = 50 << 20;
const VERSION: i16 = 12;
/// Longer than an answer that is short of what is asked for.
const IN_FULL: usize = 1 << 19;
/// Answers with less until one is in full again.
const SHORT_ANSWERS_MAX: usize = 6;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    _store: Folder,
    /// A batch as it lies in the log, with a reference.
    referring: Bytes,
}

/// A value stored from partition 0, alone in its log.
async fn scene(faults: Faults) -> Checked<Scene> {
    scene_within(faults, "").await
}

/// The same within these limits.
async fn scene_within(faults: Faults, limits: &str) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, faults).offload(&store, 1000).cache_bytes(4 << 20);
    let proxy = setup.limit(limits).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let (error, _) = client.produce(9, "t", 0, &single(noise(1, VALUE))).await?;
    ensure_eq!(error, 0, "error of Produce");
    let referring = {
        let mut cluster = brokers.cluster();
        let log = cluster.log("t", 0).expect("a log");
        log.batches().next().expect("a batch").clone()
    };
    ensure!(referring.len() < 300, "{} bytes in the log", referring.len());
    Ok(Scene { brokers, proxy, client, _store: store, referring })
}

/// Fetch from (partition, offset) pairs, as consumers ask.
fn asked(from: &[(i32, i64)]) -> FetchRequest {
    let mut asked = fetch(VERSION, "t", from, BYTES);
    let partitions = &mut asked.topics[0].partitions;
    partitions.iter_mut().for_each(|one| one.partition_max_bytes = PARTITION_BYTES);
    asked.with_min_bytes(1)
}

/// Batches of one record each that lie in records, which begin at this offset and have no gap.
fn batches(section: &Bytes, offset: i64) -> Checked<i64> {
    let mut next = offset;
    for entry in Batches::new(section) {
        let Ok(Entry::Batch { header, .. }) = entry else {
            return Err(failure(format!("no batch at {next}")));
        };
        ensure_eq!(header.base_offset, next, "offset of a batch");
        next += 1;
    }
    Ok(next - offset)
}

impl Scene {
    fn append(&self, partition: i32, batch: &Bytes, times: usize) {
        let mut cluster = self.brokers.cluster();
        let log = cluster.log("t", partition).expect("a log");
        for _ in 0..times {
            log.append(batch).expect("a batch");
        }
    }

    /// Bytes that the broker sent so far.
    fn sent(&self) -> usize {
        self.brokers.counts(0).sent.load(Ordering::Relaxed)
    }

    /// Records of partition 1 from an offset on.
    async fn records(&mut self, offset: i64) -> Checked<Bytes> {
        let answer: FetchResponse = self.client.call(1, VERSION, &asked(&[(1, offset)])).await?;
        let (_, error, section) = fetched(answer)?.remove(0);
        ensure_eq!(error, 0, "error of Fetch at {offset}");
        ensure!(!section.is_empty(), "nothing came at {offset}");
        Ok(section)
    }

    /// Reads partition 1 from an offset up to one, and gives that behind what came.
    async fn read_to(&mut self, mut offset: i64, end: i64) -> Checked<i64> {
        while offset < end {
            offset += batches(&self.records(offset).await?, offset)?;
        }
        Ok(offset)
    }

    async fn count(&self, name: &str) -> Checked<f64> {
        self.proxy.metric(&format!("firebreak_offload_{name}_total")).await
    }
}

/// Bytes of so many batches.
fn bytes(batch: &Bytes, batches: i64) -> Checked<usize> {
    Ok(usize::try_from(batches).map_err(failure)? * batch.len())
}

/// Five thousand references, a MiB asked for at a time, which has room for nine values: of what the
/// broker sends most is used, once an answer told how long values are.
pub async fn a_backlog_is_sent_about_once(faults: Faults) -> Checked {
    const READ: i64 = 1500;
    let mut scene = scene(faults).await?;
    let referring = scene.referring.clone();
    scene.append(1, &referring, 5000);
    let first = scene.records(0).await?;
    let value = read(&first).remove(0).value;
    ensure!(value == Some(noise(1, VALUE)), "the first value differs");
    let from = batches(&first, 0)?;
    ensure_eq!(from, 9, "values of the first answer");
    ensure!(scene.count("surplus_bytes").await? > 900_000.0, "what had no room is not counted");

    let before = scene.sent();
    let end = scene.read_to(from, READ).await?;
    let (sent, used) = (scene.sent() - before, bytes(&referring, end - from)?);
    ensure!(sent <= 2 * used, "brokers sent {sent} bytes for {used} of the log");
    ensure!(scene.count("lowered_fetches").await? > 100.0, "requests that ask for less");
    Ok(())
}

#[tokio::test]
async fn brokers_send_a_backlog_of_references_about_once() -> Checked {
    a_backlog_is_sent_about_once(None).await
}

/// Behind the references there are plain records: after some answers they come in full.
pub async fn plain_records_come_in_full_again(faults: Faults) -> Checked {
    const REFERENCES: i64 = 50;
    let mut scene = scene(faults).await?;
    let referring = scene.referring.clone();
    scene.append(1, &referring, 50);
    scene.append(1, &single(noise(2, 1000)), 3000);
    let mut offset = scene.read_to(0, REFERENCES).await?;
    for answer in 0.. {
        let section = scene.records(offset).await?;
        if section.len() > IN_FULL {
            break;
        }
        ensure!(answer < SHORT_ANSWERS_MAX, "plain records come in {} bytes", section.len());
        offset += batches(&section, offset)?;
    }
    // And now nothing is asked for otherwise than the client does.
    let before = scene.count("lowered_fetches").await?;
    scene.records(offset).await?;
    ensure_eq!(scene.count("lowered_fetches").await?, before, "requests that ask for less");
    Ok(())
}

#[tokio::test]
async fn plain_records_behind_a_backlog_come_in_full_again() -> Checked {
    plain_records_come_in_full_again(None).await
}

/// A consumer with a Fetch session, which names only partitions that it has read on in.
#[derive(Default)]
struct Sitting {
    id: i32,
    epoch: i32,
    /// Where it stands in each partition.
    offsets: BTreeMap<i32, i64>,
    /// Partitions to name.
    moved: Vec<i32>,
}

impl Sitting {
    /// Of all three partitions.
    fn new() -> Self {
        let moved: Vec<i32> = (0..3).collect();
        let offsets = moved.iter().map(|partition| (*partition, 0)).collect();
        Self { offsets, moved, ..Self::default() }
    }

    /// Asks once; gives bytes of the records that came.
    async fn ask(&mut self, client: &mut Client) -> Checked<usize> {
        let named = self.moved.iter().map(|partition| (*partition, self.offsets[partition]));
        let named: Vec<_> = named.collect();
        let mut asked = asked(&named).with_session_id(self.id).with_session_epoch(self.epoch);
        asked.topics.retain(|topic| !topic.partitions.is_empty());
        let answer: FetchResponse = client.call(1, VERSION, &asked).await?;
        ensure_eq!(answer.error_code, 0, "error of epoch {}", self.epoch);
        ensure!(answer.session_id != 0, "no session");
        (self.id, self.epoch) = (answer.session_id, self.epoch + 1);
        self.moved.clear();
        let mut bytes = 0;
        for row in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let partition = row.partition_index;
            ensure_eq!(row.error_code, 0, "error of partition {partition}");
            let offset = self.offsets.entry(partition).or_default();
            let section = row.records.unwrap_or_default();
            let came = batches(&section, *offset)?;
            *offset += came;
            bytes += section.len();
            if came > 0 {
                self.moved.push(partition);
            }
        }
        Ok(bytes)
    }

    fn is_at(&self, ends: [i64; 3]) -> bool {
        self.offsets.values().eq(ends.iter())
    }

    /// Asks until it stands there, at most so many times.
    async fn read_to(&mut self, client: &mut Client, ends: [i64; 3], asks: usize) -> Checked {
        for _ in 0..asks {
            if self.is_at(ends) {
                break;
            }
            self.ask(client).await?;
        }
        ensure!(self.is_at(ends), "after {asks} requests {:?}, not {ends:?}", self.offsets);
        Ok(())
    }
}

/// The same in a session, in which a partition that is not named is asked for as it was before.
pub async fn sessions_are_sent_about_what_they_use(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    scene.brokers.cluster().fetch_sessions = Some(FetchSessions::default());
    let referring = scene.referring.clone();
    (1..3).for_each(|partition| scene.append(partition, &referring, 300));
    let (mut sitting, mut client) = (Sitting::new(), Client::connect(scene.proxy.port).await?);
    sitting.ask(&mut client).await?;
    ensure!(sitting.is_at([1, 9, 9]), "the first answer ends at {:?}", sitting.offsets);
    let before = scene.sent();
    sitting.read_to(&mut client, [1, 300, 300], 40).await?;
    let (sent, used) = (scene.sent() - before, bytes(&referring, 2 * 291)?);
    ensure!(sent <= 2 * used, "brokers sent {sent} bytes for {used} of the log");

    // One that has not been named for a while goes on.
    for _ in 0..3 {
        ensure_eq!(sitting.ask(&mut client).await?, 0, "bytes where there is nothing new");
    }
    scene.append(2, &referring, 40);
    sitting.read_to(&mut client, [1, 300, 340], 6).await?;
    sitting.ask(&mut client).await?;
    scene.append(2, &single(noise(2, 1000)), 3000);
    let mut short = 0;
    while sitting.ask(&mut client).await? < IN_FULL {
        short += 1;
        ensure!(short <= SHORT_ANSWERS_MAX, "{short} short answers of a session");
    }
    let sessions = scene.brokers.cluster().fetch_sessions.as_ref().map(FetchSessions::open);
    ensure_eq!(sessions, Some(1), "sessions at the broker");
    Ok(())
}

#[tokio::test]
async fn brokers_send_a_backlog_about_once_in_a_session() -> Checked {
    sessions_are_sent_about_what_they_use(None).await
}

/// A broker that is to wait for so many bytes may give as many: else it would wait to the end.
pub async fn no_broker_waits_for_what_it_may_not_give(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let referring = scene.referring.clone();
    scene.append(1, &referring, 1000);
    scene.read_to(0, 1).await?;
    scene.brokers.cluster().keeping = Some(1);
    for least in [1, 100_000, 2 << 20] {
        let request = asked(&[(1, 0)]).with_min_bytes(least);
        let _: FetchResponse = scene.client.call(1, VERSION, &request).await?;
        let kept = scene.brokers.cluster().kept.last().cloned();
        let (_, mut frame) = kept.ok_or_else(|| failure("no request"))?;
        RequestHeader::decode(&mut frame, 2).map_err(failure)?;
        let got = FetchRequest::decode(&mut frame, VERSION).map_err(failure)?;
        ensure_eq!((got.min_bytes, got.max_bytes), (least, BYTES), "least and most bytes");
        let most = got.topics[0].partitions[0].partition_max_bytes;
        let enough = least.min(PARTITION_BYTES);
        ensure!(most >= enough, "a broker waits for {least} bytes and may give {most}");
        ensure!(most <= enough.max(5000), "{most} bytes are asked for, where {least} would do");
    }
    Ok(())
}

#[tokio::test]
async fn brokers_may_give_what_they_wait_for() -> Checked {
    no_broker_waits_for_what_it_may_not_give(None).await
}

/// Room for 4 MiB of requests; who holds it and does not get on is cut off after some seconds.
const LIMITS: &str = "frame_bytes_max = 8388608\nbuffered_bytes_max = 16777216\n\
    frame_progress_ms = 8000";
const HELD: &str = "firebreak_buffered_bytes{what=\"requests\"}";
/// Most of it.
const HELD_BYTES: f64 = 3e6;

/// A Fetch request that is too long to be held without room waits for none behind producers: it
/// passes as it is, and asks for less once there is room.
pub async fn a_long_fetch_waits_for_no_room(faults: Faults) -> Checked {
    let mut scene = scene_within(faults, LIMITS).await?;
    let referring = scene.referring.clone();
    scene.append(1, &referring, 200);
    let mut request = asked(&[(1, 0)]).with_max_bytes(PARTITION_BYTES);
    request.unknown_tagged_fields.insert(99, Bytes::from(vec![0; 5000]));
    // It tells how long values are.
    let _: FetchResponse = scene.client.call(1, VERSION, &request).await?;

    let long = produce(9, -1, "t", &[(0, single(noise(2, 6 << 20)))]);
    let mut slow = Client::connect(scene.proxy.port).await?;
    slow.send_raw(&request_frame(0, 9, 1, &long)[..1 << 20]).await?;
    let held = async || (scene.proxy.metric(HELD).await.ok()? > HELD_BYTES).then_some(());
    until("a producer that has all room", held).await?;
    let answer: FetchResponse = scene.client.call(1, VERSION, &request).await?;
    let (_, error, section) = fetched(answer)?.remove(0);
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(batches(&section, 0)? > 0, "nothing came");
    ensure!(scene.proxy.metric(HELD).await? > HELD_BYTES, "a Fetch request waited for room");
    ensure_eq!(scene.count("lowered_fetches").await?, 0.0, "requests that ask for less");

    drop(slow);
    let free = async || (scene.proxy.metric(HELD).await.ok()? < 1.0).then_some(());
    until("room", free).await?;
    let _: FetchResponse = scene.client.call(1, VERSION, &request).await?;
    ensure_eq!(scene.count("lowered_fetches").await?, 1.0, "requests that ask for less");
    Ok(())
}

#[tokio::test]
async fn a_long_fetch_waits_for_no_room_that_producers_hold() -> Checked {
    a_long_fetch_waits_for_no_room(None).await
}
