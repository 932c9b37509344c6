//! The index of `gc`: what an earlier run read is not read again, and nothing that a log refers to
//! is deleted for it, whatever became of the log, the topic or the index.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::fake_broker::{FakeLog, Fault};
use protocol_ext::reference::REFERENCE_MAGIC;
use serde_json::Value;
use uuid::Uuid;

use super::{Scene, bare, collect, counted, scene, upkeep};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::records::{batch, heads, read, records, single};
use crate::harness::s3::S3;
use crate::harness::{Checked, Failure, Faults, ensure, ensure_eq, failure, noise, until};
use crate::log_shapes::changed;

const FETCH: i16 = 1;
/// Where a batch has its leader's epoch, its attributes and its producer's id.
const EPOCH: std::ops::Range<usize> = 12..16;
const ATTRIBUTES: usize = 21;
const PRODUCER_ID: usize = 43;
/// Where an index has its version, and the first of its packs if all are one partition's.
const VERSION: usize = 7;
const FIRST_PACK: usize = 128;

/// What a report says of the logs that were read.
fn logs(report: &Value, name: &str) -> u64 {
    report["logs"][name].as_u64().unwrap_or(u64::MAX)
}

/// Offsets that were read, offsets that were skipped, and logs that were read by an index.
fn cost(report: &Value) -> (u64, u64, u64) {
    (logs(report, "offsets"), logs(report, "skipped"), logs(report, "indexed"))
}

/// Has the batches from an offset on be those of a later leader.
fn retake(log: &mut FakeLog, from: i64) {
    log.compact(|batch| {
        let mut bytes = batch.to_vec();
        if heads(batch)[0].base_offset >= from {
            bytes[EPOCH].copy_from_slice(&1_i32.to_be_bytes());
        }
        Some(bytes.into())
    });
}

impl Scene {
    /// A run of `gc`: its report and what it said.
    async fn gc(&self, args: &[&str]) -> Checked<(Value, String)> {
        let args = [&["gc"], args].concat();
        let (code, report, said) = upkeep(&args, &self.proxy.config_file(), self.faults).await?;
        ensure_eq!(code, 0, "exit code of {args:?}: {said}");
        Ok((report, said))
    }

    /// The log of the first partition.
    fn log<T>(&self, change: impl FnOnce(&mut FakeLog) -> T) -> T {
        let mut cluster = self.brokers.cluster();
        change(cluster.log("t", 0).expect("a log"))
    }

    /// A batch in the log that came past the proxy.
    fn append(&self, batch: &Bytes) -> Checked {
        self.log(|log| log.append(batch)).map(drop).map_err(failure)
    }

    /// The indexes that are stored.
    fn indexes(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.store.path().join("upkeep/v1/index/fake"), &mut found);
        found.sort();
        found
    }

    /// Bytes that brokers sent so far.
    fn fetched(&self) -> usize {
        let sent = |node| self.brokers.counts(node).sent.load(Ordering::Relaxed);
        sent(0) + sent(1)
    }

    /// Fails unless the value at an offset is the one of that seed.
    async fn is_value(&mut self, offset: i64, seed: u64) -> Checked {
        let (error, section) = self.client.fetch(11, "t", 0, offset, 1000).await?;
        ensure_eq!(error, 0, "error of Fetch: a value is gone, offset {offset}");
        let records = read(&section);
        let found = records.iter().find(|record| record.offset == offset);
        let value = found.and_then(|record| record.value.clone());
        ensure!(value == Some(noise(seed, 20_000)), "the value at offset {offset} differs");
        Ok(())
    }
}

