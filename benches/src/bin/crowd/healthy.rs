//! Clients as they should be: a small Produce request now and then, and the answer is read.
//!
//! Open loop: a request is due by a schedule and its latency counts from when it was due.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use firebreak_benches::batch;
use firebreak_benches::clock::now;
use firebreak_benches::error::{BenchError, Result};
use firebreak_benches::histogram::Histogram;
use firebreak_benches::wire::{self, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Who asks how often.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Clients, one connection each.
    pub connections: u32,
    /// Requests per second of all together.
    pub rate: u32,
    /// How long requests are counted.
    pub measured: Duration,
}

impl Plan {
    /// Time between two requests of one client.
    fn interval(self) -> Duration {
        Duration::from_secs(1) * self.connections / self.rate.max(1)
    }
}

/// What all of them saw.
pub struct Asked {
    /// Time from when a request was due to its answer.
    pub latencies: Histogram,
    /// Their connections, still open.
    pub held: Vec<TcpStream>,
}

/// Open connections.
pub struct Clients(Vec<TcpStream>);

/// Connects all, a few at a time.
pub async fn open(to: SocketAddr, plan: Plan) -> Result<Clients> {
    Ok(Clients(connect(to, plan.connections, None).await?))
}

/// Opens `count` connections, with a receive buffer of that size if one is given.
pub async fn connect(to: SocketAddr, count: u32, buffer: Option<u32>) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    let mut opening = JoinSet::new();
    for n in 0..count {
        opening.spawn(async move {
            let socket = tokio::net::TcpSocket::new_v4()?;
            if let Some(bytes) = buffer {
                socket.set_recv_buffer_size(bytes)?;
            }
            // Addresses to come from, so that their ports do not run out.
            let last = u8::try_from(n % SOURCES).unwrap_or(0);
            socket.bind(([127, 0, 1, last], 0).into())?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        });
        if opening.len() >= OPENING_MAX {
            open.extend(joined(opening.join_next().await)?);
        }
    }
    while let Some(done) = opening.join_next().await {
        open.extend(joined(Some(done))?);
    }
    Ok(open)
}

type Joined<T> = Option<std::result::Result<std::io::Result<T>, tokio::task::JoinError>>;

fn joined<T>(done: Joined<T>) -> Result<Option<T>> {
    done.transpose().map_err(|_| BenchError::Panicked)?.transpose().map_err(BenchError::from)
}

impl Clients {
    /// Keeps the schedule to its end; a refused request or a lost connection voids the run.
    pub async fn run(self, target: &Target, plan: Plan) -> Result<Asked> {
        let frame = wire::produce(target, batch::build(1, RECORD_BYTES))?;
        let latencies = Arc::new(Mutex::new(Histogram::default()));
        let begin = now() + WARM_UP;
        let mut clients = JoinSet::new();
        for (n, stream) in (0..).zip(self.0) {
            let phase = plan.interval() * n / plan.connections.max(1);
            let (frame, latencies) = (frame.clone(), latencies.clone());
            clients.spawn(ask(stream, frame, plan, begin, now() + phase, latencies));
        }
        let mut held = Vec::new();
        while let Some(done) = clients.join_next().await {
            held.push(done.map_err(|_| BenchError::Panicked)??);
        }
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Asked { latencies, held })
    }
}

/// One client from its first request to the end of the measured time.
async fn ask(
    mut stream: TcpStream,
    mut frame: BytesMut,
    plan: Plan,
    begin: Instant,
    mut due: Instant,
    latencies: Arc<Mutex<Histogram>>,
) -> Result<TcpStream> {
    let mut answer = Vec::new();
    let mut correlation = 0_i32;
    while due < begin + plan.measured {
        tokio::time::sleep_until(due.into()).await;
        wire::stamp(&mut frame, correlation);
        stream.write_all(&frame).await?;
        let length = stream.read_u32().await?;
        answer.resize(usize::try_from(length).map_err(|_| BenchError::Wire("length"))?, 0);
        stream.read_exact(&mut answer).await?;
        let answered = now();
        if answer[..4] != correlation.to_be_bytes() {
            return Err(BenchError::Wire("answer out of order"));
        }
        wire::read_produce(&answer)?;
        if due >= begin {
            let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.record(answered - due);
        }
        correlation += 1;
        due += plan.interval();
    }
    Ok(stream)
}

const RECORD_BYTES: u32 = 100;
/// Requests are not counted before all clients are at work.
const WARM_UP: Duration = Duration::from_secs(3);
const OPENING_MAX: usize = 100;
const SOURCES: u32 = 200;
