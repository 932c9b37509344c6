//! Share groups: values come back, and what is not there is nobody's to acknowledge.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::share_fetch_response::{
    AcquiredRecords, PartitionData, ShareFetchableTopicResponse,
};
use kafka_protocol::messages::{RequestHeader, ShareFetchRequest, ShareFetchResponse};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::fake_broker::{Fault as Lie, Locks};
use uuid::Uuid;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{Record, batch, read, records, single};
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};
use crate::upkeep::collect;

const SHARE_FETCH: i16 = 78;
const STORAGE_ERROR: i16 = 56;
const ALL: i32 = 50 << 20;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    store: Folder,
}

async fn scene(faults: Faults, change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = change(Setup::new(&brokers, faults).offload(&store, 1000));
    let proxy = setup.start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, store })
}

/// What a share consumer gets of the one partition: error, records, and ranges of acquired offsets.
type Got = (i16, Vec<Record>, Vec<(i64, i64)>);

fn request(bytes_max: i32) -> ShareFetchRequest {
    let text = |text| Some(StrBytes::from_static_str(text));
    ShareFetchRequest::default()
        .with_group_id(text("g").map(Into::into))
        .with_member_id(text("m"))
        .with_max_bytes(bytes_max)
        .with_max_records(500)
}

async fn share_fetch(client: &mut Client, bytes_max: i32) -> Checked<Got> {
    let answer: ShareFetchResponse = client.call(SHARE_FETCH, 1, &request(bytes_max)).await?;
    let topic = answer.responses.into_iter().next().ok_or_else(|| failure("no topic"))?;
    let partition = topic.partitions.into_iter().next().ok_or_else(|| failure("no partition"))?;
    let acquired = partition.acquired_records.iter().map(|one| (one.first_offset, one.last_offset));
    let acquired = acquired.collect();
    Ok((partition.error_code, read(&partition.records.unwrap_or_default()), acquired))
}

impl Scene {
    async fn send(&mut self, batch: &Bytes) -> Checked {
        let (error, _) = self.client.produce(9, "t", 0, batch).await?;
        ensure_eq!(error, 0, "error of Produce");
        Ok(())
    }

    /// Takes the object of so many bytes of values away.
    fn lose(&self, bytes: u64) -> Checked {
        let mut objects = Vec::new();
        collect(&self.store.path().join("v1"), &mut objects);
        let fits = |len: u64| len > bytes && len < bytes + 1000;
        let lost = objects.iter().find(|path| path.metadata().is_ok_and(|m| fits(m.len())));
        std::fs::remove_file(lost.ok_or_else(|| failure("no such object"))?).map_err(failure)
    }

    /// Waits until the broker has taken back all of so many records.
    async fn given_back(&self, records: usize) -> Checked {
        let none = || self.deliveries() == vec![0; records];
        until("all given back", async || none().then_some(())).await
    }

    /// Deliveries of each offset, as the broker counts them.
    fn deliveries(&self) -> Vec<i16> {
        self.brokers.cluster().locks.as_ref().map(Locks::deliveries).unwrap_or_default()
    }

    /// Records that the last ShareFetch asked its broker for.
    fn records_asked(&self) -> Checked<i32> {
        let cluster = self.brokers.cluster();
        let (_, frame) = cluster.kept.last().ok_or_else(|| failure("no request"))?;
        let mut frame = frame.clone();
        RequestHeader::decode(&mut frame, 2).map_err(failure)?;
        Ok(ShareFetchRequest::decode(&mut frame, 1).map_err(failure)?.max_records)
    }
}

fn offsets(records: &[Record]) -> Vec<i64> {
    records.iter().map(|record| record.offset).collect()
}