/// The second run fetches the last batch and what came behind it; whatever it does not read it
/// knows, and so does the third.
pub async fn a_second_gc_reads_what_is_new(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    for seed in 0..400 {
        scene.append(&single(noise(seed, 900)))?;
    }
    let before = scene.fetched();
    let (first, _) = scene.gc(&[]).await?;
    let whole = scene.fetched() - before;
    ensure!(whole > 360_000, "bytes fetched by the first gc: {whole}");
    ensure_eq!(cost(&first), (403, 0, 0), "offsets read and skipped by the first gc, indexes");

    let (error, at) = scene.client.produce(9, "t", 0, &single(noise(9, 20_000))).await?;
    ensure_eq!((error, at), (0, 403), "answer of Produce");
    scene.age_objects()?;
    let before = scene.fetched();
    let (second, _) = scene.gc(&[]).await?;
    let fetched = scene.fetched() - before;
    ensure!(fetched < whole / 4, "bytes fetched by the second gc: {fetched} of {whole}");
    ensure_eq!(cost(&second), (2, 402, 1), "offsets read and skipped by the second gc, indexes");
    ensure!(logs(&second, "bytes") < 10_000, "bytes of logs in {second}");
    let n = |name| counted(&second, name);
    ensure_eq!((n("referred"), n("marked")), (4, 1), "referred, marked by the second gc");

    scene.age_marks()?;
    let (third, _) = scene.gc(&[]).await?;
    let n = |name| counted(&third, name);
    ensure_eq!((n("deleted"), n("marked")), (1, 0), "deleted, marked by the third gc");
    ensure_eq!((scene.objects().len(), scene.indexes().len()), (4, 1), "objects and indexes left");
    scene.everything_is_readable().await?;
    scene.is_value(403, 9).await?;

    // What checks reads all, and so does who is told to.
    let (code, report) = scene.run(&["fsck"]).await?;
    ensure_eq!((code, cost(&report)), (0, (404, 0, 0)), "exit code and cost of fsck");
    let (report, _) = scene.gc(&["--whole-logs"]).await?;
    ensure_eq!(cost(&report), (404, 0, 0), "cost of a gc of whole logs");
    let (report, _) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), scene.indexes().len()), ((1, 403, 1), 1), "cost behind it, indexes");
    Ok(())
}

#[tokio::test]
async fn a_gc_reads_what_came_behind_the_one_before_and_forgets_nothing() -> Checked {
    a_second_gc_reads_what_is_new(None).await
}

/// What retention took goes in two passes, though nobody reads that nothing refers to it.
pub async fn packs_before_the_start_go(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    for seed in 3..6 {
        scene.take(single(noise(seed, 20_000))).await?;
    }
    scene.age_objects()?;
    scene.gc(&[]).await?;
    scene.log(|log| log.shorten(2));
    let (report, _) = scene.gc(&[]).await?;
    ensure_eq!(counted(&report, "marked"), 3, "marked once the log begins later");
    ensure_eq!(cost(&report), (1, 3, 1), "offsets read and skipped, indexes");
    ensure_eq!(scene.objects().len(), 7, "objects after one pass");
    scene.age_marks()?;
    let (report, _) = scene.gc(&[]).await?;
    ensure_eq!((counted(&report, "deleted"), logs(&report, "offsets")), (3, 1), "deleted, read");
    ensure_eq!(scene.objects().len(), 4, "objects left");
    for (offset, seed) in (2..6).zip(2..) {
        scene.is_value(offset, seed).await?;
    }
    Ok(())
}

#[tokio::test]
async fn values_that_retention_took_go_by_the_index_alone() -> Checked {
    packs_before_the_start_go(None).await
}

/// A log that begins in the middle of a batch gives the whole batch out.
pub async fn a_batch_over_the_start_keeps_its_object(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    let two = records(&[noise(1, 20_000), noise(2, 10)]);
    scene.take(batch(Codec::None, Framing::Plain, &two)).await?;
    scene.take(single(noise(3, 20_000))).await?;
    scene.age_objects()?;
    scene.gc(&[]).await?;
    scene.log(|log| log.shorten(1));
    let (_, said) = scene.collect_garbage(&[]).await?;
    ensure_eq!(scene.objects().len(), 2, "objects of a batch over the start: {said}");
    let (error, section) = scene.client.fetch(11, "t", 0, 1, 1000).await?;
    ensure_eq!(error, 0, "error of Fetch at the start");
    ensure!(read(&section).get(..2) == Some(&two[..]), "records of the batch differ");
    Ok(())
}

