//! The newest epoch of each producer, over all client connections of the process: what an older one
//! still wants to write is not written any more.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::limits::PRODUCERS_MAX;

/// Newest epochs by producer id.
#[derive(Debug, Default)]
pub struct Producers(RwLock<HashMap<i64, i16>>);

impl Producers {
    /// A batch of that producer and epoch was read.
    pub fn saw(&self, id: i64, epoch: i16) {
        if self.newest(id).is_some_and(|newest| newest >= epoch) {
            return;
        }
        let mut newest = self.0.write();
        if newest.len() >= PRODUCERS_MAX {
            // Only a fence for producers that both moved on and left an old copy behind.
            newest.clear();
        }
        let known = newest.entry(id).or_insert(epoch);
        *known = epoch.max(*known);
    }

    /// Whether no newer epoch was read.
    pub fn is_newest(&self, id: i64, epoch: i16) -> bool {
        self.newest(id).is_none_or(|newest| newest <= epoch)
    }

    fn newest(&self, id: i64) -> Option<i16> {
        self.0.read().get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_is_known_as_such() {
        let producers = Producers::default();
        producers.saw(1, 2);
        producers.saw(1, 1);
        assert!(producers.is_newest(1, 2) && producers.is_newest(1, 3));
        assert!(!producers.is_newest(1, 1));
        assert!(producers.is_newest(2, 0));
    }
}
