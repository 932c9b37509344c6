//! How many records a share consumer may acquire at once where their values are in the store.
//!
//! Brokers count bytes of references, clients want answers that they can hold; what was acquired
//! and has no room in an answer is a delivery wasted. Each answer says how long its values are,
//! and the requests behind it ask for as many records as fit. Both pumps of a connection know it.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::filters::offload::Longest;
use crate::limits::RESTORED_BYTES_MAX;

/// The most records that a ShareFetch request may ask for.
#[derive(Debug)]
pub struct Pace(AtomicI32);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicI32::new(FIRST))
    }
}

impl Pace {
    /// The most records to ask for.
    pub fn records_max(&self) -> i32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Learns from an answer to a request that wanted so many bytes at most.
    pub fn learn(&self, longest: Longest, wanted: usize) {
        let room = wanted.min(RESTORED_BYTES_MAX);
        let records = match longest {
            Longest::Unknown => return,
            Longest::Plain => self.records_max().saturating_mul(GROWTH),
            Longest::Stored(bytes) => i32::try_from(room / bytes.max(1)).unwrap_or(i32::MAX).max(1),
        };
        self.0.store(records, Ordering::Relaxed);
    }
}

/// The most bytes of a partition that a client wants.
#[derive(Debug)]
pub struct PartitionBytes(AtomicUsize);

impl Default for PartitionBytes {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl PartitionBytes {
    /// What a request says, or else the last one said.
    pub fn of(&self, said: Option<usize>) -> usize {
        said.into_iter().for_each(|bytes| self.0.store(bytes, Ordering::Relaxed));
        self.0.load(Ordering::Relaxed)
    }
}

/// Records before anything is known: of a MiB each they fit an answer.
const FIRST: i32 = 32;
/// Where nothing is in the store more is asked for each time.
const GROWTH: i32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_ask_for_what_fits_an_answer_and_for_more_where_nothing_is_stored() {
        let pace = Pace::default();
        pace.learn(Longest::Unknown, 100);
        assert_eq!(pace.records_max(), FIRST);
        pace.learn(Longest::Stored(30), 100);
        assert_eq!(pace.records_max(), 3);
        pace.learn(Longest::Stored(3000), 100);
        assert_eq!(pace.records_max(), 1);
        for _ in 0..20 {
            pace.learn(Longest::Plain, 100);
        }
        assert_eq!(pace.records_max(), i32::MAX);
    }
}
