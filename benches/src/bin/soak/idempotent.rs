//! An idempotent producer at its own pace: whatever is due is handed to librdkafka, which alone
//! retries. Some send large values besides, to a topic of their own, and one that is stored in
//! parts whenever the kills want one. A producer with a fatal error is replaced, as librdkafka
//! asks; its records that were not acknowledged stay unknown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use firebreak_benches::clock::{now, sleep_until};
use rdkafka::producer::Producer;

use crate::clients::{self, SoakProducer, Told};
use crate::error::{Result, SoakError};
use crate::ledger::Ledger;
use crate::load::{LARGE_TOPIC, Load, PLAIN_TOPIC, add};
use crate::random::Random;
use crate::record::{self, HUGE_BYTES_MAX, Sizes};

/// Produces until the load is stopped, then waits for what is in flight.
pub fn run(load: &Arc<Load>, ledger: &Arc<Ledger>, sizes: Sizes) -> Result<()> {
    let mut random = Random::new(load.seed, u64::from(ledger.producer));
    let mut producer = create(load, ledger, sizes)?;
    let (topic, records_per_second) = match sizes {
        Sizes::Usual => (PLAIN_TOPIC, load.records_per_second),
        Sizes::Large => (LARGE_TOPIC, load.large_records_per_second),
    };
    let begin = now();
    let mut sent = 0;
    while !load.stopped() {
        let due = begin.elapsed().as_millis() * u128::from(records_per_second) / 1000;
        while sent < due && !load.stopped() {
            sent += 1;
            let length = next_length(load, &mut random, sizes);
            if let Err(error) = clients::send(&producer, topic, 0, length) {
                let name = &producer.context().name;
                load.journal.say(name, &format!("cannot send, made anew: {error}"));
                add(&load.totals.fatal, 1);
                clients::settle(producer.context());
                producer = create(load, ledger, sizes)?;
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

fn next_length(load: &Load, random: &mut Random, sizes: Sizes) -> usize {
    match sizes {
        Sizes::Large if load.huge_wanted.swap(false, Ordering::Relaxed) => record::huge(random),
        Sizes::Large | Sizes::Usual => record::length(random, sizes),
    }
}

fn create(load: &Arc<Load>, ledger: &Arc<Ledger>, sizes: Sizes) -> Result<SoakProducer> {
    let kind = if sizes == Sizes::Large { "large" } else { "idempotent" };
    let name = format!("{kind}-{}", ledger.producer);
    let mut config = clients::producer(load, &name, ledger.producer);
    if sizes == Sizes::Large {
        // Noise gets no shorter, and what waits while nothing is acknowledged is bounded.
        config
            .set("compression.codec", "none")
            .set("message.max.bytes", (HUGE_BYTES_MAX + ROOM_BYTES).to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string());
    }
    config
        .create_with_context(Told::new(&name, ledger.clone(), load.clone()))
        .map_err(SoakError::kafka("idempotent producer"))
}

const TICK: Duration = Duration::from_millis(10);
/// For the head of a batch and of its request.
const ROOM_BYTES: usize = 1_000_000;
const QUEUE_KBYTES: usize = 200_000;
const FLUSH_MAX: Duration = Duration::from_secs(120);
