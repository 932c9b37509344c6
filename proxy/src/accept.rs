//! Listens for clients: bootstrap port and one port per virtual broker, or one port for all names.

pub mod origin;
mod sweep;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::config::Listen;
use crate::connection::{self, Patience, handle::Handle};
use crate::data_plane::DataPlane;
use crate::error::{Blame, ConnectionError};
use crate::fault;
use crate::limits::Limits;
use crate::net::{self, Listener, Tcp};
use crate::route::addresses::Door;
use crate::tasks::Tasks;
use sweep::Open;

/// How often it is told how many lines were left out.
const LEFT_OUT_TOLD: Duration = Duration::from_secs(10);
/// Kind of the lines about a listener that fails.
const ACCEPT: &str = "accept";

/// Binds every listener, or tells which address cannot be had.
pub fn bind(listen: &Listen) -> Result<Vec<(Door, Listener)>, (SocketAddr, io::Error)> {
    let nodes = listen
        .ports
        .all()
        .map(|(node, port)| (Door::Node(node), SocketAddr::new(listen.bootstrap.ip(), port)));
    // With names, one port serves all.
    let nodes = nodes.filter(|_| listen.sni.is_none());
    let doors = std::iter::once((Door::Bootstrap, listen.bootstrap)).chain(nodes);
    doors
        .map(|(door, address)| match net::listen(address) {
            Ok(listener) => Ok((door, listener)),
            Err(error) => Err((address, error)),
        })
        .collect()
}

/// All client connections of the process.
#[derive(Debug)]
pub struct Clients {
    plane: Arc<DataPlane>,
    tasks: Tasks,
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Open>>,
    limits: RwLock<Arc<Limits>>,
    draining: AtomicBool,
}

impl Clients {
    /// No connection yet.
    pub fn new(plane: Arc<DataPlane>, tasks: Tasks) -> Arc<Self> {
        let limits = RwLock::new(Arc::new(plane.limits.clone()));
        let (next, open) = (AtomicU64::new(0), Mutex::default());
        let draining = AtomicBool::new(false);
        Arc::new(Self { plane, tasks, next, open, limits, draining })
    }

    /// Bounds of connections in force now.
    fn limits(&self) -> Arc<Limits> {
        self.limits.read().clone()
    }

    /// Takes other bounds; open connections are looked at by them too.
    pub fn adopt(&self, limits: &Limits) {
        let beside = self.plane.read_only;
        let limits = if beside { limits.beside() } else { limits.clone() };
        *self.limits.write() = Arc::new(limits);
    }

