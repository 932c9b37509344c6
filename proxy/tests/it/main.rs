//! The proxy in front of a fake broker, over sockets: what needs no Kafka, and what can be provoked
//! only where both ends are ours.
//!
//! Every test starts its own fake cluster ([`harness::broker`]), the `firebreak` binary
//! ([`harness::proxy`]) and raw clients ([`harness::client`]). A promise that has a named fault is
//! a function that gives a `Result`: the test wants it kept, `mutants` wants it broken.
#![cfg(test)]

mod addresses;
mod backpressure;
mod brokers;
mod budget;
mod check;
mod classes;
mod cut_through;
#[cfg(feature = "failpoints")]
mod durable;
mod exact;
mod followers;
#[cfg(feature = "failpoints")]
mod full;
mod harness;
mod holders;
mod hostile;
mod inflation;
mod keys;
mod lifecycle;
mod log_shapes;
mod lost;
mod many_batches;
mod metrics;
#[cfg(feature = "failpoints")]
mod mutants;
mod offload;
mod order;
mod origin;
mod overstay;
mod passthrough;
mod permissions;
mod pools;
mod ranges;
mod reach;
mod refusals;
mod refused;
mod rehydrate;
mod reload;
#[cfg(feature = "failpoints")]
mod resting;
mod room;
mod routed;
mod rules;
mod sasl;
mod segments;
mod share;
mod shared_cache;
mod store;
mod tails;
mod tally;
mod tls;
mod upkeep;
mod uploads;
mod versions;
