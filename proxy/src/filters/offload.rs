//! Large values move to an object store; a signed reference takes their place in the log.
//!
//! Produce: walk -> large values -> store (durable) -> rewrite -> forward. Fetch: walk ->
//! references, verified -> store -> rewrite -> client. Invariants: a reference is forwarded only
//! after its object is durable; a value is followed only if its signature fits the topic; a value
//! is restored only if its checksum fits.

mod aborted;
mod fetch;
mod inflation;
pub mod keys;
mod losses;
mod pace;
mod packs;
mod parts;
mod produce;
mod sections;
mod share;
mod spent;
mod spoiled;
mod turn;

use std::io;
use std::sync::Arc;

use protocol_ext::batch::{BatchError, Caps};
use protocol_ext::codec::CodecError;
use protocol_ext::reference::{Binding, KeyRing};

use crate::budget::Budget;
use crate::config::{Config, OffloadRule};
use crate::fault;
use crate::inflate::Inflate;
use crate::limits::RESTORED_BYTES_MAX;
use crate::metrics::{Metrics, OffloadOp};
use crate::route::topics::{TopicId, Topics};
use crate::store::owner::{self, Owner};
use crate::store::shared::Shared;
use crate::store::{Failures, ObjectStore, StoreError};
use crate::telemetry::LineLimits;
pub use inflation::Inflation;
pub use losses::Losses;
use pace::Paces;
pub use parts::{PartFailure, Parts, Want};
pub use produce::{Produced, STORAGE_ERROR};
pub use sections::{TopicRef, produce_sections};
pub use share::{Longest, NotRestored, Sharing};
pub use turn::Turn;

/// Tenant that references are bound to while there is one virtual cluster.
pub const TENANT: &str = "";

/// The bytes that a client wants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// In one answer.
    pub bytes: usize,
    /// Of one partition.
    pub partition_bytes: usize,
}

/// What is kept of what a connection reads.
#[derive(Debug, Default)]
pub struct Reading {
    /// The partition whose values have room first.
    pub turn: Turn,
    /// How much longer values make what partitions give.
    pub inflation: Inflation,
}

/// The filter.
#[derive(Debug)]
pub struct Offload {
    rules: Vec<OffloadRule>,
    threshold_min: usize,
    cluster: String,
    keys: KeyRing,
    store: Arc<ObjectStore>,
    parts: Parts,
    topics: Arc<Topics>,
    metrics: Arc<Metrics>,
    lines: Arc<LineLimits>,
    caps: Caps,
    inflate: Arc<Inflate>,
    restored: Budget,
    losses: Losses,
    paces: Paces,
}

impl Offload {
    /// The filter of a configuration; `None` without a store.
    pub fn open(
        config: &Config,
        topics: Arc<Topics>,
        inflate: Arc<Inflate>,
        metrics: Arc<Metrics>,
        lines: Arc<LineLimits>,
    ) -> io::Result<Option<Self>> {
        let Some(store) = &config.store else { return Ok(None) };
        let failures = Failures { metrics: metrics.clone(), lines: lines.clone() };
        let object_store = Arc::new(ObjectStore::open(store, failures)?);
        let keys = keys::ring(store)?;
        let body_bytes_max = config.limits.frame_bytes_max;
        let eighth = config.limits.buffered_bytes_max / 8;
        let threshold = |rule: &OffloadRule| rule.threshold_bytes;
        let shared = store.shared.as_ref().map(|shared| {
            let counts = (metrics.clone(), lines.clone());
            Arc::new(Shared::new(shared, &config.cluster.name, counts))
        });
        Ok(Some(Self {
            rules: config.offload.clone(),
            threshold_min: config.offload.iter().map(threshold).min().unwrap_or(usize::MAX),
            cluster: config.cluster.name.clone(),
            keys,
            parts: Parts::new(object_store.clone(), store.cache_bytes, eighth, metrics.clone())
                .sharing(shared),
            losses: Losses::new(object_store.clone(), &config.cluster.name),
            paces: Paces::default(),
            store: object_store,
            topics,
            metrics,
            lines,
            caps: Caps {
                body_bytes_max,
                rewritten_bytes_max: body_bytes_max.max(RESTORED_BYTES_MAX * 2),
            },
            inflate,
            restored: Budget::new(eighth * 2),
        }))
    }

