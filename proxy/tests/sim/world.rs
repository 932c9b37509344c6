//! What all hosts of a simulation share: the cluster's state, chance, the trace, and what was seen
//! that must not be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use firebreak::data_plane::DataPlane;
use protocol_ext::fake_broker::FakeCluster;
use protocol_ext::hostile::random::Random;

use crate::ledger::Ledger;

/// How far a simulation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Load and trouble.
    Trouble,
    /// All is repaired; what was begun is finished, nothing new begins.
    Finish,
    /// Logs are read.
    Read,
    /// Requests are under way while the proxy drains.
    Drain,
}

/// What happened, for the totals that a long run prints.
pub type Counts = BTreeMap<&'static str, u64>;

/// Time without a request after which a broker closes a connection, unless another is set.
const IDLE: Duration = Duration::from_secs(9);
/// Time that a client waits for an answer, unless another is set.
const PATIENCE: Duration = Duration::from_secs(4);
/// Violations kept; more of a run add nothing.
const VIOLATIONS_MAX: usize = 8;

/// One simulation.
pub struct World {
    /// Decides everything.
    pub seed: u64,
    /// What the brokers share.
    pub cluster: RefCell<FakeCluster>,
    /// Records sent, acknowledged and read.
    pub ledger: RefCell<Ledger>,
    /// The proxy that runs now.
    pub plane: RefCell<Option<Arc<DataPlane>>>,
    /// How far it is.
    pub phase: Cell<Phase>,
    /// Clients that have not finished the phase.
    pub busy: Cell<usize>,
    /// Clients that have a connection which the proxy is to drain.
    pub ready: Cell<usize>,
    /// Asks the proxy to drain.
    pub drain: tokio::sync::Notify,
    /// Ends the proxy at once.
    pub kill: tokio::sync::Notify,
    /// Connections cut off by drains, and whether one is over.
    pub drained: Cell<Option<usize>>,
    /// Ids of the brokers by host.
    pub ids: RefCell<Vec<i32>>,
    /// When a broker last led a partition that another leads now: (topic, partition, broker).
    pub left: RefCell<BTreeMap<(String, usize, i32), Duration>>,
    /// Answers that are cut short soon, with the connection.
    pub cuts: Cell<usize>,
    /// Brokers take up to so long for an answer.
    pub pace: Cell<Duration>,
    /// Clients rest so many times as long.
    pub slow: Cell<u32>,
    /// Time that a client waits for an answer before it closes the connection.
    pub patience: Cell<Duration>,
    /// Time without a request after which a broker closes a connection.
    pub idle: Cell<Duration>,
    /// Connections that clients opened so far.
    pub connections: Cell<usize>,
    /// Connections open at brokers of those that were used while the proxy drains.
    pub open_at_brokers: Cell<usize>,
    /// Answers that brokers wrote and clients read while the proxy drains: (client, correlation).
    pub owed: RefCell<BTreeMap<(String, i32), &'static str>>,
    /// Whether nothing was broken so far.
    pub calm: Cell<bool>,
    /// Time of the simulation, as its driver sees it.
    pub now: Cell<Duration>,
    random: RefCell<Random>,
    trace: Cell<u64>,
    loud: bool,
    counts: RefCell<Counts>,
    violations: RefCell<Vec<String>>,
}

/// A hash with some bytes more in it, and their number.
fn hashed(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut add =
        |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
    rest.iter().for_each(|byte| add(u64::from(*byte)));
    add(bytes.len() as u64);
    hash
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            seed,
            cluster: RefCell::new(FakeCluster::new(Vec::new())),
            ledger: RefCell::default(),
            plane: RefCell::default(),
            phase: Cell::new(Phase::Trouble),
            busy: Cell::new(0),
            ready: Cell::new(0),
            drain: tokio::sync::Notify::new(),
            kill: tokio::sync::Notify::new(),
            drained: Cell::new(None),
            ids: RefCell::default(),
            left: RefCell::default(),
            cuts: Cell::new(0),
            pace: Cell::new(Duration::from_millis(4)),
            slow: Cell::new(1),
            patience: Cell::new(PATIENCE),
            idle: Cell::new(IDLE),
            connections: Cell::new(0),
            open_at_brokers: Cell::new(0),
            owed: RefCell::default(),
            calm: Cell::new(true),
            now: Cell::new(Duration::ZERO),
            random: RefCell::new(Random::new(seed, 0)),
            trace: Cell::new(0xcbf2_9ce4_8422_2325),
            loud: std::env::var_os("FIREBREAK_SIM_TRACE").is_some(),
            counts: RefCell::default(),
            violations: RefCell::default(),
        })
    }

    /// Something happened: it goes into the trace, with its time.
    pub fn event(&self, who: &str, what: &str, bytes: &[u8]) {
        let ms = self.time().as_micros();
        let mut hash = self.trace.get();
        for part in [who.as_bytes(), what.as_bytes(), &ms.to_be_bytes(), bytes] {
            hash = hashed(hash, part);
        }
        self.trace.set(hash);
        if self.loud {
            println!("{:>9.3} {who} {what} ({} bytes) {hash:016x}", ms as f64 / 1e3, bytes.len());
        }
    }

    /// Time of the simulation.
    pub fn time(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or(self.now.get())
    }

    /// Tells what happens, if someone listens.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.loud {
            println!("{:>9.3} {}", self.time().as_secs_f64() * 1e3, what());
        }
    }

    /// The hash of everything so far.
    pub fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// Counts something.
    pub fn count(&self, what: &'static str) {
        self.count_by(what, 1);
    }

    /// Counts something many times.
    pub fn count_by(&self, what: &'static str, n: u64) {
        *self.counts.borrow_mut().entry(what).or_default() += n;
    }

    /// How often something happened so far.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.borrow().get(what).copied().unwrap_or(0)
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// Writes down what must not be.
    pub fn violate(&self, why: impl std::fmt::Display) {
        let at = self.time();
        let mut violations = self.violations.borrow_mut();
        if violations.len() < VIOLATIONS_MAX {
            violations.push(format!("{:.3} s: {why}", at.as_secs_f64()));
        }
    }

    /// What was written down.
    pub fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    /// A number below `end`.
    pub fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().below(end.max(1))
    }

    /// A number in a range.
    pub fn between(&self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// Milliseconds in a range.
    pub fn ms(&self, from: u64, to: u64) -> Duration {
        let span = usize::try_from(to - from + 1).expect("small");
        Duration::from_millis(from + self.below(span) as u64)
    }

    /// Milliseconds in a range that a client rests.
    pub fn rest(&self, from: u64, to: u64) -> Duration {
        self.ms(from, to) * self.slow.get()
    }

    /// True once in so many times.
    pub fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Waits until the simulation is as far as `phase`.
    pub async fn until(&self, phase: Phase) {
        while self.phase.get() < phase {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
