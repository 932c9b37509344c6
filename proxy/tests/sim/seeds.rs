//! Many seeds: what every change must pass, and the long run.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, RwLock};

use firebreak::cli::LogFormat;
use firebreak::telemetry;

use crate::crowd::{self, Size};
use crate::producer::NOT_STORED_BATCHES;
use crate::scenario::{self, Outcome};
use crate::world::Counts;

/// Seeds of every change.
const SEEDS: u64 = 20;
/// Seeds that failed once.
const REGRESSIONS: [u64; 1] = [471];
/// First of the seeds that run twice: others than those of every change.
const TWICE_FIRST: u64 = 1_000_000;
/// Seeds at once.
const THREADS: usize = 2;
/// What must have happened in a run of many seeds.
const MUST_HAPPEN: [&str; 22] = [
    "crashes of brokers",
    "crashes of the proxy",
    "drains",
    "partitions",
    "messages held",
    "leaders moved",
    "controller moves",
    "slow stores",
    "stores away",
    NOT_STORED_BATCHES,
    "answers cut",
    "broker ids moved",
    "batches sent again",
    "duplicates answered",
    "records read",
    "names lost",
    "slow brokers",
    "large values read",
    "references in logs",
    "objects in the store",
    "batches of virtual topics",
    "records of virtual topics read",
];

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Has panics of this process noted by thread.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("RUST_LOG").is_some() {
            fail::cfg("lines-unlimited", "return").expect("a fault");
            telemetry::start(LogFormat::Text);
        }
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
}

/// Panics of this thread since the last call.
pub fn take_panics() -> Vec<String> {
    PANICS.take()
}

/// Runs one seed on a thread of its own.
pub fn run_one(seed: u64) -> Outcome {
    apart(move || scenario::run(seed))
}

/// Runs a simulation on a thread of its own.
pub fn apart(run: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    note_panics();
    std::thread::spawn(run).join().expect("panics are caught inside")
}

/// Runs a crowd on a thread of its own.
pub fn run_crowd(seed: u64, size: Size) -> Outcome {
    apart(move || crowd::run(seed, size))
}

/// A number that the environment gives.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn told(outcome: &Outcome) -> String {
    let Outcome { seed, trace, violations, .. } = outcome;
    let again = format!("FIREBREAK_SIM_SEED={seed} cargo test -p firebreak --test sim seeds");
    format!("seed {seed} (trace {trace:016x}): {violations:#?}\n  again: {again}")
}

/// Runs seeds from `first` on, several at once; gives the totals, or the first that fails.
pub fn run_many(first: u64, n: u64) -> Result<Counts, Outcome> {
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Counts::new());
    let failed = Mutex::new(None);
    let work = || {
        while failed.lock().expect("whole").is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= n {
                return;
            }
            let outcome = run_one(first + at);
            if n <= SEEDS {
                println!("seed {} trace {:016x}", outcome.seed, outcome.trace);
            } else if (at + 1).is_multiple_of(50) {
                println!("{} of {n} seeds", at + 1);
            }
            if outcome.violations.is_empty() {
                let mut totals = totals.lock().expect("whole");
                for (what, count) in outcome.counts {
                    *totals.entry(what).or_default() += count;
                }
            } else {
                *failed.lock().expect("whole") = Some(outcome);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    match failed.into_inner().expect("whole") {
        Some(outcome) => Err(outcome),
        None => Ok(totals.into_inner().expect("whole")),
    }
}

/// Faults are on for a whole process: simulations without one do not run beside those with one.
pub static FAULTS: RwLock<()> = RwLock::new(());

#[test]
fn promises_hold_whatever_breaks() {
    let _none = FAULTS.read();
    if let Some(seed) = given("FIREBREAK_SIM_SEED") {
        let outcome = run_one(seed);
        println!("seed {seed} trace {:016x} {:#?}", outcome.trace, outcome.counts);
        assert!(outcome.violations.is_empty(), "{}", told(&outcome));
        return;
    }
    for outcome in REGRESSIONS.map(run_one) {
        assert!(outcome.violations.is_empty(), "{}", told(&outcome));
    }
    let n = given("FIREBREAK_SIM_SEEDS").unwrap_or(SEEDS);
    let first = given("FIREBREAK_SIM_FIRST").unwrap_or(0);
    let totals = run_many(first, n).unwrap_or_else(|outcome| panic!("{}", told(&outcome)));
    for (what, count) in &totals {
        println!("{count:>12} {what}");
    }
    for what in MUST_HAPPEN {
        assert!(totals.get(what).is_some_and(|n| *n > 0), "no {what} in {n} seeds");
    }
}

/// The crowd of every change.
pub const CROWD: Size = Size { clients: 20_000, buffered_bytes_max: 400 << 20 };

#[test]
fn a_crowd_half_of_which_is_slow_or_silent_is_served_within_the_bounds() {
    // What it holds is that of the whole process.
    let _alone = FAULTS.write();
    let clients = given("FIREBREAK_SIM_CLIENTS").and_then(|n| usize::try_from(n).ok());
    let size = Size { clients: clients.unwrap_or(CROWD.clients), ..CROWD };
    let outcome = run_crowd(given("FIREBREAK_SIM_SEED").unwrap_or(0), size);
    for (what, count) in &outcome.counts {
        println!("{count:>12} {what}");
    }
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let _none = FAULTS.read();
    let n = given("FIREBREAK_SIM_TWICE").unwrap_or(SEEDS);
    let next = AtomicU64::new(TWICE_FIRST);
    let traces = Mutex::new(BTreeSet::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= TWICE_FIRST + n {
                return;
            }
            let (first, second) = (run_one(seed), run_one(seed));
            println!("seed {seed} trace {:016x} {:016x}", first.trace, second.trace);
            assert_eq!(first, second, "seed {seed}");
            traces.lock().expect("whole").insert(first.trace);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let traces = traces.into_inner().expect("whole").len() as u64;
    assert_eq!(traces, n, "two seeds are two runs");
}
