//! Open loop: requests leave by a schedule, whether or not earlier ones were answered.
//!
//! Request `j` of the whole run is due at `start + j * interval` on connection `j % connections`. A
//! connection's answers come in order, so its `k`-th answer belongs to its `k`-th request and the
//! due time follows by arithmetic: sender and receiver share nothing. A record's latency counts
//! from its own due time: a batch's records are due evenly over the interval before the request.

use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Value, json};

use super::{gather, some};
use crate::batch;
use crate::clock::{now, sleep_until};
use crate::connection::{Connection, Receiver, Sender, resolve};
use crate::error::{BenchError, Result};
use crate::histogram::Histogram;
use crate::wire;

/// The schedule.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// Connections, spread over the topic's partitions.
    #[arg(long, default_value_t = 8)]
    pub connections: u32,
    /// Threads that send.
    #[arg(long, default_value_t = 8)]
    pub senders: u32,
    /// Partitions to spread over.
    #[arg(long, default_value_t = 1)]
    pub partitions: u32,
    /// Records per second over all connections.
    #[arg(long, default_value_t = 150_000)]
    pub rate: u32,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 300)]
    pub size: u32,
    /// Records per request.
    #[arg(long, default_value_t = 150)]
    pub batch_records: u32,
    /// Values are JSON with a place, all over California.
    #[arg(long)]
    pub located: bool,
    /// How long requests become due.
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
}

impl Plan {
    fn requests(self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds) / u64::from(self.batch_records.max(1))
    }

    /// Requests of one connection.
    fn share(self, connection: u32) -> u64 {
        let (all, count) = (self.requests(), u64::from(self.connections));
        all / count + u64::from(u64::from(connection) < all % count)
    }

    /// When request `number` of `connection` is due after the start, and with it its last record.
    fn due(self, connection: u32, number: u64) -> Duration {
        let request = number * u64::from(self.connections) + u64::from(connection);
        let records = (request + 1) * u64::from(self.batch_records);
        Duration::from_nanos(records * NANOS / u64::from(self.rate.max(1)))
    }

    fn record_interval(self) -> Duration {
        Duration::from_nanos(NANOS / u64::from(self.rate.max(1)))
    }
}

/// The sending half of one connection.
struct Lane {
    number: u32,
    sender: Sender,
    frame: BytesMut,
}

/// Every connection: its lanes by sending thread, and the receiving halves by number.
struct Opened {
    lanes: Vec<Vec<Lane>>,
    receivers: Vec<Receiver>,
}

#[derive(Default)]
struct Sent {
    bytes: u64,
    late: Histogram,
}

#[derive(Default)]
struct Received {
    latencies: Histogram,
    requests: u64,
    bytes: u64,
    last: Duration,
}

/// Runs the schedule and answers what was sent, when, and how long records took.
///
/// # Errors
/// When the socket fails, a request is refused or one has no answer.
pub fn run(bootstrap: &str, topic: &str, plan: Plan) -> Result<Value> {
    let Opened { lanes, receivers } = connect(bootstrap, topic, plan)?;
    let start = now() + LEAD_IN;
    let (sent, received) = thread::scope(|scope| {
        let receiving = (0..)
            .zip(receivers)
            .map(|(number, receiver)| scope.spawn(move || receive(receiver, number, plan, start)))
            .collect();
        let sending =
            lanes.into_iter().map(|lanes| scope.spawn(move || send(lanes, plan, start))).collect();
        Ok::<_, BenchError>((gather(sending)?, gather(receiving)?))
    })?;
    report(plan, &sent, &received)
}

/// Opens every connection. Lanes are dealt to the sending threads in turn.
fn connect(bootstrap: &str, topic: &str, plan: Plan) -> Result<Opened> {
    let build = if plan.located { batch::located } else { batch::build };
    let batch = build(plan.batch_records, plan.size);
    let mut targets = Vec::new();
    for partition in 0..plan.partitions.max(1) {
        let partition = i32::try_from(partition).map_err(|_| BenchError::Wire("partition"))?;
        targets.push(resolve(bootstrap, topic, partition)?);
    }
    let mut lanes: Vec<Vec<Lane>> = Vec::new();
    lanes.resize_with(plan.senders.clamp(1, plan.connections) as usize, Vec::new);
    let mut receivers = Vec::new();
    for number in 0..plan.connections {
        let target = &targets[number as usize % targets.len()];
        let connection = Connection::open(&target.leader, BUFFER_BYTES)?;
        let frame = wire::produce(target, batch.clone())?;
        let lane = Lane { number, sender: connection.sender, frame };
        let place = number as usize % lanes.len();
        lanes[place].push(lane);
        receivers.push(connection.receiver);
    }
    Ok(Opened { lanes, receivers })
}

