//! What of an answer is taken: of the bytes that a client wants, of a partition's, and of memory.

use protocol_ext::codec::Codec;

use super::fetch::Referring;
use super::inflation::Seen;
use crate::fault;
use crate::limits::RESTORING_BYTES;

/// What the batches of one response take so far.
#[derive(Default)]
pub(super) struct Spent {
    /// Of the client's budget, and that.
    left: usize,
    all: usize,
    /// Whether any batch is taken.
    has_any: bool,
    /// What is wanted of the partition, and left of it; `None` before anything of it is taken.
    partition: (usize, Option<usize>),
    /// Of memory.
    pub room: usize,
    /// Whether a batch is held that was inflated.
    pub holds_opened: bool,
    /// What was looked at of the partition.
    pub seen: Seen,
}

impl Spent {
    /// Nothing yet, of so many bytes.
    pub fn new(all: usize) -> Self {
        Self { left: all, all, ..Self::default() }
    }

    /// Goes on to a partition of which so many bytes are wanted.
    pub fn enter(&mut self, partition_bytes: usize) {
        self.partition = (partition_bytes, None);
        self.seen = Seen::default();
    }

    /// Whether so many bytes more of the partition are wanted. Its first batch is, whatever it is.
    fn wants(&self, bytes: usize) -> bool {
        let beyond = self.partition.1.is_some_and(|left| bytes > left);
        !beyond || fault::on("partition-bytes-ignored")
    }

    fn take(&mut self, bytes: usize) {
        self.has_any = true;
        self.left = self.left.saturating_sub(bytes);
        let (all, left) = self.partition;
        self.partition.1 = Some(left.unwrap_or(all).saturating_sub(bytes));
    }

    /// Whether a batch that stays as it is still fits, beside values that the broker does not know
    /// of.
    pub fn pass(&mut self, bytes: usize) -> bool {
        self.seen.add(bytes, bytes);
        let fits = bytes <= self.left && self.wants(bytes);
        let fits = fits || self.room == 0 || fault::on("plain-bytes-uncounted");
        if fits && !fault::on("plain-bytes-uncounted") {
            self.take(bytes);
        }
        fits
    }

    /// Whether a batch that refers still fits. The first one of the response always does. One whose
    /// topic has readers go on `without` values may be built anew.
    pub fn admit(&mut self, batch: &Referring, without: bool) -> bool {
        let need = batch.original_bytes;
        let log_bytes = batch.open.batch.raw().len();
        let bytes = need + log_bytes;
        self.seen.add(log_bytes, bytes);
        // One that never fits comes as the first that refers.
        let first = self.room == 0 && (!self.has_any || bytes > self.all);
        let fits = bytes <= self.left && self.wants(bytes);
        if !fits && !first && !fault::on("budget-ignored") {
            return false;
        }
        self.take(bytes);
        // What is compressed is built anew beside its values; else values are not copied.
        let whole = batch.open.batch.codec() == Codec::None && !without;
        let copies = if whole { 1 } else { 3 };
        self.room += need * copies + batch.references.len() * RESTORING_BYTES;
        self.holds_opened |= batch.open.room.is_some();
        true
    }
}
