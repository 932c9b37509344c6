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
    /// What was told of a load that failed, and of which files: it is told once.
    failed: Option<(Stamp, String)>,
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
        let stamps = Mutex::new(Stamps { seen: loaded.clone(), loaded, failed: None });
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
    /// Looks at the files. A change counts once they stood still from one look to the next. What
    /// cannot be loaded is tried again at every look: it may become readable though no byte of it
    /// changes. The same failure is told once.
    fn look(&self) -> Look;
    /// Has a failure told again.
    fn tell_again(&self);
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
        match (self.load)() {
            Ok(value) => {
                *self.value.write() = Arc::new(value);
                (stamps.loaded, stamps.failed) = (now, None);
                Look::Renewed
            }
            Err(why) => {
                let failed = Some((now, why.clone()));
                let told = stamps.failed == failed;
                stamps.failed = failed;
                if told { Look::Same } else { Look::Failed(why) }
            }
        }
    }

    fn tell_again(&self) {
        self.stamps.lock().failed = None;
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// As of a key put in place by root with mode 0600, whose owner is set later: its stamp stays.
    #[test]
    fn what_becomes_readable_without_a_change_is_loaded_and_its_failure_is_told_once() {
        let name = format!("firebreak-unreadable-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "1").expect("written");
        let denied = Arc::new(AtomicBool::new(false));
        let (path, deny) = (file.clone(), denied.clone());
        let load = move || match deny.load(Ordering::Relaxed) {
            true => Err("permission denied".to_owned()),
            false => std::fs::read_to_string(&path).map_err(|error| error.to_string()),
        };
        let watched = Watched::new(vec![file.clone()], load).expect("a text");
        std::fs::write(&file, "22").expect("written");
        denied.store(true, Ordering::Relaxed);
        assert_eq!(watched.look(), Look::Same);
        let failed = Look::Failed("permission denied".to_owned());
        assert_eq!([watched.look(), watched.look()], [failed.clone(), Look::Same]);
        watched.tell_again();
        assert_eq!([watched.look(), watched.look()], [failed, Look::Same]);
        denied.store(false, Ordering::Relaxed);
        assert_eq!((watched.look(), watched.get().as_str()), (Look::Renewed, "22"));
        assert_eq!(watched.look(), Look::Same);
        std::fs::remove_file(&file).expect("removed");
    }

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
