//! Every metric, with handles that are resolved once: no label is looked up on the data path.

mod formats;
mod health;
mod placed;
mod places;
mod shared;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::{Blame, ConnectionError};
pub use formats::Formats;
pub use health::{Health, Held, StoreOp};
pub use placed::Placed;
use places::Places;
pub use places::Slots;
pub use shared::{Shared, SharedOp, SharedOutcome};
use traffic::Traffic;

/// How deep an exchange is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Passed unread.
    Opaque,
    /// A few fields are read.
    Peek,
    /// Changed in place or at its tail.
    Patch,
    /// Read whole.
    Full,
}

const CLASSES: [&str; 4] = ["opaque", "peek", "patch", "full"];

/// Which side a connection or a pause belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Clients.
    Client,
    /// Brokers.
    Broker,
}

const SIDES: [&str; 2] = ["client", "broker"];

impl Side {
    /// Its name, as in labels.
    pub fn name(self) -> &'static str {
        SIDES[self as usize]
    }
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Read from clients.
    FromClient,
    /// Written to brokers.
    ToBroker,
    /// Read from brokers.
    FromBroker,
    /// Written to clients.
    ToClient,
}

const DIRECTIONS: [&str; 4] = ["from_client", "to_broker", "from_broker", "to_client"];

/// What happens to a large value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadOp {
    /// Written to the store.
    Store,
    /// Read back.
    Restore,
    /// A reference that is not ours or was changed: passed as it is.
    Refused,
    /// A value whose bytes in the store are too few or not what was stored.
    Damaged,
    /// A request for a range of a pack, with what came.
    Get,
    /// A pack written, with its bytes in the store.
    Put,
    /// A value that stays in the log since the store failed.
    Inline,
    /// A value that was not read since the store failed.
    Failed,
    /// A batch that inflates to more than is opened: it passes as it came.
    Unopened,
    /// A value that is gone, and whose record was left out or marked.
    Lost,
    /// A reference of a version that is not known here: passed as it is.
    Unknown,
    /// A value whose object is not there.
    Missing,
}

const OFFLOAD_OPS: [&str; 12] = [
    "store", "restore", "refused", "damaged", "get", "put", "inline", "failed", "unopened", "lost",
    "unknown", "missing",
];

/// Where a value to restore is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// In memory.
    Hit,
    /// Under way for another reader.
    Joined,
    /// Where proxies share values.
    Shared,
    /// Only in the store.
    Miss,
}

const CACHE_RESULTS: [&str; 4] = ["hit", "joined", "shared", "miss"];

/// Why a healthy connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overstay {
    /// No byte either way for too long.
    Idle,
    /// It reached its age.
    Old,
}

const OVERSTAYS: [&str; 2] = ["idle", "old"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

/// What came of sending a part of a batch with sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartResult {
    /// Written.
    New,
    /// It was there.
    Duplicate,
    /// A later one was there.
    Older,
    /// A sealed segment has it.
    Sealed,
    /// To be sent again.
    Again,
    /// Refused for good.
    Refused,
    /// The broker has something else there.
    Contradiction,
    /// A whole batch whose turn has not come: its client is told to try again.
    Deferred,
}

