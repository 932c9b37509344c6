//! Where large values are kept: one narrow interface over what stores them.
//!
//! Invariant: `put` returns once the object survives a crash of this machine's processes and of
//! its operating system; an object is never changed afterwards.

mod local;

use std::io;

use bytes::Bytes;

use crate::config;
use local::Local;

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
    /// The store failed.
    #[error("object store: {0}")]
    Io(#[from] io::Error),
}

/// An object store.
#[derive(Debug)]
pub enum ObjectStore {
    /// A directory.
    Local(Local),
}

impl ObjectStore {
    /// Opens the configured store.
    pub fn open(config: &config::Store) -> io::Result<Self> {
        Local::open(&config.path).map(Self::Local)
    }

    /// Keeps an object for good. Fails if the key is taken.
    pub async fn put(&self, key: &str, object: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.put(key, object).await,
        }
    }

    /// Reads `length` bytes of an object from `offset` on.
    pub async fn get(&self, key: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        match self {
            Self::Local(local) => local.get(key, offset, length).await,
        }
    }
}
