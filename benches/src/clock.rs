//! The one place of the benches that reads the clock, and the sleep that keeps a schedule.

use std::thread;
use std::time::{Duration, Instant};

/// The current instant.
#[expect(clippy::disallowed_methods, reason = "the benches' only clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps until `due`; returns at once when it has passed.
pub fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(now());
    if left > Duration::ZERO {
        thread::sleep(left);
    }
}
