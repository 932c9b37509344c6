//! A way to a store that can be made to stall: bytes pass between clients and a service until the
//! line `stall N` on standard input; from then on every connection passes N more bytes of answers
//! and stands still until the line `go`. Each line is answered with one line of JSON.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Parser)]
#[command(about = "A store that stalls when it is told to")]
struct Args {
    /// Where clients connect.
    #[arg(long)]
    listen: String,
    /// The service.
    #[arg(long)]
    upstream: String,
}

/// How many times it was told to stall, and how many bytes of answers a connection may pass since;
/// `None`: any number.
type Gate = (u64, Option<u64>);

/// What happened so far.
#[derive(Default)]
struct Counts {
    /// Bytes of answers.
    passed: AtomicU64,
    /// Times that a connection stood still.
    stood: AtomicU64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(Args::parse()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stall: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> io::Result<()> {
    let listener = TcpListener::bind(&args.listen).await?;
    let upstream: Arc<str> = args.upstream.into();
    let counts = Arc::new(Counts::default());
    let (gate, mut gates) = watch::channel::<Gate>((0, None));
    println!("{}", json!({ "listening": args.listen }));
    let told = counts.clone();
    // It ends with standard input, and everything else with it.
    thread::spawn(move || obey(&gate, &told));
    let mut pairs = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                pairs.spawn(pair(client, upstream.clone(), counts.clone(), gates.clone()));
            }
            // A connection that failed is its peers' to notice.
            Some(_) = pairs.join_next() => {}
            changed = gates.changed() => if changed.is_err() {
                return Ok(());
            }
        }
    }
}

fn obey(gate: &watch::Sender<Gate>, counts: &Counts) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    for line in io::stdin().lines().map_while(Result::ok) {
        let bytes = line.strip_prefix("stall ").and_then(|bytes| bytes.trim().parse().ok());
        gate.send_modify(|gate| *gate = (gate.0 + 1, bytes));
        let (passed, stood) = (read(&counts.passed), read(&counts.stood));
        println!("{}", json!({ "passed": passed, "stood": stood }));
    }
}

async fn pair(
    client: TcpStream,
    upstream: Arc<str>,
    counts: Arc<Counts>,
    gates: watch::Receiver<Gate>,
) -> io::Result<()> {
    let service = TcpStream::connect(&*upstream).await?;
    client.set_nodelay(true)?;
    service.set_nodelay(true)?;
    let (mut asks, answered) = client.into_split();
    let (answers, mut asked) = service.into_split();
    tokio::select! {
        done = copy(&mut asks, &mut asked) => done.map(drop),
        done = answer(answers, answered, &counts, gates) => done,
    }
}

/// Passes answers as far as the gate lets them.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counts: &Counts,
    mut gates: watch::Receiver<Gate>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut stall, mut passed) = (0, 0);
    loop {
        let (number, limit) = *gates.borrow_and_update();
        if number != stall {
            (stall, passed) = (number, 0);
        }
        let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(passed));
        if left == 0 {
            counts.stood.fetch_add(1, Ordering::Relaxed);
            gates.changed().await.map_err(io::Error::other)?;
            continue;
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = from.read(&mut buffer[..room]).await?;
        if got == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..got]).await?;
        passed += got as u64;
        counts.passed.fetch_add(got as u64, Ordering::Relaxed);
    }
}

const BUFFER_BYTES: usize = 256 * 1024;
