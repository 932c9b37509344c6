//! Uploads in parts that were begun and never became objects: what is left where a process ends
//! while it stores a long value. No log knows of them, and they are paid for like objects.
//!
//! listed -> this cluster's -> by age -> (gc) aborted. Invariant: nothing is aborted that another
//! cluster began, or that was begun within the grace: it may be under way.

use std::fmt;

use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};

use super::Progress;
use crate::fault;
use crate::limits::UPKEEP_AT_ONCE;
use crate::store::uploads::Upload;
use crate::store::{ObjectStore, StoreError};

/// What becomes of uploads that are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// They are told.
    Tell,
    /// It is told which would be aborted.
    Try,
    /// Old ones are aborted.
    Abort,
}

/// Uploads, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    uploads: usize,
    /// Of their parts.
    bytes: u64,
    /// Uploads whose bytes the service does not tell.
    unmeasured: usize,
}

impl Count {
    fn add(&mut self, bytes: Option<u64>) {
        self.uploads += 1;
        self.bytes += bytes.unwrap_or(0);
        self.unmeasured += usize::from(bytes.is_none());
    }

    fn json(self) -> serde_json::Value {
        let Self { uploads, bytes, unmeasured } = self;
        serde_json::json!({ "uploads": uploads, "bytes": bytes, "unmeasured": unmeasured })
    }
}

/// What there was of them.
#[derive(Debug, Default)]
pub struct Uploads {
    /// Older than the grace.
    left: Count,
    /// Begun within it.
    begun: Count,
    aborted: Count,
    /// Why the store does not list them.
    refused: Option<String>,
}

impl Uploads {
    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "left": self.left.json(), "begun": self.begun.json(), "aborted": self.aborted.json(),
            "refused": self.refused,
        })
    }

    /// Counts an upload of the cluster by its age at `now`, and tells whether it is old.
    fn add(&mut self, upload: &Upload, bytes: Option<u64>, (now, grace_ms): (u64, u64)) -> bool {
        // What nobody tells the age of may have begun just now.
        let age = upload.begun_at_ms.map_or(0, |at| now.saturating_sub(at));
        let is_old = age >= grace_ms || fault::on("young-uploads-aborted");
        match is_old {
            true => self.left.add(bytes),
            false => self.begun.add(bytes),
        }
        is_old
    }
}

impl fmt::Display for Uploads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.refused {
            return writeln!(out, "uploads    that are not complete are not told: {why}");
        }
        for (name, count, what) in [
            ("left", self.left, "broken off: they never became objects"),
            ("begun", self.begun, "not complete, but new: they may be under way"),
            ("aborted", self.aborted, ""),
        ] {
            let Count { uploads, bytes, unmeasured } = count;
            if uploads > 0 {
                write!(out, "{name:<10} {uploads:>9} uploads {bytes:>16} bytes  {what}")?;
                match unmeasured {
                    0 => writeln!(out)?,
                    n => writeln!(out, " (the bytes of {n} are not told)")?,
                }
            }
        }
        Ok(())
    }
}

/// Finds the uploads of a cluster, as they are `now`, and does with the old ones as ordered.
pub async fn tend(
    store: &ObjectStore,
    cluster: &str,
    (now, grace_ms): (u64, u64),
    order: Order,
) -> Result<Uploads, StoreError> {
    let mut found = Uploads::default();
    let uploads = match listed(store, cluster).await {
        Ok(uploads) => uploads,
        Err(StoreError::Refused(why)) => {
            found.refused = Some(why);
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let measured = uploads.iter().map(|upload| measured(store, upload).boxed());
    let mut measured = stream::iter(measured).buffer_unordered(UPKEEP_AT_ONCE);
    let mut old = Vec::new();
    while let Some(upload) = measured.next().await {
        let (upload, bytes) = upload?;
        if found.add(upload, bytes, (now, grace_ms)) {
            old.push((upload, bytes));
        }
    }
    if order == Order::Tell {
        return Ok(found);
    }
    if order == Order::Abort && !fault::on("uploads-left") {
        abort(store, &old).await?;
    }
    old.iter().for_each(|(_, bytes)| found.aborted.add(*bytes));
    Ok(found)
}

/// All uploads of a cluster.
async fn listed(store: &ObjectStore, cluster: &str) -> Result<Vec<Upload>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.uploads(after.as_ref()).await?;
        let own =
            |upload: &Upload| belongs(&upload.key, cluster) || fault::on("any-upload-is-ours");
        found.extend(page.uploads.into_iter().filter(own));
        after = page.next;
        if after.is_none() || fault::on("one-page-of-uploads") {
            return Ok(found);
        }
    }
}

/// Whether a key is one of a pack of a cluster, or of what its upkeep writes.
fn belongs(key: &str, cluster: &str) -> bool {
    match key.split('/').collect::<Vec<_>>()[..] {
        ["v1", _, name, ..] | ["upkeep", "v1", _, name, ..] => name == cluster,
        _ => false,
    }
}

/// An upload and the bytes that it has, if the store tells them.
async fn measured<'a>(
    store: &ObjectStore,
    upload: &'a Upload,
) -> Result<(&'a Upload, Option<u64>), StoreError> {
    match store.upload_bytes(upload).await {
        Ok(bytes) => Ok((upload, bytes)),
        Err(StoreError::Refused(_)) => Ok((upload, None)),
        Err(error) => Err(error),
    }
}

async fn abort(store: &ObjectStore, uploads: &[(&Upload, Option<u64>)]) -> Result<(), StoreError> {
    let progress = Progress::new();
    let aborts = uploads.iter().map(|(upload, _)| store.abort(upload).boxed());
    let mut aborts = stream::iter(aborts).buffer_unordered(UPKEEP_AT_ONCE);
    let mut done = 0;
    while let Some(aborted) = aborts.next().await {
        aborted?;
        done += 1;
        progress.show("aborting", done, uploads.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_belong_to_the_cluster_whose_name_is_in_their_keys() {
        for key in ["v1/0a/main/00/0/00", "upkeep/v1/marks/main/1", "upkeep/v1/owner/main"] {
            assert!(belongs(key, "main"), "{key}");
            assert!(!belongs(key, "mai") && !belongs(key, "00"), "{key}");
        }
        for key in ["main", "v1/0a", "v2/0a/main/00", "x/v1/0a/main/00", "upkeep/v1/main"] {
            assert!(!belongs(key, "main"), "{key}");
        }
    }

    #[test]
    fn an_upload_of_no_known_age_is_new() {
        let upload = |begun_at_ms| {
            let (key, id) = ("v1/0a/main/00/0/00".to_owned(), "u".to_owned());
            Upload { key, id, begun_at_ms }
        };
        let mut found = Uploads::default();
        assert!(!found.add(&upload(None), Some(5), (1000, 100)));
        assert!(!found.add(&upload(Some(901)), None, (1000, 100)));
        assert!(found.add(&upload(Some(900)), Some(7), (1000, 100)));
        assert_eq!(found.begun, Count { uploads: 2, bytes: 5, unmeasured: 1 });
        assert_eq!(found.left, Count { uploads: 1, bytes: 7, unmeasured: 0 });
        let text = found.to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("(the bytes of 1 are not told)"), "{text}");
    }

    #[test]
    fn a_store_that_does_not_know_them_says_so_in_a_line() {
        let refused = Some("501 NotImplemented for the uploads".to_owned());
        let text = Uploads { refused, ..Uploads::default() }.to_string();
        assert!(text.lines().count() == 1 && text.contains("501 NotImplemented"), "{text}");
        assert_eq!(Uploads::default().to_string(), "", "a store without any");
    }
}
