//! What brokers said of producers in sealed segments: one whose log is as long as its seal says
//! gets no new ones, and is not asked about again for a while.
//!
//! Invariant: nothing is kept for long. Brokers forget old producers in time, and so must we: their
//! positions are given again once sequences have wrapped twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use protocol_ext::ees::{Position, StreamId};

use crate::clock::Tick;
use crate::limits::SEALED_ROWS_MAX;

/// The last batch of each block of each stream in a physical partition, and its records.
pub type Rows = Arc<[(StreamId, Position, u32)]>;

/// A physical partition and how many records it was sealed with.
pub type SealedPlace = (Arc<str>, i32, i64);

/// What is kept, and since when.
#[derive(Debug, Default)]
pub struct SealedRows(RwLock<HashMap<SealedPlace, (Rows, Tick)>>);

/// How long it is kept.
const KEPT: Duration = Duration::from_secs(3600);

impl SealedRows {
    /// What was said of a partition.
    pub fn of(&self, place: &SealedPlace, now: Tick) -> Option<Rows> {
        let kept = self.0.read();
        let (rows, at) = kept.get(place)?;
        (now.saturating_duration_since(*at) < KEPT).then(|| rows.clone())
    }

    /// Keeps what was said. One that says more than there is room for is asked again each time.
    pub fn keep(&self, place: SealedPlace, rows: Rows, now: Tick) {
        // One without any row takes room too.
        let room = rows.len() + 1;
        if room > SEALED_ROWS_MAX {
            return;
        }
        let mut kept = self.0.write();
        let used: usize = kept.values().map(|(rows, _)| rows.len() + 1).sum();
        if used + room > SEALED_ROWS_MAX {
            kept.clear();
        }
        kept.insert(place, (rows, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn rows_of_sealed_segments_have_an_end() {
        let (sealed, now) = (SealedRows::default(), clock::now());
        let (stream, at) = StreamId::read(1 << 62 | 5, 3).expect("ours");
        let rows: Rows = vec![(stream, at, 1); SEALED_ROWS_MAX / 2].into();
        let place = |n| (Arc::from("fires-norcal"), n, 9);
        for n in 0..3 {
            sealed.keep(place(n), rows.clone(), now);
            let there = sealed.of(&place(n), now + KEPT / 2).map(|rows| rows.len());
            assert_eq!(there, Some(rows.len()));
            let kept: usize = sealed.0.read().values().map(|(rows, _)| rows.len()).sum();
            assert!(kept <= SEALED_ROWS_MAX, "{kept} rows");
        }
        assert!(sealed.of(&place(2), now + KEPT).is_none(), "kept for longer than brokers may");
        sealed.keep(place(7), vec![(stream, at, 1); SEALED_ROWS_MAX].into(), now);
        assert!(sealed.of(&place(7), now).is_none(), "more than there is room for");
    }
}
