//! What a look-up found of one stream: the producer state of all its physical partitions.
//!
//! Rows of one stream lie on an arc of the circle of positions; the newest one stands before the
//! gap. Invariant: where the gap cannot be told for sure, nothing is.

use super::position::Position;

/// One row of DescribeProducers: the last batch of a block in one physical partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Slot of the physical partition.
    pub slot: u8,
    /// Its segment takes no more writes, and the answer is that of the whole segment.
    pub sealed: bool,
    /// Position of the batch.
    pub at: Position,
    /// Records of the batch in this partition.
    pub records: u32,
    /// Everything in the partition is replicated, as of the look-up or later.
    pub committed: bool,
}

/// The rows of one stream over all physical partitions, open and sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View(pub Vec<Row>);

/// The newest batch of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// Brokers know nothing of the stream.
    Nothing,
    /// Rows lie all around the circle: nothing can be said before some expire.
    Unclear,
    /// The newest batch.
    Batch {
        /// Its position.
        at: Position,
        /// Its records that are there.
        records: u32,
        /// All partitions that have some of them are replicated.
        committed: bool,
        /// Distance from the oldest row to it.
        span: u32,
    },
}

/// A gap this long is longer than any batch.
const GAP_MIN: u32 = 1 << 25;
const HALF: u32 = 1 << 31;

impl View {
    /// The newest batch over all rows.
    pub fn newest(&self) -> Newest {
        let Some(first) = self.0.first() else { return Newest::Nothing };
        let mut points: Vec<Position> = self.0.iter().map(|row| row.at).collect();
        points.sort_by_key(|point| first.at.forward(*point));
        points.dedup();
        let nexts = points.iter().cycle().skip(1);
        // A single point has the whole circle ahead, which does not fit: 0.
        let gaps = points.iter().zip(nexts).map(|(at, next)| (*at, at.forward(*next)));
        let mut gaps: Vec<(Position, u32)> = gaps.collect();
        gaps.sort_by_key(|(_, gap)| std::cmp::Reverse(*gap));
        let (at, gap) = gaps[0];
        let clear = gaps.len() == 1 || gap >= HALF || (gap >= GAP_MIN && gaps[1].1 < GAP_MIN);
        if !clear {
            return Newest::Unclear;
        }
        let span = if gaps.len() == 1 { 0 } else { 0_u32.wrapping_sub(gap) };
        let rows = self.0.iter().filter(|row| row.at == at);
        let records = rows.clone().fold(0_u32, |sum, row| sum.saturating_add(row.records));
        Newest::Batch { at, records, committed: rows.clone().all(|row| row.committed), span }
    }

    /// The newest row of a slot's sealed segments: the one that lies least behind the newest of
    /// all, or compared the shorter way round where that is not clear.
    pub fn newest_sealed(&self, slot: u8) -> Option<Position> {
        let rows = self.0.iter().filter(|row| row.sealed && row.slot == slot);
        let rows = rows.map(|row| row.at);
        match self.newest() {
            Newest::Batch { at: newest, .. } => rows.min_by_key(|at| at.forward(newest)),
            Newest::Nothing | Newest::Unclear => {
                rows.reduce(|newest, at| if newest.to(at) > 0 { at } else { newest })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(points: &[u32]) -> View {
        let origin = Position::first_lap(0).unwrap();
        let row = |at: &u32| Row {
            slot: 0,
            sealed: false,
            at: origin.behind(*at),
            records: 2,
            committed: true,
        };
        View(points.iter().map(row).collect())
    }

    fn newest(points: &[u32]) -> Option<(i32, u32)> {
        match view(points).newest() {
            Newest::Batch { at, span, .. } => Some((at.sequence(), span)),
            Newest::Nothing | Newest::Unclear => None,
        }
    }

    #[test]
    fn the_newest_row_stands_before_the_gap_also_behind_a_wrap() {
        assert_eq!(newest(&[5]), Some((5, 0)));
        assert_eq!(newest(&[5, 9, 7]), Some((9, 4)));
        assert_eq!(newest(&[3, u32::MAX]), Some((3, 4)));
        assert_eq!(newest(&[1 << 31, (1 << 31) - 10]), Some((0, 10)));
        assert_eq!(newest(&[9, 9]), Some((9, 0)));
    }

    #[test]
    fn rows_all_around_the_circle_tell_nothing() {
        assert_eq!(view(&[0, 1 << 30, 1 << 31, 3 << 30]).newest(), Newest::Unclear);
        assert_eq!(view(&[]).newest(), Newest::Nothing);
        // Dense but for one gap: clear, though more than half of the circle is used.
        let dense: Vec<u32> = (0..200).map(|n| n << 24).collect();
        assert_eq!(newest(&dense), Some((71 << 24, 199 << 24)));
    }

    #[test]
    fn parts_of_the_newest_batch_are_summed() {
        let mut view = view(&[4, 8, 8]);
        view.0[2].committed = false;
        let at = view.0[1].at;
        let batch = Newest::Batch { at, records: 4, committed: false, span: 4 };
        assert_eq!(view.newest(), batch);
    }
}
