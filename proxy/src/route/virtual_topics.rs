//! Virtual topics: which physical topic-partition holds a record of a logical one.
//!
//! Logical partition q = slot * P + p. A record that arrives at q goes to its own slot, same p.
//! Beside its physical topics each has a carrier: a real and empty topic of its name, whose id is
//! the id that clients see, and whose partitions are those that groups assign and commit.
//! With days by record timestamp a region has a slot for each of the days that are open at a time,
//! in a ring: slot = region * K + day mod K.
//! Invariant: the slot is a pure function of the record's content and the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use protocol_ext::records::RecordView;
use protocol_ext::split::SubBatch;

use super::chain::Chain;
use super::placement::{Placement, Placements};
use super::producers::Producers;
use super::region::{Region, Rule};
use super::sealed_rows::SealedRows;
use super::sizes::Sizes;
use super::topics::{TopicId, Topics};
use crate::clock::{self, DAY_MS};
use crate::config::VirtualTopic;
use crate::fault;
use crate::metrics::{Metrics, Slots};

/// How a record's day is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideDays {
    /// Its day was the open one of its slot before, or never was.
    Late,
    /// Its day is yet to come.
    Early,
}

impl OutsideDays {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Late, Self::Early];

    /// Its name as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Early => "early",
        }
    }
}

/// What a topic is to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A virtual topic: on brokers the carrier of this name.
    Virtual,
    /// A part of a virtual one, or the log of their placement: nothing.
    Hidden,
    /// A topic of brokers.
    Plain,
}

/// One virtual topic.
#[derive(Debug)]
pub struct Routed {
    /// The name clients use.
    pub name: Arc<str>,
    /// Its place among all virtual topics.
    pub number: usize,
    /// Partitions of each slot.
    pub partitions: i32,
    /// The physical topic of each slot; with days what the names of its segments start with.
    pub physical: Vec<Arc<str>>,
    /// Its slots have a new segment every day.
    pub days: bool,
    /// Days after which a sealed segment is deleted.
    pub retention_days: u32,
    /// How long before its day a segment's topic is made, in milliseconds.
    pub create_ahead_ms: u64,
    /// Slots of a region: days that are open at a time.
    ring: u8,
    slots: Vec<String>,
    rule: Rule,
    regions: Vec<Region>,
    metrics: Arc<Metrics>,
    /// Records by slot.
    records: Slots,
}