/// Sends the requests of some connections, each when it is due.
fn send(mut lanes: Vec<Lane>, plan: Plan, start: Instant) -> Result<Sent> {
    let mut sent = Sent::default();
    let longest = lanes.iter().map(|lane| plan.share(lane.number)).max().unwrap_or(0);
    for number in 0..longest {
        for lane in &mut lanes {
            if number >= plan.share(lane.number) {
                continue;
            }
            let due = start + plan.due(lane.number, number);
            sleep_until(due);
            sent.late.record(now().saturating_duration_since(due));
            lane.sender.send(&mut lane.frame)?;
            sent.bytes += lane.frame.len() as u64;
        }
    }
    Ok(sent)
}

/// Reads the answers of one connection and counts the latency of every record.
fn receive(mut receiver: Receiver, lane: u32, plan: Plan, start: Instant) -> Result<Received> {
    let mut received = Received::default();
    for number in 0..plan.share(lane) {
        wire::read_produce(receiver.read()?)?;
        let answered = now();
        let mut latency = answered.saturating_duration_since(start + plan.due(lane, number));
        for _ in 0..plan.batch_records {
            received.latencies.record(latency);
            latency += plan.record_interval();
        }
        received.requests += 1;
        received.last = answered.saturating_duration_since(start);
    }
    received.bytes = receiver.received_bytes;
    Ok(received)
}

fn report(plan: Plan, sent: &[Sent], received: &[Received]) -> Result<Value> {
    let (mut late, mut latencies) = (Histogram::default(), Histogram::default());
    sent.iter().for_each(|one| late.merge(&one.late));
    received.iter().for_each(|one| latencies.merge(&one.latencies));
    let requests = received.iter().map(|one| one.requests).sum::<u64>();
    some("answers", requests)?;
    if requests != plan.requests() || late.count() != requests {
        let (due, left) = (plan.requests(), late.count());
        return Err(BenchError::Count(format!("{due} due, {left} sent, {requests} answered")));
    }
    let last = received.iter().map(|one| one.last).max().unwrap_or_default();
    let records = requests * u64::from(plan.batch_records);
    let record_bytes = records * u64::from(plan.size);
    Ok(json!({
        "requests": requests,
        "records": records,
        "record_bytes": record_bytes,
        "seconds": last.as_secs_f64(),
        "late_p50_us": late.quantile_us(500),
        "late_p99_us": late.quantile_us(990),
        "p50_us": latencies.quantile_us(500),
        "p99_us": latencies.quantile_us(990),
        "max_us": latencies.max_us(),
        "bytes_sent": sent.iter().map(|one| one.bytes).sum::<u64>(),
        "bytes_received": received.iter().map(|one| one.bytes).sum::<u64>(),
    }))
}

const NANOS: u64 = 1_000_000_000;
/// Time for every thread to be ready before the first request is due.
const LEAD_IN: Duration = Duration::from_millis(200);
/// Produce answers are small, and there may be thousands of connections.
const BUFFER_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        connections: 3,
        senders: 1,
        partitions: 1,
        rate: 1000,
        size: 1,
        batch_records: 10,
        located: false,
        seconds: 1,
    };

    #[test]
    fn the_shares_of_the_connections_are_the_whole_schedule() {
        assert_eq!((0..3).map(|lane| PLAN.share(lane)).sum::<u64>(), PLAN.requests());
        assert_eq!(PLAN.share(0), 34);
        assert_eq!(PLAN.share(1), 33);
    }

    #[test]
    fn requests_are_due_evenly_over_all_connections() {
        assert_eq!(PLAN.due(0, 0), Duration::from_millis(10));
        assert_eq!(PLAN.due(1, 0), Duration::from_millis(20));
        assert_eq!(PLAN.due(0, 1), Duration::from_millis(40));
    }
}
