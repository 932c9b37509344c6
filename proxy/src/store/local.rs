//! A directory as an object store: temporary file, fsync, link to its name, fsync of directories.
//!
//! Invariants: a name is believed only once it lasts, also by an attempt that comes while another
//! one, which nobody waits for any more, still makes it last or takes it back; and a folder counts
//! as lasting only if it was synced into the one above it by this process.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Listed, Piece, StoreError};
use crate::limits::{LOCAL_AT_ONCE, LOCAL_FOLDERS_KNOWN_MAX};
use crate::{clock, fault, random};

/// Directory of files that are not objects yet.
const PENDING: &str = "pending";
/// Time between two looks at whether an earlier attempt has ended.
const LINKING_PAUSE: Duration = Duration::from_millis(50);
/// Nobody writes one object for longer.
const LEFTOVER_MS: u64 = 600_000;

/// Objects as files below one directory.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
    turns: Arc<Semaphore>,
    names: Arc<Mutex<Names>>,
}

/// What is known of names in the directory.
#[derive(Debug, Default)]
struct Names {
    /// Objects that are being given their names, which may be taken back yet.
    linking: HashSet<PathBuf>,
    /// Folders whose own names last; not all of them.
    lasting: HashSet<PathBuf>,
}

impl Names {
    /// Notes that the name of a folder lasts.
    fn last(&mut self, folder: &Path) {
        if self.lasting.len() >= LOCAL_FOLDERS_KNOWN_MAX {
            // Each is synced once more.
            self.lasting.clear();
        }
        self.lasting.insert(folder.to_owned());
    }
}

impl Local {
    /// Uses `root`, which is made if it is missing, but no folder above it. Leftovers of a crash
    /// are removed, but nothing that another process may be writing.
    pub fn open(root: &Path) -> io::Result<Self> {
        made(root)?;
        let pending = root.join(PENDING);
        fs::create_dir_all(&pending)?;
        for leftover in fs::read_dir(&pending)? {
            let leftover = leftover?;
            let written_at = clock::ms_of(leftover.metadata()?.modified()?);
            if clock::unix_ms().saturating_sub(written_at) > LEFTOVER_MS {
                fs::remove_file(leftover.path())?;
            }
        }
        let turns = Arc::new(Semaphore::new(LOCAL_AT_ONCE));
        Ok(Self { root: root.to_owned(), turns, names: Arc::default() })
    }

    /// Does work where it may take its time. It goes on though whoever asked for it is gone, so
    /// its turn does too.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.turns.clone().acquire_owned().await.map_err(io::Error::other)?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    pub(super) async fn put(&self, key: &str, object: &[Piece]) -> Result<(), StoreError> {
        let (root, target) = (self.root.clone(), self.root.join(key));
        let (key, object, names) = (key.to_owned(), object.to_vec(), self.names.clone());
        // Nothing is written beside an earlier attempt, which has no end of its own.
        while names.lock().linking.contains(&target) && !fault::on("unsynced-names-trusted") {
            tokio::time::sleep(LINKING_PAUSE).await;
        }
        self.blocking(move || {
            write(&root, &target, &object, &names).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => StoreError::Taken(key),
                io::ErrorKind::ResourceBusy => {
                    StoreError::Busy(format!("an earlier attempt still writes {key}"))
                }
                _ => StoreError::Io(error),
            })
        })
        .await
    }

    pub(super) async fn get(
        &self,
        key: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, StoreError> {
        let path = self.root.join(key);
        let key = key.to_owned();
        self.blocking(move || {
            let file = File::open(&path).map_err(|error| missing(&key, error))?;
            // The length is known before memory is taken for it.
            let end = offset.saturating_add(length as u64);
            if file.metadata()?.len() < end {
                return Err(StoreError::Short { key, end });
            }
            let mut object = vec![0; length];
            file.read_exact_at(&mut object, offset)?;
            Ok(object.into())
        })
        .await
    }

    pub(super) async fn look(&self, key: &str) -> Result<Listed, StoreError> {
        let (path, key) = (self.root.join(key), key.to_owned());
        self.blocking(move || {
            let metadata = fs::metadata(&path).map_err(|error| missing(&key, error))?;
            let written_at_ms = clock::ms_of(metadata.modified()?);
            Ok(Listed { key, bytes: metadata.len(), written_at_ms })
        })
        .await
    }

    /// Everything at once: a local store is one directory of this machine.
    pub(super) async fn list(&self, prefix: &str, after: &str) -> Result<Vec<Listed>, StoreError> {
        let (root, prefix, after) = (self.root.clone(), prefix.to_owned(), after.to_owned());
        self.blocking(move || {
            let mut found = Vec::new();
            // The folder that holds everything with the prefix.
            let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
            collect(&root, &root.join(folder), &mut found)?;
            found.retain(|listed| listed.key.starts_with(&prefix) && listed.key > after);
            found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.root.join(key);
        self.blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        })
        .await
    }
}

