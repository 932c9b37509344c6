//! Where exchanges go.

pub mod addresses;
