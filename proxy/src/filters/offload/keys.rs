//! The key that signs references: given, or made once beside the objects.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol_ext::reference::{KeyRing, MacKey};

use crate::config::{Store, StoreKind};
use crate::random;

/// Name of the key that a local store makes for itself.
const KEY_FILE: &str = "reference.key";

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
    let mut previous = path.into_os_string();
    previous.push(".previous");
    let previous = PathBuf::from(previous);
    let previous = if previous.exists() { Some(read(&previous)?) } else { None };
    KeyRing::new(current, previous).map_err(io::Error::other)
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

fn own_key(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(KEY_FILE);
    if path.exists() {
        return Ok(path);
    }
    let hex: String = random::key()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let pending = folder.join(format!("{KEY_FILE}.new"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&pending)?;
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