fn missing(key: &str, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::Missing(key.to_owned()),
        _ => StoreError::Io(error),
    }
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if metadata.is_dir() {
            collect(root, &path, found)?;
            continue;
        }
        let Ok(key) = path.strip_prefix(root) else { continue };
        found.push(Listed {
            key: key.to_string_lossy().into_owned(),
            bytes: metadata.len(),
            written_at_ms: clock::ms_of(metadata.modified()?),
        });
    }
    Ok(())
}

fn write(root: &Path, target: &Path, object: &[Piece], names: &Mutex<Names>) -> io::Result<()> {
    let name = uuid::Uuid::from_bytes(random::id()).simple().to_string();
    let pending = root.join(PENDING).join(name);
    let written = write_pending(&pending, object).and_then(|file| {
        if goes_wrong(root, target, "disk-full") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match fault::on("file-unsynced") {
            true => Ok(()),
            false => sync(&file, goes_wrong(root, target, "file-sync-fails")),
        }
    });
    let linked = written.and_then(|()| link(root, &pending, target, names));
    if linked.is_err() && fault::on("half-files-kept") {
        return linked;
    }
    let removed = fs::remove_file(&pending);
    linked?;
    removed
}

/// Whether a disk fails on purpose: with packs, not with what a start writes.
fn goes_wrong(root: &Path, target: &Path, how: &str) -> bool {
    target.starts_with(root.join("v1")) && fault::happens(how)
}

/// Has what a file holds, or the names in a folder, survive a crash of the operating system.
fn sync(file: &File, fails: bool) -> io::Result<()> {
    match fails {
        true => Err(io::Error::other("the disk fails on purpose")),
        false => file.sync_all(),
    }
}

fn write_pending(pending: &Path, object: &[Piece]) -> io::Result<File> {
    let mut file = File::create_new(pending)?;
    let mut slices: Vec<_> = object.iter().map(|piece| IoSlice::new(&piece.bytes)).collect();
    let mut left = &mut slices[..];
    // An empty slice at the end would be asked for again and again.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut left, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(file)
}

