//! Learns who the brokers are: at start, every `refresh_ms`, and when a connection failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use protocol_ext::api;
use protocol_ext::versions::rows;
use tokio::sync::watch;

use super::versions::{self, Place};
use crate::clock::{self, Tick};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::net;
use crate::route::addresses::{Broker, Directory};
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;
use crate::{fault, random};

/// Newest Metadata version the proxy asks with.
const METADATA_VERSION_MAX: i16 = 12;
/// Shortest time between two questions, however many connections fail.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to reach a cluster.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A cluster of which no broker answers for so many times `limits.refresh_ms` is lost,
const LOST_AFTER: u32 = 3;
/// but not before this.
const LOST_MIN: Duration = Duration::from_secs(1);

/// What is known of the cluster's health, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// No broker answered yet.
    NotYet(String),
    /// A broker answered.
    Yes {
        /// When one answered last.
        answered: Tick,
        /// The last failure since, if any.
        failing: Option<String>,
        /// Kafka's id of the cluster.
        cluster_id: Option<String>,
    },
}

impl Known {
    /// Kafka's id of the cluster, once a broker told it.
    pub fn cluster_id(&self) -> Option<&str> {
        match self {
            Self::NotYet(_) => None,
            Self::Yes { cluster_id, .. } => cluster_id.as_deref(),
        }
    }

    /// For how long no broker has answered, and why, once that is longer than a broker's restart
    /// or an election takes.
    pub fn lost(&self, limits: &Limits, now: Tick) -> Option<(Duration, &str)> {
        let Self::Yes { answered, failing: Some(why), .. } = self else { return None };
        let silent = now - *answered;
        let lost = is_long(silent, limits);
        (lost && !fault::on("lost-cluster-ready")).then_some((silent, why))
    }
}

fn is_long(silent: Duration, limits: &Limits) -> bool {
    silent >= (limits.refresh * LOST_AFTER).max(LOST_MIN)
}

