//! Share groups: values come back, and what is not there is nobody's to acknowledge.

use bytes::Bytes;
use kafka_protocol::messages::{RequestHeader, ShareFetchRequest, ShareFetchResponse};
use kafka_protocol::protocol::{Decodable, StrBytes};
use protocol_ext::codec::{Codec, Framing};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{Record, batch, read, records, single};
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise};
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

/// What has no room in an answer is not called acquired, and the next requests ask for what has.
pub async fn requests_ask_for_what_fits(faults: Faults) -> Checked {
    const VALUE: usize = 1_000_000;
    let mut scene = scene(faults, |setup| setup).await?;
    scene.brokers.cluster().keeping = Some(SHARE_FETCH);
    scene.send(&single(noise(9, 10))).await?;
    share_fetch(&mut scene.client, 2_500_000).await?;
    let first = scene.records_asked()?;
    ensure!(first < 500, "{first} records asked for before anything is known");
    share_fetch(&mut scene.client, 2_500_000).await?;
    ensure_eq!(scene.records_asked()?, first * 4, "records asked for where nothing is stored");
    for n in 0..4 {
        scene.send(&single(noise(n, VALUE))).await?;
    }
    let (error, got, acquired) = share_fetch(&mut scene.client, 2_500_000).await?;
    ensure_eq!((error, offsets(&got)), (0, vec![0, 1, 2]), "error and offsets with room for two");
    ensure_eq!(acquired, [(0, 2)], "acquired offsets");
    share_fetch(&mut scene.client, 2_500_000).await?;
    ensure_eq!(scene.records_asked()?, 2, "records asked for then");
    Ok(())
}

#[tokio::test]
async fn share_consumers_acquire_what_an_answer_has_room_for() -> Checked {
    requests_ask_for_what_fits(None).await
}

/// A store that fails is no delivery: the connection closes, and the broker takes back what was
/// acquired on it without counting.
pub async fn an_outage_is_no_delivery(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, faults).offload_s3(&s3, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let value = noise(1, 20_000);
    let (error, _) = client.produce(9, "t", 0, &single(value.clone())).await?;
    ensure_eq!(error, 0, "error of Produce");
    s3.always(Kind::Get, Fault::Status(503, "SlowDown"));
    client.send(SHARE_FETCH, 1, &request(ALL)).await?;
    let answered = client.receive_or_end().await?;
    ensure!(answered.is_none(), "an answer while the store fails");
    s3.always(Kind::Get, Fault::None);
    let mut client = Client::connect(proxy.port).await?;
    let mut got = share_fetch(&mut client, ALL).await;
    while got.is_err() {
        // The store is left alone for a moment.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        client = Client::connect(proxy.port).await?;
        got = share_fetch(&mut client, ALL).await;
    }
    let (_, got, acquired) = got?;
    ensure!(got[0].value.as_ref() == Some(&value), "the value differs");
    ensure_eq!(acquired, [(0, 0)], "acquired offsets");
    Ok(())
}

#[tokio::test]
async fn a_store_that_fails_costs_share_consumers_no_delivery() -> Checked {
    an_outage_is_no_delivery(None).await
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