/// Gives the file its name, which must be free, and makes the name last. Who comes while another
/// attempt does so is told to come again: what is there may be taken back yet.
fn link(root: &Path, pending: &Path, target: &Path, names: &Mutex<Names>) -> io::Result<()> {
    let is_alone = names.lock().linking.insert(target.to_owned());
    if !is_alone && !fault::on("unsynced-names-trusted") {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let linked = link_alone(root, pending, target, names);
    names.lock().linking.remove(target);
    linked
}

/// The same, while no other attempt does. A name that may not last is taken back: the next attempt
/// would find it there and believe it.
fn link_alone(root: &Path, pending: &Path, target: &Path, names: &Mutex<Names>) -> io::Result<()> {
    let Some(parent) = target.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let folders = || parent.ancestors().take_while(move |folder| *folder != root);
    // Somebody may have removed folders that were empty.
    for gone in folders().take_while(|folder| !folder.exists()) {
        names.lock().lasting.remove(gone);
    }
    fs::create_dir_all(parent)?;
    fs::hard_link(pending, target)?;
    let lasts = sync_folder(root, target, parent).and_then(|()| {
        folders().try_for_each(|folder| {
            if names.lock().lasting.contains(folder) {
                return Ok(());
            }
            if fault::on("folders-trusted-unsynced") {
                names.lock().last(folder);
            }
            sync_folder(root, target, folder.parent().unwrap_or(root))?;
            names.lock().last(folder);
            Ok(())
        })
    });
    if lasts.is_err() {
        let _ = fs::remove_file(target);
    }
    lasts
}

/// Has the names in a folder last, for an object below it.
fn sync_folder(root: &Path, target: &Path, folder: &Path) -> io::Result<()> {
    match fault::on("folder-unsynced") {
        true => Ok(()),
        false => File::open(folder)
            .and_then(|folder| sync(&folder, goes_wrong(root, target, "folder-sync-fails"))),
    }
}

/// Makes the folder of a store where its parent is there: a volume that is not mounted must not be
/// taken for a store without objects.
fn made(root: &Path) -> io::Result<()> {
    if root.exists() {
        return Ok(());
    }
    match fs::create_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::new(
            error.kind(),
            format!(
                "store.path {} does not exist, nor does the folder that it would be in: mount what \
                 holds the objects, or create the folder",
                root.display()
            ),
        )),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => {
            // Who may not open the folder above trusts its file system.
            let _ =
                root.parent().map(|parent| File::open(parent).and_then(|above| above.sync_all()));
            tracing::info!(path = %root.display(), "store made: it holds no objects yet");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let name = uuid::Uuid::from_bytes(random::id()).simple().to_string();
        std::env::temp_dir().join(format!("firebreak-local-{name}"))
    }

    #[tokio::test]
    async fn an_object_is_read_back_in_part_and_never_overwritten() {
        let root = folder();
        let local = Local::open(&root).expect("a folder");
        local
            .put("v1/aa/x", &[Piece::of(&b"01234"[..]), Piece::of(&b"56789"[..])])
            .await
            .expect("stored");
        let part = local.get("v1/aa/x", 2, 3).await.expect("read");
        assert_eq!(part.as_ref(), b"234");
        let other = local.put("v1/aa/x", &[Piece::of(&b"other"[..])]).await;
        assert!(matches!(other, Err(StoreError::Taken(_))));
        let whole = local.get("v1/aa/x", 0, 10).await.expect("read");
        assert_eq!(whole.as_ref(), b"0123456789");
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[tokio::test]
    async fn a_name_that_may_be_taken_back_is_not_believed() {
        let root = folder();
        let local = Local::open(&root).expect("a folder");
        let object = [Piece::of(&b"0123"[..])];
        let target = root.join("v1/aa/x");
        local.names.lock().linking.insert(target.clone());
        let waited = tokio::time::timeout(LINKING_PAUSE * 4, local.put("v1/aa/x", &object)).await;
        assert!(waited.is_err(), "another attempt is under way: {waited:?}");
        let mut pending = fs::read_dir(root.join(PENDING)).expect("a folder");
        assert!(pending.next().is_none(), "it was written beside another attempt");
        local.names.lock().linking.remove(&target);
        local.put("v1/aa/x", &object).await.expect("stored");
        let names = local.names.lock();
        assert!(names.linking.is_empty() && names.lasting.len() == 2, "{names:?}");
        drop(names);
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[test]
    fn folders_that_are_known_are_bounded_in_number() {
        let mut names = Names::default();
        for n in 0..=LOCAL_FOLDERS_KNOWN_MAX {
            names.last(Path::new(&n.to_string()));
        }
        assert_eq!(names.lasting.len(), 1);
    }

    #[tokio::test]
    async fn a_missing_object_and_a_short_one_are_told_apart() {
        let root = folder();
        let local = Local::open(&root).expect("a folder");
        local.put("v1/aa/x", &[Piece::of(&b"0123"[..])]).await.expect("stored");
        assert!(matches!(local.get("v1/aa/y", 0, 1).await, Err(StoreError::Missing(_))));
        let short = local.get("v1/aa/x", 1, usize::MAX).await;
        assert!(matches!(short, Err(StoreError::Short { .. })));
        fs::remove_dir_all(root).expect("cleaned");
    }

    /// Reads of a pipe that nobody writes to: as of a disk that hangs. Nobody waits for them, and
    /// threads are left for others.
    #[test]
    fn a_disk_that_hangs_takes_no_more_threads_than_it_may() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(LOCAL_AT_ONCE + 4)
            .build()
            .expect("a runtime");
        let root = folder();
        let pipe = root.join("v1/aa/x");
        runtime.block_on(async {
            let local = Local::open(&root).expect("a folder");
            fs::create_dir_all(root.join("v1/aa")).expect("made");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.expect("mkfifo runs").success());
            let reads = (0..LOCAL_AT_ONCE * 2).map(|_| async {
                let late = std::time::Duration::from_millis(200);
                tokio::time::timeout(late, local.get("v1/aa/x", 0, 1)).await.is_err()
            });
            let late = futures_util::future::join_all(reads).await;
            assert!(late.into_iter().all(|late| late), "a pipe was read");
            let other = tokio::task::spawn_blocking(|| ());
            let other = tokio::time::timeout(std::time::Duration::from_secs(10), other).await;
            assert!(other.is_ok(), "no thread is left for others");
        });
        runtime.shutdown_background();
        // Whoever reads finds an end.
        drop(File::options().write(true).open(&pipe).expect("readers"));
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[test]
    fn no_folder_above_a_store_is_made() {
        let root = folder();
        let error = Local::open(&root.join("objects")).expect_err("refused");
        assert!(error.to_string().contains("mount what holds the objects"), "{error}");
        assert!(!root.exists());
        fs::create_dir(&root).expect("made");
        Local::open(&root.join("objects")).expect("a store");
        Local::open(&root.join("objects")).expect("the same");
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_objects_stay() {
        let root = folder();
        Local::open(&root).expect("a folder");
        for name in ["half", "under-way"] {
            fs::write(root.join(PENDING).join(name), b"half").expect("written");
        }
        let half = File::options().write(true).open(root.join(PENDING).join("half"));
        half.and_then(|file| file.set_modified(std::time::UNIX_EPOCH)).expect("made old");
        fs::create_dir_all(root.join("v1")).expect("made");
        fs::write(root.join("v1/x"), b"whole").expect("written");
        Local::open(&root).expect("a folder");
        assert!(!root.join(PENDING).join("half").exists());
        assert!(root.join(PENDING).join("under-way").exists());
        assert!(root.join("v1/x").exists());
        fs::remove_dir_all(root).expect("cleaned");
    }
}
