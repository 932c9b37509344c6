//! Sockets for the fake brokers: each node listens on a loopback address of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use protocol_ext::fake_broker::{FakeCluster, FakeNode, FakeSession, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::until;

/// Last byte of the first node's loopback address; the proxy is on 127.0.0.1.
const FIRST_HOST: i32 = 2;
/// Bytes written at once, so that the counts of bytes stay near the truth.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the sockets of one node saw.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: AtomicUsize,
    /// Connections open now.
    pub open: AtomicUsize,
    /// Bytes read.
    pub received: AtomicUsize,
    /// Bytes that the kernel took.
    pub sent: AtomicUsize,
    hang_up: Notify,
    frozen: AtomicBool,
}

/// Takes a request frame for a node and says what to do on the wire.
pub type Receiver = Arc<dyn Fn(i32, &Bytes) -> Vec<Step> + Send + Sync>;

#[derive(Debug)]
struct Shared {
    cluster: Mutex<FakeCluster>,
    tls: Option<Arc<rustls::ServerConfig>>,
    gate: Semaphore,
    write_bytes: AtomicUsize,
}

/// A fake cluster on sockets. It ends when it is dropped.
#[derive(Debug)]
pub struct Brokers {
    shared: Arc<Shared>,
    nodes: BTreeMap<i32, (Arc<Counts>, JoinSet<()>)>,
}

impl Brokers {
    /// Nodes 0, 1, ... with one topic `t` of three partitions.
    pub async fn start(nodes: i32) -> Self {
        Self::start_with(nodes, None).await
    }

    /// The same, in TLS.
    pub async fn start_with(nodes: i32, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let mut cluster = FakeCluster::new(Vec::new());
        cluster.add_topic("t", 3);
        let shared = Shared {
            cluster: Mutex::new(cluster),
            tls,
            gate: Semaphore::new(0),
            write_bytes: AtomicUsize::new(CHUNK_BYTES),
        };
        let mut brokers = Self { shared: Arc::new(shared), nodes: BTreeMap::new() };
        for id in 0..nodes {
            brokers.add(id).await;
        }
        brokers
    }

