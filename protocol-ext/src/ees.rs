//! Epoch-encoded sequences (EES): exactly-once for a producer whose batches are split over several
//! physical partitions, by what brokers know of producers anyway.
//!
//! A client batch with base sequence `s` is written to every physical partition that gets records
//! of it as "a new epoch that starts at 0": [`StreamId::fields`] packs who wrote it and `s` into
//! producer id and epoch. [`Stream`] says which batches may be written now, from what
//! [`View`] found at the brokers; [`judge`] says what an answer means.
//! Invariant: of one stream, a batch is written only when all before it are durable; else a
//! broker's "older epoch" (47) would not mean "is there".

mod answer;
mod position;
mod stream;
mod view;

pub use answer::{PartAnswer, judge};
pub use position::{PRODUCER_IDS, Position, SLOTS, StreamId};
pub use stream::{FORGOTTEN_AFTER, Stream, Verdict};
pub use view::{Newest, Row, View};