/// Values come back; a batch whose value is gone is left out alone, and not called acquired.
pub async fn what_is_acquired_is_there(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let values = [noise(1, 20_000), noise(2, 30_000), noise(3, 50), noise(4, 40_000)];
    for value in &values {
        scene.send(&single(value.clone())).await?;
    }
    let (error, got, acquired) = share_fetch(&mut scene.client, ALL).await?;
    ensure_eq!((error, acquired), (0, vec![(0, 3)]), "error and acquired offsets");
    let restored: Vec<_> = got.into_iter().filter_map(|record| record.value).collect();
    ensure!(restored == values, "values differ");

    scene.lose(30_000)?;
    let (error, got, acquired) = share_fetch(&mut scene.client, ALL).await?;
    ensure_eq!(offsets(&got), [0, 2, 3], "offsets beside a lost value");
    ensure_eq!((error, acquired), (0, vec![(0, 0), (2, 3)]), "error and acquired offsets there");
    scene.lose(20_000)?;
    scene.lose(40_000)?;
    let (error, got, acquired) = share_fetch(&mut scene.client, ALL).await?;
    ensure_eq!((error, offsets(&got), acquired), (0, vec![2], vec![(2, 2)]), "all others lost");
    Ok(())
}

#[tokio::test]
async fn values_of_share_groups_come_back_and_lost_ones_are_not_acquired() -> Checked {
    what_is_acquired_is_there(None).await
}

#[tokio::test]
async fn a_partition_of_which_nothing_is_there_answers_the_error() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    scene.send(&single(noise(1, 20_000))).await?;
    scene.lose(20_000)?;
    let got = share_fetch(&mut scene.client, ALL).await?;
    ensure_eq!(got, (STORAGE_ERROR, Vec::new(), Vec::new()), "error, records, acquired");
    Ok(())
}

/// What has no room in an answer is given back before anybody counts it as delivered, and the next
/// requests ask for what has room, also behind small records.
pub async fn requests_ask_for_what_fits(faults: Faults) -> Checked {
    const VALUE: usize = 1_000_000;
    const WANTED: i32 = 2_500_000;
    let mut scene = scene(faults, |setup| setup).await?;
    scene.brokers.cluster().keeping = Some(SHARE_FETCH);
    scene.brokers.cluster().locks = Some(Locks::default());
    scene.send(&single(noise(9, 10))).await?;
    share_fetch(&mut scene.client, WANTED).await?;
    let first = scene.records_asked()?;
    ensure!(first < 500, "{first} records asked for before anything is known");
    scene.send(&single(noise(9, 10))).await?;
    share_fetch(&mut scene.client, WANTED).await?;
    ensure_eq!(scene.records_asked()?, first * 4, "records asked for where nothing is stored");
    for n in 0..6 {
        scene.send(&single(noise(n, VALUE))).await?;
    }
    scene.client.send(SHARE_FETCH, 1, &request(WANTED)).await?;
    let answered = scene.client.receive_or_end().await?;
    ensure!(answered.is_none(), "an answer that has no room for what was acquired");
    scene.given_back(8).await?;
    scene.client = Client::connect(scene.proxy.port).await?;
    // What a closed connection held of small records is given out again too.
    let mut got = Vec::new();
    while got.len() < 8 {
        let (error, records, acquired) = share_fetch(&mut scene.client, WANTED).await?;
        ensure_eq!(error, 0, "error of ShareFetch");
        ensure!(!acquired.is_empty(), "nothing acquired behind {got:?}");
        ensure_eq!(scene.records_asked()?, 2, "records asked for then");
        got.extend(offsets(&records));
    }
    ensure_eq!(got, (0..8).collect::<Vec<_>>(), "offsets given out");
    ensure_eq!(scene.deliveries(), [1; 8], "deliveries");
    for n in 0..3 {
        scene.send(&single(noise(n, 10))).await?;
        share_fetch(&mut scene.client, WANTED).await?;
        ensure_eq!(scene.records_asked()?, 2, "records asked for behind {n} small ones");
    }
    Ok(())
}

#[tokio::test]
async fn share_consumers_acquire_what_an_answer_has_room_for() -> Checked {
    requests_ask_for_what_fits(None).await
}

