//! What every connection shares: addresses, buffers, budget, metrics, filters.

use std::sync::Arc;

use crate::buffer::Pool;
use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::route::addresses::Directory;

/// Shared by all connections.
#[derive(Debug)]
pub struct DataPlane {
    /// Who the brokers are and what clients are told.
    pub directory: Arc<Directory>,
    /// I/O buffers.
    pub pool: Pool,
    /// Bounds.
    pub limits: Limits,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl DataPlane {
    /// Everything a connection needs, from a configuration.
    pub fn new(config: &Config, directory: Arc<Directory>, metrics: Arc<Metrics>) -> Self {
        Self { directory, pool: Pool::default(), limits: config.limits.clone(), metrics }
    }
}
