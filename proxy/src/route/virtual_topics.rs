//! Virtual topics: which physical topic-partition holds a record of a logical one.
//!
//! Logical partition q = slot * P + p. A record that arrives at q goes to its own slot, same p.
//! Beside its physical topics each has a carrier: a real and empty topic of its name, whose id is
//! the id that clients see, and whose partitions are those that groups assign and commit.
//! Invariant: the slot is a pure function of the record's content and the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use protocol_ext::records::RecordView;

use super::producers::Producers;
use super::region::{Region, Rule};
use super::topics::{TopicId, Topics};
use crate::config::VirtualTopic;
use crate::fault;
use crate::metrics::Metrics;

/// One virtual topic.
#[derive(Debug)]
pub struct Routed {
    /// The name clients use.
    pub name: Arc<str>,
    /// Its place among all virtual topics.
    pub number: usize,
    /// Partitions of each slot.
    pub partitions: i32,
    /// The physical topic of each slot.
    pub physical: Vec<Arc<str>>,
    rule: Rule,
    regions: Vec<Region>,
    metrics: Arc<Metrics>,
}

impl Routed {
    fn new((number, config): (usize, &VirtualTopic), metrics: &Arc<Metrics>) -> Self {
        let name: Arc<str> = config.name.as_str().into();
        let physical = config.slots.iter().map(|slot| format!("{name}-{slot}").into()).collect();
        Self {
            name,
            number,
            partitions: config.partitions,
            physical,
            rule: config.rule.clone(),
            regions: config.regions.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Logical partitions.
    pub fn logical(&self) -> i32 {
        self.partitions * i32::try_from(self.physical.len()).unwrap_or(i32::MAX)
    }

    /// Slot and physical partition of a logical partition; `None` beyond the last one.
    pub fn place(&self, q: i32) -> Option<(usize, i32)> {
        let slot = usize::try_from(q.checked_div(self.partitions)?).ok()?;
        (q >= 0 && slot < self.physical.len()).then(|| (slot, q % self.partitions))
    }

    /// The slot of a record: that of its region, else the last, `other`.
    pub fn slot_of(&self, record: &RecordView<'_>) -> u8 {
        let slot = self.rule.region(&self.regions, record).unwrap_or_else(|why| {
            if !fault::on("unlocated-uncounted") {
                self.metrics.unlocated(why);
            }
            self.regions.len()
        });
        u8::try_from(slot).unwrap_or(u8::MAX)
    }
}

/// All virtual topics.
#[derive(Debug)]
pub struct VirtualTopics {
    topics: Vec<Routed>,
    of_brokers: Arc<Topics>,
    names: HashMap<Arc<str>, usize>,
    physical: HashMap<Arc<str>, usize>,
    /// Producers with sequences that write to them.
    pub producers: Producers,
}

impl VirtualTopics {
    /// The virtual topics of a configuration; `None` if there are none. `of_brokers` knows the ids
    /// of their carriers.
    pub fn new(
        config: &[VirtualTopic],
        of_brokers: Arc<Topics>,
        metrics: &Arc<Metrics>,
    ) -> Option<Self> {
        let topics = config.iter().enumerate().map(|topic| Routed::new(topic, metrics));
        let topics: Vec<Routed> = topics.collect();
        let names = topics.iter().enumerate().map(|(n, t)| (t.name.clone(), n)).collect();
        let physical = topics.iter().enumerate();
        let physical = physical.flat_map(|(n, t)| t.physical.iter().map(move |p| (p.clone(), n)));
        let physical: HashMap<Arc<str>, usize> = physical.collect();
        of_brokers.keep_rows(physical.keys().cloned());
        let producers = Producers::default();
        (!topics.is_empty()).then_some(Self { topics, of_brokers, names, physical, producers })
    }

    /// All of them.
    pub fn all(&self) -> &[Routed] {
        &self.topics
    }

    /// The virtual topic of a name.
    pub fn by_name(&self, name: &str) -> Option<&Routed> {
        self.names.get(name).map(|n| &self.topics[*n])
    }

    /// The virtual topic whose carrier has this id, as far as is known.
    pub fn by_id(&self, id: &TopicId) -> Option<&Routed> {
        self.by_name(&self.of_brokers.known_name(id)?)
    }

    /// Whether clients must not see a topic, since it holds a part of a virtual one.
    pub fn hides(&self, name: &str) -> bool {
        self.physical.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed() -> Routed {
        let config = VirtualTopic {
            name: "fires".to_owned(),
            partitions: 3,
            rule: Rule::default(),
            regions: Vec::new(),
            slots: vec!["norcal".to_owned(), "other".to_owned()],
        };
        Routed::new((0, &config), &Arc::new(Metrics::new()))
    }

    #[test]
    fn every_logical_partition_has_one_place_and_none_lies_beyond() {
        let routed = routed();
        let places: Vec<_> = (-1..=6).map(|q| routed.place(q)).collect();
        let inside = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];
        assert_eq!(places[1..7], inside.map(Some));
        assert_eq!((places[0], places[7]), (None, None));
    }
}
