//! Every pack read and all its sums checked: many at once, in memory that is bounded.
//!
//! A short pack is read whole; of a long one head and entries, and then its parts in ranges, whose
//! bytes are summed as they come. Invariant: what is held at once has room that was taken before.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};
use protocol_ext::pack::{self, Footer, HEAD_BYTES, PackError, PackHead, Sums, TRAILER_BYTES};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Progress;
use crate::fault;
use crate::limits::UPKEEP_AT_ONCE;
use crate::store::{Listed, ObjectStore, StoreError};

/// Why a pack is not as it was stored.
#[derive(Debug, thiserror::Error)]
enum Unsound {
    /// It is not there, or too short.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its bytes are others.
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// Room for what is held.
struct Room {
    bytes: Semaphore,
    /// For entries that take more than they ever should: of one pack at a time.
    entries: Semaphore,
}

/// Keys of packs that are damaged, in order, and what is wrong with each.
pub async fn damaged(
    store: &ObjectStore,
    stored: &BTreeMap<String, Listed>,
) -> Result<Vec<String>, StoreError> {
    let progress = Progress::new();
    let room = Room { bytes: Semaphore::new(ROOM_BYTES), entries: Semaphore::new(1) };
    let checks = stored.values().map(|listed| checked(store, listed, &room).boxed());
    let mut checks = stream::iter(checks).buffer_unordered(UPKEEP_AT_ONCE);
    let (mut damaged, mut done) = (Vec::new(), 0);
    while let Some(found) = checks.next().await {
        damaged.extend(found?);
        done += 1;
        progress.show("checking", done, stored.len());
    }
    damaged.sort_unstable();
    Ok(damaged)
}

/// What is wrong with a pack, if anything is.
async fn checked(
    store: &ObjectStore,
    listed: &Listed,
    room: &Room,
) -> Result<Option<String>, StoreError> {
    let short = usize::try_from(listed.bytes).ok().filter(|bytes| *bytes <= SHORT_BYTES_MAX);
    let whole = match short {
        None if fault::on("deep-reads-whole") => usize::try_from(listed.bytes).ok(),
        short => short,
    };
    let _room = taken(&room.bytes, short.map_or(LONG_BYTES, |bytes| bytes.max(ROOM_MIN))).await?;
    let sound = match whole {
        Some(bytes) => read_whole(store, &listed.key, bytes).await,
        None => read_in_ranges(store, listed, room).await,
    };
    match sound {
        Ok(()) => Ok(None),
        Err(Unsound::Store(error)) if error.is_transient() => Err(error),
        Err(why) => Ok(Some(format!("{}: {why}", listed.key))),
    }
}

async fn read_whole(store: &ObjectStore, key: &str, bytes: usize) -> Result<(), Unsound> {
    pack::parse(&read(store, key, 0, bytes).await?)?;
    Ok(())
}

async fn read_in_ranges(store: &ObjectStore, listed: &Listed, room: &Room) -> Result<(), Unsound> {
    let Listed { key, bytes, .. } = listed;
    let head = read(store, key, 0, HEAD_BYTES).await?;
    PackHead::parse(&head)?;
    let trailer_at = bytes.saturating_sub(TRAILER_BYTES as u64);
    let footer = Footer::parse(&read(store, key, trailer_at, TRAILER_BYTES).await?, *bytes)?;
    let _alone = match footer.bytes > ENTRIES_BYTES_MAX {
        true => Some(taken(&room.entries, 1).await?),
        false => None,
    };
    let parts = footer.entries(&head, &read(store, key, footer.at, footer.bytes).await?)?;
    let (mut sums, mut at) = (Sums::new(&parts), HEAD_BYTES as u64);
    while at < footer.at {
        let left = usize::try_from(footer.at - at).unwrap_or(usize::MAX);
        let range = read(store, key, at, left.min(RANGE_BYTES)).await?;
        sums.add(&range)?;
        at += range.len() as u64;
    }
    Ok(())
}

/// Bytes of an object. Each question is asked once at a time: a second one beside it would take
/// room that it has not.
async fn read(
    store: &ObjectStore,
    key: &str,
    from: u64,
    bytes: usize,
) -> Result<Bytes, StoreError> {
    Ok(store.get_alone(key, from, bytes).await?.bytes)
}

async fn taken(room: &Semaphore, n: usize) -> Result<SemaphorePermit<'_>, StoreError> {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    room.acquire_many(n).await.map_err(|error| StoreError::Io(io::Error::other(error)))
}

