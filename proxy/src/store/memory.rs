//! Objects in memory, for tests: gone with the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Listed, StoreError};
use crate::clock;

/// The objects.
#[derive(Debug, Default)]
pub struct Memory(RwLock<BTreeMap<String, (Bytes, u64)>>);

impl Memory {
    pub(super) fn put(&self, key: &str, object: &[Bytes]) -> Result<(), StoreError> {
        let mut objects = self.0.write();
        if objects.contains_key(key) {
            return Err(StoreError::Taken(key.to_owned()));
        }
        objects.insert(key.to_owned(), (object.concat().into(), clock::unix_ms()));
        Ok(())
    }

    pub(super) fn get(&self, key: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let objects = self.0.read();
        let missing = || StoreError::Missing(key.to_owned());
        let (object, _) = objects.get(key).ok_or_else(missing)?;
        let end = offset.saturating_add(length as u64);
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        match range {
            Some((from, to)) if to <= object.len() => Ok(object.slice(from..to)),
            _ => Err(StoreError::Short { key: key.to_owned(), end }),
        }
    }

    pub(super) fn size(&self, key: &str) -> Result<u64, StoreError> {
        let objects = self.0.read();
        let missing = || StoreError::Missing(key.to_owned());
        objects.get(key).map(|(object, _)| object.len() as u64).ok_or_else(missing)
    }

    pub(super) fn list(&self, prefix: &str, after: &str) -> Vec<Listed> {
        let objects = self.0.read();
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let found = found.filter(|(key, _)| key.as_str() > after);
        let listed = |(key, (object, at)): (&String, &(Bytes, u64))| Listed {
            key: key.clone(),
            bytes: object.len() as u64,
            written_at_ms: *at,
        };
        found.take(PAGE).map(listed).collect()
    }

    pub(super) fn delete(&self, key: &str) {
        self.0.write().remove(key);
    }
}

/// Objects listed at once, as of S3.
const PAGE: usize = 1000;