/// A store that fails is no delivery, whatever else is in the answer: the connection closes, and
/// the broker takes back what was acquired on it without counting.
pub async fn an_outage_is_no_delivery(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, faults).offload_s3(&s3, 1000).start().await;
    let client = Client::connect(proxy.port).await?;
    let mut scene = Scene { brokers, proxy, client, store: Folder::new() };
    scene.brokers.cluster().locks = Some(Locks::default());
    let values = [noise(1, 50), noise(2, 20_000), noise(3, 60), noise(4, 30_000)];
    for value in &values {
        scene.send(&single(value.clone())).await?;
    }
    s3.always(Kind::Get, Fault::Status(503, "SlowDown"));
    // More often than brokers deliver a record before they give it up.
    for _ in 0..6 {
        let mut client = Client::connect(scene.proxy.port).await?;
        client.send(SHARE_FETCH, 1, &request(ALL)).await?;
        let answered = client.receive_or_end().await?;
        ensure!(answered.is_none(), "an answer while the store fails");
        scene.given_back(4).await?;
    }
    s3.always(Kind::Get, Fault::None);
    // The store is left alone for a moment.
    let (_, got, acquired) = until("an answer", async || {
        let mut client = Client::connect(scene.proxy.port).await.ok()?;
        // What the one before acquired may not be given back yet.
        share_fetch(&mut client, ALL).await.ok().filter(|(.., acquired)| !acquired.is_empty())
    })
    .await?;
    let got: Vec<_> = got.into_iter().filter_map(|record| record.value).collect();
    ensure!(got == values, "values differ");
    ensure_eq!(acquired, [(0, 3)], "acquired offsets");
    ensure_eq!(scene.deliveries(), [1; 4], "deliveries");
    Ok(())
}

#[tokio::test]
async fn a_store_that_fails_costs_share_consumers_no_delivery() -> Checked {
    an_outage_is_no_delivery(None).await
}

/// Records of a topic that no broker knows end the connection, which is the broker's fault.
pub async fn an_unknown_topic_is_the_brokers(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let acquired = AcquiredRecords::default().with_delivery_count(1);
    let partition = PartitionData::default()
        .with_records(Some(single(noise(1, 300))))
        .with_acquired_records(vec![acquired]);
    let topic = ShareFetchableTopicResponse::default()
        .with_topic_id(Uuid::from_u128(9))
        .with_partitions(vec![partition]);
    // Length, correlation id, no tags.
    let mut frame = BytesMut::from(&[0; 9][..]);
    let answer = ShareFetchResponse::default().with_responses(vec![topic]);
    answer.encode(&mut frame, 1).map_err(failure)?;
    let length = u32::try_from(frame.len() - 4).map_err(failure)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    scene.brokers.cluster().script(SHARE_FETCH, Lie::Instead(frame.freeze()));
    scene.client.send(SHARE_FETCH, 1, &request(ALL)).await?;
    ensure!(scene.client.receive_or_end().await?.is_none(), "an answer about an unknown topic");
    let metric = "firebreak_errors_total{blame=\"upstream\",kind=\"nameless\"}";
    scene.proxy.metric_becomes(metric, 1.0).await
}

#[tokio::test]
async fn records_of_a_topic_that_no_broker_knows_are_the_brokers_fault() -> Checked {
    an_unknown_topic_is_the_brokers(None).await
}

/// Of a batch only records that were acquired are read from the store.
pub async fn only_what_is_acquired_is_read(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let mut locks = Locks::default();
    locks.hold(0..3);
    locks.hold(4..6);
    scene.brokers.cluster().locks = Some(locks);
    let values: Vec<_> = (0..6).map(|n| noise(n, 20_000)).collect();
    scene.send(&batch(Codec::Zstd, Framing::Plain, &records(&values))).await?;
    let (error, got, acquired) = share_fetch(&mut scene.client, ALL).await?;
    ensure_eq!((error, acquired), (0, vec![(3, 3)]), "error and acquired offsets");
    ensure!(got[3].value.as_ref() == Some(&values[3]), "the value differs");
    let restored = "firebreak_offload_objects_total{op=\"restore\"}";
    ensure_eq!(scene.proxy.metric(restored).await?, 1.0, "values read");
    Ok(())
}

#[tokio::test]
async fn values_of_records_that_others_hold_are_not_read() -> Checked {
    only_what_is_acquired_is_read(None).await
}

