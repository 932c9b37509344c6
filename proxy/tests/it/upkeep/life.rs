//! The life of objects: what becomes of them when a broker refuses what is stored, when a topic is
//! deleted and made anew, when a log is compacted.

use bytes::Bytes;
use kafka_protocol::messages::ProduceResponse;
use protocol_ext::codec::{Codec, Framing};
use uuid::Uuid;

use super::{Scene, bare, counted};
use crate::harness::records::{Record, batch, read, records, single};
use crate::harness::requests::produce;
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};
use crate::log_shapes::{LAST_OFFSET_DELTA, changed};

const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;

impl Scene {
    /// Orphans and dangling references, as `fsck` counts them.
    async fn orphans_and_dangling(&self) -> Checked<(u64, usize)> {
        let (_, report) = self.run(&["fsck"]).await?;
        let dangling = report["dangling"].as_array().map_or(99, Vec::len);
        Ok((counted(&report, "orphans"), dangling))
    }

    /// Nothing of a ledger is lost, no reference dangles, and there are so many orphans.
    async fn is_sound(&self, what: &str, ledger: &Ledger, orphaned: usize) -> Checked {
        let held = Held::in_folder(&self.store)?;
        let tally = ledger.tally(self.proxy.node(0), &self.brokers, &held).await?;
        tally.is_sound(what, orphaned)
    }

    /// Records of the first partition from an offset on.
    async fn records(&mut self, offset: i64) -> Checked<Vec<Record>> {
        let (error, section) = self.client.fetch(11, "t", 0, offset, i32::MAX).await?;
        ensure_eq!(error, 0, "error of Fetch");
        Ok(read(&section))
    }
}

