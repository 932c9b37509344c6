//! The cases, one file per kind of client or of trouble.

pub mod addresses;
pub mod admin;
pub mod aged;
pub mod buckets;
pub mod by_hand;
pub mod days;
pub mod everything;
pub mod exact;
pub mod groups;
pub mod kcat;
pub mod librdkafka;
#[cfg(feature = "failpoints")]
pub mod mutants;
pub mod offload;
pub mod old;
pub mod readers;
pub mod records;
pub mod rolling;
pub mod security;
pub mod segments;
pub mod shapes;
pub mod stamped;
pub mod tails;
pub mod tools;
pub mod trouble;
pub mod virtual_topics;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::proxy::Proxy;
use crate::rig::Place;

/// A command for the Java driver: where, on which topic, and more fields.
pub fn command(place: &Place, more: &Value) -> Value {
    let mut command = json!({"bootstrap": place.bootstrap, "topic": place.topic});
    for (name, value) in more.as_object().unwrap() {
        command[name] = value.clone();
    }
    command
}

/// Equal outcomes could both be failures: the direct one must also be what Kafka is known to do.
pub fn expect(outcome: &Value, pointer: &str, expected: impl Into<Value>) {
    assert_eq!(outcome.pointer(pointer), Some(&expected.into()), "{pointer} of {outcome:#}");
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a command of upkeep, which must succeed, by the proxy's clock: what it reports.
pub fn upkeep(proxy: &Proxy, args: &[&str]) -> Value {
    let file = proxy.config_file();
    let report = proxy.command(&[args, &["--json", "--config", &file]].concat());
    serde_json::from_str(&report).unwrap_or_else(|error| panic!("{args:?}: {error}: {report}"))
}

/// Objects that a report counts under this name.
pub fn objects(report: &Value, name: &str) -> u64 {
    let count = report[name]["objects"].as_u64();
    count.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}
