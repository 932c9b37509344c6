//! Looks at the files of certificates from time to time and takes new ones into use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::watched::{Look, Watch};

/// Looks for ever, and at once when `asked`; dropped at shutdown.
pub async fn watch(
    watched: Vec<Arc<dyn Watch>>,
    every: Duration,
    metrics: Arc<Metrics>,
    asked: Arc<Notify>,
) {
    if watched.is_empty() {
        return;
    }
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(every) => {}
            () = asked.notified() => watched.iter().for_each(|one| one.tell_again()),
        }
        for one in &watched {
            let (looked, names) = (one.clone(), one.names());
            // Files are read on a thread where that may take its time.
            let Ok(look) = tokio::task::spawn_blocking(move || looked.look()).await else {
                continue;
            };
            match look {
                Look::Same => {}
                Look::Renewed => {
                    metrics.reloaded(true);
                    tracing::info!(files = %names, "files changed: taken, for new connections");
                }
                Look::Failed(why) => {
                    metrics.reloaded(false);
                    tracing::error!(files = %names, %why, "files changed and cannot be used: \
                        what was loaded before stays in force");
                }
            }
        }
    }
}
