//! Sans-I/O Kafka wire tools: no sockets, no clock, no async runtime.
