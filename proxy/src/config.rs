//! Configuration: file and flags -> raw -> checked. Holding a [`Config`] proves that it is valid.
//!
//! All problems are found in one pass; each names the key, what is wrong and what to write.

mod conflicts;
mod effective;
mod file;
mod parse;
pub mod raw;
mod regions;
mod security;
mod shared;
mod store;
mod topics;
mod words;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol_ext::lost::Lost;
use protocol_ext::part::Policy;
use protocol_ext::sasl::Mechanism;

use crate::accept::origin::Net;
use crate::fault;
use crate::limits::Limits;
use crate::route::region::{Region, Rule};
pub use shared::{Place, SharedCache};
pub use store::{Credentials, S3, Store, StoreEnv, StoreKind, is_plain};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// Address of the admin port.
    pub admin: SocketAddr,
    /// The cluster behind the proxy.
    pub cluster: Cluster,
    /// Where large values go; `None` if nothing is offloaded nor restored.
    pub store: Option<Store>,
    /// Which values are large, first matching rule wins.
    pub offload: Vec<OffloadRule>,
    /// Logical topics over several physical ones.
    pub virtual_topics: Vec<VirtualTopic>,
    /// Bounds.
    pub limits: Limits,
}

/// Where clients connect, and what they are told.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The bootstrap listener.
    pub bootstrap: SocketAddr,
    /// Host name that clients are told.
    pub advertise: String,
    /// Ports of the virtual brokers.
    pub ports: Ports,
    /// TLS to clients; `None`: plaintext.
    pub tls: Option<ServerTls>,
    /// Names of the virtual brokers, that stand for them in the place of ports.
    pub sni: Option<NodeNames>,
    /// SASL of clients that ends at the proxy; `None`: it passes through to brokers.
    pub sasl: Option<ListenSasl>,
    /// Load balancers whose connections begin with a PROXY header.
    pub balancers: Vec<Net>,
    /// Where clients read what lies in the logs as it is.
    pub passthrough: Option<Box<Listen>>,
    /// Nothing is written there: so it is where values are not restored.
    pub read_only: bool,
}

/// SASL that ends at the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSasl {
    /// Mechanisms that clients may use.
    pub mechanisms: Vec<Mechanism>,
    /// File of the users.
    pub users_file: PathBuf,
    /// As whom brokers see clients.
    pub brokers_see: BrokersSee,
    /// Time after which clients must prove themselves again; `None`: never.
    pub session: Option<Duration>,
}

/// As whom brokers see a client that proved to the proxy who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokersSee {
    /// As the proxy.
    Proxy,
    /// As the client: the proxy logs in with its password.
    Client,
}

/// The proxy's identity towards brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSasl {
    /// How it is proved.
    pub mechanism: Mechanism,
    /// Its name.
    pub username: String,
    /// File of its password.
    pub password_file: PathBuf,
}

/// The proxy's certificate towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// File of the certificate and its chain.
    pub cert: PathBuf,
    /// File of its private key.
    pub key: PathBuf,
    /// File of the authorities that clients' certificates must come from; `None`: none is asked.
    pub client_ca: Option<PathBuf>,
}

/// What brokers must show, and what the proxy shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// File of the authorities that brokers' certificates must come from.
    pub ca: PathBuf,
    /// Files of the proxy's own certificate and key; `None`: it has none.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Host names of virtual brokers: all alike but for the node id in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNames {
    /// What stands before the id, in lower case.
    pub before: String,
    /// What stands behind it.
    pub after: String,
}

impl NodeNames {
    /// The name of a broker.
    pub fn of(&self, node: i32) -> String {
        format!("{}{node}{}", self.before, self.after)
    }

    /// The broker of a name, as [`NodeNames::of`] writes it.
    pub fn node(&self, name: &str) -> Option<i32> {
        let digits = name.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let node: i32 = digits.parse().ok().filter(|node| *node >= 0)?;
        (node.to_string() == digits).then_some(node)
    }
}

/// Which port stands for which broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Port of node 0.
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
    /// Ports of brokers whose id lies outside the range: (node, port).
    pub mapped: Vec<(i32, u16)>,
}

