//! Records of virtual topics that belong to no region, or to a day that is not open.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::ReasonOnly;
use crate::route::region::Unlocated;
use crate::route::virtual_topics::OutsideDays;

/// Counters of them, by why.
#[derive(Debug)]
pub struct Places {
    unlocated: [Counter; Unlocated::ALL.len()],
    outside_days: [Counter; OutsideDays::ALL.len()],
}

impl Places {
    pub(super) fn new(r: &mut Registry) -> Self {
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
            unlocated: Unlocated::ALL.map(|why| of(&unlocated, why.name())),
            outside_days: OutsideDays::ALL.map(|how| of(&outside_days, how.name())),
        }
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
