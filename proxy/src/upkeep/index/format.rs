//! An index as it lies in the store: what it was made of, and the packs that are referred to.
//!
//! Head (108 bytes) | whose packs, by topic id and partition (20 bytes each) | packs (28 bytes
//! each, see `packs`) | CRC-32C of all before it; numbers are big endian. Invariant: nothing of an
//! index is used unless its length is what its head says, its CRC fits, its head is about this log,
//! and its writer took the same values for references.

use protocol_ext::batch::{BatchHeader, crc32c, crc32c_appended, crc32c_joined};
use protocol_ext::reference::{REFERENCE_FLAGS, REFERENCE_VERSION};

use super::packs::{ENTRY_BYTES, OWNER_BYTES, OWNERS_MAX, PACKS_MAX, Packs};
use crate::fault;
use crate::route::topics::TopicId;
use crate::store::{Listed, ObjectStore, Piece, StoreError};

/// Why an index is not used.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// Its bytes are not what was written.
    #[error("it is damaged")]
    Damaged,
    /// Another version wrote it.
    #[error("it is of version {0}")]
    Version(u8),
    /// Its writer knew other references.
    #[error("it was made of references of version {0}")]
    References(u8),
    /// Its writer knew other flags of references.
    #[error("it was made of references with the flags {0:#04x}")]
    Flags(u8),
    /// It is another cluster's.
    #[error("it is another cluster's")]
    Cluster,
    /// It is another log's.
    #[error("it is another topic's or partition's")]
    Log,
    /// The log begins where nothing is known of it.
    #[error("the log begins at {now}, and at {then} when it was read")]
    Start {
        /// Its first offset.
        now: i64,
        /// What that was.
        then: i64,
    },
    /// The log lost its end.
    #[error("the log ends at {now} and was read up to {then}")]
    End {
        /// Its end.
        now: i64,
        /// What was read.
        then: i64,
    },
    /// The log was changed below the end.
    #[error("the batch before offset {0} is another one than was read")]
    Batch(i64),
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A batch, as it is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its first offset.
    pub first: i64,
    /// The epoch of the leader that took it.
    pub epoch: i32,
    /// Its CRC.
    pub crc: u32,
}

impl Mark {
    /// That of a batch.
    pub fn of(batch: &BatchHeader) -> Self {
        Self { first: batch.base_offset, epoch: batch.partition_leader_epoch, crc: batch.crc }
    }

    /// Whether this is that batch.
    pub fn is(&self, batch: &BatchHeader) -> bool {
        let other = Self::of(batch);
        let same_epoch = self.epoch == other.epoch || fault::on("index-epoch-ignored");
        self.first == other.first && self.crc == other.crc && same_epoch
    }
}

/// A log as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// SHA-256 of its cluster's id.
    pub cluster: [u8; 32],
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its partition.
    pub partition: i32,
    /// Its first offset.
    pub start: i64,
    /// The offset behind what every replica in sync has.
    pub end: i64,
}

/// What an index was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The log as it was; its end is where its last batch ended that was read.
    pub log: Log,
    /// That batch.
    pub last: Mark,
    /// The version of the references that its writer knew.
    references: u8,
    /// The flags of references that its writer knew.
    flags: u8,
    owners: u32,
    packs: u64,
}

