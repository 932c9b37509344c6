//! Firebreak: a Kafka-protocol proxy.
//!
//! accept -> connection -> frame -> exchange -> filters -> router -> broker connection, and back.
//! `ARCHITECTURE.md` has the map.

pub mod accept;
pub mod admin;
pub mod budget;
pub mod buffer;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod control;
pub mod data_plane;
pub mod error;
pub mod fault;
pub mod filters;
pub mod inflate;
pub mod limits;
pub mod metrics;
pub mod net;
mod open_files;
pub mod placement;
pub mod random;
pub mod reload;
pub mod route;
pub mod run;
pub mod sasl;
pub mod secret;
pub mod store;
pub mod stream;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod upkeep;
pub mod upstream;
pub mod users;
pub mod watched;
