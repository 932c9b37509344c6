//! The cases, one file per kind of client or of trouble.

pub mod addresses;
pub mod admin;
pub mod aged;
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
pub mod stamped;
pub mod tails;
pub mod tools;
pub mod trouble;
pub mod virtual_topics;

use serde_json::{Value, json};

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
