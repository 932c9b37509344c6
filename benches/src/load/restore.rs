//! Values read one by one: a Fetch per record, from the first offset of a partition on.
//!
//! Every batch holds one record and a broker gives at least one batch, so a request for one byte
//! has one value as its answer. Readers go round and round; the first round and the later ones are
//! told apart, since the later ones may be served from memory.

use std::thread;

use serde_json::{Value, json};

use super::{gather, some};
use crate::clock::now;
use crate::connection::{BUFFER_BYTES, Connection, resolve};
use crate::error::{BenchError, Result};
use crate::histogram::Histogram;
use crate::wire;

/// Who reads what.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// Readers, one connection each; each reads the partition of its number.
    #[arg(long, default_value_t = 4)]
    pub connections: u32,
    /// Partitions; the next reader begins with the first again.
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Records of a partition; readers of the same one begin at different ones.
    #[arg(long, default_value_t = 25)]
    pub values: u32,
    /// Records that each reads in a round; 0: all of them.
    #[arg(long, default_value_t = 0)]
    pub reads: u32,
    /// Rounds.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// Answers without records and refusals are counted and asked again, as clients do; else each
    /// ends the run.
    #[arg(long)]
    pub patient: bool,
}

#[derive(Default)]
struct Read {
    first: Histogram,
    again: Histogram,
    record_bytes: u64,
    empty: u64,
    refused: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

/// Reads, and answers counts and latencies.
///
/// # Errors
/// When a socket fails, or something is not answered with records and the plan is not patient.
pub fn run(bootstrap: &str, topic: &str, plan: Plan) -> Result<Value> {
    let begin = now();
    let read = thread::scope(|scope| {
        let readers = 0..plan.connections;
        gather(readers.map(|n| scope.spawn(move || reader(bootstrap, topic, plan, n))).collect())
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let (mut first, mut again) = (Histogram::default(), Histogram::default());
    for one in &read {
        first.merge(&one.first);
        again.merge(&one.again);
    }
    some("values", first.count())?;
    let sum = |field: fn(&Read) -> u64| read.iter().map(field).sum::<u64>();
    Ok(json!({
        "requests": first.count() + again.count() + sum(|one| one.empty) + sum(|one| one.refused),
        "values": first.count() + again.count(),
        "bytes": sum(|one| one.record_bytes),
        "seconds": seconds,
        "empty": sum(|one| one.empty),
        "refused": sum(|one| one.refused),
        "first_p50_us": first.quantile_us(500),
        "first_p99_us": first.quantile_us(990),
        "again_p50_us": again.quantile_us(500),
        "again_p99_us": again.quantile_us(990),
        "bytes_sent": sum(|one| one.sent_bytes),
        "bytes_received": sum(|one| one.received_bytes),
    }))
}

fn reader(bootstrap: &str, topic: &str, plan: Plan, number: u32) -> Result<Read> {
    let (partitions, values) = (plan.partitions.max(1), plan.values.max(1));
    let partition =
        i32::try_from(number % partitions).map_err(|_| BenchError::Wire("partition"))?;
    let reads = if plan.reads == 0 { values } else { plan.reads };
    let target = resolve(bootstrap, topic, partition)?;
    let mut connection = Connection::open(&target.leader, BUFFER_BYTES)?;
    if plan.patient {
        connection.receiver.wait_for_ever()?;
    }
    let mut read = Read::default();
    for round in 0..plan.rounds {
        for read_before in 0..reads {
            let offset = (number / partitions + read_before) % values;
            let mut frame = wire::fetch_from(&target, i64::from(offset), 1)?;
            let begin = now();
            let bytes = value(&mut connection, &mut frame, plan.patient, &mut read)?;
            let latencies = if round == 0 { &mut read.first } else { &mut read.again };
            latencies.record(begin.elapsed());
            read.record_bytes += bytes;
        }
    }
    read.sent_bytes = connection.sender.sent_bytes;
    read.received_bytes = connection.receiver.received_bytes;
    Ok(read)
}

/// Asks until there are records.
fn value(to: &mut Connection, frame: &mut [u8], patient: bool, read: &mut Read) -> Result<u64> {
    loop {
        to.sender.send(frame)?;
        match to.receiver.discard_fetch() {
            Ok(0) if patient => read.empty += 1,
            Ok(0) => return Err(BenchError::Count("an answer without records".to_owned())),
            Err(BenchError::Refused { .. }) if patient => read.refused += 1,
            done => return done,
        }
    }
}