/// What cannot be read behind a batch that is left out goes to the client, who would else take it
/// for gone.
pub async fn what_is_unreadable_is_passed_on(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    scene.send(&single(noise(1, 20_000))).await?;
    scene.send(&single(noise(2, 30_000))).await?;
    let mut unreadable = vec![0; 80];
    unreadable[11] = 68;
    unreadable[16] = 99;
    scene.brokers.cluster().log("t", 0).expect("a log").append_legacy(&unreadable);
    // Whatever is asked for, everything is given: there is no room, also for one record.
    scene.client.send(SHARE_FETCH, 1, &request(1000)).await?;
    ensure!(scene.client.receive_or_end().await?.is_none(), "an answer without room");
    let mut client = Client::connect(scene.proxy.port).await?;
    let answer: ShareFetchResponse = client.call(SHARE_FETCH, 1, &request(1000)).await?;
    let partition = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
    let partition = partition.ok_or_else(|| failure("no partition"))?;
    let acquired = partition.acquired_records.iter().map(|one| (one.first_offset, one.last_offset));
    ensure_eq!(acquired.collect::<Vec<_>>(), [(0, 0), (2, 2)], "acquired offsets");
    let records = partition.records.unwrap_or_default();
    ensure!(records.ends_with(&unreadable[8..]), "what cannot be read is missing");
    Ok(())
}

#[tokio::test]
async fn share_consumers_are_given_what_cannot_be_read() -> Checked {
    what_is_unreadable_is_passed_on(None).await
}

/// A value that is gone for good: by its topic's rule readers go on without its record, or with the
/// record and no value. Offsets are kept, so that nobody asks for the same again and again.
pub async fn readers_go_on_without_a_lost_value(faults: Faults) -> Checked {
    for (policy, left) in [("skip", vec![0, 2]), ("placeholder", vec![0, 1, 2])] {
        let rule = format!("on_missing = {policy:?}");
        let mut scene = scene(faults, |setup| setup.rule(&rule)).await?;
        let mixed = records(&[noise(1, 50), noise(2, 30_000), noise(3, 60)]);
        scene.send(&batch(Codec::Zstd, Framing::Plain, &mixed)).await?;
        scene.send(&single(noise(4, 40_000))).await?;
        scene.send(&single(noise(5, 50_000))).await?;
        scene.lose(30_000)?;
        scene.lose(40_000)?;
        let (error, section) = scene.client.fetch(11, "t", 0, 0, i32::MAX).await?;
        ensure_eq!(error, 0, "error with {policy}");
        let heads = crate::harness::records::heads(&section);
        let ends: Vec<_> =
            heads.iter().map(|head| head.base_offset + i64::from(head.last_offset_delta)).collect();
        ensure_eq!(ends, [2, 3, 4], "ends of batches with {policy}");
        let got = read(&section);
        let offsets = offsets(&got);
        let expected: Vec<i64> = match policy {
            "skip" => left.into_iter().chain([4]).collect(),
            _ => left.into_iter().chain([3, 4]).collect(),
        };
        ensure_eq!(offsets, expected, "offsets with {policy}");
        let marked = got.iter().filter(|record| {
            let mark = (b"firebreak-missing".to_vec(), Some(b"40000".to_vec()));
            record.offset == 3 && record.headers.contains(&mark) && record.value == Some(Vec::new())
        });
        ensure_eq!(marked.count(), usize::from(policy != "skip"), "marked records");
        let lost = "firebreak_offload_objects_total{op=\"lost\"}";
        ensure_eq!(scene.proxy.metric(lost).await?, 2.0, "lost values counted");
        // From the middle of what is lost as well.
        let (error, section) = scene.client.fetch(11, "t", 0, 3, 1000).await?;
        ensure_eq!((error, section.is_empty()), (0, false), "error and silence at offset 3");
        let (_, _, acquired) = share_fetch(&mut scene.client, ALL).await?;
        ensure_eq!(acquired, [(0, 4)], "what a share consumer acquires");
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_value_is_skipped_or_marked_by_the_rule_of_its_topic() -> Checked {
    readers_go_on_without_a_lost_value(None).await
}
