//! What comes of the cache that proxies share.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedOp {
    /// A value.
    Get,
    /// To keep one.
    Put,
    /// A connection.
    Connect,
}

const OPS: [&str; 3] = ["get", "put", "connect"];

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedOutcome {
    /// It was there.
    Hit,
    /// It was not there.
    Miss,
    /// Something else was.
    Wrong,
    /// It was done.
    Done,
    /// No answer in time.
    Late,
    /// It refused, or the connection ended.
    Failed,
    /// Too much was under way already.
    Busy,
    /// There is no connection.
    Away,
}

const OUTCOMES: [(SharedOutcome, &str); 8] = [
    (SharedOutcome::Hit, "hit"),
    (SharedOutcome::Miss, "miss"),
    (SharedOutcome::Wrong, "wrong"),
    (SharedOutcome::Done, "done"),
    (SharedOutcome::Late, "late"),
    (SharedOutcome::Failed, "failed"),
    (SharedOutcome::Busy, "busy"),
    (SharedOutcome::Away, "away"),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpOutcome {
    op: &'static str,
    outcome: &'static str,
}

/// The handles.
#[derive(Debug)]
pub struct Shared([[Counter; OUTCOMES.len()]; OPS.len()]);

impl Shared {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let counts = Family::<OpOutcome, Counter>::default();
        let help = "Values asked of and given to the cache that proxies share, and connections";
        registry.register("shared_cache", help, counts.clone());
        Self(OPS.map(|op| {
            OUTCOMES.map(|(what, outcome)| match happens(op, what) {
                true => counts.get_or_create(&OpOutcome { op, outcome }).clone(),
                false => Counter::default(),
            })
        }))
    }

    /// Counts values, or connections.
    pub fn count(&self, op: SharedOp, outcome: SharedOutcome, n: usize) {
        self.0[op as usize][outcome as usize].inc_by(n as u64);
    }
}

/// Whether an outcome is one of an op.
fn happens(op: &str, outcome: SharedOutcome) -> bool {
    match outcome {
        SharedOutcome::Hit | SharedOutcome::Miss | SharedOutcome::Wrong => op == "get",
        SharedOutcome::Done => op != "get",
        SharedOutcome::Late | SharedOutcome::Failed => true,
        SharedOutcome::Busy | SharedOutcome::Away => op != "connect",
    }
}
