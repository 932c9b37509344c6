//! The offsets that a share consumer acquired with an answer (KIP-932): read, shortened, written.
//!
//! A consumer takes what was acquired and is not among the records for gone for good, and says so:
//! the broker then gives it to nobody any more. Invariant: records that are left out of an answer
//! are left out of what it calls acquired.

use std::ops::Range;

use bytes::Bytes;

use crate::wire::{Reader, WireError, put_uvarint};

/// Offsets that were acquired together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquired {
    /// The first.
    pub first: i64,
    /// The last.
    pub last: i64,
    /// How often they were given out, this time included.
    pub deliveries: i16,
}

/// Reads an array, its length in front, into the order of offsets. All versions have the flexible
/// format.
pub fn read(raw: &[u8]) -> Result<Vec<Acquired>, WireError> {
    let mut read = Reader::new(raw, 0);
    let mut found = Vec::new();
    for _ in 0..read.length(true, true)?.unwrap_or(0) {
        let (first, last, deliveries) = (read.i64()?, read.i64()?, read.i16()?);
        for _ in 0..read.uvarint()? {
            read.uvarint()?;
            let bytes = read.uvarint()? as usize;
            read.take(bytes)?;
        }
        found.push(Acquired { first, last, deliveries });
    }
    found.sort_unstable_by_key(|one| one.first);
    Ok(found)
}

/// Writes an array.
pub fn write(acquired: &[Acquired]) -> Bytes {
    let mut out = Vec::with_capacity(5 + acquired.len() * 19);
    put_uvarint(&mut out, u32::try_from(acquired.len() + 1).unwrap_or(u32::MAX));
    for Acquired { first, last, deliveries } in acquired {
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&last.to_be_bytes());
        out.extend_from_slice(&deliveries.to_be_bytes());
        out.push(0);
    }
    out.into()
}

/// Whether any of `offsets` was acquired; what was is in order and does not overlap.
pub fn touches(acquired: &[Acquired], offsets: &Range<i64>) -> bool {
    let at = acquired.partition_point(|one| one.last < offsets.start);
    acquired.get(at).is_some_and(|one| one.first < offsets.end)
}

/// What stays acquired without some offsets, which do not overlap and are in order.
pub fn without(acquired: &[Acquired], left_out: &[Range<i64>]) -> Vec<Acquired> {
    let mut stays = Vec::with_capacity(acquired.len());
    for one in acquired {
        let mut from = one.first;
        let behind = left_out.partition_point(|gap| gap.end <= one.first);
        let gaps = left_out.get(behind..).unwrap_or_default().iter();
        for gap in gaps.take_while(|gap| gap.start <= one.last) {
            if from < gap.start {
                stays.push(Acquired { first: from, last: gap.start - 1, ..*one });
            }
            from = from.max(gap.end);
        }
        if from <= one.last {
            stays.push(Acquired { first: from, ..*one });
        }
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquired(first: i64, last: i64, deliveries: i16) -> Acquired {
        Acquired { first, last, deliveries }
    }

    #[test]
    fn what_is_written_reads_back_and_tags_are_passed_over() {
        let all = [acquired(0, 9, 1), acquired(12, 12, 3)];
        assert_eq!(read(&write(&all)).unwrap(), all);
        assert_eq!(read(&write(&[])).unwrap(), []);
        let mut tagged = write(&all[..1]).to_vec();
        let last = tagged.len() - 1;
        tagged[last] = 1;
        tagged.extend_from_slice(&[7, 2, 0xaa, 0xbb]);
        assert_eq!(read(&tagged).unwrap(), all[..1]);
        assert!(read(&tagged[..tagged.len() - 1]).is_err());
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one gap is a gap")]
    fn offsets_that_are_left_out_are_not_acquired_and_the_others_stay() {
        let all = [acquired(0, 9, 1), acquired(20, 29, 2)];
        let without = |gaps: &[Range<i64>]| without(&all, gaps);
        assert_eq!(without(&[]), all);
        assert_eq!(without(&[10..20, 30..99]), all);
        let split = [acquired(0, 2, 1), acquired(5, 9, 1), acquired(20, 29, 2)];
        assert_eq!(without(&[3..5]), split);
        assert_eq!(without(&[0..10, 20..25]), [acquired(25, 29, 2)]);
        assert_eq!(without(&[5..25]), [acquired(0, 4, 1), acquired(25, 29, 2)]);
        assert_eq!(without(&[8..9, 9..10, 29..30]), [acquired(0, 7, 1), acquired(20, 28, 2)]);
        assert_eq!(without(&[0..30]), []);
    }
}
