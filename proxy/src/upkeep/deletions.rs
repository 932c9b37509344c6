//! Objects removed, many at once.

use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};

use super::Progress;
use crate::fault;
use crate::limits::UPKEEP_AT_ONCE;
use crate::store::{ObjectStore, StoreError};

/// Removes objects; ends at the first that cannot be. `what` is shown with how far it is.
pub async fn delete(store: &ObjectStore, keys: &[&str], what: &str) -> Result<(), StoreError> {
    let progress = Progress::new();
    let at_once = if fault::on("deletions-one-by-one") { 1 } else { UPKEEP_AT_ONCE };
    let deletions = keys.iter().map(|key| store.delete(key).boxed());
    let mut deletions = stream::iter(deletions).buffer_unordered(at_once);
    let mut done = 0;
    while let Some(deleted) = deletions.next().await {
        deleted?;
        done += 1;
        progress.show(what, done, keys.len());
    }
    Ok(())
}