impl Routed {
    fn new((number, config): (usize, &VirtualTopic), metrics: &Arc<Metrics>) -> Self {
        let name: Arc<str> = config.name.as_str().into();
        let ring = config.open_days;
        let of_ring = |slot: &String| match ring {
            1 => vec![slot.clone()],
            ring => (0..ring).map(|nth| format!("{slot}.{nth}")).collect(),
        };
        let physical = config.slots.iter().flat_map(|slot| {
            let physical: Arc<str> = format!("{name}-{slot}").into();
            std::iter::repeat_n(physical, usize::from(ring))
        });
        let physical = physical.collect();
        let slots: Vec<String> = config.slots.iter().flat_map(of_ring).collect();
        let records = metrics.places.slots(&name, &slots);
        Self {
            name,
            number,
            partitions: config.partitions,
            physical,
            days: config.days,
            retention_days: config.retention_days,
            create_ahead_ms: u64::try_from(config.create_ahead.as_millis()).unwrap_or(u64::MAX),
            ring,
            slots,
            rule: config.rule.clone(),
            regions: config.regions.clone(),
            metrics: metrics.clone(),
            records,
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

    /// The names of its slots, in order.
    pub fn slots(&self) -> &[String] {
        &self.slots
    }

    /// The name of a slot.
    pub fn slot_name(&self, slot: usize) -> Option<&str> {
        self.slots.get(slot).map(String::as_str)
    }

    /// What the names of a slot's physical topics start with.
    pub fn physical_of(&self, slot: &str) -> &str {
        let known = self.slots.iter().position(|known| known == slot);
        known.map_or("", |slot| &*self.physical[slot])
    }

    /// The day, counted from 1970, that is open in a slot: the last one of its ring.
    pub fn open_day(&self, slot: usize, now_ms: u64) -> u64 {
        let (ring, today) = (u64::from(self.ring), now_ms / DAY_MS);
        today.saturating_sub((today + ring - slot as u64 % ring) % ring)
    }

    /// Counts a batch that was split into these.
    pub fn count(&self, parts: &[SubBatch]) {
        self.metrics.places.batches.inc();
        self.metrics.places.parts.inc_by(parts.len() as u64);
        for part in parts {
            self.records.count(usize::from(part.slot), part.records);
        }
    }

    /// Whether a topic has the name of a segment of this one.
    pub fn owns(&self, topic: &str) -> bool {
        let mut slots = self.physical.iter().filter(|_| self.days);
        slots.any(|slot| topic.strip_prefix(&**slot).is_some_and(is_day))
    }

    /// The slot of a record in a batch that begins at this time: that of its region, else of the
    /// last, `other`, and there that of its day.
    pub fn slot_of(&self, record: &RecordView<'_>, base_timestamp: i64) -> u8 {
        let region = self.rule.region(&self.regions, record).unwrap_or_else(|why| {
            if !fault::on("unlocated-uncounted") {
                self.metrics.places.unlocated(why);
            }
            self.regions.len()
        });
        let ring = usize::from(self.ring);
        let nth = match ring {
            1 => 0,
            _ => self.day_slot(base_timestamp.saturating_add(record.timestamp_delta)),
        };
        u8::try_from(region * ring + nth).unwrap_or(u8::MAX)
    }

    /// The place in the ring of a record's day. One whose day is not open goes there all the same,
    /// since a record must go where it went before, and is counted.
    fn day_slot(&self, timestamp_ms: i64) -> usize {
        let day_ms = DAY_MS.cast_signed();
        let (day, today) = (timestamp_ms.div_euclid(day_ms), clock::unix_ms() / DAY_MS);
        let late = today.cast_signed() - day;
        if late >= i64::from(self.ring) {
            self.metrics.places.outside_days(OutsideDays::Late);
        } else if late < 0 {
            self.metrics.places.outside_days(OutsideDays::Early);
        }
        let ring = i64::from(self.ring);
        let nth = if fault::on("days-by-arrival") { 0 } else { day.rem_euclid(ring) };
        usize::try_from(nth).unwrap_or(0)
    }
}

/// All virtual topics.
#[derive(Debug)]
pub struct VirtualTopics {
    topics: Vec<Routed>,
    of_brokers: Arc<Topics>,
    names: HashMap<Arc<str>, usize>,
    physical: HashMap<Arc<str>, usize>,
    placements: Placements,
    /// Producers with sequences that write to them.
    pub producers: Producers,
    /// How long batches may be in physical topics.
    pub sizes: Sizes,
    /// What their sealed segments say of producers.
    pub sealed: SealedRows,
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
        let all = Self {
            topics,
            of_brokers,
            names,
            physical,
            placements: Placements::default(),
            producers: Producers::default(),
            sizes: Sizes::default(),
            sealed: SealedRows::default(),
        };
        all.place(|_, _| None);
        (!all.topics.is_empty()).then_some(all)
    }

    /// Puts the chains of topics with days in force.
    pub fn place(&self, found: impl Fn(&Routed, usize) -> Option<Chain>) {
        let placement = Placement::new(&self.topics, found);
        self.of_brokers.keep_rows(placement.segments());
        self.placements.swap(placement);
    }

    /// Which segments hold what.
    pub fn placements(&self) -> &Placements {
        &self.placements
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

    /// What a topic is to clients.
    pub fn named(&self, name: &str) -> Named {
        match () {
            () if !self.may_be_part(name) => Named::Plain,
            () if self.by_name(name).is_some() => Named::Virtual,
            () if self.hides(name) => Named::Hidden,
            () => Named::Plain,
        }
    }

    /// Whether a name can be that of anything of ours: those of physical topics begin with that of
    /// theirs. Asked of every request for a plain topic, so it looks up nothing.
    fn may_be_part(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| name.starts_with(&*topic.name)) || name == PLACEMENT_TOPIC
    }

    /// Whether clients must not see the topic of an id, as far as is known.
    pub fn hides_id(&self, id: &TopicId) -> bool {
        self.of_brokers.known_name(id).is_some_and(|name| self.hides(&name))
    }

    /// Whether a transactional id is that of the placement: a client with it would fence who leads.
    pub fn is_own_writer(&self, transactional_id: &str) -> bool {
        let days = self.topics.iter().any(|topic| topic.days);
        days && transactional_id == PLACEMENT_WRITER && !fault::on("writer-unguarded")
    }

    /// Whether clients must not see a topic, since it holds a part of a virtual one.
    pub fn hides(&self, name: &str) -> bool {
        if !self.may_be_part(name) {
            return false;
        }
        self.physical.contains_key(name)
            || self.topics.iter().any(|topic| topic.owns(name))
            || self.topics.iter().any(|topic| topic.days) && name == PLACEMENT_TOPIC
            || self.placements.now().names(name)
    }
}

/// The topic of the cluster that holds the placement of topics with days.
pub const PLACEMENT_TOPIC: &str = "__firebreak_placement";

/// The transactional id of whoever writes there.
pub const PLACEMENT_WRITER: &str = "firebreak-placement";

/// Whether the end of a name is that of a segment: `-YYYY-MM-DD`, `.2` and so on behind it for
/// the second one of a day.
fn is_day(end: &str) -> bool {
    let (day, nth) = end.split_once('.').map_or((end, None), |(day, nth)| (day, Some(nth)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = day.len() == "-2025-01-05".len()
        && (0..).zip(day.bytes()).all(|(n, byte)| match n {
            0 | 5 | 8 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    fits && nth.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn routed(open_days: u8) -> Routed {
        let config = VirtualTopic {
            name: "fires".to_owned(),
            partitions: 3,
            days: true,
            open_days,
            retention_days: 30,
            create_ahead: Duration::ZERO,
            rule: Rule::default(),
            regions: Vec::new(),
            slots: vec!["norcal".to_owned(), "other".to_owned()],
        };
        Routed::new((0, &config), &Arc::new(Metrics::new()))
    }

    #[test]
    fn every_logical_partition_has_one_place_and_none_lies_beyond() {
        let routed = routed(1);
        let places: Vec<_> = (-1..=6).map(|q| routed.place(q)).collect();
        let inside = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];
        assert_eq!(places[1..7], inside.map(Some));
        assert_eq!((places[0], places[7]), (None, None));
    }

    #[test]
    fn a_day_is_open_in_the_slot_of_its_place_in_the_ring() {
        let ring = routed(3);
        assert_eq!(
            ring.slots(),
            ["norcal.0", "norcal.1", "norcal.2", "other.0", "other.1", "other.2"]
        );
        let prefixes = ["norcal.2", "other.0"].map(|slot| ring.physical_of(slot));
        assert_eq!(prefixes, ["fires-norcal", "fires-other"]);
        for today in 20_000..20_007 {
            let open: Vec<_> = (0..6).map(|slot| ring.open_day(slot, today * DAY_MS + 5)).collect();
            assert_eq!(open[..3], open[3..]);
            for (slot, day) in (0..3).zip(&open) {
                assert_eq!(day % 3, slot);
                assert!((today - 2..=today).contains(day), "{day} at {today}");
            }
        }
        assert_eq!(routed(1).open_day(1, 20_000 * DAY_MS), 20_000);
        let slots = [-1, 0, 1, 2, 3].map(|day| ring.day_slot(day * DAY_MS.cast_signed()));
        assert_eq!(slots, [2, 0, 1, 2, 0]);
    }

    #[test]
    fn names_of_segments_are_known_by_their_day() {
        let routed = routed(1);
        for name in ["fires-norcal-2025-01-05", "fires-other-2025-01-05.2"] {
            assert!(routed.owns(name), "{name}");
        }
        for end in ["", "-2025-01-05.", "-2025-1-05", "-2025-01-055", "-2025-01-05.x", "x"] {
            assert!(!routed.owns(&format!("fires-norcal{end}")), "{end}");
        }
        assert!(!routed.owns("fires-socal-2025-01-05"));
    }
}
