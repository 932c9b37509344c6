//! Asking a store more than once: time for one attempt, time for all, pauses that grow, a rest
//! after many failures.
//!
//! Invariants: a key that turns out to be taken counts as stored only if the object there is the
//! one that was sent, and nothing is ever overwritten; only what clients wait for, objects that are
//! put and read, lets a store rest.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Listed, ObjectStore, Piece, Read, StoreError};
use crate::limits::{
    STORE_ATTEMPT, STORE_BACKOFF, STORE_BUDGET, STORE_BYTES_PER_SECOND_MIN, STORE_FAILURES_MAX,
    STORE_REST,
};
use crate::metrics::{Metrics, StoreOp};
use crate::telemetry::LineLimits;
use crate::{clock, fault, random};

/// Bytes at the end of an object that are compared where its key is taken.
const COMPARED_BYTES: usize = 64 * 1024;

/// Stops asking a store that does not answer.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: AtomicU32,
    until: Mutex<Option<clock::Tick>>,
}

impl Breaker {
    /// Fails while the store rests. Once the rest is over, one who asks is let through; the
    /// others wait for what comes of it.
    fn check(&self) -> Result<(), StoreError> {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures < STORE_FAILURES_MAX || fault::on("store-never-rests") {
            return Ok(());
        }
        let mut until = self.until.lock();
        let now = clock::now();
        let rests = until.is_some_and(|until| now < until);
        if rests || fault::on("store-rests-for-ever") {
            return Err(StoreError::Resting(failures));
        }
        *until = Some(now + rest());
        Ok(())
    }

    /// Notes what came of an attempt. A store that answers works, whatever it says.
    fn note(&self, transient: bool) {
        if !transient {
            self.failures.store(0, Ordering::Relaxed);
            return;
        }
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == STORE_FAILURES_MAX {
            *self.until.lock() = Some(clock::now() + rest());
            tracing::warn!("the object store failed {STORE_FAILURES_MAX} times in a row");
        }
    }
}

/// How long a store is left alone.
fn rest() -> Duration {
    fault::time("store-rest-ms", STORE_REST)
}

/// Where attempts that fail are counted and told.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// How many lines may be written.
    pub lines: Arc<LineLimits>,
}

impl Failures {
    fn note(&self, op: StoreOp, error: &StoreError) {
        if is_answer(op, error) {
            return;
        }
        self.metrics.health.store_failure(op, error);
        // While the store rests nothing is asked.
        if !matches!(error, StoreError::Resting(_))
            && let Some(left_out) = self.lines.allows(error.kind())
        {
            tracing::warn!(?op, kind = error.kind(), %error, left_out, "object store failed");
        }
    }
}

/// Whether what is no success is what was asked about: that an object is not there, or that
/// uploads are not told of.
fn is_answer(op: StoreOp, error: &StoreError) -> bool {
    match op {
        StoreOp::Look => matches!(error, StoreError::Missing(_)),
        StoreOp::Uploads => matches!(error, StoreError::Refused(_)),
        StoreOp::Put | StoreOp::Get | StoreOp::List | StoreOp::Delete | StoreOp::Abort => false,
    }
}

/// Whether clients wait for it: whether its failures let a store rest, and a rest lets it fail.
fn has_clients(op: StoreOp) -> bool {
    matches!(op, StoreOp::Put | StoreOp::Get)
}

/// Time that so many bytes may take.
fn transfer(bytes: usize) -> Duration {
    Duration::from_secs((bytes / STORE_BYTES_PER_SECOND_MIN) as u64)
}

/// Stores an object, trying again within the budget.
pub async fn put(store: &ObjectStore, key: &str, object: &[Piece]) -> Result<(), StoreError> {
    let bytes = object.iter().map(|piece| piece.bytes.len()).sum();
    again(store, StoreOp::Put, transfer(bytes), || async {
        match store.put_once(key, object).await {
            Err(StoreError::Taken(_)) if is_there(store, key, object, bytes).await? => Ok(()),
            done => done,
        }
    })
    .await
}

/// Reads a range, trying again within the budget.
pub async fn get(
    store: &ObjectStore,
    key: &str,
    offset: u64,
    length: usize,
) -> Result<Read, StoreError> {
    again(store, StoreOp::Get, transfer(length), || async {
        match &store.hedge {
            Some(hedge) => hedge.read(|| store.get_once(key, offset, length)).await,
            None => store.get_once(key, offset, length).await,
        }
    })
    .await
}

/// The same, each attempt asked once.
pub async fn get_alone(
    store: &ObjectStore,
    key: &str,
    offset: u64,
    length: usize,
) -> Result<Read, StoreError> {
    let read = || store.get_once(key, offset, length);
    again(store, StoreOp::Get, transfer(length), read).await
}

