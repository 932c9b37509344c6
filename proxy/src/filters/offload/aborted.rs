//! Batches of aborted transactions, which readers of committed records drop: their values need not
//! be read.
//!
//! As clients do: a transaction that the answer lists holds the batches of its producer from its
//! first offset up to the marker that ends it. Invariant: what is not sure to be dropped is not
//! called aborted.

use std::collections::{BTreeMap, VecDeque};

use protocol_ext::batch::BatchHeader;

use crate::fault;

/// The aborted transactions of a partition, of which those are gone whose markers came.
pub(super) struct Aborted(BTreeMap<i64, VecDeque<i64>>);

impl Aborted {
    /// Those that an answer lists: producers and first offsets.
    pub fn new(listed: &[(i64, i64)]) -> Self {
        let mut listed = listed.to_vec();
        listed.sort_unstable();
        let mut firsts: BTreeMap<i64, VecDeque<i64>> = BTreeMap::new();
        for (producer, first) in listed {
            firsts.entry(producer).or_default().push_back(first);
        }
        Self(firsts)
    }

    /// Whether a batch is in one of them. Batches come in their order, markers among them.
    pub fn holds(&mut self, header: &BatchHeader) -> bool {
        let Some(firsts) = self.0.get_mut(&header.producer_id) else { return false };
        let begun = firsts.front().is_some_and(|first| *first <= header.base_offset);
        if !begun || !header.is_transactional() || fault::on("aborted-values-read") {
            return false;
        }
        if header.is_control() && !fault::on("aborted-for-ever") {
            firsts.pop_front();
        }
        !header.is_control()
    }
}
