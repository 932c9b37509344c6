//! What the placement log says, record by record: leader, layouts, segments, open intents. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::record::{Intent, Key, Layout, Leader, SegmentFact};
use crate::route::chain::{Broken, Chain, Seal, Segment};
use crate::route::virtual_topics::Routed;

/// Virtual topic and slot.
pub type Slot = (String, String);

/// The state that the log adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Who led last.
    pub leader: Option<Leader>,
    /// Layouts of virtual topics.
    pub layouts: BTreeMap<String, Layout>,
    /// Segments by slot and number.
    pub segments: BTreeMap<Slot, BTreeMap<u32, SegmentFact>>,
    /// What is not done yet.
    pub intents: BTreeMap<Slot, Intent>,
}

/// Why a slot has no chain.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// No segment was ever opened.
    #[error("it has no segment yet")]
    None,
    /// The log has another count of partitions, or other slots.
    #[error("the placement log has another layout than the configuration")]
    Layout,
    /// Its segments are no chain.
    #[error("{0}")]
    Broken(#[from] Broken),
}

impl Table {
    /// Takes one record. Of keys that are not known nothing is taken; an unreadable value is told.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let Some(key) = Key::parse(key) else { return Ok(()) };
        match key {
            Key::Leader => self.leader = read(value)?,
            Key::Topic(topic) => put(&mut self.layouts, topic, read(value)?),
            Key::Segment(topic, slot, number) => {
                let slots = self.segments.entry((topic, slot)).or_default();
                put(slots, number, read(value)?);
            }
            Key::Intent(topic, slot) => put(&mut self.intents, (topic, slot), read(value)?),
        }
        Ok(())
    }

    /// Whether another table has the same segments.
    pub fn places_as(&self, other: &Self) -> bool {
        self.layouts == other.layouts && self.segments == other.segments
    }

    /// All segments.
    pub fn all(&self) -> impl Iterator<Item = &SegmentFact> {
        self.segments.values().flat_map(BTreeMap::values)
    }

    /// How many segments are open, and how many sealed.
    pub fn counts(&self) -> (usize, usize) {
        let (sealed, open): (Vec<_>, Vec<_>) = self.all().partition(|fact| fact.ends.is_some());
        (open.len(), sealed.len())
    }

    /// The segments of a slot.
    pub fn segments_of(&self, topic: &Routed, slot: &str) -> Option<&BTreeMap<u32, SegmentFact>> {
        self.segments.get(&(topic.name.to_string(), slot.to_owned()))
    }

    /// The chain of a slot.
    pub fn chain(&self, topic: &Routed, slot: usize) -> Result<Chain, Unplaced> {
        let layout = self.layouts.get(&*topic.name).ok_or(Unplaced::None)?;
        if layout.partitions != topic.partitions || layout.slots != topic.slots() {
            return Err(Unplaced::Layout);
        }
        let slot = topic.slot_name(slot).ok_or(Unplaced::Layout)?;
        let segments = self.segments_of(topic, slot).into_iter().flatten();
        let segments = segments.map(|(number, fact)| {
            let ends = fact.ends.clone();
            let at_ms = fact.sealed_at_ms.unwrap_or(0);
            Segment {
                number: *number,
                topic: fact.topic.as_str().into(),
                bases: fact.bases.clone(),
                seal: ends.map(|ends| Seal { ends, at_ms }),
            }
        });
        match Chain::new(segments.collect(), topic.partitions) {
            Err(Broken::Empty) => Err(Unplaced::None),
            chain => Ok(chain?),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(value: Option<&'a [u8]>) -> Result<Option<T>, serde_json::Error> {
    value.map(serde_json::from_slice).transpose()
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
