//! A transactional producer: begin, 4 to 20 records over two and more partitions, then commit, or
//! abort on purpose one time of four.
//!
//! Errors are handled as librdkafka's documentation says: an abortable one aborts, a retriable one
//! has the same call made again, any other one makes the producer anew under the same
//! transactional.id, which ends whatever the old one left open.
//! Invariant: a transaction is called committed or aborted only when librdkafka said so, or when
//! no commit of it was ever asked for.

use std::sync::Arc;
use std::time::Duration;

use firebreak_benches::clock::{now, sleep_until};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer;

use crate::clients::{self, SoakProducer, Told};
use crate::error::{Result, SoakError};
use crate::ledger::{Ledger, Outcome};
use crate::load::{Load, TRANSACTIONS_TOPIC, add};
use crate::random::Random;
use crate::record::{self, Sizes};

/// Runs transactions until the load is stopped; leaves none open.
pub fn run(load: &Arc<Load>, ledger: &Arc<Ledger>) -> Result<()> {
    let mut random = Random::new(load.seed, u64::from(ledger.producer));
    let pause = Duration::from_secs(1) / load.transactions_per_second.max(1);
    let mut producer = create(load, ledger)?;
    while !load.stopped() {
        let due = now() + pause;
        if transaction(&producer, load, ledger, &mut random) == State::Broken {
            add(&load.totals.fatal, 1);
            clients::settle(producer.context());
            drop(producer);
            producer = create(load, ledger)?;
        }
        sleep_until(due);
    }
    clients::settle(producer.context());
    Ok(())
}

fn create(load: &Arc<Load>, ledger: &Arc<Ledger>) -> Result<SoakProducer> {
    let name = format!("transactional-{}", ledger.producer);
    let producer: SoakProducer = clients::producer(load, &name, ledger.producer)
        .set("transactional.id", &name)
        .create_with_context(Told::new(&name, ledger.clone(), load.clone()))
        .map_err(SoakError::kafka("transactional producer"))?;
    match again(&producer, load, "init", || producer.init_transactions(CALL_MAX)) {
        Answer::Done => Ok(producer),
        Answer::MustAbort(error) | Answer::Broken(error) => {
            Err(SoakError::Kafka { what: "init_transactions", error })
        }
    }
}

fn transaction(
    producer: &SoakProducer,
    load: &Load,
    ledger: &Ledger,
    random: &mut Random,
) -> State {
    let number = ledger.open_transaction();
    if let Err(error) = producer.begin_transaction() {
        load.journal.say(&producer.context().name, &format!("cannot begin: {error}"));
        ledger.close_transaction(Outcome::Aborted, load.journal.elapsed());
        return State::Broken;
    }
    let records = random.between(4, 20);
    let sent = (0..records).try_for_each(|_| {
        let length = record::length(random, Sizes::Usual);
        clients::send(producer, TRANSACTIONS_TOPIC, number, length)
    });
    let on_purpose = random.chance(ABORTS_PER_MILLE);
    let (outcome, state) = match &sent {
        Ok(()) if !on_purpose => commit(producer, load),
        Ok(()) => {
            // Half of the aborts come when everything is in the log, the others in mid-flight.
            if random.chance(500) {
                let _ = producer.flush(FLUSH_MAX);
            }
            abort(producer, load, Outcome::Aborted)
        }
        Err(error) => {
            load.journal.say(&producer.context().name, &format!("cannot send: {error}"));
            abort(producer, load, Outcome::Aborted)
        }
    };
    if outcome == Outcome::Aborted && !on_purpose {
        add(&load.totals.forced_aborts, 1);
    }
    ledger.close_transaction(outcome, load.journal.elapsed());
    state
}

fn commit(producer: &SoakProducer, load: &Load) -> (Outcome, State) {
    match again(producer, load, "commit", || producer.commit_transaction(CALL_MAX)) {
        Answer::Done => (Outcome::Committed, State::Usable),
        Answer::MustAbort(_) => abort(producer, load, Outcome::Unknown),
        Answer::Broken(_) => (Outcome::Unknown, State::Broken),
    }
}

/// `otherwise` is what is known of the transaction when the abort is not confirmed.
fn abort(producer: &SoakProducer, load: &Load, otherwise: Outcome) -> (Outcome, State) {
    match again(producer, load, "abort", || producer.abort_transaction(CALL_MAX)) {
        Answer::Done => (Outcome::Aborted, State::Usable),
        Answer::MustAbort(_) | Answer::Broken(_) => (otherwise, State::Broken),
    }
}

/// Makes a call until its outcome is final.
fn again(
    producer: &SoakProducer,
    load: &Load,
    what: &str,
    call: impl Fn() -> KafkaResult<()>,
) -> Answer {
    let begin = now();
    loop {
        let error = match call() {
            Ok(()) => return Answer::Done,
            Err(error) => error,
        };
        load.journal.say(&producer.context().name, &format!("{what}: {error}"));
        let retriable = match &error {
            KafkaError::Transaction(told) if told.txn_requires_abort() => {
                return Answer::MustAbort(error);
            }
            KafkaError::Transaction(told) => told.is_retriable() && !told.is_fatal(),
            // rdkafka flushes before a commit: that ran out of time, and nothing was asked yet.
            KafkaError::Flush(_) => true,
            _ => false,
        };
        if !retriable || begin.elapsed() > OUTCOME_MAX {
            return Answer::Broken(error);
        }
        add(&load.totals.calls_retried, 1);
        sleep_until(now() + CALL_PAUSE);
    }
}

#[derive(PartialEq, Eq)]
enum State {
    Usable,
    Broken,
}

enum Answer {
    Done,
    MustAbort(KafkaError),
    Broken(KafkaError),
}

const ABORTS_PER_MILLE: u64 = 250;
const CALL_MAX: Duration = Duration::from_secs(15);
const CALL_PAUSE: Duration = Duration::from_millis(100);
const FLUSH_MAX: Duration = Duration::from_secs(10);
const OUTCOME_MAX: Duration = Duration::from_secs(120);
