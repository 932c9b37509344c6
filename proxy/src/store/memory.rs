//! Objects in memory, for tests: gone with the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Listed, Piece, StoreError};
use crate::clock;

/// Objects by key, with the time each was written.
type Objects = BTreeMap<String, (Bytes, u64)>;

/// The objects.
#[derive(Debug, Default)]
pub struct Memory(
    #[cfg(not(feature = "sim"))] RwLock<Objects>,
    #[cfg(feature = "sim")] weather::Shared,
);

impl Memory {
    pub(super) fn put(&self, key: &str, object: &[Piece]) -> Result<(), StoreError> {
        let pieces: Vec<_> = object.iter().map(|piece| &piece.bytes[..]).collect();
        let mut objects = self.0.write();
        if objects.contains_key(key) {
            return Err(StoreError::Taken(key.to_owned()));
        }
        objects.insert(key.to_owned(), (pieces.concat().into(), clock::unix_ms()));
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

    pub(super) fn look(&self, key: &str) -> Result<Listed, StoreError> {
        let objects = self.0.read();
        let missing = || StoreError::Missing(key.to_owned());
        let (object, written_at_ms) = objects.get(key).ok_or_else(missing)?;
        let (bytes, written_at_ms) = (object.len() as u64, *written_at_ms);
        Ok(Listed { key: key.to_owned(), bytes, written_at_ms })
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

/// In a simulation objects outlive the process that stored them, and storing takes its time.
#[cfg(feature = "sim")]
pub mod weather {
    use std::cell::RefCell;
    use std::ops::Deref;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Objects, RwLock, StoreError};
    use crate::random;

    /// How the store does.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Weather {
        /// Longest time that an attempt takes.
        pub late: Duration,
        /// So many halves of attempts fail of [`ALWAYS`], the second half of one once it took
        /// effect.
        pub failing: usize,
    }

    /// Every attempt fails.
    pub const ALWAYS: usize = 20;

    #[derive(Default)]
    struct Place {
        objects: Arc<RwLock<Objects>>,
        weather: Option<Weather>,
        silent: Option<String>,
    }

    thread_local! {
        static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
    }

    /// An empty store for the simulation that this thread begins; `None` at its end.
    pub fn begin(weather: Option<Weather>) {
        PLACE.set(weather.map(|weather| Place { weather: Some(weather), ..Place::default() }));
    }

    /// Objects that are kept, and their bytes.
    pub fn kept() -> (usize, usize) {
        PLACE.with_borrow(|place| {
            let Some(place) = place else { return (0, 0) };
            let objects = place.objects.read();
            (objects.len(), objects.values().map(|(bytes, _)| bytes.len()).sum())
        })
    }

    /// From now on the store does so.
    pub fn set(weather: Weather) {
        PLACE.with_borrow_mut(|place| {
            if let Some(place) = place {
                place.weather = Some(weather);
            }
        });
    }

    /// From now on reads of objects with this text in their keys are never answered.
    pub fn silence(text: Option<&str>) {
        PLACE.with_borrow_mut(|place| {
            if let Some(place) = place {
                place.silent = text.map(str::to_owned);
            }
        });
    }

    /// Comes to an end unless an object is silent.
    pub async fn heard(key: &str) {
        let is_silent =
            |place: &Place| place.silent.as_ref().is_some_and(|text| key.contains(text));
        if PLACE.with_borrow(|place| place.as_ref().is_some_and(is_silent)) {
            std::future::pending::<()>().await;
        }
    }

    /// The objects of a simulation, or of this process.
    #[derive(Debug)]
    pub struct Shared(Arc<RwLock<Objects>>);

    impl Default for Shared {
        fn default() -> Self {
            let there = PLACE.with_borrow(|place| place.as_ref().map(|p| p.objects.clone()));
            Self(there.unwrap_or_default())
        }
    }

    impl Deref for Shared {
        type Target = RwLock<Objects>;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    /// Passes the time of half an attempt, which may fail.
    pub async fn pass() -> Result<(), StoreError> {
        let weather = PLACE.with_borrow(|place| place.as_ref().and_then(|place| place.weather));
        let Some(Weather { late, failing }) = weather else { return Ok(()) };
        let ms = usize::try_from(late.as_millis() / 2).unwrap_or(0);
        let ms = u64::try_from(random::below(ms + 1)).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if random::below(ALWAYS) < failing {
            return Err(StoreError::Busy("as the simulation has it".to_owned()));
        }
        Ok(())
    }
}
