//! Listeners behind which logs are read and written as they are.

use kafka_protocol::messages::MetadataResponse;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Setup, free_block};
use crate::harness::records::{read, single};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};

/// What one client stores another one reads as a reference, on purpose, and at ports of its own.
pub async fn references_are_given_raw(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    let store = Folder::new();
    let beside = free_block();
    let (first, last) = (beside + 1, beside + 4);
    let line = format!(
        "passthrough = {{ bootstrap = \"127.0.0.1:{beside}\", ports = \"{first}-{last}\" }}"
    );
    let setup = Setup::new(&brokers, faults).offload(&store, 1000).listen(&line);
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    let value = noise(1, 20_000);
    let (error, _) = client.produce(9, "t", 0, &single(value.clone())).await?;
    ensure_eq!(error, 0, "error of Produce");

    let mut raw = Client::connect(beside).await?;
    let (error, section) = raw.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of a raw Fetch");
    let reference = read(&section)[0].value.clone().unwrap_or_default();
    ensure!(reference.starts_with(b"\xfbREF"), "the passthrough restores values");
    ensure_eq!(reference.len(), 112, "bytes of what it gives");
    let told: MetadataResponse = raw.metadata(12).await?;
    let ports: Vec<i32> = told.brokers.iter().map(|broker| broker.port).collect();
    ensure_eq!(ports, [i32::from(first), i32::from(first) + 1], "ports told there");
    // What is written there is not stored, however large.
    let (error, base) = raw.produce(9, "t", 0, &single(noise(2, 30_000))).await?;
    ensure_eq!((error, base), (0, 1), "answer of a raw Produce");
    let batch = brokers.cluster().log("t", 0).expect("a log").batches().last().cloned();
    ensure!(batch.is_some_and(|batch| batch.len() > 30_000), "the value is not in the log");

    let (error, section) = client.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section)[0].value.as_ref() == Some(&value), "the value differs");
    let open = "firebreak_connections{side=\"client\"}";
    ensure_eq!(proxy.metric(open).await?, 2.0, "connections counted");
    Ok(())
}

#[tokio::test]
async fn a_passthrough_listener_gives_references_and_stores_nothing() -> Checked {
    references_are_given_raw(None).await
}
