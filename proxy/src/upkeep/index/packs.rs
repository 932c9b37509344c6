//! Packs that a log refers to, each with the last offset at which it does.
//!
//! 28 bytes each, in one piece of memory: pack id (16), a number for topic id and partition of its
//! key (4), offset (8). Kept in order as they are added, which costs nothing where one batch refers
//! to one pack. Invariant: of a pack that was added twice the greater offset stays; what is
//! forgotten is forgotten whole (`is_full`), never in part.

use std::collections::HashMap;

use protocol_ext::reference::Reference;

use crate::fault;
use crate::filters::offload::object_key;
use crate::route::topics::TopicId;

/// Whose a pack is, by its key: topic id and partition.
type Owner = (TopicId, u32);
type Entry = [u8; ENTRY_BYTES];

/// The packs.
#[derive(Debug, Default)]
pub struct Packs {
    owners: Vec<Owner>,
    numbers: HashMap<Owner, u32>,
    list: Vec<Entry>,
    /// So many make it worth to look for those that are there twice.
    tidy_at: usize,
    full: bool,
}

impl Packs {
    /// Notes that a batch refers to a pack.
    pub fn add(&mut self, reference: &Reference, last: i64) {
        self.insert(reference.pack_id, (reference.topic_id, reference.partition), last);
    }

    /// The same for entries as they are stored, unless the log begins behind them. `None` if they
    /// cannot be read.
    pub fn take(&mut self, owners: &[u8], entries: &[u8], start: i64) -> Option<()> {
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let entry: &Entry = entry.try_into().ok()?;
            let number = usize::try_from(number(entry)).ok()?;
            let owner = owners.chunks_exact(OWNER_BYTES).nth(number)?;
            let (topic_id, partition) = owner.split_first_chunk()?;
            let partition = u32::from_be_bytes(partition.try_into().ok()?);
            if last(entry) >= start || fault::on("index-never-forgets") {
                self.insert(pack(entry), (*topic_id, partition), last(entry));
            }
        }
        Some(())
    }

    fn insert(&mut self, pack: [u8; 16], owner: Owner, last: i64) {
        let Some(number) = self.number(owner).filter(|_| !self.full) else {
            self.give_up();
            return;
        };
        let mut entry = [0; ENTRY_BYTES];
        entry[..16].copy_from_slice(&pack);
        entry[16..PACK_BYTES].copy_from_slice(&number.to_be_bytes());
        entry[PACK_BYTES..].copy_from_slice(&last.to_be_bytes());
        match self.list.last_mut() {
            Some(before) if before[..PACK_BYTES] == entry[..PACK_BYTES] => {
                *before = entry.max(*before);
            }
            _ => self.list.push(entry),
        }
        if self.list.len() > self.tidy_at {
            self.tidy();
        }
    }

    fn number(&mut self, owner: Owner) -> Option<u32> {
        if let Some(number) = self.numbers.get(&owner) {
            return Some(*number);
        }
        let number = u32::try_from(self.owners.len()).ok().filter(|n| *n < OWNERS_MAX)?;
        self.owners.push(owner);
        self.numbers.insert(owner, number);
        Some(number)
    }

    /// Puts them in order, each once.
    pub fn tidy(&mut self) {
        self.list.sort_unstable();
        self.list.dedup_by(|later, kept| {
            let same = later[..PACK_BYTES] == kept[..PACK_BYTES];
            if same {
                *kept = *later;
            }
            same
        });
        self.tidy_at = tidy_at(self.list.len());
        if self.list.len() > PACKS_MAX {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.full = true;
        self.list = Vec::new();
    }

    /// Whether there were too many, so that none are known.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Forgets those before an offset.
    pub fn forget_before(&mut self, offset: i64) {
        self.list.retain(|entry| last(entry) >= offset);
    }

    /// Keys of the packs of a cluster of this name.
    pub fn objects(&self, cluster: &str) -> impl Iterator<Item = String> {
        self.list.iter().filter_map(move |entry| {
            let (topic_id, partition) = self.owners.get(usize::try_from(number(entry)).ok()?)?;
            Some(object_key(cluster, &pack(entry), topic_id, *partition))
        })
    }

    /// Owners and entries as they are stored; `None` if there were too many.
    pub fn into_bytes(mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.tidy();
        if self.full {
            return None;
        }
        let owner = |(topic_id, partition): &Owner| {
            let mut bytes = topic_id.to_vec();
            bytes.extend_from_slice(&partition.to_be_bytes());
            bytes
        };
        Some((self.owners.iter().flat_map(owner).collect(), self.list.into_flattened()))
    }
}