impl Head {
    /// That of a log that was read, without packs.
    pub fn new(log: Log, last: Mark) -> Self {
        let (references, flags) = (REFERENCE_VERSION, REFERENCE_FLAGS);
        Self { log, last, references, flags, owners: 0, packs: 0 }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Doubt> {
        let head: &[u8; HEAD_BYTES] = bytes.try_into().map_err(|_| Doubt::Damaged)?;
        if head[..MAGIC.len()] != MAGIC {
            return Err(Doubt::Damaged);
        }
        let version = head[MAGIC.len()];
        if version != VERSION {
            return Err(Doubt::Version(version));
        }
        let log = Log {
            partition: i32::from_be_bytes(field(head, 12)),
            cluster: field(head, 16),
            topic_id: field(head, 48),
            start: i64::from_be_bytes(field(head, 64)),
            end: i64::from_be_bytes(field(head, 72)),
        };
        let last = Mark {
            first: i64::from_be_bytes(field(head, 80)),
            epoch: i32::from_be_bytes(field(head, 88)),
            crc: u32::from_be_bytes(field(head, 92)),
        };
        let packs = u64::from_be_bytes(field(head, 96));
        let owners = u32::from_be_bytes(field(head, 104));
        if packs > PACKS_MAX as u64 || owners > OWNERS_MAX {
            return Err(Doubt::Damaged);
        }
        Ok(Self { log, last, references: head[8], flags: head[9], owners, packs })
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { log, last, references, flags, owners, packs } = self;
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, *references, *flags, 0, 0]);
        out.extend_from_slice(&log.partition.to_be_bytes());
        out.extend_from_slice(&log.cluster);
        out.extend_from_slice(&log.topic_id);
        out.extend_from_slice(&log.start.to_be_bytes());
        out.extend_from_slice(&log.end.to_be_bytes());
        out.extend_from_slice(&last.first.to_be_bytes());
        out.extend_from_slice(&last.epoch.to_be_bytes());
        out.extend_from_slice(&last.crc.to_be_bytes());
        out.extend_from_slice(&packs.to_be_bytes());
        out.extend_from_slice(&owners.to_be_bytes());
        out
    }

    /// Bytes of the whole index.
    fn index_bytes(&self) -> u64 {
        let owners = u64::from(self.owners) * OWNER_BYTES as u64;
        HEAD_BYTES as u64 + owners + self.packs * ENTRY_BYTES as u64 + CRC_BYTES as u64
    }

    /// Fails unless it was made of this log and by who knew the same references.
    fn check(&self, now: &Log) -> Result<(), Doubt> {
        let then = &self.log;
        let same_topic =
            then.topic_id == now.topic_id || fault::on("index-trusted-after-recreation");
        if self.references != REFERENCE_VERSION {
            Err(Doubt::References(self.references))
        } else if self.flags != REFERENCE_FLAGS {
            Err(Doubt::Flags(self.flags))
        } else if then.cluster != now.cluster {
            Err(Doubt::Cluster)
        } else if then.partition != now.partition || !same_topic {
            Err(Doubt::Log)
        } else if now.start < then.start && !fault::on("index-start-ignored") {
            Err(Doubt::Start { now: now.start, then: then.start })
        } else if now.end < then.end {
            Err(Doubt::End { now: now.end, then: then.end })
        } else {
            Ok(())
        }
    }
}

/// An index as it is stored; `None` if it would be too long.
pub fn pieces(mut head: Head, packs: Packs) -> Option<Vec<Piece>> {
    let (owners, packs) = packs.into_bytes()?;
    head.owners = u32::try_from(owners.len() / OWNER_BYTES).ok()?;
    head.packs = (packs.len() / ENTRY_BYTES) as u64;
    let front = Piece::of([head.bytes(), owners].concat());
    let mut pieces = vec![front];
    // A piece of no bytes is none.
    pieces.extend((!packs.is_empty()).then(|| Piece::of(packs)));
    let join = |crc, piece: &Piece| crc32c_joined(crc, piece.crc, piece.bytes.len() as u64);
    let crc = pieces.iter().fold(0, join);
    pieces.push(Piece::of(crc.to_be_bytes().to_vec()));
    Some(pieces)
}

/// Reads an index of the log as that is `now`, without the packs that only offsets refer to which
/// the log does not have any more. `None` if it has none of those that the index was made of.
pub async fn load(
    store: &ObjectStore,
    listed: &Listed,
    now: &Log,
) -> Result<Option<(Head, Packs)>, Doubt> {
    let key = &listed.key;
    if listed.bytes < (HEAD_BYTES + CRC_BYTES) as u64 {
        return Err(Doubt::Damaged);
    }
    let bytes = store.get(key, 0, HEAD_BYTES).await?.bytes;
    let head = Head::parse(&bytes)?;
    let mut crc = crc32c(&bytes);
    head.check(now)?;
    if head.index_bytes() != listed.bytes {
        return Err(Doubt::Damaged);
    }
    if head.log.end <= now.start {
        return Ok(None);
    }
    let mut at = HEAD_BYTES as u64;
    let owners = usize::try_from(head.owners).unwrap_or(usize::MAX).saturating_mul(OWNER_BYTES);
    let owners = store.get(key, at, owners).await?.bytes;
    crc = crc32c_appended(crc, &owners);
    at += owners.len() as u64;
    let mut packs = Packs::default();
    let mut left = usize::try_from(head.packs).unwrap_or(usize::MAX);
    while left > 0 {
        let n = left.min(PACKS_AT_ONCE);
        let bytes = store.get(key, at, n * ENTRY_BYTES).await?.bytes;
        crc = crc32c_appended(crc, &bytes);
        at += bytes.len() as u64;
        left -= n;
        packs.take(&owners, &bytes, now.start).ok_or(Doubt::Damaged)?;
    }
    let written = store.get(key, at, CRC_BYTES).await?.bytes;
    if written[..] != crc.to_be_bytes() && !fault::on("index-trusted-when-damaged") {
        return Err(Doubt::Damaged);
    }
    packs.tidy();
    if packs.is_full() {
        // None of them is known then, and the log would seem to refer to nothing.
        return Err(Doubt::Damaged);
    }
    Ok(Some((head, packs)))
}

