//! What every connection shares: addresses, buffers, budget, metrics, filters.

use std::io;
use std::sync::Arc;

use protocol_ext::api;
use tokio::sync::Semaphore;

use crate::accept::origin::Net;
use crate::budget::Budget;
use crate::buffer::Pool;
use crate::config::Config;
use crate::fault;
use crate::filters::offload::Offload;
use crate::inflate::Inflate;
use crate::limits::Limits;
use crate::metrics::{Held, Metrics};
use crate::route::addresses::Directory;
use crate::route::legs::Ways;
use crate::route::permissions::Refused;
use crate::route::topics::Topics;
use crate::route::virtual_topics::VirtualTopics;
use crate::sasl::Sasl;
use crate::telemetry::LineLimits;
use crate::tls;

/// Shared by all connections.
#[derive(Debug)]
pub struct DataPlane {
    /// By API key the versions that are served, as bits: asked of every request.
    served: Vec<u64>,
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
    /// Load balancers that say where clients are.
    pub balancers: Vec<Net>,
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
    /// Whether clients may only read: what they read is not what others wrote.
    pub read_only: bool,
    /// Whether brokers may see clients as others than the proxy, so that legs must ask first.
    pub clients_differ: bool,
    /// Opens batches within a bound.
    pub inflate: Arc<Inflate>,
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
        let routed = VirtualTopics::new(&config.virtual_topics, topics.clone(), &metrics);
        // Brokers that want SASL know the proxy by its own name. Without, or where it logs in for
        // its clients too, all connections are alike to them.
        let clients_differ =
            config.cluster.sasl.is_some() && !sasl.as_ref().is_some_and(Sasl::hides_users);
        // An eighth for batches that are inflated. With a store an eighth for values on
        // their way from it, a quarter for restored ones, a quarter each for requests and responses
        // that are held whole; else half of the rest.
        // One frame of any length allowed always has room, since it may have all.
        let eighth = limits.buffered_bytes_max / 8;
        let part = if config.store.is_some() { eighth * 2 } else { eighth * 7 / 2 };
        let inflate = Arc::new(Inflate::new(eighth, limits.frame_bytes_max));
        let offload =
            Offload::open(config, topics.clone(), inflate.clone(), metrics.clone(), lines.clone())?;
        let mut plane = Self {
            served: Vec::new(),
            offload,
            inflate,
            directory,
            topics,
            routed,
            read_only: config.listen.read_only && !fault::on("passthrough-writes"),
            clients_differ,
            pool,
            tls,
            sasl,
            balancers: config.listen.balancers.clone(),
            unproven: Semaphore::new(limits.unproven_max),
            metrics,
            lines,
            requests: Budget::new(part),
            responses: Budget::new(part),
            limits,
        };
        plane.served = (0..).take(api::KEY_END).map(|key| plane.versions_served(key)).collect();
        Ok(plane)
    }
}

impl DataPlane {
    /// Versions of an API that clients may use of those a broker has; `None` hides it.
    pub fn servable_range(&self, key: i16, min: i16, max: i16) -> Option<(i16, i16)> {
        if fault::on("hidden-api-shown") {
            return Some((min, max));
        }
        let (min, max) = match key {
            // librdkafka uses no SASL where version 0 is not offered, and then takes version 1.
            // Tokens without a frame head, which may follow version 0, are known only where SASL
            // ends; elsewhere they are no request, and close the connection.
            api::SASL_HANDSHAKE if fault::on("handshake-0-hidden") => (1, max),
            api::SASL_HANDSHAKE if self.sasl.is_some() => (0, max.min(1)),
            api::SASL_AUTHENTICATE if self.sasl.is_some() => (0, max.min(2)),
            api::API_VERSIONS if fault::on("newest-versions-pass") => (min, max),
            _ => api::servable_range(key, min, max)?,
        };
        let range = match key {
            key if self.read_only && !READS.contains(&key) => None,
            // Share groups are on partitions of carriers, which hold no records.
            SHARE_FIRST..=SHARE_LAST if self.routed.is_some() => None,
            // Later versions ask for offsets that segments cannot answer.
            api::LIST_OFFSETS if self.routed.is_some() => Some((min, max.min(LIST_OFFSETS_MAX))),
            key if self.routed.is_some() && opened_for_carriers(key).is_some() => {
                let (first, last) = opened_for_carriers(key)?;
                Some((min.max(first), max.min(last)))
            }
            // It would show clients the topics of brokers instead of virtual ones.
            DESCRIBE_TOPIC_PARTITIONS if self.routed.is_some() => None,
            // What later versions may name topics by is not known.
            api::CONSUMER_GROUP_HEARTBEAT if self.routed.is_some() => Some((min, max.min(1))),
            // Brokers make the topics that it names, and match topics by patterns in it.
            STREAMS_GROUP_HEARTBEAT if self.routed.is_some() => None,
            _ => Some((min, max)),
        };
        range.filter(|(min, max)| min <= max)
    }

