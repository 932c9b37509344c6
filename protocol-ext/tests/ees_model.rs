//! Epoch-encoded sequences against a model of brokers, clients and everything that goes wrong.
//!
//! `EES_SEEDS=10000 cargo test --release -p protocol-ext --test ees_model -- --nocapture`
//! runs the full count; a plain run takes a few hundred. Every rule that is left out must be seen
//! to lose, double or reorder what was acknowledged.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "test"
)]

#[path = "ees_model/brokers.rs"]
mod brokers;
#[path = "ees_model/clients.rs"]
mod clients;
#[path = "ees_model/sim.rs"]
mod sim;

use clients::Kind;
use sim::{Broken, Sim, Totals, Without};

const KINDS: [Kind; 3] = [Kind::Java, Kind::Librdkafka, Kind::Franz];

fn seeds(default: u64) -> u64 {
    let asked = std::env::var("EES_SEEDS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(default)
}

fn first_seed() -> u64 {
    std::env::var("EES_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered() {
    let mut totals = Totals::default();
    let mut bad = Vec::new();
    for seed in first_seed()..first_seed() + seeds(300) {
        let kind = KINDS[seed as usize % 3];
        let mut sim = Sim::new(seed, kind, Without::default());
        let broken = sim.run();
        if !broken.is_empty() {
            bad.push((seed, kind, broken));
        }
        add(&mut totals, &sim.totals);
    }
    println!("{totals:#?}");
    assert!(bad.is_empty(), "{} bad seeds: {:?}", bad.len(), &bad[..bad.len().min(10)]);
    let Totals { duplicates, older, seals, retries_across_seals, found_in_sealed, .. } = totals;
    let counts = [duplicates, older, seals, retries_across_seals, found_in_sealed];
    let faults = [totals.fail_overs, totals.proxy_crashes, totals.freezes, totals.outages];
    let clients = [totals.moves, totals.bumps, totals.wraps, totals.lost_answers];
    let returns = [totals.returns, totals.caught_up];
    assert!(
        [counts.as_slice(), &faults, &clients, &returns].concat().iter().all(|count| *count > 0)
    );
    assert!(totals.acknowledged * 10 >= totals.batches * 8, "most batches get through");
}

/// Seeds until a rule's absence shows; none may pass.
fn fails(without: Without, kinds: &[Kind], expected: &[Broken]) {
    for seed in 0..seeds(2_000) {
        let kind = kinds[seed as usize % kinds.len()];
        let broken = Sim::new(seed, kind, without).run();
        if broken.iter().any(|broken| expected.contains(broken)) {
            println!("seed {seed}, {kind:?}: {broken:?}");
            return;
        }
    }
    panic!("the model does not notice that a rule is missing");
}

#[test]
fn two_outstanding_batches_lose() {
    fails(Without { one_outstanding: true, ..Without::default() }, &KINDS, &[Broken::Lost]);
}

#[test]
fn a_batch_that_passes_a_failed_one_makes_it_lost() {
    let without = Without { contiguity: true, ..Without::default() };
    fails(without, &[Kind::Java], &[Broken::Lost]);
}

#[test]
fn a_first_batch_without_a_look_up_makes_others_lost() {
    let without = Without { first_look_up: true, ..Without::default() };
    fails(without, &KINDS, &[Broken::Lost]);
}

#[test]
fn a_retry_across_a_seal_without_a_look_up_doubles() {
    let without = Without { look_up_across_seals: true, ..Without::default() };
    fails(without, &KINDS, &[Broken::Doubled]);
}

#[test]
fn a_seal_that_does_not_wait_for_the_high_watermark_loses() {
    let without = Without { high_watermark_at_seals: true, ..Without::default() };
    fails(without, &KINDS, &[Broken::Lost]);
}

#[test]
fn a_look_up_at_a_lagging_former_leader_doubles() {
    let without = Without { sealed_length_at_look_ups: true, ..Without::default() };
    fails(without, &KINDS, &[Broken::Doubled]);
}

#[test]
fn sequences_compared_as_numbers_lose_at_a_wrap() {
    fails(Without { laps: true, ..Without::default() }, &KINDS, &[Broken::Lost]);
}

#[test]
fn a_batch_that_no_row_leads_up_to_must_wait_longer_than_clients_do() {
    fails(Without { patience: true, ..Without::default() }, &KINDS, &[Broken::Lost]);
}

fn add(to: &mut Totals, of: &Totals) {
    let Totals { batches, acknowledged, failed, new, duplicates, older, .. } = *of;
    to.batches += batches;
    to.acknowledged += acknowledged;
    to.failed += failed;
    to.new += new;
    to.duplicates += duplicates;
    to.older += older;
    to.fail_overs += of.fail_overs;
    to.proxy_crashes += of.proxy_crashes;
    to.freezes += of.freezes;
    to.lost_answers += of.lost_answers;
    to.transient += of.transient;
    to.outages += of.outages;
    to.seals += of.seals;
    to.retries_across_seals += of.retries_across_seals;
    to.found_in_sealed += of.found_in_sealed;
    to.look_ups += of.look_ups;
    to.refused += of.refused;
    to.moves += of.moves;
    to.returns += of.returns;
    to.caught_up += of.caught_up;
    to.bumps += of.bumps;
    to.wraps += of.wraps;
    to.forgotten += of.forgotten;
    to.contradictions += of.contradictions;
}
