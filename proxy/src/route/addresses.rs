//! Which broker stands behind which virtual broker, both ways.
//!
//! control/cluster.rs learns the brokers; connections ask here where to connect; responses ask
//! here what to tell clients. Invariant: what clients are told depends on the configuration only,
//! never on how many brokers are known.

mod offered;
mod scrub;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::RwLock;
use protocol_ext::address::Addresses;
use tokio::sync::Notify;

use crate::config::{Cluster, Listen, NodeNames, Ports};
use crate::limits::Limits;
use crate::net::race;
use crate::upstream::access::{Access, Connected, Login};
use crate::upstream::auth::Credentials;
use crate::{clock, fault, random};
use offered::Offered;
use scrub::Place;

/// A real broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub node: i32,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
}

/// Which virtual broker a listener stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Any broker that answers.
    Bootstrap,
    /// This one.
    Node(i32),
}

impl std::fmt::Display for Door {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bootstrap => out.write_str("any"),
            Self::Node(node) => write!(out, "{node}"),
        }
    }
}

/// Brokers known and addresses told.
#[derive(Debug)]
pub struct Directory {
    access: Arc<Access>,
    bootstrap: Vec<(String, u16)>,
    advertise: Bytes,
    bootstrap_port: u16,
    ports: Ports,
    names: Option<NodeNames>,
    offered: RwLock<Offered>,
    brokers: RwLock<Arc<Vec<Broker>>>,
    learned: Notify,
    /// A broker told its versions, or that it tells none.
    told: Notify,
    changed: Notify,
    ask: Notify,
}

impl Directory {
    /// A directory that knows no broker yet.
    pub fn new(listen: &Listen, cluster: &Cluster, access: Arc<Access>) -> Self {
        Self {
            access,
            bootstrap: cluster.bootstrap.clone(),
            advertise: listen.advertise.clone().into(),
            bootstrap_port: listen.bootstrap.port(),
            ports: listen.ports.clone(),
            names: listen.sni.clone(),
            offered: RwLock::default(),
            brokers: RwLock::default(),
            learned: Notify::new(),
            told: Notify::new(),
            changed: Notify::new(),
            ask: Notify::new(),
        }
    }

    /// The brokers known now, by id.
    pub fn brokers(&self) -> Arc<Vec<Broker>> {
        self.brokers.read().clone()
    }

    /// Takes a new list of brokers; gives those that have no port of their own.
    pub fn learn(&self, mut brokers: Vec<Broker>) -> Vec<Broker> {
        brokers.sort_by_key(|broker| broker.node);
        let portless = brokers.iter().filter(|b| self.port_of(b.node).is_none()).cloned();
        let portless = portless.collect();
        let same = **self.brokers.read() == brokers;
        *self.brokers.write() = Arc::new(brokers);
        self.learned.notify_waiters();
        if !same {
            self.offered.write().keep(&self.brokers());
            self.told.notify_waiters();
            self.changed.notify_one();
        }
        portless
    }

    /// Takes the table of versions that the broker at a place gave, a frame of the layout
    /// `versions::LAYOUT`; `None` if it gave none.
    pub fn learn_versions(&self, place: &(String, u16), table: Option<Bytes>) {
        self.offered.write().learn(place, table, &self.brokers());
        self.told.notify_waiters();
    }

    /// Known brokers that should tell their table of versions.
    pub fn without_versions(
        &self,
        now: clock::Tick,
        age: Duration,
        pause: Duration,
    ) -> Vec<(String, u16)> {
        self.offered.read().due(&self.brokers(), now, (age, pause))
    }

    /// The table of what all brokers have. Waits until each was asked, at most `limits.connect`.
    pub async fn offered(&self, limits: &Limits) -> Option<Bytes> {
        let whole = async {
            loop {
                let mut told = pin!(self.told.notified());
                told.as_mut().enable();
                if self.offered.read().is_whole(&self.brokers()) {
                    return;
                }
                if self.brokers().is_empty() {
                    self.wake();
                }
                told.await;
            }
        };
        // What is known then is better than nothing.
        let _ = tokio::time::timeout(limits.connect, whole).await;
        self.offered.read().common()
    }

    /// Resolves when a new list of brokers was learned.
    pub async fn brokers_changed(&self) {
        self.changed.notified().await;
    }

    /// The proxy's own name and password, if it has them.
    pub fn own(&self) -> Option<Arc<Credentials>> {
        self.access.own().map(|own| own.get())
    }

    /// Resolves when someone wants the brokers to be asked again.
    pub async fn asked(&self) {
        self.ask.notified().await;
    }

