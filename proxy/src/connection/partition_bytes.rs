//! What clients want of a partition: a request of a Fetch session (KIP-227) tells only changes.

use std::sync::atomic::{AtomicUsize, Ordering};

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
