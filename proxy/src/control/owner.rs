//! Sees at the start whether the objects below the cluster's name are this cluster's.
//!
//! Two clusters of one name in one bucket do not disturb each other's clients, but upkeep of one
//! would delete what the other refers to: that is told, and `gc` refuses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::cluster::Known;
use crate::data_plane::DataPlane;
use crate::random;
use crate::store::owner::Owner;

/// Pause before the second attempt; it doubles,
const PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Asks until the store answers.
pub async fn claim(plane: Arc<DataPlane>, name: String, mut known: watch::Receiver<Known>) {
    let Some(offload) = &plane.offload else { return };
    let Ok(id) = known
        .wait_for(|known| known.cluster_id().is_some())
        .await
        .map(|known| known.cluster_id().map(str::to_owned).unwrap_or_default())
    else {
        return;
    };
    let mut pause = PAUSE;
    loop {
        match offload.claim(&id).await {
            Ok(Owner::Us | Owner::Nobody) => return,
            Ok(Owner::Other(other)) => {
                tracing::error!(
                    name,
                    owner = other,
                    own = id,
                    "objects below this cluster.name in the store belong to another cluster: give \
                     each cluster a name of its own; gc and fsck refuse until then"
                );
                return;
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "whose objects are in the store is not known yet");
            }
            Err(error) => {
                tracing::warn!(%error, "the store does not say whose objects are in it");
                return;
            }
        }
        tokio::time::sleep(random::jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
