//! Opens record batches: what they inflate to is bounded, and has its room before it is there.
//!
//! Flow: what the stream says of its size -> room for it -> inflate under that cap -> again with
//! more, up to the longest batch taken. What is not compressed shares the frame's memory and needs
//! no room. Invariant: no byte is inflated that has no room; whoever holds an opened batch may
//! only `try_open` another.

use bytes::Bytes;
use protocol_ext::batch::{BatchError, BatchHeader, Caps, HEADER_BYTES, OpenBatch};
use protocol_ext::codec::{self, Codec, CodecError};

use crate::budget::{Budget, Room};
use crate::fault;
use crate::tasks::busy;

/// An opened batch.
#[derive(Debug)]
pub struct Opened {
    /// The batch.
    pub batch: OpenBatch,
    /// Room for what it inflated to, and for writing it anew.
    pub room: Option<Room>,
}

/// The bound.
#[derive(Debug)]
pub struct Inflate {
    room: Budget,
    batch_bytes_max: usize,
}

/// What came of a try under a cap.
enum Tried {
    Opened(Result<Opened, BatchError>),
    /// It becomes more than that.
    More,
}

impl Inflate {
    /// Room for `bytes`; one batch may become `batch_bytes_max` of them.
    pub fn new(bytes: usize, batch_bytes_max: usize) -> Self {
        Self { room: Budget::new(bytes), batch_bytes_max }
    }

    /// The room.
    pub fn room(&self) -> &Budget {
        &self.room
    }

    /// Opens a batch, waiting for room. Only for who holds no other.
    pub async fn open(&self, raw: &Bytes) -> Result<Opened, BatchError> {
        let Some(mut cap) = self.first_cap(raw)? else { return plain(raw) };
        loop {
            let room = match fault::on("inflate-unbounded") {
                true => None,
                false => self.room.take(cap * COPIES).await,
            };
            match self.try_under(cap, raw, room) {
                Tried::Opened(opened) => return opened,
                Tried::More => cap = cap.saturating_mul(GROWTH).min(self.batch_bytes_max),
            }
        }
    }

    /// Opens a batch if there is room for it now.
    pub fn try_open(&self, raw: &Bytes) -> Option<Result<Opened, BatchError>> {
        let mut cap = match self.first_cap(raw) {
            Ok(Some(cap)) => cap,
            Ok(None) => return Some(plain(raw)),
            Err(error) => return Some(Err(error)),
        };
        loop {
            let room = match fault::on("inflate-unbounded") {
                true => None,
                false => Some(self.room.try_take(cap * COPIES)?),
            };
            match self.try_under(cap, raw, room) {
                Tried::Opened(opened) => return Some(opened),
                Tried::More => cap = cap.saturating_mul(GROWTH).min(self.batch_bytes_max),
            }
        }
    }

    fn try_under(&self, cap: usize, raw: &Bytes, room: Option<Room>) -> Tried {
        let caps = Caps { body_bytes_max: cap, rewritten_bytes_max: cap };
        // The work is on a core, no peer is waited for.
        let mut room = room;
        room.iter_mut().for_each(|room| room.awaits_peer(false));
        match busy(cap, || OpenBatch::open(raw.clone(), &caps)) {
            Err(BatchError::Codec(CodecError::TooLarge { .. })) if cap < self.batch_bytes_max => {
                Tried::More
            }
            Err(error) => Tried::Opened(Err(error)),
            Ok(batch) => {
                room.iter_mut().for_each(|room| room.shrink(batch.body().len() * COPIES));
                Tried::Opened(Ok(Opened { batch, room }))
            }
        }
    }

    /// The first cap to try; `None` if nothing is to be inflated.
    fn first_cap(&self, raw: &Bytes) -> Result<Option<usize>, BatchError> {
        let codec = BatchHeader::parse(raw)?.codec()?;
        if codec == Codec::None || raw.len() == HEADER_BYTES {
            return Ok(None);
        }
        let packed = &raw[HEADER_BYTES..];
        let hint = codec::hinted_bytes(codec, packed);
        let hint = hint.unwrap_or(packed.len().saturating_mul(GROWTH));
        Ok(Some(hint.clamp(CAP_MIN, self.batch_bytes_max)))
    }
}

fn plain(raw: &Bytes) -> Result<Opened, BatchError> {
    let caps = Caps { body_bytes_max: raw.len(), rewritten_bytes_max: raw.len() };
    let batch = OpenBatch::open(raw.clone(), &caps)?;
    Ok(Opened { batch, room: None })
}

/// An inflated batch that is written anew: itself, its new records, and room to compress them.
const COPIES: usize = 3;
/// How much more is tried for a batch that becomes more than it said.
const GROWTH: usize = 4;
/// The least that is tried.
const CAP_MIN: usize = 4096;

#[cfg(test)]
mod tests {
    use protocol_ext::batch::build;
    use protocol_ext::codec::Framing;

    use super::*;

    const KIB: usize = 1024;

    fn batch(codec: Codec, bytes: usize) -> Bytes {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: codec.bits(),
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records_count: 1,
        };
        build(header, Framing::Plain, &vec![7; bytes]).expect("a batch")
    }

    #[tokio::test]
    async fn room_is_held_for_what_is_inflated_and_not_for_what_shares_the_frame() {
        let inflate = Inflate::new(4096 * KIB, 1024 * KIB);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let opened = inflate.open(&batch(codec, 500 * KIB)).await.expect("opened");
            assert_eq!(opened.batch.body().len(), 500 * KIB);
            assert_eq!(inflate.room.taken_bytes(), 1500 * KIB, "{codec:?}");
            assert!(inflate.try_open(&batch(codec, 1000 * KIB)).is_none(), "{codec:?}");
            let second = inflate.try_open(&batch(codec, 100 * KIB)).expect("room");
            assert!(second.is_ok());
        }
        let _opened = inflate.open(&batch(Codec::None, 2000 * KIB)).await.expect("opened");
        assert_eq!(inflate.room.taken_bytes(), 0);
    }

    #[tokio::test]
    async fn what_becomes_more_than_one_batch_may_is_refused_and_leaves_no_room_taken() {
        let inflate = Inflate::new(4096 * KIB, 1024 * KIB);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let error = inflate.open(&batch(codec, 1025 * KIB)).await.expect_err("too large");
            let too_large = CodecError::TooLarge { bytes_max: 1024 * KIB };
            assert_eq!(error, BatchError::Codec(too_large), "{codec:?}");
            assert!(inflate.try_open(&batch(codec, 1025 * KIB)).is_some_and(|o| o.is_err()));
            assert_eq!(inflate.room.taken_bytes(), 0);
        }
    }
}
