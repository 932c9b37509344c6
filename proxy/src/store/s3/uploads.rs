//! Uploads in parts: an object is there once all its parts are, and not before.
//!
//! begun -> parts, some side by side -> complete. Invariant: an upload that cannot have become
//! complete is aborted, whatever failed and whoever has stopped waiting for it, as long as this
//! process runs and the service lets it: a few times at most. One that may have, since the service
//! was told to complete it and did not say what came of that, is never aborted here: its parts may
//! be an object. What is left so, by a crash or at the end of a process, `gc` lists; it aborts what
//! has no object.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Body, S3, failed, ms, status};
use crate::limits::{MULTIPART_AT_ONCE, MULTIPART_PART_BYTES, STORE_ATTEMPT};
use crate::store::uploads::{Mark, Page, Upload};
use crate::store::{Piece, StoreError};
use crate::tasks::Tasks;
use crate::{fault, random};

/// What the service says of an upload that is not there.
const NO_SUCH_UPLOAD: &str = "NoSuchUpload";
/// An upload is aborted so often at most, until it is not there: a part that was on its way may
/// have come behind the first abort.
const ABORTS_MAX: u32 = 3;
/// Pause between two of them.
const ABORT_PAUSE: Duration = Duration::from_secs(1);

impl S3 {
    /// Stores an object in parts, which are sent side by side.
    pub(super) async fn put_in_parts(
        &self,
        key: &str,
        object: &[Piece],
        bytes: usize,
    ) -> Result<(), StoreError> {
        let create = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let algorithm = self.checksum.then_some(ChecksumAlgorithm::Crc32C);
        let create = create.set_checksum_algorithm(algorithm);
        let created = create.send().await.map_err(|error| self.unsent(key, error))?;
        let mut begun = self.begun(key, created.upload_id.unwrap_or_default());
        let parts = self.send_parts(key, &begun.upload.id, object, bytes).await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.client.complete_multipart_upload().bucket(&self.bucket).key(key);
        let complete = complete.upload_id(&begun.upload.id).multipart_upload(parts);
        // From here on it may be an object, also where nobody waits for the answer.
        begun.is_open = false;
        let completed = complete.send().await;
        let unsure_too = fault::on("unsure-uploads-aborted");
        begun.is_open = completed.as_ref().is_err_and(|error| is_denied(error) || unsure_too);
        completed.map(drop).map_err(|error| self.unsent(key, error))
    }

