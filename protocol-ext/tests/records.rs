//! The promises of the record code, as properties: round trips, no-op identity, split and merge,
//! agreement with another implementation, and hostile bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by its panic, helpers included")]

#[path = "records/codecs.rs"]
mod codecs;
#[path = "records/generate.rs"]
mod generate;
#[path = "records/hostile.rs"]
mod hostile;
#[path = "records/interop.rs"]
mod interop;
#[path = "records/reference.rs"]
mod reference;
#[path = "records/rewrite.rs"]
mod rewrite;
#[path = "records/sections.rs"]
mod sections;
#[path = "records/splits.rs"]
mod splits;