#[tokio::test]
async fn the_object_of_a_batch_over_the_start_of_its_log_stays() -> Checked {
    a_batch_over_the_start_keeps_its_object(None).await
}

/// A leader that has not heard of a deletion, or forgot it in a crash, has its log begin earlier.
pub async fn a_log_that_begins_earlier_is_read_whole(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let whole = scene.log(|log| log.clone());
    scene.log(|log| log.shorten(2));
    let (report, _) = scene.gc(&[]).await?;
    ensure_eq!(counted(&report, "marked"), 3, "marked while the log begins later");
    scene.log(|log| *log = whole);
    scene.age_marks()?;
    let (_, said) = scene.gc(&[]).await?;
    ensure_eq!(scene.objects().len(), 3, "objects left once the log begins earlier");
    ensure_eq!(said.matches("begins at 0").count(), 1, "lines about it: {said}");
    scene.everything_is_readable().await
}

#[tokio::test]
async fn a_log_that_begins_earlier_than_it_did_loses_nothing() -> Checked {
    a_log_that_begins_earlier_is_read_whole(None).await
}

/// A leader that lacks records is elected, and others come where they were.
pub async fn a_truncated_log_is_read_whole(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    scene.take(single(noise(0, 20_000))).await?;
    let short = scene.log(|log| log.clone());
    for seed in [1, 2] {
        scene.take(single(noise(seed, 20_000))).await?;
    }
    scene.age_objects()?;
    scene.gc(&[]).await?;
    let index = scene.indexes();
    scene.log(|log| *log = short);
    scene.sent.truncate(1);
    let (report, said) = scene.gc(&["--dry-run"]).await?;
    ensure_eq!(said.matches("ends at 1").count(), 1, "lines about a log that is shorter: {said}");
    ensure_eq!((cost(&report), counted(&report, "marked")), ((1, 0, 0), 2), "cost, marked");
    ensure_eq!(scene.indexes(), index, "indexes behind a dry run");
    for seed in [3, 4, 5] {
        scene.take(single(noise(seed, 20_000))).await?;
    }
    scene.age_objects()?;
    let (_, said) = scene.collect_garbage(&[]).await?;
    scene.everything_is_readable().await?;
    ensure_eq!(said.matches("another one than was read").count(), 1, "lines about it: {said}");
    ensure_eq!(scene.objects().len(), 4, "objects left");
    Ok(())
}

#[tokio::test]
async fn a_log_that_lost_its_end_and_grew_again_loses_nothing_more() -> Checked {
    a_truncated_log_is_read_whole(None).await
}

/// The same where the last batch has the same bytes, and another leader took it.
pub async fn another_leaders_batch_is_another(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    let last = single(noise(9, 10));
    scene.take(single(noise(0, 20_000))).await?;
    let short = scene.log(|log| log.clone());
    scene.take(single(noise(1, 20_000))).await?;
    scene.append(&last)?;
    scene.age_objects()?;
    scene.gc(&[]).await?;
    scene.log(|log| *log = short);
    scene.sent.truncate(1);
    scene.take(single(noise(3, 20_000))).await?;
    scene.append(&last)?;
    scene.log(|log| retake(log, 1));
    scene.age_objects()?;
    scene.collect_garbage(&[]).await?;
    scene.everything_is_readable().await?;
    ensure_eq!(scene.objects().len(), 2, "objects left");
    Ok(())
}

#[tokio::test]
async fn a_log_that_ends_with_the_same_batch_of_another_leader_loses_nothing() -> Checked {
    another_leaders_batch_is_another(None).await
}

