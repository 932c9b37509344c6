//! The shapes of load, one file each; every one answers a JSON object with its counts.

pub mod handshakes;
pub mod idle;
pub mod images;
pub mod open;
pub mod ping;
pub mod restore;
pub mod throughput;
pub mod unread;

use std::io::{self, Write};
use std::thread::ScopedJoinHandle;

use serde_json::Value;

use crate::error::{BenchError, Result};

/// Prints one answer as a line and flushes it: whoever drives the load waits for it.
///
/// # Errors
/// When standard output is gone.
pub fn answer(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()?;
    Ok(())
}

/// Waits for one line on standard input; empty at its end.
///
/// # Errors
/// When standard input cannot be read.
pub fn command() -> Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// The results of all threads, or the first error.
fn gather<T>(threads: Vec<ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    threads.into_iter().map(|thread| thread.join().map_err(|_| BenchError::Panicked)?).collect()
}

/// Refuses a count of zero.
fn some(what: &str, count: u64) -> Result<()> {
    if count > 0 { Ok(()) } else { Err(BenchError::Count(format!("no {what}"))) }
}
