//! The admin port: is it alive, is it ready, what does it count, what does it run.

mod topics;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::RwLock;
use protocol_ext::address::Addresses as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::accept::Clients;
use crate::clock::{self, Tick};
use crate::config::Config;
use crate::control::cluster::Known;
use crate::data_plane::DataPlane;
use crate::fault;
use crate::metrics::Side;
use crate::placement::leader::Command;
use crate::placement::tail::Read;

/// What the admin port shows.
#[derive(Debug)]
pub struct Admin {
    /// The configuration in force.
    pub config: Arc<RwLock<Config>>,
    /// What connections share.
    pub plane: Arc<DataPlane>,
    /// Open connections.
    pub clients: Arc<Clients>,
    /// Whether the cluster answers.
    pub known: watch::Receiver<Known>,
    /// Whether the process drains.
    pub draining: watch::Receiver<bool>,
    /// How far the placement log was read; `None`: no topic has days.
    pub placed: Option<watch::Receiver<Read>>,
    /// Commands to the leader of the placement.
    pub commands: mpsc::Sender<Command>,
    /// When the process started.
    pub started: Tick,
}

impl Admin {
    /// Reasons why clients should not be sent here now.
    fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if *self.draining.borrow() {
            reasons.push("draining".to_owned());
        }
        let config = self.config.read();
        let name = &config.cluster.name;
        let known = self.known.borrow();
        if let Known::NotYet(why) = &*known {
            reasons.push(format!("cluster {name} was not reached yet: {why}"));
        }
        if let Some((silent, why)) = known.lost(&config.limits, clock::now()) {
            let seconds = silent.as_secs();
            reasons.push(format!("no broker of cluster {name} answers for {seconds} s: {why}"));
        }
        let directory = &self.plane.directory;
        let brokers = directory.brokers();
        let mut ports = brokers.iter().map(|broker| directory.port_of(broker.node));
        if !brokers.is_empty() && ports.all(|port| port.is_none()) {
            let why = "has a port here: widen listen.ports or add listen.broker_ports";
            reasons.push(format!("no broker of cluster {name} {why}"));
        }
        let unread = self.placed.as_ref().is_some_and(|placed| !placed.borrow().whole);
        if unread && !fault::on("unread-placement-ready") {
            reasons.push(UNREAD.to_owned());
        }
        reasons
    }

    fn status(&self) -> Value {
        let ready = self.unready().is_empty();
        let config = self.config.read();
        let brokers = self.plane.directory.brokers();
        let brokers: Vec<Value> = brokers
            .iter()
            .map(|broker| {
                let (host, _) = self.plane.directory.of(broker.node);
                json!({
                    "node": broker.node,
                    "upstream": format!("{}:{}", broker.host, broker.port),
                    "host": String::from_utf8_lossy(&host),
                    "port": self.plane.directory.port_of(broker.node),
                })
            })
            .collect();
        let failing = match &*self.known.borrow() {
            Known::NotYet(why) => Some(why.clone()),
            Known::Yes { failing, .. } => failing.clone(),
        };
        let features: Vec<&str> = [
            (config.store.is_some(), "restore"),
            (!config.offload.is_empty(), "offload"),
            (!config.virtual_topics.is_empty(), "virtual_topics"),
            (config.listen.tls.is_some(), "tls"),
            (config.listen.sni.is_some(), "sni"),
            (config.listen.passthrough.is_some(), "passthrough"),
            (config.cluster.tls.is_some(), "tls_to_brokers"),
            (config.listen.sasl.is_some(), "sasl"),
            (config.cluster.sasl.is_some(), "sasl_to_brokers"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": (clock::now() - self.started).as_secs(),
            "bootstrap": self.plane.directory.bootstrap_address(),
            "ready": ready,
            "clusters": [{
                "name": config.cluster.name,
                "brokers": brokers,
                "failing": failing,
            }],
            "connections": {
                "client": self.plane.metrics.open_connections(Side::Client),
                "broker": self.plane.metrics.open_connections(Side::Broker),
            },
            "features": features,
        })
    }
}

/// Why nothing is known of segments.
const UNREAD: &str = "the placement log was not read to its end yet";

/// Serves the admin port for ever; dropped at shutdown.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/status",
            get(|State(admin): State<Arc<Admin>>| async move { Json(admin.status()) }),
        )
        .merge(topics::routes())
        .route(
            "/config",
            get(|State(a): State<Arc<Admin>>| async move { Json(a.config.read().effective()) }),
        )
        .with_state(admin);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "admin port stopped");
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let reasons = admin.unready();
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.plane.metrics_text())
}
