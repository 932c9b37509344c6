//! How long batches may be in physical topics, as their brokers said a moment ago: a batch of which
//! one part would be refused is refused before any is written. Clients cut such a batch in two, and
//! the halves could not be told from its parts that are there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Tick};

/// How long an answer is believed.
const AGE_MAX: Duration = Duration::from_secs(30);
/// How long what a broker said counts when it does not answer any more.
const KEPT: Duration = Duration::from_secs(300);
/// How long a broker that has not answered of late is not asked again.
const UNKNOWN_AGE_MAX: Duration = Duration::from_secs(2);

/// When a broker was asked, and the longest batch that it takes if it has answered once.
#[derive(Debug, Clone, Copy)]
struct Known {
    asked: Tick,
    bytes: Option<usize>,
    /// When it told that.
    told: Tick,
}

/// The longest batch of each physical topic that was written to of late.
#[derive(Debug, Default)]
pub struct Sizes(Mutex<HashMap<Arc<str>, Known>>);

impl Sizes {
    /// Whether a topic's broker is to be asked, which the caller does then: nobody else is told so
    /// for a while.
    pub fn is_due(&self, topic: &Arc<str>) -> bool {
        self.is_due_at(topic, clock::now())
    }

    fn is_due_at(&self, topic: &Arc<str>, now: Tick) -> bool {
        let mut all = self.0.lock();
        let known = all.get(topic).copied();
        let fresh = |known: Known| {
            now - known.asked < if known.bytes.is_some() { AGE_MAX } else { UNKNOWN_AGE_MAX }
        };
        if known.is_some_and(fresh) {
            return false;
        }
        all.retain(|_, known| now - known.asked < AGE_MAX * 2);
        let told = known.filter(|known| now - known.told < KEPT);
        let (bytes, told) = told.map_or((None, now), |known| (known.bytes, known.told));
        all.insert(topic.clone(), Known { asked: now, bytes, told });
        true
    }

    /// Takes what a topic's broker says.
    pub fn learn(&self, topic: &str, bytes: usize) {
        if let Some(known) = self.0.lock().get_mut(topic) {
            (known.bytes, known.told) = (Some(bytes), clock::now());
        }
    }

    /// Whether a topic took no batch that long when its broker was asked.
    pub fn is_too_large(&self, topic: &str, bytes: usize) -> bool {
        let most = self.0.lock().get(topic).and_then(|known| known.bytes);
        most.is_some_and(|most| exceeds(bytes, most))
    }
}

/// Whether a batch is too long for a topic that takes `most`. A sealed one takes none (0), which
/// says nothing of the next segment.
pub fn exceeds(bytes: usize, most: usize) -> bool {
    most > 0 && bytes > most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_asked_now_and_then_and_what_it_said_is_kept() {
        let (sizes, topic, now) = (Sizes::default(), Arc::from("a"), clock::now());
        assert!(!sizes.is_too_large(&topic, usize::MAX));
        assert!(sizes.is_due_at(&topic, now) && !sizes.is_due_at(&topic, now));
        sizes.learn(&topic, 100);
        assert!(!sizes.is_too_large(&topic, 100) && sizes.is_too_large(&topic, 101));
        assert!(!sizes.is_due_at(&topic, now + UNKNOWN_AGE_MAX));
        assert!(sizes.is_due_at(&topic, now + AGE_MAX));
        assert!(sizes.is_too_large(&topic, 101), "until it answers");
        sizes.learn(&topic, 0);
        assert!(!sizes.is_too_large(&topic, 101), "sealed");
        sizes.learn("b", 1);
        assert!(!sizes.is_too_large("b", 101), "nobody asked");
        let later = now + AGE_MAX * 4;
        assert!(sizes.is_due_at(&Arc::from("b"), later));
        assert_eq!(sizes.0.lock().len(), 1, "topics that nobody writes to");
        assert!(sizes.is_due_at(&Arc::from("b"), later + UNKNOWN_AGE_MAX), "it did not answer");
    }

    #[test]
    fn what_a_silent_broker_said_once_is_forgotten_in_the_end() {
        let (sizes, topic, now) = (Sizes::default(), Arc::from("a"), clock::now());
        assert!(sizes.is_due_at(&topic, now));
        sizes.learn(&topic, 100);
        // It is asked again and again, and does not answer.
        let mut asked = now;
        while asked + AGE_MAX < now + KEPT {
            asked += AGE_MAX;
            assert!(sizes.is_due_at(&topic, asked));
            assert!(sizes.is_too_large(&topic, 101), "kept after {:?}", asked - now);
        }
        let later = now + KEPT + AGE_MAX;
        assert!(sizes.is_due_at(&topic, later));
        assert!(!sizes.is_too_large(&topic, 101), "told too long ago");
        assert!(sizes.is_due_at(&topic, later + UNKNOWN_AGE_MAX), "nothing is known of it");
        sizes.learn(&topic, 200);
        assert!(!sizes.is_too_large(&topic, 101) && sizes.is_too_large(&topic, 201));
    }
}
