//! Steps that look into exchanges: one file or folder per feature.

pub mod offload;
