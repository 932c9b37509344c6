//! Where large values are kept: one narrow interface over what stores them.
//!
//! Flow: whatever is asked is asked again within a time budget (`attempts`); only the modules below
//! name what stores. Invariant: `put` returns once the object survives a crash of this machine's
//! processes and of its operating system; an object is never changed afterwards.

mod attempts;
pub mod cache;
mod hedge;
pub mod lifecycle;
mod local;
mod memory;
pub mod owner;
mod s3;
pub mod shared;
pub mod uploads;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::crc32c;

use crate::config::{self, StoreKind};
use crate::fault;
use crate::limits::{LOCAL_LISTING, STORE_PAGE};
use attempts::Breaker;
pub use attempts::Failures;
use hedge::Hedge;
use lifecycle::Lifecycle;
use local::Local;
use memory::Memory;
#[cfg(feature = "sim")]
pub use memory::weather;
use s3::S3;

/// Why an object cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object {0} does not exist")]
    Missing(String),
    /// It is shorter than the reference says.
    #[error("object {key} ends before byte {end}")]
    Short {
        /// Its key.
        key: String,
        /// Where it should end at the earliest.
        end: u64,
    },
    /// Another object has this key.
    #[error("object {0} exists and is another one")]
    Taken(String),
    /// The store does not let us.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The store sent other bytes than were asked for.
    #[error("the store answers wrongly: {0}")]
    Garbled(String),
    /// The store says that it cannot now.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// There is no room in it.
    #[error("the store is full: {0}")]
    Full(String),
    /// No answer in time.
    #[error("the store did not answer in time")]
    Late,
    /// It failed so often that it is not asked for a while.
    #[error("the store failed {0} times in a row and is not asked for a while")]
    Resting(u32),
    /// The store failed.
    #[error("object store: {0}")]
    Io(#[from] io::Error),
}

impl StoreError {
    /// A short name, for the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Short { .. } => "short",
            Self::Taken(_) => "taken",
            Self::Refused(_) => "refused",
            Self::Garbled(_) => "garbled",
            Self::Busy(_) => "busy",
            Self::Full(_) => "full",
            Self::Late => "late",
            Self::Resting(_) => "resting",
            Self::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "full",
                _ => "io",
            },
        }
    }

    /// Whether the same may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Garbled(_)
            | Self::Busy(_)
            | Self::Full(_)
            | Self::Late
            | Self::Resting(_)
            | Self::Io(_) => true,
            Self::Missing(_) | Self::Short { .. } | Self::Taken(_) | Self::Refused(_) => false,
        }
    }
}

/// A piece of an object to store.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their CRC-32C.
    pub crc: u32,
}

impl Piece {
    /// Bytes whose CRC is not known yet.
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let crc = crc32c(&bytes);
        Self { bytes, crc }
    }
}

/// What was read of an object.
#[derive(Debug)]
pub struct Read {
    /// The bytes.
    pub bytes: Bytes,
    /// Their CRC-32C, where they were summed as they came.
    pub crc: Option<u32>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_at_ms: u64,
}

/// An object store.
#[derive(Debug)]
pub struct ObjectStore {
    kind: Kind,
    failures: Failures,
    /// `None`: who asks has time, and nobody beside it.
    breaker: Option<Breaker>,
    /// For stores behind a network.
    hedge: Option<Hedge>,
}

#[derive(Debug)]
enum Kind {
    Local(Local),
    Memory(Memory),
    S3(Box<S3>),
}

impl ObjectStore {
    /// Opens the configured store; what fails is counted and told.
    pub fn open(config: &config::Store, failures: Failures) -> io::Result<Self> {
        let kind = match &config.kind {
            StoreKind::Local(path) => Kind::Local(Local::open(path)?),
            StoreKind::Memory => Kind::Memory(Memory::default()),
            StoreKind::S3(s3) => Kind::S3(Box::new(S3::open(s3)?)),
        };
        let hedge = matches!(kind, Kind::S3(_)).then(Hedge::default);
        Ok(Self { kind, failures, breaker: Some(Breaker::default()), hedge })
    }

    /// For who has no clients that wait: it is asked on for all of its time, however often it
    /// fails in a row.
    pub fn patient(self) -> Self {
        match fault::on("upkeep-impatient") {
            true => self,
            false => Self { breaker: None, ..self },
        }
    }

