//! Chains: which physical topics hold the records of a slot, by logical offset.
//!
//! A chain is a slot's segments, oldest first; logical offset = base + physical offset. Only the
//! last segment takes writes, and each starts where the one before it ends. Pure: no I/O, no clock.

use std::sync::Arc;

use crate::fault;

/// A physical topic that holds a contiguous range of offsets of each of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its place among all segments that the chain ever had.
    pub number: u32,
    /// The physical topic.
    pub topic: Arc<str>,
    /// By partition: the logical offset of physical offset 0.
    pub bases: Vec<i64>,
    /// What ended it; the open one has none.
    pub seal: Option<Seal>,
}

/// The end of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// By partition: the logical offset behind the last record.
    pub ends: Vec<i64>,
    /// When it became a fact, in Unix milliseconds.
    pub at_ms: u64,
}

/// The segments of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    segments: Vec<Segment>,
}

/// Why segments are no chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// There are none.
    #[error("no segment")]
    Empty,
    /// A segment has another count of partitions, or an offset that cannot be.
    #[error("segment {0} does not fit its topic")]
    Misfit(u32),
    /// One that is not the last is open, or the last is sealed.
    #[error("segment {0} is open or sealed where it must not be")]
    Seal(u32),
    /// A segment does not start where the one before it ends.
    #[error("segment {0} does not follow the one before it")]
    Gap(u32),
}

/// What a segment holds of one logical partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch<'a> {
    /// The number of its segment.
    pub number: u32,
    /// The physical topic.
    pub topic: &'a Arc<str>,
    /// The logical offset of physical offset 0.
    pub base: i64,
    /// The logical offset behind its last record; `None` while it takes writes.
    pub end: Option<i64>,
    /// When it was sealed, in Unix milliseconds.
    pub sealed_at_ms: Option<u64>,
}

impl Stretch<'_> {
    /// Records that it holds once sealed.
    pub fn length(&self) -> Option<i64> {
        self.end.map(|end| end - self.base)
    }
}

impl Chain {
    /// A chain of these segments, oldest first.
    pub fn new(segments: Vec<Segment>, partitions: i32) -> Result<Self, Broken> {
        let count = usize::try_from(partitions).unwrap_or(0);
        let last = segments.last().ok_or(Broken::Empty)?.number;
        for segment in &segments {
            let Segment { number, bases, seal, .. } = segment;
            let ends = seal.as_ref().map_or(bases, |seal| &seal.ends);
            let fits = bases.len() == count && ends.len() == count && count > 0;
            if !fits || bases.iter().zip(ends).any(|(base, end)| *base < 0 || end < base) {
                return Err(Broken::Misfit(*number));
            }
            if seal.is_none() != (*number == last) {
                return Err(Broken::Seal(*number));
            }
        }
        let pairs = segments.iter().zip(segments.iter().skip(1));
        for (old, new) in pairs {
            let follows = old.seal.as_ref().is_some_and(|seal| seal.ends == new.bases);
            if !follows || old.number.checked_add(1) != Some(new.number) {
                return Err(Broken::Gap(new.number));
            }
        }
        Ok(Self { segments })
    }

    /// A chain of one segment that stays open, as topics without days have.
    pub fn endless(topic: Arc<str>, partitions: i32) -> Self {
        let bases = vec![0; usize::try_from(partitions).unwrap_or(0)];
        Self { segments: vec![Segment { number: 0, topic, bases, seal: None }] }
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the segments hold of a partition, oldest first; nothing beyond the last partition.
    pub fn stretches(&self, partition: i32) -> impl DoubleEndedIterator<Item = Stretch<'_>> {
        self.segments.iter().filter_map(move |segment| segment.stretch(partition))
    }

