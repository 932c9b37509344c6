//! A process from start to end: bind, learn the cluster, ready, serve, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use crate::accept::{self, Clients};
use crate::admin::{self, Admin};
use crate::buffer::Pool;
use crate::config::Config;
use crate::control::cluster::{self, Known};
use crate::control::{self, owner, physical_topics, probe, versions};
use crate::data_plane::DataPlane;
use crate::filters::offload::Offload;
use crate::metrics::Metrics;
use crate::net::Listener;
use crate::placement::leader::{self, Command, Who};
use crate::placement::tail;
use crate::route::addresses::{Directory, Door};
use crate::sasl::Sasl;
use crate::tasks::Tasks;
use crate::tls::{self, files};
use crate::upstream::access::Access;
use crate::watched::Watch;
use crate::{clock, net, open_files, random, reload};

/// Why a process could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's address is taken or not ours.
    #[error("{key}: cannot listen on {address}: {error}")]
    Bind {
        /// Key of the configuration that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The object store or its key cannot be used.
    #[error("object store: {0}")]
    Store(io::Error),
    /// A certificate, a key, users or a password cannot be used any more.
    #[error("{table}.{key}: {text}")]
    Secret {
        /// Table of the configuration.
        table: &'static str,
        /// Key in it.
        key: &'static str,
        /// Why.
        text: String,
    },
    /// The runtime or its signals cannot be had.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT, then drains. SIGHUP has the configuration loaded again.
/// Clients are served on the runtime `of_clients`, all other jobs run here.
pub async fn run(config: Config, load: reload::Load, of_clients: &Handle) -> Result<(), RunError> {
    open_files::raise();
    let hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let doors = doors(&config, of_clients, "listen.bootstrap", "listen.ports")?;
    let (key, address) = ("admin.address", config.admin);
    let admin_listener =
        net::bind(address).map_err(|error| RunError::Bind { key, address, error })?;

    let metrics = Arc::new(Metrics::new());
    let mut serving = Serving::beside(&config, doors, of_clients, metrics.clone())?;
    let raw = raw(&config, of_clients, metrics)?;
    let (draining_to, draining) = watch::channel(false);
    let in_force = Arc::new(RwLock::new(config));
    let admin = Admin {
        placed: serving.plane.has_days().then(|| serving.placed.clone()),
        commands: serving.commands.clone(),
        config: in_force.clone(),
        plane: serving.plane.clone(),
        clients: serving.clients.clone(),
        known: serving.known.clone(),
        draining,
        started: clock::now(),
    };
    let bootstrap = serving.plane.directory.bootstrap_address();
    tracing::info!(bootstrap = %bootstrap, admin = %in_force.read().admin,
        "started: give this bootstrap address to clients");
    open_files::tell(&in_force.read());
    serving.jobs.spawn_until_cut(admin::serve(admin_listener, Arc::new(admin)));
    let both = || std::iter::once(&serving).chain(&raw);
    let clients = both().map(|serving| serving.clients.clone()).collect();
    let look = both().map(|serving| serving.look.clone()).collect();
    serving.jobs.spawn_until_cut(reload::at(hangup, load, in_force.clone(), clients, look));
    let directory = serving.plane.directory.clone();
    let ready = async {
        let is_known = |known: &Known| matches!(known, Known::Yes { .. });
        if serving.known.wait_for(is_known).await.is_ok() {
            tracing::info!(brokers = directory.brokers().len(), "ready");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = ready => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }

    draining_to.send_replace(true);
    let drain = in_force.read().limits.drain;
    let beside = async {
        if let Some(raw) = &raw {
            raw.drain(drain).await;
        }
    };
    tokio::join!(serving.drain(drain), beside);
    Ok(())
}

/// Binds the listeners of clients; these are the keys that name their addresses.
fn doors(
    config: &Config,
    of_clients: &Handle,
    bootstrap: &'static str,
    ports: &'static str,
) -> Result<Vec<(Door, Listener)>, RunError> {
    let _within = of_clients.enter();
    accept::bind(&config.listen).map_err(|(address, error)| {
        let key = if address == config.listen.bootstrap { bootstrap } else { ports };
        RunError::Bind { key, address, error }
    })
}

/// Listeners for those who want what lies in the logs as it is, with brokers of their own to talk
/// to; `None` if there are none.
fn raw(
    config: &Config,
    of_clients: &Handle,
    metrics: Arc<Metrics>,
) -> Result<Option<Serving>, RunError> {
    let Some(config) = config.passthrough() else { return Ok(None) };
    let key = "listen.passthrough";
    let doors = doors(&config, of_clients, key, key)?;
    let raw = Serving::beside(&config, doors, of_clients, metrics)?;
    let bootstrap = raw.plane.directory.bootstrap_address();
    tracing::info!(bootstrap, "passthrough: nothing is restored there, nor written");
    Ok(Some(raw))
}

/// A process that serves, whoever looks after its signals and its admin port.
#[derive(Debug)]
pub struct Serving {
    /// What connections share.
    pub plane: Arc<DataPlane>,
    /// Open connections.
    pub clients: Arc<Clients>,
    /// Whether the cluster was reached.
    pub known: watch::Receiver<Known>,
    placed: watch::Receiver<tail::Read>,
    /// Has files looked at again.
    look: Arc<Notify>,
    commands: mpsc::Sender<Command>,
    jobs: Tasks,
    connections: Tasks,
    accepting: Tasks,
    caching: Tasks,
}

impl Serving {
    /// Begins to learn the cluster here, and to accept clients on the runtime `of_clients`: one
    /// that keeps no time of its own waits for its sockets alone, which costs less.
    pub fn start(
        config: &Config,
        doors: Vec<(Door, Listener)>,
        of_clients: &Handle,
    ) -> Result<Self, RunError> {
        Self::beside(config, doors, of_clients, Arc::new(Metrics::new()))
    }

    /// The same, beside others that count in the same metrics.
    fn beside(
        config: &Config,
        doors: Vec<(Door, Listener)>,
        of_clients: &Handle,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RunError> {
        let pool = Pool::default();
        let Secrets { access, tls, sasl, watched } = secrets(config, &pool)?;
        let directory = Arc::new(Directory::new(&config.listen, &config.cluster, access));
        let plane = DataPlane::new(config, directory.clone(), pool, (tls, sasl), metrics.clone());
        let plane = Arc::new(plane.map_err(RunError::Store)?);
        let (jobs, connections) = (Tasks::default(), Tasks::on(of_clients));
        let clients = Clients::new(plane.clone(), connections.clone());
        let (known_to, known) = watch::channel(Known::NotYet("just started".to_owned()));
        let limits = config.limits.clone();
        let topics = plane.topics.clone();
        jobs.spawn_until_cut(async move { topics.serve().await });
        let (placed_to, placed) = watch::channel(tail::Read::default());
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        jobs.spawn_until_cut(tail::follow(plane.clone(), placed_to));
        // What a process decides or writes it does once.
        if !config.listen.read_only {
            jobs.spawn_until_cut(physical_topics::ensure(plane.clone()));
            let who = Who { id: hex(random::id()), admin: config.admin.to_string() };
            jobs.spawn_until_cut(leader::run(plane.clone(), who, placed.clone(), commanded));
            let name = config.cluster.name.clone();
            jobs.spawn_until_cut(probe::ask(plane.clone()));
            jobs.spawn_until_cut(owner::claim(plane.clone(), name, known.clone()));
        }
        let look = Arc::new(Notify::new());
        let files = control::files::watch(watched, limits.refresh, metrics.clone(), look.clone());
        jobs.spawn_until_cut(files);
        if plane.sasl.is_some() {
            jobs.spawn_until_cut(versions::learn(directory.clone(), limits.clone()));
        }
        jobs.spawn_until_cut(cluster::learn(directory, limits, metrics, known_to));
        jobs.spawn_until_cut(clients.clone().watch());
        let caching = Tasks::on(of_clients);
        if let Some(shared) = plane.offload.as_ref().and_then(Offload::shared) {
            caching.spawn_until_cut(async move { shared.serve().await });
        }
        let accepting = Tasks::on(of_clients);
        for (door, listener) in doors {
            accepting.spawn_until_cut(clients.clone().accept(door, listener));
        }
        let ports = &config.listen.ports;
        tracing::debug!(first = ports.first, last = ports.last, "listening");
        Ok(Self {
            plane,
            clients,
            known,
            placed,
            look,
            commands,
            jobs,
            connections,
            accepting,
            caching,
        })
    }

    /// Accepts no more, lets what is in flight be answered, and stops; gives the connections that
    /// were cut off because `limit` ran out.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.accepting.cut();
        let connections = self.clients.open();
        self.clients.drain();
        tracing::info!(connections, "draining");
        let aborted = if self.connections.wait(limit).await { 0 } else { self.clients.open() };
        match aborted {
            0 => tracing::info!("stopped"),
            aborted => tracing::warn!(aborted, "stopped: drain_ms ran out"),
        }
        self.cut();
        aborted
    }

    /// Ends everything at once.
    pub fn cut(&self) {
        self.accepting.cut();
        self.clients.abort();
        self.jobs.cut();
        self.caching.cut();
    }
}

/// Loads what files hold of certificates, users and passwords.
fn secrets(config: &Config, pool: &Pool) -> Result<Secrets, RunError> {
    let of = |table| move |(key, text)| RunError::Secret { table, key, text };
    let access = Arc::new(Access::new(&config.cluster, pool).map_err(of("cluster"))?);
    let tls = config.listen.tls.as_ref().map(files::server).transpose();
    let tls = tls.map_err(files::first).map_err(of("listen.tls"))?.map(Arc::new);
    let upstream = config.cluster.sasl.as_ref().map(|sasl| sasl.mechanism);
    let sasl = config.listen.sasl.as_ref().map(|sasl| Sasl::new(sasl, upstream)).transpose();
    let sasl = sasl.map_err(|text| of("listen.sasl")(("users_file", text)))?;
    if let Some(own) = access.own() {
        tracing::info!(own = %own.get(), "logs in to brokers");
    }
    let mut watched: Vec<Arc<dyn Watch>> = Vec::new();
    watched.extend(tls.clone().map(|tls| tls as Arc<dyn Watch>));
    watched.extend(sasl.as_ref().map(|sasl| sasl.users() as Arc<dyn Watch>));
    watched.extend(access.tls().map(|tls| tls as Arc<dyn Watch>));
    watched.extend(access.own().map(|own| own as Arc<dyn Watch>));
    Ok(Secrets { access, tls, sasl, watched })
}

struct Secrets {
    access: Arc<Access>,
    tls: Option<Arc<tls::Server>>,
    sasl: Option<Sasl>,
    watched: Vec<Arc<dyn Watch>>,
}

/// Commands to the leader of the placement that wait.
const COMMANDS_MAX: usize = 16;

fn hex(id: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(id).simple().to_string()
}
