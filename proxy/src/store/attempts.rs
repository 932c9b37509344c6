//! Asking a store more than once: time for one attempt, time for all, pauses that grow, a rest
//! after many failures.
//!
//! Invariant: a key that turns out to be taken counts as stored only if the object there is the
//! one that was sent; nothing is ever overwritten.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{ObjectStore, Piece, Read, StoreError};
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
        self.metrics.health.store_failure(op, error);
        // While the store rests nothing is asked.
        if !matches!(error, StoreError::Resting(_))
            && let Some(left_out) = self.lines.allows(error.kind())
        {
            tracing::warn!(?op, kind = error.kind(), %error, left_out, "object store failed");
        }
    }
}

/// Stores an object, trying again within the budget.
pub async fn put(store: &ObjectStore, key: &str, object: &[Piece]) -> Result<(), StoreError> {
    let bytes = object.iter().map(|piece| piece.bytes.len()).sum();
    again(store, StoreOp::Put, bytes, || async {
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
    again(store, StoreOp::Get, length, || async {
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
    again(store, StoreOp::Get, length, || store.get_once(key, offset, length)).await
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
    if store.size(key).await? != bytes as u64 {
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

async fn again<T, F>(
    store: &ObjectStore,
    op: StoreOp,
    bytes: usize,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let ObjectStore { breaker, failures, .. } = store;
    let start = clock::now();
    let transfer = Duration::from_secs((bytes / STORE_BYTES_PER_SECOND_MIN) as u64);
    let mut backoff = STORE_BACKOFF;
    let mut last = None;
    loop {
        if let Err(resting) = breaker.check() {
            failures.note(op, &resting);
            return Err(last.take().unwrap_or(resting));
        }
        let left = (STORE_BUDGET + transfer).saturating_sub(clock::now() - start);
        let limit = (STORE_ATTEMPT + transfer).min(left);
        let done = tokio::time::timeout(limit, attempt()).await;
        let done = done.unwrap_or(Err(StoreError::Late));
        let error = match done {
            Ok(done) => {
                breaker.note(false);
                return Ok(done);
            }
            Err(error) => error,
        };
        failures.note(op, &error);
        breaker.note(error.is_transient());
        let pause = random::jittered(backoff);
        if !error.is_transient() || clock::now() - start + pause >= STORE_BUDGET + transfer {
            return Err(error);
        }
        last = Some(error);
        tokio::time::sleep(pause).await;
        backoff = (backoff * 2).min(STORE_ATTEMPT);
    }
}
