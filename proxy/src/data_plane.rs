//! What every connection shares: addresses, buffers, budget, metrics, filters.

use std::io;
use std::sync::Arc;

use protocol_ext::api;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::buffer::Pool;
use crate::config::Config;
use crate::fault;
use crate::filters::offload::Offload;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::route::addresses::Directory;
use crate::route::legs::Ways;
use crate::route::topics::Topics;
use crate::route::virtual_topics::VirtualTopics;
use crate::sasl::Sasl;
use crate::telemetry::LineLimits;
use crate::tls;

/// Shared by all connections.
#[derive(Debug)]
pub struct DataPlane {
    /// Who the brokers are and what clients are told.
    pub directory: Arc<Directory>,
    /// Names and ids of topics.
    pub topics: Arc<Topics>,
    /// I/O buffers.
    pub pool: Pool,
    /// TLS to clients; `None`: plaintext.
    pub tls: Option<Arc<tls::Server>>,
    /// Who clients are, where they prove it to the proxy; `None`: SASL passes through.
    pub sasl: Option<Sasl>,
    /// Room for clients that have not proved who they are.
    pub unproven: Semaphore,
    /// Bounds.
    pub limits: Limits,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// How many lines peers can cause.
    pub lines: Arc<LineLimits>,
    /// Large values; `None` without a store.
    pub offload: Option<Offload>,
    /// Topics over several physical ones; `None` without any.
    pub routed: Option<VirtualTopics>,
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
        pool: Pool,
        (tls, sasl): (Option<Arc<tls::Server>>, Option<Sasl>),
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let limits = config.limits.clone();
        let lines = Arc::new(LineLimits::default());
        let topics = Topics::new(directory.clone(), limits.clone(), lines.clone());
        let topics = Arc::new(topics);
        let routed = VirtualTopics::new(&config.virtual_topics);
        for topic in routed.iter().flat_map(VirtualTopics::all) {
            topics.learn_for_good(topic.id, &topic.name);
        }
        // With a store: half for restored values, a quarter each for requests and responses that
        // are held whole. One frame of any length allowed always has room, since it may have all.
        let parts = if config.store.is_some() { 4 } else { 2 };
        let part = limits.buffered_bytes_max / parts;
        Ok(Self {
            offload: Offload::open(config, topics.clone(), metrics.clone(), lines.clone())?,
            directory,
            topics,
            routed,
            pool,
            tls,
            sasl,
            unproven: Semaphore::new(limits.unproven_max),
            metrics,
            lines,
            requests: Budget::new(part),
            responses: Budget::new(part),
            limits,
        })
    }
}

impl DataPlane {
    /// Versions of an API that clients may use of those a broker has; `None` hides it.
    pub fn servable_range(&self, key: i16, min: i16, max: i16) -> Option<(i16, i16)> {
        if fault::on("hidden-api-shown") {
            return Some((min, max));
        }
        let (min, max) = match key {
            // Where SASL ends here, tokens without a frame head are known too.
            api::SASL_HANDSHAKE if self.sasl.is_some() => (0, max.min(1)),
            api::SASL_AUTHENTICATE if self.sasl.is_some() => (0, max.min(2)),
            _ => api::servable_range(key, min, max)?,
        };
        let range = match key {
            // Values of share groups are not restored, so nobody may read references by them.
            SHARE_FIRST..=SHARE_LAST if self.offload.is_some() || self.routed.is_some() => None,
            // Later versions ask for offsets that segments cannot answer.
            api::LIST_OFFSETS if self.routed.is_some() => Some((min, max.min(LIST_OFFSETS_MAX))),
            // These two would show clients the topics of brokers instead of virtual ones.
            DESCRIBE_TOPIC_PARTITIONS if self.routed.is_some() => None,
            CONSUMER_GROUP_HEARTBEAT if self.routed.is_some() => Some((min, max.min(0))),
            _ => Some((min, max)),
        };
        range.filter(|(min, max)| min <= max)
    }

    /// What legs need, if there is anything to route.
    pub fn ways(&self) -> Option<Ways<'_>> {
        let Self { directory, topics, limits, routed, responses: room, .. } = self;
        routed.as_ref().map(|routed| Ways { directory, topics, limits, routed, room })
    }

    /// Whether a request of that API and version is served.
    pub fn is_servable(&self, key: i16, version: i16) -> bool {
        let known = self.servable_range(key, 0, i16::MAX);
        api::is_servable(key, version)
            && known.is_some_and(|(min, max)| (min..=max).contains(&version))
    }
}

/// APIs of share groups (KIP-932).
const SHARE_FIRST: i16 = 76;
const SHARE_LAST: i16 = 79;

const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
const LIST_OFFSETS_MAX: i16 = 7;

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

    /// All there is.
    pub fn bytes(&self) -> usize {
        self.units * UNIT_BYTES
    }

    /// Bytes taken now.
    pub fn taken(&self) -> usize {
        (self.units - self.room.available_permits()) * UNIT_BYTES
    }

    /// Room for `bytes` if there is some now; more than all there is counts as all.
    pub fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units);
        self.room.clone().try_acquire_many_owned(u32::try_from(units).ok()?).ok()
    }

    /// Waits for room for `bytes`; more than all there is counts as all.
    pub async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units);
        self.room.clone().acquire_many_owned(u32::try_from(units).ok()?).await.ok()
    }
}
