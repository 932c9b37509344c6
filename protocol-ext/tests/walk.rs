//! Properties of everything that walks messages, for every layout and version, against an
//! independent writer (`walk/tree.rs`) and the codec of the kafka-protocol crate.

#[path = "walk/address.rs"]
mod address;
#[path = "walk/header.rs"]
mod header;
#[path = "walk/layout.rs"]
mod layout;
#[path = "walk/primitives.rs"]
mod primitives;
#[path = "walk/reply.rs"]
mod reply;
#[path = "walk/tail.rs"]
mod tail;
#[path = "walk/tree.rs"]
mod tree;
#[path = "walk/versions.rs"]
mod versions;

/// Many cases, since all of them together take a second.
fn config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: 2000,
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
