//! What a local store says is kept is on the disk: content and names are synced, and where that
//! fails nothing is acknowledged.
//!
//! A disk of a test does not fail, so a fault says that it does, at the very call that syncs.

use std::time::Duration;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::single;
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};
use crate::upkeep::collect;

/// As many attempts as are made before a store is left alone, and that for longer than the pause
/// behind the last of them.
const FILES: &str = "file-sync-fails=5*return;store-rest-ms=return(3000)";
const FOLDERS: &str = "folder-sync-fails=5*return;store-rest-ms=return(3000)";
/// The folder of a pack is synced, and one above it is not, once.
const ABOVE: &str = "folder-sync-fails=1*off->1*return";
/// The uppermost of the six that a pack's name hangs on is not, twice in a row: the second attempt
/// finds all folders there, and those below are known to last.
const ABOVE_AGAIN: &str = "folder-sync-fails=5*off->1*return->1*off->1*return";
/// An attempt hangs for longer than anybody waits for it, and then fails.
const HANGS: &str = "folder-sync-fails=1*return(4500)";
const HANG: Duration = Duration::from_millis(4500);
const STORAGE_ERROR: i16 = 56;

/// What is in a file.
pub async fn files_are_on_the_disk(faults: Faults) -> Checked {
    refused_and_then_taken("files that are not synced", faults.unwrap_or(FILES), 5.0).await
}

/// That it is there.
pub async fn names_are_on_the_disk(faults: Faults) -> Checked {
    refused_and_then_taken("folders that are not synced", faults.unwrap_or(FOLDERS), 5.0).await
}

async fn refused_and_then_taken(what: &str, faults: &'static str, failures: f64) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, Some(faults)).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let sent = single(noise(1, 30_000));
    // As many as are made.
    if failures > 4.0 {
        let refused = client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(refused, (STORAGE_ERROR, -1), "answer to {what}");
        ensure_eq!(brokers.cluster().count(0), 0, "Produce requests at the broker");
        let pending = std::fs::read_dir(store.path().join("pending"));
        ensure_eq!(pending.map_or(99, Iterator::count), 0, "half files");
    }
    let taken = until("a disk that works", async || {
        let (error, base) = client.produce(9, "t", 0, &sent).await.ok()?;
        (error == 0).then_some(base)
    });
    ensure_eq!(taken.await?, 0, "offset once the disk works");
    let failed = "firebreak_store_failures_total{op=\"put\",kind=\"io\"}";
    ensure_eq!(proxy.metric(failed).await?, failures, "attempts that failed, {what}");
    let mut ledger = Ledger::default();
    ledger.acknowledged("t", 0, 0, &sent);
    let held = Held::in_folder(&store)?;
    ledger.tally(proxy.port, &brokers, &held).await?.is_sound(what, 0)
}

/// That the folders above it are there, whoever made them and failed.
pub async fn folders_above_are_on_the_disk(faults: Faults) -> Checked {
    let what = "folders above that are not synced twice";
    refused_and_then_taken(what, faults.unwrap_or(ABOVE_AGAIN), 2.0).await
}

/// What an attempt may take back that nobody waits for any more is not what the next one finds.
pub async fn what_may_be_taken_back_is_not_believed(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, Some(faults.unwrap_or(HANGS)));
    let proxy = setup.offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let sent = single(noise(1, 30_000));
    let taken = until("a disk that works", async || {
        let (error, base) = client.produce(9, "t", 0, &sent).await.ok()?;
        (error == 0).then_some(base)
    });
    ensure_eq!(taken.await?, 0, "offset once the disk works");
    // Whatever is taken back is so by then.
    tokio::time::sleep(HANG).await;
    let mut objects = Vec::new();
    collect(&store.path().join("v1"), &mut objects);
    ensure_eq!(objects.len(), 1, "objects behind a disk that hung");
    let late = "firebreak_store_failures_total{op=\"put\",kind=\"late\"}";
    ensure!(proxy.metric(late).await? >= 1.0, "no attempt hung");
    let mut ledger = Ledger::default();
    ledger.acknowledged("t", 0, 0, &sent);
    let held = Held::in_folder(&store)?;
    ledger.tally(proxy.port, &brokers, &held).await?.is_sound("a disk that hangs", 0)
}

#[tokio::test]
async fn a_name_that_a_late_attempt_takes_back_is_not_acknowledged() -> Checked {
    what_may_be_taken_back_is_not_believed(None).await
}

#[tokio::test]
async fn what_is_not_synced_to_the_disk_is_not_acknowledged() -> Checked {
    files_are_on_the_disk(None).await?;
    names_are_on_the_disk(None).await?;
    refused_and_then_taken("a folder above that is not synced", ABOVE, 1.0).await?;
    folders_above_are_on_the_disk(None).await
}
