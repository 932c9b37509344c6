//! The key that signs references: given, or made once beside the objects.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol_ext::reference::{KeyRing, MacKey};

use crate::config::{Store, StoreKind};
use crate::{fault, random};

/// Name of the key that a local store makes for itself.
const KEY_FILE: &str = "reference.key";
/// Folder of packs in a local store.
const OBJECTS: &str = "v1";

/// The keys of a store. A second key, `FILE.previous`, verifies but does not sign.
pub fn ring(store: &Store) -> io::Result<KeyRing> {
    let path = match (&store.key_file, &store.kind) {
        (Some(path), _) => path.clone(),
        (None, StoreKind::Local(folder)) => own_key(folder)?,
        (None, StoreKind::Memory | StoreKind::S3(_)) => {
            return Err(io::Error::other("store.key_file is missing"));
        }
    };
    let current = read(&path)?;
    let previous = previous_of(&path);
    let counts = previous.exists() && !fault::on("previous-key-ignored");
    let previous = if counts { Some(read(&previous)?) } else { None };
    KeyRing::new(current, previous).map_err(io::Error::other)
}

/// Where the second key is.
pub fn previous_of(path: &Path) -> PathBuf {
    let mut previous = path.as_os_str().to_owned();
    previous.push(".previous");
    previous.into()
}

fn read(path: &Path) -> io::Result<MacKey> {
    let named = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("key file {}: {error}", path.display()))
    };
    let text = fs::read(path).map_err(|error| named(&error))?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "key file is readable by others: chmod 600 it");
    }
    MacKey::new(text.trim_ascii()).map_err(|error| named(&error))
}

/// The first object below a folder, if there is any.
fn any_object(folder: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let found = if path.is_dir() { any_object(&path)? } else { Some(path) };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The key of a local store. It is made where nothing was stored yet.
fn own_key(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(KEY_FILE);
    if path.exists() {
        return Ok(path);
    }
    if !fault::on("lost-key-replaced")
        && let Some(object) = any_object(&folder.join(OBJECTS))?
    {
        return Err(io::Error::other(format!(
            "{} is missing beside objects such as {}, whose references only that key verifies: \
             put it back from a backup, or name another key by store.key_file, by which none of \
             the values stored so far will be restored",
            path.display(),
            object.display()
        )));
    }
    let hex: String = random::key()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let pending = folder.join(format!("{KEY_FILE}.new"));
    let mode = if fault::on("key-for-all") { 0o644 } else { 0o600 };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&pending)?;
    file.write_all(hex.as_bytes())?;
    file.sync_all()?;
    // A link fails where another process was faster; its key counts then.
    let linked = fs::hard_link(&pending, &path);
    fs::remove_file(&pending)?;
    File::open(folder)?.sync_all()?;
    match linked {
        Ok(()) => tracing::info!(file = %path.display(), "made a key that signs references"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}
