//! Rules for offload by topic: which one counts, and what becomes of values whose rule is gone.

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::single;
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure_eq, noise};
use crate::upkeep::collect;

struct Scene {
    brokers: Brokers,
    store: Folder,
    ledger: Ledger,
    values: u64,
}

impl Scene {
    /// Writes a value to a topic through a proxy: whether it goes to the store.
    async fn writes(
        &mut self,
        proxy: &Proxy,
        (topic, bytes): (&str, usize),
        is_stored: bool,
    ) -> Checked {
        let before = self.objects();
        let sent = single(noise(self.values, bytes));
        self.values += 1;
        let mut client = Client::connect(proxy.port).await?;
        let (error, base) = client.produce(9, topic, 0, &sent).await?;
        ensure_eq!(error, 0, "error of Produce to {topic}");
        self.ledger.acknowledged(topic, 0, base, &sent);
        let made = self.objects() - before;
        ensure_eq!(made, usize::from(is_stored), "objects of {bytes} bytes in {topic}");
        Ok(())
    }

    fn objects(&self) -> usize {
        let mut found = Vec::new();
        collect(&self.store.path().join("v1"), &mut found);
        found.len()
    }
}

/// Of two rules that fit the first one counts; where none fits values stay in the log, and those
/// that were stored while one did come back.
pub async fn the_first_rule_counts(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    brokers.cluster().add_topic("other", 1);
    let (store, ledger) = (Folder::new(), Ledger::default());
    let mut scene = Scene { brokers, store, ledger, values: 0 };
    let setup = |scene: &Scene, threshold: usize| {
        Setup::new(&scene.brokers, faults).offload(&scene.store, threshold)
    };
    let rule = |topics: &str, threshold: usize| {
        format!("[[offload]]\ntopics = [{topics:?}]\nthreshold_bytes = {threshold}")
    };
    let first = setup(&scene, 1000).offloaded("t").rule(&rule("*", 50_000)).start().await;
    scene.writes(&first, ("t", 20_000), true).await?;
    scene.writes(&first, ("other", 20_000), false).await?;
    scene.writes(&first, ("other", 60_000), true).await?;
    // The same rules the other way round.
    let turned = setup(&scene, 50_000).rule(&rule("t", 1000)).start().await;
    scene.writes(&turned, ("t", 20_000), false).await?;
    scene.writes(&turned, ("t", 60_000), true).await?;
    let removed = setup(&scene, 1000).offloaded("elsewhere").start().await;
    scene.writes(&removed, ("t", 60_000), false).await?;
    let held = Held::in_folder(&scene.store)?;
    let tally = scene.ledger.tally(removed.port, &scene.brokers, &held).await?;
    tally.is_sound("rules that are removed", 0)
}

#[tokio::test]
async fn the_first_rule_that_fits_counts_and_values_outlive_their_rules() -> Checked {
    the_first_rule_counts(None).await
}
