//! The writers: producers with their default settings, all idempotent, and a Java one that gives
//! up requests early and so sends more of them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use serde_json::{Value, json};

use super::{REGIONS, Run};
use crate::franz_go::FranzGo;
use crate::rig::{Rig, tell};

/// Keys of each writer, which take turns.
const KEYS: u64 = 8;
const BURST: u64 = 10;
const BURST_PAUSE: Duration = Duration::from_millis(40);
const JAVA: [&str; 2] = ["java", "java-impatient"];
const LIBRDKAFKA: &str = "librdkafka";
const FRANZ_GO: &str = "franz-go";

/// What a writer was told of its records.
#[derive(Default)]
pub struct Told {
    pub sent: u64,
    pub failed: BTreeSet<u64>,
    pub errors: BTreeMap<String, u64>,
    /// Records that it sent again, or requests that failed.
    pub retries: u64,
}

impl Told {
    pub fn acked(&self) -> u64 {
        self.sent - u64::try_from(self.failed.len()).unwrap()
    }

    fn read(told: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap();
        let errors = told["errors"].as_object().unwrap().iter();
        Self {
            sent: number(&told["sent"]),
            failed: told["failed"].as_array().unwrap().iter().map(number).collect(),
            errors: errors.map(|(text, count)| (text.clone(), number(count))).collect(),
            retries: number(&told["retries"]),
        }
    }
}

/// All writers at work.
pub struct Writers<'scope> {
    franz_go: FranzGo,
    librdkafka: ScopedJoinHandle<'scope, Told>,
}

/// Starts them.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    rig: &mut Rig,
    run: &'scope Run<'_>,
) -> Writers<'scope> {
    for name in JAVA {
        let config = match name {
            "java" => json!({}),
            _ => json!({"request.timeout.ms": "2000", "linger.ms": "20"}),
        };
        let command = json!({
            "bootstrap": run.bootstrap, "topic": run.topic, "name": name, "keys": KEYS,
            "regions": REGIONS, "config": config,
        });
        rig.java.must("keyed-start", command);
    }
    let franz_go = FranzGo::keyed(&run.bootstrap, run.topic, FRANZ_GO, KEYS, &REGIONS);
    Writers { franz_go, librdkafka: scope.spawn(|| librdkafka(run)) }
}

impl Writers<'_> {
    /// Ends them: what is in flight is waited for.
    pub fn stop(self, rig: &mut Rig, run: &Run<'_>) -> BTreeMap<String, Told> {
        run.over.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        let mut ended = |name: &str, told: Told| {
            tell(&format!("{name} ended: {} sent, {} failed", told.sent, told.failed.len()));
            all.insert(name.to_owned(), told);
        };
        for name in JAVA {
            let told = rig.java.must("keyed-stop", json!({"name": name}));
            ended(name, Told::read(&told));
        }
        ended(FRANZ_GO, Told::read(&self.franz_go.stop()));
        ended(LIBRDKAFKA, self.librdkafka.join().unwrap());
        all
    }
}

/// What librdkafka tells of deliveries.
#[derive(Default)]
struct Reports {
    told: Mutex<Told>,
    /// Messages put on the wire, each time anew.
    on_wire: Mutex<u64>,
}

impl ClientContext for Reports {
    fn stats(&self, told: rdkafka::Statistics) {
        *self.on_wire.lock().unwrap() = u64::try_from(told.txmsgs).unwrap_or(0);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
            let number = text.split_once(' ').unwrap().1.parse().unwrap();
            let mut told = self.told.lock().unwrap();
            told.failed.insert(number);
            *told.errors.entry(error.to_string()).or_default() += 1;
        }
    }
}

/// Writes until it is over.
pub fn librdkafka(run: &Run<'_>) -> Told {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &run.bootstrap).set("enable.idempotence", "true");
    config.set("statistics.interval.ms", "500");
    let producer: ThreadedProducer<Reports> =
        config.create_with_context(Reports::default()).unwrap();
    let mut number = 0;
    while !run.is_over() {
        let region = REGIONS[usize::try_from(number / KEYS).unwrap() % REGIONS.len()];
        let header = Header { key: "region", value: Some(region) };
        let key = format!("{LIBRDKAFKA}-key-{}", number % KEYS);
        let value = format!("{LIBRDKAFKA} {number}");
        let record = BaseRecord::to(run.topic).key(&key).payload(&value);
        let record = record.headers(OwnedHeaders::new().insert(header));
        producer.send(record).map_err(|(error, _)| error).unwrap();
        number += 1;
        if number % BURST == 0 {
            std::thread::sleep(BURST_PAUSE);
        }
    }
    producer.flush(Duration::from_secs(200)).unwrap();
    // The last statistics come after the last delivery.
    std::thread::sleep(Duration::from_secs(1));
    let reports = producer.context();
    let mut told = std::mem::take(&mut *reports.told.lock().unwrap());
    told.sent = number;
    told.retries = reports.on_wire.lock().unwrap().saturating_sub(number);
    told
}
