//! Readers: the group that follows the load, and the one that reads a topic whole in the end.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use firebreak_benches::clock::now;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::clients::{self, Told};
use crate::error::{Result, SoakError};
use crate::ledger::{Account, Ledger, Outcome};
use crate::load::Load;
use crate::record::{self, PARTITIONS};

/// What the following group read. It may read a record again after a restart.
#[derive(Default)]
pub struct Tail {
    /// When records came, since the start of the journal.
    pub read_at: Vec<Duration>,
    /// Values that are none of this load.
    pub torn: u64,
    /// Errors that were reported instead of a record, but those of lost connections.
    pub errors: u64,
    transactions: HashSet<(u32, u64)>,
}

impl Tail {
    /// Aborted transactions of which it read anything.
    pub fn aborted_seen(&self, accounts: &[Account]) -> u64 {
        let aborted = |&&(producer, number): &&(u32, u64)| {
            let account = accounts.get(producer as usize);
            let place = usize::try_from(number).unwrap_or(0).checked_sub(1);
            let known = account.and_then(|account| account.transactions.get(place?));
            known.is_some_and(|known| known.outcome == Outcome::Aborted)
        };
        self.transactions.iter().filter(aborted).count() as u64
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, at: Duration, load: &Load) {
        self.read_at.push(at);
        match record::open(message.partition(), message.key(), message.payload()) {
            Ok(identity) if identity.transaction > 0 => {
                self.transactions.insert((identity.producer, identity.transaction));
            }
            Ok(_) => {}
            Err(torn) => {
                self.torn += 1;
                load.journal.say("tail", &format!("{}: {torn}", place(message)));
            }
        }
    }
}

/// A member of the following group, until the load is stopped.
pub fn follow(load: &Arc<Load>, member: u32, tail: &Mutex<Tail>) -> Result<()> {
    let name = format!("tail-{member}");
    let consumer: BaseConsumer<Told> = clients::client(&load.proxy, &name, load)
        .set("group.id", "soak-tail")
        .set("auto.offset.reset", "earliest")
        .set("fetch.min.bytes", "50000")
        .set("fetch.wait.max.ms", "100")
        .set("isolation.level", "read_committed")
        .create_with_context(Told::new(&name, Arc::new(Ledger::new(u32::MAX)), load.clone()))
        .map_err(SoakError::kafka("following consumer"))?;
    consumer.subscribe(load.topics()).map_err(SoakError::kafka("subscribe"))?;
    while !load.stopped() {
        let Some(message) = consumer.poll(POLL) else { continue };
        let at = load.journal.elapsed();
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Ok(message) => tail.take(&message, at, load),
            Err(error) if clients::is_connection_loss(&error) => {}
            Err(error) => {
                tail.errors += 1;
                load.journal.say(&name, &format!("poll: {error}"));
            }
        }
    }
    Ok(())
}

/// Reads all partitions of a topic from the beginning to the end.
pub fn whole_topic(
    bootstrap: &str,
    topic: &str,
    isolation: &str,
    load: &Arc<Load>,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let told = Told::new("check", Arc::new(Ledger::new(u32::MAX)), load.clone());
    let consumer: BaseConsumer<Told> = clients::client(bootstrap, "check", load)
        .set("group.id", "soak-check")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("receive.message.max.bytes", ANSWER_BYTES_MAX)
        .create_with_context(told)
        .map_err(SoakError::kafka("checking consumer"))?;
    let mut wanted = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        wanted
            .add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(SoakError::kafka("assignment"))?;
    }
    consumer.assign(&wanted).map_err(SoakError::kafka("assign"))?;
    let mut open: HashSet<i32> = (0..PARTITIONS).collect();
    let (mut last, mut why) = (now(), String::new());
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last = now();
                each(&message);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                last = now();
                open.remove(&partition);
            }
            Some(Err(error)) => why = format!(": {error}"),
            None => {}
        }
        if last.elapsed() > SILENCE_MAX {
            let what = format!("the next record of {topic} from {bootstrap}, {open:?} open");
            return Err(SoakError::Stuck { what, after: SILENCE_MAX, why });
        }
    }
    Ok(())
}

/// Which records a topic shows, by partition and offset, and whether their values are large.
pub type Visible = HashMap<(i32, i64), bool>;

/// What lies in the broker's log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InLog {
    /// Records that readers see.
    pub visible: u64,
    /// References among them.
    pub references: u64,
    /// Records that readers do not see: of aborted transactions.
    pub hidden: u64,
    /// Large values that are no reference, small ones that are, and records missing.
    pub mismatched: u64,
}

impl InLog {
    /// Takes a record as the broker gave it under read_uncommitted.
    pub fn record(&mut self, shown: &Visible, place: (i32, i64), value: &[u8]) {
        let is_reference = record::is_reference(value);
        match shown.get(&place) {
            None => self.hidden += 1,
            Some(is_large) => {
                self.visible += 1;
                self.references += u64::from(is_reference);
                self.mismatched += u64::from(is_reference != *is_large);
            }
        }
    }
}

fn place(message: &BorrowedMessage<'_>) -> String {
    format!("{} {} offset {}", message.topic(), message.partition(), message.offset())
}

/// More than the default of 100 MB: a batch of a copy may have 76 MB, and others come beside it.
const ANSWER_BYTES_MAX: &str = "250000000";
const POLL: Duration = Duration::from_millis(100);
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use protocol_ext::reference::{REFERENCE_BYTES, REFERENCE_MAGIC};

    #[test]
    fn references_in_the_log_are_counted_against_what_readers_see() {
        let shown = Visible::from([((0, 0), true), ((0, 1), false), ((0, 2), true)]);
        let mut reference = vec![0; REFERENCE_BYTES];
        reference[..4].copy_from_slice(&REFERENCE_MAGIC);
        let mut log = InLog::default();
        log.record(&shown, (0, 0), &reference);
        log.record(&shown, (0, 1), b"small");
        log.record(&shown, (0, 2), b"large, and not stored");
        log.record(&shown, (0, 3), &reference);
        assert_eq!(log, InLog { visible: 3, references: 1, hidden: 1, mismatched: 1 });
    }
}
