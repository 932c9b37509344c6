//! Values in memory, bounded in bytes; the one module that names moka.
//!
//! Invariant: a value that is kept holds no more memory than it is weighed with: it is copied if it
//! is a slice of something much larger. moka removes what is too much a while after it came in, by
//! number of entries: here it is made to, by bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Moka;

/// Which value of which pack: pack id and offset.
pub type PartKey = ([u8; 16], u64);

/// A value in memory.
#[derive(Debug, Clone)]
struct Kept {
    value: Bytes,
    /// Bytes of the memory that it is in.
    held: usize,
}

/// Values kept in memory.
#[derive(Debug)]
pub struct Cache {
    values: Option<Moka<PartKey, Kept>>,
    value_bytes_max: usize,
    /// Bytes that came in since what is too much was removed, and how many may.
    unsettled: AtomicUsize,
    unsettled_max: usize,
}

impl Cache {
    /// Room for `bytes`; 0 keeps nothing.
    pub fn new(bytes: usize) -> Self {
        let weigher =
            |_: &PartKey, kept: &Kept| u32::try_from(kept.held + ENTRY_BYTES).unwrap_or(u32::MAX);
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
        self.values.as_ref()?.get(key).map(|kept| kept.value)
    }

    /// Keeps a value whose memory has `held` bytes, as a copy if that is much more than its own;
    /// one that would push out most others is not kept.
    pub fn keep(&self, key: PartKey, value: &Bytes, held: usize) {
        if let Some(values) = self.values.as_ref().filter(|_| value.len() <= self.value_bytes_max) {
            let shares = held - value.len().min(held) <= value.len() / SLACK_SHARE;
            let kept = match shares {
                true => Kept { value: value.clone(), held },
                false => Kept { value: Bytes::copy_from_slice(value), held: value.len() },
            };
            let held = kept.held;
            values.insert(key, kept);
            let unsettled = self.unsettled.fetch_add(held, Ordering::Relaxed);
            if unsettled + held > self.unsettled_max {
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

/// Memory of an entry besides its value.
const ENTRY_BYTES: usize = 256;
/// A value is not copied if what else is in its memory is at most this part of it.
const SLACK_SHARE: usize = 16;
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
            let held: usize = values.iter().map(|(_, kept)| kept.held).sum();
            assert!(held <= 1_000_000 / 16 * 17 + 20_000, "{held} bytes after {n} values");
        }
        let kept = (460..500).filter(|n| cache.get(&([0; 16], *n)).is_some()).count();
        assert!(kept == 40, "{kept} of the newest 40 are kept");
    }

    #[test]
    fn a_value_in_memory_that_is_much_larger_is_copied_and_weighed_as_it_is() {
        let cache = Cache::new(1_000_000);
        let memory = Bytes::from(vec![7; 17_000]);
        for (n, bytes, held) in [(0, 16_000, 17_000), (1, 15_999, 15_999)] {
            let (key, value) = (([n; 16], 0), memory.slice(..bytes));
            cache.keep(key, &value, memory.len());
            let kept = cache.values.as_ref().and_then(|values| values.get(&key)).expect("kept");
            assert_eq!((kept.held, &kept.value), (held, &value));
            assert_eq!(kept.value.as_ptr() == value.as_ptr(), n == 0, "{bytes} bytes of it");
        }
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
}
