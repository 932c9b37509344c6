//! One request in flight on one connection: the latency that a proxy adds to a round trip.

use std::time::Duration;

use serde_json::{Value, json};

use super::some;
use crate::batch;
use crate::clock::now;
use crate::connection::{BUFFER_BYTES, Connection, resolve};
use crate::error::Result;
use crate::histogram::Histogram;
use crate::wire;

/// What a ping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A Produce of one record of 100 bytes, acks=1.
    Produce,
    /// An ApiVersions request, which a proxy may answer or rewrite itself.
    ApiVersions,
}

/// Pings for `seconds` after a warm-up and answers p50 and p99.
///
/// # Errors
/// When the socket fails or a ping is refused.
pub fn run(bootstrap: &str, topic: &str, kind: Kind, seconds: f64) -> Result<Value> {
    let target = resolve(bootstrap, topic, 0)?;
    let mut connection = Connection::open(&target.leader, BUFFER_BYTES)?;
    let mut frame = match kind {
        Kind::Produce => wire::produce(&target, batch::build(1, RECORD_BYTES))?,
        Kind::ApiVersions => wire::api_versions()?,
    };
    let mut latencies = Histogram::default();
    for _ in 0..WARM_UP {
        once(&mut connection, &mut frame, kind)?;
    }
    let begin = now();
    let until = begin + Duration::from_secs_f64(seconds);
    let mut sent_at = begin;
    while sent_at < until {
        once(&mut connection, &mut frame, kind)?;
        let answered_at = now();
        latencies.record(answered_at - sent_at);
        sent_at = answered_at;
    }
    some("pings", latencies.count())?;
    Ok(json!({
        "requests": latencies.count(),
        "seconds": begin.elapsed().as_secs_f64(),
        "p50_us": latencies.quantile_us(500),
        "p99_us": latencies.quantile_us(990),
        "max_us": latencies.max_us(),
        "bytes_sent": connection.sender.sent_bytes,
        "bytes_received": connection.receiver.received_bytes,
    }))
}

fn once(connection: &mut Connection, frame: &mut [u8], kind: Kind) -> Result<()> {
    connection.sender.send(frame)?;
    let body = connection.receiver.read()?;
    match kind {
        Kind::Produce => wire::read_produce(body),
        Kind::ApiVersions => wire::read_api_versions(body),
    }
}

const WARM_UP: u32 = 300;
const RECORD_BYTES: u32 = 100;
