//! A roll that somebody asked for, until it is answered.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;

use super::leader::Refused;
use crate::clock::{self, Tick};
use crate::route::virtual_topics::Routed;

/// Whoever asks for a roll is answered after this, though it goes on.
const ANSWER: Duration = Duration::from_secs(45);

/// Such a roll.
pub struct Asked<'p> {
    topic: &'p Routed,
    /// Slots that have no new segment yet.
    left: BTreeSet<String>,
    names: Vec<String>,
    since: Tick,
    done: oneshot::Sender<Result<Vec<String>, Refused>>,
}

impl<'p> Asked<'p> {
    /// A roll of all slots.
    pub fn new(topic: &'p Routed, done: oneshot::Sender<Result<Vec<String>, Refused>>) -> Self {
        let left = topic.slots().iter().cloned().collect();
        Self { topic, left, names: Vec::new(), since: clock::now(), done }
    }

    /// Whether it still needs a new segment of this slot, and somebody waits for it.
    pub fn wants(&self, topic: &Routed, slot: &str) -> bool {
        topic.number == self.topic.number && self.left.contains(slot) && !self.done.is_closed()
    }

    /// A slot has a new segment.
    pub fn has(&mut self, topic: &Routed, slot: &str, name: &str) {
        if topic.number == self.topic.number && self.left.remove(slot) {
            self.names.push(name.to_owned());
        }
    }

    /// Answers it if it is done, if nobody waits any more, or after a while; gives it back if not.
    pub fn unanswered(self) -> Option<Self> {
        let late = clock::now() - self.since >= ANSWER;
        if !self.left.is_empty() && !late && !self.done.is_closed() {
            return Some(self);
        }
        let Self { left, names, done, .. } = self;
        let left: Vec<String> = left.into_iter().collect();
        // Who asked may be gone.
        let _ = done.send(if left.is_empty() { Ok(names) } else { Err(Refused::Late(left)) });
        None
    }

    /// It will not be done here.
    pub fn refuse(self, why: Refused) {
        // Who asked may be gone.
        let _ = self.done.send(Err(why));
    }
}
