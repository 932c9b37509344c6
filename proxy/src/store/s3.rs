//! A bucket as an object store, by the AWS SDK; the one module that names it.
//!
//! Flow: objects are in memory, so an attempt can be repeated; the SDK's own retries are off, since
//! `attempts` has the budget. Invariant: a range is given out only if the service says that it is
//! the one asked for and all its bytes came; never more is read than was asked for.

mod body;
mod lifecycle;
mod uploads;

use std::io;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    self, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls;
use bytes::{Bytes, BytesMut};
use protocol_ext::batch::crc32c_appended;

use self::body::Body;
use super::{Listed, Piece, Read, StoreError};
use crate::config::{S3 as Config, is_plain};
use crate::fault;
use crate::limits::MULTIPART_BYTES_MIN;
use crate::tasks::Tasks;

/// Time to reach the service.
const CONNECT: Duration = Duration::from_secs(2);
/// A body that stands still this long is given up.
const STALLED: Duration = Duration::from_secs(20);

/// A bucket.
#[derive(Debug)]
pub struct S3 {
    client: Client,
    bucket: String,
    /// Whether bodies are signed byte for byte.
    sign_payload: bool,
    /// Whether bodies have a checksum, which is signed.
    checksum: bool,
    /// Uploads in parts that are being given up.
    aborting: Tasks,
}

impl S3 {
    /// Makes a client; nothing is asked yet.
    pub fn open(config: &Config) -> io::Result<Self> {
        let http = aws_smithy_http_client::Builder::new();
        let http = if is_plain(config.endpoint.as_deref()) {
            // Without TLS no certificates are loaded.
            http.build_http()
        } else {
            http.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
                .build_https()
        };
        let who = config.credentials.clone();
        let who =
            Credentials::new(who.access_key, who.secret_key, who.session_token, None, "firebreak");
        let (request, response) = if config.checksum_always {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        } else {
            (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
        };
        let stalled = StalledStreamProtectionConfig::enabled().grace_period(STALLED).build();
        let mut builder = config::Builder::new()
            .http_client(http)
            .region(Region::new(config.region.clone()))
            .credentials_provider(who)
            .force_path_style(config.path_style)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
            .stalled_stream_protection(stalled)
            .request_checksum_calculation(request)
            .response_checksum_validation(response);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Ok(Self {
            client: Client::from_conf(builder.build()),
            bucket: config.bucket.clone(),
            sign_payload: config.sign_payload,
            checksum: config.checksum_always || !config.sign_payload,
            aborting: Tasks::default(),
        })
    }

    pub(super) async fn put(&self, key: &str, object: &[Piece]) -> Result<(), StoreError> {
        let bytes: usize = object.iter().map(|piece| piece.bytes.len()).sum();
        if bytes >= MULTIPART_BYTES_MIN {
            return self.put_in_parts(key, object, bytes).await;
        }
        let body = Body::of(object, 0, bytes);
        let put = self.client.put_object().bucket(&self.bucket).key(key);
        let put = put.set_checksum_crc32_c(self.checksum(&body));
        let put = put.body(self.stream(body)).customize();
        let put = if self.sign_payload { put } else { put.disable_payload_signing() };
        put.send().await.map(drop).map_err(|error| self.unsent(key, error))
    }

    fn stream(&self, body: Body) -> ByteStream {
        if self.sign_payload { body.joined() } else { body.in_pieces() }
    }

    /// The checksum that a body is sent with, if any.
    fn checksum(&self, body: &Body) -> Option<String> {
        (self.checksum && !fault::on("checksum-unsent")).then(|| body.checksum())
    }

    /// What an error of a service means that was sent a body.
    fn unsent<E>(&self, key: &str, error: SdkError<E>) -> StoreError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let status = status(&error);
        let hashed = error.code() == Some(OTHER_HASH);
        let failed = failed(key, error);
        let refused = matches!(failed, StoreError::Refused(_));
        let may_help = hashed || (refused && matches!(status, Some(400 | 403 | 501)));
        match failed {
            StoreError::Refused(text) | StoreError::Garbled(text)
                if may_help && !self.sign_payload =>
            {
                let hint = "if it takes no unsigned payload or no CRC-32C: store.sign_payload";
                StoreError::Refused(format!("{text} ({hint} = true)"))
            }
            other => other,
        }
    }

