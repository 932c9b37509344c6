//! The honest bare relay that every figure is compared with: tokio `copy_bidirectional` with
//! 64 KiB buffers, TCP_NODELAY, a worker per core, Firebreak's build profile and allocator.
//!
//! It counts the bytes it carried. Connect to the statistics address for one line of JSON; SIGTERM
//! prints the same line and ends it.

use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;

use clap::Parser;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

#[derive(Parser)]
#[command(about = "The bare relay that Firebreak is measured against")]
struct Args {
    /// Where clients connect.
    #[arg(long)]
    listen: String,
    /// Where their bytes go.
    #[arg(long)]
    upstream: String,
    /// Where the counts can be asked for.
    #[arg(long)]
    stats: String,
    /// Worker threads; as many as cores when absent.
    #[arg(long)]
    workers: Option<usize>,
}

/// What was carried so far.
#[derive(Default)]
struct Carried {
    connections: AtomicU64,
    failed: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

impl Carried {
    fn json(&self) -> String {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let line = serde_json::json!({
            "connections": read(&self.connections),
            "failed": read(&self.failed),
            "up": read(&self.up_bytes),
            "down": read(&self.down_bytes),
        });
        format!("{line}\n")
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let cores = available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.workers.unwrap_or(cores))
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(serve(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> io::Result<()> {
    let listener = TcpListener::bind(&args.listen).await?;
    let stats = TcpListener::bind(&args.stats).await?;
    let carried = Arc::new(Carried::default());
    let upstream: Arc<str> = args.upstream.into();
    let mut pairs = JoinSet::new();
    let mut end = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                pairs.spawn(pair(client, Arc::clone(&upstream), Arc::clone(&carried)));
            }
            Some(_) = pairs.join_next() => {}
            asked = stats.accept() => {
                let (mut asker, _) = asked?;
                asker.write_all(carried.json().as_bytes()).await?;
            }
            _ = end.recv() => {
                print!("{}", carried.json());
                return Ok(());
            }
        }
    }
}

async fn pair(client: TcpStream, upstream: Arc<str>, carried: Arc<Carried>) {
    carried.connections.fetch_add(1, Ordering::Relaxed);
    if relay(client, &upstream, &carried).await.is_err() {
        carried.failed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn relay(client: TcpStream, upstream: &str, carried: &Carried) -> io::Result<()> {
    client.set_nodelay(true)?;
    let broker = TcpStream::connect(upstream).await?;
    broker.set_nodelay(true)?;
    let mut client = Counted { stream: client, read_bytes: &carried.up_bytes };
    let mut broker = Counted { stream: broker, read_bytes: &carried.down_bytes };
    copy_bidirectional_with_sizes(&mut client, &mut broker, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

/// A stream that adds what is read from it to a counter.
struct Counted<'a> {
    stream: TcpStream,
    read_bytes: &'a AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let read = buffer.filled().len() - before;
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

const BUFFER_BYTES: usize = 64 * 1024;
