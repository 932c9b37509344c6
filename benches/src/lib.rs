//! What the benches share: a raw Kafka client with prebuilt batches, and the load modes.
//!
//! Flow: `batch` builds record batches, `wire` frames them, `connection` carries them, `load`
//! drives connections in one of the measured shapes and answers one line of JSON.
//! Invariant: nothing is decoded or rebuilt while a measurement runs.

pub mod batch;
pub mod clock;
pub mod connection;
pub mod error;
pub mod histogram;
pub mod images;
pub mod load;
pub mod tls;
pub mod wire;
