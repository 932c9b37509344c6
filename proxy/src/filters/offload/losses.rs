//! Values that cannot be read: whether they are gone for good.
//!
//! What is missing or damaged at first sight may be there: it was read together with others, or
//! damaged on the way, or the store is another one than it was. So a value counts as lost only if
//! it is read once more, alone, and is not what was stored; if it is missing, then only beside the
//! object that says that this store is the cluster's, and that is no newer than the value.
//! Invariant: where many values are lost and none is found, nothing is called lost any more for a
//! while.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use protocol_ext::lost::Lost;

use super::Offload;
use super::fetch::Values;
use super::parts::{PartFailure, Parts, Value, Want};
use crate::clock::{self, Tick};
use crate::fault;
use crate::limits::{RANGES_AT_ONCE, STORE_ATTEMPT};
use crate::metrics::OffloadOp;
use crate::store::owner::{self, Owner};
use crate::store::{ObjectStore, StoreError};

/// Judges what cannot be read.
#[derive(Debug)]
pub struct Losses {
    store: Arc<ObjectStore>,
    cluster: String,
    /// Kafka's id of the cluster; what is missing before it is known is not lost.
    id: OnceLock<String>,
    burst: Mutex<Burst>,
}

/// Packs of which values were lost since any value was found.
#[derive(Debug, Default)]
struct Burst {
    since: Option<Tick>,
    lost: HashSet<[u8; 16]>,
    found: u64,
}

impl Losses {
    /// That of the store of a cluster.
    pub fn new(store: Arc<ObjectStore>, cluster: &str) -> Self {
        let (cluster, id) = (cluster.to_owned(), OnceLock::new());
        Self { store, cluster, id, burst: Mutex::default() }
    }

    /// Learns Kafka's id of the cluster, which stays what it is.
    pub fn belongs_to(&self, id: &str) {
        self.id.get_or_init(|| id.to_owned());
    }

    /// Looks once more for a value that is missing or damaged. What stays so is lost.
    pub async fn look(&self, parts: &Parts, want: &Want) -> Value {
        let error = match parts.once(want).await {
            Err(error) if error.is_damage() => error,
            done => return done,
        };
        let missing =
            matches!(&error, PartFailure::Store(e) if matches!(**e, StoreError::Missing(_)));
        match missing && !self.is_ours(want).await && !fault::on("any-store-is-ours") {
            true => Err(PartFailure::Elsewhere(want.object.to_string())),
            false => Err(error),
        }
    }

    /// Whether the store is the one that a value was written to.
    async fn is_ours(&self, want: &Want) -> bool {
        let Some(id) = self.id.get() else { return false };
        let key = owner::key(&self.cluster);
        let latest = want.reference.written_at_ms.saturating_add(CLAIM_MS);
        let asked = async {
            let is_older = self.store.look(&key).await?.written_at_ms <= latest;
            let of_us = owner::of(&self.store, &self.cluster, id).await? == Owner::Us;
            Ok::<bool, StoreError>(is_older && (of_us || fault::on("any-owner-is-us")))
        };
        tokio::time::timeout(STORE_ATTEMPT, asked).await.is_ok_and(|ours| ours.unwrap_or(false))
    }

    /// Counts a loss of a pack; whether readers may go on without its value. `found` values were
    /// read so far.
    fn may_lose(&self, pack: [u8; 16], found: u64, now: Tick) -> bool {
        let mut burst = self.burst.lock();
        let same = burst.found == found && burst.since.is_some_and(|at| now - at < BURST);
        if !same {
            *burst = Burst { since: Some(now), lost: HashSet::new(), found };
        }
        if burst.lost.len() < LOST_MAX {
            burst.lost.insert(pack);
        }
        (burst.lost.contains(&pack) && !fault::on("burst-at-once")) || fault::on("bursts-pass")
    }
}

impl Offload {
    /// Looks once more for values that are missing or damaged; those that stay so are lost.
    pub(super) async fn confirm(&self, wants: &[Want], values: &mut Values) {
        let is_damaged = |value: &Value| value.as_ref().is_err_and(PartFailure::is_damage);
        let mut doubted = Vec::new();
        for want in wants {
            if let Some(value) = values.get_mut(&want.key()).filter(|value| is_damaged(value))
                && !fault::on("lost-at-first-sight")
            {
                // Until it was looked for.
                *value = Err(PartFailure::Late);
                doubted.push(want);
            }
        }
        let look = |want: &Want| {
            let want = want.clone();
            async move { (want.key(), self.judged(&want).await) }.boxed()
        };
        let looks: Vec<_> = doubted.into_iter().map(look).collect();
        let mut looks = stream::iter(looks).buffer_unordered(RANGES_AT_ONCE);
        let all = async {
            while let Some((key, value)) = looks.next().await {
                values.insert(key, value);
            }
        };
        // What is not found in time is asked for again.
        let _ = tokio::time::timeout(LOOK, all).await;
    }

    async fn judged(&self, want: &Want) -> Value {
        let looked = self.losses.look(&self.parts, want).await;
        match looked {
            Err(error) if error.is_damage() => {
                let found = self.parts.values_read();
                if self.losses.may_lose(want.reference.pack_id, found, clock::now()) {
                    return Err(error);
                }
                if let Some(left_out) = self.lines.allows("offload_burst") {
                    let why = "values are missing and none is found: none is passed over for now";
                    tracing::error!(%error, most = LOST_MAX, left_out, "{why}");
                }
                Err(PartFailure::Many(want.object.to_string()))
            }
            looked => looked,
        }
    }

    /// What becomes of records of a topic whose values are gone.
    pub(super) fn on_missing(&self, topic: Option<&str>) -> Option<Lost> {
        topic.and_then(|topic| self.rule(topic)).and_then(|rule| rule.on_missing)
    }

    /// Counts and tells of a value that is gone, and without which its topic's readers go on.
    pub(super) fn lost(&self, topic: Option<&str>, batch: i64, why: &PartFailure, bytes: u32) {
        self.metrics.offload(OffloadOp::Lost, bytes as usize);
        if let Some(left_out) = self.lines.allows("offload_lost") {
            tracing::error!(topic, batch, %why, left_out, "value is gone: readers go on without");
        }
    }
}

/// Time for a second look: with that for the first it is less than clients wait.
const LOOK: Duration = Duration::from_secs(5);
/// A store is claimed at the start of a process, so at most so long after its first value.
const CLAIM_MS: u64 = 600_000;
/// Of so many packs values may be lost,
const LOST_MAX: usize = 100;
/// in this time, while none is found.
const BURST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Store, StoreKind};
    use crate::store::Failures;

    #[test]
    fn many_losses_without_a_value_that_is_found_are_none() {
        let kind = StoreKind::Memory;
        let config = Store { kind, key_file: None, cache_bytes: 0, shared: None };
        let store = ObjectStore::open(&config, Failures::default()).expect("a store");
        let losses = Losses::new(Arc::new(store), "c");
        let now = clock::now();
        let passed = |first: u8, found, now| {
            let packs = (first..=first + 120).map(|n| [n; 16]);
            packs.filter(|pack| losses.may_lose(*pack, found, now)).count()
        };
        assert_eq!(passed(0, 7, now), LOST_MAX);
        assert_eq!(passed(0, 7, now), LOST_MAX, "the same again");
        assert_eq!(passed(121, 7, now + BURST / 2), 0, "others");
        assert_eq!(passed(121, 8, now + BURST / 2), LOST_MAX, "one was found");
        assert_eq!(passed(0, 8, now + BURST * 2), LOST_MAX, "a while later");
    }
}
