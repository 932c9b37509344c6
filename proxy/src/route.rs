//! Where exchanges go.

pub mod addresses;
pub mod carrier;
pub mod chain;
pub mod groups;
pub mod legs;
pub mod permissions;
pub mod placement;
pub mod producers;
pub mod region;
pub mod sealed_rows;
pub mod sizes;
pub mod topics;
pub mod transactions;
pub mod virtual_topics;
