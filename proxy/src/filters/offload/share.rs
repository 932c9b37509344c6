//! ShareFetch: as Fetch, for consumers that own single records and not a position.
//!
//! A batch that cannot be given out is left out by itself, also between others, and is not called
//! acquired: the broker gives it out again once its lock is over, and counts that. So what an
//! answer has no room for must be rare: the requests behind it ask for fewer records (`Pace`).
//! Invariant: what is called acquired is there, with its value.

use std::ops::Range;

use bytes::Bytes;
use protocol_ext::acquired;
use protocol_ext::address::Rewrite;
use protocol_ext::batch::{BatchHeader, Batches, Entry};
use protocol_ext::header;
use protocol_ext::schema::Message;
use protocol_ext::schema::responses::SHARE_FETCH;
use protocol_ext::wire::WireError;

use super::fetch::{
    Found, Piece, Plan, RestoreError, Restored, Run, STORAGE_ERROR, Spent, UNKNOWN_TOPIC_ID,
    Values, wants,
};
use super::parts::PartFailure;
use super::sections::{Change, Section, change, sections};
use super::{Offload, Wanted};
use crate::fault;
use crate::limits::{ANSWERED_SECTIONS_MAX, RESTORED_BYTES_MAX};
use crate::route::addresses::Directory;

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
    /// The store gives no value now. An answer without records would count as a delivery of each;
    /// a connection that closes does not.
    #[error("the store gives no value of what a share consumer acquired")]
    Store,
}

/// What becomes of a partition.
struct Share {
    plan: Plan,
    left_out: Vec<Range<i64>>,
    longest: Longest,
}

/// What came of the values of a partition.
#[derive(Default)]
struct Filled {
    change: Change,
    /// Whether anything acquired is there.
    gives: bool,
    /// Whether the store may give later what is not.
    waits: bool,
}

impl Offload {
    /// Restores the values of a Fetch or ShareFetch response, and tells how long those were that a
    /// share consumer acquired.
    pub async fn answer(
        &self,
        message: &'static Message,
        version: i16,
        frame: &Bytes,
        wanted: Wanted,
        addresses: &Directory,
    ) -> Result<(Restored, Longest), NotRestored> {
        if message.api == SHARE_FETCH.api {
            return self.restore_shared(version, frame, wanted.bytes, addresses).await;
        }
        let restored = self.restore(message, version, frame, wanted, addresses).await?;
        Ok((restored, Longest::Unknown))
    }

    /// Restores the values of a ShareFetch response, `budget` bytes of them at most but always
    /// those of the first batch that refers.
    async fn restore_shared(
        &self,
        version: i16,
        frame: &Bytes,
        budget: usize,
        addresses: &Directory,
    ) -> Result<(Restored, Longest), NotRestored> {
        let message = &SHARE_FETCH;
        let at = header::response_body_at(message.api, version, frame)?;
        let found = sections(message, version, frame, at, ANSWERED_SECTIONS_MAX)?;
        let mut spent = Spent::new(budget.min(RESTORED_BYTES_MAX));
        let mut planned = Vec::with_capacity(found.len());
        for section in &found {
            let topic = self.topic_name(section).await;
            spent.enter(usize::MAX);
            let share = self.share(section, topic.as_deref(), &mut spent).await;
            planned.push((topic, share));
        }
        let mut room = match spent.room {
            0 => None,
            bytes => self.restored.take(bytes).await,
        };
        room.iter_mut().for_each(|room| room.awaits_peer(false));
        let values = self.parts.read(&wants(planned.iter().map(|(_, share)| &share.plan))).await;
        let longest = planned.iter().map(|(_, share)| share.longest);
        let longest = longest.fold(Longest::Unknown, Longest::or);
        let mut changes = Vec::with_capacity(found.len());
        let (mut gives, mut waits) = (false, false);
        for (section, (topic, share)) in found.iter().zip(planned) {
            let filled = self.fill_shared(section, topic.as_deref(), share, &values);
            gives |= filled.gives;
            waits |= filled.waits;
            changes.push(filled.change);
        }
        if waits && !gives && !fault::on("outages-are-deliveries") {
            return Err(NotRestored::Store);
        }
        let mut rewrite = Rewrite::new(addresses);
        let edits = change(message, version, frame, at, &changes, &mut rewrite)?;
        room.iter_mut().for_each(|room| room.awaits_peer(true));
        Ok((Restored { frame: edits.chain(frame), room }, longest))
    }

    /// Splits a partition's records into batches that stay, refer, or have no room.
    async fn share(&self, section: &Section, topic: Option<&str>, spent: &mut Spent) -> Share {
        let mut share = Share { plan: Plan::Pass, left_out: Vec::new(), longest: Longest::Unknown };
        if section.records.is_empty() || section.acquired.is_empty() {
            return share;
        }
        let Some(topic) = topic else {
            share.plan = Plan::Nameless;
            return share;
        };
        share.longest = Longest::Plain;
        let records = &section.records;
        let mut run = Run { records, from: 0, end: 0, pieces: Vec::new() };
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
                Err(_) => break,
            };
            let offsets = offsets(&header);
            // Nobody looks at what was not acquired.
            if header.is_control() || !acquired::touches(&section.acquired, &offsets) {
                run.stay(range);
                continue;
            }
            match self.found(records.slice(range.clone()), topic, spent).await {
                Found::Stays => run.stay(range),
                Found::Refers(batch) => {
                    let longest = batch.references.iter().map(|(_, want)| want);
                    let longest = longest.map(|want| want.reference.original_bytes as usize).max();
                    share.longest = share.longest.or(Longest::Stored(longest.unwrap_or(0)));
                    if spent.admit(&batch) {
                        run.refer(range, batch);
                    } else {
                        share.left_out.push(offsets);
                        run.skip(range);
                    }
                }
                Found::NoRoom => {
                    share.left_out.push(offsets);
                    run.skip(range);
                }
            }
        }
        share.plan = if share.left_out.is_empty() { run.whole() } else { run.cut() };
        share
    }

    fn fill_shared(
        &self,
        section: &Section,
        topic: Option<&str>,
        share: Share,
        values: &Values,
    ) -> Filled {
        let gives = !section.acquired.is_empty();
        let pieces = match share.plan {
            Plan::Pass => return Filled { gives, ..Filled::default() },
            Plan::Nameless => {
                let (records, error) = (Some(Vec::new()), Some(UNKNOWN_TOPIC_ID));
                let change = Change { records, error, acquired: Some(acquired::write(&[])) };
                // Its name may be had later.
                return Filled { change, gives: false, waits: true };
            }
            Plan::Pieces(pieces) => pieces,
        };
        let (mut left_out, mut waits, mut damaged) = (share.left_out, false, false);
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
        let gives = !stays.is_empty();
        let error = (damaged && !gives).then_some(STORAGE_ERROR);
        let acquired = (!left_out.is_empty()).then(|| acquired::write(&stays));
        Filled { change: Change { records: Some(records), error, acquired }, gives, waits }
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
