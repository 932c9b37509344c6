//! Rules of exactly once are broken on purpose: the same trouble on a real Kafka must show it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::rig::{Rig, tell};

/// A fault, and what the readers must complain of.
const RULES: [(&str, &str); 3] = [
    ("seal-not-crossed", "comes again"),
    ("partial-success", "acknowledged ones lost"),
    ("pass-a-failed-batch", "acknowledged ones lost"),
];

/// Each in a run of its own, which must fail as it must.
pub fn each_broken_rule_is_seen(rig: &mut Rig) {
    for (fault, complaint) in RULES {
        rig.faults = Some(format!("{fault}=return"));
        let check = || super::exactly_once_whatever_breaks(rig);
        let failed = catch_unwind(AssertUnwindSafe(check));
        rig.faults = None;
        let why = match failed {
            Ok(()) => panic!("{fault}: nothing was lost or doubled though a rule is broken"),
            Err(why) => why.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        assert!(why.contains(complaint), "{fault}: another complaint: {why}");
        tell(&format!("{fault} is seen: {}", why.lines().nth(1).unwrap_or_default().trim()));
        rig.executed();
    }
    tell(&format!("{0} of {0} broken rules of exactly once were seen", RULES.len()));
}
