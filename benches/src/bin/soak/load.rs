//! What all threads of the load share: settings, the sign to stop, counts, and the journal.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use firebreak_benches::clock::now;

use crate::error::{Result, SoakError};

/// Topic of the idempotent producers.
pub const PLAIN_TOPIC: &str = "soak-records";
/// Topic of the transactional producers.
pub const TRANSACTIONS_TOPIC: &str = "soak-transactions";
/// Topic of the producers of large values.
pub const LARGE_TOPIC: &str = "soak-large";

/// Shared by all threads.
pub struct Load {
    /// Bootstrap address of the proxy.
    pub proxy: String,
    /// Where all randomness comes from.
    pub seed: u64,
    /// Records per second of an idempotent producer.
    pub records_per_second: u32,
    /// Producers of large values.
    pub large: u32,
    /// Records per second of each.
    pub large_records_per_second: u32,
    /// Transactions per second of a transactional producer.
    pub transactions_per_second: u32,
    /// What librdkafka is to write into the journal besides (its setting `debug`).
    pub client_debug: Option<String>,
    /// Producers and readers end when it is set.
    pub stop: AtomicBool,
    /// The next record of a producer of large values is to be one that is stored in parts.
    pub huge_wanted: AtomicBool,
    /// What the clients counted.
    pub totals: Totals,
    /// What happened, in a file.
    pub journal: Journal,
}

impl Load {
    /// Whether it is time to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The topics that are written.
    pub fn topics(&self) -> &'static [&'static str] {
        let all = &[PLAIN_TOPIC, TRANSACTIONS_TOPIC, LARGE_TOPIC];
        if self.large > 0 { all } else { &all[..2] }
    }
}

/// Counts over all clients.
#[derive(Default)]
pub struct Totals {
    /// Requests sent again as they were (librdkafka's `txretries`); not those of Produce.
    pub requests_retried: AtomicU64,
    /// Connections that ended (librdkafka's `disconnects`).
    pub connections_lost: AtomicU64,
    /// Fatal errors, each of which made a producer useless.
    pub fatal: AtomicU64,
    /// Transactions that were to be committed and had to be aborted.
    pub forced_aborts: AtomicU64,
    /// Idempotent producers whose records were not all settled in time.
    pub unfinished: AtomicU64,
    /// Calls of the transactional API that had to be made again.
    pub calls_retried: AtomicU64,
}

/// Adds to a count.
pub fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// The run's log file; its start is the zero of all times.
pub struct Journal {
    begin: Instant,
    file: Mutex<File>,
}

impl Journal {
    /// Begins a journal in `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(SoakError::io(path.display().to_string()))?;
        Ok(Self { begin: now(), file: Mutex::new(file) })
    }

    /// Time since it was begun.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Writes a line.
    pub fn say(&self, who: &str, what: &str) {
        let at = self.elapsed().as_secs_f64();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not end the run: the verdict does not depend on the journal.
        let _ = writeln!(file, "{at:9.3} {who}: {what}");
    }
}
