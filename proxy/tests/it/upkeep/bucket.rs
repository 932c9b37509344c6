//! Upkeep of a bucket: listings that come in pages, a service that is busy or silent for a while,
//! deletions at once, long packs, and uploads that never became objects.

use std::time::Duration;

use serde_json::Value;

use super::{OLD, counted, upkeep};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::produce;
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

/// Values that the log refers to.
const REFERRED: u64 = 7;
/// Objects that nothing refers to.
const ORPHANS: u64 = 20;
const MARKS: &str = "upkeep/v1/marks/fake/";
/// More refusals in a row than it takes to have a store left alone by who has clients.
const BUSY: [Fault; 6] = [Fault::Status(503, "SlowDown"); 6];
/// A value that is stored in three parts.
const LONG: usize = 33_600_000;

struct Scene {
    _brokers: Brokers,
    s3: S3,
    proxy: Proxy,
    faults: Faults,
}

/// A bucket with nothing in it. Faults are those of upkeep.
async fn empty(faults: Faults) -> Checked<(Scene, Client)> {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let setup = Setup::new(&brokers, None).offload_s3(&s3, 1000).offloaded("t");
    let proxy = setup.start().await;
    let client = Client::connect(proxy.port).await?;
    until("an owner", async || s3.has_owner().then_some(())).await?;
    Ok((Scene { _brokers: brokers, s3, proxy, faults }, client))
}

