//! Looks at segments again that were sealed a while ago: they must not have grown.

use super::ask::Asker;
use super::seal;
use crate::clock::Tick;
use crate::data_plane::DataPlane;

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

/// Looks at sealed segments; gives those of which no broker told.
pub async fn look_at(plane: &DataPlane, looks: Vec<Look>) -> Vec<Look> {
    let mut unanswered = Vec::new();
    for look in looks {
        let Look { topic, ends, .. } = &look;
        match seal::ends_now(&mut Asker::new(plane), topic).await {
            Ok(now) if now.len() == ends.len() => {
                if now.values().zip(ends).any(|(now, sealed)| now > sealed) {
                    plane.metrics.placed.grown.inc();
                    tracing::error!(topic, "a sealed segment has grown: what came is not read");
                }
            }
            Ok(_) | Err(_) => unanswered.push(look),
        }
    }
    unanswered
}