/// Looks at an object, trying again within the budget.
pub async fn look(store: &ObjectStore, key: &str) -> Result<Listed, StoreError> {
    again(store, StoreOp::Look, Duration::ZERO, || store.look_once(key)).await
}

/// Lists objects, trying again within the budget.
pub async fn list(
    store: &ObjectStore,
    prefix: &str,
    after: &str,
) -> Result<Vec<Listed>, StoreError> {
    again(store, StoreOp::List, store.listing_time(), || store.list_once(prefix, after)).await
}

/// Removes an object, trying again within the budget.
pub async fn delete(store: &ObjectStore, key: &str) -> Result<(), StoreError> {
    again(store, StoreOp::Delete, Duration::ZERO, || store.delete_once(key)).await
}

/// Whether the object under a taken key is the one that was sent: an attempt whose answer was
/// lost. The footer decides: it holds a checksum of everything in the pack.
async fn is_there(
    store: &ObjectStore,
    key: &str,
    object: &[Piece],
    bytes: usize,
) -> Result<bool, StoreError> {
    if fault::on("taken-key-trusted") {
        return Ok(true);
    }
    if store.look_once(key).await?.bytes != bytes as u64 {
        return Ok(false);
    }
    let compared = bytes.min(COMPARED_BYTES);
    let end = store.get_once(key, (bytes - compared) as u64, compared).await?.bytes;
    let mut left = &end[..];
    for Piece { bytes: piece, .. } in object.iter().rev() {
        let n = piece.len().min(left.len());
        let (rest, last) = left.split_at(left.len() - n);
        if last != &piece[piece.len() - n..] {
            return Ok(false);
        }
        left = rest;
    }
    Ok(true)
}

/// Asks until there is an answer, within the budget. An attempt, and all of them, may take `longer`
/// than one without bytes.
pub(super) async fn again<T, F>(
    store: &ObjectStore,
    op: StoreOp,
    longer: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let ObjectStore { breaker, failures, .. } = store;
    let breaker = breaker.as_ref().filter(|_| has_clients(op));
    let (start, budget) = (clock::now(), STORE_BUDGET + longer);
    let mut backoff = STORE_BACKOFF;
    let mut last = None;
    loop {
        if let Some(Err(resting)) = breaker.map(Breaker::check) {
            failures.note(op, &resting);
            return Err(last.take().unwrap_or(resting));
        }
        let left = budget.saturating_sub(clock::now() - start);
        let limit = match has_clients(op) || !fault::on("silence-waited-for") {
            true => (STORE_ATTEMPT + longer).min(left),
            false => Duration::MAX,
        };
        let done = tokio::time::timeout(limit, attempt()).await;
        let done = done.unwrap_or(Err(StoreError::Late));
        let error = match done {
            Ok(done) => {
                breaker.iter().for_each(|breaker| breaker.note(false));
                return Ok(done);
            }
            Err(error) => error,
        };
        failures.note(op, &error);
        breaker.iter().for_each(|breaker| breaker.note(error.is_transient()));
        if !error.is_transient() || once(op) {
            return Err(error);
        }
        let pause = random::jittered(backoff);
        if clock::now() - start + pause >= budget {
            return Err(error);
        }
        last = Some(error);
        tokio::time::sleep(pause).await;
        backoff = (backoff * 2).min(STORE_ATTEMPT);
    }
}

/// Whether a fault has something asked no second time.
fn once(op: StoreOp) -> bool {
    match op {
        StoreOp::Look => fault::on("look-asked-once"),
        StoreOp::List => fault::on("listing-asked-once"),
        StoreOp::Delete => fault::on("deletion-asked-once"),
        StoreOp::Uploads => fault::on("uploads-asked-once"),
        StoreOp::Put | StoreOp::Get | StoreOp::Abort => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_clients_wait_for_lets_a_store_rest() {
        let all = [StoreOp::Look, StoreOp::List, StoreOp::Delete, StoreOp::Uploads, StoreOp::Abort];
        assert!(!all.into_iter().any(has_clients));
        assert!([StoreOp::Put, StoreOp::Get].into_iter().all(has_clients));
    }

    #[test]
    fn that_an_object_is_not_there_fails_a_read_and_answers_a_look() {
        let missing = StoreError::Missing("v1/x".to_owned());
        let failures = Failures::default();
        for op in [StoreOp::Look, StoreOp::Get] {
            failures.note(op, &missing);
        }
        let text = failures.metrics.text();
        let counted = |op: &str| text.contains(&format!("op=\"{op}\",kind=\"missing\""));
        assert!(counted("get") && !counted("look"), "{text}");
    }
}
