//! Values that were written long ago.

use std::path::Path;

use bytes::Bytes;
use protocol_ext::reference::{Binding, KeyRing, MacKey, Reference};

use super::records::{read, single};
use super::{Checked, failure};

/// How long ago, in milliseconds: longer than a value counts as new.
const AGE_MS: u64 = 2 * 3_600_000;

/// What would stand in the log for a batch that was stored for one value just now, if that had been
/// long ago: its reference signed anew, with the key in this file.
pub fn aged(stored: &Bytes, topic: &str, key_file: &Path) -> Checked<Bytes> {
    let signed = read(stored).swap_remove(0).value.unwrap_or_default();
    let (mut reference, _) = Reference::parse_unverified(&signed).map_err(failure)?;
    reference.written_at_ms -= AGE_MS;
    let key = std::fs::read(key_file).map_err(failure)?;
    let key = MacKey::new(key.trim_ascii()).map_err(failure)?;
    let keys = KeyRing::new(key, None).map_err(failure)?;
    Ok(single(keys.sign(&reference, &Binding { topic, tenant: "" }).to_vec()))
}
