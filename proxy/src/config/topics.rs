//! Regions and virtual topics: raw -> checked, and the physical topics they need.

use std::collections::BTreeMap;

use super::parse::Problems;
use super::{Cluster, VirtualTopic, raw};

/// Slots of one virtual topic (the producer-id layout leaves four bits for them).
const SLOTS_MAX: usize = 16;
/// Longest name of a topic that Kafka takes.
const NAME_BYTES_MAX: usize = 249;
/// What days put behind a name: `-2025-01-05` and `.2`, with room for more of one day.
const DAY_BYTES: usize = 16;

/// Tells of names that two virtual topics would share.
pub(super) fn shared(p: &mut Problems, topics: &[VirtualTopic]) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for (n, topic) in topics.iter().enumerate() {
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

pub(super) fn regions(
    p: &mut Problems,
    raw: &[raw::Region],
    cluster: Option<&Cluster>,
) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(raw.len());
    for (n, region) in raw.iter().enumerate() {
        let name = region.name.clone().unwrap_or_default();
        let why = match () {
            () if names.contains(&name) => Some("names two regions: each needs its own"),
            () if name == OTHER => Some("is the slot of all other records: take another name"),
            () if !is_topic_name(&name) => {
                Some("is no name: 1 to 200 of a-z, A-Z, 0-9, '.', '_', '-'")
            }
            () => None,
        };
        if let Some(why) = why {
            p.add(&format!("region[{n}].name"), format!("\"{name}\" {why}"));
        }
        let known = cluster.map(|c| c.name.as_str());
        if region.cluster.is_some() && known.is_some() && region.cluster.as_deref() != known {
            let given = region.cluster.as_deref().unwrap_or_default();
            let text = format!("\"{given}\" names no [[cluster]]: write its name");
            p.add(&format!("region[{n}].cluster"), text);
        }
        if region.area.is_some() {
            p.add(&format!("region[{n}].area"), "areas are not part of this version yet");
        }
        names.push(name);
    }
    names
}

/// The slot of records that name no region.
const OTHER: &str = "other";

pub(super) fn virtual_topic(
    p: &mut Problems,
    n: usize,
    raw: &raw::VirtualTopic,
    regions: &[String],
) -> Option<VirtualTopic> {
    let key = |name: &str| format!("virtual_topic[{n}].{name}");
    let before = p.0.len();
    let name = raw.name.clone().unwrap_or_default();
    if !is_topic_name(&name) {
        p.add(
            &key("name"),
            format!("\"{name}\" is no topic name: 1 to 200 of a-z, A-Z, 0-9, '.', '_', '-'"),
        );
    }
    let retention_days = days(p, &key, raw);
    let partitions = raw.partitions.unwrap_or(1);
    if !(1..=10_000).contains(&partitions) {
        p.add(&key("partitions"), format!("{partitions} is not within 1 to 10000"));
    }
    let rule = raw.region.as_ref();
    if rule.is_some_and(|r| r.latitude.is_some() || r.longitude.is_some()) {
        p.add(&key("region"), "coordinates are not part of this version yet: use { header = .. }");
    }
    let header = rule.and_then(|r| r.header.clone()).unwrap_or_default();
    if header.is_empty() {
        p.add(&key("region"), "is missing: write { header = \"NAME\" }");
    }
    let slots: Vec<String> = regions.iter().cloned().chain([OTHER.to_owned()]).collect();
    if !(2..=SLOTS_MAX).contains(&slots.len()) {
        p.add(&key("region"), format!("needs 1 to {} [[region]] entries", SLOTS_MAX - 1));
    }
    let days = raw.days;
    let topic = VirtualTopic { name, partitions, days, retention_days, header, slots };
    (p.0.len() == before).then_some(topic)
}

/// Checks what is said of days; gives the days after which segments are deleted.
fn days(p: &mut Problems, key: &impl Fn(&str) -> String, raw: &raw::VirtualTopic) -> u32 {
    if !raw.days && (raw.retention_days.is_some() || raw.day_from.is_some()) {
        p.add(&key("days"), "must be true where retention_days or day_from is set");
    }
    if raw.day_from.as_deref().is_some_and(|from| from != "arrival") {
        p.add(&key("day_from"), "only \"arrival\" is part of this version yet");
    }
    let days = raw.retention_days.unwrap_or(RETENTION_DAYS);
    let fits = u32::try_from(days).ok().filter(|days| RETENTION_DAYS_RANGE.contains(days));
    if fits.is_none() {
        p.add(&key("retention_days"), format!("{days} is not within 1 to 36500"));
    }
    fits.unwrap_or_default()
}

const RETENTION_DAYS: i64 = 30;
const RETENTION_DAYS_RANGE: std::ops::RangeInclusive<u32> = 1..=36_500;

fn is_topic_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 200 && name != "." && name != ".." && name.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, slots: &[&str]) -> VirtualTopic {
        let slots = slots.iter().map(|slot| (*slot).to_owned()).collect();
        let (name, header, partitions) = (name.to_owned(), "h".to_owned(), 1);
        VirtualTopic { name, partitions, days: false, retention_days: 30, header, slots }
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
        assert_eq!(problems(&[topic(&"n".repeat(249), &["x"])]).len(), 1);
    }
}
