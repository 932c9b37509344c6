//! How long batches may be in physical topics, as their brokers said a moment ago: a batch of which
//! one part would be refused is refused before any is written. Clients cut such a batch in two, and
//! the halves could not be told from its parts that are there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{self, Tick};
use crate::fault;

/// How long an answer is believed.
const AGE_MAX: Duration = Duration::from_secs(30);
/// How long a broker that did not answer is not asked again.
const UNKNOWN_AGE_MAX: Duration = Duration::from_secs(1);

/// The longest batch of a topic, if it is known, and when it was asked for.
#[derive(Debug, Clone, Copy)]
struct Known {
    bytes: Option<usize>,
    at: Tick,
}

impl Known {
    fn is_fresh(&self, now: Tick) -> bool {
        now - self.at < if self.bytes.is_some() { AGE_MAX } else { UNKNOWN_AGE_MAX }
    }
}

/// The longest batch of each physical topic that was written to of late.
#[derive(Debug, Default)]
pub struct Sizes(Mutex<HashMap<Arc<str>, Known>>);

impl Sizes {
    /// Whether it need not be asked for.
    pub fn is_known(&self, topic: &str) -> bool {
        let now = clock::now();
        self.0.lock().get(topic).is_some_and(|known| known.is_fresh(now))
    }

    /// Takes what its broker says; `None` if that is nothing.
    pub fn learn(&self, topic: Arc<str>, bytes: Option<usize>) {
        let now = clock::now();
        let mut all = self.0.lock();
        all.retain(|_, known| known.is_fresh(now));
        all.insert(topic, Known { bytes, at: now });
    }

    /// Whether a topic takes no batch that long. A sealed one (0) says nothing of the next segment.
    pub fn is_too_large(&self, topic: &str, bytes: usize) -> bool {
        let most = self.0.lock().get(topic).and_then(|known| known.bytes);
        most.is_some_and(|most| most > 0 && bytes > most) && !fault::on("sizes-unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_too_large() {
        let sizes = Sizes::default();
        assert!(!sizes.is_known("a") && !sizes.is_too_large("a", usize::MAX));
        sizes.learn("a".into(), Some(100));
        assert!(sizes.is_known("a"));
        assert!(!sizes.is_too_large("a", 100) && sizes.is_too_large("a", 101));
        sizes.learn("a".into(), Some(0));
        assert!(!sizes.is_too_large("a", 101), "sealed");
        sizes.learn("b".into(), None);
        assert!(sizes.is_known("b") && !sizes.is_too_large("b", 101));
    }
}
