//! The way out: `firebreak rehydrate` copies a topic, and the copy is read on the brokers while no
//! proxy runs.
//!
//! Invariant: the copy has the records that readers saw through the proxy, each at its place, and
//! every value is the one that was produced, by length and SHA-256.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{Result, SoakError};
use crate::ledger::Account;
use crate::record::Identity;
use crate::verify::produced;

/// What a copy came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Records read on the brokers.
    pub read: u64,
    /// Values among them that `rehydrate` took from the store.
    pub restored: u64,
    /// Records that are not what was produced, not at their place, or missing.
    pub differing: u64,
}

/// Copies a topic; gives how many values came from the store.
pub fn rehydrate(firebreak: &Path, config: &Path, topic: &str, to: &str) -> Result<u64> {
    let done = Command::new(firebreak)
        .args(["rehydrate", topic, "--to", to, "--json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .map_err(SoakError::io(firebreak.display().to_string()))?;
    let report: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    match report["partitions"].as_array() {
        Some(partitions) if done.status.success() => {
            Ok(partitions.iter().filter_map(|one| one["values"].as_u64()).sum())
        }
        Some(_) | None => {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            let topic = topic.to_owned();
            Err(SoakError::Rehydrate { topic, ended: done.status.to_string(), said })
        }
    }
}

/// A copy against what readers saw.
pub struct Comparison<'a> {
    accounts: &'a [Account],
    /// By partition and offset in the copy.
    wanted: &'a [Vec<Identity>],
    copied: Copied,
}

impl<'a> Comparison<'a> {
    /// Of a copy with that many values from the store.
    pub fn new(accounts: &'a [Account], wanted: &'a [Vec<Identity>], restored: u64) -> Self {
        Self { accounts, wanted, copied: Copied { restored, ..Copied::default() } }
    }

    /// Takes a record of the copy. Records lie without gaps there, from offset 0 on.
    pub fn record(
        &mut self,
        (partition, offset): (i32, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        self.copied.read += 1;
        let all = usize::try_from(partition).ok().and_then(|at| self.wanted.get(at));
        let at = usize::try_from(offset).ok();
        let wanted = all.zip(at).and_then(|(all, at)| all.get(at));
        let found = produced(self.accounts, partition, key, value);
        self.copied.differing += u64::from(wanted.is_none_or(|wanted| found != Ok(*wanted)));
    }

    /// What it came to.
    pub fn finish(mut self) -> Copied {
        let wanted: usize = self.wanted.iter().map(Vec::len).sum();
        self.copied.differing += (wanted as u64).abs_diff(self.copied.read);
        self.copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{self, Fingerprint};

    fn identity(counter: usize) -> Identity {
        Identity { producer: 0, counter, transaction: 0 }
    }

    /// A copy with these counters at the offsets from 0 on, where 0 and 4 are wanted.
    fn compared(counters: &[usize], length: usize) -> Copied {
        let values = (0..8).map(|counter| Fingerprint::of(&record::write(&identity(counter), 150)));
        let accounts = [Account { values: values.collect(), ..Account::default() }];
        let wanted = [vec![identity(0), identity(4)]];
        let mut comparison = Comparison::new(&accounts, &wanted, 1);
        for (offset, counter) in (0..).zip(counters) {
            let value = record::write(&identity(*counter), length);
            comparison.record((0, offset), Some(b"producer-0"), Some(&value));
        }
        comparison.finish()
    }

    #[test]
    fn a_copy_with_every_record_at_its_place_does_not_differ() {
        assert_eq!(compared(&[0, 4], 150), Copied { read: 2, restored: 1, differing: 0 });
    }

    #[test]
    fn a_copy_differs_where_a_record_is_changed_moved_missing_or_too_many() {
        assert_eq!(compared(&[0, 4], 151).differing, 2);
        assert_eq!(compared(&[4, 0], 150).differing, 2);
        assert_eq!(compared(&[0], 150).differing, 1);
        assert!(compared(&[0, 4, 4], 150).differing > 0);
    }
}