    /// Bytes that a Fetch or ShareFetch request may ask for where its answer is held whole: half of
    /// the longest answer taken, so that one batch more has room.
    pub fn fetch_bytes_max(&self) -> usize {
        if fault::on("fetch-unbounded") { usize::MAX } else { self.limits.buffered_bytes_max / 4 }
    }

    /// The Prometheus text of everything, with how full budgets are now.
    pub fn metrics_text(&self) -> String {
        let metrics = &self.metrics;
        metrics.health.budget(Held::Requests, &self.requests);
        metrics.health.budget(Held::Answers, &self.responses);
        metrics.health.budget(Held::Inflated, self.inflate.room());
        if let Some(offload) = &self.offload {
            metrics.health.budget(Held::Restored, offload.restored_room());
        }
        metrics.text()
    }

    /// What legs need, if there is anything to route.
    pub fn ways(&self) -> Option<Ways<'_>> {
        let Self { directory, topics, limits, routed, responses: room, .. } = self;
        let refused = Refused::NONE;
        let routed = routed.as_ref();
        routed.map(|routed| Ways { directory, topics, limits, routed, room, refused, beside: 0 })
    }

    /// Whether a virtual topic has days.
    pub fn has_days(&self) -> bool {
        self.routed.iter().flat_map(VirtualTopics::all).any(|topic| topic.days)
    }

    /// Whether a request of that API and version is served.
    pub fn is_servable(&self, key: i16, version: i16) -> bool {
        let low = u32::try_from(version).ok().filter(|version| *version < u64::BITS);
        let served = usize::try_from(key).ok().and_then(|key| self.served.get(key));
        match (served, low) {
            (Some(served), Some(low)) => served >> low & 1 == 1,
            _ => self.allows(key, version),
        }
    }

    /// The versions of an API below 64 that are served, as bits.
    fn versions_served(&self, key: i16) -> u64 {
        let served = (0..).take(64).enumerate().filter(|(_, version)| self.allows(key, *version));
        served.fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    fn allows(&self, key: i16, version: i16) -> bool {
        // One that is too new has an answer too.
        if key == api::API_VERSIONS {
            return version >= 0;
        }
        let known = self.servable_range(key, 0, i16::MAX);
        api::is_servable(key, version)
            && known.is_some_and(|(min, max)| (min..=max).contains(&version))
    }
}

/// What consumers and those who look ask for: Produce, which librdkafka takes for the sign that a
/// broker has record batches, and of which every partition is refused; Fetch, ListOffsets,
/// Metadata, offsets and coordinators of groups (8 to 10), classic groups (11 to 16), SASL and
/// ApiVersions,
/// OffsetForLeaderEpoch, DescribeConfigs, SaslAuthenticate, DescribeCluster, consumer groups,
/// DescribeTopicPartitions. Of it only groups and their offsets are written.
const READS: [i16; 22] =
    [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 23, 32, 36, 60, 68, 69, 75];

/// APIs of share groups (KIP-932).
const SHARE_FIRST: i16 = 76;
const SHARE_LAST: i16 = 79;

const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
const STREAMS_GROUP_HEARTBEAT: i16 = 88;
const LIST_OFFSETS_MAX: i16 = 7;

/// Versions of APIs that are opened wherever there are virtual topics, since they may name one or a
/// part of one: of others nobody could tell.
fn opened_for_carriers(key: i16) -> Option<(i16, i16)> {
    Some(match key {
        api::ADD_PARTITIONS_TO_TXN | api::TXN_OFFSET_COMMIT => (0, 5),
        api::INIT_PRODUCER_ID | api::END_TXN => (0, 5),
        api::ADD_OFFSETS_TO_TXN => (0, 4),
        api::OFFSET_COMMIT => (2, 9),
        api::OFFSET_FOR_LEADER_EPOCH => (2, 4),
        api::CREATE_PARTITIONS => (0, 3),
        api::CREATE_TOPICS => (2, 7),
        api::DELETE_TOPICS => (1, 6),
        api::DESCRIBE_CONFIGS => (1, 4),
        api::DELETE_RECORDS | api::ALTER_CONFIGS | api::ELECT_LEADERS => (0, 2),
        api::INCREMENTAL_ALTER_CONFIGS | api::ALTER_PARTITION_REASSIGNMENTS => (0, 1),
        api::ALTER_REPLICA_LOG_DIRS => (1, 2),
        api::WRITE_TXN_MARKERS => (1, 1),
        api::OFFSET_DELETE | api::DESCRIBE_PRODUCERS => (0, 0),
        _ => return None,
    })
}
