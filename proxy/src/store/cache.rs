//! Values in memory, bounded in bytes; the one module that names moka.
//!
//! Invariant: a value that is kept holds no more memory than it is weighed with, so it is never a
//! slice of something much larger. moka removes what is too much a while after it came in, by
//! number of entries: here it is made to, by bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

/// Which value of which pack: pack id and offset.
pub type PartKey = ([u8; 16], u64);

/// Values kept in memory.
#[derive(Debug)]
pub struct Cache {
    values: Option<Moka<PartKey, Bytes>>,
    value_bytes_max: usize,
    /// Bytes that came in since what is too much was removed, and how many may.
    unsettled: AtomicUsize,
    unsettled_max: usize,
}

impl Cache {
    /// Room for `bytes`; 0 keeps nothing.
    pub fn new(bytes: usize) -> Self {
        let weigher = |_: &PartKey, value: &Bytes| {
            u32::try_from(value.len() + beside(value.len())).unwrap_or(u32::MAX)
        };
        let values = (bytes > 0)
            .then(|| Moka::builder().max_capacity(bytes as u64).weigher(weigher))
            // What came last is what readers at the tail want next; moka's own choice would not
            // let it in beside values that were read more often.
            .map(|cache| cache.eviction_policy(EvictionPolicy::lru()).build());
        Self {
            values,
            value_bytes_max: bytes / SHARE,
            unsettled: AtomicUsize::new(0),
            unsettled_max: bytes / UNSETTLED_SHARE,
        }
    }

    /// A value, if it is kept.
    pub fn get(&self, key: &PartKey) -> Option<Bytes> {
        self.values.as_ref()?.get(key)
    }

    /// Keeps a value for which `held_bytes` of memory stay taken, as a copy where that is much more
    /// than the value; one that would push out most others is not kept.
    pub fn keep(&self, key: PartKey, value: &Bytes, held_bytes: usize) {
        if let Some(values) = self.values.as_ref().filter(|_| value.len() <= self.value_bytes_max) {
            let share = held_bytes.saturating_sub(value.len()) <= beside(value.len()) - ENTRY_BYTES;
            let value = if share { value.clone() } else { Bytes::copy_from_slice(value) };
            let bytes = value.len();
            values.insert(key, value);
            let unsettled = self.unsettled.fetch_add(bytes, Ordering::Relaxed);
            if unsettled + bytes > self.unsettled_max {
                self.unsettled.store(0, Ordering::Relaxed);
                values.run_pending_tasks();
            }
        }
    }

    /// Forgets a value.
    pub fn forget(&self, key: &PartKey) {
        if let Some(values) = &self.values {
            values.invalidate(key);
        }
    }
}

/// Memory that is counted besides a value of so many bytes.
fn beside(value_bytes: usize) -> usize {
    ENTRY_BYTES + if value_bytes >= SHARED_BYTES_MIN { SLACK_BYTES } else { 0 }
}

/// Memory of an entry besides its value.
const ENTRY_BYTES: usize = 256;
/// Values from here on may be kept in the memory of their request, with so much around them.
const SHARED_BYTES_MIN: usize = 64 * 1024;
/// See [`SHARED_BYTES_MIN`]: enough for what a Produce request of one record has besides its value.
const SLACK_BYTES: usize = 1024;
/// A value takes at most this part of all room.
const SHARE: usize = 4;
/// So much of it may be in memory besides until what is too much is removed.
const UNSETTLED_SHARE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_never_is_much_more_than_the_bound() {
        let cache = Cache::new(1_000_000);
        let values = cache.values.as_ref().expect("kept");
        for n in 0..500_u64 {
            cache.keep(([0; 16], n), &vec![1; 20_000].into(), 20_000);
            let held: usize = values.iter().map(|(_, value)| value.len()).sum();
            assert!(held <= 1_000_000 / 16 * 17 + 20_000, "{held} bytes after {n} values");
        }
        let kept = (460..500).filter(|n| cache.get(&([0; 16], *n)).is_some()).count();
        assert!(kept == 40, "{kept} of the newest 40 are kept");
    }

    #[test]
    fn the_bound_counts_bytes_and_a_huge_value_is_not_kept() {
        let cache = Cache::new(100_000);
        for n in 0..100 {
            cache.keep(([n; 16], 0), &vec![n; 10_000].into(), 10_000);
        }
        let values = cache.values.as_ref().expect("kept");
        values.run_pending_tasks();
        assert!(values.weighted_size() <= 100_000, "{} bytes", values.weighted_size());
        assert!(values.entry_count() >= 5, "{} values", values.entry_count());
        cache.keep(([200; 16], 0), &vec![0; 30_000].into(), 30_000);
        assert_eq!(cache.get(&([200; 16], 0)), None);
        let none = Cache::new(0);
        none.keep(([1; 16], 0), &Bytes::from_static(b"x"), 1);
        assert_eq!(none.get(&([1; 16], 0)), None);
    }

    #[test]
    fn a_value_stays_in_its_request_only_if_that_is_little_more() {
        let cache = Cache::new(10_000_000);
        let request = Bytes::from(vec![7; 101_000]);
        let kept_at = |n: u64, value: Bytes, held: usize| {
            cache.keep(([0; 16], n), &value, held);
            let kept = cache.get(&([0; 16], n)).expect("kept");
            assert_eq!(kept, value);
            kept.as_ptr()
        };
        let large = request.slice(500..100_500);
        assert_eq!(kept_at(1, large.clone(), request.len()), large.as_ptr(), "shared");
        // Two values of one request: each would hold the other.
        let half = request.slice(500..50_000);
        assert_ne!(kept_at(2, half.clone(), request.len()), half.as_ptr());
        assert_ne!(kept_at(3, large.clone(), 102_000), large.as_ptr(), "2,000 bytes around it");
        // What is around a small value is not counted.
        let small = Bytes::from(vec![1; 1000]);
        assert_ne!(kept_at(4, small.slice(1..), small.len()), small[1..].as_ptr());
        assert_eq!(kept_at(5, small.clone(), small.len()), small.as_ptr());
    }
}
