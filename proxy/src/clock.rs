//! The one place that asks what time it is, so that a simulation can replace it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;

/// A point in time that only moves forward.
pub type Tick = Instant;

/// Now, on the monotonic clock.
#[cfg(not(feature = "sim"))]
#[expect(clippy::disallowed_methods, reason = "this is the module that the rule points to")]
pub fn now() -> Tick {
    Instant::now()
}

/// Now, on the clock of the runtime: a simulation's, or the monotonic one.
#[cfg(feature = "sim")]
pub fn now() -> Tick {
    tokio::time::Instant::now().into_std()
}

/// Time since the machine started, the time it slept included: for deadlines that must hold even
/// if the process, or the machine, was stopped in between.
pub fn since_boot() -> Duration {
    #[cfg(feature = "sim")]
    if let Some(elapsed) = turmoil::sim_elapsed() {
        return elapsed;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Milliseconds since 1970 UTC of a file's time; 0 for earlier ones.
pub fn ms_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970 UTC.
#[expect(clippy::disallowed_methods, reason = "this is the module that the rule points to")]
pub fn unix_ms() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(since) = turmoil::since_epoch() {
        return u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }
    ms_of(SystemTime::now())
}
