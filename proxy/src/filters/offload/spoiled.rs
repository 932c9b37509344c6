//! Batches that are wrong on purpose, by faults; without one they are what they were.

use bytes::Bytes;
use protocol_ext::batch::{HEADER_BYTES, crc32c};

use crate::fault;

/// The batch as it is; by a fault with a checksum that does not fit.
pub fn spoiled(batch: Bytes, by_fault: bool) -> Bytes {
    if !by_fault {
        return batch;
    }
    let mut spoiled = batch.to_vec();
    if let Some(byte) = spoiled.get_mut(CRC) {
        *byte ^= 0xff;
    }
    spoiled.into()
}

/// A restored batch in its pieces; by faults with another head, whose checksum fits.
pub fn another_head(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let (timeless, gapless) = (fault::on("append-time-lost"), fault::on("gaps-closed"));
    if !timeless && !gapless {
        return pieces;
    }
    let mut batch: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
    if batch.len() < HEADER_BYTES {
        return pieces;
    }
    if timeless {
        batch[ATTRIBUTES + 1] &= !LOG_APPEND_TIME;
    }
    if gapless {
        // As if the records that are there were all that ever were.
        let count = batch[RECORDS_COUNT..HEADER_BYTES].iter();
        let count = count.fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let delta = count.saturating_sub(1).to_be_bytes();
        batch[LAST_OFFSET_DELTA..LAST_OFFSET_DELTA + 4].copy_from_slice(&delta);
    }
    let crc = crc32c(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    vec![batch.into()]
}

/// Where fields of a head stand.
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const RECORDS_COUNT: usize = 57;
/// In the second byte of the attributes.
const LOG_APPEND_TIME: u8 = 1 << 3;
