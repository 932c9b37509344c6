//! Firebreak: a Kafka-protocol proxy.
