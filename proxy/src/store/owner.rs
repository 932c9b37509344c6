//! Whose objects lie below a cluster's name: Kafka's own id of the cluster, as an object.
//!
//! Names are given by hand, and two clusters of one name in one bucket look like one: upkeep of
//! one would take the objects of the other for unreferenced. The first that comes writes its id;
//! whoever has another id is told.

use super::{ObjectStore, Piece, StoreError};
use crate::limits::STORE_ATTEMPT;

/// Who owns the objects of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The cluster that asks.
    Us,
    /// Nobody yet.
    Nobody,
    /// A cluster of this id.
    Other(String),
}

/// Who owns the objects of the cluster name `name`, as the cluster of the id `id` sees it.
pub async fn of(store: &ObjectStore, name: &str, id: &str) -> Result<Owner, StoreError> {
    let key = key(name);
    let bytes = match store.size(&key).await {
        Err(StoreError::Missing(_)) => return Ok(Owner::Nobody),
        bytes => usize::try_from(bytes?).unwrap_or(usize::MAX).min(ID_BYTES_MAX),
    };
    let text = store.get(&key, 0, bytes).await?.bytes;
    Ok(match String::from_utf8_lossy(&text).trim() {
        text if text == id => Owner::Us,
        text => Owner::Other(text.to_owned()),
    })
}

/// The same; what nobody owns is the asker's from now on.
pub async fn claim(store: &ObjectStore, name: &str, id: &str) -> Result<Owner, StoreError> {
    let found = of(store, name, id).await?;
    if found != Owner::Nobody {
        return Ok(found);
    }
    match store.put(&key(name), &[Piece::of(id.to_owned())]).await {
        Ok(()) | Err(StoreError::Taken(_)) => of(store, name, id).await,
        Err(error) => Err(error),
    }
}

/// Asks a store for a byte of who owns a name; that there is no owner yet is an answer too. What
/// packs are read with is enough for it.
pub async fn probe(store: &ObjectStore, name: &str) -> Result<(), StoreError> {
    let key = key(name);
    let got = tokio::time::timeout(STORE_ATTEMPT, store.get_once(&key, 0, 1)).await;
    match got.unwrap_or(Err(StoreError::Late)) {
        Ok(_) | Err(StoreError::Missing(_) | StoreError::Short { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The object that says who owns a cluster name.
pub fn key(name: &str) -> String {
    format!("{OWNERS}{name}")
}

/// Where owners are said.
const OWNERS: &str = "upkeep/v1/owner/";

/// Longest id that is compared; Kafka's have 22 bytes.
const ID_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Store, StoreKind};
    use crate::store::Failures;

    #[tokio::test]
    async fn a_name_belongs_to_the_first_that_claims_it_and_asking_claims_nothing() {
        let kind = StoreKind::Memory;
        let config = Store { kind, key_file: None, cache_bytes: 0, shared: None };
        let store = ObjectStore::open(&config, Failures::default()).expect("a store");
        assert_eq!(of(&store, "main", "a").await.expect("an answer"), Owner::Nobody);
        assert_eq!(claim(&store, "main", "a").await.expect("an answer"), Owner::Us);
        let other = Owner::Other("a".to_owned());
        assert_eq!(claim(&store, "main", "b").await.expect("an answer"), other);
        assert_eq!(of(&store, "main", "a").await.expect("an answer"), Owner::Us);
        assert_eq!(claim(&store, "other", "b").await.expect("an answer"), Owner::Us);
    }
}
