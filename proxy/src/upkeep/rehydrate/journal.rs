//! What is about to be written to a copy, noted in the store before it is: where to go on after
//! any end.
//!
//! A note names batches by their number of records. Batches are written one after the other and
//! each is there whole or not at all, so the end of the copy tells which of them are. Invariant: a
//! copy whose end is none of those that its last note foresees was written to by somebody else; and
//! of two runs at once at most one writes a note, since notes that it does not know stop the other.

use protocol_ext::split::ProducerFields;
use serde::{Deserialize, Serialize};

use super::Place;
use crate::store::{ObjectStore, Piece, StoreError};
use crate::upkeep::log::Partition;
use crate::upkeep::scope::hex;
use crate::{clock, random};

/// Batches that are about to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Offset in the copy of the first of them.
    target: i64,
    /// Offset in the log to go on at if none of them is there.
    source: i64,
    /// Id, epoch and sequence of the producer that writes them.
    producer: (i64, i16, i32),
    /// Records of each, and the offset in the log to go on at behind it.
    batches: Vec<(i32, i64)>,
}

impl Note {
    /// A note of what follows from a place on.
    pub fn new(from: &Place, batches: Vec<(i32, i64)>) -> Self {
        let ProducerFields { id, epoch, base_sequence } = from.producer;
        let (source, target) = (from.source, from.target);
        Self { target, source, producer: (id, epoch, base_sequence), batches }
    }

    /// Whether a copy that ends there has lost what was in it before.
    pub fn is_behind(&self, end: i64) -> bool {
        end < self.target
    }

    /// Where to go on if the copy ends there; `None` if it cannot by these batches alone.
    pub fn place(&self, end: i64) -> Option<Place> {
        let (id, epoch, base_sequence) = self.producer;
        let producer = ProducerFields { id, epoch, base_sequence };
        let mut place = Place { source: self.source, target: self.target, producer };
        let mut left = self.batches.iter();
        while place.target != end {
            let (records, next) = left.next()?;
            place.pass(*records, *next);
        }
        Some(place)
    }
}

/// The notes about one partition of a copy.
#[derive(Debug)]
pub struct Journal<'a> {
    store: &'a ObjectStore,
    folder: String,
    /// Keys of the notes that were read or written here.
    known: Vec<String>,
}

impl<'a> Journal<'a> {
    /// That of a partition and the partition of its copy.
    pub fn new(
        store: &'a ObjectStore,
        cluster: &str,
        source: &Partition,
        target: &Partition,
    ) -> Self {
        let (from, to) = (hex(&source.topic_id), hex(&target.topic_id));
        let folder = format!("{NOTES}{cluster}/{from}/{to}/{}/", source.partition);
        Self { store, folder, known: Vec::new() }
    }

    /// The last note, if there is any.
    pub async fn last(&mut self) -> Result<Option<Note>, StoreError> {
        let listed = self.listed().await?;
        self.known = listed.iter().map(|(key, _)| key.clone()).collect();
        let Some((key, bytes)) = listed.into_iter().last() else { return Ok(None) };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let text = self.store.get(&key, 0, bytes).await?.bytes;
        let wrong = |error| StoreError::Garbled(format!("{key}: {error}"));
        serde_json::from_slice(&text).map(Some).map_err(wrong)
    }

    /// Keeps a note for good, in the place of those before. False if another run wrote one
    /// meanwhile: then nothing may be written to the copy.
    pub async fn put(&mut self, note: &Note) -> Result<bool, StoreError> {
        if !self.is_alone().await? {
            return Ok(false);
        }
        let (ms, id) = (clock::unix_ms(), hex(&random::id()));
        let key = format!("{}{:020}-{ms:020}-{id}", self.folder, note.target);
        let text = serde_json::json!(note).to_string();
        self.store.put(&key, &[Piece::of(text)]).await?;
        self.known.push(key.clone());
        // Of two that put one at once the later sees the other's, and takes its own back.
        if !self.is_alone().await? {
            self.store.delete(&key).await?;
            return Ok(false);
        }
        while self.known.len() > 1 {
            self.store.delete(&self.known.remove(0)).await?;
        }
        Ok(true)
    }

    /// Whether all notes are known.
    async fn is_alone(&self) -> Result<bool, StoreError> {
        let listed = self.listed().await?;
        Ok(listed.iter().all(|(key, _)| self.known.contains(key)))
    }

    /// Keys and lengths of all notes, in order.
    async fn listed(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found: Vec<(String, u64)> = Vec::new();
        loop {
            let after = found.last().map_or(String::new(), |(key, _)| key.clone());
            let page = self.store.list(&self.folder, &after).await?;
            if page.is_empty() {
                return Ok(found);
            }
            found.extend(page.into_iter().map(|listed| (listed.key, listed.bytes)));
        }
    }
}

/// Where notes are kept.
const NOTES: &str = "upkeep/v1/rehydrate/";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Store, StoreKind};
    use crate::store::Failures;

    fn note() -> Note {
        let producer = ProducerFields { id: 9, epoch: 0, base_sequence: i32::MAX - 1 };
        let from = Place { source: 100, target: 7, producer };
        Note::new(&from, vec![(3, 110), (2, 120)])
    }

    #[test]
    fn the_end_of_the_copy_tells_which_batches_are_in_it() {
        let at = |end| note().place(end).map(|p| (p.source, p.target, p.producer.base_sequence));
        assert_eq!(at(7), Some((100, 7, i32::MAX - 1)));
        // Sequences go on at 0.
        assert_eq!(at(10), Some((110, 10, 1)));
        assert_eq!(at(12), Some((120, 12, 3)));
    }

    #[test]
    fn an_end_between_two_batches_before_or_behind_them_is_somebody_elses() {
        for end in [0, 6, 8, 9, 11, 13] {
            assert_eq!(note().place(end).map(|place| place.source), None, "{end}");
        }
    }

    /// Two runs begin at once, from nothing or from the same note: each step of theirs is one of
    /// reading, and one of writing.
    #[tokio::test]
    async fn of_two_runs_at_once_only_one_goes_on() {
        let kind = StoreKind::Memory;
        let config = Store { kind, key_file: None, cache_bytes: 0, shared: None };
        let store = ObjectStore::open(&config, Failures::default()).expect("a store");
        let (topic, topic_id) = ("t".to_owned(), [1; 16]);
        let at = Partition { topic, topic_id, partition: 0, replicas: 1, leader: 0 };
        let mut runs = [(); 2].map(|()| Journal::new(&store, "c", &at, &at));
        for begun in [false, true] {
            for run in &mut runs {
                assert_eq!(run.last().await.expect("read").is_some(), begun);
            }
            assert!(runs[0].put(&note()).await.expect("put"), "the first");
            assert!(!runs[1].put(&note()).await.expect("put"), "the second");
            assert!(runs[0].put(&note()).await.expect("put"), "the first goes on");
        }
        assert_eq!(runs[0].listed().await.expect("list").len(), 1);
    }

    #[test]
    fn a_note_reads_back_as_it_was_written() {
        let text = serde_json::json!(note()).to_string();
        assert_eq!(serde_json::from_str::<Note>(&text).expect("a note"), note());
    }
}
