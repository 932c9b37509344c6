//! The key that signs references: who may read it, and how it is replaced under readers and
//! writers.

use std::os::unix::fs::PermissionsExt;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise};

const ALL: i32 = i32::MAX;
const OLD: &str = "9c1f4d7be2a86053f81b6ed94a27c05d3b7e";
const NEW: &str = "47a0e93c5d1b8f26e07d4c9a31f586be02d9";

/// A key that a local store makes is its owner's alone.
pub async fn a_key_is_its_owners(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, 1000).start().await;
    let key = std::fs::metadata(store.path().join("reference.key")).map_err(failure)?;
    ensure_eq!(key.permissions().mode() & 0o777, 0o600, "mode of the key");
    ensure_eq!(proxy.logged("chmod 600"), 0, "lines about who can read it");
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_made_can_be_read_by_its_owner_only() -> Checked {
    a_key_is_its_owners(None).await
}

/// The key that signs, and the one that is taken besides.
type Keys = (&'static str, Option<&'static str>);

struct Scene {
    brokers: Brokers,
    store: Folder,
    faults: Faults,
    sent: Vec<Vec<u8>>,
}

impl Scene {
    /// Starts a proxy with these keys, in a folder of its own.
    async fn start(&self, folder: &Folder, (current, previous): Keys) -> Checked<Proxy> {
        let file = folder.path().join("key");
        std::fs::write(&file, current).map_err(failure)?;
        if let Some(previous) = previous {
            std::fs::write(folder.path().join("key.previous"), previous).map_err(failure)?;
        }
        let setup = Setup::new(&self.brokers, self.faults).offload(&self.store, 1000);
        Ok(setup.store(&format!("key_file = {file:?}")).start().await)
    }

    async fn write(&mut self, proxy: &Proxy) -> Checked {
        let value = noise(self.sent.len() as u64, 20_000);
        let mut client = Client::connect(proxy.port).await?;
        let (error, _) = client.produce(9, "t", 0, &single(value.clone())).await?;
        ensure_eq!(error, 0, "error of Produce");
        self.sent.push(value);
        Ok(())
    }

    /// All values so far, as readers of a proxy see them.
    async fn read(&self, proxy: &Proxy) -> Checked<Vec<Vec<u8>>> {
        let mut client = Client::connect(proxy.port).await?;
        let (error, section) = client.fetch(11, "t", 0, 0, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch");
        let values: Vec<_> = read(&section).into_iter().filter_map(|record| record.value).collect();
        ensure_eq!(values.len(), self.sent.len(), "values read");
        Ok(values)
    }

    /// Whatever either of two proxies writes now and before, readers of both are given values.
    async fn serves(&mut self, fleet: &[Proxy; 2], step: &str) -> Checked {
        for proxy in fleet {
            self.write(proxy).await?;
        }
        for (n, proxy) in fleet.iter().enumerate() {
            for (value, sent) in self.read(proxy).await?.iter().zip(&self.sent) {
                let bytes = value.len();
                ensure!(value == sent, "{step}: {bytes} raw bytes for a reader of proxy {n}");
            }
            let refused = "firebreak_offload_objects_total{op=\"refused\"}";
            ensure_eq!(proxy.metric(refused).await?, 0.0, "references refused, {step}");
        }
        Ok(())
    }
}

/// Two proxies get another key, one at a time: first all know it, then it signs.
pub async fn keys_are_replaced(faults: Faults) -> Checked {
    let (brokers, store, sent) = (Brokers::start(1).await, Folder::new(), Vec::new());
    let mut scene = Scene { brokers, store, faults, sent };
    let folders = [Folder::new(), Folder::new()];
    let first = scene.start(&folders[0], (OLD, None)).await?;
    let second = scene.start(&folders[1], (OLD, None)).await?;
    let mut fleet = [first, second];
    scene.serves(&fleet, "the old key").await?;
    for (n, keys) in
        [(1, (OLD, Some(NEW))), (0, (OLD, Some(NEW))), (0, (NEW, Some(OLD))), (1, (NEW, Some(OLD)))]
    {
        fleet[n] = scene.start(&folders[n], keys).await?;
        scene.serves(&fleet, &format!("proxy {n} with {keys:?}")).await?;
    }
    // Who was forgotten gives out references: the order matters.
    let folder = Folder::new();
    let forgotten = scene.start(&folder, (OLD, None)).await?;
    let values = scene.read(&forgotten).await?;
    let raw = values.iter().filter(|value| value.len() == 112).count();
    ensure_eq!(raw, 3, "raw references where the new key is not known");
    Ok(())
}

#[tokio::test]
async fn a_key_is_replaced_under_two_proxies_and_no_reader_sees_a_reference() -> Checked {
    keys_are_replaced(None).await
}
