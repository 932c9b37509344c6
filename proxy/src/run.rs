//! A process from start to end: bind, learn the cluster, ready, serve, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::accept::{self, Clients};
use crate::admin::{self, Admin};
use crate::buffer::Pool;
use crate::config::Config;
use crate::control::cluster::{self, Known};
use crate::control::{self, physical_topics};
use crate::data_plane::DataPlane;
use crate::metrics::Metrics;
use crate::placement::leader::{self, Command, Who};
use crate::placement::tail;
use crate::route::addresses::Directory;
use crate::sasl::Sasl;
use crate::tasks::Tasks;
use crate::tls::{self, files};
use crate::upstream::access::Access;
use crate::watched::Watch;
use crate::{clock, net, random, reload};

/// Why a process could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's address is taken or not ours.
    #[error("cannot listen on {address}: {error}")]
    Bind {
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
pub async fn run(config: Config, load: reload::Load) -> Result<(), RunError> {
    let hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let bind = |(address, error)| RunError::Bind { address, error };
    let doors = accept::bind(&config.listen).map_err(bind)?;
    let admin_listener = net::listen(config.admin).map_err(|error| bind((config.admin, error)))?;

    let metrics = Arc::new(Metrics::new());
    let pool = Pool::default();
    let Secrets { access, tls, sasl, watched } = secrets(&config, &pool)?;
    let directory = Arc::new(Directory::new(&config.listen, &config.cluster, access));
    let plane = DataPlane::new(&config, directory.clone(), pool, (tls, sasl), metrics.clone());
    let plane = Arc::new(plane.map_err(RunError::Store)?);
    let (jobs, connections) = (Tasks::default(), Tasks::default());
    let clients = Clients::new(plane.clone(), connections.clone());
    let (known_to, mut known) = watch::channel(Known::NotYet("just started".to_owned()));
    let (draining_to, draining) = watch::channel(false);
    let in_force = Arc::new(RwLock::new(config.clone()));
    let (placed, commands) = place(&jobs, &plane, config.admin);
    let admin = Admin {
        placed: plane.has_days().then_some(placed),
        commands,
        config: in_force.clone(),
        plane: plane.clone(),
        clients: clients.clone(),
        known: known.clone(),
        draining,
        started: clock::now(),
    };
    let Config { listen, limits, .. } = config;
    let bootstrap = directory.bootstrap_address();
    tracing::info!(bootstrap = %bootstrap, admin = %config.admin,
        "started: give this bootstrap address to clients");
    jobs.spawn_until_cut(admin::serve(admin_listener, Arc::new(admin)));
    let topics = plane.topics.clone();
    jobs.spawn_until_cut(async move { topics.serve().await });
    jobs.spawn_until_cut(physical_topics::ensure(plane.clone()));
    jobs.spawn_until_cut(control::files::watch(watched, limits.refresh, metrics.clone()));
    jobs.spawn_until_cut(cluster::learn(directory.clone(), limits.clone(), metrics, known_to));

    jobs.spawn_until_cut(clients.clone().watch());
    jobs.spawn_until_cut(reload::at(hangup, load, in_force.clone(), clients.clone()));
    let accepting = Tasks::default();
    for (door, listener) in doors {
        accepting.spawn_until_cut(clients.clone().accept(door, listener));
    }
    tracing::debug!(first = listen.ports.first, last = listen.ports.last, "listening");
    let serving = async {
        if known.wait_for(|known| matches!(known, Known::Yes { .. })).await.is_ok() {
            tracing::info!(brokers = directory.brokers().len(), "ready");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }

    draining_to.send_replace(true);
    accepting.cut();
    tracing::info!(connections = clients.open(), "draining");
    clients.drain();
    let drain = in_force.read().limits.drain;
    if connections.wait(drain).await {
        tracing::info!("stopped");
    } else {
        tracing::warn!(aborted = clients.open(), "stopped: drain_ms ran out");
    }
    jobs.cut();
    Ok(())
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
        tracing::info!(own = ?own.get(), "logs in to brokers");
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

/// Has the placement followed, and led when nobody leads; gives how far it was read, and where
/// commands go.
fn place(
    jobs: &Tasks,
    plane: &Arc<DataPlane>,
    admin: SocketAddr,
) -> (watch::Receiver<tail::Read>, mpsc::Sender<Command>) {
    let (placed_to, placed) = watch::channel(tail::Read::default());
    let (commands_to, commands) = mpsc::channel(COMMANDS_MAX);
    jobs.spawn_until_cut(tail::follow(plane.clone(), placed_to));
    let id = uuid::Uuid::from_bytes(random::id()).simple().to_string();
    let who = Who { id, admin: admin.to_string() };
    jobs.spawn_until_cut(leader::run(plane.clone(), who, placed.clone(), commands));
    (placed, commands_to)
}