const PART_RESULTS: [&str; 8] =
    ["new", "duplicate", "older", "sealed", "again", "refused", "contradiction", "deferred"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonOnly {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultOnly {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlameKind {
    blame: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    side: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Op {
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    result: &'static str,
}

/// The registry and all handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    errors: Family<BlameKind, Counter>,
    connections: [Gauge; SIDES.len()],
    overstays: [Counter; OVERSTAYS.len()],
    traffic: Arc<Traffic>,
    paused: [Counter<f64, std::sync::atomic::AtomicU64>; SIDES.len()],
    offload_bytes: [Counter; OFFLOAD_OPS.len()],
    offload_objects: [Counter; OFFLOAD_OPS.len()],
    /// Values by what they are.
    pub formats: Formats,
    /// Of the store, the budget and the cluster.
    pub health: Health,
    /// Of the cache that proxies share.
    pub shared: Shared,
    /// Of the placement of topics with days.
    pub placed: Placed,
    reloads: [Counter; 2],
    offload_cache: [Counter; CACHE_RESULTS.len()],
    /// Answers that left values out since the store took too long.
    pub offload_late: Counter,
    /// Reads of the store that were asked twice.
    pub offload_hedged: Counter,
    /// Bytes of records from brokers that had no room beside values.
    pub offload_surplus: Counter,
    /// Fetch requests that asked brokers for less than their clients did.
    pub offload_lowered: Counter,
    /// Legacy message sets that record features passed by.
    pub legacy_batches: Counter,
    routed_parts: [Counter; PART_RESULTS.len()],
    /// Look-ups of what brokers know of producers.
    pub producer_look_ups: Counter,
    /// Entries of producer state that were begun at brokers.
    pub producer_entries: Counter,
    odd_topics: [Gauge; 2],
    /// Records by where they belong.
    pub places: Places,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("firebreak");
        let errors = Family::<BlameKind, Counter>::default();
        let connections = Family::<Named, Gauge<i64, AtomicI64>>::default();
        let overstays = Family::<Because, Counter>::default();
        let paused = Family::<Named, Counter<f64, std::sync::atomic::AtomicU64>>::default();
        let [offload_bytes, offload_objects]: [Family<Op, Counter>; 2] = Default::default();
        let reloads = Family::<Outcome, Counter>::default();
        let offload_cache = Family::<Found, Counter>::default();
        let traffic = Arc::<Traffic>::default();
        let r = &mut registry;
        r.register_collector(Box::new(traffic.clone()));
        r.register("errors", "Connections ended by an error", errors.clone());
        r.register("connections", "Open connections", connections.clone());
        let help = "Healthy connections closed between requests";
        r.register("closed_connections", help, overstays.clone());
        let help = "Time in which a side was not read since the other did not take its bytes";
        r.register("reads_paused_seconds", help, paused.clone());
        r.register("offload_bytes", "Bytes of large values", offload_bytes.clone());
        r.register("offload_objects", "Large values", offload_objects.clone());
        let formats = Formats::new(r);
        let (health, shared, placed) = (Health::new(r), Shared::new(r), Placed::new(r));
        let help = "Certificates and other files that changed and were read again";
        r.register("file_reloads", help, reloads.clone());
        let help = "Where values to restore were found";
        r.register("offload_cache", help, offload_cache.clone());
        let help = "Answers that left values out since the store took too long";
        let offload_late = counter(r, "offload_late", help);
        let help = "Reads of the store that were asked twice since the first took long";
        let offload_hedged = counter(r, "offload_hedged", help);
        let help = "Bytes of records from brokers that had no room in an answer with values";
        let offload_surplus = counter(r, "offload_surplus_bytes", help);
        let help = "Fetch requests that asked for less of a log, since values take the room";
        let offload_lowered = counter(r, "offload_lowered_fetches", help);
        let help = "Batches of message formats 0 and 1, which record features pass by";
        let legacy_batches = counter(r, "legacy_batches", help);
        let (routed_parts, [producer_look_ups, producer_entries], odd_topics) = routed(r);
        let places = Places::new(r);
        Self {
            connections: SIDES.map(|side| connections.get_or_create(&Named { side }).clone()),
            overstays: OVERSTAYS.map(|reason| overstays.get_or_create(&Because { reason }).clone()),
            paused: SIDES.map(|side| paused.get_or_create(&Named { side }).clone()),
            offload_bytes: OFFLOAD_OPS.map(|op| offload_bytes.get_or_create(&Op { op }).clone()),
            offload_objects: OFFLOAD_OPS
                .map(|op| offload_objects.get_or_create(&Op { op }).clone()),
            formats,
            health,
            shared,
            placed,
            reloads: ["failed", "ok"]
                .map(|result| reloads.get_or_create(&Outcome { result }).clone()),
            offload_cache: CACHE_RESULTS
                .map(|result| offload_cache.get_or_create(&Found { result }).clone()),
            offload_late,
            offload_hedged,
            offload_surplus,
            offload_lowered,
            registry: Mutex::new(registry),
            traffic,
            errors,
            legacy_batches,
            routed_parts,
            producer_look_ups,
            producer_entries,
            odd_topics,
            places,
        }
    }

    /// The Prometheus text of everything.
    pub fn text(&self) -> String {
        let mut out = String::new();
        match prometheus_client::encoding::text::encode(&mut out, &self.registry.lock()) {
            Ok(()) => out,
            Err(_) => String::new(),
        }
    }

    /// Counts a request.
    #[inline(always)]
    pub fn request(&self, key: i16, class: Class) {
        self.traffic.request(key, class);
    }

    /// Notes how long an exchange took.
    #[inline(always)]
    pub fn answered(&self, key: i16, took: Duration) {
        self.traffic.answered(key, took);
    }

    /// Counts an error.
    pub fn error(&self, error: &ConnectionError) {
        let blame = match error.blame() {
            Blame::Client => "client",
            Blame::Upstream => "upstream",
            Blame::Ours => "ours",
        };
        self.errors.get_or_create(&BlameKind { blame, kind: error.kind() }).inc();
    }

    /// Counts a healthy connection that is closed.
    pub fn overstayed(&self, overstay: Overstay) {
        self.overstays[overstay as usize].inc();
    }

    /// Counts bytes.
    #[inline(always)]
    pub fn bytes(&self, direction: Direction, n: usize) {
        self.traffic.bytes(direction, n);
    }

    /// Bytes counted so far.
    pub fn bytes_so_far(&self, direction: Direction) -> u64 {
        self.traffic.bytes_so_far(direction)
    }

    /// Counts time in which reading from `side` stood still.
    pub fn paused(&self, side: Side, time: Duration) {
        self.paused[side as usize].inc_by(time.as_secs_f64());
    }

    /// Counts a large value.
    pub fn offload(&self, op: OffloadOp, bytes: usize) {
        self.offload_bytes[op as usize].inc_by(bytes as u64);
        self.offload_objects[op as usize].inc();
    }

    /// Counts files that changed: taken into use, or of no use.
    pub fn reloaded(&self, ok: bool) {
        self.reloads[usize::from(ok)].inc();
    }

    /// Counts what came of a part.
    pub fn part(&self, result: PartResult) {
        self.routed_parts[result as usize].inc();
    }

    /// Notes how many topics of the cluster virtual ones hide.
    pub fn hidden_topics(&self, topics: usize) {
        self.odd_topics[0].set(i64::try_from(topics).unwrap_or(i64::MAX));
    }

    /// Notes how many physical topics have another number of partitions than they must have.
    pub fn misshapen_topics(&self, topics: usize) {
        self.odd_topics[1].set(i64::try_from(topics).unwrap_or(i64::MAX));
    }

    /// Counts where a value to restore was found.
    pub fn cache(&self, result: CacheResult) {
        self.offload_cache[result as usize].inc();
    }

    /// Counts a connection until the guard drops.
    pub fn connection(&self, side: Side) -> ConnectionGuard {
        let gauge = self.connections[side as usize].clone();
        gauge.inc();
        ConnectionGuard(gauge)
    }

    /// Connections open now.
    pub fn open_connections(&self, side: Side) -> i64 {
        self.connections[side as usize].get()
    }
}

/// Holds a place in a connections gauge.
#[derive(Debug)]
pub struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// What is counted of virtual topics.
fn routed(r: &mut Registry) -> ([Counter; PART_RESULTS.len()], [Counter; 2], [Gauge; 2]) {
    let parts = Family::<ResultOnly, Counter>::default();
    let help = "Parts of batches with sequences, by what came of sending them";
    r.register("routed_parts", help, parts.clone());
    let help = "Look-ups of what brokers know of producers";
    let look_ups = counter(r, "producer_look_ups", help);
    let help = "Entries of producer state that batches with sequences began at brokers";
    let entries = counter(r, "producer_entries", help);
    let hidden = Gauge::default();
    let help = "Topics of the cluster that a virtual topic of the same name hides";
    r.register("hidden_topics", help, hidden.clone());
    let misshapen = Gauge::default();
    let help = "Physical topics of another number of partitions than their virtual topic";
    r.register("misshapen_topics", help, misshapen.clone());
    let parts = PART_RESULTS.map(|result| parts.get_or_create(&ResultOnly { result }).clone());
    (parts, [look_ups, entries], [hidden, misshapen])
}
