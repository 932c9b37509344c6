//! What one producer knows of its own records: sent, acknowledged where, in which transaction.
//!
//! Flow: the producer's thread opens records and transactions and notes what their values are,
//! librdkafka's callback settles records; at the end the `Account` is taken out and compared with
//! what can be read.
//! Invariant: a record is settled once; what nobody told stays unknown.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::record::Fingerprint;

/// What became of a record, as its producer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing yet, or an error: it may be in the log once or not at all.
    Unknown,
    /// Acknowledged, at that offset if the broker said one.
    Acknowledged(Option<i64>),
}

/// What became of a transaction, as its producer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody could tell: all of it is visible or nothing.
    Unknown,
    /// All of it is visible.
    Committed,
    /// Nothing of it is visible.
    Aborted,
}

/// A transaction: records `first..first + count` of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Counter of the first record.
    pub first: usize,
    /// Records.
    pub count: usize,
    /// How it ended.
    pub outcome: Outcome,
}

/// Everything a producer knows in the end.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// By counter.
    pub deliveries: Vec<Delivery>,
    /// What was produced, by counter.
    pub values: Vec<Fingerprint>,
    /// By number, less one; empty for a producer without transactions.
    pub transactions: Vec<Transaction>,
    /// When acknowledgements came, in order, since the start of the journal.
    pub acknowledged_at: Vec<Duration>,
    /// When commits were done, likewise.
    pub committed_at: Vec<Duration>,
    /// Delivery reports that told of an error.
    pub failed: u64,
    /// Messages put on the wire, each time anew.
    pub sent: u64,
}

/// The account of a producer at work.
#[derive(Debug)]
pub struct Ledger {
    /// Number of the producer.
    pub producer: u32,
    account: Mutex<Account>,
}

impl Ledger {
    /// An empty account.
    pub fn new(producer: u32) -> Self {
        Self { producer, account: Mutex::default() }
    }

    /// Opens the next record and gives its counter.
    pub fn open_record(&self) -> usize {
        let mut account = self.hold();
        account.deliveries.push(Delivery::Unknown);
        account.values.push(Fingerprint::default());
        account.deliveries.len() - 1
    }

    /// Notes the value of a record that was opened.
    pub fn note(&self, counter: usize, value: Fingerprint) {
        if let Some(noted) = self.hold().values.get_mut(counter) {
            *noted = value;
        }
    }

    /// Settles a record.
    pub fn acknowledge(&self, counter: usize, offset: Option<i64>, at: Duration) {
        let mut account = self.hold();
        if let Some(delivery) = account.deliveries.get_mut(counter) {
            *delivery = Delivery::Acknowledged(offset);
        }
        account.acknowledged_at.push(at);
    }

    /// Leaves a record unknown for good.
    pub fn fail(&self) {
        self.hold().failed += 1;
    }

    /// Counts messages that were put on the wire.
    pub fn send(&self, messages: u64) {
        self.hold().sent += messages;
    }

    /// Opens the next transaction and gives its number.
    pub fn open_transaction(&self) -> u64 {
        let mut account = self.hold();
        let first = account.deliveries.len();
        account.transactions.push(Transaction { first, count: 0, outcome: Outcome::Unknown });
        account.transactions.len() as u64
    }

    /// Ends the transaction that was opened last.
    pub fn close_transaction(&self, outcome: Outcome, at: Duration) {
        let mut account = self.hold();
        let records = account.deliveries.len();
        if let Some(last) = account.transactions.last_mut() {
            last.count = records - last.first;
            last.outcome = outcome;
        }
        if outcome == Outcome::Committed {
            account.committed_at.push(at);
        }
    }

    /// Acknowledgements so far.
    pub fn acknowledged(&self) -> usize {
        self.hold().acknowledged_at.len()
    }

    /// A copy of the account.
    pub fn account(&self) -> Account {
        self.hold().clone()
    }

    fn hold(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
