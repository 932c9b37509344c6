//! The newest epoch of each producer in each partition of a virtual topic, over all client
//! connections of the process: what an older one still wants to write there is not written any
//! more. As at brokers, one partition says nothing about another: a client that moves on to its
//! next epoch first ends what it began in the one before, partition by partition.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::limits::PRODUCERS_MAX;

/// A virtual topic, by its number, a logical partition of it, and a producer id.
pub type Writer = (usize, i32, i64);

/// Newest epochs. Those of writers that wrote last are kept: a generation that is full becomes the
/// old one, and what was old is forgotten.
#[derive(Debug, Default)]
pub struct Producers(RwLock<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Writer, i16>,
    old: HashMap<Writer, i16>,
}

impl Generations {
    fn newest(&self, writer: Writer) -> Option<i16> {
        self.young.get(&writer).or_else(|| self.old.get(&writer)).copied()
    }
}

impl Producers {
    /// A batch of that producer and epoch was read; whether no newer one was before.
    pub fn saw(&self, writer: Writer, epoch: i16) -> bool {
        if let Some(newest) = self.0.read().young.get(&writer)
            && *newest >= epoch
        {
            return *newest == epoch;
        }
        let mut all = self.0.write();
        let newest = all.newest(writer).map_or(epoch, |known| known.max(epoch));
        if all.young.len() >= PRODUCERS_MAX / 2 && !all.young.contains_key(&writer) {
            // Only a fence for producers that both moved on and left an old copy behind.
            all.old = std::mem::take(&mut all.young);
        }
        all.young.insert(writer, newest);
        newest == epoch
    }

    /// Whether no newer epoch was read.
    pub fn is_newest(&self, writer: Writer, epoch: i16) -> bool {
        self.0.read().newest(writer).is_none_or(|newest| newest <= epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_epoch_is_known_as_such() {
        let producers = Producers::default();
        assert!(producers.saw((0, 0, 1), 2) && producers.saw((0, 0, 1), 2));
        assert!(!producers.saw((0, 0, 1), 1));
        assert!(producers.is_newest((0, 0, 1), 2) && producers.is_newest((0, 0, 1), 3));
        assert!(!producers.is_newest((0, 0, 1), 1));
        assert!(producers.is_newest((0, 0, 2), 0), "another producer");
        assert!(producers.is_newest((0, 1, 1), 1), "another partition");
        assert!(producers.is_newest((1, 0, 1), 1), "another topic");
    }

    #[test]
    fn who_writes_is_kept_however_many_there_are() {
        let producers = Producers::default();
        let (writing, silent) = ((0, 0, 0), (0, 0, 1));
        producers.saw(writing, 5);
        producers.saw(silent, 5);
        for id in 2..i64::try_from(PRODUCERS_MAX).unwrap() + 2 {
            producers.saw((0, 0, id), 0);
            assert!(!producers.saw(writing, 4));
        }
        assert!(!producers.is_newest(writing, 4));
        assert!(producers.is_newest(silent, 4), "nothing is forgotten: memory has no bound");
        let all = producers.0.read();
        assert!(all.young.len() + all.old.len() <= PRODUCERS_MAX);
    }
}
