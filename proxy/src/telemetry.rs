//! Logs to stderr, and the limit on how many lines peers can cause.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::clock;

/// Starts logging. `RUST_LOG` sets the level; `info` without it.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// So many lines a second, whatever peers do.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    /// Second in the upper half, lines in it in the lower.
    spent: AtomicU64,
}

impl RateLimit {
    /// A limit that allows `per_second` lines.
    pub fn per_second(per_second: u32) -> Self {
        Self { per_second, spent: AtomicU64::new(0) }
    }

    /// Whether another line may be written now.
    pub fn allows(&self) -> bool {
        let second = (clock::unix_ms() / 1000) << 32;
        let spent = self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
            let lines = if spent & !0xffff_ffff == second { spent & 0xffff_ffff } else { 0 };
            (lines < u64::from(self.per_second)).then_some(second | (lines + 1))
        });
        spent.is_ok()
    }
}
