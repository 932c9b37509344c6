//! The records fields of a message, and new content for some of them.

use std::sync::Arc;

use bytes::Bytes;
use protocol_ext::acquired::{self, Acquired};
use protocol_ext::header::{self, Head};
use protocol_ext::schema::{Message, Role, requests};
use protocol_ext::walk::{Edits, Replace, Value, Visit, walk};
use protocol_ext::wire::WireError;

use crate::limits::SECTIONS_MAX;
use crate::route::topics::TopicId;

/// How a message names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// By name.
    Name(Arc<str>),
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
    /// What was acquired with them, where it is a share consumer that reads.
    pub acquired: Vec<Acquired>,
    /// Producers and first offsets of its transactions that were aborted, where who reads is told.
    pub aborted: Vec<(i64, i64)>,
}

/// Lists the records fields of `frame`, in wire order. A peer decides how many there are: more
/// than `most` are refused.
pub fn sections(
    message: &Message,
    version: i16,
    frame: &Bytes,
    at: usize,
    most: usize,
) -> Result<Vec<Section>, WireError> {
    let mut found = Vec::new();
    let mut topic = TopicRef::Name("".into());
    let (mut partition, mut too_many) = (-1, false);
    let mut aborted = Vec::new();
    let mut look = |role: Role, value: Value<'_>| {
        match (role, value) {
            (Role::Topic, Value::Bytes(name, _)) => {
                topic = TopicRef::Name(String::from_utf8_lossy(name.unwrap_or_default()).into());
            }
            (Role::TopicId, Value::Uuid(id)) => topic = TopicRef::Id(id),
            (Role::Partition, value) => partition = i32::try_from(value.int()).unwrap_or(-1),
            (Role::AbortedProducer, value) => aborted.push((value.int(), i64::MAX)),
            (Role::AbortedFrom, value) => {
                aborted.last_mut().into_iter().for_each(|(_, first)| *first = value.int());
            }
            (Role::Records, _) if found.len() == most => too_many = true,
            (Role::Records, Value::Bytes(records, from)) => {
                let records = frame.slice(from..from + records.map_or(0, <[u8]>::len));
                let (topic, acquired) = (topic.clone(), Vec::new());
                let aborted = std::mem::take(&mut aborted);
                found.push(Section { topic, partition, records, acquired, aborted });
            }
            (Role::Acquired, Value::Bytes(Some(raw), _)) => {
                // The walk has been over it.
                let acquired = acquired::read(raw).unwrap_or_default();
                if let Some(section) = found.last_mut() {
                    section.acquired = acquired;
                }
            }
            _ => {}
        }
        None
    };
    walk(message, version, frame, at, &mut look)?;
    if too_many { Err(WireError::Items { max: most }) } else { Ok(found) }
}

/// The records fields of a Produce request.
pub fn produce_sections(head: Head, frame: &Bytes) -> Result<Vec<Section>, WireError> {
    let at = header::request_body_at(head, frame)?;
    sections(&requests::PRODUCE, head.version, frame, at, SECTIONS_MAX)
}

/// New content of one partition: records, and an error that replaces them.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// New records, in pieces; `None` keeps them.
    pub records: Option<Vec<Bytes>>,
    /// An error code to set in front of the records.
    pub error: Option<i16>,
    /// The array of what was acquired with them, written anew.
    pub acquired: Option<Bytes>,
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
            records.map(Replace::Pieces)
        }
        Role::Acquired => {
            let change = changes.get(next.wrapping_sub(1));
            change.and_then(|change| change.acquired.clone()).map(|a| Replace::Bytes(Some(a)))
        }
        _ => others.field(role, value),
    };
    walk(message, version, frame, at, &mut set)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Produce 9 body of one topic with a long name and so many partitions of six bytes.
    fn body(partitions: u32) -> Bytes {
        let mut body = vec![0, 0, 1, 0, 0, 0, 0, 2, 0x81, 0x80, 0x02];
        body.resize(body.len() + 32 * 1024, b'n');
        protocol_ext::wire::put_uvarint(&mut body, partitions + 1);
        for n in 0..partitions {
            body.extend_from_slice(&n.to_be_bytes());
            body.extend_from_slice(&[0, 0]);
        }
        body.extend_from_slice(&[0, 0]);
        body.into()
    }

    fn listed(partitions: u32) -> Result<Vec<Section>, WireError> {
        let head = Head { api: 0, version: 9, correlation: 1 };
        let frame = [&[0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0][..], &body(partitions)].concat();
        produce_sections(head, &frame.into())
    }

    #[test]
    fn partitions_share_the_name_of_their_topic_and_are_bounded_in_number() {
        let found = listed(1000).expect("sections");
        assert_eq!(found.len(), 1000);
        let names: Vec<&Arc<str>> = found
            .iter()
            .filter_map(|section| match &section.topic {
                TopicRef::Name(name) => Some(name),
                TopicRef::Id(_) => None,
            })
            .collect();
        assert!(names.iter().all(|name| Arc::ptr_eq(name, names[0])), "a copy a partition");
        let most = u32::try_from(SECTIONS_MAX).expect("small");
        assert!(listed(most).is_ok());
        let error = listed(most + 1).expect_err("too many");
        assert_eq!(error, WireError::Items { max: SECTIONS_MAX });
    }
}
