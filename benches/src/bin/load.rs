//! The raw generator: one process, one shape of load, one line of JSON.
//!
//! Example: `load --bootstrap 127.0.0.1:9092 --topic t ping --seconds 2`

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use firebreak_benches::error::Result;
use firebreak_benches::load::{self, handshakes, idle, open, ping, throughput, unread};
use firebreak_benches::tls;

#[derive(Parser)]
#[command(about = "Raw Kafka load with prebuilt batches (Produce 12, Fetch 16)")]
struct Args {
    /// Where the leader of the partition is asked for.
    #[arg(long)]
    bootstrap: String,
    /// An existing topic; reading modes need records in its partition 0.
    #[arg(long)]
    topic: String,
    /// Connects in TLS and trusts the authority in this PEM file.
    #[arg(long)]
    tls: Option<std::path::PathBuf>,
    #[command(subcommand)]
    shape: Shape,
}

#[derive(Subcommand)]
enum Shape {
    /// One request in flight: p50 and p99.
    Ping {
        #[arg(long, default_value = "produce")]
        kind: ping::Kind,
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// As many Produce requests as the path carries.
    Produce(throughput::Produce),
    /// As many Fetch answers as the path carries; the records are thrown away.
    Fetch(throughput::Fetch),
    /// Records by a schedule; latency counts from the intended time.
    Open(open::Plan),
    /// Open loop with one record per request over many connections.
    Many {
        #[arg(long, default_value_t = 200)]
        connections: u32,
        /// Requests per second of each connection.
        #[arg(long, default_value_t = 10)]
        rate: u32,
        #[arg(long, default_value_t = 100)]
        size: u32,
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
    /// Connections that fall silent after one exchange, held until a line on standard input.
    Idle(idle::Plan),
    /// Connections that come, shake hands, ask one thing and go.
    Handshakes(handshakes::Plan),
    /// Readers that do not read; the line `drain` on standard input makes them.
    Unread(unread::Plan),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let (bootstrap, topic) = (args.bootstrap.as_str(), args.topic.as_str());
    if let Some(ca) = &args.tls {
        tls::turn_on(ca)?;
    }
    let counts = match &args.shape {
        Shape::Ping { kind, seconds } => ping::run(bootstrap, topic, *kind, *seconds)?,
        Shape::Produce(plan) => throughput::produce(bootstrap, topic, *plan)?,
        Shape::Fetch(plan) => throughput::fetch(bootstrap, topic, *plan)?,
        Shape::Open(plan) => open::run(bootstrap, topic, *plan)?,
        Shape::Many { connections, rate, size, seconds } => {
            let plan = open::Plan {
                connections: *connections,
                senders: 1,
                partitions: 1,
                rate: rate * connections,
                size: *size,
                batch_records: 1,
                located: false,
                seconds: *seconds,
            };
            open::run(bootstrap, topic, plan)?
        }
        Shape::Handshakes(plan) => handshakes::run(bootstrap, plan)?,
        Shape::Idle(plan) => return idle::run(bootstrap, topic, plan),
        Shape::Unread(plan) => return unread::run(bootstrap, topic, *plan),
    };
    load::answer(&counts)
}
