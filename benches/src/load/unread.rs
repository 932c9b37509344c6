//! Readers that ask for a lot and do not read; on command, all of them drain.

use std::thread;

use serde_json::json;

use super::{answer, command, gather};
use crate::clock::now;
use crate::connection::{BUFFER_BYTES, Connection, resolve};
use crate::error::{BenchError, Result};
use crate::wire;

/// Who asks for how much.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// Readers, one connection each.
    #[arg(long, default_value_t = 16)]
    pub readers: u32,
    /// Bytes each asks for.
    #[arg(long, default_value_t = 50_000_000)]
    pub bytes_max: i32,
}

/// Asks, answers that all have asked, and obeys one command: `drain` reads everything and answers
/// the counts, anything else ends.
///
/// # Errors
/// When a socket fails, an answer is refused, or less arrives than was asked for.
pub fn run(bootstrap: &str, topic: &str, plan: Plan) -> Result<()> {
    let target = resolve(bootstrap, topic, 0)?;
    let mut frame = wire::fetch(&target, plan.bytes_max)?;
    let mut readers = Vec::new();
    for _ in 0..plan.readers {
        let mut connection = Connection::open(&target.leader, BUFFER_BYTES)?;
        connection.sender.send(&mut frame)?;
        readers.push(connection);
    }
    answer(&json!({ "asked": readers.len() }))?;
    if command()? != "drain" {
        return Ok(());
    }
    let begin = now();
    let asked = u64::try_from(plan.bytes_max).unwrap_or(0);
    let drained = thread::scope(|scope| {
        let draining = readers
            .iter_mut()
            .map(|reader| scope.spawn(|| reader.receiver.discard_fetch()))
            .collect();
        gather(draining)
    })?;
    if let Some(short) = drained.iter().find(|bytes| **bytes * 10 < asked * 9) {
        return Err(BenchError::Count(format!("{short} bytes drained of {asked}")));
    }
    answer(&json!({
        "drained": drained.len(),
        "bytes": drained.iter().sum::<u64>(),
        "bytes_received": readers.iter().map(|one| one.receiver.received_bytes).sum::<u64>(),
        "seconds": begin.elapsed().as_secs_f64(),
    }))
}
