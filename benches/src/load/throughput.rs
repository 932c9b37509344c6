//! As much as the path carries: prebuilt Produce requests, or Fetch answers that are thrown away.

use std::thread;

use serde_json::{Value, json};

use super::{gather, some};
use crate::batch;
use crate::clock::now;
use crate::connection::{BUFFER_BYTES, Connection, resolve};
use crate::error::{BenchError, Result};
use crate::wire;

/// What one run of Produce requests sends.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Produce {
    /// Connections; each writes to the partition of its number.
    #[arg(long, default_value_t = 2)]
    pub connections: u32,
    /// Requests in flight per connection.
    #[arg(long, default_value_t = 5)]
    pub in_flight: u64,
    /// Records per batch, one batch per request.
    #[arg(long, default_value_t = 100)]
    pub batch_records: u32,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1000)]
    pub size: u32,
    /// Requests per connection.
    #[arg(long, default_value_t = 2000)]
    pub requests: u64,
}

/// What one run of Fetch requests asks for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Fetch {
    /// Connections; all read partition 0.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Bytes asked for by each request.
    #[arg(long, default_value_t = 1_000_000)]
    pub bytes_max: i32,
    /// Record bytes to read on each connection.
    #[arg(long, default_value_t = 1_000_000_000)]
    pub total_bytes: u64,
}

#[derive(Default)]
struct Carried {
    requests: u64,
    record_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

/// Sends Produce requests and answers records, bytes and seconds.
///
/// # Errors
/// When the socket fails or a request is refused.
pub fn produce(bootstrap: &str, topic: &str, plan: Produce) -> Result<Value> {
    let batch = batch::build(plan.batch_records, plan.size);
    let begin = now();
    let carried = in_parallel(plan.connections, |number| {
        let partition = i32::try_from(number).map_err(|_| BenchError::Wire("partition"))?;
        let target = resolve(bootstrap, topic, partition)?;
        let mut connection = Connection::open(&target.leader, BUFFER_BYTES)?;
        let mut frame = wire::produce(&target, batch.clone())?;
        let mut answered = 0;
        for sent in 0..plan.requests {
            if sent - answered >= plan.in_flight {
                wire::read_produce(connection.receiver.read()?)?;
                answered += 1;
            }
            connection.sender.send(&mut frame)?;
        }
        for _ in answered..plan.requests {
            wire::read_produce(connection.receiver.read()?)?;
        }
        Ok(Carried {
            requests: plan.requests,
            record_bytes: plan.requests * batch.len() as u64,
            sent_bytes: connection.sender.sent_bytes,
            received_bytes: connection.receiver.received_bytes,
        })
    })?;
    report(&carried, begin.elapsed().as_secs_f64(), u64::from(plan.batch_records))
}

/// Fetches from the first offset again and again, one request in flight per connection.
///
/// # Errors
/// When the socket fails, or an answer is not at least nine tenths of what was asked.
pub fn fetch(bootstrap: &str, topic: &str, plan: Fetch) -> Result<Value> {
    let asked = u64::try_from(plan.bytes_max).unwrap_or(0);
    let begin = now();
    let carried = in_parallel(plan.connections, |_| {
        let target = resolve(bootstrap, topic, 0)?;
        let mut connection = Connection::open(&target.leader, BUFFER_BYTES)?;
        let mut frame = wire::fetch(&target, plan.bytes_max)?;
        let mut carried = Carried::default();
        while carried.record_bytes < plan.total_bytes {
            connection.sender.send(&mut frame)?;
            let records = connection.receiver.discard_fetch()?;
            if records * 10 < asked * 9 {
                return Err(BenchError::Count(format!("{records} bytes fetched of {asked}")));
            }
            carried.record_bytes += records;
            carried.requests += 1;
        }
        carried.sent_bytes = connection.sender.sent_bytes;
        carried.received_bytes = connection.receiver.received_bytes;
        Ok(carried)
    })?;
    report(&carried, begin.elapsed().as_secs_f64(), 0)
}

fn in_parallel(
    connections: u32,
    work: impl Fn(u32) -> Result<Carried> + Sync,
) -> Result<Vec<Carried>> {
    let work = &work;
    thread::scope(|scope| {
        gather((0..connections).map(|number| scope.spawn(move || work(number))).collect())
    })
}

fn report(carried: &[Carried], seconds: f64, records_per_request: u64) -> Result<Value> {
    let sum = |field: fn(&Carried) -> u64| carried.iter().map(field).sum::<u64>();
    let requests = sum(|one| one.requests);
    some("requests", requests)?;
    Ok(json!({
        "requests": requests,
        "records": requests * records_per_request,
        "bytes": sum(|one| one.record_bytes),
        "seconds": seconds,
        "bytes_sent": sum(|one| one.sent_bytes),
        "bytes_received": sum(|one| one.received_bytes),
    }))
}
