//! Values made of files that may change while the process runs: certificates, users, passwords.
//!
//! files -> load -> value in force; a later look finds other files -> load again -> swap.
//! Invariant: what cannot be loaded never takes the place of what is in force.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::fault;

/// Size, time of change and inode of each file; what is not there is told by its error.
type Stamp = Vec<Result<(u64, i64, i64, u64), io::ErrorKind>>;

/// Loads a value anew, or tells why it cannot.
type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing new, or files that are being written.
    Same,
    /// A new value is in force.
    Renewed,
    /// The files changed and cannot be used; the old value stays in force.
    Failed(String),
}

/// A value and the files that it is made of.
pub struct Watched<T> {
    value: RwLock<Arc<T>>,
    files: Vec<PathBuf>,
    load: Load<T>,
    stamps: Mutex<Stamps>,
}

struct Stamps {
    loaded: Stamp,
    seen: Stamp,
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// Loads the value for the first time.
    pub fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let loaded = stamp(&files);
        let value = RwLock::new(Arc::new(load()?));
        let stamps = Mutex::new(Stamps { seen: loaded.clone(), loaded });
        Ok(Self { value, files, load: Box::new(load), stamps })
    }

    /// The value in force.
    pub fn get(&self) -> Arc<T> {
        self.value.read().clone()
    }

    /// The files, for logs.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Something whose files can be looked at again.
pub trait Watch: Send + Sync {
    /// Looks at the files. A change counts once they stood still from one look to the next.
    fn look(&self) -> Look;
    /// Their names, for logs.
    fn names(&self) -> String;
}

impl<T: Send + Sync> Watch for Watched<T> {
    fn look(&self) -> Look {
        let now = stamp(&self.files);
        let mut stamps = self.stamps.lock();
        let still = now == stamps.seen;
        stamps.seen.clone_from(&now);
        if !still || now == stamps.loaded || fault::on("renewal-ignored") {
            return Look::Same;
        }
        stamps.loaded = now;
        match (self.load)() {
            Ok(value) => {
                *self.value.write() = Arc::new(value);
                Look::Renewed
            }
            Err(why) => Look::Failed(why),
        }
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    }
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let of = |file: &PathBuf| match std::fs::metadata(file) {
        Ok(meta) => Ok((meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ino())),
        Err(error) => Err(error.kind()),
    };
    files.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(file: &std::path::Path) -> Watched<u32> {
        let path = file.to_owned();
        let load = move || {
            let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        Watched::new(vec![file.to_owned()], load).expect("a number")
    }

    #[test]
    fn a_change_counts_once_it_stands_still_and_damage_leaves_the_old_value() {
        let name = format!("firebreak-watched-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "1").expect("written");
        let watched = number(&file);
        assert_eq!((watched.look(), *watched.get()), (Look::Same, 1));
        std::fs::write(&file, "22").expect("written");
        assert_eq!((watched.look(), *watched.get()), (Look::Same, 1));
        assert_eq!((watched.look(), *watched.get()), (Look::Renewed, 22));
        std::fs::write(&file, "three").expect("written");
        assert_eq!(watched.look(), Look::Same);
        assert!(matches!(watched.look(), Look::Failed(_)), "damage is told");
        assert_eq!((watched.look(), *watched.get()), (Look::Same, 22));
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(watched.look(), Look::Same);
        assert!(matches!(watched.look(), Look::Failed(_)), "so is a missing file");
        assert_eq!(*watched.get(), 22);
    }
}