/// A leader that lacks records is elected between two pages of a log: what was read is of two logs.
pub async fn two_logs_are_no_index(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    scene.take(single(noise(0, 20_000))).await?;
    let short = scene.log(|log| log.clone());
    scene.take(single(noise(1, 20_000))).await?;
    for seed in 2..11 {
        scene.append(&single(noise(seed, 1_000_000)))?;
    }
    scene.log(|log| retake(log, 1));
    let other = scene.log(|log| log.clone());
    scene.log(|log| *log = short);
    for seed in 11..21 {
        scene.append(&single(noise(seed, 1_000_000)))?;
    }
    scene.age_objects()?;

    scene.brokers.cluster().script(FETCH, Fault::HoldAfter(0));
    let file = scene.proxy.config_file();
    let swapped = async {
        let page = async || (!scene.brokers.cluster().scripted(FETCH)).then_some(());
        until("a page", page).await?;
        scene.log(|log| *log = other);
        scene.brokers.release();
        Ok::<(), Failure>(())
    };
    let (ran, swapped) = tokio::join!(upkeep(&["gc"], &file, scene.faults), swapped);
    swapped?;
    let (code, report, said) = ran?;
    ensure_eq!((code, cost(&report)), (0, (11, 0, 0)), "exit code, cost: {said}");
    let made = scene.indexes();
    scene.collect_garbage(&[]).await?;
    scene.everything_is_readable().await?;
    ensure_eq!((made.len(), scene.indexes().len()), (0, 1), "indexes of two logs, and of one");
    Ok(())
}

#[tokio::test]
async fn what_was_read_of_two_logs_is_no_index() -> Checked {
    two_logs_are_no_index(None).await
}

/// What a page begins behind is gone when it is asked for: retention goes on while logs are read.
pub async fn a_log_that_goes_while_it_is_read_stops_nothing(faults: Faults) -> Checked {
    let scene = bare(faults, |setup| setup).await?;
    for seed in 0..11 {
        scene.append(&single(noise(seed, 1_000_000)))?;
    }
    // A page of 8 MiB ends behind eight of them.
    scene.log(|log| retake(log, 8));
    for held in [Fault::Pieces(Vec::new()), Fault::HoldAfter(0)] {
        scene.brokers.cluster().script(FETCH, held);
    }
    let file = scene.proxy.config_file();
    let shortened = async {
        let page = async || (!scene.brokers.cluster().scripted(FETCH)).then_some(());
        until("a second page", page).await?;
        scene.log(|log| log.shorten(8));
        scene.brokers.release();
        Ok::<(), Failure>(())
    };
    let (ran, shortened) = tokio::join!(upkeep(&["gc"], &file, scene.faults), shortened);
    shortened?;
    let (code, report, said) = ran?;
    ensure_eq!(code, 0, "exit code while retention goes on: {said}");
    ensure_eq!((cost(&report), scene.indexes().len()), ((11, 0, 0), 0), "cost, indexes: {said}");
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), scene.indexes().len()), ((3, 0, 0), 1), "cost of the next: {said}");
    Ok(())
}

#[tokio::test]
async fn a_log_that_begins_later_while_it_is_read_is_read_on() -> Checked {
    a_log_that_goes_while_it_is_read_stops_nothing(None).await
}

/// A batch that was damaged on its way is not read, and not what an index is made of.
pub async fn a_damaged_batch_is_not_read(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let whole = scene.log(|log| log.clone());
    scene.log(|log| {
        log.compact(|batch| {
            let mut bytes = batch.to_vec();
            let len = REFERENCE_MAGIC.len();
            let at = bytes.windows(len).position(|part| part == REFERENCE_MAGIC);
            let at = at.filter(|_| heads(batch)[0].base_offset == 0);
            // It looks like no reference any more.
            if let Some(at) = at {
                bytes[at] ^= 1;
            }
            Some(bytes.into())
        });
    });
    let file = scene.proxy.config_file();
    let (code, _, said) = upkeep(&["gc"], &file, scene.faults).await?;
    scene.log(|log| *log = whole);
    scene.age_marks()?;
    scene.gc(&[]).await?;
    scene.everything_is_readable().await?;
    ensure_eq!(code, 3, "exit code with a damaged batch: {said}");
    ensure!(said.contains("t/0 cannot be read"), "it is not told: {said}");
    ensure_eq!(scene.objects().len(), 4, "objects left");
    Ok(())
}