/// A value is stored and then its broker refuses the batch, or takes it and says otherwise; the
/// producer sends it again. One record is there, and one object too many, which goes.
pub async fn a_retry_leaves_an_orphan(faults: Faults) -> Checked {
    for (code, written) in [(NOT_ENOUGH_REPLICAS, false), (NOT_ENOUGH_REPLICAS_AFTER_APPEND, true)]
    {
        let mut scene = bare(faults, |setup| setup).await?;
        scene.brokers.cluster().strict = true;
        scene.brokers.cluster().erring.push(("t".to_owned(), 0, code, written));
        let sent = single(noise(1, 20_000));
        let refused = scene.client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(refused, (code, -1), "answer of a broker that refuses");
        let taken = scene.client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(taken, (0, 0), "answer when it is sent again");
        let end = scene.brokers.cluster().log("t", 0).map(|log| log.end());
        ensure_eq!(end, Some(1), "end of the log");
        ensure_eq!(scene.objects().len(), 2, "objects of a value that was sent twice");
        let mut ledger = Ledger::default();
        ledger.acknowledged("t", 0, 0, &sent);
        scene.is_sound(&format!("error {code} behind a PUT"), &ledger, 1).await?;
        scene.age_objects()?;
        let told = scene.orphans_and_dangling().await?;
        let (_, said) = scene.collect_garbage(&[]).await?;
        ensure_eq!(scene.objects().len(), 1, "objects left by gc: {said}");
        ensure_eq!(told, (1, 0), "orphans and dangling by fsck");
        let left = scene.records(0).await?;
        ensure!(left == read(&sent), "the record differs");
        ensure_eq!(scene.orphans_and_dangling().await?, (0, 0), "orphans and dangling after gc");
        scene.is_sound(&format!("error {code} behind a PUT, after gc"), &ledger, 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_that_is_sent_again_leaves_one_record_and_one_orphan_which_goes() -> Checked {
    a_retry_leaves_an_orphan(None).await
}

/// A topic is deleted and another one made under its name: objects of the old one go if that is
/// asked for, those of the new one stay, also if they were stored while its id was not known yet.
pub async fn a_topic_made_anew_keeps_its_objects(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    for n in 0..2 {
        scene.take(single(noise(n, 20_000))).await?;
    }
    let old = scene.objects();
    let id = Uuid::from_bytes([9; 16]);
    {
        let mut cluster = scene.brokers.cluster();
        cluster.topics.retain(|topic| topic.name != "t");
        cluster.add_topic("t", 3);
        cluster.topics.iter_mut().filter(|t| t.name == "t").for_each(|topic| topic.id = id);
    }
    // By a name that was looked up before, and by the new id.
    let [by_name, by_id] = [3, 4].map(|n| single(noise(n, 20_000)));
    let told = scene.client.produce(9, "t", 0, &by_name).await?;
    ensure_eq!(told, (0, 0), "answer by name");
    let mut request = produce(13, -1, "t", &[(0, by_id.clone())]);
    request.topic_data[0].topic_id = id;
    let answer: ProduceResponse = scene.client.call(0, 13, &request).await?;
    let answered = &answer.responses[0].partition_responses[0];
    ensure_eq!((answered.error_code, answered.base_offset), (0, 1), "answer by id");
    let mut ledger = Ledger::default();
    (0..).zip([&by_name, &by_id]).for_each(|(n, sent)| ledger.acknowledged("t", 0, n, sent));
    scene.is_sound("a topic made anew", &ledger, 2).await?;
    scene.age_objects()?;
    ensure_eq!(scene.objects().len(), 4, "objects of both topics");

    let (_, said) = scene.collect_garbage(&[]).await?;
    ensure!(old.iter().all(|object| object.exists()), "gone without being asked for: {said}");
    let (code, said) = scene.collect_garbage(&["--deleted-topics"]).await?;
    ensure_eq!(code, 0, "exit code of gc: {said}");
    ensure!(!old.iter().any(|object| object.exists()), "objects of the old topic are there");
    ensure_eq!(scene.objects().len(), 2, "objects of the new topic");
    let values = scene.records(0).await?.into_iter().map(|record| record.value);
    let sent = [by_name, by_id].map(|batch| read(&batch).remove(0).value);
    ensure!(values.eq(sent), "values of the new topic differ");
    ensure_eq!(scene.orphans_and_dangling().await?, (0, 0), "orphans and dangling references");
    scene.is_sound("a topic made anew, after gc", &ledger, 0).await
}

#[tokio::test]
async fn a_topic_made_anew_under_its_name_keeps_its_objects_and_loses_the_old_ones() -> Checked {
    a_topic_made_anew_keeps_its_objects(None).await
}

/// What is compacted away lets its object go, unless another value in it lives.
pub async fn compacted_values_go(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    // Keys 0 to 2 in one pack, then key 0 twice.
    let large: Vec<_> = (0..3).map(|n| noise(n, 20_000)).collect();
    scene.take(batch(Codec::None, Framing::Plain, &records(&large))).await?;
    for n in [3, 4] {
        scene.take(single(noise(n, 20_000))).await?;
    }
    scene.age_objects()?;
    let before = scene.objects().len();
    if let Some(log) = scene.brokers.cluster().log("t", 0) {
        log.compact(compacted);
    }
    let mut ledger = Ledger::default();
    (0..).zip([0, 3, 4]).for_each(|(n, base)| ledger.acknowledged("t", 0, base, &scene.sent[n]));
    [0, 3].into_iter().for_each(|offset| ledger.compacted("t", 0, offset));
    ensure_eq!(before, 3, "objects before compaction");
    scene.is_sound("values that were compacted away", &ledger, 1).await?;
    ensure_eq!(scene.orphans_and_dangling().await?, (1, 0), "orphans, dangling after compaction");
    let (_, said) = scene.collect_garbage(&[]).await?;
    ensure_eq!(scene.objects().len(), 2, "objects left by gc: {said}");
    let left = scene.records(0).await?;
    let left: Vec<_> = left.into_iter().map(|record| (record.offset, record.value)).collect();
    let sent = [(1, 1), (2, 2), (4, 4)].map(|(offset, n)| (offset, Some(noise(n, 20_000))));
    ensure!(left == sent, "what is left by compaction differs");
    scene.is_sound("values that were compacted away, after gc", &ledger, 0).await
}

#[tokio::test]
async fn a_value_that_is_compacted_away_lets_its_object_go_and_others_stay() -> Checked {
    compacted_values_go(None).await
}

/// What compaction leaves of a batch where key 0 came at offsets 0, 3 and 4.
fn compacted(stored: &Bytes) -> Option<Bytes> {
    let records = read(stored);
    match records[0].offset {
        0 => {
            let left = batch(Codec::None, Framing::Plain, &records[1..]);
            Some(changed(&left, LAST_OFFSET_DELTA, &2_i32.to_be_bytes()))
        }
        3 => None,
        _ => Some(stored.clone()),
    }
}
