//! Rules of exactly once are broken on purpose: the same trouble on a real Kafka must show it.

use super::{Shown, everything_breaks};
use crate::rig::{Rig, tell};

/// What a broken rule does.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Lost,
    Doubled,
}

/// A fault, and the harm it must do. Brokers alone make hardly a batch fail, which is tried again
/// for seconds; in a shorter time they do.
const RULES: [(&str, Harm); 3] = [
    ("seal-not-crossed=return", Harm::Doubled),
    ("partial-success=return;dispatch-ms=return(100)", Harm::Lost),
    ("pass-a-failed-batch=return;dispatch-ms=return(100)", Harm::Lost),
];

/// Whether an answer is lost at the one moment where it does harm is chance: so often it is tried.
const RUNS: u32 = 3;

/// Each in runs of its own, one of which must do the harm.
pub fn each_broken_rule_is_seen(rig: &mut Rig) {
    for (fault, harm) in RULES {
        rig.faults = Some(fault.to_owned());
        let mut runs = (0..RUNS).map(|_| harm.of(&everything_breaks(rig, &[])));
        let harmed = runs.find(|records| *records > 0);
        rig.faults = None;
        let records = harmed.unwrap_or(0);
        assert!(records > 0, "{fault}: nothing is {harm:?} though a rule is broken");
        tell(&format!("{fault} is seen: {records} records {harm:?}"));
        rig.executed();
    }
    tell(&format!("{0} of {0} broken rules of exactly once were seen", RULES.len()));
}

impl Harm {
    /// How many records had it.
    fn of(self, shown: &Shown) -> u64 {
        match self {
            Self::Lost => shown.lost,
            Self::Doubled => shown.doubled,
        }
    }
}
