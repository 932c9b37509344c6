//! Clients as they should not be, of four kinds in equal parts.
//!
//! | kind | does | holds at the proxy |
//! |---|---|---|
//! | silent | nothing | no broker, no buffer |
//! | half a head | a byte of a request's head now and then, never all of it | no broker |
//! | writer | a Produce request at 100 bytes/s, quick enough not to be cut off | a broker |
//! | reader | asks for 8 MB and reads 1,000 bytes/s | a broker and a full buffer |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use firebreak_benches::batch;
use firebreak_benches::error::Result;
use firebreak_benches::wire::{self, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::broker::FETCHED_BYTES;
use crate::healthy::connect;

/// What the slow ones did so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connections that were opened.
    pub opened: u64,
    /// Of them those that hold a broker.
    pub with_broker: u64,
    /// Connections that ended, which none should.
    pub ended: u64,
    /// Bytes that writers and half heads sent.
    pub sent: u64,
    /// Bytes that readers took.
    pub received: u64,
}

#[derive(Default)]
struct Shared {
    ended: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// All slow clients; they end when it is dropped.
pub struct Crowd {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    with_broker: u64,
}

impl Crowd {
    /// Opens `count` connections and has them be slow.
    pub async fn open(to: SocketAddr, target: &Target, count: u32) -> Result<Self> {
        let produce = wire::produce(target, batch::build(1, SLOW_RECORD_BYTES))?;
        let fetched = i32::try_from(FETCHED_BYTES).unwrap_or(i32::MAX);
        let fetch = wire::fetch(target, fetched)?;
        let each = count / 4;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for stream in connect(to, count - each * 3, None).await? {
            tasks.spawn(until_end(silent(stream), shared.clone()));
        }
        // Each at its own moment of a second: a burst of them would slow down this process, and
        // the healthy ones are in it.
        let spread = |n: u32, client| {
            let phase = PAUSE * n / each.max(1);
            async move {
                tokio::time::sleep(phase).await;
                client
            }
        };
        for (n, stream) in (0..).zip(connect(to, each, None).await?) {
            let head = produce.clone().split_to(HALF_HEAD_BYTES);
            let slowly = write(spread(n, stream), head, 1, shared.clone());
            tasks.spawn(until_end(slowly, shared.clone()));
        }
        for (n, stream) in (0..).zip(connect(to, each, None).await?) {
            let slowly = write(spread(n, stream), produce.clone(), WRITTEN_BYTES, shared.clone());
            tasks.spawn(until_end(slowly, shared.clone()));
        }
        for (n, stream) in (0..).zip(connect(to, each, Some(READER_BUFFER_BYTES)).await?) {
            let slowly = read(spread(n, stream), fetch.clone(), shared.clone());
            tasks.spawn(until_end(slowly, shared.clone()));
        }
        // The readers' answers fill every buffer on the way.
        tokio::time::sleep(SETTLE).await;
        Ok(Self { shared, tasks, with_broker: u64::from(each * 2) })
    }

    /// What they did so far.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { ended, sent, received } = &*self.shared;
        Counts {
            opened: self.tasks.len() as u64,
            with_broker: self.with_broker,
            ended: read(ended),
            sent: read(sent),
            received: read(received),
        }
    }
}

async fn until_end(client: impl Future<Output = std::io::Result<()>>, shared: Arc<Shared>) {
    // However it ends, it should not have.
    let _ = client.await;
    shared.ended.fetch_add(1, Ordering::Relaxed);
}

async fn silent(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_u8().await.map(|_| ())
}

/// Sends `at_once` bytes of `frame` a second, then waits.
async fn write(
    stream: impl Future<Output = TcpStream>,
    frame: BytesMut,
    at_once: usize,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let mut stream = stream.await;
    for part in frame.chunks(at_once) {
        stream.write_all(part).await?;
        shared.sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    silent(stream).await
}

async fn read(
    stream: impl Future<Output = TcpStream>,
    ask: BytesMut,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let mut stream = stream.await;
    stream.write_all(&ask).await?;
    let mut part = [0; READ_BYTES];
    loop {
        stream.read_exact(&mut part).await?;
        shared.received.fetch_add(part.len() as u64, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

const PAUSE: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(5);
/// Longer than what is sent in any run.
const SLOW_RECORD_BYTES: u32 = 60_000;
const HALF_HEAD_BYTES: usize = 7;
const WRITTEN_BYTES: usize = 100;
const READ_BYTES: usize = 1000;
const READER_BUFFER_BYTES: u32 = 8192;
