//! Batches of which a part is too large for its topic.
//!
//! Clients send such a batch again in halves, under the same sequence: these could not be told
//! from parts of the whole that are there. Invariant: MESSAGE_TOO_LARGE is told of a batch with
//! sequences only when brokers have nothing of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use protocol_ext::ees::Position;
use protocol_ext::wire::WireError;

use super::deliver::Part;
use super::exact::{Batch, view};
use super::look_up::Place;
use super::produce::{INVALID, MESSAGE_TOO_LARGE, TIMED_OUT};
use super::{Legs, Ways};
use crate::fault;
use crate::metrics::{Metrics, PartResult};
use crate::route::placement::Placement;
use crate::route::sizes::exceeds;

/// One answer that says how long batches may be is not waited for longer than that. Who leads is
/// asked before, with its own bound: without it nothing is sent anyway.
const SIZES_WITHIN: Duration = Duration::from_secs(1);

impl Legs {
    /// Takes out the parts of batches one of which its broker would refuse for good, before any is
    /// sent. What is there in part goes on: clients send a batch that is too large in halves, which
    /// could not be told from it.
    pub(super) async fn refuse_large(
        &mut self,
        (ways, placement): (Ways<'_>, &Placement),
        metrics: &Metrics,
        accepted: &[(Batch<'_>, Position)],
        (parts, codes): (&mut Vec<Part>, &mut [i16]),
    ) -> Result<(), WireError> {
        let sized = parts.iter().filter_map(|part| {
            let batch = &accepted[part.batch].0;
            let open = placement.open(batch.routed, usize::from(part.slot), batch.partition)?;
            Some((part.batch, ((open.topic.clone(), batch.partition), part.len())))
        });
        let (of, sized): (Vec<usize>, Vec<_>) = sized.unzip();
        let mut large = Vec::new();
        for (n, sure) in self.too_large(ways, &sized).await? {
            let (batch, at) = &accepted[of[n]];
            let known = self.streams.get(&batch.key());
            match sure {
                _ if known.is_some_and(|known| known.unanswered == Some(*at)) => {}
                true => large.push(of[n]),
                false => codes[of[n]] = TIMED_OUT,
            }
        }
        large.dedup();
        for (n, begun) in self.begun((ways, placement), metrics, accepted, large).await? {
            match begun {
                Some(true) => {}
                Some(false) => {
                    codes[n] = MESSAGE_TOO_LARGE;
                    metrics.part(PartResult::Refused);
                }
                None => codes[n] = TIMED_OUT,
            }
        }
        parts.retain(|part| codes[part.batch] == 0);
        Ok(())
    }

    /// Whether something of a batch that was refused as too large may be written yet: a part that
    /// was not answered now, or when it came before. Where there is one part only, the broker that
    /// refuses it would not write an older copy either.
    pub(super) fn may_be_written(
        &self,
        n: usize,
        (batch, at): &(Batch<'_>, Position),
        parts: &[Part],
    ) -> bool {
        let own = parts.iter().filter(|part| part.batch == n);
        let known = self.streams.get(&batch.key());
        let before = known.is_some_and(|known| known.unanswered == Some(*at));
        own.clone().any(Part::is_open) || (before && own.count() > 1)
    }

    /// What is told of a batch of which a part was refused as too large behind others. `is_open`:
    /// one of them may be written yet.
    pub(super) async fn told_of_large(
        &mut self,
        ways: Ways<'_>,
        metrics: &Metrics,
        batch: &(Batch<'_>, Position),
        is_open: bool,
    ) -> Result<i16, WireError> {
        if fault::on("parts-cut-in-halves") {
            return Ok(MESSAGE_TOO_LARGE);
        }
        if is_open {
            return Ok(TIMED_OUT);
        }
        let placement = ways.routed.placements().now();
        let begun = self.begun((ways, &placement), metrics, std::slice::from_ref(batch), vec![0]);
        Ok(match begun.await?.first() {
            Some((_, Some(false))) => MESSAGE_TOO_LARGE,
            Some((_, Some(true))) => INVALID,
            Some((_, None)) | None => TIMED_OUT,
        })
    }

    /// Whether brokers have something of each of these batches, or of one behind it; `None` where
    /// not all of them answer.
    async fn begun(
        &mut self,
        (ways, placement): (Ways<'_>, &Placement),
        metrics: &Metrics,
        accepted: &[(Batch<'_>, Position)],
        which: Vec<usize>,
    ) -> Result<Vec<(usize, Option<bool>)>, WireError> {
        let batches = which.iter().map(|n| &accepted[*n].0);
        let found = self.found((ways, placement), metrics, batches).await?;
        let begun = which.into_iter().map(|n| {
            let (batch, at) = &accepted[n];
            let view = view(batch, placement, &found);
            (n, view.map(|view| view.0.iter().any(|row| at.to(row.at) >= 0)))
        });
        Ok(begun.collect())
    }

    /// Which of these batches, by their lengths, brokers would refuse as too large, and whether
    /// they say so now: they are asked now and then, and again before one is refused.
    pub(super) async fn too_large(
        &mut self,
        ways: Ways<'_>,
        batches: &[(Place, usize)],
    ) -> Result<Vec<(usize, bool)>, WireError> {
        let sizes = &ways.routed.sizes;
        let places = batches.iter().map(|(place, _)| place);
        let due: HashSet<&Place> = places.filter(|(topic, _)| sizes.is_due(topic)).collect();
        self.ask_sizes(ways, due.into_iter().cloned().collect()).await?;
        let large = batches.iter().filter(|((topic, _), bytes)| sizes.is_too_large(topic, *bytes));
        let large: HashSet<&Place> = large.map(|(place, _)| place).collect();
        let told = self.ask_sizes(ways, large.into_iter().cloned().collect()).await?;
        let refused = batches.iter().enumerate().filter_map(|(n, ((topic, _), bytes))| {
            let most = *told.get(topic).filter(|_| !fault::on("sizes-unknown"))?;
            let large = most.map_or(sizes.is_too_large(topic, *bytes), |m| exceeds(*bytes, m));
            large.then_some((n, most.is_some()))
        });
        Ok(refused.collect())
    }

    /// Asks for the sizes of topics and remembers what was told.
    async fn ask_sizes(
        &mut self,
        ways: Ways<'_>,
        places: Vec<Place>,
    ) -> Result<HashMap<Arc<str>, Option<usize>>, WireError> {
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        let limit = match fault::on("sizes-waited-for") {
            true => ways.limits.connect,
            false => ways.limits.connect.min(SIZES_WITHIN),
        };
        let told = self.longest(ways, places, limit).await?;
        for (topic, bytes) in &told {
            bytes.iter().for_each(|bytes| ways.routed.sizes.learn(topic, *bytes));
        }
        Ok(told)
    }
}
