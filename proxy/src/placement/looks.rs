//! Looks at segments again that were sealed a while ago: they must not have grown. Whoever leads
//! next looks at those that its predecessor sealed lately.

use std::time::Duration;

use super::ask::Asker;
use super::seal;
use super::table::Table;
use crate::clock::{self, Tick};
use crate::data_plane::DataPlane;
use crate::fault;

/// Segments that were sealed longer ago have been looked at.
const LATELY: Duration = Duration::from_secs(3600);
/// Time for one look: a broker that hangs must not hold up what else is to be done.
const LOOK: Duration = Duration::from_secs(3);

/// A sealed segment to look at again.
#[derive(Debug)]
pub struct Look {
    /// Its physical topic.
    pub topic: String,
    /// By partition: the physical end.
    pub ends: Vec<i64>,
    /// When it was sealed.
    pub at: Tick,
}

/// What the log says was sealed lately.
pub fn sealed_lately(table: &Table) -> Vec<Look> {
    let now = clock::unix_ms();
    let lately = |at: u64| u128::from(now.saturating_sub(at)) <= LATELY.as_millis();
    let all = table.all().filter(|fact| fact.sealed_at_ms.is_some_and(lately));
    let looks = all.filter_map(|fact| {
        let ends = fact.ends.as_ref()?.iter().zip(&fact.bases).map(|(end, base)| end - base);
        Some(Look { topic: fact.topic.clone(), ends: ends.collect(), at: clock::now() })
    });
    if fault::on("looks-forgotten") { Vec::new() } else { looks.collect() }
}

/// Looks at sealed segments; gives those of which no broker told.
pub async fn look_at(plane: &DataPlane, looks: Vec<Look>) -> Vec<Look> {
    let mut unanswered = Vec::new();
    for look in looks {
        let Look { topic, ends, .. } = &look;
        let mut asker = Asker::new(plane);
        match tokio::time::timeout(LOOK, seal::ends_now(&mut asker, topic)).await {
            // It is deleted.
            Ok(Ok(now)) if now.is_empty() => {}
            Ok(Ok(now)) if now.len() == ends.len() => {
                if now.values().zip(ends).any(|(now, sealed)| now > sealed) {
                    plane.metrics.placed.grown.inc();
                    tracing::error!(topic, "a sealed segment has grown: what came is not read");
                }
            }
            _ => unanswered.push(Look { at: clock::now(), ..look }),
        }
    }
    unanswered
}
