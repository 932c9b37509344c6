//! How the store, the byte budget and the cluster are doing.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::budget::Budget;
use crate::store::StoreError;

/// What the object store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOp {
    /// To keep an object.
    Put,
    /// For a range of one.
    Get,
    /// For what a listing would show of one.
    Look,
    /// For the objects that there are.
    List,
    /// To remove one.
    Delete,
    /// For uploads that are not complete.
    Uploads,
    /// To end one of these.
    Abort,
}

const STORE_OPS: [&str; 7] = ["put", "get", "look", "list", "delete", "uploads", "abort"];

/// Which bytes a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Requests held whole.
    Requests,
    /// Answers held whole.
    Answers,
    /// Values that are restored.
    Restored,
    /// Batches that are opened.
    Inflated,
}

const HELD: [&str; 4] = ["requests", "answers", "restored", "inflated"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpKind {
    op: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForWhat {
    what: &'static str,
}

/// The handles.
#[derive(Debug)]
pub struct Health {
    store_failures: Family<OpKind, Counter>,
    buffered: [Gauge; HELD.len()],
    waiting: [Gauge; HELD.len()],
    brokers: Gauge,
    brokers_without_port: Gauge,
}

impl Health {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let store_failures = Family::<OpKind, Counter>::default();
        let buffered = Family::<ForWhat, Gauge>::default();
        let waiting = Family::<ForWhat, Gauge>::default();
        let (brokers, brokers_without_port) = (Gauge::default(), Gauge::default());
        let help = "Attempts at the object store that failed";
        registry.register("store_failures", help, store_failures.clone());
        let help = "Bytes of limits.buffered_bytes_max that are taken";
        registry.register("buffered_bytes", help, buffered.clone());
        let help = "Frames and batches that wait for room in limits.buffered_bytes_max";
        registry.register("buffer_waiting", help, waiting.clone());
        registry.register("brokers", "Brokers that the cluster names", brokers.clone());
        let help = "Brokers among them that clients cannot be told an address of";
        registry.register("brokers_without_port", help, brokers_without_port.clone());
        let of = |family: &Family<ForWhat, Gauge>| {
            HELD.map(|what| family.get_or_create(&ForWhat { what }).clone())
        };
        let (buffered, waiting) = (of(&buffered), of(&waiting));
        Self { store_failures, buffered, waiting, brokers, brokers_without_port }
    }

    /// Counts an attempt at the object store that failed.
    pub fn store_failure(&self, op: StoreOp, error: &StoreError) {
        let labels = OpKind { op: STORE_OPS[op as usize], kind: error.kind() };
        self.store_failures.get_or_create(&labels).inc();
    }

    /// Notes how many brokers there are, and how many of them have no port.
    pub fn brokers(&self, all: usize, without_port: usize) {
        self.brokers.set(all.try_into().unwrap_or(i64::MAX));
        self.brokers_without_port.set(without_port.try_into().unwrap_or(i64::MAX));
    }

    /// Notes how full a budget is.
    pub fn budget(&self, what: Held, budget: &Budget) {
        let number = |n: usize| n.try_into().unwrap_or(i64::MAX);
        self.buffered[what as usize].set(number(budget.taken_bytes()));
        self.waiting[what as usize].set(number(budget.waiting()));
    }
}
