//! Sans-I/O Kafka wire tools: no sockets, no clock, no async runtime.

pub mod batch;
pub mod codec;
pub mod records;
pub mod reference;
pub mod replace;
pub mod split;
pub mod varint;
