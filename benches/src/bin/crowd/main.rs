//! Thousands of connections, half of them slow or silent: does it cost the other half anything?
//!
//! Flow: a broker that answers at once (this binary again, a process of its own) -> per round a run
//! with the healthy clients alone and one with the slow ones beside them, each before a fresh proxy
//! -> p99 of the healthy ones as a ratio, and the proxy's memory.
//! Invariant: whatever must have happened for the figures to mean anything is counted and judged:
//! connections at both sides of the proxy, slow ones that were there to the end, bytes they moved.

mod broker;
mod healthy;
mod proxy;
mod report;
mod slow;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use firebreak_benches::error::{BenchError, Result};
use firebreak_benches::wire::Target;
use tokio::runtime::Runtime;
use uuid::Uuid;

use proxy::Proxy;
use report::Run;

#[derive(Parser)]
#[command(about = "Thousands of slow and silent connections beside as many healthy ones")]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    /// The proxy's binary.
    #[arg(long, default_value = "target/release/firebreak")]
    firebreak: PathBuf,
    /// Where the JSON goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Clients that ask now and then and read their answers.
    #[arg(long, default_value_t = 4000)]
    healthy: u32,
    /// Slow and silent ones, of four kinds in equal parts.
    #[arg(long, default_value_t = 4000)]
    slow: u32,
    /// Requests per second of all healthy clients.
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Length of what is measured in each run.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Pairs of runs.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

#[derive(Subcommand)]
enum Role {
    /// Answers at once, until its standard input ends.
    Broker,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.role {
        Some(Role::Broker) => broker::serve().map(|()| true),
        None => crowd(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crowd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn crowd(args: &Args) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let broker = broker::Process::start()?;
    let mut pairs = Vec::new();
    for round in 0..args.rounds {
        let mut turns = [0, args.slow];
        if round % 2 == 1 {
            turns.reverse();
        }
        let mut runs = Vec::new();
        for slow in turns {
            let run = run(args, &runtime, broker.address, slow)?;
            println!("  round {}: {}", round + 1, run.line());
            runs.push(run);
        }
        if round % 2 == 1 {
            runs.reverse();
        }
        pairs.push((runs.remove(0), runs.remove(0)));
    }
    report::tell(args.out.as_deref(), &pairs)
}

/// One run before a fresh proxy.
fn run(args: &Args, runtime: &Runtime, broker: SocketAddr, slow: u32) -> Result<Run> {
    let proxy = Proxy::start(&args.firebreak, broker)?;
    let target = Target {
        leader: proxy.node.to_string(),
        topic: broker::TOPIC.to_owned(),
        topic_id: Uuid::nil(),
        partition: 0,
    };
    let plan = healthy::Plan {
        connections: args.healthy,
        rate: args.rate,
        measured: Duration::from_secs(args.seconds.into()),
    };
    let run = runtime.block_on(async {
        let crowd = slow::Crowd::open(proxy.node, &target, slow).await?;
        let clients = healthy::open(proxy.node, plan).await?;
        let asked = clients.run(&target, plan).await?;
        Ok::<_, BenchError>(Run {
            healthy: asked.held.len() as u64,
            latencies: asked.latencies,
            slow: crowd.counts(),
            open: proxy.connections()?,
            memory: proxy.memory()?,
        })
    })?;
    proxy.stop()?;
    Ok(run)
}
