//! Rules of the bucket: read, those of ours put in the place of older ones, written back.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleRule,
    LifecycleRuleFilter, Transition, TransitionStorageClass,
};

use super::{S3, failed};
use crate::fault;
use crate::store::StoreError;
use crate::store::lifecycle::{COLD, Lifecycle, PACKS, UPLOAD_DAYS, UPLOADS};

/// What a service says that has no rules yet.
const NONE: &str = "NoSuchLifecycleConfiguration";

impl S3 {
    /// Sets the rules; others stay.
    pub(in crate::store) async fn set_lifecycle(
        &self,
        wanted: Lifecycle,
    ) -> Result<(), StoreError> {
        let what = format!("the lifecycle of bucket {}", self.bucket);
        let asked = self.client.get_bucket_lifecycle_configuration().bucket(&self.bucket);
        let rules = match asked.send().await {
            Ok(found) => found.rules.unwrap_or_default(),
            Err(error) if error.as_service_error().is_some_and(is_none) => Vec::new(),
            Err(error) => return Err(failed(&what, error)),
        };
        let foreign = |rule: &LifecycleRule| {
            !rule.id().is_some_and(|id| id == COLD || id == UPLOADS)
                && !fault::on("foreign-rules-dropped")
        };
        let rules = rules.into_iter().filter(foreign).chain(own(wanted)?).collect();
        let all = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
        let all = all.map_err(|error| StoreError::Refused(error.to_string()))?;
        let put = self.client.put_bucket_lifecycle_configuration().bucket(&self.bucket);
        let put = put.lifecycle_configuration(all).send().await;
        put.map(drop).map_err(|error| failed(&what, error))
    }
}

fn is_none(error: &impl aws_sdk_s3::error::ProvideErrorMetadata) -> bool {
    error.code() == Some(NONE)
}

fn own(wanted: Lifecycle) -> Result<Vec<LifecycleRule>, StoreError> {
    let rule = |id: &str, prefix: &str| {
        LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
    };
    let cold = Transition::builder()
        .days(wanted.cold_after_days.into())
        .storage_class(TransitionStorageClass::from(wanted.class.name()))
        .build();
    let uploads =
        AbortIncompleteMultipartUpload::builder().days_after_initiation(UPLOAD_DAYS).build();
    let uploads_below = if fault::on("all-uploads-ended") { "" } else { PACKS };
    let rules = [
        rule(COLD, PACKS).transitions(cold).build(),
        rule(UPLOADS, uploads_below).abort_incomplete_multipart_upload(uploads).build(),
    ];
    let rules: Result<Vec<_>, _> = rules.into_iter().collect();
    rules.map_err(|error| StoreError::Refused(error.to_string()))
}
