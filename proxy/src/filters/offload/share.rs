//! ShareFetch: as Fetch, for consumers that own single records and not a position.
//!
//! A batch whose value is gone is left out by itself, also between others, and is not called
//! acquired: the broker gives it out again once its lock is over, and counts that. What can be
//! given later, since the store does not answer or there is no room now, must not be counted: there
//! is no answer then, the connection closes, and the broker takes back what was acquired on it.
//! Requests of the group ask for as many records as have room (`Pace`).
//! Invariants: what is called acquired is there, with its value; no delivery is spent on what may
//! be had later.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use protocol_ext::acquired;
use protocol_ext::address::Rewrite;
use protocol_ext::batch::{BatchHeader, Batches, Entry};
use protocol_ext::header;
use protocol_ext::schema::responses::SHARE_FETCH;
use protocol_ext::wire::WireError;

use super::Offload;
use super::fetch::{Found, Piece, Plan, RestoreError, Restored, Run, STORAGE_ERROR, Values, wants};
use super::pace::Pace;
use super::parts::PartFailure;
use super::sections::{Change, Section, change, sections};
use super::spent::Spent;
use crate::limits::{ANSWERED_SECTIONS_MAX, RESTORED_BYTES_MAX};
use crate::route::addresses::Directory;
use crate::{clock, fault};

/// How long the values are that a share consumer acquired with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Longest {
    /// Nothing was acquired.
    Unknown,
    /// All that was acquired is in the log.
    Plain,
    /// So many bytes the longest of those in the store.
    Stored(usize),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// The broker's answer cannot be read.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A value is not given now. An answer without its record would count as a delivery of it; a
    /// connection that closes does not.
    #[error("a value that a share consumer acquired is not to be had now")]
    Store,
    /// No broker tells the name of a topic of the answer: nothing can be looked for in its records.
    #[error("a share consumer acquired records of a topic without a name")]
    Nameless,
    /// There is no room for all that was acquired, and the next requests ask for less.
    #[error("a share consumer acquired more than an answer has room for")]
    Crowded,
}

/// What a share consumer asked for.
#[derive(Debug)]
pub struct Sharing {
    /// Bytes at most.
    pub bytes: usize,
    /// Records at most.
    pub records: i32,
    /// What its group learns from the answer.
    pub pace: Arc<Pace>,
}

/// What becomes of a partition.
struct Share {
    plan: Plan,
    left_out: Vec<Range<i64>>,
    longest: Longest,
    /// There was no room for some of it.
    crowded: bool,
    /// There may be room later, also for as much.
    waits: bool,
}

/// What came of the values of a partition.
#[derive(Default)]
struct Filled {
    change: Change,
    /// Whether the store may give later what is not.
    waits: bool,
}

impl Offload {
    /// What is known of the values of a share group.
    pub fn pace(&self, group: &[u8]) -> Arc<Pace> {
        self.paces.of(group)
    }

    /// Restores the values of a ShareFetch response.
    pub async fn restore_shared(
        &self,
        version: i16,
        frame: &Bytes,
        sharing: &Sharing,
        addresses: &Directory,
    ) -> Result<Restored, NotRestored> {
        let message = &SHARE_FETCH;
        let at = header::response_body_at(message.api, version, frame)?;
        let found = sections(message, version, frame, at, ANSWERED_SECTIONS_MAX)?;
        let mut spent = Spent::new(sharing.bytes.min(RESTORED_BYTES_MAX));
        let mut planned = Vec::with_capacity(found.len());
        for section in &found {
            let topic = self.topic_name(section).await;
            spent.enter(usize::MAX);
            let share = match &topic {
                _ if section.records.is_empty() || section.acquired.is_empty() => Share::default(),
                Some(topic) => self.share(section, topic, &mut spent).await,
                // It may be had later.
                None => return Err(NotRestored::Nameless),
            };
            planned.push((topic, share));
        }
        learn(sharing, &planned)?;
        let mut room = match spent.room {
            0 => None,
            bytes => self.restored.take(bytes).await,
        };
        room.iter_mut().for_each(|room| room.awaits_peer(false));
        let wanted = wants(planned.iter().map(|(_, share)| &share.plan));
        let mut values = self.parts.read(&wanted).await;
        self.confirm(&wanted, &mut values).await;
        let mut changes = Vec::with_capacity(found.len());
        let mut waits = false;
        for (section, (topic, share)) in found.iter().zip(planned) {
            let filled = self.fill_shared(section, topic.as_deref(), share, &values);
            waits |= filled.waits;
            changes.push(filled.change);
        }
        if waits && !fault::on("outages-are-deliveries") {
            return Err(NotRestored::Store);
        }
        let mut rewrite = Rewrite::new(addresses);
        let edits = change(message, version, frame, at, &changes, &mut rewrite)?;
        room.iter_mut().for_each(|room| room.awaits_peer(true));
        Ok(Restored { frame: edits.chain(frame), room })
    }