fn field<const N: usize>(head: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&head[at..at + N]);
    out
}

/// How every index begins.
const MAGIC: [u8; 7] = *b"FBINDEX";
/// The version that is written and read here.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 108;
const CRC_BYTES: usize = 4;
/// Packs read at once: 7 MiB.
const PACKS_AT_ONCE: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use protocol_ext::reference::Reference;

    use super::*;
    use crate::config::{Store, StoreKind};
    use crate::store::Failures;

    const LOG: Log = Log { cluster: [3; 32], topic_id: [7; 16], partition: 2, start: 5, end: 90 };
    const LAST: Mark = Mark { first: 88, epoch: 4, crc: 0xfeed_beef };

    fn store() -> ObjectStore {
        let kind = StoreKind::Memory;
        let config = Store { kind, key_file: None, cache_bytes: 0, shared: None };
        ObjectStore::open(&config, Failures::default()).expect("a store")
    }

    /// Packs 0 to `n`, each of the batch that ends at its number and 10 offsets behind.
    fn packs(n: u8) -> Packs {
        let mut packs = Packs::default();
        for pack in 0..n {
            let reference = Reference {
                flags: 0,
                store_alias: 0,
                codec: 0,
                filter: 0,
                content_type: 0,
                shard: 0,
                written_at_ms: 0,
                stored_bytes: 1,
                original_bytes: 1,
                original_crc: 0,
                pack_offset: 0,
                data_key_id: 0,
                partition: u32::from(pack % 3),
                pack_id: [pack; 16],
                topic_id: [7; 16],
                original_hash: [0; 16],
            };
            packs.add(&reference, i64::from(pack) + 10);
        }
        packs
    }

    fn whole(packs: Packs) -> Vec<u8> {
        let pieces = pieces(Head::new(LOG, LAST), packs).expect("short");
        pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    /// What is read of these bytes as an index of that log: keys of packs, or why none are.
    async fn read(bytes: &[u8], now: &Log) -> Result<Option<Vec<String>>, String> {
        let store = store();
        store.put("x", &[Piece::of(bytes.to_vec())]).await.expect("stored");
        let listed = store.look("x").await.expect("there");
        let read = load(&store, &listed, now).await.map_err(|doubt| doubt.to_string())?;
        Ok(read.map(|(head, packs)| {
            assert_eq!((head.log, head.last), (LOG, LAST));
            packs.objects("c").collect()
        }))
    }

    #[tokio::test]
    async fn an_index_reads_back_without_what_is_gone() {
        let bytes = whole(packs(20));
        assert_eq!(bytes.len(), HEAD_BYTES + 3 * OWNER_BYTES + 20 * ENTRY_BYTES + CRC_BYTES);
        let all = read(&bytes, &LOG).await.expect("sound").expect("packs");
        assert_eq!(all, packs(20).objects("c").collect::<Vec<_>>());
        let (topic, pack) = ("07".repeat(16), "04".repeat(16));
        assert_eq!(all[4], format!("v1/04/c/{topic}/1/{pack}"));
        let later = Log { start: 25, end: 200, ..LOG };
        let left = read(&bytes, &later).await.expect("sound").expect("packs");
        assert_eq!(left, all[15..]);
        let gone = Log { start: 90, ..later };
        assert_eq!(read(&bytes, &gone).await, Ok(None));
        let none = read(&whole(Packs::default()), &LOG).await;
        assert_eq!(none, Ok(Some(Vec::new())));
    }

    #[tokio::test]
    async fn any_other_byte_is_damage_and_another_log_is_told() {
        let bytes = whole(packs(4));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged, &LOG).await.is_err(), "byte {at}");
        }
        for cut in [0, 4, HEAD_BYTES, bytes.len() - 1] {
            assert!(read(&bytes[..cut], &LOG).await.is_err(), "{cut} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(read(&longer, &LOG).await, Err("it is damaged".to_owned()));
        let others = [
            (Log { cluster: [4; 32], ..LOG }, "cluster"),
            (Log { topic_id: [8; 16], ..LOG }, "topic's or"),
            (Log { partition: 3, ..LOG }, "topic's or"),
            (Log { start: 4, ..LOG }, "begins at 4"),
            (Log { end: 89, ..LOG }, "ends at 89"),
        ];
        for (now, why) in others {
            let doubt = read(&bytes, &now).await.expect_err(why);
            assert!(doubt.contains(why), "{doubt}");
        }
        for (field, why) in [(0, "version 9"), (1, "references of"), (2, "the flags 0x09")] {
            let mut newer = bytes.clone();
            newer[MAGIC.len() + field] = 9;
            let doubt = read(&newer, &LOG).await.expect_err(why);
            assert!(doubt.contains(why), "{doubt}");
        }
    }
}
