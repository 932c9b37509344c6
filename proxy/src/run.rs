//! A process from start to end: bind, learn the cluster, ready, serve, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::accept::{self, Clients};
use crate::admin::{self, Admin};
use crate::buffer::Pool;
use crate::config::Config;
use crate::control::cluster::{self, Known};
use crate::control::{self, physical_topics};
use crate::data_plane::DataPlane;
use crate::metrics::Metrics;
use crate::route::addresses::Directory;
use crate::tasks::Tasks;
use crate::tls::files;
use crate::upstream::access::Access;
use crate::watched::Watch;
use crate::{clock, net, reload};

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
    /// A certificate or key cannot be used any more.
    #[error("{table}.tls.{key}: {text}")]
    Tls {
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
    let access = Access::new(&config.cluster, &pool).map_err(|all| tls_error("cluster", all))?;
    let access = Arc::new(access);
    let tls = config.listen.tls.as_ref().map(files::server).transpose();
    let tls = tls.map_err(|all| tls_error("listen", all))?.map(Arc::new);
    let mut watched: Vec<Arc<dyn Watch>> = Vec::new();
    watched.extend(tls.clone().map(|tls| tls as Arc<dyn Watch>));
    watched.extend(access.tls().map(|tls| tls as Arc<dyn Watch>));
    let directory = Arc::new(Directory::new(&config.listen, &config.cluster, access));
    let plane = DataPlane::new(&config, directory.clone(), pool, tls, metrics.clone());
    let plane = Arc::new(plane.map_err(RunError::Store)?);
    let (jobs, connections) = (Tasks::default(), Tasks::default());
    let clients = Clients::new(plane.clone(), connections.clone());
    let (known_to, mut known) = watch::channel(Known::NotYet("just started".to_owned()));
    let (draining_to, draining) = watch::channel(false);
    let in_force = Arc::new(RwLock::new(config.clone()));
    let admin = Admin {
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
    jobs.spawn_until_cut(physical_topics::ensure(plane.clone()));
    jobs.spawn_until_cut(control::files::watch(watched, limits.refresh, metrics));
    jobs.spawn_until_cut(cluster::learn(directory, limits.clone(), known_to));

    jobs.spawn_until_cut(clients.clone().watch());
    jobs.spawn_until_cut(reload::at(hangup, load, in_force.clone(), clients.clone()));
    let accepting = Tasks::default();
    for (door, listener) in doors {
        accepting.spawn_until_cut(clients.clone().accept(door, listener));
    }
    tracing::debug!(first = listen.ports.first, last = listen.ports.last, "listening");
    let serving = async {
        let reached = known.wait_for(|known| matches!(known, Known::Yes(_))).await.is_ok();
        tracing::info!(reached, "ready");
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

/// The first of the problems; `firebreak check` tells them all.
fn tls_error(table: &'static str, problems: Vec<files::Problem>) -> RunError {
    let first = problems.into_iter().next();
    let (key, text) = first.unwrap_or(("cert", "cannot be used".to_owned()));
    RunError::Tls { table, key, text }
}
