//! The placement log is read as brokers mean it: what a leader did not commit did not happen.

use bytes::{Bytes, BytesMut};
use protocol_ext::batch::crc32c;
use protocol_ext::split::{ProducerFields, with_producer};

use super::read::{fill, placed};
use super::{NORCAL, PLACEMENT, facts_batch, rolled, start};
use crate::harness::client::Client;
use crate::harness::{Checked, Faults, QUIET};

/// Who writes transactions.
pub const PRODUCER: i64 = 9;

/// A batch of a transaction.
pub fn transactional(batch: &Bytes) -> Bytes {
    let fields = ProducerFields { id: PRODUCER, epoch: 0, base_sequence: 0 };
    let mut batch = BytesMut::from(with_producer(batch, fields).expect("a batch"));
    batch[22] |= 1 << 4;
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

/// A roll that its leader did not live to commit, and the same with another end by the next one.
pub async fn what_was_not_committed_did_not_happen(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill(&brokers, NORCAL[0], &[1, 2, 3]);
    fill(&brokers, NORCAL[1], &[4, 5]);
    for (end, committed) in [(2, false), (3, true)] {
        let facts = rolled("norcal", NORCAL, end);
        let batch = transactional(&facts_batch(&facts.each_ref().map(|(k, v)| (&**k, v.clone()))));
        brokers.cluster().log(PLACEMENT, 0).expect("the log").append(&batch).expect("a batch");
        tokio::time::sleep(QUIET).await;
        // Neither is in force yet.
        placed(&mut client, 0, 3).await?;
        let mut cluster = brokers.cluster();
        cluster.log(PLACEMENT, 0).expect("the log").end_transaction(PRODUCER, 0, committed);
    }
    placed(&mut client, 0, 5).await
}

#[tokio::test]
async fn what_a_leader_did_not_commit_is_not_read() -> Checked {
    what_was_not_committed_did_not_happen(None).await
}
