//! The configuration as written: what serde reads, before anything is checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Flags and environment variables, which win over the file.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Brokers, `host:port[,host:port...]`.
    pub upstream: Option<String>,
    /// Bootstrap listener.
    pub listen: Option<String>,
    /// Range of ports of the virtual brokers, `first-last`.
    pub ports: Option<String>,
    /// Host name that clients are told.
    pub advertise: Option<String>,
    /// Admin listener.
    pub admin: Option<SocketAddr>,
    /// What the environment says of the store.
    pub store: super::StoreEnv,
}

/// The file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub(super) listen: Option<Listen>,
    pub(super) admin: Option<Admin>,
    #[serde(default)]
    pub(super) cluster: Vec<Cluster>,
    pub(super) store: Option<Store>,
    #[serde(default)]
    pub(super) offload: Vec<Offload>,
    #[serde(default)]
    pub(super) virtual_topic: Vec<VirtualTopic>,
    #[serde(default)]
    pub(super) region: Vec<Region>,
    #[serde(default)]
    pub(super) throttle: Vec<toml::Table>,
    #[serde(default)]
    pub(super) quota: Vec<toml::Table>,
    pub(super) limits: Option<Limits>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub bootstrap: Option<String>,
    pub advertise: Option<String>,
    pub ports: Option<String>,
    #[serde(default)]
    pub broker_ports: std::collections::BTreeMap<String, u16>,
    pub tls: Option<Tls>,
    pub sni: Option<String>,
    #[serde(default)]
    pub proxy_protocol_from: Vec<String>,
    pub sasl: Option<ListenSasl>,
    pub passthrough: Option<Passthrough>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passthrough {
    pub bootstrap: Option<String>,
    pub ports: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenSasl {
    #[serde(default)]
    pub mechanisms: Vec<String>,
    pub users_file: Option<PathBuf>,
    pub brokers_see: Option<String>,
    pub session_ms: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterSasl {
    pub mechanism: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
}

/// TLS of either side: `client_ca` belongs to `listen`, `ca` to a cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub address: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub name: Option<String>,
    #[serde(default)]
    pub bootstrap: Vec<String>,
    #[serde(default)]
    pub node_id_base: i32,
    pub tls: Option<Tls>,
    pub sasl: Option<ClusterSasl>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub kind: Option<String>,
    pub path: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub cache_bytes: Option<i64>,
    pub endpoint: Option<String>,
    pub bucket: Option<String>,
    pub region: Option<String>,
    pub path_style: Option<bool>,
    pub checksum: Option<String>,
    pub sign_payload: Option<bool>,
    pub access_key: Option<String>,
    pub secret_key_file: Option<PathBuf>,
    pub redis: Option<Redis>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Redis {
    pub url: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub ttl_s: Option<i64>,
    pub value_bytes_max: Option<i64>,
    pub timeout_ms: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offload {
    #[serde(default)]
    pub topics: Vec<String>,
    pub threshold_bytes: Option<i64>,
    pub codec: Option<String>,
    pub on_store_failure: Option<String>,
    pub inline_bytes_max: Option<i64>,
    pub on_missing: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtualTopic {
    pub name: Option<String>,
    pub partitions: Option<i32>,
    #[serde(default)]
    pub days: bool,
    pub retention_days: Option<i64>,
    pub day_from: Option<String>,
    pub open_days: Option<i64>,
    pub create_ahead_s: Option<i64>,
    pub region: Option<RegionRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionRule {
    pub header: Option<String>,
    pub latitude: Option<String>,
    pub longitude: Option<String>,
    pub field: Option<String>,
    pub key_prefix: Option<String>,
    pub listener: Option<toml::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Region {
    pub name: Option<String>,
    pub cluster: Option<String>,
    pub area: Option<Area>,
}

/// A box, or a polygon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Area {
    pub south: Option<f64>,
    pub north: Option<f64>,
    pub west: Option<f64>,
    pub east: Option<f64>,
    pub polygon: Option<Vec<(f64, f64)>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub frame_bytes_max: Option<i64>,
    pub connections_max: Option<i64>,
    pub connections_per_address_max: Option<i64>,
    pub unproven_max: Option<i64>,
    pub buffered_bytes_max: Option<i64>,
    pub connect_ms: Option<i64>,
    pub first_request_ms: Option<i64>,
    pub frame_progress_ms: Option<i64>,
    pub idle_ms: Option<i64>,
    pub age_ms: Option<i64>,
    pub handshake_ms: Option<i64>,
    pub drain_ms: Option<i64>,
    pub refresh_ms: Option<i64>,
}
