//! Background jobs: they learn, decide and publish; they never touch a connection.

pub mod cluster;
pub mod files;
pub mod owner;
pub mod physical_topics;
pub mod probe;
pub mod versions;
