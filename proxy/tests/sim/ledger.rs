//! What producers sent, what was acknowledged, and whether logs have it.

use std::collections::{BTreeMap, BTreeSet};

use crate::proxy::{Features, THRESHOLD_BYTES};
use crate::records::Numbered;
use crate::world::World;

/// What a producer was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every record once, in order: sequences, acks=all.
    Exactly,
    /// Every record that was acknowledged, the first copies in order: one request at a time.
    AtLeast,
    /// No record twice: acks=0.
    AtMost,
}

/// What one producer sent to one partition.
#[derive(Debug)]
pub struct Stream {
    promise: Promise,
    sent: u32,
    acked: BTreeSet<u32>,
}

/// Who sent where: producer, topic, partition.
type Key = (u32, String, i32);

/// Everything that was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    streams: BTreeMap<Key, Stream>,
}

impl Ledger {
    /// The number of the next record of a stream.
    pub fn next(&mut self, promise: Promise, producer: u32, topic: &str, partition: i32) -> u32 {
        let key = (producer, topic.to_owned(), partition);
        let new = Stream { promise, sent: 0, acked: BTreeSet::new() };
        let stream = self.streams.entry(key).or_insert(new);
        stream.sent += 1;
        stream.sent - 1
    }

    /// Records were acknowledged.
    pub fn ack(&mut self, topic: &str, records: &[Numbered]) {
        for record in records {
            let key = (record.producer, topic.to_owned(), record.partition);
            if let Some(stream) = self.streams.get_mut(&key) {
                stream.acked.insert(record.number);
            }
        }
    }

    fn promise(&self, topic: &str, record: Numbered) -> Option<(Promise, u32)> {
        let key = (record.producer, topic.to_owned(), record.partition);
        self.streams.get(&key).map(|stream| (stream.promise, stream.sent))
    }
}

/// Records as someone reads them, from the start of logs on.
#[derive(Debug, Default)]
pub struct Reading {
    /// Next offset by topic and partition.
    next: BTreeMap<(String, i32), i64>,
    /// Greatest number by place read from and stream.
    last: BTreeMap<(i32, Key), u32>,
    /// Copies by stream and number.
    copies: BTreeMap<Key, BTreeMap<u32, usize>>,
}

impl Reading {
    /// The offset to read next.
    pub fn next(&self, topic: &str, partition: i32) -> i64 {
        self.next.get(&(topic.to_owned(), partition)).copied().unwrap_or(0)
    }

    /// Takes the next records of a partition. `split`: streams go to several partitions.
    pub fn take(
        &mut self,
        world: &World,
        (topic, partition, split): (&str, i32, bool),
        records: &[(i64, Numbered)],
    ) {
        let next = self.next.entry((topic.to_owned(), partition)).or_default();
        let mut found = Vec::new();
        for (offset, record) in records {
            // A batch is read whole, whatever offset in it was asked for.
            if *offset < *next {
                continue;
            }
            if *offset > *next {
                world.violate(format!("{topic}-{partition}: offset {offset} follows {next}"));
            }
            *next = offset + 1;
            found.push(*record);
        }
        for record in found {
            self.take_one(world, (topic, partition, split), record);
        }
    }

    fn take_one(&mut self, world: &World, place: (&str, i32, bool), record: Numbered) {
        let (topic, partition, split) = place;
        let Some((promise, sent)) = world.ledger.borrow().promise(topic, record) else {
            return world.violate(format!("{topic}-{partition}: nobody sent {record:?}"));
        };
        let wrong = |why| world.violate(format!("{topic}-{partition}: {record:?} {why}"));
        if record.number >= sent || (!split && record.partition != partition) {
            wrong("was not sent here");
        }
        let key = (record.producer, topic.to_owned(), record.partition);
        let copies = self.copies.entry(key.clone()).or_default().entry(record.number).or_default();
        *copies += 1;
        if *copies > 1 && promise != Promise::AtLeast {
            wrong("came twice");
        }
        let first = *copies == 1;
        let last = self.last.get(&(partition, key.clone())).copied();
        let next = last.map_or(0, |last| last + 1);
        match promise {
            Promise::Exactly if split && record.number < next => wrong("came out of order"),
            Promise::Exactly if !split && record.number != next => wrong("came out of order"),
            // Of the first copies only: a late second one may come at any time.
            Promise::AtLeast if first && record.number < next => wrong("came out of order"),
            Promise::AtLeast if !split && record.number > next => wrong("came too early"),
            Promise::Exactly | Promise::AtLeast | Promise::AtMost => {}
        }
        let last = last.unwrap_or(0).max(record.number);
        self.last.insert((partition, key), last);
        world.count("records read");
        if split {
            world.count("records of virtual topics read");
        }
        let stored = Features::of(world.seed).offload && topic.starts_with("big-");
        if stored && record.bytes as usize > THRESHOLD_BYTES {
            world.count("large values read");
        }
    }

    /// Once all logs were read: what was acknowledged must have come.
    pub fn check_complete(&self, world: &World) {
        for (key, stream) in &world.ledger.borrow().streams {
            let none = BTreeMap::new();
            let copies = self.copies.get(key).unwrap_or(&none);
            let lost = stream.acked.iter().filter(|number| !copies.contains_key(number));
            let lost: Vec<_> = lost.collect();
            if let Some(first) = lost.first() {
                let n = lost.len();
                world.violate(format!("{key:?}: {n} acknowledged records lost, first {first}"));
            }
        }
    }
}
