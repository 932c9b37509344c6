//! Sans-I/O Kafka wire tools: no sockets, no clock, no async runtime.

pub mod address;
pub mod api;
pub mod batch;
pub mod codec;
pub mod ees;
#[cfg(feature = "fake-broker")]
pub mod fake_broker;
pub mod guard;
pub mod header;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod records;
pub mod reference;
pub mod replace;
pub mod reply;
pub mod sasl;
pub mod scan;
pub mod schema;
pub mod split;
pub mod tail;
pub mod varint;
pub mod versions;
pub mod walk;
pub mod wire;
