//! An idempotent producer at its own pace: whatever is due is handed to librdkafka, which alone
//! retries. A producer with a fatal error is replaced, as librdkafka asks; its records that were
//! not acknowledged stay unknown.

use std::sync::Arc;
use std::time::Duration;

use firebreak_benches::clock::{now, sleep_until};
use rdkafka::producer::Producer;

use crate::clients::{self, SoakProducer, Told};
use crate::error::{Result, SoakError};
use crate::ledger::Ledger;
use crate::load::{Load, PLAIN_TOPIC, add};
use crate::random::Random;

/// Produces until the load is stopped, then waits for what is in flight.
pub fn run(load: &Arc<Load>, ledger: &Arc<Ledger>) -> Result<()> {
    let mut random = Random::new(load.seed, u64::from(ledger.producer));
    let mut producer = create(load, ledger)?;
    let begin = now();
    let mut sent = 0;
    while !load.stopped() {
        let due = begin.elapsed().as_millis() * u128::from(load.records_per_second) / 1000;
        while sent < due && !load.stopped() {
            sent += 1;
            if let Err(error) = clients::send(&producer, PLAIN_TOPIC, 0, &mut random) {
                let name = &producer.context().name;
                load.journal.say(name, &format!("cannot send, made anew: {error}"));
                add(&load.totals.fatal, 1);
                clients::settle(producer.context());
                producer = create(load, ledger)?;
            }
        }
        sleep_until(now() + TICK);
    }
    if let Err(error) = producer.flush(FLUSH_MAX) {
        load.journal.say(&producer.context().name, &format!("not all in time: {error}"));
        add(&load.totals.unfinished, 1);
    }
    clients::settle(producer.context());
    Ok(())
}

fn create(load: &Arc<Load>, ledger: &Arc<Ledger>) -> Result<SoakProducer> {
    let name = format!("idempotent-{}", ledger.producer);
    clients::producer(load, &name, ledger.producer)
        .create_with_context(Told::new(&name, ledger.clone(), load.clone()))
        .map_err(SoakError::kafka("idempotent producer"))
}

const TICK: Duration = Duration::from_millis(10);
const FLUSH_MAX: Duration = Duration::from_secs(120);
