//! Connections that come and go: connect, shake hands where there is TLS, one ApiVersions, close.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::{gather, some};
use crate::clock::now;
use crate::connection::ANSWER_MAX;
use crate::error::{BenchError, Result};
use crate::histogram::Histogram;
use crate::{tls, wire};

/// How they come.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Trusts the authority in this PEM file and shakes hands; without, plain connections.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Sessions are taken up again where the server lets them.
    #[arg(long)]
    pub resume: bool,
    /// Connections at once.
    #[arg(long, default_value_t = 4)]
    pub threads: u32,
    /// For so long.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

#[derive(Default)]
struct Done {
    latencies: Histogram,
    sent: u64,
    received: u64,
}

/// Opens connections for a while and answers how many, and how long one took.
///
/// # Errors
/// When one of them fails.
pub fn run(bootstrap: &str, plan: &Plan) -> Result<Value> {
    let config = plan.ca.as_ref().map(|ca| tls::config(ca, plan.resume)).transpose()?;
    let begin = now();
    let all = thread::scope(|scope| {
        let start = |_| scope.spawn(|| several(bootstrap, config.as_ref(), plan.seconds));
        gather((0..plan.threads).map(start).collect())
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut latencies = Histogram::default();
    all.iter().for_each(|done| latencies.merge(&done.latencies));
    some("connections", latencies.count())?;
    #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
    let per_second = latencies.count() as f64 / seconds;
    Ok(json!({
        "requests": latencies.count(),
        "connections_per_s": per_second,
        "seconds": seconds,
        "p50_us": latencies.quantile_us(500),
        "p99_us": latencies.quantile_us(990),
        "bytes_sent": all.iter().map(|done| done.sent).sum::<u64>(),
        "bytes_received": all.iter().map(|done| done.received).sum::<u64>(),
    }))
}

fn several(address: &str, config: Option<&Arc<ClientConfig>>, seconds: f64) -> Result<Done> {
    let place = address.to_socket_addrs()?.next().ok_or(BenchError::Wire("no address"))?;
    let mut ask = wire::api_versions()?;
    wire::stamp(&mut ask, 0);
    let mut done = Done::default();
    let until = now() + Duration::from_secs_f64(seconds);
    loop {
        let begin = now();
        if begin >= until {
            return Ok(done);
        }
        let tcp = TcpStream::connect(place)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(ANSWER_MAX))?;
        let received = match config {
            None => exchange(tcp, &ask)?,
            Some(config) => {
                let client = ClientConnection::new(config.clone(), tls::name(address)?);
                let client = client.map_err(|error| BenchError::Codec(error.to_string()))?;
                exchange(StreamOwned::new(client, tcp), &ask)?
            }
        };
        done.latencies.record(begin.elapsed());
        done.sent += ask.len() as u64;
        done.received += received;
    }
}

/// One question and its answer; gives the answer's bytes.
fn exchange(mut stream: impl Read + Write, ask: &[u8]) -> Result<u64> {
    stream.write_all(ask)?;
    stream.flush()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    let mut answer = vec![0; usize::try_from(length).unwrap_or(0).min(ANSWER_BYTES_MAX)];
    stream.read_exact(&mut answer)?;
    wire::read_api_versions(&answer)?;
    Ok(u64::from(length) + 4)
}

/// An answer to ApiVersions is some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