/// Bytes that are held at once.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// A pack takes so much of them at least,
const ROOM_MIN: usize = 64 * 1024;
/// and a long one so much: a range, its entries as they came and as they were read.
const LONG_BYTES: usize = RANGE_BYTES * 2;
/// Longer packs are read in ranges,
const SHORT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// of this length.
const RANGE_BYTES: usize = 8 * 1024 * 1024;
/// Entries of as many values as one request stores.
const ENTRIES_BYTES_MAX: usize = RANGE_BYTES / 2;

#[cfg(test)]
mod tests {
    use protocol_ext::batch::crc32c;
    use protocol_ext::pack::{PackWriter, Part};

    use super::*;
    use crate::config::{Store, StoreKind};
    use crate::store::{Failures, Piece};

    /// A pack of these parts.
    fn packed(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = PackWriter::new(&PackHead {
            pack_id: [1; 16],
            topic_id: [2; 16],
            partition: 0,
            data_key_id: 0,
            written_at_ms: 0,
        });
        let head = writer.head();
        for (bytes, record) in parts.iter().zip(0..) {
            let part = Part {
                offset: 0,
                stored_bytes: u32::try_from(bytes.len()).expect("short"),
                original_bytes: 0,
                stored_crc: crc32c(bytes),
                original_crc: 0,
                record,
                codec: 0,
                filter: 0,
                content_type: 0,
                original_hash: [0; 16],
            };
            writer.add(&part).expect("room");
        }
        [&head[..], &parts.concat(), &writer.footer()].concat()
    }

    #[tokio::test]
    async fn a_changed_byte_is_found_wherever_it_is_in_a_short_pack_and_in_a_long_one() {
        let kind = StoreKind::Memory;
        let config = Store { kind, key_file: None, cache_bytes: 0, shared: None };
        let store = ObjectStore::open(&config, Failures::default()).expect("a store");
        let long = packed(&[vec![3; 10], vec![4; RANGE_BYTES], vec![], vec![5; 1000]]);
        let short = packed(&[vec![3; 10], vec![4; 1000]]);
        assert!(long.len() > SHORT_BYTES_MAX && short.len() < SHORT_BYTES_MAX);
        let mut expected = Vec::new();
        for (name, pack) in [("long", long), ("short", short)] {
            store.put(&format!("{name}-sound"), &[Piece::of(pack.clone())]).await.expect("stored");
            let end = pack.len();
            // In the head, in the first and last part, in an entry and in the trailer.
            for at in [20, 70, end - 300, end - 60, end - 10] {
                let mut other = pack.clone();
                other[at] ^= 1;
                let key = format!("{name}-{at:08}");
                store.put(&key, &[Piece::of(other)]).await.expect("stored");
                expected.push(key);
            }
        }
        let listed = store.list("", "").await.expect("a list");
        let stored = listed.into_iter().map(|listed| (listed.key.clone(), listed)).collect();
        let found = damaged(&store, &stored).await.expect("checked");
        let found: Vec<_> = found.iter().filter_map(|line| line.split(':').next()).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_pack_that_is_gone_or_cut_is_damaged_and_fails_nothing() {
        let kind = StoreKind::Memory;
        let config = Store { kind, key_file: None, cache_bytes: 0, shared: None };
        let store = ObjectStore::open(&config, Failures::default()).expect("a store");
        store.put("cut", &[Piece::of(vec![1; 10])]).await.expect("stored");
        let of = |key: &str, bytes| Listed { key: key.to_owned(), bytes, written_at_ms: 0 };
        let listed = [of("cut", 10), of("cut-long", 1 << 30), of("gone", 10)];
        let stored = listed.into_iter().map(|listed| (listed.key.clone(), listed)).collect();
        assert_eq!(damaged(&store, &stored).await.expect("checked").len(), 3);
    }
}
