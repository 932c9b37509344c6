//! Rules of exactly once are broken on purpose: the same trouble on a real Kafka must show it.

use super::{Shown, everything_breaks};
use crate::rig::{Rig, tell};

/// What a broken rule does.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Lost,
    Doubled,
}

/// A part has so little time that many batches fail, which is no harm.
const SHORT: &str = "dispatch-ms=return(100)";

/// A broken rule, and the harm it must do in that time.
const RULES: [(&str, Harm); 3] = [
    ("seal-not-crossed", Harm::Doubled),
    ("partial-success", Harm::Lost),
    ("pass-a-failed-batch", Harm::Lost),
];

/// Whether an answer is lost at the one moment where it does harm is chance: so often it is tried.
const RUNS: u32 = 3;

/// Each in runs of its own, one of which must do the harm.
pub fn each_broken_rule_is_seen(rig: &mut Rig) {
    rig.faults = Some(SHORT.to_owned());
    let shown = everything_breaks(rig, &[]);
    assert_eq!((shown.lost, shown.doubled), (0, 0), "by a short time alone");
    for (fault, harm) in RULES {
        rig.faults = Some(format!("{SHORT};{fault}=return"));
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
