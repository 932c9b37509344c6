//! Asks the object store at the start whether it can be asked at all: a wrong bucket, key or
//! address is told then, not by the first large record. Nothing waits for it: what is not stored is
//! served all the same.

use std::sync::Arc;
use std::time::Duration;

use crate::data_plane::DataPlane;
use crate::random;

/// Pause before the second attempt; it doubles,
const PAUSE: Duration = Duration::from_millis(500);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Asks until the store answers. A line tells of each way in which it does not.
pub async fn ask(plane: Arc<DataPlane>) {
    let Some(offload) = &plane.offload else { return };
    let (mut pause, mut told) = (PAUSE, String::new());
    while let Err(error) = offload.probe().await {
        let text = error.to_string();
        if told != text {
            let what =
                "the object store cannot be asked: values can be neither stored nor restored";
            tracing::error!(%error, "{what}");
            told = text;
        }
        tokio::time::sleep(random::jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    if !told.is_empty() {
        tracing::info!("the object store answers");
    }
}
