//! Images by a schedule that is paced in bytes, and small records beside or between them.
//!
//! Value `j` is due when all before it had their time at the wanted rate, on connection
//! `j % connections`, which writes to the partition of its number. Small records are due evenly
//! over the same time, on connections of their own or on those of the images. Answers of a
//! connection come in order, so the receiver knows from the schedule what each belongs to.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{gather, some};
use crate::batch;
use crate::clock::{now, sleep_until};
use crate::connection::{BUFFER_BYTES, Connection, Receiver, Sender, resolve};
use crate::error::{BenchError, Result};
use crate::histogram::Histogram;
use crate::{images, wire};

/// The schedule.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The sample images.
    #[arg(long)]
    pub folder: PathBuf,
    /// Images to send over all connections.
    #[arg(long, default_value_t = 100)]
    pub values: usize,
    /// Connections of images.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Millions of bytes of images per second; 0: as the path carries them.
    #[arg(long, default_value_t = 50.0)]
    pub mb_per_s: f64,
    /// Small records per second.
    #[arg(long, default_value_t = 0)]
    pub small_per_s: u32,
    /// Connections of small records; 0: those of the images.
    #[arg(long, default_value_t = 0)]
    pub small_connections: usize,
    /// Bytes of a small record.
    #[arg(long, default_value_t = 1000)]
    pub small_bytes: u32,
}

/// One request of a connection: when it is due, and which of its frames.
#[derive(Clone, Copy)]
struct Due {
    at: Duration,
    frame: usize,
    small: bool,
}

/// What one connection sends, in order.
#[derive(Default)]
struct Lane {
    partition: usize,
    due: Vec<Due>,
    /// Values by frame; a small record is the last one.
    values: Vec<Bytes>,
}

/// The sending half of one connection.
struct Sending {
    sender: Sender,
    frames: Vec<BytesMut>,
    due: Vec<Due>,
}

#[derive(Default)]
struct Sent {
    bytes: u64,
    late: Histogram,
}

#[derive(Default)]
struct Received {
    large: Histogram,
    small: Histogram,
    bytes: u64,
    last: Duration,
}

/// Runs the schedule and answers what was sent, and how long it took from the time it was due.
///
/// # Errors
/// When the socket fails, a request is refused or one has no answer.
pub fn run(bootstrap: &str, topic: &str, plan: &Plan) -> Result<Value> {
    let values = images::values(&plan.folder)?;
    let chosen: Vec<_> = values.iter().cycle().take(plan.values).cloned().collect();
    let bytes = chosen.iter().map(|value| value.len() as u64).sum::<u64>();
    let mut open = Vec::new();
    for lane in lanes(plan, &chosen, values.len())? {
        open.push(connect(bootstrap, topic, lane)?);
    }
    let start = now() + LEAD_IN;
    let (sent, received) = thread::scope(|scope| {
        let (mut sending, mut receiving) = (Vec::new(), Vec::new());
        for (lane, receiver) in open {
            let due = lane.due.clone();
            receiving.push(scope.spawn(move || receive(receiver, &due, start)));
            sending.push(scope.spawn(move || send(lane, start)));
        }
        Ok::<_, BenchError>((gather(sending)?, gather(receiving)?))
    })?;
    report(plan, bytes, &sent, &received)
}

/// Deals images and small records to connections.
fn lanes(plan: &Plan, chosen: &[Bytes], different: usize) -> Result<Vec<Lane>> {
    let connections = plan.connections.max(1);
    if !different.is_multiple_of(connections) {
        return Err(BenchError::Count(format!("{different} images for {connections} connections")));
    }
    let lane = |partition| Lane { partition, ..Lane::default() };
    let mut lanes: Vec<Lane> = (0..connections).map(lane).collect();
    let mut at = Duration::ZERO;
    for (number, value) in chosen.iter().enumerate() {
        let lane = &mut lanes[number % connections];
        // Each connection has its own images: the frames are made once.
        let frame = number / connections % (different / connections);
        if frame == lane.values.len() {
            lane.values.push(value.clone());
        }
        lane.due.push(Due { at, frame, small: false });
        if plan.mb_per_s > 0.0 {
            at += Duration::from_secs_f64(megabytes(value.len()) / plan.mb_per_s);
        }
    }
    let own = plan.small_connections;
    lanes.extend((0..own).map(|number| lane(number % connections)));
    let small = if own > 0 { connections..connections + own } else { 0..connections };
    let interval = Duration::from_secs(1) / plan.small_per_s.max(1);
    let mut due = interval;
    for number in (0..).take_while(|_| plan.small_per_s > 0) {
        if due >= at {
            break;
        }
        let lane = &mut lanes[small.start + number % small.len()];
        lane.due.push(Due { at: due, frame: lane.values.len(), small: true });
        due += interval;
    }
    lanes.iter_mut().for_each(|lane| lane.due.sort_by_key(|due| due.at));
    let record = Bytes::from(vec![b'x'; plan.small_bytes as usize]);
    lanes.iter_mut().for_each(|lane| lane.values.push(record.clone()));
    Ok(lanes)
}

