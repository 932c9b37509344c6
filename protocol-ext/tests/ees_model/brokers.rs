//! Brokers of the model: one physical partition with replicas, and what it knows of producers, by
//! the answers of real brokers (one batch is remembered for each producer id: the last of its
//! newest epoch).

use std::collections::HashMap;

/// A written part: which client batch it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub producer_id: i64,
    pub epoch: i16,
    pub records: u32,
    pub client: usize,
    pub index: usize,
}

/// The last batch of a producer id.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    pub epoch: i16,
    pub records: u32,
    offset: usize,
}

type Producers = HashMap<i64, Last>;

/// What a broker that lost its leadership unaware still shows.
#[derive(Clone, Debug)]
pub struct Ghost {
    pub until: u64,
    pub producers: Producers,
    pub end: usize,
    pub high_watermark: usize,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// Written, or there already: acknowledged once so many entries are replicated.
    At { needs: usize, duplicate: bool },
    /// An answer at once.
    Code(i16),
}

/// A physical partition.
#[derive(Clone, Debug, Default)]
pub struct Phi {
    pub log: Vec<Entry>,
    pub producers: Producers,
    pub high_watermark: usize,
    /// Lengths of the two followers' logs; `None`: out of sync, not electable.
    pub followers: [Option<usize>; 2],
    /// No leader until then.
    pub down_until: u64,
    pub leader_epoch: u32,
    /// Writes are refused from then on.
    pub refuses_from: Option<u64>,
    /// The seal is a fact: readers see so many entries.
    pub sealed: Option<usize>,
    pub ghost: Option<Ghost>,
}

impl Phi {
    pub fn new() -> Self {
        Self { followers: [Some(0), Some(0)], ..Self::default() }
    }

    pub fn is_led(&self, now: u64) -> bool {
        now >= self.down_until
    }

    pub fn refuses(&self, now: u64) -> bool {
        self.refuses_from.is_some_and(|from| now >= from)
    }

    /// What the leader does with a part. The size is checked before duplicates, as brokers do.
    pub fn append(&mut self, now: u64, entry: Entry) -> Append {
        if !self.is_led(now) {
            return Append::Code(6);
        }
        if self.refuses(now) {
            return Append::Code(10);
        }
        match self.producers.get(&entry.producer_id) {
            Some(last) if entry.epoch < last.epoch => return Append::Code(47),
            Some(last) if entry.epoch == last.epoch => {
                if last.records != entry.records {
                    return Append::Code(45);
                }
                return Append::At { needs: last.offset + 1, duplicate: true };
            }
            _ => {}
        }
        remember(&mut self.producers, self.log.len(), &entry);
        self.log.push(entry);
        Append::At { needs: self.log.len(), duplicate: false }
    }

    /// Followers fetch; one of them may lag.
    pub fn replicate(&mut self, lagging: Option<usize>) {
        for (n, follower) in self.followers.iter_mut().enumerate() {
            if lagging != Some(n)
                && let Some(length) = follower
            {
                *length = self.log.len();
            }
        }
        let in_sync = self.followers.iter().flatten().copied();
        let least = in_sync.min().unwrap_or(self.log.len()).min(self.log.len());
        self.high_watermark = self.high_watermark.max(least);
    }

    /// The leader is gone: the first follower in sync leads with what it has. With `ghost_until`
    /// the old one does not know and goes on answering questions.
    pub fn fail_over(&mut self, now: u64, pause: u64, ghost_until: Option<u64>) {
        self.ghost = ghost_until.map(|until| Ghost {
            until,
            producers: self.producers.clone(),
            end: self.log.len(),
            high_watermark: self.high_watermark,
        });
        let Some(leader) = self.followers.iter().position(Option::is_some) else { return };
        let length = self.followers[leader].unwrap_or(0);
        self.log.truncate(length);
        self.producers.clear();
        for (offset, entry) in self.log.iter().enumerate() {
            remember(&mut self.producers, offset, entry);
        }
        // The old leader comes back and follows; what it had beyond the new log is cut off.
        let other = self.followers[1 - leader].map(|other| other.min(length));
        self.followers = [other, Some(self.high_watermark.min(length))];
        self.down_until = now + pause;
        self.leader_epoch += 1;
    }
}

fn remember(producers: &mut Producers, offset: usize, entry: &Entry) {
    let last = Last { epoch: entry.epoch, records: entry.records, offset };
    producers.insert(entry.producer_id, last);
}