    async fn send_parts(
        &self,
        key: &str,
        upload: &str,
        object: &[Piece],
        bytes: usize,
    ) -> Result<Vec<CompletedPart>, StoreError> {
        let starts = (0..bytes).step_by(MULTIPART_PART_BYTES);
        let parts = starts.zip(1..).map(|(from, number)| {
            let body = Body::of(object, from, MULTIPART_PART_BYTES.min(bytes - from));
            let checksum = self.checksum(&body);
            let part = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload);
            let part = part.part_number(number).set_checksum_crc32_c(checksum.clone());
            let part = part.body(self.stream(body)).customize();
            let part = if self.sign_payload { part } else { part.disable_payload_signing() };
            let sent = async move {
                let sent = part.send().await.map_err(|error| self.unsent(key, error))?;
                let done = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
                Ok::<_, StoreError>(done.set_checksum_crc32_c(checksum).build())
            };
            sent.boxed()
        });
        let parts: Vec<_> = parts.collect();
        stream::iter(parts).buffered(MULTIPART_AT_ONCE).try_collect().await
    }

    fn begun(&self, key: &str, id: String) -> Begun {
        let upload = Upload { key: key.to_owned(), id, begun_at_ms: None };
        let (client, bucket) = (self.client.clone(), self.bucket.clone());
        Begun { client, bucket, upload, aborting: self.aborting.clone(), is_open: true }
    }

    pub(in crate::store) async fn uploads(&self, after: Option<&Mark>) -> Result<Page, StoreError> {
        let list = self.client.list_multipart_uploads().bucket(&self.bucket);
        let list = match after {
            Some(Mark { key, id }) => list.key_marker(key).upload_id_marker(id),
            None => list,
        };
        let what = || format!("the uploads of bucket {}", self.bucket);
        let page = list.send().await.map_err(|error| failed(&what(), error))?;
        let listed = page.uploads.unwrap_or_default().into_iter().map(|upload| Upload {
            key: upload.key.unwrap_or_default(),
            id: upload.upload_id.unwrap_or_default(),
            begun_at_ms: upload.initiated.map(|at| ms(Some(&at))).filter(is_told),
        });
        let next = (page.next_key_marker, page.next_upload_id_marker);
        let next = match (page.is_truncated, next) {
            (Some(true), (Some(key), id)) => Some(Mark { key, id: id.unwrap_or_default() }),
            _ => None,
        };
        if next.is_some() && next.as_ref() == after {
            return Err(StoreError::Garbled(format!("{} come without an end", what())));
        }
        Ok(Page { uploads: listed.collect(), next })
    }

    pub(in crate::store) async fn upload_bytes(
        &self,
        upload: &Upload,
    ) -> Result<Option<u64>, StoreError> {
        let list = self.client.list_parts().bucket(&self.bucket).key(&upload.key);
        let page = match list.upload_id(&upload.id).send().await {
            Ok(page) => page,
            // It came to its end meanwhile.
            Err(error) if error.code() == Some(NO_SUCH_UPLOAD) => return Ok(Some(0)),
            Err(error) => return Err(failed(&upload.key, error)),
        };
        if page.is_truncated == Some(true) {
            return Ok(None);
        }
        let sizes = page.parts.unwrap_or_default().into_iter().filter_map(|part| part.size);
        Ok(Some(sizes.filter_map(|bytes| u64::try_from(bytes).ok()).sum()))
    }

    pub(in crate::store) async fn abort(&self, upload: &Upload) -> Result<(), StoreError> {
        abort(&self.client, &self.bucket, upload).await.map(drop)
    }
}

/// Whether the service says that it did not do what it was asked for. An error of its own, or of
/// what stands before it, does not say so.
fn is_denied<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let unsure = matches!(status(error), Some(404 | 408 | 409 | 429));
    let unsure = unsure || error.code() == Some("RequestTimeout");
    matches!(status(error), Some(400..=499)) && !unsure
}

/// Whether a time is one: services that know none tell the beginning of 1970, or of the calendar.
fn is_told(ms: &u64) -> bool {
    *ms > 0 || fault::on("no-time-is-a-time")
}

/// Whether there was something to abort.
async fn abort(client: &Client, bucket: &str, upload: &Upload) -> Result<bool, StoreError> {
    let abort = client.abort_multipart_upload().bucket(bucket).key(&upload.key);
    match abort.upload_id(&upload.id).send().await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(NO_SUCH_UPLOAD) => Ok(false),
        Err(error) => Err(failed(&upload.key, error)),
    }
}

/// An upload of ours. If it is open when this is dropped, which is also what becomes of it where
/// its time is over, it is aborted in the background.
struct Begun {
    client: Client,
    bucket: String,
    upload: Upload,
    aborting: Tasks,
    /// Whether it cannot be complete.
    is_open: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_open || fault::on("upload-unaborted") {
            return;
        }
        let (client, bucket) = (self.client.clone(), self.bucket.clone());
        let upload = self.upload.clone();
        self.aborting.spawn_here(async move { give_up(&client, &bucket, &upload).await });
    }
}

/// Aborts an upload until it is not there any more, a few times at most.
async fn give_up(client: &Client, bucket: &str, upload: &Upload) {
    for n in 0..ABORTS_MAX {
        if n > 0 {
            tokio::time::sleep(random::jittered(ABORT_PAUSE)).await;
        }
        let asked = tokio::time::timeout(STORE_ATTEMPT, abort(client, bucket, upload)).await;
        match asked.unwrap_or(Err(StoreError::Late)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let key = &upload.key;
                tracing::debug!(%error, key, "parts of a failed upload may be left: gc finds them");
            }
        }
    }
}
