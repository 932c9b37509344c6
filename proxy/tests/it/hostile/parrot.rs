//! A broker that answers every request with a captured answer of its API and version, or with a
//! mutant of one. What the proxy itself asks is answered as the fake cluster would.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use protocol_ext::api;
use protocol_ext::fake_broker::{FakeNode, Step};
use protocol_ext::header::{self, Head};
use protocol_ext::hostile::Frame;
use protocol_ext::hostile::mutate::Mutator;
use protocol_ext::hostile::random::Random;
use protocol_ext::wire::Reader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::broker::{Brokers, Receiver};

/// What the proxy calls itself towards brokers.
const PROXY: &str = "firebreak";
/// One answer in so many has another correlation id, one another length.
const LIES_ABOUT_FRAMES: usize = 60;

/// A running parrot; it ends when it is dropped.
#[derive(Debug)]
pub struct Parrot {
    /// Answers given.
    pub answers: Arc<AtomicU64>,
    /// APIs and versions that were answered.
    pub answered: Answered,
    _tasks: JoinSet<()>,
}

/// APIs with their versions.
pub type Answered = Arc<Mutex<BTreeSet<(i16, i16)>>>;

struct Shared {
    node: i32,
    answers: Arc<AtomicU64>,
    answered: Answered,
    frames: HashMap<(i16, i16), Vec<Bytes>>,
    all: Vec<Bytes>,
    /// Seed of the mutants; `None`: answers as they were captured.
    seed: Option<u64>,
    cluster: Receiver,
}

impl Parrot {
    /// Joins the cluster of `brokers` as `node`, with the responses among `frames`.
    pub async fn start(brokers: &Brokers, node: i32, frames: &[Frame], seed: Option<u64>) -> Self {
        let host = Ipv4Addr::new(127, 0, 0, u8::try_from(node + 2).expect("few nodes"));
        let listener = TcpListener::bind((host, 0)).await.expect("a loopback port");
        let port = listener.local_addr().expect("bound").port();
        brokers.cluster().nodes.push(FakeNode { id: node, host: host.to_string(), port });
        let responses = frames.iter().filter(|frame| !frame.request);
        let (mut of, mut all) = (HashMap::<_, Vec<Bytes>>::new(), Vec::new());
        for frame in responses {
            of.entry((frame.api, frame.version)).or_default().push(frame.bytes.clone());
            all.push(frame.bytes.clone());
        }
        let (answers, answered) = (Arc::new(AtomicU64::new(0)), Answered::default());
        let shared = Arc::new(Shared {
            node,
            answers: answers.clone(),
            answered: answered.clone(),
            frames: of,
            all,
            seed,
            cluster: brokers.receiver(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared));
        Self { answers, answered, _tasks: tasks }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        // However a connection ends, the proxy sees it.
        connections.spawn(async move { serve(stream, &shared).await.unwrap_or(()) });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut mutator = Mutator::default();
    loop {
        let length = usize::try_from(stream.read_i32().await?).map_err(io::Error::other)?;
        let mut frame = BytesMut::with_capacity(length.min(1 << 20));
        while frame.len() < length {
            let left = (length - frame.len()) as u64;
            if (&mut stream).take(left).read_buf(&mut frame).await? == 0 {
                return Ok(());
            }
        }
        let frame = frame.freeze();
        let Ok(head) = Head::parse(&frame) else { return Ok(()) };
        if header::client_id(&frame) == PROXY {
            for step in (shared.cluster)(shared.node, &frame) {
                match step {
                    Step::Send(bytes) => stream.write_all(&bytes).await?,
                    Step::Close => return Ok(()),
                    Step::Wait(_) | Step::Held => {}
                }
            }
            continue;
        }
        if head.api == api::PRODUCE && acks(head, &frame) == Some(0) {
            continue;
        }
        let n = shared.answers.fetch_add(1, Ordering::Relaxed);
        shared
            .answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((head.api, head.version));
        let answer = answer(shared, &mut mutator, head, n);
        stream.write_all(&answer).await?;
    }
}

/// The acks of a Produce request.
fn acks(head: Head, frame: &[u8]) -> Option<i16> {
    let mut read = Reader::new(frame, header::request_body_at(head, frame).ok()?);
    if head.version >= 3 {
        read.bytes(api::is_flexible(head.api, head.version), false).ok()?;
    }
    read.i16().ok()
}

/// An answer with its length, the `n`th of this broker.
fn answer(shared: &Shared, mutator: &mut Mutator, head: Head, n: u64) -> Vec<u8> {
    let mut random = Random::new(shared.seed.unwrap_or(0), n);
    let known = shared.frames.get(&(head.api, head.version));
    let frame = known.and_then(|frames| random.pick(frames)).cloned().unwrap_or_default();
    let mut body = frame.to_vec();
    if shared.seed.is_some() {
        let other = random.pick(&shared.all).cloned().unwrap_or_default();
        body = mutator.mutant(&mut random, &frame, 4, &other);
    }
    body.resize(body.len().max(4), 0);
    if shared.seed.is_none() || !random.one_in(LIES_ABOUT_FRAMES) {
        body[..4].copy_from_slice(&head.correlation.to_be_bytes());
    }
    let mut length = i32::try_from(body.len()).unwrap_or(i32::MAX);
    if shared.seed.is_some() && random.one_in(LIES_ABOUT_FRAMES) {
        length = [0, 3, -1, i32::MAX, length - 1, length + 1][random.below(6)];
    }
    [&length.to_be_bytes(), &body[..]].concat()
}
