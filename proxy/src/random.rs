//! The one source of randomness, so that a simulation can replace it.

use std::time::Duration;

/// Sixteen random bytes, from the operating system.
pub fn id() -> [u8; 16] {
    #[cfg(feature = "sim")]
    if let Some(id) = seeded::id() {
        return id;
    }
    *uuid::Uuid::new_v4().as_bytes()
}

/// 32 random bytes fit for a key, from the operating system.
pub fn key() -> std::io::Result<[u8; 32]> {
    use std::io::Read;
    #[cfg(feature = "sim")]
    if let (Some(a), Some(b)) = (seeded::id(), seeded::id()) {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&a);
        key[16..].copy_from_slice(&b);
        return Ok(key);
    }
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

#[cfg(feature = "sim")]
pub use seeded::seed;

/// Chance of a simulation: a thread that has a seed draws the same in every run.
#[cfg(feature = "sim")]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on this thread draws by `seed`; without one, from the operating system.
    pub fn seed(seed: Option<u64>) {
        STATE.set(seed);
    }

    pub(super) fn id() -> Option<[u8; 16]> {
        let (first, second) = (next()?, next()?);
        Some(((u128::from(first) << 64) | u128::from(second)).to_be_bytes())
    }

    /// SplitMix64.
    fn next() -> Option<u64> {
        let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(Some(state));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    }
}
