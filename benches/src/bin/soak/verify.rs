//! Compares what can be read with what the producers were told.
//!
//! Flow: `record` takes every record read under read_committed in the order of its partition,
//! `finish` looks at what is missing.
//! Invariant: an acknowledged record is there once, in its producer's order, where the
//! acknowledgement said, with the value that was produced; a transaction is there whole or not at
//! all.

use std::collections::HashMap;

use crate::ledger::{Account, Delivery, Outcome, Transaction};
use crate::record::{self, Fingerprint, Identity, Torn};

/// What is wrong; all zero when nothing is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records read.
    pub read: u64,
    /// Acknowledged records, or records of committed transactions, that are not there.
    pub lost: u64,
    /// Records that are there again.
    pub doubled: u64,
    /// Records behind a later one of their producer and partition.
    pub reordered: u64,
    /// Values that are none of this load or not what was produced: damaged, references, another's.
    pub torn_values: u64,
    /// Transactions of which a part is visible.
    pub torn_transactions: u64,
    /// Aborted transactions of which anything is visible.
    pub aborted_visible: u64,
    /// Records at another offset than their acknowledgement said.
    pub misplaced: u64,
    /// The first findings, in words.
    pub examples: Vec<String>,
}

/// The comparison at work.
pub struct Verifier<'a> {
    accounts: &'a [Account],
    seen: Vec<Vec<bool>>,
    last: HashMap<(u32, i32), usize>,
    findings: Findings,
}

impl<'a> Verifier<'a> {
    /// Accounts by number of the producer.
    pub fn new(accounts: &'a [Account]) -> Self {
        let seen = accounts.iter().map(|account| vec![false; account.deliveries.len()]).collect();
        Self { accounts, seen, last: HashMap::new(), findings: Findings::default() }
    }

    /// Takes the next record of a partition, and says who it is if it is whole.
    pub fn record(
        &mut self,
        place: (i32, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<Identity> {
        self.findings.read += 1;
        match produced(self.accounts, place.0, key, value) {
            Ok(identity) => {
                self.known(place, identity);
                Some(identity)
            }
            Err(torn) => {
                self.torn(place, torn);
                None
            }
        }
    }

    /// Takes a record that one of the producers produced.
    fn known(&mut self, (partition, offset): (i32, i64), identity: Identity) {
        let named = || format!("{identity:?} at partition {partition}, offset {offset}");
        let producer = identity.producer as usize;
        if std::mem::replace(&mut self.seen[producer][identity.counter], true) {
            self.findings.doubled += 1;
            self.findings.example("doubled", &named());
            return;
        }
        let account = &self.accounts[producer];
        if let Delivery::Acknowledged(Some(told)) = account.deliveries[identity.counter]
            && told != offset
        {
            self.findings.misplaced += 1;
            self.findings.example("misplaced", &format!("{} instead of {told}", named()));
        }
        if !account.must_show(identity.counter, identity.transaction) {
            return;
        }
        let last = self.last.entry((identity.producer, partition)).or_default();
        if identity.counter < *last {
            self.findings.reordered += 1;
            self.findings.example("reordered", &format!("{} behind {last}", named()));
        }
        *last = (*last).max(identity.counter);
    }

    /// What was found, and what was not.
    pub fn finish(mut self) -> Findings {
        for (producer, account) in self.accounts.iter().enumerate() {
            let seen = &self.seen[producer];
            if account.transactions.is_empty() {
                for (counter, delivery) in account.deliveries.iter().enumerate() {
                    if matches!(delivery, Delivery::Acknowledged(_)) && !seen[counter] {
                        self.findings.lost += 1;
                        let named = format!("producer {producer}, counter {counter}: {delivery:?}");
                        self.findings.example("lost", &named);
                    }
                }
            }
            for transaction in &account.transactions {
                let visible = seen[transaction.records()].iter().filter(|seen| **seen).count();
                self.findings.transaction(producer, transaction, visible);
            }
        }
        self.findings
    }

    fn torn(&mut self, place: (i32, i64), torn: Torn) {
        self.findings.torn_values += 1;
        self.findings
            .example("torn", &format!("partition {}, offset {}: {torn}", place.0, place.1));
    }
}

impl Findings {
    fn transaction(&mut self, producer: usize, transaction: &Transaction, visible: usize) {
        let named = || format!("producer {producer}, {visible} visible of {transaction:?}");
        if visible > 0 && visible < transaction.count {
            self.torn_transactions += 1;
            self.example("torn transaction", &named());
        }
        match transaction.outcome {
            Outcome::Committed if visible < transaction.count => {
                self.lost += (transaction.count - visible) as u64;
                self.example("lost of a committed transaction", &named());
            }
            Outcome::Aborted if visible > 0 => {
                self.aborted_visible += 1;
                self.example("aborted but visible", &named());
            }
            Outcome::Unknown | Outcome::Committed | Outcome::Aborted => {}
        }
    }

    fn example(&mut self, what: &str, named: &str) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{what}: {named}"));
        }
    }
}

impl Account {
    /// Whether the order of that record was promised.
    fn must_show(&self, counter: usize, transaction: u64) -> bool {
        let number = usize::try_from(transaction).unwrap_or(usize::MAX);
        match number.checked_sub(1).map(|place| self.transactions.get(place)) {
            None => matches!(self.deliveries[counter], Delivery::Acknowledged(_)),
            Some(known) => known.is_some_and(|known| known.outcome == Outcome::Committed),
        }
    }
}

impl Transaction {
    fn records(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }
}

