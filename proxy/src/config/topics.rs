//! Virtual topics: raw -> checked, and the physical topics they need.

use std::collections::BTreeMap;
use std::time::Duration;

use super::parse::Problems;
use super::{OffloadRule, VirtualTopic, raw, regions};
use crate::clock::DAY_MS;
use crate::filters::offload::glob;
use crate::route::region::Region;

/// Slots of one virtual topic (the producer-id layout leaves four bits for them).
const SLOTS_MAX: usize = 16;
/// Longest name of a topic that Kafka takes.
const NAME_BYTES_MAX: usize = 249;
/// What days put behind a name: `-2025-01-05` and `.2`, with room for more of one day.
const DAY_BYTES: usize = 16;

/// Tells of names that two virtual topics would share.
pub(super) fn shared(p: &mut Problems, topics: &[VirtualTopic]) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for (n, topic) in topics.iter().enumerate().filter(|(_, topic)| is_topic_name(&topic.name)) {
        let slots = topic.slots.iter().map(|slot| {
            let what = format!("the physical topic of virtual_topic[{n}] for {slot}");
            (format!("{}-{slot}", topic.name), what)
        });
        let own = (topic.name.clone(), format!("virtual_topic[{n}]"));
        let names: BTreeMap<String, String> = std::iter::once(own).chain(slots).collect();
        let key = format!("virtual_topic[{n}].name");
        let day = if topic.days { DAY_BYTES } else { 0 };
        let long = names.keys().find(|name| name.len() + day > NAME_BYTES_MAX);
        let met = names.iter().find_map(|(name, what)| Some((name, what, taken.get(name)?)));
        if let Some(name) = long {
            p.add(&key, format!("topic \"{name}\" is longer than {NAME_BYTES_MAX} bytes"));
        } else if let Some((name, what, first)) = met {
            let hint = "no two may share a topic: take another name";
            p.add(&key, format!("\"{name}\" is {first} and {what}: {hint}"));
        }
        for (name, what) in names {
            taken.entry(name).or_insert(what);
        }
    }
}

/// The slot of records that name no region.
pub(super) const OTHER: &str = "other";

pub(super) fn virtual_topic(
    p: &mut Problems,
    n: usize,
    raw: &raw::VirtualTopic,
    regions: &[Region],
) -> VirtualTopic {
    let key = |name: &str| format!("virtual_topic[{n}].{name}");
    let name = raw.name.clone().unwrap_or_default();
    if !is_topic_name(&name) {
        p.add(
            &key("name"),
            format!("\"{name}\" is no topic name: 1 to 200 of a-z, A-Z, 0-9, '.', '_', '-'"),
        );
    }
    let (retention_days, create_ahead) = days(p, &key, raw);
    let partitions = raw.partitions.unwrap_or(1);
    if !(1..=10_000).contains(&partitions) {
        p.add(&key("partitions"), format!("{partitions} is not within 1 to 10000"));
    }
    let rule = regions::rule(p, &key("region"), raw.region.as_ref(), regions);
    let names = regions.iter().map(|region| region.name.clone());
    let slots: Vec<String> = names.chain([OTHER.to_owned()]).collect();
    if !(2..=SLOTS_MAX).contains(&slots.len()) {
        p.add(&key("region"), format!("needs 1 to {} [[region]] entries", SLOTS_MAX - 1));
    }
    let open_days = open_days(p, &key, raw, slots.len());
    VirtualTopic {
        name,
        partitions,
        days: raw.days,
        open_days,
        retention_days,
        create_ahead,
        rule,
        regions: regions.to_vec(),
        slots,
    }
}

/// Checks what is said of days; gives the days after which segments are deleted, and how long
/// before its day a segment's topic is made.
fn days(
    p: &mut Problems,
    key: &impl Fn(&str) -> String,
    raw: &raw::VirtualTopic,
) -> (u32, Duration) {
    let about_days = raw.retention_days.is_some() || raw.day_from.is_some();
    if !raw.days && (about_days || raw.open_days.is_some() || raw.create_ahead_s.is_some()) {
        let text =
            "must be true where retention_days, day_from, open_days or create_ahead_s is set";
        p.add(&key("days"), text);
    }
    let ahead = raw.create_ahead_s.unwrap_or(CREATE_AHEAD_S);
    let ahead_s = u64::try_from(ahead).ok().filter(|ahead| *ahead <= DAY_MS / 1000);
    if ahead_s.is_none() {
        p.add(&key("create_ahead_s"), format!("{ahead} is not within 0 to {}", DAY_MS / 1000));
    }
    let days = raw.retention_days.unwrap_or(RETENTION_DAYS);
    let fits = u32::try_from(days).ok().filter(|days| RETENTION_DAYS_RANGE.contains(days));
    if fits.is_none() {
        p.add(&key("retention_days"), format!("{days} is not within 1 to 36500"));
    }
    (fits.unwrap_or_default(), Duration::from_secs(ahead_s.unwrap_or_default()))
}

