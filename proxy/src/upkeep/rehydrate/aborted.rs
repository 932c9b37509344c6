//! Transactions that came to nothing: whose records no consumer sees.

use std::collections::HashSet;

use protocol_ext::batch::BatchHeader;

use crate::fault;
use crate::upkeep::log::Committed;

/// Transactions that came to nothing.
pub struct Aborted {
    /// First offset and producer id, the next one last.
    coming: Vec<(i64, i64)>,
    open: HashSet<i64>,
}

impl Aborted {
    /// Those that a broker tells beside what was read.
    pub fn new(read: &Committed) -> Self {
        let mut coming: Vec<_> = read.aborted.iter().map(|(id, first)| (*first, *id)).collect();
        coming.sort_unstable_by(|a, b| b.cmp(a));
        Self { coming, open: HashSet::new() }
    }

    /// Whether no consumer sees the records of the next batch.
    pub fn leaves_out(&mut self, header: &BatchHeader) -> bool {
        let last = header.base_offset + i64::from(header.last_offset_delta);
        while self.coming.last().is_some_and(|(first, _)| *first <= last) {
            self.open.extend(self.coming.pop().map(|(_, id)| id));
        }
        if header.is_control() {
            self.open.remove(&header.producer_id);
            return true;
        }
        !fault::on("copy-takes-aborted")
            && header.is_transactional()
            && self.open.contains(&header.producer_id)
    }
}
