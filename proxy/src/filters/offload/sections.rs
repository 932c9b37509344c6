//! The records fields of a message, and new content for some of them.

use bytes::Bytes;
use protocol_ext::schema::{Message, Role};
use protocol_ext::walk::{Edits, Replace, Value, Visit, walk};
use protocol_ext::wire::WireError;

use crate::route::topics::TopicId;

/// How a message names a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id (KIP-516).
    Id(TopicId),
}

/// The records of one partition in a message.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its topic.
    pub topic: TopicRef,
    /// Its partition.
    pub partition: i32,
    /// Its records, sharing the frame's memory; empty if null.
    pub records: Bytes,
}

/// Lists the records fields of `frame`, in wire order.
pub fn sections(
    message: &Message,
    version: i16,
    frame: &Bytes,
    at: usize,
) -> Result<Vec<Section>, WireError> {
    let mut found = Vec::new();
    let mut topic = TopicRef::Name(String::new());
    let mut partition = -1;
    let mut look = |role: Role, value: Value<'_>| {
        match (role, value) {
            (Role::Topic, Value::Bytes(name, _)) => {
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                topic = TopicRef::Name(name);
            }
            (Role::TopicId, Value::Uuid(id)) => topic = TopicRef::Id(id),
            (Role::Partition, value) => partition = i32::try_from(value.int()).unwrap_or(-1),
            (Role::Records, Value::Bytes(records, from)) => {
                let records = frame.slice(from..from + records.map_or(0, <[u8]>::len));
                found.push(Section { topic: topic.clone(), partition, records });
            }
            _ => {}
        }
        None
    };
    walk(message, version, frame, at, &mut look)?;
    Ok(found)
}

/// New content of one partition: records, and an error that replaces them.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// New records; `None` keeps them.
    pub records: Option<Bytes>,
    /// An error code to set in front of the records.
    pub error: Option<i16>,
}

/// Edits `frame` so that its records fields have the content of `changes`, in wire order. Other
/// marked fields go to `others`. Error codes are set where the layout has them before records.
pub fn change(
    message: &Message,
    version: i16,
    frame: &Bytes,
    at: usize,
    changes: &[Change],
    others: &mut impl Visit,
) -> Result<Edits, WireError> {
    let mut next = 0;
    let mut in_partition = false;
    let mut set = |role: Role, value: Value<'_>| match role {
        Role::Partition => {
            in_partition = true;
            others.field(role, value)
        }
        Role::ErrorCode if in_partition => {
            let error = changes.get(next).and_then(|change| change.error);
            error.map(|code| Replace::Int(i64::from(code)))
        }
        Role::Records => {
            let records = changes.get(next).and_then(|change| change.records.clone());
            next += 1;
            in_partition = false;
            records.map(|records| Replace::Bytes(Some(records)))
        }
        _ => others.field(role, value),
    };
    walk(message, version, frame, at, &mut set)
}
