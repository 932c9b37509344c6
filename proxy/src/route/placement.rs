//! The placement: the chains of all slots of all virtual topics, as of one moment.
//!
//! Topics without days have one that never changes. That of topics with days follows the placement
//! log; each change makes a new [`Placement`], swapped in at once. An exchange holds one for as
//! long as it needs it. Invariant: to be late is harmless, since brokers refuse writes to what is
//! sealed and reads end where segments do.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::chain::{Chain, Stretch};
use super::virtual_topics::Routed;

/// Chains of all slots.
#[derive(Debug, Default)]
pub struct Placement {
    /// By topic and slot; `None`: not known (yet).
    chains: Vec<Vec<Option<Chain>>>,
    names: HashSet<Arc<str>>,
}

impl Placement {
    /// What is known of these topics: of those with days, what `found` tells.
    pub fn new(topics: &[Routed], found: impl Fn(&Routed, usize) -> Option<Chain>) -> Self {
        let of_topic = |topic: &Routed| {
            let slots = topic.physical.iter().enumerate().map(|(slot, name)| match topic.days {
                true => found(topic, slot),
                false => Some(Chain::endless(name.clone(), topic.partitions)),
            });
            slots.collect()
        };
        let chains: Vec<Vec<Option<Chain>>> = topics.iter().map(of_topic).collect();
        let segments = chains.iter().flatten().flatten().flat_map(Chain::segments);
        let names = segments.map(|segment| segment.topic.clone()).collect();
        Self { chains, names }
    }

    /// The chain of a slot, if it is known.
    pub fn chain(&self, topic: &Routed, slot: usize) -> Option<&Chain> {
        self.chains.get(topic.number)?.get(slot)?.as_ref()
    }

    /// Where records of a slot and partition are written, if that is known.
    pub fn open(&self, topic: &Routed, slot: usize, partition: i32) -> Option<Stretch<'_>> {
        self.chain(topic, slot)?.open(partition)
    }

    /// The physical topics of all segments.
    pub fn segments(&self) -> impl Iterator<Item = Arc<str>> {
        self.names.iter().cloned()
    }

    /// Whether a topic is a segment.
    pub fn names(&self, topic: &str) -> bool {
        self.names.contains(topic)
    }
}

/// The placement in force.
#[derive(Debug, Default)]
pub struct Placements(watch::Sender<Arc<Placement>>);

impl Placements {
    /// Puts one in force.
    pub fn swap(&self, new: Placement) {
        self.0.send_replace(Arc::new(new));
    }

    /// The one in force.
    pub fn now(&self) -> Arc<Placement> {
        self.0.borrow().clone()
    }

    /// Waits until another one is in force than the one seen, or the time is over.
    pub async fn wait(&self, seen: &Arc<Placement>, time: Duration) {
        let mut placements = self.0.subscribe();
        let other = placements.wait_for(|placement| !Arc::ptr_eq(placement, seen));
        // Whether it came or not, the caller looks again.
        let _ = tokio::time::timeout(time, other).await;
    }
}