    /// Counts a batch that cannot be opened. What becomes too large passes as it came, both ways:
    /// a batch that was not opened on Produce holds no reference of ours. Damage is the peers' to
    /// find.
    fn unopened(&self, error: &BatchError, topic: &str) {
        if !matches!(error, BatchError::Codec(CodecError::TooLarge { .. })) {
            return;
        }
        self.metrics.offload(OffloadOp::Unopened, 0);
        if let Some(left_out) = self.lines.allows("offload_unopened") {
            let why = "batch that inflates beyond limits.frame_bytes_max passes as it came";
            tracing::warn!(topic, left_out, "{why}");
        }
    }

    /// Sees whose objects lie below the name of this cluster, which has this id.
    pub async fn claim(&self, cluster_id: &str) -> Result<Owner, StoreError> {
        self.losses.belongs_to(cluster_id);
        owner::claim(&self.store, &self.cluster, cluster_id).await
    }

    /// Asks the store for something that it must be able to answer.
    pub async fn probe(&self) -> Result<(), StoreError> {
        match fault::on("store-unprobed") {
            true => Ok(()),
            false => owner::probe(&self.store, &self.cluster).await,
        }
    }

    /// The cache that proxies share, to be served.
    pub fn shared(&self) -> Option<Arc<Shared>> {
        self.parts.shared()
    }

    /// Room for restored values.
    pub fn restored_room(&self) -> &Budget {
        &self.restored
    }

    /// Whether a Produce request of so many bytes can hold a value that is large by any rule.
    pub fn may_hold_large(&self, frame_bytes: usize) -> bool {
        frame_bytes > self.threshold_min
    }

    /// The rule for values of `topic`; `None` if they always stay.
    fn rule(&self, topic: &str) -> Option<&OffloadRule> {
        let mut fitting =
            self.rules.iter().filter(|rule| rule.topics.iter().any(|p| glob(p, topic)));
        if fault::on("last-rule-counts") { fitting.next_back() } else { fitting.next() }
    }

    fn binding<'a>(&self, topic: &'a str) -> Binding<'a> {
        Binding { topic, tenant: TENANT }
    }

    /// Key of a pack in the store: see docs/pack-format.md.
    fn key_of(&self, pack_id: &[u8; 16], topic_id: &TopicId, partition: u32) -> String {
        object_key(&self.cluster, pack_id, topic_id, partition)
    }

    /// Whether values of a topic may be stored.
    pub fn concerns(&self, topic: &str) -> bool {
        self.rule(topic).is_some()
    }
}

/// Key of a pack in the store: see docs/pack-format.md.
pub fn object_key(cluster: &str, pack_id: &[u8; 16], topic_id: &TopicId, partition: u32) -> String {
    let hex = |id: &[u8; 16]| uuid::Uuid::from_bytes(*id).simple().to_string();
    let (shard, topic, pack) = (pack_id[0], hex(topic_id), hex(pack_id));
    format!("v1/{shard:02x}/{cluster}/{topic}/{partition}/{pack}")
}

/// Whether `text` fits `pattern`, in which `*` stands for anything.
pub fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let mut ends = (0..=text.len()).filter(|n| text.is_char_boundary(*n));
            rest.is_empty() || ends.any(|n| glob(rest, &text[n..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("satellite-*", "satellite-images"));
        assert!(glob("satellite-*", "satellite-"));
        assert!(glob("*", "x"));
        assert!(glob("a*b*c", "a-b-b-c"));
        assert!(!glob("a*b*c", "a-b-b-d"));
        assert!(!glob("satellite-*", "satellite"));
        assert!(!glob("x", "xx"));
    }
}