    /// Has the brokers asked again.
    pub fn wake(&self) {
        self.ask.notify_one();
    }

    /// Has the brokers asked again and waits for the answer, at most `limits.connect`.
    async fn refresh(&self, limits: &Limits) {
        let learned = self.learned.notified();
        self.wake();
        let answered = tokio::time::timeout(limits.connect, learned).await;
        tracing::debug!(answered = answered.is_ok(), "brokers asked again");
    }

    /// Where a broker is.
    fn find(&self, node: i32) -> Option<Broker> {
        self.brokers.read().iter().find(|broker| broker.node == node).cloned()
    }

    /// Connects to the broker behind `door`. An address that fails is learned anew once.
    pub async fn connect(
        &self,
        door: Door,
        limits: &Limits,
        login: &Login,
    ) -> io::Result<Connected> {
        match door {
            Door::Bootstrap => self.connect_any(limits, login).await,
            Door::Node(node) => self.connect_node(node, limits, login).await,
        }
    }

    async fn connect_node(
        &self,
        node: i32,
        limits: &Limits,
        login: &Login,
    ) -> io::Result<Connected> {
        let known = self.find(node);
        let failed = match &known {
            None => io::Error::new(io::ErrorKind::NotFound, "no such broker is known"),
            Some(Broker { host, port, .. }) => {
                match self.access.connect((host, *port), limits.connect, login).await {
                    Ok(connected) => return Ok(connected),
                    // A wrong password is wrong everywhere.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        return Err(error);
                    }
                    Err(error) => error,
                }
            }
        };
        if fault::on("moved-broker-ignored") {
            return Err(failed);
        }
        self.refresh(limits).await;
        match self.find(node).filter(|broker| Some(broker) != known.as_ref()) {
            Some(Broker { host, port, .. }) => {
                self.access.connect((&host, port), limits.connect, login).await
            }
            None => Err(failed),
        }
    }

    /// Connects to any broker: all places race.
    pub async fn connect_any(&self, limits: &Limits, login: &Login) -> io::Result<Connected> {
        let places = self.places();
        let attempts = places.iter().map(|place| self.reach(place, limits, login).boxed());
        race(attempts.collect()).await
    }

    /// Where brokers may be: the known ones in random order, then the configured ones.
    pub fn places(&self) -> Vec<(String, u16)> {
        let known = self.brokers();
        let first = random::below(known.len());
        let known = known.iter().cycle().skip(first).take(known.len());
        let mut places: Vec<(String, u16)> = known.map(|b| (b.host.clone(), b.port)).collect();
        for place in &self.bootstrap {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        places
    }

    /// Connects to a broker that may be at `place`.
    pub async fn reach(
        &self,
        (host, port): &(String, u16),
        limits: &Limits,
        login: &Login,
    ) -> io::Result<Connected> {
        self.access.connect((host, *port), limits.connect, login).await
    }

    /// Port of a virtual broker; `None` if it has none.
    pub fn port_of(&self, node: i32) -> Option<u16> {
        match self.names {
            Some(_) => Some(self.bootstrap_port),
            None => self.ports.of(node),
        }
    }

    /// The virtual broker that a client asked for by name, at the door it came through.
    pub fn named(&self, door: Door, name: Option<&str>) -> Option<Door> {
        let Some(names) = &self.names else { return Some(door) };
        let name = name?;
        if name.as_bytes().eq_ignore_ascii_case(&self.advertise) || fault::on("any-name-served") {
            return Some(Door::Bootstrap);
        }
        names.node(name).map(Door::Node)
    }

    /// Host and port of bootstrap as clients should write it.
    pub fn bootstrap_address(&self) -> String {
        format!("{}:{}", String::from_utf8_lossy(&self.advertise), self.bootstrap_port)
    }
}

impl Addresses for Directory {
    fn of(&self, node: i32) -> (Bytes, u16) {
        let host = match &self.names {
            Some(names) => names.of(node).into(),
            None => self.advertise.clone(),
        };
        (host, self.port_of(node).unwrap_or(self.bootstrap_port))
    }

    fn scrub(&self, text: &str) -> Option<String> {
        let brokers = self.brokers();
        let known = brokers.iter().map(|broker| Place {
            host: &broker.host,
            port: broker.port,
            told: self.of(broker.node).1,
        });
        let configured = self.bootstrap.iter();
        let told = self.bootstrap_port;
        let configured = configured.map(|(host, port)| Place { host, port: *port, told });
        let places: Vec<Place<'_>> = known.chain(configured).collect();
        scrub::scrub(text, &places, &String::from_utf8_lossy(&self.advertise), told)
    }
}
