//! Virtual topics with days: several segments behind one logical partition.

pub mod apart;
pub mod begin;
pub mod begun;
pub mod command;
pub mod delete;
pub mod election;
pub mod hidden;
pub mod leader;
pub mod log;
pub mod read;
pub mod seals;
pub mod soon;
pub mod stamped;
pub mod write;

use bytes::Bytes;
use protocol_ext::codec::{Codec, Framing};
use serde_json::{Value, json};

use crate::harness::broker::Brokers;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{Record, batch};
use crate::harness::{Checked, Faults, until};
use crate::routed::{looked_out, without_sequences};

/// The virtual topic: partition 0 is that of the first slot, 1 of the second.
pub const TOPIC: &str = "fires";
/// Segments of the first slot, in order.
pub const NORCAL: [&str; 2] = ["fires-norcal-2999-01-05", "fires-norcal-2999-01-06"];
/// Segments of the second slot, in order.
pub const OTHER: [&str; 2] = ["fires-other-2999-01-05", "fires-other-2999-01-06"];
/// The topic of the placement log.
pub const PLACEMENT: &str = "__firebreak_placement";
/// The configuration of the virtual topic.
pub const ROUTED: &str = "\n[[virtual_topic]]\nname = \"fires\"\npartitions = 1\ndays = true\n\
    create_ahead_s = 0\n\
    region = { header = \"region\" }\n[[region]]\nname = \"norcal\"\n";

/// All segments and the placement log, and a proxy that has read it. The first segment of each slot
/// is open.
pub async fn start(faults: Faults) -> Checked<(Brokers, Proxy)> {
    start_as(faults, |setup| setup).await
}

/// The same with a setup that is changed.
pub async fn start_as(
    faults: Faults,
    change: impl FnOnce(Setup) -> Setup,
) -> Checked<(Brokers, Proxy)> {
    let brokers = placed().await;
    let proxy = change(Setup::new(&brokers, faults).limit(ROUTED)).start().await;
    until("ready", async || (proxy.admin("/readyz").await.ok()?.0 == 200).then_some(())).await?;
    looked_out(&brokers).await;
    Ok((brokers, proxy))
}

/// Two brokers with all that.
pub async fn placed() -> Brokers {
    let brokers = Brokers::start(2).await;
    for topic in NORCAL.iter().chain(&OTHER) {
        brokers.cluster().add_topic(topic, 1);
    }
    brokers.cluster().add_topic(PLACEMENT, 1);
    let layout = json!({ "partitions": 1, "slots": ["norcal", "other"] });
    write_facts(
        &brokers,
        &[
            ("topic/fires", layout),
            ("segment/fires/norcal/0", json!({ "topic": NORCAL[0], "bases": [0] })),
            ("segment/fires/other/0", json!({ "topic": OTHER[0], "bases": [0] })),
        ],
    );
    brokers
}

/// Writes facts as the leader would: all in one batch.
pub fn write_facts(brokers: &Brokers, facts: &[(&str, Value)]) {
    let batch = without_sequences(&facts_batch(facts));
    let mut cluster = brokers.cluster();
    cluster.log(PLACEMENT, 0).expect("the log").append(&batch).expect("a batch");
}

/// The batch of these facts.
pub fn facts_batch(facts: &[(&str, Value)]) -> Bytes {
    let records: Vec<Record> = (0..)
        .zip(facts)
        .map(|(offset, (key, value))| Record {
            offset,
            timestamp: 1_700_000_000_000,
            key: Some(key.as_bytes().to_vec()),
            value: (!value.is_null()).then(|| value.to_string().into_bytes()),
            headers: Vec::new(),
        })
        .collect();
    batch(Codec::None, Framing::Plain, &records)
}

/// The first segment of a slot ends here and the second one follows.
pub fn roll(brokers: &Brokers, slot: &str, segments: [&str; 2], end: i64) {
    write_facts(brokers, &rolled(slot, segments, end).each_ref().map(|(k, v)| (&**k, v.clone())));
}

/// The facts of such a roll.
pub fn rolled(slot: &str, segments: [&str; 2], end: i64) -> [(String, Value); 2] {
    let [old, new] = segments;
    let sealed =
        json!({ "topic": old, "bases": [0], "ends": [end], "sealed_at_ms": 4_102_444_800_000_i64 });
    [
        (format!("segment/fires/{slot}/0"), sealed),
        (format!("segment/fires/{slot}/1"), json!({ "topic": new, "bases": [end] })),
    ]
}

/// The broker takes no more writes to a topic.
pub fn seal(brokers: &Brokers, topic: &str) {
    brokers.cluster().configure(topic, "max.message.bytes", "0");
}

/// A batch without sequences of one record of this time.
pub fn at_time(timestamp: i64) -> Bytes {
    let record = Record {
        offset: 0,
        timestamp,
        key: None,
        value: Some(timestamp.to_string().into_bytes()),
        headers: vec![(b"region".to_vec(), Some(b"norcal".to_vec()))],
    };
    without_sequences(&batch(Codec::None, Framing::Plain, &[record]))
}