impl Ports {
    /// The port of a broker; `None` if it has none.
    pub fn of(&self, node: i32) -> Option<u16> {
        if let Some((_, port)) = self.mapped.iter().find(|(id, _)| *id == node) {
            return Some(*port);
        }
        let port = i32::from(self.first).checked_add(node)?;
        (node >= 0 && port <= i32::from(self.last)).then(|| u16::try_from(port).ok())?
    }

    /// All (node, port) pairs to listen on.
    pub fn all(&self) -> impl Iterator<Item = (i32, u16)> + '_ {
        let range = (self.first..=self.last).zip(0..);
        let range = range.filter(|(port, node)| {
            !self.mapped.iter().any(|(id, mapped)| id == node || mapped == port)
        });
        range.map(|(port, node)| (node, port)).chain(self.mapped.iter().copied())
    }
}

/// A real cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name in logs and metrics.
    pub name: String,
    /// Brokers to ask first: (host, port).
    pub bootstrap: Vec<(String, u16)>,
    /// TLS to brokers; `None`: plaintext.
    pub tls: Option<ClientTls>,
    /// The proxy's identity; `None`: it has none.
    pub sasl: Option<ClusterSasl>,
}

/// Values of these topics above the threshold are stored as objects.
#[derive(Debug, Clone)]
pub struct OffloadRule {
    /// Topic names; `*` stands for anything.
    pub topics: Vec<String>,
    /// Values longer than this are stored.
    pub threshold_bytes: usize,
    /// How they are compressed there.
    pub codec: Policy,
    /// What becomes of a request whose values cannot be stored.
    pub on_store_failure: OnStoreFailure,
    /// What becomes of a record whose value is gone from the store; `None`: its partition answers
    /// an error there, until the value is back.
    pub on_missing: Option<Lost>,
}

/// What becomes of a request whose values cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// KAFKA_STORAGE_ERROR: the client sends it again.
    Fail,
    /// Batches go on as they came, up to a size that brokers take; others fail.
    Inline {
        /// The brokers' `max.message.bytes`.
        batch_bytes_max: usize,
    },
}

/// One logical topic over several physical ones, by what each record says of its region.
#[derive(Debug, Clone)]
pub struct VirtualTopic {
    /// The name clients use.
    pub name: String,
    /// Partitions of each slot.
    pub partitions: i32,
    /// Every slot gets a new segment a day.
    pub days: bool,
    /// By record timestamp: so many days are open at a time, each in a slot of its own per region.
    /// 1: days are by arrival.
    pub open_days: u8,
    /// Days after which a sealed segment is deleted.
    pub retention_days: u32,
    /// How long before its day begins a segment's topic is made; zero: when it begins.
    pub create_ahead: Duration,
    /// What in a record tells its region.
    pub rule: Rule,
    /// The regions, in the order of the file.
    pub regions: Vec<Region>,
    /// Names of the regions' slots; the last one is `other`.
    pub slots: Vec<String>,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in the file.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.key, self.text)
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("configuration has {} problem(s)", .0.len())]
pub struct ConfigError(pub Vec<Problem>);

impl Config {
    /// Reads a file (if any), lays `flags` over it and checks the result.
    pub fn load(file: Option<&Path>, flags: &raw::Flags) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                let key = path.display().to_string();
                ConfigError(vec![Problem { key, text: format!("cannot be read: {error}") }])
            })?,
        };
        Self::parse(&text, flags)
    }

    /// That of the listeners behind which nothing is restored nor written; `None` if there are
    /// none. Virtual topics are what they are elsewhere. They have an eighth of the bounds besides.
    pub fn passthrough(&self) -> Option<Self> {
        let mut beside = Self { listen: *self.listen.passthrough.clone()?, ..self.clone() };
        if !fault::on("passthrough-restores") {
            beside.store = None;
            beside.offload.clear();
        }
        beside.limits = beside.limits.beside();
        Some(beside)
    }

    /// Checks the text of a file with `flags` laid over it.
    pub fn parse(text: &str, flags: &raw::Flags) -> Result<Self, ConfigError> {
        let mut problems = parse::Problems(Vec::new());
        let file = file::read(text, &mut problems);
        parse::config(file, flags, problems)
    }
}