/// Stored values, and objects of the same topic that nothing refers to, in one shard; all of them
/// old.
async fn scene(faults: Faults) -> Checked<Scene> {
    let (scene, mut client) = empty(faults).await?;
    for n in 0..REFERRED {
        let (error, _) = client.produce(9, "t", 0, &single(noise(n, 20_000))).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    let (key, object) = scene.s3.objects().pop_first().ok_or_else(|| failure("no object"))?;
    let (folder, pack) = key.rsplit_once('/').ok_or_else(|| failure("no key"))?;
    scene.s3.change(|objects| {
        for n in 0..ORPHANS {
            objects.insert(format!("{folder}/{}{n:030x}", &pack[..2]), object.clone());
        }
    });
    Ok(scene)
}

impl Scene {
    /// Runs a command of upkeep that is to come to a report: its exit code, the report, and what it
    /// said.
    async fn run(&self, args: &[&str]) -> Checked<(i32, Value, String)> {
        upkeep(args, &self.proxy.config_file(), self.faults).await
    }

    /// Packs that are stored.
    fn packs(&self) -> u64 {
        self.s3.objects().keys().filter(|key| key.starts_with("v1/")).count() as u64
    }

    /// Marks as they would be days later, each in an object of its own.
    fn age_marks(&self) -> Checked {
        let mut marks = Vec::new();
        self.s3.change(|objects| {
            objects.retain(|key, text| {
                let is_marks = key.starts_with(MARKS);
                if is_marks {
                    let text = String::from_utf8_lossy(text);
                    marks.extend(text.lines().map(str::to_owned));
                }
                !is_marks
            });
        });
        for (n, line) in marks.iter().enumerate() {
            let (at, key) = line.split_once(' ').ok_or_else(|| failure("no mark"))?;
            let at: u128 = at.parse().map_err(failure)?;
            let mark = format!("{} {key}\n", at - OLD.as_millis()).into_bytes();
            self.s3.change(|objects| {
                objects.insert(format!("{MARKS}{n:020}"), mark);
            });
        }
        ensure!(!marks.is_empty(), "no marks");
        Ok(())
    }

    /// Has the first of two passes of `gc` made, and time pass.
    async fn mark(&self) -> Checked {
        let (code, report, said) = upkeep(&["gc"], &self.proxy.config_file(), None).await?;
        ensure_eq!((code, counted(&report, "marked")), (0, ORPHANS), "a first pass: {said}");
        self.age_marks()
    }
}

/// A key that a pack of the cluster may have.
fn pack_key(n: u64) -> String {
    format!("v1/{n:02x}/fake/{n:032x}/0/{n:032x}")
}

/// Uploads that a report counts under this name.
fn uploads(report: &Value, name: &str) -> u64 {
    report["uploads"][name]["uploads"].as_u64().unwrap_or(99)
}

/// Packs, and marks of earlier passes, come in pages: all of them count.
pub async fn every_page_counts(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    let (code, report, said) = scene.run(&["gc"]).await?;
    let n = |name| counted(&report, name);
    let counts = (code, n("stored"), n("referred"), n("marked"), n("deleted"));
    let expected = (0, REFERRED + ORPHANS, REFERRED, ORPHANS, 0);
    ensure_eq!(counts, expected, "exit code, stored, referred, marked, deleted at first: {said}");
    scene.age_marks()?;
    let (code, report, said) = scene.run(&["gc"]).await?;
    let left = scene.packs();
    let counts = (code, counted(&report, "deleted"), left);
    ensure_eq!(counts, (0, ORPHANS, REFERRED), "exit code, deleted, objects left: {said}");
    let (code, report, said) = scene.run(&["fsck", "--deep"]).await?;
    ensure_eq!((code, counted(&report, "orphans")), (0, 0), "exit code and orphans then: {said}");
    Ok(())
}

#[tokio::test]
async fn both_passes_of_gc_see_every_page_of_a_bucket() -> Checked {
    every_page_counts(None).await
}

/// A listing that is refused a few times, or not answered, is asked for again.
pub async fn listings_are_asked_for_again(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    for trouble in [&BUSY[..], &[Fault::Silent]] {
        scene.s3.script(Kind::List, trouble);
        let (code, report, said) = scene.run(&["fsck"]).await?;
        let counts = (code, counted(&report, "stored"));
        ensure_eq!(counts, (0, REFERRED + ORPHANS), "exit code, objects listed: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_listing_outlives_refusals_and_silence() -> Checked {
    listings_are_asked_for_again(None).await
}

/// The same of a look at an object that was not listed.
pub async fn looks_are_asked_for_again(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    let keys: Vec<String> = scene.s3.objects().into_keys().collect();
    let referred = keys.last().ok_or_else(|| failure("no object"))?;
    scene.s3.unlist(referred);
    for trouble in [&BUSY[..], &[Fault::Silent]] {
        let before = scene.s3.count(Kind::Head);
        scene.s3.script(Kind::Head, trouble);
        let (code, report, said) = scene.run(&["fsck"]).await?;
        let dangling = report["dangling"].as_array().map_or(99, Vec::len);
        ensure_eq!((code, dangling), (0, 0), "exit code, dangling references: {said}");
        let asked = scene.s3.count(Kind::Head) - before;
        ensure_eq!(asked, trouble.len() + 1, "looks");
    }
    Ok(())
}

#[tokio::test]
async fn a_look_outlives_refusals_and_silence() -> Checked {
    looks_are_asked_for_again(None).await
}

/// The same of deletions.
pub async fn deletions_are_asked_for_again(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    scene.mark().await?;
    scene.s3.script(Kind::Delete, &BUSY);
    scene.s3.script(Kind::Delete, &[Fault::Silent]);
    let (code, report, said) = scene.run(&["gc"]).await?;
    let left = scene.packs();
    let counts = (code, counted(&report, "deleted"), left);
    ensure_eq!(counts, (0, ORPHANS, REFERRED), "exit code, deleted, left by a busy store: {said}");
    Ok(())
}

#[tokio::test]
async fn deletions_outlive_refusals_and_silence() -> Checked {
    deletions_are_asked_for_again(None).await
}

/// A store that fails often in a row is asked on by who has time.
pub async fn upkeep_has_time(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    let refusals = [Fault::Status(503, "SlowDown"); 40];
    scene.s3.script(Kind::Get, &refusals);
    // One that is answered at once is over before the next one comes.
    scene.s3.always(Kind::Get, Fault::Slow(Duration::from_millis(300)));
    let (code, report, said) = scene.run(&["fsck", "--deep"]).await?;
    let damaged = report["damaged"].as_array().map_or(99, Vec::len);
    ensure_eq!((code, damaged), (0, 0), "exit code, damaged in a busy store: {said}");
    ensure!(scene.s3.count(Kind::Get) > refusals.len(), "the packs were not read");
    let most = scene.s3.at_once(Kind::Get);
    ensure!((2..=16).contains(&most), "{most} reads at once");
    Ok(())
}

#[tokio::test]
async fn upkeep_asks_a_busy_store_on() -> Checked {
    upkeep_has_time(None).await
}

/// Objects go side by side, and not all at once.
pub async fn deletions_overlap(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    scene.mark().await?;
    scene.s3.always(Kind::Delete, Fault::Slow(Duration::from_millis(300)));
    let (code, report, said) = scene.run(&["gc"]).await?;
    ensure_eq!((code, counted(&report, "deleted")), (0, ORPHANS), "exit code, deleted: {said}");
    let most = scene.s3.at_once(Kind::Delete);
    ensure!((2..=16).contains(&most), "{most} deletions at once");
    Ok(())
}

#[tokio::test]
async fn deletions_are_made_at_once_within_a_bound() -> Checked {
    deletions_overlap(None).await
}

/// However long a pack is, no more of it is asked for than has room.
pub async fn long_packs_are_read_in_ranges(faults: Faults) -> Checked {
    let (scene, mut client) = empty(faults).await?;
    let (error, _) = client.produce(9, "t", 0, &single(noise(1, LONG))).await?;
    ensure_eq!(error, 0, "error of Produce");
    let (code, _, said) = scene.run(&["fsck", "--deep"]).await?;
    ensure_eq!(code, 0, "exit code of a long pack that is sound: {said}");
    let longest = scene.s3.longest_range();
    ensure!((1..=8 << 20).contains(&longest), "{longest} bytes were asked for at once");
    scene.s3.change(|objects| {
        // Another owner would be another cluster's bucket.
        for (_, object) in objects.iter_mut().filter(|(key, _)| key.starts_with("v1/")) {
            let middle = object.len() / 2;
            object[middle] ^= 1;
        }
    });
    let (code, report, said) = scene.run(&["fsck", "--deep"]).await?;
    let damaged = report["damaged"].as_array().map_or(99, Vec::len);
    ensure_eq!((code, damaged), (1, 1), "exit code and damaged, one changed: {said}");
    let why = report["damaged"][0].as_str().unwrap_or_default();
    ensure!(why.contains("checksum of the part at byte 64"), "why it is damaged: {why}");
    Ok(())
}

#[tokio::test]
async fn a_long_pack_is_checked_in_ranges() -> Checked {
    long_packs_are_read_in_ranges(None).await
}

/// A process is killed while it stores a value in parts. Its upload goes once the grace is over,
/// and so do others of the cluster, on all pages; those of others stay.
pub async fn broken_off_uploads_go(faults: Faults) -> Checked {
    let (mut scene, mut client) = empty(faults).await?;
    scene.s3.script(Kind::Put, &[Fault::Silent]);
    client.send(0, 9, &produce(9, -1, "t", &[(0, single(noise(1, LONG)))])).await?;
    let parts = async || (scene.s3.parts_left() == 2).then_some(());
    until("parts of an upload", parts).await?;
    scene.proxy.signal("KILL");
    scene.proxy.ended().await?;
    for n in 0..6 {
        scene.s3.leave_upload(&pack_key(n), &[1; 1000]);
    }
    let other = pack_key(9).replace("fake", "other");
    let theirs = ["backups/day", "v1/00/fake/backups/day/0", &other];
    theirs.iter().for_each(|key| scene.s3.leave_upload(key, b"theirs"));

    let (code, report, said) = scene.run(&["gc"]).await?;
    let counts = (code, uploads(&report, "begun"), uploads(&report, "left"));
    ensure_eq!(counts, (0, 7, 0), "exit code, begun, left within the grace: {said}");
    ensure_eq!(scene.s3.uploads_left().len(), 10, "uploads within the grace");
    scene.s3.age_uploads();
    for args in [&["fsck"][..], &["gc", "--dry-run"]] {
        let (code, report, said) = scene.run(args).await?;
        let counts = (code, uploads(&report, "begun"), uploads(&report, "left"));
        ensure_eq!(counts, (0, 0, 7), "exit code, begun, left behind the grace: {said}");
        let bytes = report["uploads"]["left"]["bytes"].as_u64().unwrap_or(0);
        ensure!(bytes > 16_000_000, "{bytes} bytes of parts are told by {args:?}");
        ensure_eq!(scene.s3.uploads_left().len(), 10, "uploads after {args:?}");
    }
    let (code, report, said) = scene.run(&["gc"]).await?;
    ensure_eq!((code, uploads(&report, "aborted")), (0, 7), "exit code, aborted: {said}");
    ensure_eq!(scene.s3.uploads_left(), theirs, "uploads left by gc");
    Ok(())
}

#[tokio::test]
async fn an_upload_of_a_process_that_was_killed_goes_after_the_grace() -> Checked {
    broken_off_uploads_go(None).await
}

/// Not aborted is an upload whose object is there, for it may have become that, nor one that nobody
/// tells the age of.
pub async fn doubtful_uploads_stay(faults: Faults) -> Checked {
    let (scene, mut client) = empty(faults).await?;
    let (error, _) = client.produce(9, "t", 0, &single(noise(1, 20_000))).await?;
    ensure_eq!(error, 0, "error of Produce");
    let (present, _) = scene.s3.objects().pop_first().ok_or_else(|| failure("no object"))?;
    let (ageless, broken_off) = (pack_key(1), pack_key(2));
    for key in [&present, &ageless, &broken_off] {
        scene.s3.leave_upload(key, &[1; 1000]);
    }
    scene.s3.age_uploads();
    scene.s3.forget_age(&ageless);
    let mut stay = vec![present, ageless];
    stay.sort();
    for args in [&["gc", "--dry-run"][..], &["gc"]] {
        let (code, report, said) = scene.run(args).await?;
        let n = |name| uploads(&report, name);
        let counts = (code, n("begun"), n("left"), n("aborted"), n("kept"));
        let expected = (0, 1, 2, 1, 1);
        ensure_eq!(counts, expected, "exit code, begun, left, aborted, kept by {args:?}: {said}");
    }
    ensure_eq!(scene.s3.uploads_left(), stay, "uploads in doubt");
    Ok(())
}

#[tokio::test]
async fn an_upload_that_may_have_become_an_object_or_may_be_new_stays() -> Checked {
    doubtful_uploads_stay(None).await
}

/// What goes wrong with one upload, or with all, is told, and is no failure of what was asked for.
pub async fn uploads_stop_nothing(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    (0..6).for_each(|n| scene.s3.leave_upload(&pack_key(n), &[1; 1000]));
    scene.s3.age_uploads();
    let gone = Fault::Status(404, "NoSuchKey");
    let denied = Fault::Status(403, "AccessDenied");
    let told = |report: &Value| report["uploads"]["refused"].as_str().map(str::to_owned);
    scene.s3.script(Kind::Uploads, &[gone]);
    let (code, report, said) = scene.run(&["fsck"]).await?;
    let counts = (code, counted(&report, "stored"), uploads(&report, "left"));
    ensure_eq!(counts, (0, REFERRED + ORPHANS, 0), "exit code, stored, left: {said}");
    ensure!(told(&report).is_some(), "a listing that fails is not told: {report}");
    // Of all that is left, only the parts of an upload are asked for so.
    scene.s3.script(Kind::Other, &[gone]);
    scene.s3.script(Kind::Head, &[denied]);
    scene.s3.script(Kind::Abort, &[denied]);
    let (code, report, said) = scene.run(&["gc"]).await?;
    let counts = (code, uploads(&report, "left"), uploads(&report, "aborted"));
    ensure_eq!(counts, (0, 6, 4), "exit code, left, aborted though two fail: {said}");
    let unmeasured = report["uploads"]["left"]["unmeasured"].as_u64();
    ensure_eq!(unmeasured, Some(1), "uploads without bytes");
    ensure!(told(&report).is_some(), "uploads that are not aborted are not told: {report}");
    ensure_eq!(counted(&report, "marked"), ORPHANS, "marked beside them");
    let (code, report, said) = scene.run(&["gc"]).await?;
    let left = scene.s3.uploads_left().len();
    let counts = (code, uploads(&report, "aborted"), left);
    ensure_eq!(counts, (0, 2, 0), "exit code, aborted, left by the next one: {said}");
    ensure_eq!(told(&report), None, "what went wrong then");
    Ok(())
}

#[tokio::test]
async fn an_upload_that_cannot_be_aborted_stops_no_other_and_no_gc() -> Checked {
    uploads_stop_nothing(None).await
}

/// A service may not know listings of uploads, or not grant them: all else is done.
pub async fn uploads_are_asked_for_again(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    for trouble in [&BUSY[..], &[Fault::Silent]] {
        scene.s3.script(Kind::Uploads, trouble);
        let (code, report, said) = scene.run(&["fsck"]).await?;
        let told = (code, uploads(&report, "left"));
        ensure_eq!(told, (0, 0), "exit code and uploads in spite of trouble: {said}");
    }
    for (status, code) in [(501, "NotImplemented"), (403, "AccessDenied")] {
        scene.s3.always(Kind::Uploads, Fault::Status(status, code));
        let (exit, report, said) = scene.run(&["gc"]).await?;
        ensure_eq!((exit, counted(&report, "marked")), (0, ORPHANS), "without uploads: {said}");
        let why = report["uploads"]["refused"].as_str().unwrap_or_default();
        ensure!(why.starts_with(&format!("{status} {code}")), "told of {code}: {why}");
        ensure!(!said.contains(code), "an answer is told as a failure: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn uploads_are_told_in_spite_of_trouble_and_stop_nothing_if_they_cannot_be() -> Checked {
    uploads_are_asked_for_again(None).await
}
