//! Upkeep: what nothing refers to goes in two passes, what something refers to never.

pub mod bucket;
pub mod index;
pub mod life;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protocol_ext::codec::{Codec, Framing};
use serde_json::{Value, json};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{batch, read, records, single};
use crate::harness::s3::S3;
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until, within};
use crate::routed::{OTHER, TOPIC, located, start};
use crate::segments;

const OLD: Duration = Duration::from_secs(3 * 24 * 3600);

struct Scene {
    brokers: Brokers,
    store: Folder,
    proxy: Proxy,
    client: Client,
    sent: Vec<Bytes>,
    faults: Faults,
}

/// Three stored values, and an object of the same topic that nothing refers to; all of them old.
async fn scene(faults: Faults) -> Checked<Scene> {
    scene_of(faults, |setup| setup).await
}

async fn scene_of(faults: Faults, change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let mut scene = bare(faults, change).await?;
    for n in 0..3 {
        scene.take(single(noise(n, 20_000))).await?;
    }
    let referred = scene.objects().remove(0);
    let name = referred.file_name().expect("a name").to_string_lossy();
    let name: String = name.chars().rev().collect();
    std::fs::copy(&referred, referred.with_file_name(name)).map_err(failure)?;
    scene.age_objects()?;
    ensure_eq!(scene.objects().len(), 4, "objects");
    Ok(scene)
}

/// A proxy with a store, and nothing in it. Faults are those of upkeep.
async fn bare(faults: Faults, change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let brokers = Brokers::start(2).await;
    brokers.cluster().add_topic("other", 1);
    let store = Folder::new();
    let setup = Setup::new(&brokers, None).offload(&store, 1000).offloaded("t");
    let proxy = change(setup).start().await;
    // That of the broker which leads the first partition.
    let client = Client::connect(proxy.node(0)).await?;
    Ok(Scene { brokers, store, proxy, client, sent: Vec::new(), faults })
}

/// Runs a command of upkeep: its exit code, what it printed and what it said.
pub async fn upkeep(args: &[&str], config: &Path, faults: Faults) -> Checked<(i32, Value, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    command.args(args).arg("--json").arg("--config").arg(config).stdin(Stdio::null());
    command.env("MINIO_ACCESS_KEY", "tester").env("MINIO_SECRET_KEY", "tester-secret");
    match faults {
        Some(faults) => command.env("FAILPOINTS", faults),
        None => command.env_remove("FAILPOINTS"),
    };
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = within("upkeep", done).await?.map_err(failure)?.map_err(failure)?;
    let printed = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    Ok((done.status.code().unwrap_or(-1), printed, said))
}

/// Objects that a report counts under this name.
fn counted(report: &Value, name: &str) -> u64 {
    report[name]["objects"].as_u64().unwrap_or(99)
}

impl Scene {
    /// Has a batch written to the first partition.
    async fn take(&mut self, batch: Bytes) -> Checked {
        let (error, _) = self.client.produce(9, "t", 0, &batch).await?;
        ensure_eq!(error, 0, "error of Produce");
        self.sent.push(batch);
        Ok(())
    }

    fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.store.path().join("v1"), &mut found);
        found.sort();
        found
    }

    #[expect(clippy::disallowed_methods, reason = "files are made old")]
    fn age_objects(&self) -> Checked {
        for object in self.objects() {
            let file = std::fs::File::options().write(true).open(object).map_err(failure)?;
            file.set_modified(SystemTime::now() - OLD).map_err(failure)?;
        }
        Ok(())
    }

    /// Marks as they would be days later.
    fn age_marks(&self) -> Checked {
        let mut marks = Vec::new();
        collect(&self.store.path().join("upkeep/v1/marks"), &mut marks);
        for file in marks {
            let text = std::fs::read_to_string(&file).map_err(failure)?;
            let mut aged = String::new();
            for line in text.lines() {
                let (at, key) = line.split_once(' ').ok_or_else(|| failure("no mark"))?;
                let at: u128 = at.parse().map_err(failure)?;
                aged.push_str(&format!("{} {key}\n", at - OLD.as_millis()));
            }
            std::fs::write(&file, aged).map_err(failure)?;
        }
        Ok(())
    }

    /// Runs a command of upkeep that comes to a report: its exit code and the report.
    async fn run(&self, args: &[&str]) -> Checked<(i32, Value)> {
        let (code, report, said) = upkeep(args, &self.proxy.config_file(), self.faults).await?;
        ensure!(report.is_object(), "no report of {args:?}: {said}");
        Ok((code, report))
    }

    /// Both passes of `gc`, days apart; gives the last exit code and what the passes said.
    async fn collect_garbage(&self, args: &[&str]) -> Checked<(i32, String)> {
        let args = [&["gc"], args].concat();
        let file = self.proxy.config_file();
        let (_, _, first) = upkeep(&args, &file, self.faults).await?;
        self.age_marks()?;
        let (code, _, second) = upkeep(&args, &file, self.faults).await?;
        Ok((code, first + &second))
    }

    async fn everything_is_readable(&mut self) -> Checked {
        for (n, sent) in (0..).zip(&self.sent) {
            let (error, section) = self.client.fetch(11, "t", 0, n, 1000).await?;
            ensure_eq!(error, 0, "error of Fetch: a value is gone, offset {n}");
            ensure!(read(&section)[0].value == read(sent)[0].value, "value {n} differs");
        }
        Ok(())
    }
}

/// All files below a folder.
pub fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn fsck_tells_dangling_references_orphans_and_damage() -> Checked {
    let scene = scene(None).await?;
    let (code, report) = scene.run(&["fsck", "--deep"]).await?;
    ensure_eq!(code, 0, "exit code of a sound store: {report}");
    let counts = |report: &Value| {
        let references = report["references"].as_u64().unwrap_or(99);
        let n = |name| counted(report, name);
        (n("stored"), n("referred"), n("orphans"), references)
    };
    ensure_eq!(counts(&report), (4, 3, 1, 3), "stored, referred, orphans, references");

    let objects = scene.objects();
    let mut damaged = std::fs::read(&objects[1]).map_err(failure)?;
    damaged[5000] ^= 1;
    std::fs::write(&objects[1], damaged).map_err(failure)?;
    let (code, report) = scene.run(&["fsck", "--deep"]).await?;
    let found = report["damaged"].as_array().map_or(0, Vec::len);
    ensure_eq!((code, found), (1, 1), "exit code and damaged objects");
    for object in objects {
        std::fs::remove_file(object).map_err(failure)?;
    }
    let (code, report) = scene.run(&["fsck"]).await?;
    let dangling = report["dangling"].as_array().map_or(0, Vec::len);
    ensure_eq!((code, dangling), (1, 3), "exit code and dangling references");
    Ok(())
}

/// Two passes: the first marks, the second deletes; what a log refers to stays.
pub async fn gc_deletes_what_nothing_refers_to(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let (_, report) = scene.run(&["gc", "--dry-run"]).await?;
    ensure_eq!(counted(&report, "marked"), 1, "marked by a dry first pass");
    ensure_eq!(scene.objects().len(), 4, "objects after a dry run");
    // Nothing is old enough for the grace of two passes.
    for pass in ["first pass", "pass right after it"] {
        let (_, report) = scene.run(&["gc"]).await?;
        let n = |name| counted(&report, name);
        let done = (n("marked"), n("deleted"), scene.objects().len());
        ensure_eq!(done, (1, 0, 4), "marked, deleted, left by the {pass}");
    }
    scene.age_marks()?;
    let (code, report) = scene.run(&["gc"]).await?;
    let done = (code, counted(&report, "deleted"), scene.objects().len());
    ensure_eq!(done, (0, 1, 3), "exit code, deleted, left once the grace is over");
    scene.everything_is_readable().await?;
    let (code, report) = scene.run(&["fsck", "--deep"]).await?;
    ensure_eq!((code, counted(&report, "orphans")), (0, 0), "exit code and orphans afterwards");
    Ok(())
}

