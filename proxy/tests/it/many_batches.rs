//! Fetch answers of very many batches.

use bytes::Bytes;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::{heads, read, single};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise};

/// More than an answer may have pieces.
const BATCHES: usize = 205_000;

/// A large value stored, and batches of one small record each behind it in the same answer: as a
/// producer writes them that waits for no second record.
pub async fn a_value_beside_many_batches_comes_back(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let large = single(noise(1, 200_000));
    ensure_eq!(client.produce(9, "t", 0, &large).await?, (0, 0), "answer of Produce");
    put(&brokers, &single(vec![b'x']));
    ensure_eq!(client.produce(9, "t", 0, &large).await?.0, 0, "error of Produce");

    let (error, section) = client.fetch(11, "t", 0, 0, i32::MAX).await?;
    ensure_eq!(error, 0, "error of Fetch");
    let heads = heads(&section);
    ensure_eq!(heads.len(), BATCHES + 2, "batches");
    let in_order = (0..).zip(&heads).all(|(n, head)| head.base_offset == n);
    ensure!(in_order, "offsets have a gap");
    for at in [0, heads.len() - 1] {
        let (error, section) = client.fetch(11, "t", 0, at as i64, i32::MAX).await?;
        ensure_eq!(error, 0, "error of Fetch at {at}");
        ensure!(read(&section)[0].value == read(&large)[0].value, "the value at {at} differs");
    }
    Ok(())
}

fn put(brokers: &Brokers, batch: &Bytes) {
    let mut cluster = brokers.cluster();
    let log = cluster.log("t", 0).expect("a log");
    for _ in 0..BATCHES {
        log.append(batch).expect("a batch");
    }
}

#[tokio::test]
async fn a_large_value_beside_very_many_batches_comes_back() -> Checked {
    a_value_beside_many_batches_comes_back(None).await
}

/// Where little is held whole, a consumer that asks for much is given little at a time.
pub async fn a_small_buffer_strands_nobody(faults: Faults) -> Checked {
    const RECORDS: i64 = 30;
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let small = "frame_bytes_max = 1048588\nbuffered_bytes_max = 4194304";
    let setup = Setup::new(&brokers, faults).offload(&store, 1000).limit(small);
    let proxy = setup.start().await;
    for n in 0..RECORDS {
        let batch = single(noise(n.unsigned_abs(), 100_000));
        brokers.cluster().log("t", 0).expect("a log").append(&batch).expect("a batch");
    }
    let mut offset = 0;
    while offset < RECORDS {
        let mut client = Client::connect(proxy.port).await?;
        let (error, section) = client.fetch(11, "t", 0, offset, 50 << 20).await?;
        ensure_eq!(error, 0, "error of Fetch at {offset}");
        let got = read(&section);
        ensure!(!got.is_empty(), "nothing came at {offset}");
        for record in got {
            ensure_eq!(record.offset, offset, "offset of a record");
            let sent = noise(offset.unsigned_abs(), 100_000);
            ensure!(record.value == Some(sent), "the value at {offset} differs");
            offset += 1;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_asks_for_more_than_is_held_gets_on() -> Checked {
    a_small_buffer_strands_nobody(None).await
}
