//! What a local store says is kept is on the disk: content and names are synced, and where that
//! fails nothing is acknowledged.
//!
//! A disk of a test does not fail, so a fault says that it does, at the very call that syncs.

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::single;
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure_eq, noise, until};

/// As many attempts as are made before a store is left alone, and that for longer than the pause
/// behind the last of them.
const FILES: &str = "file-sync-fails=5*return;store-rest-ms=return(3000)";
const FOLDERS: &str = "folder-sync-fails=5*return;store-rest-ms=return(3000)";
/// The folder of a pack is synced, and one above it is not, once.
const ABOVE: &str = "folder-sync-fails=1*off->1*return";
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
    if failures > 1.0 {
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

#[tokio::test]
async fn what_is_not_synced_to_the_disk_is_not_acknowledged() -> Checked {
    files_are_on_the_disk(None).await?;
    names_are_on_the_disk(None).await?;
    refused_and_then_taken("a folder above that is not synced", ABOVE, 1.0).await
}
