//! How the placement of virtual topics with days is doing.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ConnectionGuard as Guard;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// The handles.
#[derive(Debug)]
pub struct Placed {
    leader: Gauge,
    open: Gauge,
    sealed: Gauge,
    intents: Gauge,
    /// Sealed segments that were longer later on: what came is not read.
    pub grown: Counter,
}

impl Placed {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let (leader, intents) = (Gauge::default(), Gauge::default());
        let segments = Family::<State, Gauge>::default();
        let help = "Whether this process leads the placement";
        registry.register("placement_leader", help, leader.clone());
        let help = "Segments of virtual topics with days, as the placement log tells";
        registry.register("segments", help, segments.clone());
        let help = "Slots whose segments are changed now; writes to them wait";
        registry.register("placement_intents", help, intents.clone());
        let help = "Sealed segments that have grown: a fault, what came is not read";
        let grown = super::counter(registry, "sealed_segments_grown", help);
        let [open, sealed] =
            ["open", "sealed"].map(|state| segments.get_or_create(&State { state }).clone());
        Self { leader, open, sealed, intents, grown }
    }

    /// This process leads until the guard drops.
    pub fn leads(&self) -> Guard {
        self.leader.inc();
        Guard(self.leader.clone())
    }

    /// Notes how many segments and open intents there are.
    pub fn segments(&self, (open, sealed): (usize, usize), intents: usize) {
        let number = |n: usize| n.try_into().unwrap_or(i64::MAX);
        self.open.set(number(open));
        self.sealed.set(number(sealed));
        self.intents.set(number(intents));
    }
}
