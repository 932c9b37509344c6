//! The clients' settings, and what librdkafka tells about them.
//!
//! Settings beside the defaults are those that a user with a proxy in the path would choose: an
//! ended connection is tried again after 50 ms, later after at most 500 ms (defaults: 100 ms and
//! 10 s), and records wait 20 ms for company (5 ms). Nothing else about time is tuned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firebreak_benches::clock::now;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use serde_json::Value;

use crate::error::{Result, SoakError};
use crate::ledger::Ledger;
use crate::load::{Load, add};
use crate::record::{self, Fingerprint, Identity, PARTITIONS};

/// A producer of either kind; a thread of its own takes delivery reports.
pub type SoakProducer = ThreadedProducer<Told>;

/// Settings of every client.
pub fn client(bootstrap: &str, name: &str, load: &Load) -> ClientConfig {
    let mut config = ClientConfig::new();
    if let Some(debug) = &load.client_debug {
        config.set("debug", debug);
    }
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", name)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .set("statistics.interval.ms", "500");
    config
}

/// Settings of every producer. Codecs take turns.
pub fn producer(load: &Load, name: &str, number: u32) -> ClientConfig {
    let codec = CODECS[number as usize % CODECS.len()];
    let mut config = client(&load.proxy, name, load);
    config.set("enable.idempotence", "true").set("acks", "all").set("compression.codec", codec);
    config
}

/// Makes all topics.
pub fn create_topics(load: &Load, replicas: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(&load.proxy, "soak-admin", load)
        .create()
        .map_err(SoakError::kafka("admin client"))?;
    let topic =
        |name: &'static str| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(replicas));
    let topics: Vec<_> = load.topics().iter().copied().map(topic).collect();
    let options = AdminOptions::new().operation_timeout(Some(TOPICS_MAX));
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(SoakError::io("runtime"))?;
    let answers = runtime
        .block_on(admin.create_topics(&topics, &options))
        .map_err(SoakError::kafka("create topics"))?;
    for answer in answers {
        let refused =
            |(_, code)| SoakError::Kafka { what: "create topic", error: KafkaError::AdminOp(code) };
        answer.map_err(refused)?;
    }
    Ok(())
}

/// Hands the next record of a producer, of that length, to librdkafka, waiting while its queue is
/// full.
pub fn send(
    producer: &SoakProducer,
    topic: &str,
    transaction: u64,
    length: usize,
) -> std::result::Result<(), KafkaError> {
    let ledger = &producer.context().ledger;
    let counter = ledger.open_record();
    let identity = Identity { producer: ledger.producer, counter, transaction };
    let value = record::write(&identity, length);
    ledger.note(counter, Fingerprint::of(&value));
    let key = record::key(ledger.producer);
    let mut next: BaseRecord<'_, str, [u8], usize> = BaseRecord::with_opaque_to(topic, counter)
        .partition(record::partition(counter))
        .key(key.as_str())
        .payload(value.as_slice());
    loop {
        match producer.send(next) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                next = refused;
                std::thread::sleep(QUEUE_FULL_PAUSE);
            }
            Err((error, _)) => {
                ledger.fail();
                return Err(error);
            }
        }
    }
}

/// Waits for statistics that were made after everything that happened so far.
pub fn settle(told: &Told) {
    let wanted = told.reports.load(Ordering::Relaxed) + 2;
    let begin = now();
    while told.reports.load(Ordering::Relaxed) < wanted && begin.elapsed() < SETTLE_MAX {
        std::thread::sleep(QUEUE_FULL_PAUSE);
    }
}

/// Takes what librdkafka tells about one client.
pub struct Told {
    /// The client's name in the journal.
    pub name: String,
    /// The account of a producer; an unused one for a reader.
    pub ledger: Arc<Ledger>,
    load: Arc<Load>,
    counted: [AtomicU64; 3],
    reports: AtomicU64,
}

impl Told {
    /// For one client.
    pub fn new(name: &str, ledger: Arc<Ledger>, load: Arc<Load>) -> Self {
        let (counted, reports) = Default::default();
        Self { name: name.to_owned(), ledger, load, counted, reports }
    }
}

impl ClientContext for Told {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        self.load.journal.say(&self.name, &format!("{facility} {message}"));
    }

    /// Lost connections are logged anyway.
    fn error(&self, error: KafkaError, reason: &str) {
        if !is_connection_loss(&error) {
            self.load.journal.say(&self.name, &format!("{error}: {reason}"));
        }
    }

    /// librdkafka counts since the client was made; what came since the last report is added.
    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(told) = serde_json::from_slice::<Value>(statistics) else { return };
        let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or(0);
        let brokers = |key: &str| {
            let brokers = told["brokers"].as_object();
            brokers.map_or(0, |brokers| brokers.values().map(|broker| number(broker, key)).sum())
        };
        let counts = [number(&told, "txmsgs"), brokers("txretries"), brokers("disconnects")];
        let mut more = counts;
        for (more, (last, count)) in more.iter_mut().zip(self.counted.iter().zip(counts)) {
            *more = count.saturating_sub(last.swap(count, Ordering::Relaxed));
        }
        self.ledger.send(more[0]);
        add(&self.load.totals.requests_retried, more[1]);
        add(&self.load.totals.connections_lost, more[2]);
        add(&self.reports, 1);
    }
}

impl ConsumerContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, counter: usize) {
        match result {
            Ok(message) => {
                // Without an offset: the broker said that it had the batch already.
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                self.ledger.acknowledge(counter, offset, self.load.journal.elapsed());
            }
            Err((error, _)) => {
                self.ledger.fail();
                if !is_purge(error) {
                    let what = format!("record {counter} not delivered: {error}");
                    self.load.journal.say(&self.name, &what);
                }
            }
        }
    }
}

/// Between a kill and the restart there is nobody to connect to.
pub fn is_connection_loss(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    let lost = RDKafkaErrorCode::BrokerTransportFailure;
    code.is_some_and(|code| code == lost || code == RDKafkaErrorCode::AllBrokersDown)
}

/// Records that were waiting when their transaction was aborted.
fn is_purge(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

const CODECS: [&str; 4] = ["none", "lz4", "zstd", "snappy"];
const TOPICS_MAX: Duration = Duration::from_secs(30);
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);
const SETTLE_MAX: Duration = Duration::from_secs(5);