    /// The state that all nodes answer from.
    pub fn cluster(&self) -> MutexGuard<'_, FakeCluster> {
        self.shared.cluster.lock().expect("no test panics with the cluster in its hands")
    }

    /// What takes a request frame for a node and says what to do on the wire.
    pub fn receiver(&self) -> Receiver {
        let shared = self.shared.clone();
        Arc::new(move |node, frame| {
            shared.cluster.lock().expect("not poisoned").receive(node, frame)
        })
    }

    /// Counts of one node.
    pub fn counts(&self, id: i32) -> &Counts {
        &self.nodes[&id].0
    }

    /// The host of a node.
    pub fn host(id: i32) -> String {
        format!("127.0.0.{}", FIRST_HOST + id)
    }

    /// `host:port` of every node, for the proxy's configuration.
    pub fn bootstrap(&self) -> Vec<String> {
        self.cluster().nodes.iter().map(|node| format!("{}:{}", node.host, node.port)).collect()
    }

    /// Starts a node, or starts it again on another port.
    pub async fn add(&mut self, id: i32) {
        let last = u8::try_from(FIRST_HOST + id).expect("few nodes");
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        self.add_at(id, address, &Self::host(id)).await;
    }

    /// Starts a node at an address, under a host name; gives its port.
    pub async fn add_at(&mut self, id: i32, address: SocketAddr, host: &str) -> u16 {
        // A port that a node had before may be another process's by now, which gives it back.
        let bound =
            until("a port that a node had", async || match TcpListener::bind(address).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                bound => Some(bound.expect("a loopback port")),
            });
        let listener = bound.await.unwrap_or_else(|late| panic!("{address}: {late:?}"));
        let port = listener.local_addr().expect("bound").port();
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, id, self.shared.clone(), counts.clone()));
        self.nodes.insert(id, (counts, tasks));
        let mut cluster = self.cluster();
        cluster.nodes.retain(|node| node.id != id);
        cluster.nodes.push(FakeNode { id, host: host.to_owned(), port });
        cluster.nodes.sort_by_key(|node| node.id);
        port
    }

    /// Takes a node away for good: the others do not tell of it any more.
    pub fn retire(&mut self, id: i32) {
        self.stop(id);
        self.cluster().nodes.retain(|node| node.id != id);
    }

    /// From now on a node takes connections and requests, and answers none.
    pub fn freeze(&self, id: i32) {
        self.counts(id).frozen.store(true, Ordering::Relaxed);
    }

    /// Takes a node's listener and connections away; the others go on telling of it.
    pub fn stop(&mut self, id: i32) {
        self.nodes.remove(&id);
    }

    /// Closes a node's connections, not its listener.
    pub fn hang_up(&self, id: i32) {
        self.counts(id).hang_up.notify_waiters();
    }

    /// Lets one answer go on that is held.
    pub fn release(&self) {
        self.shared.gate.add_permits(1);
    }

    /// From now on every write has at most so many bytes.
    pub fn write_at_most(&self, bytes: usize) {
        self.shared.write_bytes.store(bytes, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, id: i32, shared: Arc<Shared>, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        let (shared, counts) = (shared.clone(), counts.clone());
        connections.spawn(async move {
            let open = Open(&counts.open);
            open.0.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                // However a connection ends, the test sees it at the client.
                _ = accepted(stream, id, &shared, &counts) => {}
                () = counts.hang_up.notified() => {}
            }
        });
    }
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accepted(tcp: TcpStream, id: i32, shared: &Shared, counts: &Counts) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    match &shared.tls {
        None => serve(tcp, id, shared, counts).await,
        Some(tls) => {
            let tls = TlsAcceptor::from(tls.clone()).accept(tcp).await?;
            serve(tls, id, shared, counts).await
        }
    }
}

async fn serve<S>(mut stream: S, id: i32, shared: &Shared, counts: &Counts) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session { session: FakeSession::default(), shared };
    loop {
        let frame = read_frame(&mut stream, counts).await?;
        if counts.frozen.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let mut receive =
            |cluster: &mut FakeCluster| cluster.receive_in(&mut session.session, id, &frame);
        let steps = receive(&mut shared.cluster.lock().expect("not poisoned"));
        for step in steps {
            match step {
                Step::Send(bytes) => write(&mut stream, &bytes, shared, counts).await?,
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Held => shared.gate.acquire().await.expect("never closed").forget(),
                Step::Close => return Ok(()),
            }
        }
    }
}

/// A connection, which the cluster hears the end of.
struct Session<'a> {
    session: FakeSession,
    shared: &'a Shared,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Ok(mut cluster) = self.shared.cluster.lock() {
            cluster.closed(&self.session);
        }
    }
}

async fn read_frame<S>(stream: &mut S, counts: &Counts) -> io::Result<Bytes>
where
    S: AsyncRead + Unpin,
{
    let length = usize::try_from(stream.read_i32().await?).map_err(io::Error::other)?;
    counts.received.fetch_add(4, Ordering::Relaxed);
    let mut frame = BytesMut::with_capacity(length);
    while frame.len() < length {
        let left = (length - frame.len()).min(CHUNK_BYTES);
        let n = (&mut *stream).take(left as u64).read_buf(&mut frame).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        counts.received.fetch_add(n, Ordering::Relaxed);
    }
    Ok(frame.freeze())
}

async fn write<S>(stream: &mut S, bytes: &[u8], shared: &Shared, counts: &Counts) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let mut left = bytes;
    while !left.is_empty() {
        let n = left.len().min(shared.write_bytes.load(Ordering::Relaxed));
        let n = stream.write(&left[..n]).await?;
        counts.sent.fetch_add(n, Ordering::Relaxed);
        left = &left[n..];
        if n < CHUNK_BYTES {
            tokio::task::yield_now().await;
        }
    }
    stream.flush().await
}
