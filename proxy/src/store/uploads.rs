//! Uploads in parts that are not complete, as a listing shows them. Only a bucket has such: what a
//! directory has of them is removed when it is opened.

use std::time::Duration;

use super::{Kind, ObjectStore, StoreError, attempts};
use crate::limits::STORE_PAGE;
use crate::metrics::StoreOp;

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Key of the object that it was to become.
    pub key: String,
    /// Its name; several may have one key.
    pub id: String,
    /// When it was begun, in milliseconds since 1970; `None` where nobody tells.
    pub begun_at_ms: Option<u64>,
}

/// Where a listing goes on: behind the upload of this key and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The key.
    pub key: String,
    /// The name.
    pub id: String,
}

/// Uploads that were listed at once.
#[derive(Debug, Default)]
pub struct Page {
    /// The uploads.
    pub uploads: Vec<Upload>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<Mark>,
}

impl ObjectStore {
    /// Uploads of the whole store, whoever began them, as many as come at once. All of it is asked
    /// for, since some services know only uploads of one key, or all.
    pub async fn uploads(&self, after: Option<&Mark>) -> Result<Page, StoreError> {
        attempts::again(self, StoreOp::Uploads, STORE_PAGE, || self.uploads_once(after)).await
    }

    /// Bytes of the parts that an upload has; `None` if there are too many to tell.
    pub async fn upload_bytes(&self, upload: &Upload) -> Result<Option<u64>, StoreError> {
        attempts::again(self, StoreOp::Uploads, STORE_PAGE, || self.parts_once(upload)).await
    }

    /// Ends an upload and removes its parts; one that is not there counts as ended.
    pub async fn abort(&self, upload: &Upload) -> Result<(), StoreError> {
        attempts::again(self, StoreOp::Abort, Duration::ZERO, || self.abort_once(upload)).await
    }

    async fn uploads_once(&self, after: Option<&Mark>) -> Result<Page, StoreError> {
        match &self.kind {
            Kind::S3(s3) => Box::pin(s3.uploads(after)).await,
            Kind::Local(_) | Kind::Memory(_) => Ok(Page::default()),
        }
    }

    async fn parts_once(&self, upload: &Upload) -> Result<Option<u64>, StoreError> {
        match &self.kind {
            Kind::S3(s3) => Box::pin(s3.upload_bytes(upload)).await,
            Kind::Local(_) | Kind::Memory(_) => Ok(None),
        }
    }

    async fn abort_once(&self, upload: &Upload) -> Result<(), StoreError> {
        match &self.kind {
            Kind::S3(s3) => Box::pin(s3.abort(upload)).await,
            Kind::Local(_) | Kind::Memory(_) => Ok(()),
        }
    }
}
