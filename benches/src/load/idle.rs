//! Many connections that each did one exchange and then stay silent.

use serde_json::json;

use super::{answer, command, some};
use crate::connection::{Connection, resolve};
use crate::error::Result;
use crate::wire;

/// What each connection does before it falls silent.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Connections.
    #[arg(long, default_value_t = 2000)]
    pub connections: u32,
    /// Fetch so many bytes instead of asking ApiVersions, so that buffers have been in use.
    #[arg(long, default_value_t = 0)]
    pub fetch_bytes: i32,
}

/// Opens the connections, answers, and holds them until a line or the end comes on standard input.
///
/// # Errors
/// When a connection cannot be opened or its exchange fails.
pub fn run(bootstrap: &str, topic: &str, plan: &Plan) -> Result<()> {
    let target = resolve(bootstrap, topic, 0)?;
    let mut ask = if plan.fetch_bytes > 0 {
        wire::fetch(&target, plan.fetch_bytes)?
    } else {
        wire::api_versions()?
    };
    let mut held = Vec::new();
    for _ in 0..plan.connections {
        let mut connection = Connection::open(&target.leader, BUFFER_BYTES)?;
        connection.sender.send(&mut ask)?;
        if plan.fetch_bytes > 0 {
            some("records", connection.receiver.discard_fetch()?)?;
        } else {
            wire::read_api_versions(connection.receiver.read()?)?;
        }
        held.push(connection);
    }
    answer(&json!({
        "open": held.len(),
        "bytes_sent": held.iter().map(|one| one.sender.sent_bytes).sum::<u64>(),
        "bytes_received": held.iter().map(|one| one.receiver.received_bytes).sum::<u64>(),
    }))?;
    command()?;
    Ok(())
}

/// Enough for an ApiVersions answer, and thousands of them must fit in memory.
const BUFFER_BYTES: usize = 16 * 1024;