/// How many days are open at a time, of a topic whose regions have so many slots.
fn open_days(
    p: &mut Problems,
    key: &impl Fn(&str) -> String,
    raw: &raw::VirtualTopic,
    slots: usize,
) -> u8 {
    let by_timestamp = match raw.day_from.as_deref() {
        None | Some("arrival") => false,
        Some("timestamp") => true,
        Some(other) => {
            let text = format!("\"{other}\" is neither \"arrival\" nor \"timestamp\"");
            p.add(&key("day_from"), text);
            return 1;
        }
    };
    if !by_timestamp {
        if raw.open_days.is_some() {
            p.add(&key("open_days"), "is for day_from = \"timestamp\" only");
        }
        return 1;
    }
    let days = raw.open_days.unwrap_or(OPEN_DAYS);
    let max = SLOTS_MAX / slots.max(1);
    let fits = u8::try_from(days).ok().filter(|days| (2..=max).contains(&usize::from(*days)));
    if fits.is_none() {
        let text = format!(
            "{days} days of {slots} slots (a region each, and \"{OTHER}\"): at least 2, at most \
             {max}, which makes {SLOTS_MAX} slots in all"
        );
        p.add(&key("open_days"), text);
    }
    fits.unwrap_or(2)
}

/// Days by record timestamp that are open unless configured.
const OPEN_DAYS: i64 = 3;
const RETENTION_DAYS: i64 = 30;
/// Making a topic takes a second or two; a controller that is away, longer.
const CREATE_AHEAD_S: i64 = 600;
const RETENTION_DAYS_RANGE: std::ops::RangeInclusive<u32> = 1..=36_500;

pub(super) fn is_topic_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 200 && name != "." && name != ".." && name.chars().all(legal)
}

/// Tells of topics whose records are routed by values that may be somewhere else.
pub(super) fn stored(p: &mut Problems, topics: &[VirtualTopic], offload: &[OffloadRule]) {
    for (n, topic) in topics.iter().enumerate().filter(|(_, topic)| topic.rule.reads_values()) {
        let fits =
            |rule: &OffloadRule| rule.topics.iter().any(|pattern| glob(pattern, &topic.name));
        if let Some(rule) = offload.iter().position(fits) {
            let why = format!("values of \"{}\" may be stored by offload[{rule}]", topic.name);
            let hint = "where they tell no region: leave the topic out there, or route by a header";
            p.add(&format!("virtual_topic[{n}].region"), format!("{why}, {hint}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::region::Rule;

    fn topic(name: &str, slots: &[&str]) -> VirtualTopic {
        let slots = slots.iter().map(|slot| (*slot).to_owned()).collect();
        let (rule, regions) = (Rule::default(), Vec::new());
        let (name, partitions, days, retention_days) = (name.to_owned(), 1, false, 30);
        let (open_days, create_ahead) = (1, Duration::ZERO);
        VirtualTopic {
            name,
            partitions,
            days,
            open_days,
            retention_days,
            create_ahead,
            rule,
            regions,
            slots,
        }
    }

    fn problems(topics: &[VirtualTopic]) -> Vec<String> {
        let mut problems = Problems(Vec::new());
        shared(&mut problems, topics);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_that_meet_in_a_physical_topic_are_told() {
        assert!(problems(&[topic("a", &["x", "other"]), topic("b", &["x", "other"])]).is_empty());
        let twice = problems(&[topic("a", &["x", "other"]), topic("a", &["x", "other"])]);
        assert_eq!(twice.len(), 1, "{twice:?}");
        let met = problems(&[topic("a", &["b-c", "other"]), topic("a-b", &["c", "other"])]);
        assert_eq!(met.len(), 1, "{met:?}");
        assert!(met[0].starts_with("virtual_topic[1].name: \"a-b-c\" is the physical"), "{met:?}");
        let inner = problems(&[topic("a", &["x", "other"]), topic("a-x", &["y", "other"])]);
        assert_eq!(inner.len(), 1, "{inner:?}");
        assert_eq!(problems(&[topic(&"n".repeat(200), &[&"x".repeat(49)])]).len(), 1);
        assert!(problems(&[topic("", &["x"]), topic("", &["x"])]).is_empty(), "told before");
    }
}