    /// Reads that were asked twice since the last call, since the first took long.
    pub fn take_hedged(&self) -> u64 {
        self.hedge.as_ref().map_or(0, Hedge::take_count)
    }

    /// Keeps an object, given in pieces, for good. Fails if another object has the key.
    pub async fn put(&self, key: &str, object: &[Piece]) -> Result<(), StoreError> {
        attempts::put(self, key, object).await
    }

    /// Reads `length` bytes of an object from `offset` on.
    pub async fn get(&self, key: &str, offset: u64, length: usize) -> Result<Read, StoreError> {
        attempts::get(self, key, offset, length).await
    }

    /// The same, asked once at a time: never again beside while the first read takes long.
    pub async fn get_alone(
        &self,
        key: &str,
        offset: u64,
        length: usize,
    ) -> Result<Read, StoreError> {
        attempts::get_alone(self, key, offset, length).await
    }

    /// What a listing would show of one object.
    pub async fn look(&self, key: &str) -> Result<Listed, StoreError> {
        attempts::look(self, key).await
    }

    /// Bytes of an object.
    pub async fn size(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.look(key).await?.bytes)
    }

    /// Objects below `prefix` whose keys come after `after`, in order, as many as come at once;
    /// none when there are no more.
    pub async fn list(&self, prefix: &str, after: &str) -> Result<Vec<Listed>, StoreError> {
        attempts::list(self, prefix, after).await
    }

    /// Removes an object; one that is not there counts as removed.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        attempts::delete(self, key).await
    }

    /// Sets the rules that a bucket keeps by itself.
    pub async fn set_lifecycle(&self, wanted: Lifecycle) -> Result<(), StoreError> {
        match &self.kind {
            Kind::S3(s3) => s3.set_lifecycle(wanted).await,
            Kind::Local(_) | Kind::Memory(_) => {
                let text = "only a store of kind \"s3\" keeps rules by itself";
                Err(StoreError::Refused(text.to_owned()))
            }
        }
    }

    async fn look_once(&self, key: &str) -> Result<Listed, StoreError> {
        match &self.kind {
            Kind::Local(local) => local.look(key).await,
            Kind::Memory(memory) => memory.look(key),
            Kind::S3(s3) => Box::pin(s3.look(key)).await,
        }
    }

    async fn list_once(&self, prefix: &str, after: &str) -> Result<Vec<Listed>, StoreError> {
        match &self.kind {
            Kind::Local(local) => local.list(prefix, after).await,
            Kind::Memory(memory) => Ok(memory.list(prefix, after)),
            Kind::S3(s3) => Box::pin(s3.list(prefix, after)).await,
        }
    }

    /// Time for what is listed at once, besides that for any answer.
    fn listing_time(&self) -> Duration {
        match &self.kind {
            Kind::Local(_) => LOCAL_LISTING,
            Kind::Memory(_) | Kind::S3(_) => STORE_PAGE,
        }
    }

    async fn delete_once(&self, key: &str) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Local(local) => local.delete(key).await,
            Kind::Memory(memory) => {
                memory.delete(key);
                Ok(())
            }
            Kind::S3(s3) => Box::pin(s3.delete(key)).await,
        }
    }

    async fn put_once(&self, key: &str, object: &[Piece]) -> Result<(), StoreError> {
        if fault::on("store-put-fails") {
            return Err(io::Error::other("fault store-put-fails").into());
        }
        match &self.kind {
            Kind::Local(local) => local.put(key, object).await,
            #[cfg(feature = "sim")]
            Kind::Memory(memory) => {
                weather::pass().await?;
                memory.put(key, object)?;
                weather::pass().await
            }
            #[cfg(not(feature = "sim"))]
            Kind::Memory(memory) => memory.put(key, object),
            Kind::S3(s3) => s3.put(key, object).await,
        }
    }

    async fn get_once(&self, key: &str, offset: u64, length: usize) -> Result<Read, StoreError> {
        let unsummed = |bytes| Read { bytes, crc: None };
        match &self.kind {
            Kind::Local(local) => local.get(key, offset, length).await.map(unsummed),
            Kind::Memory(memory) => {
                #[cfg(feature = "sim")]
                {
                    weather::heard(key).await;
                    weather::pass().await?;
                }
                memory.get(key, offset, length).map(unsummed)
            }
            Kind::S3(s3) => s3.get(key, offset, length).await,
        }
    }
}
