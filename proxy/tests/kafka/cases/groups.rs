//! Groups of Java consumers: classic, KIP-848 and share.

use serde_json::json;

use super::{command, expect};
use crate::rig::Rig;

pub fn classic_group(rig: &mut Rig) {
    group(rig, "classic");
}

/// KIP-848.
pub fn consumer_group(rig: &mut Rig) {
    group(rig, "consumer");
}

fn group(rig: &mut Rig, protocol: &str) {
    rig.compare(&format!("{protocol} group"), 4, |rig, place| {
        let outcome = rig.java.must("group", command(place, &json!({"protocol": protocol})));
        expect(&outcome, "/distinct", 400);
        expect(&outcome, "/shares", json!([2, 2]));
        expect(&outcome, "/failures", "null null");
        outcome
    });
}

pub fn share_group(rig: &mut Rig) {
    rig.compare_if_there("share group", 2, |rig, place| {
        let outcome = rig.java.run("share", command(place, &json!({})))?;
        expect(&outcome, "/accepted", 98);
        expect(&outcome, "/released", 2);
        expect(&outcome, "/rejected", 2);
        expect(&outcome, "/wrong values", 0);
        Some(outcome)
    });
}

/// Commit, abort, offsets in a transaction, fencing, both isolation levels.
pub fn transactions(rig: &mut Rig) {
    for codec in ["none", "zstd"] {
        rig.compare(&format!("transactions, {codec}"), 2, |rig, place| {
            let outcome = rig.java.must("transactions", command(place, &json!({"codec": codec})));
            expect(&outcome, "/read_committed/records", 60);
            expect(&outcome, "/read_uncommitted/records", 80);
            expect(&outcome, "/committed", "4");
            assert_ne!(outcome["fenced"], "not fenced");
            outcome
        });
    }
}
