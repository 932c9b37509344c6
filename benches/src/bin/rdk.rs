//! The librdkafka driver: produces or consumes a number of records as fast as the path carries them
//! and answers one line of JSON. Traffic is what librdkafka itself counted, records are what was
//! acknowledged or read.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use firebreak_benches::clock::now;
use firebreak_benches::error::{BenchError, Result};
use firebreak_benches::load;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "librdkafka load")]
struct Args {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// Records to write or to read.
    #[arg(long)]
    records: u64,
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Subcommand)]
enum Direction {
    /// Writes records of pseudo-random bytes.
    Produce {
        #[arg(long, default_value_t = 1000)]
        size: usize,
        #[arg(long, default_value = "1")]
        acks: String,
        #[arg(long, default_value = "none")]
        codec: String,
    },
    /// Reads from the beginning of all partitions.
    Consume {
        #[arg(long, default_value_t = 1)]
        partitions: i32,
    },
}

/// Counts what librdkafka reports.
#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    reports: AtomicU64,
}

impl ClientContext for Counts {
    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(told) = serde_json::from_slice::<Value>(statistics) else {
            return;
        };
        let read = |key: &str| told.get(key).and_then(Value::as_u64).unwrap_or(0);
        self.sent_bytes.store(read("tx_bytes"), Ordering::Relaxed);
        self.received_bytes.store(read("rx_bytes"), Ordering::Relaxed);
        self.reports.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConsumerContext for Counts {}

impl ProducerContext for Counts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.acknowledged } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.direction {
        Direction::Produce { size, acks, codec } => produce(&args, *size, acks, codec),
        Direction::Consume { partitions } => consume(&args, *partitions),
    };
    match outcome.and_then(|counts| load::answer(&counts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rdk: {error}");
            ExitCode::FAILURE
        }
    }
}

fn produce(args: &Args, size: usize, acks: &str, codec: &str) -> Result<Value> {
    let producer: BaseProducer<Counts> = client(&args.bootstrap)
        .set("acks", acks)
        .set("compression.codec", codec)
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(Counts::default())
        .map_err(|error| codec_error(&error))?;
    let values = values(size);
    let counts = producer.context();
    let begin = now();
    for number in 0..args.records {
        let pick = usize::try_from(number).unwrap_or(0) % values.len();
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&args.topic).payload(&values[pick]);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(codec_error(&error));
            }
            record = refused;
            producer.poll(POLL);
        }
        if number % POLL_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(DELIVERY_MAX).map_err(|error| codec_error(&error))?;
    let seconds = begin.elapsed().as_secs_f64();
    settle(counts, || producer.poll(POLL));
    let acknowledged = counts.acknowledged.load(Ordering::Relaxed);
    if acknowledged != args.records {
        let failed = counts.failed.load(Ordering::Relaxed);
        let told = format!("{acknowledged} of {} acknowledged, {failed} failed", args.records);
        return Err(BenchError::Count(told));
    }
    Ok(report(counts, acknowledged, acknowledged * size as u64, seconds))
}

fn consume(args: &Args, partitions: i32) -> Result<Value> {
    let consumer: BaseConsumer<Counts> = client(&args.bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("queued.min.messages", "1000000")
        .create_with_context(Counts::default())
        .map_err(|error| codec_error(&error))?;
    let mut wanted = TopicPartitionList::new();
    for partition in 0..partitions {
        wanted
            .add_partition_offset(&args.topic, partition, Offset::Beginning)
            .map_err(|error| codec_error(&error))?;
    }
    let begin = now();
    consumer.assign(&wanted).map_err(|error| codec_error(&error))?;
    let (mut records, mut bytes) = (0, 0);
    while records < args.records {
        if begin.elapsed() > DELIVERY_MAX {
            return Err(BenchError::Count(format!("{records} of {} read", args.records)));
        }
        if let Some(message) = consumer.poll(POLL) {
            let message = message.map_err(|error| codec_error(&error))?;
            records += 1;
            bytes += message.payload().map_or(0, <[u8]>::len) as u64;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    consumer.unassign().map_err(|error| codec_error(&error))?;
    settle(consumer.context(), || drop(consumer.poll(POLL)));
    Ok(report(consumer.context(), records, bytes, seconds))
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("statistics.interval.ms", "200");
    config
}

/// Waits for statistics that were made after the last record.
fn settle(counts: &Counts, poll: impl Fn()) {
    let wanted = counts.reports.load(Ordering::Relaxed) + 2;
    let begin = now();
    while counts.reports.load(Ordering::Relaxed) < wanted && begin.elapsed() < SETTLE_MAX {
        poll();
    }
}

fn report(counts: &Counts, records: u64, bytes: u64, seconds: f64) -> Value {
    json!({
        "records": records,
        "bytes": bytes,
        "seconds": seconds,
        "bytes_sent": counts.sent_bytes.load(Ordering::Relaxed),
        "bytes_received": counts.received_bytes.load(Ordering::Relaxed),
        "librdkafka": rdkafka::util::get_rdkafka_version().1,
    })
}

/// Different pseudo-random values, so that a codec has something to do.
fn values(size: usize) -> Vec<Vec<u8>> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut value = || {
        (0..size)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                LETTERS[usize::from(state.to_be_bytes()[0]) % LETTERS.len()]
            })
            .collect()
    };
    (0..VALUES).map(|_| value()).collect()
}

fn codec_error(error: &KafkaError) -> BenchError {
    BenchError::Codec(error.to_string())
}

const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuv";
const VALUES: usize = 64;
const POLL: Duration = Duration::from_millis(20);
const POLL_EVERY: u64 = 1000;
const DELIVERY_MAX: Duration = Duration::from_secs(120);
const SETTLE_MAX: Duration = Duration::from_secs(2);
