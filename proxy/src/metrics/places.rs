//! Where records of virtual topics go: by slot, and those that belong to no region or to a day that
//! is not open.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ReasonOnly;
use crate::route::region::Unlocated;
use crate::route::virtual_topics::OutsideDays;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InSlot {
    topic: String,
    slot: String,
}

/// Counters of records by the slot of a topic that they went to.
#[derive(Debug)]
pub struct Slots(Vec<Counter>);

impl Slots {
    /// Counts records of a slot.
    pub fn count(&self, slot: usize, records: u32) {
        if let Some(counter) = self.0.get(slot) {
            counter.inc_by(records.into());
        }
    }
}

/// Counters of them.
#[derive(Debug)]
pub struct Places {
    records: Family<InSlot, Counter>,
    /// Batches that were split, or all of which went to one slot.
    pub batches: Counter,
    /// What they were split into.
    pub parts: Counter,
    unlocated: [Counter; Unlocated::ALL.len()],
    outside_days: [Counter; OutsideDays::ALL.len()],
}

impl Places {
    pub(super) fn new(r: &mut Registry) -> Self {
        let records = Family::<InSlot, Counter>::default();
        r.register("routed_records", "Records routed to slots of virtual topics", records.clone());
        let help = "Batches of producers whose records were routed";
        let batches = super::counter(r, "routed_batches", help);
        let help = "Batches that were made of them, one for each slot";
        let parts = super::counter(r, "routed_sub_batches", help);
        let help = "Records of virtual topics that went to the slot `other`, by why";
        let unlocated = Family::<ReasonOnly, Counter>::default();
        r.register("unlocated_records", help, unlocated.clone());
        let help = "Records whose day is not open in a topic with days by timestamp, by why";
        let outside_days = Family::<ReasonOnly, Counter>::default();
        r.register("records_outside_days", help, outside_days.clone());
        let of = |family: &Family<ReasonOnly, Counter>, reason| {
            family.get_or_create(&ReasonOnly { reason }).clone()
        };
        Self {
            records,
            batches,
            parts,
            unlocated: Unlocated::ALL.map(|why| of(&unlocated, why.name())),
            outside_days: OutsideDays::ALL.map(|how| of(&outside_days, how.name())),
        }
    }

    /// The counters of a topic with these slots.
    pub fn slots(&self, topic: &str, slots: &[String]) -> Slots {
        let of = |slot: &String| InSlot { topic: topic.to_owned(), slot: slot.clone() };
        Slots(slots.iter().map(|slot| self.records.get_or_create(&of(slot)).clone()).collect())
    }

    /// Counts a record that belongs to no region.
    pub fn unlocated(&self, why: Unlocated) {
        self.unlocated[why as usize].inc();
    }

    /// Counts a record whose day is not open.
    pub fn outside_days(&self, how: OutsideDays) {
        self.outside_days[how as usize].inc();
    }
}