#[tokio::test]
async fn gc_deletes_in_two_passes_what_nothing_refers_to_and_nothing_else() -> Checked {
    gc_deletes_what_nothing_refers_to(None).await
}

#[tokio::test]
async fn values_of_topics_that_the_cluster_does_not_show_stay_unless_asked_for() -> Checked {
    let scene = scene(None).await?;
    let object = scene.objects().remove(0);
    let mut parts: Vec<_> = object.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let topic = parts.len() - 3;
    parts[topic] = "00".repeat(16);
    let other: PathBuf = parts.iter().collect();
    std::fs::create_dir_all(other.parent().expect("a folder")).map_err(failure)?;
    std::fs::copy(&object, &other).map_err(failure)?;
    scene.age_objects()?;
    scene.collect_garbage(&[]).await?;
    ensure!(other.exists(), "a value of a topic that is not shown was deleted");
    scene.collect_garbage(&["--deleted-topics"]).await?;
    ensure!(!other.exists(), "a value of a deleted topic was kept though it was asked for");
    Ok(())
}

#[tokio::test]
async fn nothing_is_deleted_while_a_log_cannot_be_read() -> Checked {
    let mut scene = scene(None).await?;
    for node in [0, 1] {
        scene.brokers.stop(node);
    }
    let (code, said) = scene.collect_garbage(&[]).await?;
    ensure_eq!(code, 3, "exit code without a cluster: {said}");
    ensure_eq!(scene.objects().len(), 4, "objects left");
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_not_there_is_not_made() -> Checked {
    let scene = scene(None).await?;
    let store = scene.store.path().display().to_string();
    let mistyped = format!("{store}x");
    let text = std::fs::read_to_string(scene.proxy.config_file()).map_err(failure)?;
    ensure!(text.contains(&store), "no store in {text}");
    let file = scene.store.path().join("mistyped.toml");
    std::fs::write(&file, text.replace(&store, &mistyped)).map_err(failure)?;
    for args in [&["fsck"][..], &["gc", "--dry-run"]] {
        let (code, _, said) = upkeep(args, &file, None).await?;
        ensure!(code == 2 && said.contains("there is no store"), "exit code {code}: {said}");
        ensure!(!Path::new(&mistyped).exists(), "{args:?} made a folder");
    }
    Ok(())
}

#[tokio::test]
async fn a_grace_of_no_hour_is_refused() -> Checked {
    let scene = scene(None).await?;
    let file = scene.proxy.config_file();
    let (code, _, said) = upkeep(&["gc", "--grace-hours", "0"], &file, None).await?;
    ensure!(code == 2 && said.contains("grace-hours"), "exit code {code}: {said}");
    // Longer than there has been time: everything is young.
    let (code, report) = scene.run(&["gc", "--grace-hours", "18446744073709551615"]).await?;
    let n = |name| counted(&report, name);
    ensure_eq!((code, n("young"), n("marked")), (0, 1, 0), "exit code, young and marked");
    Ok(())
}

/// Two clusters of one name share a bucket: upkeep of the second one touches nothing of the first.
pub async fn a_cluster_of_the_same_name_deletes_nothing(faults: Faults) -> Checked {
    let scene = scene(faults).await?;
    let others = Brokers::start(1).await;
    others.cluster().id = "another".to_owned();
    let setup = Setup::new(&others, None).offload(&scene.store, 1000).offloaded("t");
    let proxy = setup.start().await;
    let line = async || (proxy.logged("belong to another cluster") > 0).then_some(());
    until("a line of the second start", line).await?;
    for _ in 0..2 {
        upkeep(&["gc"], &proxy.config_file(), faults).await?;
        scene.age_marks()?;
    }
    ensure_eq!(scene.objects().len(), 4, "objects left by another cluster's gc");
    for args in [["gc", "--deleted-topics"], ["gc", "--dry-run"], ["fsck", "--deep"]] {
        let (code, _, said) = upkeep(&args, &proxy.config_file(), faults).await?;
        ensure!(code == 3 && said.contains("those of the cluster fake"), "{args:?}: {code} {said}");
    }
    ensure_eq!(scene.collect_garbage(&[]).await?.0, 0, "exit code of the owner's gc");
    ensure_eq!(scene.objects().len(), 3, "objects left by the owner's gc");
    Ok(())
}

#[tokio::test]
async fn upkeep_of_a_cluster_of_the_same_name_is_refused_and_its_start_says_so() -> Checked {
    a_cluster_of_the_same_name_deletes_nothing(None).await
}

/// A part of a virtual topic that upkeep may not see refers to objects nevertheless.
pub async fn an_unshown_part_keeps_its_objects(faults: Faults) -> Checked {
    let scene = routed_scene(faults).await?;
    let nothing = ("ANONYMOUS".to_owned(), OTHER.to_owned(), 0);
    scene.brokers.cluster().allowed.push(nothing);
    let (code, said) = scene.collect_garbage(&[]).await?;
    ensure_eq!(scene.objects().len(), 1, "objects left while a part is not shown");
    ensure!(code == 3 && said.contains("fires-other is not shown"), "exit code {code}: {said}");
    let (code, _, said) = upkeep(&["fsck"], &scene.proxy.config_file(), faults).await?;
    ensure_eq!(code, 3, "exit code of fsck: {said}");

    scene.brokers.cluster().allowed.clear();
    scene.brokers.cluster().troubled.push((OTHER.to_owned(), 5));
    let (code, said) = scene.collect_garbage(&[]).await?;
    ensure!(
        code == 3 && said.contains("fires-other: the cluster answers error 5"),
        "{code}: {said}"
    );
    scene.brokers.cluster().troubled.clear();
    let (code, report) = scene.run(&["fsck"]).await?;
    ensure_eq!((code, counted(&report, "referred")), (0, 1), "exit code and referred");
    Ok(())
}

/// One old object, that a record of the virtual topic's part `other` refers to.
async fn routed_scene(faults: Faults) -> Checked<Scene> {
    let store = Folder::new();
    let (brokers, proxy) = start(None, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    let (error, _) = client.produce(9, TOPIC, 0, &located(None, noise(1, 50_000))).await?;
    ensure_eq!(error, 0, "error of Produce");
    let scene = Scene { brokers, store, proxy, client, sent: Vec::new(), faults };
    scene.age_objects()?;
    Ok(scene)
}

#[tokio::test]
async fn gc_refuses_while_a_part_of_a_virtual_topic_is_not_shown() -> Checked {
    an_unshown_part_keeps_its_objects(None).await
}

/// What lies in topics that no reference can be in does not stop upkeep; in others it does.
pub async fn topics_without_references_are_not_read(faults: Faults) -> Checked {
    let scene = scene_of(faults, |setup| {
        setup.limit("frame_bytes_max = 1048576").limit("buffered_bytes_max = 134217728")
    });
    let scene = scene.await?;
    let bomb = batch(Codec::Gzip, Framing::Plain, &records(&[vec![0; 2_000_000]]));
    let put = |topic: &str| {
        let mut cluster = scene.brokers.cluster();
        cluster.log(topic, 0).expect("a log").append(&bomb).map(drop).map_err(failure)
    };
    put("other")?;
    let (code, report, said) = upkeep(&["fsck"], &scene.proxy.config_file(), faults).await?;
    ensure_eq!(code, 0, "exit code with a batch too large to open elsewhere: {said}");
    ensure_eq!(report["references"].as_u64(), Some(3), "references");
    scene.brokers.cluster().log("t", 0).expect("a log").append_legacy(&legacy(b"a value"));
    let (code, report) = scene.run(&["fsck"]).await?;
    ensure_eq!((code, counted(&report, "referred")), (0, 3), "with a message of an old format");
    put("t")?;
    let (code, said) = scene.collect_garbage(&[]).await?;
    ensure!(code == 3 && said.contains("t/0 cannot be read"), "exit code {code}: {said}");
    ensure_eq!(scene.objects().len(), 4, "objects while a log cannot be read");
    Ok(())
}

/// A message of magic 1 with this value.
fn legacy(value: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 0];
    body.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
    body.extend_from_slice(&(-1_i32).to_be_bytes());
    body.extend_from_slice(&i32::try_from(value.len()).expect("short").to_be_bytes());
    body.extend_from_slice(value);
    let length = i32::try_from(body.len() + 4).expect("short");
    [&[0; 8][..], &length.to_be_bytes(), &[0; 4], &body].concat()
}

#[tokio::test]
async fn upkeep_reads_only_topics_that_can_hold_a_reference() -> Checked {
    topics_without_references_are_not_read(None).await
}

/// What is stored and referred to behind the listing is not dangling; what is gone is.
pub async fn what_is_stored_meanwhile_is_not_dangling(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, None).offload_s3(&s3, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    for n in 0..2 {
        let (error, _) = client.produce(9, "t", 0, &single(noise(n, 20_000))).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    let keys: Vec<String> = s3.objects().into_keys().collect();
    s3.unlist(&keys[0]);
    let dangling = |report: &Value| report["dangling"].as_array().map_or(99, Vec::len);
    let (code, report, said) = upkeep(&["fsck"], &proxy.config_file(), faults).await?;
    ensure_eq!((code, dangling(&report)), (0, 0), "exit code and dangling references: {said}");
    s3.remove(&keys[0]);
    let (code, report, said) = upkeep(&["fsck"], &proxy.config_file(), faults).await?;
    ensure_eq!((code, dangling(&report)), (1, 1), "exit code and dangling, one lost: {said}");
    Ok(())
}

#[tokio::test]
async fn fsck_beside_a_producer_finds_nothing_missing() -> Checked {
    what_is_stored_meanwhile_is_not_dangling(None).await
}

/// Who may write to a topic can write what looks like a reference; nobody follows it.
pub async fn look_alikes_are_no_loss(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let mut forged = [&[0xfb, b'R', b'E', b'F', 1, 0][..], &noise(9, 106)].concat();
    forged[40..44].fill(0);
    let put = scene.brokers.cluster().log("t", 0).expect("a log").append(&single(forged));
    put.map_err(failure)?;
    let (code, report) = scene.run(&["fsck"]).await?;
    ensure_eq!(code, 0, "exit code beside a forged reference: {report}");
    let unsigned = report["unsigned"]["values"].as_u64();
    ensure_eq!((unsigned, report["references"].as_u64()), (Some(1), Some(4)), "unsigned, all");
    ensure_eq!(scene.collect_garbage(&[]).await?.0, 0, "exit code of gc");
    ensure_eq!(scene.objects().len(), 3, "objects left");
    scene.everything_is_readable().await
}

#[tokio::test]
async fn values_that_only_look_like_references_are_told_apart() -> Checked {
    look_alikes_are_no_loss(None).await
}

/// Rules of ours are set, rules of others stay, and no class is taken that cannot be read at once.
pub async fn rules_of_others_stay(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, None).offload_s3(&s3, 1000).start().await;
    let file = proxy.config_file();
    let (code, _, said) = upkeep(&["lifecycle", "print"], &file, faults).await?;
    ensure_eq!((code, s3.lifecycle().len()), (0, 0), "exit code and rules of print: {said}");
    s3.set_lifecycle(
        "<LifecycleConfiguration><Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>x/\
         </Prefix></Filter><Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>",
    );
    for class in ["glacier-ir", "standard-ia"] {
        let args = ["lifecycle", "apply", "--after-days", "30", "--class", class];
        let (code, _, said) = upkeep(&args, &file, faults).await?;
        ensure_eq!(code, 0, "exit code: {said}");
    }
    let rules = s3.lifecycle();
    for (text, times) in [
        ("<ID>theirs</ID>", 1),
        ("<ID>firebreak-cold-packs</ID>", 1),
        ("<ID>firebreak-broken-off-uploads</ID>", 1),
        ("<StorageClass>STANDARD_IA</StorageClass>", 1),
        ("<Expiration>", 1),
        ("<Prefix>v1/</Prefix>", 2),
    ] {
        ensure_eq!(rules.matches(text).count(), times, "{text} in {rules}");
    }
    let args = ["lifecycle", "apply", "--class", "deep-archive"];
    let (code, _, said) = upkeep(&args, &file, faults).await?;
    ensure!(code == 2 && said.contains("deep-archive"), "{code}: {said}");
    Ok(())
}

/// Values of a segment that was deleted after its days go; those of the next one stay.
pub async fn values_go_with_their_segment(faults: Faults) -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = segments::start_as(faults, |setup| setup.offload(&store, 1000)).await?;
    let mut client = Client::connect(proxy.port).await?;
    let large = |seed| located(Some("norcal"), noise(seed, 50_000));
    let (error, _) = client.produce(9, segments::TOPIC, 0, &large(1)).await?;
    ensure_eq!(error, 0, "error of the first value");
    let [old, new] = segments::NORCAL;
    let sealed = json!({ "topic": old, "bases": [0], "ends": [1], "sealed_at_ms": 1 });
    let open = json!({ "topic": new, "bases": [1] });
    let facts = [("segment/fires/norcal/0", sealed), ("segment/fires/norcal/1", open)];
    segments::write_facts(&brokers, &facts);
    let is_there = |topic: &str| brokers.cluster().topics.iter().any(|known| known.name == topic);
    until("a deletion", async || (!is_there(old)).then_some(())).await?;
    let segments_left = async || Some(segments::leader::segments(&proxy).await.ok()?.len());
    until("two segments", async || (segments_left().await? == 2).then_some(())).await?;
    let told = client.produce(9, segments::TOPIC, 0, &large(2)).await?;
    ensure_eq!(told, (0, 1), "error and offset of the second value");
    let mut scene = Scene { brokers, store, proxy, client, sent: Vec::new(), faults: None };
    scene.age_objects()?;
    ensure_eq!(scene.objects().len(), 2, "objects of both segments");
    let (code, said) = scene.collect_garbage(&[]).await?;
    ensure_eq!((code, scene.objects().len()), (0, 1), "exit code of gc, objects left: {said}");
    let (error, section) = scene.client.fetch(11, segments::TOPIC, 0, 1, 100_000).await?;
    ensure_eq!(error, 0, "error of Fetch from the open segment");
    let value = read(&section).remove(0).value;
    ensure!(value == Some(noise(2, 50_000)), "the value of the open segment differs");
    Ok(())
}

