//! A second read where the first takes unusually long; the one that answers first counts.
//!
//! Unusually long is longer than 19 of 20 reads took lately, and at least a floor. Invariant: at
//! most one read in twenty is asked twice, and nothing but reads ever is.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::StoreError;
use crate::limits::{HEDGE_FLOOR, HEDGED_OF};
use crate::{clock, fault};

/// Reads whose times are remembered.
const REMEMBERED: usize = 128;

/// Times of late reads.
#[derive(Debug)]
pub struct Hedge {
    floor: Duration,
    times: Mutex<Vec<Duration>>,
    reads: AtomicU64,
    second: AtomicU64,
    untold: AtomicU64,
}

impl Default for Hedge {
    fn default() -> Self {
        Self::new(HEDGE_FLOOR)
    }
}

impl Hedge {
    fn new(floor: Duration) -> Self {
        Self {
            floor,
            times: Mutex::default(),
            reads: AtomicU64::new(0),
            second: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        }
    }

    /// Reads, and reads again beside it if that takes long.
    pub async fn read<T, F>(&self, read: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let start = clock::now();
        let mut first = pin!(read());
        let done = tokio::select! {
            biased;
            done = &mut first => done,
            () = tokio::time::sleep(self.patience()) => {
                let second = self.second.load(Ordering::Relaxed) + 1;
                if second > reads.div_ceil(HEDGED_OF) || fault::on("never-hedged") {
                    first.await
                } else {
                    self.second.fetch_add(1, Ordering::Relaxed);
                    self.untold.fetch_add(1, Ordering::Relaxed);
                    either(first, pin!(read())).await
                }
            }
        };
        if done.is_ok() {
            self.note(reads, clock::now() - start);
        }
        done
    }

    /// Reads that were asked twice since the last call.
    pub fn take_count(&self) -> u64 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    fn note(&self, reads: u64, took: Duration) {
        let mut times = self.times.lock();
        if times.len() < REMEMBERED {
            times.push(took);
        } else {
            let at = usize::try_from(reads).unwrap_or(0) % REMEMBERED;
            times[at] = took;
        }
    }

    fn patience(&self) -> Duration {
        let mut times = self.times.lock().clone();
        times.sort_unstable();
        let late = times.get(times.len() * 19 / 20).copied().unwrap_or_default();
        late.max(self.floor)
    }
}

/// What succeeds first, else the second error.
async fn either<T>(
    first: impl Future<Output = Result<T, StoreError>> + Unpin,
    second: impl Future<Output = Result<T, StoreError>> + Unpin,
) -> Result<T, StoreError> {
    match futures_util::future::select(first, second).await {
        futures_util::future::Either::Left((Err(_), other)) => other.await,
        futures_util::future::Either::Right((Err(_), other)) => other.await,
        futures_util::future::Either::Left((done, _))
        | futures_util::future::Either::Right((done, _)) => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(2);

    #[tokio::test(start_paused = true)]
    async fn one_read_in_twenty_is_asked_twice_at_most() {
        let hedge = Hedge::new(FLOOR);
        for n in 1..=60_u64 {
            let asked = AtomicU64::new(0);
            let read = || {
                // The first of two takes much longer than the second.
                let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    tokio::time::sleep(FLOOR * if first { 10 } else { 1 }).await;
                    Ok(())
                }
            };
            hedge.read(read).await.expect("read");
            let second = hedge.second.load(Ordering::Relaxed);
            assert!((1..=n.div_ceil(HEDGED_OF)).contains(&second), "{second} of {n}");
        }
    }

    #[test]
    fn patience_is_what_19_of_20_reads_took_and_at_least_the_floor() {
        let hedge = Hedge::new(FLOOR);
        assert_eq!(hedge.patience(), FLOOR);
        (1..=100).for_each(|n| hedge.note(n, Duration::from_millis(n)));
        assert_eq!(hedge.patience(), Duration::from_millis(96));
        // Only the last ones count.
        (101..=400).for_each(|n| hedge.note(n, Duration::ZERO));
        assert_eq!(hedge.patience(), FLOOR);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_waits_for_the_other() {
        let hedge = Hedge::new(FLOOR);
        let asked = AtomicU64::new(0);
        let read = || {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                tokio::time::sleep(FLOOR * if first { 50 } else { 1 }).await;
                if first { Ok(7) } else { Err(StoreError::Late) }
            }
        };
        assert_eq!(hedge.read(read).await.expect("the first"), 7);
        assert_eq!(hedge.take_count(), 1);
    }
}
