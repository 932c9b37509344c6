//! Virtual topics: what clients see of them, whatever brokers and other clients do.

pub mod ahead;
pub mod bounds;
pub mod carrier;
pub mod fetch;
pub mod groups;
pub mod inputs;
pub mod leaders;
pub mod metadata;
pub mod produce;
pub mod regions;
pub mod stored;
mod surplus;
pub mod transactions;

use std::time::Duration;

use bytes::Bytes;
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::fake_broker::Seen;
use protocol_ext::split::{ProducerFields, with_producer};

use crate::harness::Faults;
use crate::harness::broker::Brokers;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{Record, batch};

/// The virtual topic: partitions 0 and 1 are those of the first slot, 2 and 3 of the second.
pub const TOPIC: &str = "fires";
/// Its physical topics; partition n of both is led by node n.
pub const NORCAL: &str = "fires-norcal";
pub const OTHER: &str = "fires-other";

const ROUTED: &str = "\n[[virtual_topic]]\nname = \"fires\"\npartitions = 2\n\
    region = { header = \"region\" }\n[[region]]\nname = \"norcal\"\n";

/// Two brokers and a proxy with the virtual topic; `setup` adds to its configuration.
pub async fn start(faults: Faults, setup: impl FnOnce(Setup) -> Setup) -> (Brokers, Proxy) {
    let brokers = Brokers::start(2).await;
    brokers.cluster().add_topic(TOPIC, 4);
    brokers.cluster().add_topic(NORCAL, 2);
    brokers.cluster().add_topic(OTHER, 2);
    let setup = setup(Setup::new(&brokers, faults)).limit(ROUTED);
    let proxy = setup.start().await;
    looked_out(&brokers).await;
    (brokers, proxy)
}

/// Waits for what a start asks about virtual topics, at any time, so that it is taken for nothing
/// that a test causes; not for long, since a fault may be on. What came so far is forgotten.
pub async fn looked_out(brokers: &Brokers) {
    const LIST_OFFSETS: (i16, i16) = (2, 1);
    let asked = |seen: &&Seen| (seen.head.api, seen.head.version) == LIST_OFFSETS;
    // The ends of a carrier's partitions are the last thing, and every broker leads one.
    let done = || {
        let cluster = brokers.cluster();
        cluster.seen.iter().filter(asked).count() >= cluster.nodes.len()
    };
    for _ in 0..500 {
        if done() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    brokers.cluster().seen.clear();
}

/// A batch without sequences of one record from that region.
pub fn located(region: Option<&str>, value: Vec<u8>) -> Bytes {
    let record = Record {
        offset: 0,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(value),
        headers: vec![(b"region".to_vec(), region.map(|region| region.as_bytes().to_vec()))],
    };
    without_sequences(&batch(Codec::None, Framing::Plain, &[record]))
}

/// The batch as a producer without idempotence sends it.
pub fn without_sequences(batch: &Bytes) -> Bytes {
    let none = ProducerFields { id: -1, epoch: -1, base_sequence: -1 };
    with_producer(batch, none).expect("a batch")
}
