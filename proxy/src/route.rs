//! Where exchanges go.

pub mod addresses;
pub mod topics;
