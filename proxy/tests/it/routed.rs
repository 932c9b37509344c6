//! Virtual topics: what clients see of them, whatever brokers and other clients do.

pub mod bounds;
pub mod carrier;
pub mod fetch;
pub mod leaders;
pub mod metadata;
pub mod produce;
pub mod regions;
pub mod stored;
pub mod transactions;

use bytes::Bytes;
use protocol_ext::codec::{Codec, Framing};
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
    (brokers, proxy)
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