/// Checks a record that was read against what was produced, and says who it is.
pub fn produced(
    accounts: &[Account],
    partition: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Identity, Torn> {
    let identity = record::open(partition, key, value)?;
    let value = value.unwrap_or_default();
    let account = accounts.get(identity.producer as usize);
    let noted = account.and_then(|account| account.values.get(identity.counter));
    match noted {
        None => Err(Torn::Foreign(value.len())),
        Some(noted) if *noted != Fingerprint::of(value) => Err(Torn::Produced),
        Some(_) => Ok(identity),
    }
}

const EXAMPLES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const ACKNOWLEDGED: Delivery = Delivery::Acknowledged(None);

    fn value(counter: usize, transaction: u64) -> Vec<u8> {
        record::write(&Identity { producer: 0, counter, transaction }, 150)
    }

    /// Reads `(counter, offset)` of producer 0, all of one partition.
    fn read(account: &Account, transaction: u64, records: &[(usize, i64)]) -> Findings {
        let counters = 0..account.deliveries.len();
        let values = counters.map(|counter| Fingerprint::of(&value(counter, transaction)));
        let accounts = [Account { values: values.collect(), ..account.clone() }];
        let mut verifier = Verifier::new(&accounts);
        for &(counter, offset) in records {
            let place = (record::partition(counter), offset);
            verifier.record(place, Some(b"producer-0"), Some(&value(counter, transaction)));
        }
        let mut findings = verifier.finish();
        findings.examples.clear();
        findings
    }

    fn plain(deliveries: &[Delivery]) -> Account {
        Account { deliveries: deliveries.to_vec(), ..Account::default() }
    }

    fn transaction(outcome: Outcome) -> Account {
        let transactions = vec![Transaction { first: 0, count: 9, outcome }];
        Account { transactions, ..plain(&[ACKNOWLEDGED; 9]) }
    }

    fn all(count: usize) -> Vec<(usize, i64)> {
        (0..count).map(|counter| (counter, 0)).collect()
    }

    #[test]
    fn everything_acknowledged_and_read_once_is_no_finding() {
        let found = read(&plain(&[ACKNOWLEDGED; 9]), 0, &all(9));
        assert_eq!(found, Findings { read: 9, ..Findings::default() });
    }

    #[test]
    fn a_missing_record_is_lost_only_if_it_was_acknowledged() {
        let account = plain(&[ACKNOWLEDGED, Delivery::Unknown, ACKNOWLEDGED]);
        assert_eq!(read(&account, 0, &[(0, 0)]).lost, 1);
        assert_eq!(read(&account, 0, &all(3)).lost, 0);
    }

    #[test]
    fn a_record_read_twice_is_doubled_even_if_its_fate_was_unknown() {
        let account = plain(&[Delivery::Unknown]);
        assert_eq!(read(&account, 0, &[(0, 0), (0, 1)]).doubled, 1);
    }

    #[test]
    fn a_record_behind_a_later_one_of_its_partition_is_reordered() {
        let account = plain(&[ACKNOWLEDGED; 9]);
        assert_eq!(read(&account, 0, &[(4, 0), (0, 1), (8, 2)]).reordered, 1);
        assert_eq!(read(&account, 0, &[(1, 0), (0, 0)]).reordered, 0, "other partitions");
    }

    #[test]
    fn a_record_at_another_offset_than_told_is_misplaced() {
        let account = plain(&[Delivery::Acknowledged(Some(7))]);
        assert_eq!(read(&account, 0, &[(0, 7)]).misplaced, 0);
        assert_eq!(read(&account, 0, &[(0, 8)]).misplaced, 1);
    }

    #[test]
    fn a_transaction_is_visible_as_it_ended() {
        let (committed, aborted) = (Outcome::Committed, Outcome::Aborted);
        let clean = |read| Findings { read, ..Findings::default() };
        assert_eq!(read(&transaction(committed), 1, &all(9)), clean(9));
        assert_eq!(read(&transaction(committed), 1, &[]).lost, 9);
        assert_eq!(read(&transaction(aborted), 1, &[]), clean(0));
        assert_eq!(read(&transaction(aborted), 1, &all(9)).aborted_visible, 1);
        for whole in [0, 9] {
            let unknown = read(&transaction(Outcome::Unknown), 1, &all(whole));
            assert_eq!(unknown, clean(whole as u64));
        }
    }

    #[test]
    fn a_transaction_visible_in_part_is_torn() {
        for outcome in [Outcome::Unknown, Outcome::Committed, Outcome::Aborted] {
            assert_eq!(read(&transaction(outcome), 1, &all(5)).torn_transactions, 1);
        }
    }

    #[test]
    fn bytes_that_nobody_wrote_are_torn() {
        let accounts = [plain(&[ACKNOWLEDGED])];
        let mut verifier = Verifier::new(&accounts);
        verifier.record((0, 0), None, Some(b"something"));
        verifier.record((0, 1), Some(b"producer-0"), Some(&value(4, 0)));
        let found = verifier.finish();
        assert_eq!((found.torn_values, found.lost), (2, 1));
    }

    #[test]
    fn a_whole_value_that_is_not_the_one_produced_is_torn() {
        let identity = Identity { producer: 0, counter: 0, transaction: 0 };
        let values = vec![Fingerprint::of(&value(0, 0))];
        let accounts = [Account { values, ..plain(&[ACKNOWLEDGED]) }];
        let open = |value: &[u8]| produced(&accounts, 0, Some(b"producer-0"), Some(value));
        assert_eq!(open(&value(0, 0)), Ok(identity));
        assert_eq!(open(&record::write(&identity, 151)), Err(Torn::Produced));
        assert_eq!(open(&value(4, 0)), Err(Torn::Foreign(150)));
    }
}
