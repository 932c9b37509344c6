//! What every connection shares: addresses, buffers, budget, metrics, filters.

use std::io;
use std::sync::Arc;

use protocol_ext::api;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::buffer::Pool;
use crate::config::Config;
use crate::filters::offload::Offload;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::route::addresses::Directory;
use crate::route::topics::Topics;

/// Shared by all connections.
#[derive(Debug)]
pub struct DataPlane {
    /// Who the brokers are and what clients are told.
    pub directory: Arc<Directory>,
    /// Names and ids of topics.
    pub topics: Arc<Topics>,
    /// I/O buffers.
    pub pool: Pool,
    /// Bounds.
    pub limits: Limits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Large values; `None` without a store.
    pub offload: Option<Offload>,
    /// Room for requests held whole.
    pub requests: Budget,
    /// Room for responses held whole.
    pub responses: Budget,
}

impl DataPlane {
    /// Everything a connection needs, from a configuration.
    pub fn new(
        config: &Config,
        directory: Arc<Directory>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let limits = config.limits.clone();
        let topics = Arc::new(Topics::new(directory.clone(), limits.clone()));
        let half = limits.buffered_bytes_max / 2;
        Ok(Self {
            offload: Offload::open(config, topics.clone(), metrics.clone())?,
            directory,
            topics,
            pool: Pool::default(),
            metrics,
            requests: Budget::new(half),
            responses: Budget::new(half),
            limits,
        })
    }
}

impl DataPlane {
    /// Versions of an API that clients may use of those a broker has; `None` hides it.
    pub fn servable_range(&self, key: i16, min: i16, max: i16) -> Option<(i16, i16)> {
        let (min, max) = api::servable_range(key, min, max)?;
        match key {
            // Values of share groups are not restored, so nobody may read references by them.
            SHARE_FIRST..=SHARE_LAST if self.offload.is_some() => None,
            _ => Some((min, max)),
        }
    }

    /// Whether a request of that API and version is served.
    pub fn is_servable(&self, key: i16, version: i16) -> bool {
        api::is_servable(key, version) && self.servable_range(key, 0, i16::MAX).is_some()
    }
}

/// APIs of share groups (KIP-932).
const SHARE_FIRST: i16 = 76;
const SHARE_LAST: i16 = 79;

/// A bound on bytes held at once. It is taken before the bytes are read, and whoever holds some
/// never waits for more of the same.
#[derive(Debug)]
pub struct Budget {
    room: Arc<Semaphore>,
    units: usize,
}

/// Bytes of one unit: semaphores count in 32 bits.
const UNIT_BYTES: usize = 1024;

impl Budget {
    /// Room for `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { room: Arc::new(Semaphore::new(units)), units }
    }

    /// Waits for room for `bytes`; more than all there is counts as all.
    pub async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units);
        self.room.clone().acquire_many_owned(u32::try_from(units).ok()?).await.ok()
    }
}
