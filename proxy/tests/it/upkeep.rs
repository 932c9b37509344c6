//! Upkeep: what nothing refers to goes in two passes, what something refers to never.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::Value;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, within};

const OLD: Duration = Duration::from_secs(3 * 24 * 3600);

struct Scene {
    _brokers: Brokers,
    store: Folder,
    proxy: Proxy,
    client: Client,
    sent: Vec<Bytes>,
    faults: Faults,
}

/// Three stored values, and an object of the same topic that nothing refers to; all of them old.
#[expect(clippy::disallowed_methods, reason = "files are made old")]
async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(2).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let sent: Vec<_> = (0..3).map(|n| single(noise(n, 20_000))).collect();
    for batch in &sent {
        let (error, _) = client.produce(9, "t", 0, batch).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    let scene = Scene { _brokers: brokers, store, proxy, client, sent, faults };
    let referred = scene.objects().remove(0);
    let name = referred.file_name().expect("a name").to_string_lossy();
    let name: String = name.chars().rev().collect();
    std::fs::copy(&referred, referred.with_file_name(name)).map_err(failure)?;
    for object in scene.objects() {
        let file = std::fs::File::options().write(true).open(object).map_err(failure)?;
        file.set_modified(SystemTime::now() - OLD).map_err(failure)?;
    }
    ensure_eq!(scene.objects().len(), 4, "objects");
    Ok(scene)
}

impl Scene {
    fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.store.path().join("v1"), &mut found);
        found.sort();
        found
    }

    /// Runs a command of upkeep: its exit code and what it printed.
    async fn run(&self, args: &[&str]) -> Checked<(i32, Value)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
        command.args(args).arg("--json").arg("--config").arg(self.proxy.config_file());
        command.stdin(Stdio::null());
        match self.faults {
            Some(faults) => command.env("FAILPOINTS", faults),
            None => command.env_remove("FAILPOINTS"),
        };
        let done = tokio::task::spawn_blocking(move || command.output());
        let done = within("upkeep", done).await?.map_err(failure)?.map_err(failure)?;
        let printed = serde_json::from_slice(&done.stdout).map_err(|error| {
            failure(format!("{error}: {}", String::from_utf8_lossy(&done.stderr)))
        })?;
        Ok((done.status.code().unwrap_or(-1), printed))
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

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
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
        let n = |name: &str| report[name]["objects"].as_u64().unwrap_or(99);
        (n("stored"), n("referred"), n("orphans"), report["references"].as_u64().unwrap_or(99))
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
    let n = |report: &Value, name: &str| report[name]["objects"].as_u64().unwrap_or(99);
    let (_, report) = scene.run(&["gc", "--dry-run"]).await?;
    ensure_eq!(n(&report, "marked"), 1, "marked by a dry first pass");
    ensure_eq!(scene.objects().len(), 4, "objects after a dry run");
    // Nothing is old enough for the grace of two passes.
    for pass in ["first pass", "pass right after it"] {
        let (_, report) = scene.run(&["gc"]).await?;
        let done = (n(&report, "marked"), n(&report, "deleted"), scene.objects().len());
        ensure_eq!(done, (1, 0, 4), "marked, deleted, left by the {pass}");
    }
    let (code, report) = scene.run(&["gc", "--grace-hours", "0"]).await?;
    let done = (code, n(&report, "deleted"), scene.objects().len());
    ensure_eq!(done, (0, 1, 3), "exit code, deleted, left once the grace is over");
    scene.everything_is_readable().await?;
    let (code, report) = scene.run(&["fsck", "--deep"]).await?;
    ensure_eq!((code, n(&report, "orphans")), (0, 0), "exit code and orphans afterwards");
    Ok(())
}

#[tokio::test]
async fn gc_deletes_in_two_passes_what_nothing_refers_to_and_nothing_else() -> Checked {
    gc_deletes_what_nothing_refers_to(None).await
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "files are made old")]
async fn values_of_topics_that_the_cluster_does_not_show_stay_unless_asked_for() -> Checked {
    let scene = scene(None).await?;
    let object = scene.objects().remove(0);
    let mut parts: Vec<_> = object.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let topic = parts.len() - 3;
    parts[topic] = "00".repeat(16);
    let other: PathBuf = parts.iter().collect();
    std::fs::create_dir_all(other.parent().expect("a folder")).map_err(failure)?;
    std::fs::copy(&object, &other).map_err(failure)?;
    let file = std::fs::File::options().write(true).open(&other).map_err(failure)?;
    file.set_modified(SystemTime::now() - OLD).map_err(failure)?;
    for _ in 0..2 {
        scene.run(&["gc", "--grace-hours", "0"]).await?;
    }
    ensure!(other.exists(), "a value of a topic that is not shown was deleted");
    for _ in 0..2 {
        scene.run(&["gc", "--grace-hours", "0", "--deleted-topics"]).await?;
    }
    ensure!(!other.exists(), "a value of a deleted topic was kept though it was asked for");
    Ok(())
}

#[tokio::test]
async fn nothing_is_deleted_while_a_log_cannot_be_read() -> Checked {
    let mut scene = scene(None).await?;
    scene.proxy.terminate();
    scene.proxy.ended().await?;
    let store = scene.store.path().to_owned();
    drop(scene._brokers);
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    command.args(["gc", "--grace-hours", "0", "--config"]).arg(scene.proxy.config_file());
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = within("gc", done).await?.map_err(failure)?.map_err(failure)?;
    ensure_eq!(done.status.code(), Some(1), "exit code without a cluster");
    let mut left = Vec::new();
    collect(&store.join("v1"), &mut left);
    ensure_eq!(left.len(), 4, "objects left");
    Ok(())
}
