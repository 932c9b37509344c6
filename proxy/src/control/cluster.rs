//! Learns who the brokers are: at start, every `refresh_ms`, and when a connection failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};
use protocol_ext::{api, versions};
use tokio::sync::watch;

use crate::limits::Limits;
use crate::random;
use crate::route::addresses::{Broker, Directory};
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// Newest Metadata version the proxy asks with.
const METADATA_VERSION_MAX: i16 = 12;
/// Shortest time between two questions, however many connections fail.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to reach a cluster.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is known of the cluster's health, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Never reached.
    NotYet(String),
    /// Reached at least once; the text is the last failure since, if any.
    Yes(Option<String>),
}

/// Asks for ever; dropped at shutdown.
pub async fn learn(directory: Arc<Directory>, limits: Limits, known: watch::Sender<Known>) {
    let mut connection = None;
    let mut pause = PAUSE_MIN;
    loop {
        match ask(&directory, &limits, &mut connection).await {
            Ok(brokers) => {
                pause = PAUSE_MIN;
                take(&directory, brokers);
                known.send_replace(Known::Yes(None));
                wait(&directory, limits.refresh).await;
            }
            Err(error) => {
                connection = None;
                let text = error.to_string();
                tracing::warn!(%error, "cluster cannot be asked");
                known.send_modify(|known| match known {
                    Known::NotYet(last) => *last = text,
                    Known::Yes(last) => *last = Some(text),
                });
                wait(&directory, random::jittered(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn wait(directory: &Directory, pause: Duration) {
    tokio::time::sleep(PAUSE_MIN.min(pause)).await;
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause.saturating_sub(PAUSE_MIN)) => {}
        () = directory.asked() => {}
    }
}

fn take(directory: &Directory, brokers: Vec<Broker>) {
    let before = directory.brokers();
    if *before == brokers {
        directory.learn(brokers);
        return;
    }
    for broker in &brokers {
        if !before.contains(broker) {
            let Broker { node, host, port } = broker;
            tracing::info!(node, upstream = %format!("{host}:{port}"), "broker learned");
        }
    }
    for broker in directory.learn(brokers) {
        let node = broker.node;
        tracing::error!(node, "broker has no port: widen listen.ports or add listen.broker_ports");
    }
}

async fn ask(
    directory: &Directory,
    limits: &Limits,
    connection: &mut Option<(BrokerConnection, i16)>,
) -> io::Result<Vec<Broker>> {
    let answer = tokio::time::timeout(limits.connect * 2, ask_once(directory, limits, connection));
    answer.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to Metadata"))?
}

async fn ask_once(
    directory: &Directory,
    limits: &Limits,
    connection: &mut Option<(BrokerConnection, i16)>,
) -> io::Result<Vec<Broker>> {
    if !connection.as_mut().is_some_and(|(broker, _)| broker.is_open()) {
        let any = directory.connect_any(limits, &Login::Proxy).await?;
        let mut fresh = BrokerConnection::new(any);
        let version = metadata_version(&mut fresh, directory).await?;
        *connection = Some((fresh, version));
    }
    let Some((broker, version)) = connection else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    let mut request = MetadataRequest::default();
    request.topics = Some(Vec::new());
    request.allow_auto_topic_creation = false;
    let answer: MetadataResponse = broker.call(api::METADATA, *version, &request).await?;
    let brokers = answer.brokers.into_iter().filter_map(|broker| {
        let port = u16::try_from(broker.port).ok()?;
        Some(Broker { node: broker.node_id.0, host: broker.host.to_string(), port })
    });
    let mut brokers: Vec<Broker> = brokers.collect();
    brokers.sort_by_key(|broker| broker.node);
    if brokers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "Metadata names no broker"));
    }
    Ok(brokers)
}

async fn metadata_version(broker: &mut BrokerConnection, directory: &Directory) -> io::Result<i16> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let name = StrBytes::from_static_str("firebreak");
    let version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
    let request = ApiVersionsRequest::default()
        .with_client_software_name(name)
        .with_client_software_version(version);
    let mut body = BytesMut::new();
    let encoded = request.encode(&mut body, versions::LAYOUT);
    encoded.map_err(|error| invalid(error.to_string()))?;
    let body = [body.freeze()];
    let answer = broker.exchange(api::API_VERSIONS, versions::LAYOUT, &body).await?;
    // The table is kept as a frame, whose correlation id is of no account.
    let mut frame = BytesMut::zeroed(4);
    frame.extend_from_slice(&answer);
    let frame = frame.freeze();
    let range = versions::range(&frame, api::METADATA).map_err(|e| invalid(e.to_string()))?;
    let (min, max) = range.ok_or_else(|| invalid("no Metadata API".to_owned()))?;
    directory.learn_versions(frame);
    Ok(max.min(METADATA_VERSION_MAX).max(min))
}
