//! Which logs can refer to a stored object, and whether all of them are there to be read.
//!
//! A reference is followed only in the topic that it was signed for, so a log counts if its topic
//! has objects, if a rule has its values stored, or if it holds a part of a virtual topic.
//! Invariant: what is left out holds no reference that anybody would follow to a listed object.

use std::collections::HashSet;

use protocol_ext::reference::{Binding, KeyRing, Reference, ReferenceError};

use super::UpkeepError;
use super::log::{Partition, Shown};
use crate::config::{Config, VirtualTopic};
use crate::fault;
use crate::filters::offload::{TENANT, glob};

/// The topics that count.
pub struct Scope<'a> {
    config: &'a Config,
    /// Ids of topics that have objects, as keys write them.
    stored: HashSet<String>,
    /// Every topic counts.
    all: bool,
}

impl<'a> Scope<'a> {
    /// Those for objects of these keys. With `all` every topic counts: where objects of topics
    /// that are not shown are to go too.
    pub fn new<'k>(config: &'a Config, keys: impl Iterator<Item = &'k String>, all: bool) -> Self {
        let stored = keys.filter_map(|key| topic_of(key)).map(str::to_owned).collect();
        Self { config, stored, all: all || fault::on("every-log-read") }
    }

    /// Whether a partition's log can refer to an object.
    pub fn reads(&self, at: &Partition) -> bool {
        self.stored.contains(&hex(&at.topic_id)) || self.names(&at.topic)
    }

    /// The same by the topic's name alone.
    fn names(&self, topic: &str) -> bool {
        let rules = self.config.offload.iter().flat_map(|rule| &rule.topics);
        let mut rules = rules.map(|pattern| glob(pattern, topic));
        self.all || parents(self.config, topic).next().is_some() || rules.any(|fits| fits)
    }

    /// Fails if a log that can refer to an object is not there to be read.
    pub fn check(&self, shown: &Shown) -> Result<(), UpkeepError> {
        for (topic, id, code) in &shown.failing {
            let has_objects = self.stored.contains(&hex(id)) || *id == [0; 16];
            if self.names(topic) || has_objects {
                return Err(UpkeepError::Topic { topic: topic.clone(), code: *code });
            }
        }
        let there = |name: &str| shown.partitions.iter().find(|at| at.topic == name);
        // The id of a virtual topic is that of the real topic of its name.
        let virtuals = self.config.virtual_topics.iter().filter(|topic| {
            there(&topic.name)
                .is_some_and(|at| self.all || self.stored.contains(&hex(&at.topic_id)))
        });
        for topic in virtuals {
            whole(topic, shown)?;
        }
        Ok(())
    }
}

/// Fails if a part of a virtual topic is not shown.
pub fn whole(topic: &VirtualTopic, shown: &Shown) -> Result<(), UpkeepError> {
    let is_shown = |part: &str| {
        let mut topics = shown.partitions.iter().map(|at| at.topic.as_str());
        topics.any(|topic_name| match topic_name.strip_prefix(part) {
            Some("") => true,
            Some(rest) => {
                // A copy of a segment is none.
                let copy = topic_name.ends_with(SUFFIX) && !fault::on("copies-are-segments");
                topic.days && rest.starts_with('-') && !copy
            }
            None => false,
        })
    };
    let mut parts = topic.slots.iter().map(|slot| format!("{}-{slot}", topic.name));
    match parts.find(|part| !is_shown(part)) {
        Some(part) if !fault::on("parts-not-missed") => Err(UpkeepError::Unshown(part)),
        _ => Ok(()),
    }
}

/// The topics of the cluster that hold a topic's records: of a virtual one all parts, also segments
/// of past days. Fails where a slot has no part that is shown.
pub fn sources(config: &Config, shown: &Shown, topic: &str) -> Result<Vec<String>, UpkeepError> {
    let parent = config.virtual_topics.iter().find(|routed| routed.name == topic);
    let routed = parent.is_some();
    let part_of = |name: &str| parents(config, name).any(|parent| parent.name == topic);
    let fits = |name: &str| if routed { part_of(name) } else { name == topic };
    if let Some((name, _, code)) = shown.failing.iter().find(|(name, ..)| fits(name)) {
        return Err(UpkeepError::Topic { topic: name.clone(), code: *code });
    }
    // Nobody would miss what is not shown.
    parent.map_or(Ok(()), |parent| whole(parent, shown))?;
    let names = shown.partitions.iter().map(|at| at.topic.as_str());
    // Copies of parts begin like parts.
    let names = names.filter(|name| fits(name) && !(routed && name.ends_with(SUFFIX)));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { Err(UpkeepError::NoTopic(topic.to_owned())) } else { Ok(names) }
}

/// Virtual topics that a topic may hold a part of, also of a region that is no more.
pub fn parents<'a>(config: &'a Config, topic: &'a str) -> impl Iterator<Item = &'a VirtualTopic> {
    let part_of = move |parent: &&VirtualTopic| {
        topic.strip_prefix(&parent.name).is_some_and(|rest| rest.starts_with('-'))
    };
    config.virtual_topics.iter().filter(part_of)
}

/// What a value in the log of a topic refers to, if its signature fits a name that clients know
/// the topic by.
pub fn opened(
    config: &Config,
    keys: &KeyRing,
    topic: &str,
    value: &[u8],
) -> Result<Reference, ReferenceError> {
    let open = |topic| keys.open(value, &Binding { topic, tenant: TENANT });
    let mut parents = parents(config, topic).map(|parent| parent.name.as_str());
    open(topic).or_else(|error| parents.find_map(|name| open(name).ok()).ok_or(error))
}

/// The topic id in the key of a pack.
pub fn topic_of(key: &str) -> Option<&str> {
    key.split('/').nth(3)
}

/// An id as keys write it.
pub fn hex(id: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*id).simple().to_string()
}

/// What a copy's name ends with unless another one is asked for.
pub const SUFFIX: &str = "-rehydrated";