    pub(super) async fn get(
        &self,
        key: &str,
        offset: u64,
        length: usize,
    ) -> Result<Read, StoreError> {
        if length == 0 {
            return Ok(Read { bytes: Bytes::new(), crc: None });
        }
        let end = offset.saturating_add(length as u64);
        let range = format!("bytes={offset}-{}", end - 1);
        let get = self.client.get_object().bucket(&self.bucket).key(key).range(range);
        let mut got = get.send().await.map_err(|error| match failed(key, error) {
            StoreError::Short { key, .. } => StoreError::Short { key, end },
            other => other,
        })?;
        let said = got.content_range().unwrap_or_default();
        let total = said.rsplit_once('/').and_then(|(_, total)| total.parse::<u64>().ok());
        let begins = said.starts_with(&format!("bytes {offset}-"));
        if begins && total.is_some_and(|total| total < end) {
            return Err(StoreError::Short { key: key.to_owned(), end });
        }
        if !said.starts_with(&format!("bytes {offset}-{}/", end - 1)) {
            let text = format!("\"{said}\" of {key} instead of bytes {offset} to {}", end - 1);
            return Err(StoreError::Garbled(text));
        }
        let mut object = BytesMut::with_capacity(length);
        let mut crc = 0;
        loop {
            let chunk = match got.body.try_next().await {
                Ok(None) => break,
                Ok(Some(chunk)) => chunk,
                Err(error) => return Err(StoreError::Busy(chain(&error))),
            };
            if object.len() + chunk.len() > length {
                return Err(StoreError::Garbled(format!("more bytes of {key} than asked for")));
            }
            // It was just copied here, so summing it now costs least.
            crc = crc32c_appended(crc, &chunk);
            object.extend_from_slice(&chunk);
        }
        if object.len() < length {
            let text = format!("{} of {length} bytes of {key}", object.len());
            return Err(StoreError::Garbled(text));
        }
        Ok(Read { bytes: object.freeze(), crc: Some(crc) })
    }

    pub(super) async fn look(&self, key: &str) -> Result<Listed, StoreError> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let head = head.map_err(|error| match status(&error) {
            // Answers to HEAD have no body that would say what is not there.
            Some(404) => StoreError::Missing(key.to_owned()),
            _ => failed(key, error),
        })?;
        let bytes = head.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        Ok(Listed { key: key.to_owned(), bytes, written_at_ms: ms(head.last_modified()) })
    }

    pub(super) async fn list(&self, prefix: &str, after: &str) -> Result<Vec<Listed>, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let list = if after.is_empty() { list } else { list.start_after(after) };
        let page = list.send().await.map_err(|error| failed(prefix, error))?;
        let listed = page.contents.unwrap_or_default().into_iter().map(|object| Listed {
            key: object.key.unwrap_or_default(),
            bytes: object.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            written_at_ms: ms(object.last_modified.as_ref()),
        });
        Ok(listed.collect())
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        deleted.map(drop).map_err(|error| failed(key, error))
    }
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// A time in milliseconds since 1970; 0 where none is told.
fn ms(at: Option<&aws_sdk_s3::primitives::DateTime>) -> u64 {
    let ms = at.and_then(|at| at.to_millis().ok());
    ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)
}

/// What the service says of an object that is not there.
const NO_SUCH_KEY: &str = "NoSuchKey";

/// What it says of a body whose SHA-256 is not the one that was signed.
const OTHER_HASH: &str = "XAmzContentSHA256Mismatch";

/// What an error of the service or of the way to it means.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn failed<E>(key: &str, error: SdkError<E>) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let status = status(&error);
    let code = error.code().unwrap_or_default().to_owned();
    let text = match status {
        Some(status) => format!("{status} {code} for {key}"),
        None => format!("{} for {key}", chain(&error)),
    };
    match (status, code.as_str()) {
        (Some(404), "NoSuchBucket") => StoreError::Refused(text),
        (Some(404), NO_SUCH_KEY) => StoreError::Missing(key.to_owned()),
        (Some(404), _) if fault::on("any-404-is-missing") => StoreError::Missing(key.to_owned()),
        // Something else answers in the service's place, such as a gateway that has lost it.
        (Some(404), _) => StoreError::Busy(text),
        (Some(412), _) => StoreError::Taken(key.to_owned()),
        (Some(416), _) => StoreError::Short { key: key.to_owned(), end: 0 },
        // A clock that is off is put right by the SDK for the next attempt.
        (Some(403), "RequestTimeTooSkewed") => StoreError::Busy(text),
        // Insufficient storage, as MinIO says it.
        (Some(507), _) => StoreError::Full(text),
        // What it does not know it will not know later.
        (Some(501), _) => StoreError::Refused(text),
        // An error behind a status of success: the service says so of a Complete that it began.
        (Some(200..=299 | 409 | 429 | 500..), _) | (None, _) => StoreError::Busy(text),
        // A checksum that does not fit: damaged on the way.
        (
            Some(400),
            "BadDigest" | OTHER_HASH | "XAmzContentChecksumMismatch" | "IncompleteBody",
        ) => StoreError::Garbled(text),
        (Some(400), "RequestTimeout") => StoreError::Busy(text),
        _ => StoreError::Refused(text),
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
