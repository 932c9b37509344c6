//! The admin port: is it alive, is it ready, what does it count, what does it run.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use protocol_ext::address::Addresses as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::accept::Clients;
use crate::clock::{self, Tick};
use crate::config::Config;
use crate::control::cluster::Known;
use crate::data_plane::DataPlane;
use crate::metrics::Side;

/// What the admin port shows.
#[derive(Debug)]
pub struct Admin {
    /// The configuration in force.
    pub config: Config,
    /// What connections share.
    pub plane: Arc<DataPlane>,
    /// Open connections.
    pub clients: Arc<Clients>,
    /// Whether the cluster was reached.
    pub known: watch::Receiver<Known>,
    /// Whether the process drains.
    pub draining: watch::Receiver<bool>,
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
        if let Known::NotYet(why) = &*self.known.borrow() {
            let name = &self.config.cluster.name;
            reasons.push(format!("cluster {name} was not reached yet: {why}"));
        }
        reasons
    }

    fn status(&self) -> Value {
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
            Known::Yes(why) => why.clone(),
        };
        let features: Vec<&str> = [
            (self.config.store.is_some(), "restore"),
            (!self.config.offload.is_empty(), "offload"),
            (!self.config.virtual_topics.is_empty(), "virtual_topics"),
            (self.config.listen.tls.is_some(), "tls"),
            (self.config.listen.sni.is_some(), "sni"),
            (self.config.cluster.tls.is_some(), "tls_to_brokers"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": (clock::now() - self.started).as_secs(),
            "bootstrap": self.plane.directory.bootstrap_address(),
            "ready": self.unready().is_empty(),
            "clusters": [{
                "name": self.config.cluster.name,
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

    fn effective(&self) -> Value {
        let Config { listen, cluster, store, offload, virtual_topics, limits, admin } =
            &self.config;
        let bootstrap: Vec<String> =
            cluster.bootstrap.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        json!({
            "listen": {
                "bootstrap": listen.bootstrap.to_string(),
                "advertise": listen.advertise,
                "ports": format!("{}-{}", listen.ports.first, listen.ports.last),
                "broker_ports": listen.ports.mapped,
                "tls": listen.tls.as_ref().map(|tls| json!({
                    "cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca,
                })),
                "sni": listen.sni.as_ref().map(|names| format!(
                    "{}{{node}}{}", names.before, names.after,
                )),
            },
            "admin": { "address": admin.to_string() },
            "cluster": [{
                "name": cluster.name,
                "bootstrap": bootstrap,
                "tls": cluster.tls.as_ref().map(|tls| json!({
                    "ca": tls.ca,
                    "cert": tls.own.as_ref().map(|(cert, _)| cert),
                    "key": tls.own.as_ref().map(|(_, key)| key),
                })),
            }],
            "store": store.as_ref().map(|s| json!({ "kind": "local", "path": s.path })),
            "offload": offload.iter().map(|rule| json!({
                "topics": rule.topics, "threshold_bytes": rule.threshold_bytes,
            })).collect::<Vec<_>>(),
            "virtual_topic": virtual_topics.iter().map(|topic| json!({
                "name": topic.name, "partitions": topic.partitions,
                "region": { "header": topic.header }, "slots": topic.slots,
            })).collect::<Vec<_>>(),
            "limits": {
                "frame_bytes_max": limits.frame_bytes_max,
                "connections_max": limits.connections_max,
                "buffered_bytes_max": limits.buffered_bytes_max,
                "connect_ms": limits.connect.as_millis(),
                "handshake_ms": limits.handshake.as_millis(),
                "first_request_ms": limits.first_request.as_millis(),
                "drain_ms": limits.drain.as_millis(),
                "refresh_ms": limits.refresh.as_millis(),
            },
        })
    }
}

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
        .route("/config", get(|State(a): State<Arc<Admin>>| async move { Json(a.effective()) }))
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
    ([(header::CONTENT_TYPE, kind)], admin.plane.metrics.text())
}
