//! A directory as an object store: temporary file, fsync, link to its name, fsync of directories.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::StoreError;
use crate::{fault, random};

/// Directory of files that are not objects yet.
const PENDING: &str = "pending";

/// Objects as files below one directory.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// Uses `root`, which is made if it is missing. Leftovers of a crash are removed.
    pub fn open(root: &Path) -> io::Result<Self> {
        let pending = root.join(PENDING);
        fs::create_dir_all(&pending)?;
        for leftover in fs::read_dir(&pending)? {
            fs::remove_file(leftover?.path())?;
        }
        Ok(Self { root: root.to_owned() })
    }

    pub(super) async fn put(&self, key: &str, object: Bytes) -> Result<(), StoreError> {
        if fault::on("store-put-fails") {
            return Err(io::Error::other("fault store-put-fails").into());
        }
        let (root, target) = (self.root.clone(), self.root.join(key));
        blocking(move || Ok(write(&root, &target, &object)?)).await
    }

    pub(super) async fn get(
        &self,
        key: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, StoreError> {
        let path = self.root.join(key);
        let key = key.to_owned();
        blocking(move || {
            let file = File::open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StoreError::Missing(key.clone()),
                _ => StoreError::Io(error),
            })?;
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
}

fn write(root: &Path, target: &Path, object: &[u8]) -> io::Result<()> {
    let name = uuid::Uuid::from_bytes(random::id()).simple().to_string();
    let pending = root.join(PENDING).join(name);
    let linked = write_pending(&pending, object).and_then(|()| link(root, &pending, target));
    let removed = fs::remove_file(&pending);
    linked?;
    removed
}

fn write_pending(pending: &Path, object: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(pending)?;
    file.write_all(object)?;
    file.sync_all()
}

/// Gives the file its name, which must be free, and makes the name last.
fn link(root: &Path, pending: &Path, target: &Path) -> io::Result<()> {
    let Some(parent) = target.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut made = Vec::new();
    let mut folder = parent;
    while folder != root && !folder.exists() {
        made.push(folder);
        folder = folder.parent().unwrap_or(root);
    }
    fs::create_dir_all(parent)?;
    fs::hard_link(pending, target)?;
    File::open(parent)?.sync_all()?;
    for folder in made {
        let above = folder.parent().unwrap_or(root);
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error).into()))
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
        local.put("v1/aa/x", Bytes::from_static(b"0123456789")).await.expect("stored");
        let part = local.get("v1/aa/x", 2, 3).await.expect("read");
        assert_eq!(part.as_ref(), b"234");
        assert!(local.put("v1/aa/x", Bytes::from_static(b"other")).await.is_err());
        let whole = local.get("v1/aa/x", 0, 10).await.expect("read");
        assert_eq!(whole.as_ref(), b"0123456789");
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[tokio::test]
    async fn a_missing_object_and_a_short_one_are_told_apart() {
        let root = folder();
        let local = Local::open(&root).expect("a folder");
        local.put("v1/aa/x", Bytes::from_static(b"0123")).await.expect("stored");
        assert!(matches!(local.get("v1/aa/y", 0, 1).await, Err(StoreError::Missing(_))));
        let short = local.get("v1/aa/x", 1, usize::MAX).await;
        assert!(matches!(short, Err(StoreError::Short { .. })));
        fs::remove_dir_all(root).expect("cleaned");
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_objects_stay() {
        let root = folder();
        Local::open(&root).expect("a folder");
        fs::write(root.join(PENDING).join("half"), b"half").expect("written");
        fs::create_dir_all(root.join("v1")).expect("made");
        fs::write(root.join("v1/x"), b"whole").expect("written");
        Local::open(&root).expect("a folder");
        assert!(!root.join(PENDING).join("half").exists());
        assert!(root.join("v1/x").exists());
        fs::remove_dir_all(root).expect("cleaned");
    }
}
