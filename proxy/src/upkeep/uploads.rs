//! Uploads in parts that were begun and never became objects: what is left where a process ends
//! while it stores a long value. No log knows of them, and they are paid for like objects.
//!
//! listed -> this cluster's -> by age -> (gc) is its object there? -> aborted. Invariants: nothing
//! is aborted that another cluster began, that was begun within the grace, since it may be under
//! way, or whose object is there, since it may have become that, and some services damage the
//! object then. Whatever goes wrong here is told, and fails nothing else.

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
    /// Old, but there is an object of their key.
    kept: Count,
    /// Why some are not told of or not aborted, or none are.
    refused: Option<String>,
}

impl Uploads {
    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "left": self.left.json(), "begun": self.begun.json(), "aborted": self.aborted.json(),
            "kept": self.kept.json(), "refused": self.refused,
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

    /// Notes what went wrong, if nothing has yet.
    fn note(&mut self, error: StoreError) {
        let why = match error {
            StoreError::Refused(why) => why,
            error => error.to_string(),
        };
        self.refused.get_or_insert(why);
    }
}

impl fmt::Display for Uploads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.refused {
            writeln!(out, "uploads    that are not complete: not all are told or aborted: {why}")?;
        }
        for (name, count, what) in [
            ("left", self.left, "broken off: they are older than the grace"),
            ("begun", self.begun, "not complete, but new: they may be under way"),
            ("aborted", self.aborted, ""),
            ("kept", self.kept, "broken off, but an object of their key is there"),
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
) -> Uploads {
    let mut found = Uploads::default();
    let uploads = match listed(store, cluster).await {
        Ok(uploads) => uploads,
        Err(error) => {
            found.note(error);
            return found;
        }
    };
    let measured = uploads.iter().map(|upload| measured(store, upload).boxed());
    let mut measured = stream::iter(measured).buffer_unordered(UPKEEP_AT_ONCE);
    let mut old = Vec::new();
    let mut failed = 0;
    while let Some((upload, bytes)) = measured.next().await {
        failed = if bytes.is_err() { failed + 1 } else { 0 };
        let bytes = bytes.unwrap_or_else(|error| {
            found.note(error);
            None
        });
        // The store is away: each of the others would take its time, too.
        if failed >= UPKEEP_AT_ONCE {
            return found;
        }
        if found.add(upload, bytes, (now, grace_ms)) {
            old.push((upload, bytes));
        }
    }
    if order != Order::Tell {
        end(store, &old, order, &mut found).await;
    }
    found
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

/// Whether a key is one of a pack of a cluster, or of what its upkeep writes: the bucket may be
/// others' too.
fn belongs(key: &str, cluster: &str) -> bool {
    match key.split('/').collect::<Vec<_>>()[..] {
        ["v1", shard, name, topic, partition, pack] => {
            name == cluster
                && is_hex(shard, 2)
                && is_hex(topic, 32)
                && is_number(partition)
                && is_hex(pack, 32)
        }
        ["upkeep", "v1", "owner", name] => name == cluster,
        ["upkeep", "v1", "marks", name, at] => name == cluster && is_number(at),
        ["upkeep", "v1", "index", name, topic, partition, generation] => {
            let of_log = is_hex(topic, 32) && is_number(partition);
            name == cluster && of_log && is_numbered(generation)
        }
        ["upkeep", "v1", "rehydrate", name, from, to, partition, note] => {
            let of_logs = is_hex(from, 32) && is_hex(to, 32) && is_number(partition);
            let numbered =
                note.split_once('-').is_some_and(|(n, rest)| is_number(n) && is_numbered(rest));
            name == cluster && of_logs && numbered
        }
        _ => false,
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it is a time and an id.
fn is_numbered(text: &str) -> bool {
    text.split_once('-').is_some_and(|(at, id)| is_number(at) && is_hex(id, 32))
}

/// An upload and the bytes that it has, if the store tells them.
async fn measured<'a>(
    store: &ObjectStore,
    upload: &'a Upload,
) -> (&'a Upload, Result<Option<u64>, StoreError>) {
    match store.upload_bytes(upload).await {
        Err(StoreError::Refused(_)) => (upload, Ok(None)),
        bytes => (upload, bytes),
    }
}

/// Ends uploads, or finds out which would be. One that cannot be ended stops no other.
async fn end(
    store: &ObjectStore,
    uploads: &[(&Upload, Option<u64>)],
    order: Order,
    found: &mut Uploads,
) {
    let progress = Progress::new();
    let ends = uploads.iter().map(|(upload, bytes)| {
        async move { (*bytes, is_ended(store, upload, order).await) }.boxed()
    });
    let mut ends = stream::iter(ends).buffer_unordered(UPKEEP_AT_ONCE);
    let (mut done, mut failed) = (0, 0);
    while let Some((bytes, is_ended)) = ends.next().await {
        failed = if is_ended.is_err() { failed + 1 } else { 0 };
        match is_ended {
            Ok(true) => found.aborted.add(bytes),
            Ok(false) => found.kept.add(bytes),
            Err(error) => {
                found.note(error);
                if failed >= UPKEEP_AT_ONCE || fault::on("one-upload-stops-all") {
                    return;
                }
            }
        }
        done += 1;
        progress.show("aborting", done, uploads.len());
    }
}

/// Aborts an upload, unless the object of its key is there; whether it is gone then, or would be.
async fn is_ended(store: &ObjectStore, upload: &Upload, order: Order) -> Result<bool, StoreError> {
    match store.look(&upload.key).await {
        Err(StoreError::Missing(_)) => {}
        Ok(_) if fault::on("present-uploads-aborted") => {}
        Ok(_) => return Ok(false),
        Err(error) => return Err(error),
    }
    if order == Order::Abort && !fault::on("uploads-left") {
        store.abort(upload).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::offload::object_key;
    use crate::store::owner;

    #[test]
    fn uploads_belong_to_the_cluster_whose_name_is_in_keys_of_our_kinds() {
        let (id, at) = ("0a".repeat(16), "1".repeat(20));
        let pack = format!("v1/0a/main/{id}/10/{id}");
        let own = [
            object_key("main", &[0x0a; 16], &[7; 16], 10),
            pack.clone(),
            owner::key("main"),
            format!("upkeep/v1/marks/main/{at}"),
            format!("upkeep/v1/index/main/{id}/0/{at}-{id}"),
            format!("upkeep/v1/rehydrate/main/{id}/{id}/0/{at}-{at}-{id}"),
        ];
        for key in own {
            assert!(belongs(&key, "main"), "{key}");
            assert!(!belongs(&key, "mai") && !belongs(&key, &id), "{key}");
            for other in [format!("x/{key}"), format!("{key}/x"), format!("{key}/")] {
                assert!(!belongs(&other, "main"), "{other}");
            }
        }
        let others = [
            "main".to_owned(),
            "v1/0a/main/day".to_owned(),
            "upkeep/v1/backups/main/1".to_owned(),
            "upkeep/v1/marks/main/day".to_owned(),
            format!("upkeep/v1/index/main/{id}/0/{at}"),
            format!("upkeep/v1/rehydrate/main/{id}/{id}/0/{at}-{id}"),
            format!("v1/0A/main/{id}/10/{id}"),
            format!("v1/0a/main/{id}/x/{id}"),
            format!("v1/0a/main/{id}//{id}"),
            format!("v1/0a/main/{}/10/{id}", &id[1..]),
            pack.to_uppercase(),
            pack.replacen("v1", "v2", 1),
        ];
        for key in others {
            assert!(!belongs(&key, "main"), "{key}");
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