/// Asks for ever; dropped at shutdown.
pub async fn learn(
    directory: Arc<Directory>,
    limits: Limits,
    metrics: Arc<Metrics>,
    known: watch::Sender<Known>,
) {
    let mut kept = None;
    let mut pause = PAUSE_MIN;
    let mut told = Health::default();
    let begun = clock::now();
    loop {
        match ask(&directory, &limits, &mut kept).await {
            Ok((brokers, cluster_id)) => {
                pause = PAUSE_MIN;
                take(&directory, brokers, &metrics);
                let answered = clock::now();
                known.send_replace(Known::Yes { answered, failing: None, cluster_id });
                told.answers();
                wait(&directory, limits.refresh).await;
            }
            Err(error) => {
                known.send_modify(|known| match known {
                    Known::NotYet(last) => *last = error.to_string(),
                    Known::Yes { failing, .. } => *failing = Some(error.to_string()),
                });
                let now = clock::now();
                let lost = match &*known.borrow() {
                    Known::NotYet(_) => Some(now - begun).filter(|since| is_long(*since, &limits)),
                    known @ Known::Yes { .. } => known.lost(&limits, now).map(|(silent, _)| silent),
                };
                told.fails(&error, lost);
                wait(&directory, random::jittered(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// What was said of a failure: its first attempt, and that it lasts.
#[derive(Debug, Default)]
struct Health {
    fails: bool,
    lost: bool,
}

impl Health {
    fn answers(&mut self) {
        if std::mem::take(self).fails {
            tracing::info!("cluster answers again");
        }
    }

    fn fails(&mut self, error: &io::Error, lost: Option<Duration>) {
        if std::mem::replace(&mut self.fails, true) {
            tracing::debug!(%error, "cluster does not answer");
        } else {
            tracing::warn!(%error, "cluster does not answer");
        }
        if let Some(silent) = lost
            && !std::mem::replace(&mut self.lost, true)
        {
            let seconds = silent.as_secs();
            tracing::error!(%error, seconds, "no broker of the cluster answers: not ready");
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

fn take(directory: &Directory, brokers: Vec<Broker>, metrics: &Metrics) {
    let before = directory.brokers();
    let all = brokers.len();
    if *before == brokers {
        let without_port = directory.learn(brokers);
        metrics.health.brokers(all, without_port.len());
        return;
    }
    for broker in &brokers {
        if !before.contains(broker) {
            let Broker { node, host, port } = broker;
            tracing::info!(node, upstream = %format!("{host}:{port}"), "broker learned");
        }
    }
    let without_port = directory.learn(brokers);
    metrics.health.brokers(all, without_port.len());
    for broker in without_port {
        let node = broker.node;
        tracing::error!(node, "broker has no port: widen listen.ports or add listen.broker_ports");
    }
}

/// A broker to be asked.
enum Way<'a> {
    /// The one that was asked before.
    Again(Asked),
    /// One that may be at this place.
    Anew(&'a Place),
}

/// A broker that answers.
struct Asked {
    broker: BrokerConnection,
    /// Version of Metadata that it is asked in.
    version: i16,
}

/// Asks the broker that was asked before, and all others when it does not answer: a broker that is
/// dead, or takes connections and no more, costs a head start.
async fn ask(
    directory: &Directory,
    limits: &Limits,
    kept: &mut Option<Asked>,
) -> io::Result<(Vec<Broker>, Option<String>)> {
    let places = directory.places();
    let again = kept.take().and_then(|mut asked| asked.broker.is_open().then_some(asked));
    let ways = again.map(Way::Again).into_iter().chain(places.iter().map(Way::Anew));
    let questions = ways.map(|way| question(directory, limits, way).boxed());
    let race = net::race(questions.collect());
    let late = |_| {
        let places: Vec<String> =
            places.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let why = format!("{}: no answer to Metadata", places.join(", "));
        io::Error::new(io::ErrorKind::TimedOut, why)
    };
    let won = tokio::time::timeout(limits.connect * 2, race).await.map_err(late)??;
    if let Some((place, table)) = won.versions {
        directory.learn_versions(&place, Some(table));
    }
    *kept = Some(won.asked);
    Ok((won.brokers, won.cluster_id))
}

/// What one broker told.
struct Told {
    asked: Asked,
    /// Its table of versions, and where it is, if it was asked for the first time.
    versions: Option<(Place, Bytes)>,
    brokers: Vec<Broker>,
    cluster_id: Option<String>,
}

async fn question(directory: &Directory, limits: &Limits, way: Way<'_>) -> io::Result<Told> {
    let (mut asked, versions) = match way {
        Way::Again(asked) => (asked, None),
        Way::Anew(place) => {
            let asked = anew(directory, limits, place).await;
            let (host, port) = place;
            let (asked, table) =
                asked.map_err(|e| io::Error::new(e.kind(), format!("{host}:{port}: {e}")))?;
            (asked, Some((place.clone(), table)))
        }
    };
    let mut request = MetadataRequest::default();
    request.topics = Some(Vec::new());
    request.allow_auto_topic_creation = false;
    let Asked { broker, version } = &mut asked;
    let answer: MetadataResponse = broker.call(api::METADATA, *version, &request).await?;
    let cluster_id = answer.cluster_id.map(|id| id.to_string());
    let brokers = answer.brokers.into_iter().filter_map(|broker| {
        let port = u16::try_from(broker.port).ok()?;
        Some(Broker { node: broker.node_id.0, host: broker.host.to_string(), port })
    });
    let mut brokers: Vec<Broker> = brokers.collect();
    brokers.sort_by_key(|broker| broker.node);
    if brokers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "Metadata names no broker"));
    }
    Ok(Told { asked, versions, brokers, cluster_id })
}

/// Reaches a broker that was not asked before; gives its table of versions as well.
async fn anew(directory: &Directory, limits: &Limits, place: &Place) -> io::Result<(Asked, Bytes)> {
    let connected = directory.reach(place, limits, &Login::Proxy).await?;
    let mut broker = BrokerConnection::new(connected);
    let table = versions::of(&mut broker).await?;
    let version = metadata_version(&table)?;
    Ok((Asked { broker, version }, table))
}

/// The version of Metadata to ask a broker in that gave this table of versions.
fn metadata_version(table: &Bytes) -> io::Result<i16> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let rows = rows(table).map_err(|error| invalid(error.to_string()))?;
    let (min, max) =
        rows.get(&api::METADATA).ok_or_else(|| invalid("no Metadata API".to_owned()))?;
    Ok((*max).min(METADATA_VERSION_MAX).max(*min))
}
