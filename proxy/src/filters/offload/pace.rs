//! How many records share consumers may acquire at once where their values are in the store.
//!
//! Brokers count bytes of references, clients want answers that they can hold; what was acquired
//! and has no room in an answer must be given back. Each answer says how long its values are, and
//! the requests of its group behind it, on whatever connection, ask for as many records as fit.
//! Invariant: for a while after a long value was seen no request asks for more records than an
//! answer has room for values of that length.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Longest;
use crate::clock::Tick;
use crate::fault;
use crate::limits::RESTORED_BYTES_MAX;

/// What is known of each share group.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<GroupHash, Arc<Pace>>>);

/// The first bytes of the SHA-256 of a group's name, which may be as long as a request, and which
/// nobody has looked at yet.
type GroupHash = [u8; 16];

impl Paces {
    /// That of a group. Of too many groups those that ask nothing now are forgotten.
    pub fn of(&self, group: &[u8]) -> Arc<Pace> {
        let mut hash = GroupHash::default();
        hash.copy_from_slice(&Sha256::digest(group)[..16]);
        let mut all = self.0.lock();
        if let Some(pace) = all.get(&hash) {
            return pace.clone();
        }
        if all.len() >= GROUPS_MAX {
            all.retain(|_, pace| Arc::strong_count(pace) > 1);
        }
        let pace = Arc::new(Pace::default());
        if all.len() < GROUPS_MAX {
            all.insert(hash, pace.clone());
        }
        pace
    }
}

/// The most records that a request of a share group may ask for.
#[derive(Debug)]
pub struct Pace(Mutex<Learned>);

#[derive(Debug)]
struct Learned {
    /// Records to ask for.
    records: i32,
    /// No more than so many,
    most: i32,
    /// until then.
    until: Option<Tick>,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Learned { records: FIRST, most: i32::MAX, until: None }))
    }
}

impl Pace {
    /// The most records to ask for.
    pub fn records_max(&self) -> i32 {
        self.0.lock().records
    }

    /// Learns from an answer to a request that wanted so many bytes at most.
    pub fn learn(&self, longest: Longest, wanted: usize, now: Tick) {
        let mut learned = self.0.lock();
        match longest {
            Longest::Unknown => {}
            Longest::Plain => {
                let grown = learned.records.saturating_mul(GROWTH);
                learned.records =
                    if learned.is_fresh(now) { grown.min(learned.most) } else { grown };
            }
            Longest::Stored(bytes) => {
                let fit = wanted.min(RESTORED_BYTES_MAX) / bytes.max(1);
                learned.bound(i32::try_from(fit).unwrap_or(i32::MAX).max(1), now);
            }
        }
    }

    /// An answer to a request for so many records had no room for all of them: whether the next
    /// ones ask for fewer.
    pub fn crowded(&self, asked: i32, now: Tick) -> bool {
        let mut learned = self.0.lock();
        learned.bound((asked / 2).max(1), now);
        learned.records < asked
    }
}

impl Learned {
    fn is_fresh(&self, now: Tick) -> bool {
        self.until.is_some_and(|until| now < until) && !fault::on("pace-forgets")
    }

    /// Asks for no more from now on; what was learned before and is less holds on to its end.
    fn bound(&mut self, most: i32, now: Tick) {
        if !self.is_fresh(now) || most <= self.most {
            self.most = most;
            self.until = Some(now + KEPT);
        }
        self.records = self.most;
    }
}

/// Records before anything is known: of a MiB each they fit an answer.
const FIRST: i32 = 32;
/// Where nothing is in the store more is asked for each time.
const GROWTH: i32 = 4;
/// How long a long value is remembered: longer than brokers' locks last, times the deliveries that
/// they count.
const KEPT: Duration = Duration::from_secs(600);
/// Groups that are remembered.
const GROUPS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn requests_ask_for_what_fits_an_answer_and_for_more_where_nothing_is_stored() {
        let (pace, now) = (Pace::default(), clock::now());
        pace.learn(Longest::Unknown, 100, now);
        assert_eq!(pace.records_max(), FIRST);
        pace.learn(Longest::Plain, 100, now);
        assert_eq!(pace.records_max(), FIRST * GROWTH);
        pace.learn(Longest::Stored(30), 100, now);
        assert_eq!(pace.records_max(), 3);
        pace.learn(Longest::Stored(3000), 100, now);
        assert_eq!(pace.records_max(), 1);
        (0..20).for_each(|_| pace.learn(Longest::Plain, 100, now + KEPT));
        assert_eq!(pace.records_max(), i32::MAX);
    }

    #[test]
    fn small_records_after_a_long_value_ask_for_no_more_of_its_kind_than_fit() {
        let (pace, now) = (Pace::default(), clock::now());
        pace.learn(Longest::Stored(MIB), 50 * MIB, now);
        for _ in 0..20 {
            pace.learn(Longest::Plain, 50 * MIB, now);
            pace.learn(Longest::Stored(1000), 50 * MIB, now + KEPT / 2);
            let asked = usize::try_from(pace.records_max()).expect("positive");
            assert!(asked * MIB <= 50 * MIB, "{asked} records of a MiB are asked for");
        }
        // What is shorter counts once the long one is forgotten.
        pace.learn(Longest::Stored(MIB / 2), 50 * MIB, now + KEPT);
        assert_eq!(pace.records_max(), 100);
    }

    #[test]
    fn an_answer_without_room_has_half_as_much_asked_for_down_to_one() {
        let (pace, now) = (Pace::default(), clock::now());
        let mut asked = FIRST;
        while pace.crowded(asked, now) {
            assert_eq!(pace.records_max(), asked / 2);
            asked = pace.records_max();
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn groups_are_told_apart_and_bounded_in_number() {
        let paces = Paces::default();
        paces.of(b"a").learn(Longest::Stored(50), 100, clock::now());
        assert_eq!((paces.of(b"a").records_max(), paces.of(b"b").records_max()), (2, FIRST));
        (0..GROUPS_MAX * 2).for_each(|n| drop(paces.of(&n.to_be_bytes())));
        assert!(paces.0.lock().len() <= GROUPS_MAX);
    }
}