fn connect(bootstrap: &str, topic: &str, lane: Lane) -> Result<(Sending, Receiver)> {
    let partition = i32::try_from(lane.partition).map_err(|_| BenchError::Wire("partition"))?;
    let target = resolve(bootstrap, topic, partition)?;
    let Connection { sender, receiver } = Connection::open(&target.leader, BUFFER_BYTES)?;
    let frames = lane.values.iter().map(|value| wire::produce(&target, batch::one(value)));
    let frames = frames.collect::<Result<_>>()?;
    Ok((Sending { sender, frames, due: lane.due }, receiver))
}

fn send(mut lane: Sending, start: Instant) -> Result<Sent> {
    let mut sent = Sent::default();
    for due in &lane.due {
        sleep_until(start + due.at);
        sent.late.record(now().saturating_duration_since(start + due.at));
        let frame = &mut lane.frames[due.frame];
        lane.sender.send(frame)?;
        sent.bytes += frame.len() as u64;
    }
    Ok(sent)
}

fn receive(mut receiver: Receiver, due: &[Due], start: Instant) -> Result<Received> {
    let mut received = Received::default();
    for due in due {
        wire::read_produce(receiver.read()?)?;
        let answered = now();
        let latencies = if due.small { &mut received.small } else { &mut received.large };
        latencies.record(answered.saturating_duration_since(start + due.at));
        received.last = answered.saturating_duration_since(start);
    }
    received.bytes = receiver.received_bytes;
    Ok(received)
}

fn report(plan: &Plan, bytes: u64, sent: &[Sent], received: &[Received]) -> Result<Value> {
    let (mut large, mut small) = (Histogram::default(), Histogram::default());
    let mut late = Histogram::default();
    sent.iter().for_each(|one| late.merge(&one.late));
    for one in received {
        large.merge(&one.large);
        small.merge(&one.small);
    }
    some("images", large.count())?;
    if plan.small_per_s > 0 {
        some("small records", small.count())?;
    }
    let mut answer = json!({
        "requests": large.count() + small.count(),
        "values": large.count(),
        "bytes": bytes,
        "seconds": received.iter().map(|one| one.last).max().unwrap_or_default().as_secs_f64(),
        "late_p99_us": late.quantile_us(990),
        "large_p50_us": large.quantile_us(500),
        "large_p99_us": large.quantile_us(990),
        "bytes_sent": sent.iter().map(|one| one.bytes).sum::<u64>(),
        "bytes_received": received.iter().map(|one| one.bytes).sum::<u64>(),
    });
    if plan.small_per_s > 0 {
        answer["small"] = json!(small.count());
        answer["small_p50_us"] = json!(small.quantile_us(500));
        answer["small_p99_us"] = json!(small.quantile_us(990));
    }
    Ok(answer)
}

#[expect(clippy::cast_precision_loss, reason = "an image has fewer than 2^52 bytes")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// Time for every thread to be ready before the first request is due.
const LEAD_IN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(small_connections: usize) -> Plan {
        Plan {
            folder: PathBuf::new(),
            values: 5,
            connections: 2,
            mb_per_s: 1.0,
            small_per_s: 10,
            small_connections,
            small_bytes: 1,
        }
    }

    fn images() -> Vec<Bytes> {
        // The fifth image is the first again.
        [1_000_000, 500_000, 250_000, 250_000, 1_000_000].map(|n| vec![0; n].into()).to_vec()
    }

    #[test]
    fn images_are_due_by_the_bytes_before_them() {
        let lanes = lanes(&plan(3), &images(), 4).unwrap();
        let at = |lane: &Lane| lane.due.iter().map(|due| due.at.as_millis()).collect::<Vec<_>>();
        assert_eq!(at(&lanes[0]), [0, 1500, 2000]);
        assert_eq!(at(&lanes[1]), [1000, 1750]);
        let frames: Vec<_> = lanes[0].due.iter().map(|due| due.frame).collect();
        assert_eq!(frames, [0, 1, 0], "frames are used again");
        let small = lanes[2..].iter().map(|lane| lane.due.len()).sum::<usize>();
        assert_eq!(small, 29, "small records are due for as long as images are");
    }

    #[test]
    fn small_records_without_connections_go_between_the_images_in_order() {
        let lanes = lanes(&plan(0), &images(), 4).unwrap();
        assert_eq!(lanes.len(), 2);
        assert_eq!(lanes.iter().map(|lane| lane.due.len()).sum::<usize>(), 5 + 29);
        assert!(lanes.iter().all(|lane| lane.due.is_sorted_by_key(|due| due.at)));
        let last = lanes[0].values.len() - 1;
        assert!(lanes[0].due.iter().all(|due| due.small == (due.frame == last)));
    }
}
