//! Whose turn it is: values of one partition may leave no room for those of others, and clients may
//! ask for the same partitions in the same order again and again.
//!
//! The first partition that had no room in an answer is the first to have some in the next one of
//! its connection. Answers keep their order.

use parking_lot::Mutex;

use super::sections::{Section, TopicRef};
use crate::fault;

/// The partition that comes first in the next answer of a connection, if it is in it.
#[derive(Debug, Default)]
pub struct Turn(Mutex<Option<(TopicRef, i32)>>);

impl Turn {
    /// Places of the sections of an answer, in the order in which they may take room.
    pub(super) fn order(&self, found: &[Section]) -> impl Iterator<Item = usize> + use<> {
        let next = self.0.lock();
        let is_next = |section: &Section| {
            let next = next.as_ref().filter(|_| !fault::on("turn-forgotten"));
            next.is_some_and(|(topic, n)| *topic == section.topic && *n == section.partition)
        };
        let first = found.iter().position(is_next).unwrap_or(0);
        (first..found.len()).chain(0..first)
    }

    /// Notes the first section that had no room.
    pub(super) fn pass_to(&self, left_out: Option<&Section>) {
        *self.0.lock() = left_out.map(|section| (section.topic.clone(), section.partition));
    }
}