/// What offload would save for a virtual topic with days is told of all its segments.
pub async fn every_segment_is_analysed(faults: Faults) -> Checked {
    let (brokers, proxy) = segments::start(None).await?;
    for (n, topic) in (0..).zip(segments::NORCAL.iter().chain(&segments::OTHER)) {
        let mut cluster = brokers.cluster();
        let log = cluster.log(topic, 0).ok_or_else(|| failure("no log"))?;
        log.append(&single(noise(n, 3000))).map_err(failure)?;
    }
    let args = ["analyse", segments::TOPIC, "--threshold-bytes", "1000"];
    let (code, report, said) = upkeep(&args, &proxy.config_file(), faults).await?;
    let n = |name: &str| report[name].as_u64().unwrap_or(99);
    let counts = (code, n("records"), n("large_values"), n("large_bytes"));
    ensure_eq!(counts, (0, 4, 4, 12_000), "exit code, records, large ones, their bytes: {said}");
    Ok(())
}

#[tokio::test]
async fn a_virtual_topic_with_days_is_analysed_segment_by_segment() -> Checked {
    every_segment_is_analysed(None).await
}

#[tokio::test]
async fn a_bucket_gets_our_rules_beside_its_own() -> Checked {
    rules_of_others_stay(None).await
}

#[tokio::test]
async fn values_of_a_deleted_segment_are_garbage() -> Checked {
    values_go_with_their_segment(None).await
}