    /// Accepts on one listener for ever; dropped at shutdown.
    pub async fn accept(self: Arc<Self>, door: Door, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.admit(door, stream, peer),
                Err(error) => {
                    if let Some(left_out) = self.plane.lines.allows(ACCEPT) {
                        tracing::warn!(%error, left_out, "accept failed");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, door: Door, stream: Tcp, peer: SocketAddr) {
        let limits = self.limits();
        let behind = origin::is_balancer(&self.plane.balancers, peer);
        let from = (!behind).then(|| peer.ip());
        if let Err(error) = net::tune(&stream) {
            tracing::debug!(%peer, %error, "client left at once");
            return;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle::default());
        let (clients, served_by) = (self.clone(), handle.clone());
        // Its task waits for this lock at its end, so it cannot leave before it is entered; and no
        // other listener enters a client between the look at the limits and this one's entry.
        let mut open = self.open.lock();
        if self.draining.load(Ordering::Relaxed) {
            net::reset_at_close(&stream);
            return;
        }
        if let Some(limit) = is_full(&open, from, &limits) {
            drop(open);
            net::reset_at_close(&stream);
            self.report(door, peer, &ConnectionError::Full(limit));
            return;
        }
        let (plane, patience) = (self.plane.clone(), Patience::of(&limits));
        let abort = self.tasks.spawn(async move {
            let entered = Entered(&clients, id);
            let (mut stream, mut peer) = (stream, peer);
            let found = match behind {
                true => {
                    let found = clients.found(id, (&mut stream, &mut peer), &served_by, limits);
                    Box::pin(found).await
                }
                false => Ok(true),
            };
            let served = match found {
                Ok(true) => connection::serve(stream, door, plane, served_by, patience).await,
                found => {
                    drop(stream);
                    found.map(drop)
                }
            };
            drop(entered);
            if let Err(error) = served {
                clients.report(door, peer, &error);
            }
        });
        open.insert(id, Open::new(handle, abort, (door, peer), !behind));
    }

    /// Finds out where a client behind a balancer is, and only then counts it with others of its
    /// address; false if a drain begins before.
    async fn found(
        &self,
        id: u64,
        (stream, peer): (&mut Tcp, &mut SocketAddr),
        handle: &Handle,
        limits: Arc<Limits>,
    ) -> Result<bool, ConnectionError> {
        *peer = tokio::select! {
            biased;
            from = origin::read_from(stream, *peer, limits.handshake) => from?,
            () = handle.drained() => return Ok(false),
        };
        let mut open = self.open.lock();
        let full = of_address_full(&open, peer.ip(), &limits);
        let full = full.filter(|_| !fault::on("header-not-counted"));
        if let Some(limit) = full {
            net::reset_at_close(stream);
            return Err(ConnectionError::Full(limit));
        }
        if let Some(open) = open.get_mut(&id) {
            open.found(*peer);
        }
        Ok(true)
    }

    /// Counts an error and says it once, unless there are too many of its kind.
    fn report(&self, door: Door, peer: SocketAddr, error: &ConnectionError) {
        self.plane.metrics.error(error);
        let listener = match door {
            Door::Bootstrap => "bootstrap".to_owned(),
            Door::Node(node) => format!("broker-{node}"),
        };
        if error.is_hang_up() {
            tracing::debug!(%peer, %listener, %error, "connection ended");
        } else if let Some(left_out) = self.plane.lines.allows(error.kind()) {
            match error.blame() {
                Blame::Ours => {
                    tracing::error!(%peer, %listener, %error, left_out, "connection closed");
                }
                Blame::Client | Blame::Upstream => {
                    tracing::warn!(%peer, %listener, %error, left_out, "connection closed");
                }
            }
        }
    }

    /// Looks after all connections for ever; dropped at shutdown.
    pub async fn watch(self: Arc<Self>) {
        tokio::join!(self.sweep(), self.tell_left_out());
    }

    /// Says how many lines were left out, so that a flood that ends is told too.
    async fn tell_left_out(&self) {
        loop {
            tokio::time::sleep(LEFT_OUT_TOLD).await;
            for (kind, left_out) in self.plane.lines.take_left_out() {
                tracing::warn!(kind, left_out, "more like it, not told one by one");
            }
        }
    }

    /// Asks every connection to answer what is in flight and close.
    pub fn drain(&self) {
        let open = self.open.lock();
        // Under the lock: who is not entered yet will not be.
        self.draining.store(true, Ordering::Relaxed);
        for open in open.values() {
            open.handle.drain();
        }
    }

    /// Cuts off every connection.
    pub fn abort(&self) {
        self.open.lock().values().for_each(|open| open.abort.abort());
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }
}

/// Why a client cannot be taken; one of a known address also for others that come from there.
fn is_full(
    open: &BTreeMap<u64, Open>,
    from: Option<IpAddr>,
    limits: &Limits,
) -> Option<&'static str> {
    if open.len() >= limits.connections_max {
        return Some("limits.connections_max");
    }
    of_address_full(open, from?, limits)
}

fn of_address_full(
    open: &BTreeMap<u64, Open>,
    from: IpAddr,
    limits: &Limits,
) -> Option<&'static str> {
    let of_address = limits.connections_per_address_max?;
    let same = open.values().filter(|open| open.is_from(from)).take(of_address).count();
    (same >= of_address).then_some("limits.connections_per_address_max")
}

/// A client that is entered; it leaves however its connection ends, a panic included.
struct Entered<'a>(&'a Clients, u64);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}
