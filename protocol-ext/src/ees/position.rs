//! Where a batch stands in its stream, and how that is written into producer fields.
//!
//! PID' = bit 62 | lap 1 | source slot 4 | client epoch 15 | block 16 | client producer id 26;
//! block and epoch' are the upper 16 and lower 15 bits of the client's base sequence.
//! Invariants: bit 63 is 0 (brokers keep no state for negative ids); no two batches of all clients
//! get the same fields, but those that are 2^32 records apart in one stream.

use crate::split::ProducerFields;

/// Client producer ids that fit: below this.
pub const PRODUCER_IDS: i64 = 1 << PRODUCER_BITS;
/// Source slots that fit.
pub const SLOTS: usize = 16;

const PRODUCER_BITS: u32 = 26;
const BLOCK_AT: u32 = PRODUCER_BITS;
const CLIENT_EPOCH_AT: u32 = 42;
const SLOT_AT: u32 = 57;
const LAP_AT: u32 = 61;
const MARK: u64 = 1 << 62;
/// Bits of a position that are epoch'.
const EPOCH_BITS: u32 = 15;
/// Client sequences have 31 bits and wrap to 0; this bit tells two laps apart.
const LAP: u32 = 1 << 31;

/// A client's base sequence and the lap it belongs to. Positions lie on a circle of 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position(u32);

impl Position {
    /// A sequence of the first lap. Negative ones have no position.
    pub fn first_lap(sequence: i32) -> Option<Self> {
        u32::try_from(sequence).ok().map(Self)
    }

    /// The sequence in that lap which is nearest to this position.
    pub fn nearest(self, sequence: i32) -> Option<Self> {
        let even = Self::first_lap(sequence)?;
        let odd = Self(even.0 | LAP);
        let nearer = self.to(even).unsigned_abs() <= self.to(odd).unsigned_abs();
        Some(if nearer { even } else { odd })
    }

    /// How far `other` lies ahead, negative if it lies behind: the shorter way round.
    pub fn to(self, other: Self) -> i32 {
        self.forward(other).cast_signed()
    }

    /// How far it is to `other` if one only goes forward.
    pub fn forward(self, other: Self) -> u32 {
        other.0.wrapping_sub(self.0)
    }

    /// The position behind a batch of so many records that starts here.
    pub fn behind(self, records: u32) -> Self {
        Self(self.0.wrapping_add(records))
    }

    /// The client's sequence.
    pub fn sequence(self) -> i32 {
        (self.0 & !LAP).cast_signed()
    }
}

/// A producer's batches of one epoch to one logical partition, which is told by its slot: its
/// partition within the slot is that of the physical partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId {
    producer: u32,
    epoch: u16,
    slot: u8,
}

impl StreamId {
    /// `None` if a field does not fit: the batch must be refused then, since fields that collide
    /// would make brokers drop data.
    pub fn new(producer_id: i64, epoch: i16, slot: usize) -> Option<Self> {
        let fits = (0..PRODUCER_IDS).contains(&producer_id) && slot < SLOTS;
        fits.then_some(())?;
        Some(Self {
            producer: u32::try_from(producer_id).ok()?,
            epoch: u16::try_from(epoch).ok()?,
            slot: u8::try_from(slot).ok()?,
        })
    }

    /// What to write into a batch (or each part of it) at `position`.
    pub fn fields(self, position: Position) -> ProducerFields {
        let (block, epoch) = (position.0 >> EPOCH_BITS, position.0 & ((1 << EPOCH_BITS) - 1));
        // The top bit of `block` is the lap.
        let (lap, block) = (u64::from(block >> 16), u64::from(block & 0xffff));
        let id = MARK
            | lap << LAP_AT
            | u64::from(self.slot) << SLOT_AT
            | u64::from(self.epoch) << CLIENT_EPOCH_AT
            | block << BLOCK_AT
            | u64::from(self.producer);
        // 15 bits always fit.
        let epoch = i16::try_from(epoch).unwrap_or(i16::MAX);
        ProducerFields { id: id.cast_signed(), epoch, base_sequence: 0 }
    }

    /// Stream and position of a batch that a broker has seen; `None` if the fields are not ours.
    pub fn read(producer_id: i64, epoch: i32) -> Option<(Self, Position)> {
        let id = u64::try_from(producer_id).ok().filter(|id| id & MARK != 0)?;
        let low = u32::try_from(epoch).ok().filter(|epoch| epoch >> EPOCH_BITS == 0)?;
        let bits = |at: u32, count: u32| u32::try_from(id >> at & ((1 << count) - 1)).ok();
        let stream = Self {
            producer: bits(0, PRODUCER_BITS)?,
            epoch: u16::try_from(bits(CLIENT_EPOCH_AT, 15)?).ok()?,
            slot: u8::try_from(bits(SLOT_AT, 4)?).ok()?,
        };
        let block = bits(LAP_AT, 1)? << 16 | bits(BLOCK_AT, 16)?;
        Some((stream, Position(block << EPOCH_BITS | low)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            producer in 0..PRODUCER_IDS, epoch in 0..=i16::MAX, slot in 0..SLOTS, at: u32,
        ) {
            let stream = StreamId::new(producer, epoch, slot).unwrap();
            let fields = stream.fields(Position(at));
            prop_assert!(fields.id > 0 && fields.epoch >= 0 && fields.base_sequence == 0);
            let read = StreamId::read(fields.id, i32::from(fields.epoch));
            prop_assert_eq!(read, Some((stream, Position(at))));
        }

        #[test]
        fn the_nearest_lap_is_at_most_half_a_lap_away(at: u32, sequence in 0..=i32::MAX) {
            let nearest = Position(at).nearest(sequence).unwrap();
            prop_assert_eq!(nearest.sequence(), sequence);
            prop_assert!(Position(at).to(nearest).unsigned_abs() <= 1 << 30);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(StreamId::new(PRODUCER_IDS, 0, 0).is_none());
        assert!(StreamId::new(-1, 0, 0).is_none());
        assert!(StreamId::new(0, -1, 0).is_none());
        assert!(StreamId::new(0, 0, SLOTS).is_none());
        assert!(StreamId::read(1234, 0).is_none());
        assert!(StreamId::read(-1, 0).is_none());
    }

    #[test]
    fn a_stream_goes_on_in_the_next_lap() {
        let last = Position::first_lap(i32::MAX).unwrap();
        let next = last.behind(3);
        assert_eq!((next.sequence(), last.to(next)), (2, 3));
        assert_eq!(last.nearest(2), Some(next));
        assert_eq!(next.nearest(i32::MAX), Some(last));
    }
}