    /// The one that takes writes.
    pub fn open(&self, partition: i32) -> Option<Stretch<'_>> {
        self.stretches(partition).next_back()
    }

    /// The one that takes writes, whatever partition is asked for.
    pub fn newest(&self) -> Option<&Segment> {
        self.segments.last()
    }

    /// Where a partition starts.
    pub fn start(&self, partition: i32) -> Option<i64> {
        self.stretches(partition).next().map(|stretch| stretch.base)
    }

    /// Where a logical offset is read: the end of a sealed segment is the start of the next one.
    /// `None` below the oldest.
    pub fn holding(&self, partition: i32, offset: i64) -> Option<Stretch<'_>> {
        if fault::on("sealed-end-read") {
            return self.stretches(partition).find(|s| s.end.is_none_or(|end| offset <= end));
        }
        // Empty segments share their base with the next one: the last of them it is.
        let behind = self.segments.partition_point(|segment| {
            segment.stretch(partition).is_some_and(|stretch| stretch.base <= offset)
        });
        self.segments.get(behind.checked_sub(1)?)?.stretch(partition)
    }
}

impl Segment {
    /// What it holds of a partition.
    pub fn stretch(&self, partition: i32) -> Option<Stretch<'_>> {
        let at = usize::try_from(partition).ok()?;
        let seal = self.seal.as_ref();
        let (number, topic, base) = (self.number, &self.topic, *self.bases.get(at)?);
        let end = seal.and_then(|seal| seal.ends.get(at)).copied();
        Some(Stretch { number, topic, base, end, sealed_at_ms: seal.map(|seal| seal.at_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u32, bases: &[i64], ends: Option<&[i64]>) -> Segment {
        let seal = ends.map(|ends| Seal { ends: ends.to_vec(), at_ms: 7 });
        Segment { number, topic: format!("s-{number}").into(), bases: bases.to_vec(), seal }
    }

    fn chain() -> Chain {
        let segments = vec![
            segment(4, &[10, 0], Some(&[20, 5])),
            segment(5, &[20, 5], Some(&[20, 8])),
            segment(6, &[20, 8], None),
        ];
        Chain::new(segments, 2).unwrap()
    }

    fn number(partition: i32, offset: i64) -> Option<u32> {
        chain().holding(partition, offset).map(|stretch| stretch.number)
    }

    #[test]
    fn every_offset_has_one_segment_and_a_sealed_end_is_the_next_start() {
        assert_eq!(number(0, 9), None);
        assert_eq!([10, 19, 20, 1000].map(|o| number(0, o)), [4, 4, 6, 6].map(Some));
        assert_eq!([0, 4, 5, 7, 8].map(|o| number(1, o)), [4, 4, 5, 5, 6].map(Some));
        assert_eq!((number(1, -1), number(2, 0), number(-1, 0)), (None, None, None));
        assert_eq!(
            (chain().start(0), chain().start(1), chain().start(2)),
            (Some(10), Some(0), None)
        );
        assert_eq!(chain().open(1).map(|s| (s.base, s.end)), Some((8, None)));
    }

    #[test]
    fn what_has_a_gap_or_overlaps_is_no_chain() {
        let of = |segments: Vec<Segment>| Chain::new(segments, 1).err();
        assert_eq!(of(vec![]), Some(Broken::Empty));
        assert_eq!(of(vec![segment(0, &[0, 0], None)]), Some(Broken::Misfit(0)));
        assert_eq!(of(vec![segment(0, &[-1], None)]), Some(Broken::Misfit(0)));
        assert_eq!(of(vec![segment(0, &[0], Some(&[9]))]), Some(Broken::Seal(0)));
        let open = vec![segment(0, &[0], None), segment(1, &[0], None)];
        assert_eq!(of(open), Some(Broken::Seal(0)));
        for (number, base) in [(1, 8), (1, 10), (2, 9)] {
            let apart = vec![segment(0, &[0], Some(&[9])), segment(number, &[base], None)];
            assert_eq!(of(apart), Some(Broken::Gap(number)));
        }
        assert_eq!(
            of(vec![segment(0, &[5], Some(&[4])), segment(1, &[4], None)]),
            Some(Broken::Misfit(0))
        );
    }

    #[test]
    fn a_topic_without_days_has_its_physical_offsets() {
        let endless = Chain::endless("t".into(), 3);
        let stretch = endless.holding(2, 77).unwrap();
        assert_eq!((stretch.number, stretch.base, stretch.end), (0, 0, None));
        assert_eq!((endless.start(2), endless.holding(3, 0)), (Some(0), None));
    }
}
