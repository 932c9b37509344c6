//! The disk of a local store is full: what cannot be kept is not acknowledged, and once there is
//! room again nobody has to do anything.
//!
//! A disk of a test is never full, so a fault says that there is no room: one pack is stored, so
//! many attempts after it find none, and those behind them do again.

use bytes::Bytes;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};

/// As many attempts as are made before a store is left alone for a moment, and that for longer than
/// the pause behind the last of them.
pub const FULL: &str = "disk-full=1*off->5*return;store-rest-ms=return(3000)";
const STORAGE_ERROR: i16 = 56;
const ALL: i32 = i32::MAX;

struct Scene {
    brokers: Brokers,
    store: Folder,
    proxy: Proxy,
    client: Client,
}

/// One value is stored, and there is no room for the next one.
async fn scene(faults: Faults, change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, faults.or(Some(FULL))).offload(&store, 1000);
    let proxy = change(setup).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let first = client.produce(9, "t", 0, &single(noise(0, 30_000))).await?;
    ensure_eq!(first, (0, 0), "answer while there is room");
    Ok(Scene { brokers, store, proxy, client })
}

impl Scene {
    /// The values in the log are these, in their order, once the store is asked again.
    async fn holds(&mut self, sent: &[Bytes]) -> Checked {
        let section = until("an answer of the store", async || {
            let (error, section) = self.client.fetch(11, "t", 0, 0, ALL).await.ok()?;
            (error != STORAGE_ERROR).then_some((error, section))
        });
        let (error, section) = section.await?;
        ensure_eq!(error, 0, "error of Fetch");
        let values = |records: &Bytes| read(records).into_iter().map(|record| record.value);
        let sent: Vec<_> = sent.iter().flat_map(values).collect();
        ensure!(values(&section).eq(sent), "the values differ");
        Ok(())
    }

    /// The same, and in counts: nothing is lost, nothing dangles, and there is no orphan.
    async fn is_sound(&mut self, what: &str, sent: &[Bytes]) -> Checked {
        self.holds(sent).await?;
        let mut ledger = Ledger::default();
        (0..).zip(sent).for_each(|(base, batch)| ledger.acknowledged("t", 0, base, batch));
        let held = Held::in_folder(&self.store)?;
        ledger.tally(self.proxy.port, &self.brokers, &held).await?.is_sound(what, 0)
    }

    /// Every attempt is counted as what it is, and there is a line about it.
    async fn is_told(&self) -> Checked {
        let failures = "firebreak_store_failures_total{op=\"put\",kind=\"full\"}";
        ensure_eq!(self.proxy.metric(failures).await?, 5.0, "attempts that found no room");
        let line = |line: &&str| line.contains("object store failed") && line.contains("full");
        let told = async || self.proxy.log().lines().find(line).map(str::to_owned);
        println!("{}", until("a line about it", told).await?);
        Ok(())
    }
}

/// By the rule `fail` a batch is refused with a retriable error, and stored once there is room.
pub async fn what_cannot_be_kept_is_refused(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let [first, second, small] =
        [(0, 30_000), (1, 40_000), (2, 100)].map(|(n, bytes)| single(noise(n, bytes)));
    let refused = scene.client.produce(9, "t", 0, &second).await?;
    ensure_eq!(refused, (STORAGE_ERROR, -1), "answer while the disk is full");
    ensure_eq!(scene.brokers.cluster().count(0), 1, "Produce requests at the broker");
    scene.is_told().await?;
    let pending = std::fs::read_dir(scene.store.path().join("pending")).map_or(99, Iterator::count);
    ensure_eq!(pending, 0, "half files that take room");
    let taken = scene.client.produce(9, "t", 0, &small).await?;
    ensure_eq!(taken, (0, 1), "answer for a small value");
    let taken = until("room", async || {
        let (error, base) = scene.client.produce(9, "t", 0, &second).await.ok()?;
        (error == 0).then_some(base)
    });
    ensure_eq!(taken.await?, 2, "offset once there is room");
    scene.is_sound("a full disk", &[first, small, second]).await
}

#[tokio::test]
async fn a_full_disk_refuses_what_it_cannot_keep_and_goes_on_by_itself() -> Checked {
    what_cannot_be_kept_is_refused(None).await
}

#[tokio::test]
async fn a_full_disk_lets_originals_through_where_the_rule_says_so() -> Checked {
    let inline =
        |setup: Setup| setup.rule("on_store_failure = \"inline\"").rule("inline_bytes_max = 50000");
    let mut scene = scene(None, inline).await?;
    let [first, second] = [(0, 30_000), (1, 40_000)].map(|(n, bytes)| single(noise(n, bytes)));
    let taken = scene.client.produce(9, "t", 0, &second).await?;
    ensure_eq!(taken, (0, 1), "answer while the disk is full");
    scene.is_told().await?;
    let whole = scene.brokers.cluster().log("t", 0).is_some_and(|log| {
        let last = log.batches().last();
        last.is_some_and(|batch| batch.len() > 40_000)
    });
    ensure!(whole, "the value is not in the log");
    scene.is_sound("a full disk, inline", &[first, second]).await
}
