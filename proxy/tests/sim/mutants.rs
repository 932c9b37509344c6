//! Each promise is broken on purpose, by a named fault of the proxy; some seed must see it.
//!
//! Runs with `--features failpoints`; `FIREBREAK_MUTANT=NAME` runs one of them.

use crate::crowd::Size;
use crate::outage::{run_away, run_silent};
use crate::scenario::Outcome;
use crate::seeds::{FAULTS, run_crowd, run_one};

/// Seeds in which a fault must be seen.
const SEEDS: u64 = 40;
/// A crowd in which one must be.
const CROWD: Size = Size { clients: 3200, buffered_bytes_max: 64 << 20 };

/// A fault, and what some seed must complain of.
struct Mutant {
    name: &'static str,
    /// What the fault does in each seed.
    action: &'static str,
    complaints: &'static [&'static str],
    /// What sees it.
    run: fn(u64) -> Outcome,
    seeds: u64,
}

macro_rules! mutant {
    ($name:literal, $($complaint:literal),+) => {
        Mutant {
            name: $name,
            action: "return",
            complaints: &[$($complaint),+],
            run: run_one,
            seeds: SEEDS,
        }
    };
}

macro_rules! crowd_mutant {
    ($name:literal, $($complaint:literal),+) => {
        Mutant {
            name: $name,
            action: "return",
            complaints: &[$($complaint),+],
            run: |seed| run_crowd(seed, CROWD),
            seeds: 1,
        }
    };
}

macro_rules! outage_mutant {
    ($name:literal, $run:ident, $($complaint:literal),+) => {
        Mutant {
            name: $name,
            action: "return",
            complaints: &[$($complaint),+],
            run: |_| $run(),
            seeds: 1,
        }
    };
}

fn mutants() -> Vec<Mutant> {
    vec![
        mutant!("drop-answer", "was due", "not done"),
        mutant!("reorder-answers", "was due", "nothing is broken"),
        mutant!("wrong-correlation", "was due"),
        mutant!("acks0-answered", "nothing is broken", "was due"),
        mutant!("refused-unanswered", "was due", "nobody is due", "not done"),
        // Once: of more leaks others starve, and that is not the check that is meant.
        Mutant { action: "1*return", ..mutant!("room-leaked", "bytes of requests") },
        mutant!("drain-ignores-in-flight", "no answer came"),
        mutant!("ack-before-durable", "not done", "not as it was sent"),
        mutant!("stale-crc", "error 2"),
        mutant!("store-put-fails", "not done", "closed though nothing"),
        mutant!("uploads-reordered", "was due", "out of order", "error 45"),
        mutant!("address-metadata", "names a broker", "is at"),
        mutant!("address-find-coordinator", "names a broker", "is at"),
        mutant!("address-describe-cluster", "names a broker", "is at"),
        mutant!("address-describe-configs", "names a broker"),
        mutant!("address-produce-tail", "names a broker", "is at"),
        mutant!("address-fetch-tail", "names a broker", "is at"),
        outage_mutant!("late-loses-others", run_silent, "values came beside"),
        outage_mutant!("ack-before-durable", run_away, "nothing was stored", "not as it was sent"),
        crowd_mutant!("room-unbounded", "bytes held in the storm"),
        crowd_mutant!("holders-unseen", "no answer to"),
    ]
}

#[test]
fn every_fault_is_seen_by_some_seed() {
    let _alone = FAULTS.write();
    let only = std::env::var("FIREBREAK_MUTANT").ok();
    let mut mutants = mutants();
    mutants.retain(|mutant| only.as_ref().is_none_or(|only| only == mutant.name));
    assert!(!mutants.is_empty(), "no mutant is called {only:?}");
    let mut survived = Vec::new();
    for mutant in &mutants {
        let runs = (0..mutant.seeds).map(|seed| {
            fail::cfg(mutant.name, mutant.action).expect("a fault");
            (mutant.run)(seed)
        });
        let seen = runs.into_iter().find(|outcome| !outcome.violations.is_empty());
        fail::remove(mutant.name);
        let Some(outcome) = seen else {
            survived.push(format!("{}: not seen in {} seeds", mutant.name, mutant.seeds));
            continue;
        };
        let first = &outcome.violations[0];
        println!("{} (seed {}): {first}", mutant.name, outcome.seed);
        if !mutant.complaints.iter().any(|complaint| first.contains(complaint)) {
            survived.push(format!("{}: seen as something else: {first}", mutant.name));
        }
    }
    println!("{} of {} mutants seen", mutants.len() - survived.len(), mutants.len());
    assert!(survived.is_empty(), "{survived:#?}");
}
