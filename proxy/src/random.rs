//! The one source of randomness, so that a simulation can replace it.

use std::time::Duration;

/// Sixteen random bytes, from the operating system.
pub fn id() -> [u8; 16] {
    *uuid::Uuid::new_v4().as_bytes()
}

/// 32 random bytes fit for a key, from the operating system.
pub fn key() -> std::io::Result<[u8; 32]> {
    use std::io::Read;
    let mut key = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

/// A duration between half of `base` and one and a half times it.
pub fn jittered(base: Duration) -> Duration {
    let [low, high, ..] = id();
    let part = u32::from(u16::from_be_bytes([low, high]));
    base / 2 + base * part / u32::from(u16::MAX)
}

/// A number below `end` (0 if `end` is 0).
pub fn below(end: usize) -> usize {
    let [a, b, c, d, ..] = id();
    usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0) % end.max(1)
}
