//! The way over a records section, entry by entry.
//!
//! Invariant: legacy message sets and the cut last batch of a Fetch answer are told apart from
//! damage, so that they pass opaque.

use std::ops::Range;

use super::{BatchError, BatchHeader, HEADER_BYTES, LENGTH, LOG_OVERHEAD, MAGIC, field};

/// Smallest message of the old format: CRC, magic, attributes, two null lengths.
const LEGACY_BYTES_MIN: usize = 14;

/// One entry of a records section; ranges count from the section's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A whole v2 batch.
    Batch {
        /// Where it lies.
        range: Range<usize>,
        /// Its head.
        header: BatchHeader,
    },
    /// A whole message (or wrapper message) of the old formats, magic 0 or 1.
    Legacy {
        /// Where it lies.
        range: Range<usize>,
    },
    /// A batch that goes on behind the end: legal as the last of a Fetch answer.
    Partial {
        /// What is there of it.
        range: Range<usize>,
    },
}

/// Iterator over the entries of a records section. Stops after an error or a `Partial`.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    section: &'a [u8],
    pos: usize,
}

impl<'a> Batches<'a> {
    /// Entries of `section`, the bytes of a Produce or Fetch partition's records field.
    pub fn new(section: &'a [u8]) -> Batches<'a> {
        Batches { section, pos: 0 }
    }

    fn entry(&self) -> Result<Entry, BatchError> {
        let rest = &self.section[self.pos..];
        let partial = Entry::Partial { range: self.pos..self.section.len() };
        let Some(head) = rest.first_chunk::<{ MAGIC + 1 }>() else {
            return Ok(partial);
        };
        let length = i32::from_be_bytes(field(head, LENGTH.start));
        let wire_len = usize::try_from(length).map_err(|_| BatchError::Length(length))?;
        let wire_len = wire_len + LOG_OVERHEAD;
        let smallest = match head[MAGIC] {
            0 | 1 => LOG_OVERHEAD + LEGACY_BYTES_MIN,
            2 => HEADER_BYTES,
            other => return Err(BatchError::Magic(other.cast_signed())),
        };
        if wire_len < smallest {
            return Err(BatchError::Length(length));
        }
        if wire_len > rest.len() {
            return Ok(partial);
        }
        let range = self.pos..self.pos + wire_len;
        if head[MAGIC] == 2 {
            Ok(Entry::Batch { range, header: BatchHeader::parse(rest)? })
        } else {
            Ok(Entry::Legacy { range })
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Entry, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.section.len() {
            return None;
        }
        let entry = self.entry();
        self.pos = match &entry {
            Ok(Entry::Batch { range, .. } | Entry::Legacy { range }) => range.end,
            Ok(Entry::Partial { .. }) | Err(_) => self.section.len(),
        };
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(length: u32, magic: u8, len: usize) -> Result<Entry, BatchError> {
        let mut section = vec![0; len];
        section[8..12].copy_from_slice(&length.to_be_bytes());
        section[16] = magic;
        let mut entries = Batches::new(&section);
        let first = entries.next().unwrap();
        assert!(entries.next().is_none());
        first
    }

    #[test]
    fn damage_is_not_taken_for_a_cut_batch() {
        assert_eq!(entry(u32::MAX, 2, 100), Err(BatchError::Length(-1)));
        assert_eq!(entry(48, 2, 60), Err(BatchError::Length(48)));
        assert_eq!(entry(13, 1, 25), Err(BatchError::Length(13)));
        assert_eq!(entry(88, 9, 100), Err(BatchError::Magic(9)));
    }

    #[test]
    fn a_cut_batch_or_message_is_not_taken_for_damage() {
        let partial = |len| Ok(Entry::Partial { range: 0..len });
        assert_eq!(entry(89, 2, 100), partial(100));
        assert_eq!(entry(i32::MAX.cast_unsigned(), 0, 30), partial(30));
        assert_eq!(Batches::new(&[0xff; 16]).next(), Some(partial(16)));
    }
}
