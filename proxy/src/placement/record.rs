//! Records of the placement log: keys are paths, values JSON; a record without a value takes back
//! what its key said.

use serde::{Deserialize, Serialize};

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Who leads.
    Leader,
    /// The layout of a virtual topic.
    Topic(String),
    /// One segment: virtual topic, slot, number.
    Segment(String, String, u32),
    /// What the leader is about to do with a slot: virtual topic, slot.
    Intent(String, String),
}

impl Key {
    /// Reads a key; `None`: it is of another version's making.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split('/');
        let key = match parts.next()? {
            "leader" => Self::Leader,
            "topic" => Self::Topic(parts.next()?.to_owned()),
            "segment" => {
                let (topic, slot) = (parts.next()?.to_owned(), parts.next()?.to_owned());
                Self::Segment(topic, slot, parts.next()?.parse().ok()?)
            }
            "intent" => Self::Intent(parts.next()?.to_owned(), parts.next()?.to_owned()),
            _ => return None,
        };
        parts.next().is_none().then_some(key)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leader => out.write_str("leader"),
            Self::Topic(topic) => write!(out, "topic/{topic}"),
            Self::Segment(topic, slot, number) => write!(out, "segment/{topic}/{slot}/{number}"),
            Self::Intent(topic, slot) => write!(out, "intent/{topic}/{slot}"),
        }
    }
}

/// A sign of life of the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The process.
    pub id: String,
    /// Where its admin port is.
    pub admin: String,
    /// Its clock, in Unix milliseconds.
    pub at_ms: u64,
}

/// What of a virtual topic can never change: partitions of each slot, and the slots in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Partitions of each slot.
    pub partitions: i32,
    /// Names of the slots.
    pub slots: Vec<String>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFact {
    /// The physical topic.
    pub topic: String,
    /// By partition: logical offset of physical offset 0.
    pub bases: Vec<i64>,
    /// By partition: logical offset behind the last record, once sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Vec<i64>>,
    /// When it was sealed, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at_ms: Option<u64>,
}

/// What is about to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// The open segment, if any, is sealed, and this topic becomes the next.
    Roll {
        /// The next segment's physical topic.
        next: String,
    },
    /// A segment that is none any more is deleted.
    Delete {
        /// Its physical topic.
        topic: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let keys = [
            Key::Leader,
            Key::Topic("fires".to_owned()),
            Key::Segment("fires".to_owned(), "norcal".to_owned(), 7),
            Key::Intent("fires".to_owned(), "other".to_owned()),
        ];
        for key in keys {
            assert_eq!(Key::parse(key.to_string().as_bytes()), Some(key));
        }
        for odd in ["", "leader/x", "segment/a/b", "segment/a/b/x", "later/a"] {
            assert_eq!(Key::parse(odd.as_bytes()), None, "{odd}");
        }
    }
}
