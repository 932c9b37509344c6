//! The newest epoch of each producer in each partition of a virtual topic, over all client
//! connections of the process: what an older one still wants to write there is not written any
//! more. As at brokers, one partition says nothing about another: a client that moves on to its
//! next epoch first ends what it began in the one before, partition by partition.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::limits::PRODUCERS_MAX;

/// A virtual topic, by its number, a logical partition of it, and a producer id.
pub type Writer = (usize, i32, i64);

/// Newest epochs.
#[derive(Debug, Default)]
pub struct Producers(RwLock<HashMap<Writer, i16>>);

impl Producers {
    /// A batch of that producer and epoch was read.
    pub fn saw(&self, writer: Writer, epoch: i16) {
        if self.newest(writer).is_some_and(|newest| newest >= epoch) {
            return;
        }
        let mut newest = self.0.write();
        if newest.len() >= PRODUCERS_MAX {
            // Only a fence for producers that both moved on and left an old copy behind.
            newest.clear();
        }
        let known = newest.entry(writer).or_insert(epoch);
        *known = epoch.max(*known);
    }

    /// Whether no newer epoch was read.
    pub fn is_newest(&self, writer: Writer, epoch: i16) -> bool {
        self.newest(writer).is_none_or(|newest| newest <= epoch)
    }

    fn newest(&self, writer: Writer) -> Option<i16> {
        self.0.read().get(&writer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_is_known_as_such() {
        let producers = Producers::default();
        producers.saw((0, 0, 1), 2);
        producers.saw((0, 0, 1), 1);
        assert!(producers.is_newest((0, 0, 1), 2) && producers.is_newest((0, 0, 1), 3));
        assert!(!producers.is_newest((0, 0, 1), 1));
        assert!(producers.is_newest((0, 0, 2), 0), "another producer");
        assert!(producers.is_newest((0, 1, 1), 1), "another partition");
        assert!(producers.is_newest((1, 0, 1), 1), "another topic");
    }
}
