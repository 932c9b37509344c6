//! Memory of long frames and values, used again.
//!
//! What an allocator gets back in such lengths it gives back to the system, which clears each page
//! anew when it is touched again: for frames and values of images that is a third of all CPU. Some
//! of it is kept here instead: taken -> filled -> frozen -> given back by whoever drops it last.
//! Invariants: nothing is kept for longer than it takes to be seen unused twice; what is taken is
//! at most a 32nd longer than what was asked for: caches weigh values by their own length, and a
//! little more is allowed for the memory that they are in (`store/cache.rs`).

use std::collections::VecDeque;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

/// Shorter memory is the allocator's business.
const LONG_BYTES: usize = 128 * 1024;
/// Memory that is used again is longer than was asked for by this part at most.
const SLACK_SHARE: usize = 32;
/// Most pieces that are kept.
const PIECES_MAX: usize = 64;
/// Longest piece that is kept, as a part of all that may be.
const SHARE: usize = 2;

/// Time between two looks at what is unused.
const LOOK: Duration = Duration::from_secs(5);
/// What may be kept, as a part of what requests and answers may hold.
const KEPT_SHARE: usize = 8;
/// The most that is kept, whatever that part is.
const KEPT_MAX: usize = 16 << 20;

static KEPT: Mutex<Kept> = Mutex::new(Kept { pieces: VecDeque::new(), bytes: 0, looks: 0 });
static BYTES_MAX: AtomicUsize = AtomicUsize::new(0);

/// Memory that nobody uses, the longest unused first.
struct Kept {
    /// With the number of looks when each was given back.
    pieces: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    looks: u64,
}

impl Kept {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let most = bytes + bytes / SLACK_SHARE;
        let fits = |(_, piece): &(u64, Vec<u8>)| (bytes..=most).contains(&piece.capacity());
        let at = self.pieces.iter().rposition(fits)?;
        let (_, piece) = self.pieces.remove(at)?;
        self.bytes -= piece.capacity();
        Some(piece)
    }

    /// Keeps a piece; gives what is not kept any more.
    fn give(&mut self, piece: Vec<u8>, bytes_max: usize) -> Vec<Vec<u8>> {
        if piece.capacity() > bytes_max / SHARE {
            return vec![piece];
        }
        self.bytes += piece.capacity();
        self.pieces.push_back((self.looks, piece));
        let mut gone = Vec::new();
        while self.bytes > bytes_max || self.pieces.len() > PIECES_MAX {
            gone.extend(self.pop());
        }
        gone
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, piece) = self.pieces.pop_front()?;
        self.bytes -= piece.capacity();
        Some(piece)
    }

    /// Gives what was unused at the last look, too.
    fn look(&mut self) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        while self.pieces.front().is_some_and(|(since, _)| *since < self.looks) {
            gone.extend(self.pop());
        }
        self.looks += 1;
        gone
    }
}

/// Has as much kept from now on as goes with a budget of so many bytes for requests and answers.
pub fn keep_for(budget: usize) {
    BYTES_MAX.store((budget / KEPT_SHARE).min(KEPT_MAX), Ordering::Relaxed);
}

/// Lets go what is unused, for ever; dropped at shutdown.
pub async fn let_go() {
    loop {
        tokio::time::sleep(LOOK).await;
        let gone = KEPT.lock().look();
        // Not under the lock.
        drop(gone);
    }
}

/// Memory to fill.
#[derive(Debug)]
pub struct Memory(Vec<u8>);

impl Memory {
    /// Room for so many bytes, empty.
    pub fn new(bytes: usize) -> Self {
        let kept = (bytes >= LONG_BYTES).then(|| KEPT.lock().take(bytes)).flatten();
        Self(kept.unwrap_or_else(|| Vec::with_capacity(bytes)))
    }

    /// What it was filled with. The memory is used again once nobody holds any of it.
    pub fn freeze(mut self) -> Bytes {
        match self.0.capacity() {
            LONG_BYTES.. => Bytes::from_owner(self),
            _ => Bytes::from(mem::take(&mut self.0)),
        }
    }
}

impl Deref for Memory {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.0.capacity() >= LONG_BYTES {
            let mut piece = mem::take(&mut self.0);
            piece.clear();
            let gone = KEPT.lock().give(piece, BYTES_MAX.load(Ordering::Relaxed));
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1_000_000;

    fn none() -> Kept {
        Kept { pieces: VecDeque::new(), bytes: 0, looks: 0 }
    }

    fn piece(bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }

    #[test]
    fn what_is_given_back_is_taken_again_by_who_needs_about_as_much() {
        let mut kept = none();
        assert!(kept.give(piece(MB), 8 * MB).is_empty());
        assert!(kept.take(MB + 1).is_none(), "too short");
        assert!(kept.take(MB * 24 / 25).is_none(), "too long");
        assert_eq!(kept.take(MB * 49 / 50).map(|piece| piece.capacity()), Some(MB));
        assert!(kept.take(MB).is_none(), "it is in use");
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut kept = none();
        assert_eq!(kept.give(piece(4 * MB + 1), 8 * MB).len(), 1, "a half at most");
        let gone: usize = (0..20).map(|_| kept.give(piece(MB), 8 * MB).len()).sum();
        assert_eq!((gone, kept.bytes), (12, 8 * MB));
        let gone: usize = (0..100).map(|_| kept.give(piece(1), 8 * MB).len()).sum();
        assert!(kept.pieces.len() == PIECES_MAX && gone > 0, "{gone} gone");
    }

    #[test]
    fn what_is_unused_for_long_is_let_go() {
        let mut kept = none();
        kept.give(piece(MB), 8 * MB);
        assert!(kept.look().is_empty(), "given back since the last look");
        kept.give(piece(2 * MB), 8 * MB);
        assert_eq!(kept.look().len(), 1);
        assert_eq!(kept.bytes, 2 * MB);
        assert_eq!(kept.look().len(), 1);
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn frozen_memory_holds_what_it_was_filled_with() {
        for bytes in [10, LONG_BYTES, 3 * LONG_BYTES] {
            let mut memory = Memory::new(bytes);
            memory.extend_from_slice(&vec![7; bytes]);
            let frozen = memory.freeze();
            let part = frozen.slice(bytes / 2..);
            drop(frozen);
            assert_eq!(part, vec![7; bytes - bytes / 2]);
        }
    }
}