/// At how many entries to look again, behind a look that left so many.
fn tidy_at(entries: usize) -> usize {
    entries.saturating_mul(2).clamp(TIDY_MIN, LIST_MAX)
}

fn pack(entry: &Entry) -> [u8; 16] {
    let mut pack = [0; 16];
    pack.copy_from_slice(&entry[..16]);
    pack
}

fn number(entry: &Entry) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&entry[16..PACK_BYTES]);
    u32::from_be_bytes(number)
}

fn last(entry: &Entry) -> i64 {
    let mut last = [0; 8];
    last.copy_from_slice(&entry[PACK_BYTES..]);
    i64::from_be_bytes(last)
}

/// Bytes of an entry, and of those that say which pack it is.
pub const ENTRY_BYTES: usize = 28;
const PACK_BYTES: usize = 20;
/// Bytes of an owner: topic id and partition.
pub const OWNER_BYTES: usize = 20;
/// Most packs of one log: 450 MiB. What refers to more has no index.
pub const PACKS_MAX: usize = 1 << 24;
/// Most entries that are held before those that are there twice are looked for.
const LIST_MAX: usize = PACKS_MAX + PACKS_MAX / 8;
/// Most owners of its packs. One, as a rule: more where values look like references.
pub const OWNERS_MAX: u32 = 1 << 16;
/// It does not pay to look for packs that are there twice among fewer.
const TIDY_MIN: usize = 1 << 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(packs: Packs) -> Vec<(u8, i64)> {
        let (_, entries) = packs.into_bytes().expect("not too many");
        let entries = entries.chunks_exact(ENTRY_BYTES);
        entries.map(|e| (e[0], last(e.try_into().expect("an entry")))).collect()
    }

    #[test]
    fn of_a_pack_the_last_offset_stays() {
        let mut packs = Packs::default();
        let owner = ([1; 16], 0);
        for (pack, last) in [(9, 1), (9, 2), (3, 4), (9, 5), (3, 4), (9, 3)] {
            packs.insert([pack; 16], owner, last);
        }
        assert_eq!(all(packs), [(3, 4), (9, 5)]);
        let mut packs = Packs::default();
        for n in 0..3 * i64::try_from(TIDY_MIN).expect("small") {
            packs.insert([u8::try_from(n % 7).expect("small"); 16], owner, n);
        }
        assert!(packs.list.len() <= TIDY_MIN, "{}", packs.list.len());
        assert_eq!(all(packs).len(), 7);
    }

    #[test]
    fn entries_that_are_held_are_bounded() {
        assert_eq!([tidy_at(0), tidy_at(TIDY_MIN)], [TIDY_MIN, 2 * TIDY_MIN]);
        assert_eq!([tidy_at(PACKS_MAX), tidy_at(usize::MAX)], [LIST_MAX; 2]);
        assert!((PACKS_MAX + 1..PACKS_MAX / 4 * 5).contains(&tidy_at(PACKS_MAX)));
    }

    #[test]
    fn too_many_owners_are_forgotten_whole() {
        let mut packs = Packs::default();
        for partition in 0..=OWNERS_MAX {
            assert!(!packs.is_full(), "{partition}");
            packs.insert([0; 16], ([1; 16], partition), 1);
        }
        packs.insert([0; 16], ([1; 16], 0), 1);
        assert!(packs.is_full() && packs.objects("c").next().is_none());
        assert!(packs.into_bytes().is_none());
    }

    #[test]
    fn owners_of_nothing_are_not_stored_again() {
        let mut packs = Packs::default();
        packs.insert([5; 16], ([1; 16], 0), 10);
        packs.insert([4; 16], ([2; 16], 3), 20);
        packs.insert([4; 16], ([1; 16], 0), 30);
        let (owners, entries) = packs.into_bytes().expect("few");
        let mut later = Packs::default();
        later.take(&owners, &entries, 15).expect("sound");
        let objects: Vec<_> = later.objects("c").collect();
        let expected = [([2; 16], 3), ([1; 16], 0)];
        let expected = expected.map(|(topic, n)| object_key("c", &[4; 16], &topic, n));
        assert!(expected.iter().all(|key| objects.contains(key)) && objects.len() == 2);
        assert_eq!(later.owners.len(), 2);
        let mut last = Packs::default();
        last.take(&owners, &entries, 25).expect("sound");
        assert_eq!(last.owners, [([1; 16], 0)]);
        assert!(Packs::default().take(&owners[20..], &entries, 0).is_none(), "no such owner");
    }
}