#[tokio::test]
async fn a_batch_whose_sum_does_not_fit_counts_as_unread() -> Checked {
    a_damaged_batch_is_not_read(None).await
}

#[tokio::test]
async fn a_leader_that_is_elected_where_a_page_ends_is_no_doubt() -> Checked {
    let scene = bare(None, |setup| setup).await?;
    for seed in 0..11 {
        scene.append(&single(noise(seed, 1_000_000)))?;
    }
    // A page of 8 MiB ends behind eight of them.
    scene.log(|log| retake(log, 8));
    let (report, _) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), scene.indexes().len()), ((11, 0, 0), 1), "cost, indexes");
    let (report, _) = scene.gc(&[]).await?;
    ensure_eq!(cost(&report), (1, 10, 1), "cost of the next one");
    Ok(())
}

/// What was damaged, cut or written by a later version is not used, and told once.
pub async fn a_damaged_index_is_not_used(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.append(&single(noise(9, 10)))?;
    scene.gc(&[]).await?;
    let file = scene.indexes().remove(0);
    let whole = std::fs::read(&file).map_err(failure)?;
    let with = |at: usize, bits: u8| {
        let mut bytes = whole.clone();
        bytes[at] ^= bits;
        bytes
    };
    let cases = [
        (with(FIRST_PACK, 1), "is damaged"),
        (with(VERSION, 3), "version 2"),
        (whole[..FIRST_PACK + 9].to_vec(), "is damaged"),
        (Vec::new(), "is damaged"),
    ];
    for (bytes, why) in cases {
        std::fs::write(&file, bytes).map_err(failure)?;
        let (report, said) = scene.gc(&["--dry-run"]).await?;
        ensure_eq!(counted(&report, "marked"), 1, "marked by a gc with a damaged index: {said}");
        ensure_eq!((cost(&report), logs(&report, "doubted")), ((4, 0, 0), 1), "cost: {said}");
        ensure_eq!(said.matches(why).count(), 1, "lines with \"{why}\": {said}");
    }
    // The next run that may writes a good one.
    scene.gc(&[]).await?;
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), scene.indexes().len()), ((1, 3, 1), 1), "cost, indexes: {said}");
    scene.age_marks()?;
    scene.gc(&[]).await?;
    ensure_eq!(scene.objects().len(), 3, "objects left");
    scene.everything_is_readable().await
}

#[tokio::test]
async fn a_damaged_index_costs_a_whole_read_and_no_value() -> Checked {
    a_damaged_index_is_not_used(None).await
}

#[tokio::test]
async fn the_index_of_another_cluster_is_not_used() -> Checked {
    let scene = scene(None).await?;
    scene.gc(&[]).await?;
    scene.brokers.cluster().id = "another".to_owned();
    let owner = scene.store.path().join("upkeep/v1/owner/fake");
    std::fs::remove_file(owner).map_err(failure)?;
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), counted(&report, "referred")), ((3, 0, 0), 3), "cost, referred");
    ensure_eq!(said.matches("another cluster's").count(), 1, "lines about it: {said}");
    Ok(())
}