    /// Splits a partition's records into batches that stay, refer, or have no room.
    async fn share(&self, section: &Section, topic: &str, spent: &mut Spent) -> Share {
        let mut share = Share { longest: Longest::Plain, ..Share::default() };
        let without = self.on_missing(Some(topic)).is_some();
        let records = &section.records;
        let mut run = Run { records, from: 0, end: 0, pieces: Vec::new() };
        let mut readable = true;
        for entry in Batches::new(records) {
            let (range, header) = match entry {
                Ok(Entry::Batch { range, header }) => (range, header),
                Ok(Entry::Partial { range }) => {
                    run.stay(range);
                    continue;
                }
                Ok(Entry::Legacy { range }) => {
                    self.metrics.legacy_batches.inc();
                    run.stay(range);
                    continue;
                }
                // What cannot be read goes to the client as it is; it will say so.
                Err(_) => {
                    readable = fault::on("unreadable-cut-off");
                    break;
                }
            };
            let offsets = offsets(&header);
            // Nobody looks at what was not acquired.
            if header.is_control() || !acquired::touches(&section.acquired, &offsets) {
                run.stay(range);
                continue;
            }
            let of = Some(section.acquired.as_slice());
            match self.found(records.slice(range.clone()), (topic, of), spent).await {
                Found::Stays => run.stay(range),
                Found::Refers(batch) => {
                    let longest = batch.references.iter().map(|(_, want)| want);
                    let longest = longest.map(|want| want.reference.original_bytes as usize).max();
                    share.longest = share.longest.or(Longest::Stored(longest.unwrap_or(0)));
                    if spent.admit(&batch, without) {
                        run.refer(range, batch);
                    } else {
                        share.crowded = true;
                        share.left_out.push(offsets);
                        run.skip(range);
                    }
                }
                // Others have it, or batches of this answer do.
                Found::NoRoom => {
                    (share.crowded, share.waits) = (true, true);
                    share.left_out.push(offsets);
                    run.skip(range);
                }
            }
        }
        share.plan = match (share.left_out.is_empty(), readable) {
            (true, _) => run.whole(),
            (false, true) => run.cut(),
            (false, false) => run.rest(),
        };
        share
    }

    fn fill_shared(
        &self,
        section: &Section,
        topic: Option<&str>,
        share: Share,
        values: &Values,
    ) -> Filled {
        let (mut left_out, mut waits, mut damaged) = (share.left_out, share.waits, false);
        let Plan::Pieces(pieces) = share.plan else {
            return Filled { waits, ..Filled::default() };
        };
        let mut records = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let batch = match piece {
                Piece::Same(bytes) => {
                    records.push(bytes);
                    continue;
                }
                Piece::Refer(batch) => batch,
            };
            match self.rewritten(&batch, topic, values) {
                Ok(batch) => records.extend(batch),
                Err(why) => {
                    left_out.push(offsets(batch.open.batch.header()));
                    match &why {
                        RestoreError::At(_, PartFailure::Late) => waits = true,
                        RestoreError::At(_, failure) if !failure.is_damage() => {
                            self.unrestored(section, topic, &why);
                            waits = true;
                        }
                        RestoreError::At(..) | RestoreError::Rewrite(_) => {
                            self.unrestored(section, topic, &why);
                            damaged = true;
                        }
                    }
                }
            }
        }
        left_out.sort_unstable_by_key(|offsets| offsets.start);
        let stays = match fault::on("left-out-but-acquired") {
            true => section.acquired.clone(),
            false => acquired::without(&section.acquired, &left_out),
        };
        let error = (damaged && stays.is_empty()).then_some(STORAGE_ERROR);
        let acquired = (!left_out.is_empty()).then(|| acquired::write(&stays));
        Filled { change: Change { records: Some(records), error, acquired }, waits }
    }
}

/// Tells the group how long its values are. Where there is no room for all of them, and less can be
/// asked for, there is no answer.
fn learn(sharing: &Sharing, planned: &[(Option<Arc<str>>, Share)]) -> Result<(), NotRestored> {
    let now = clock::now();
    let shares = || planned.iter().map(|(_, share)| share);
    let longest = shares().map(|share| share.longest).fold(Longest::Unknown, Longest::or);
    sharing.pace.learn(longest, sharing.bytes, now);
    let crowded = shares().any(|share| share.crowded) && sharing.pace.crowded(sharing.records, now);
    match crowded && !fault::on("crowds-are-deliveries") {
        true => Err(NotRestored::Crowded),
        false => Ok(()),
    }
}

impl Default for Share {
    /// What passes as it is.
    fn default() -> Self {
        let (plan, longest) = (Plan::Pass, Longest::Unknown);
        Self { plan, left_out: Vec::new(), longest, crowded: false, waits: false }
    }
}

impl Longest {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Stored(a), Self::Stored(b)) => Self::Stored(a.max(b)),
            (Self::Stored(n), _) | (_, Self::Stored(n)) => Self::Stored(n),
            (Self::Plain, _) | (_, Self::Plain) => Self::Plain,
            (Self::Unknown, Self::Unknown) => Self::Unknown,
        }
    }
}

/// Offsets that a batch covers, those that compaction took included.
fn offsets(header: &BatchHeader) -> Range<i64> {
    let end = header.base_offset.saturating_add(i64::from(header.last_offset_delta) + 1);
    header.base_offset..end
}
