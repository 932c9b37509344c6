//! What is due, by what the log says: pure.

use serde::Serialize;

use super::day::{day, day_of, next_name};
use super::record::{Intent, Key, SegmentFact};
use super::table::Table;
use crate::clock::DAY_MS;
use crate::fault;
use crate::route::virtual_topics::Routed;

/// One slot that gets a new segment.
#[derive(Debug)]
pub struct Rolled {
    /// The slot.
    pub slot: String,
    /// The physical topic of its next segment.
    pub next: String,
    /// Number and physical topic of the open segment, and its bases.
    pub old: Option<(u32, SegmentFact)>,
}

/// Slots that get a new segment: those of a day before, and those of which `forced` says so.
pub fn due(
    table: &Table,
    topic: &Routed,
    now_ms: u64,
    forced: impl Fn(&str) -> bool,
) -> Vec<Rolled> {
    let slots = topic.slots().iter().enumerate().filter_map(|(number, slot)| {
        let name = topic.physical_of(slot);
        let today = &*day(topic.open_day(number, now_ms) * DAY_MS);
        let segments = table.segments_of(topic, slot);
        let old = segments.and_then(|segments| segments.last_key_value());
        let old = old.map(|(number, fact)| (*number, fact.clone()));
        let intent = intent_of(table, topic, slot);
        let next = match intent.filter(|_| !fault::on("open-intents-forgotten")) {
            Some(Intent::Roll { next }) => next.clone(),
            Some(Intent::Delete { .. }) => return None,
            None => {
                let begun = old.as_ref().and_then(|(_, fact)| day_of(name, &fact.topic));
                if begun.is_some_and(|begun| begun >= today) && !forced(slot) {
                    return None;
                }
                let day = begun.map_or(today, |begun| begun.max(today));
                next_name(name, day, |name| is_taken(table, topic, slot, name))
            }
        };
        Some(Rolled { slot: slot.clone(), next, old })
    });
    slots.collect()
}

/// The topics of segments whose day begins soon: they can be made before.
pub fn soon(table: &Table, topic: &Routed, now_ms: u64) -> Vec<String> {
    if topic.create_ahead_ms == 0 || fault::on("tomorrow-unmade") {
        return Vec::new();
    }
    let now = due(table, topic, now_ms, |_| false);
    let then = due(table, topic, now_ms.saturating_add(topic.create_ahead_ms), |_| false);
    let new = then.into_iter().filter(|then| now.iter().all(|now| now.slot != then.slot));
    new.map(|rolled| rolled.next).collect()
}

/// The oldest segment of a slot, if its time is over.
pub fn expired<'t>(
    table: &'t Table,
    topic: &Routed,
    slot: &str,
    now_ms: u64,
) -> Option<(u32, &'t SegmentFact)> {
    let (number, oldest) = table.segments_of(topic, slot)?.first_key_value()?;
    let kept_ms = u64::from(topic.retention_days) * DAY_MS;
    let over = oldest.sealed_at_ms.is_some_and(|at| at.saturating_add(kept_ms) < now_ms);
    (over && !fault::on("segments-kept-for-ever")).then_some((*number, oldest))
}

/// Whether a slot has a segment of this name.
pub fn is_taken(table: &Table, topic: &Routed, slot: &str, name: &str) -> bool {
    let segments = table.segments_of(topic, slot);
    segments.is_some_and(|segments| segments.values().any(|fact| fact.topic == name))
}

/// What was begun with a slot.
pub fn intent_of<'t>(table: &'t Table, topic: &Routed, slot: &str) -> Option<&'t Intent> {
    table.intents.get(&(topic.name.to_string(), slot.to_owned()))
}

/// The key of that.
pub fn intent_key(topic: &Routed, slot: &str) -> Key {
    Key::Intent(topic.name.to_string(), slot.to_owned())
}

/// The key of a segment.
pub fn segment_key(topic: &Routed, slot: &str, number: u32) -> Key {
    Key::Segment(topic.name.to_string(), slot.to_owned(), number)
}

/// A value. These types can always be written; one that could not would be unreadable, and not a
/// record that takes back what its key said.
pub fn json(value: &impl Serialize) -> Option<String> {
    Some(serde_json::to_string(value).unwrap_or_default())
}