/// A topic is made anew, and its log ends with the same batch at the same offset.
pub async fn a_topic_made_anew_has_no_index(faults: Faults) -> Checked {
    let mut scene = bare(faults, |setup| setup).await?;
    let last = single(noise(9, 10));
    for seed in [0, 1] {
        scene.take(single(noise(seed, 20_000))).await?;
    }
    scene.append(&last)?;
    scene.age_objects()?;
    scene.gc(&[]).await?;
    let old = scene.indexes();
    {
        let mut cluster = scene.brokers.cluster();
        cluster.topics.retain(|topic| topic.name != "t");
        cluster.add_topic("t", 3);
        let made = cluster.topics.iter_mut().filter(|topic| topic.name == "t");
        made.for_each(|topic| topic.id = Uuid::from_bytes([9; 16]));
    }
    scene.sent.clear();
    for seed in [3, 4] {
        scene.take(single(noise(seed, 20_000))).await?;
    }
    scene.append(&last)?;
    scene.age_objects()?;
    scene.collect_garbage(&["--deleted-topics"]).await?;
    scene.everything_is_readable().await?;
    ensure_eq!(scene.objects().len(), 2, "objects left");
    let left = scene.indexes();
    ensure!(old.len() == 1 && left.len() == 1 && old != left, "{old:?}, then {left:?}");
    Ok(())
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_read_whole() -> Checked {
    a_topic_made_anew_has_no_index(None).await
}

/// Where records go from the middle of a log all of it is read.
pub async fn compacted_logs_are_read_whole(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    scene.gc(&[]).await?;
    ensure_eq!(scene.indexes().len(), 1, "indexes while old records are deleted");
    scene.brokers.cluster().configure("t", "cleanup.policy", "compact,delete");
    scene.log(|log| log.compact(|batch| (heads(batch)[0].base_offset > 0).then(|| batch.clone())));
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!(counted(&report, "marked"), 2, "marked once a value was compacted away: {said}");
    ensure_eq!((cost(&report), scene.indexes().len()), ((3, 0, 0), 0), "cost, indexes: {said}");
    Ok(())
}

#[tokio::test]
async fn a_compacted_log_is_read_whole() -> Checked {
    compacted_logs_are_read_whole(None).await
}

#[tokio::test]
async fn of_the_generations_that_a_killed_run_leaves_the_newest_is_used() -> Checked {
    let mut scene = scene(None).await?;
    scene.gc(&[]).await?;
    let older = scene.indexes().remove(0);
    let bytes = std::fs::read(&older).map_err(failure)?;
    scene.take(single(noise(3, 20_000))).await?;
    scene.gc(&[]).await?;
    let newest = scene.indexes();
    ensure!(newest.len() == 1 && newest[0] != older, "{newest:?} behind {older:?}");
    // As if it had been killed before it removed the one before.
    std::fs::write(&older, bytes).map_err(failure)?;
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!(cost(&report), (1, 3, 1), "cost behind a killed run: {said}");
    ensure_eq!(scene.indexes(), newest, "indexes left");
    scene.everything_is_readable().await
}

#[tokio::test]
async fn what_an_aborted_transaction_refers_to_stays_while_it_is_in_the_log() -> Checked {
    let mut scene = bare(None, |setup| setup).await?;
    scene.take(single(noise(0, 20_000))).await?;
    let stored = scene.log(|log| log.batches().next().cloned());
    let stored = stored.ok_or_else(|| failure("no batch in the log"))?;
    let open = changed(&changed(&stored, ATTRIBUTES, &[0, 1 << 4]), PRODUCER_ID, &[7; 8]);
    scene.log(|log| *log = FakeLog::default());
    scene.append(&open)?;
    scene.log(|log| log.end_transaction(i64::from_be_bytes([7; 8]), 3, false));
    scene.age_objects()?;
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), counted(&report, "referred")), ((2, 0, 0), 1), "cost: {said}");
    let (report, said) = scene.gc(&[]).await?;
    ensure_eq!((cost(&report), counted(&report, "referred")), ((1, 1, 1), 1), "cost: {said}");
    Ok(())
}

#[tokio::test]
async fn an_index_in_a_bucket_is_used() -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, None).offload_s3(&s3, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    for seed in 0..2 {
        let (error, _) = client.produce(9, "t", 0, &single(noise(seed, 20_000))).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    for expected in [(2, 0, 0), (1, 1, 1)] {
        let (code, report, said) = upkeep(&["gc"], &proxy.config_file(), None).await?;
        ensure_eq!((code, cost(&report)), (0, expected), "exit code and cost: {said}");
        ensure_eq!(counted(&report, "referred"), 2, "referred: {said}");
    }
    let indexes = s3.objects().into_keys().filter(|key| key.starts_with("upkeep/v1/index/fake/"));
    ensure_eq!(indexes.count(), 1, "indexes in the bucket");
    Ok(())
}
