//! Brokers and proxies restarted one by one under load, as an upgrade does it.
//!
//! Three kinds of clients know two proxies by their bootstraps. In each round every broker is
//! stopped with hand-over and started again, then every proxy: SIGTERM, drained in time, a new
//! process on the same ports. Clients must see no error, and all they wrote is there once.
//!
//! `FIREBREAK_ROLLS` is the number of rounds; compose/rolling.sh is the long form.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{Producer, ThreadedProducer};
use serde_json::{Value, json};

use super::trouble::{Acks, count, send_until, start_load, verdict};
use crate::franz_go::FranzGo;
use crate::proxy::Proxy;
use crate::rig::{Place, Rig, tell};

/// Counts of the whole case, each of which must be more than nothing.
#[derive(Default)]
struct Done {
    brokers: usize,
    proxies: usize,
    slowest_drain: Duration,
}

pub fn brokers_and_proxies_one_by_one(rig: &mut Rig) {
    let rounds = std::env::var("FIREBREAK_ROLLS").map_or(1, |rounds| rounds.parse().unwrap());
    let hosts = ["127.0.0.21", "127.0.0.22"];
    let mut proxies = hosts.map(|host| Proxy::start_at(&rig.cluster.bootstrap(), host));
    let bootstrap = proxies.each_ref().map(Proxy::address).join(",");
    let [java, librdkafka, franz] =
        ["java", "librdkafka", "franz-go"].map(|client| format!("rolling-{client}"));
    for topic in [&java, &librdkafka, &franz] {
        rig.create_safe_topic(topic, PARTITIONS, 2);
    }
    let place = Place::proxied(proxies[0].port, &[], &java);
    let place = Place { bootstrap: bootstrap.clone(), ..place };
    start_load(rig, &place, false);
    let mut go = FranzGo::start(&bootstrap, &franz, PARTITIONS);
    let producer = producer(&bootstrap);
    let (stop, all_sent) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut done = Done::default();
    let (sent, read) = std::thread::scope(|scope| {
        let load = scope.spawn(|| send_until(&stop, &producer, &librdkafka));
        let reader = scope.spawn(|| follow(&bootstrap, &librdkafka, &producer, &all_sent));
        let mut progress = Progress { rig, place: &place, go: &mut go, producer: &producer };
        for _ in 0..rounds {
            roll(&mut progress, &mut proxies, &mut done);
        }
        stop.store(true, Ordering::Relaxed);
        let sent = load.join().unwrap();
        producer.flush(Duration::from_secs(90)).unwrap();
        all_sent.store(true, Ordering::Relaxed);
        (sent, reader.join().unwrap())
    });
    let by_java = verdict(rig, &place);
    let by_go = go.stop();
    let again = judge_librdkafka(rig, &librdkafka, &producer, (sent, &read));
    judge_franz_go(rig, &franz, &by_go);
    assert_eq!(by_java["errors"], json!({}), "errors that Java saw");
    let retries = by_java["retries"].as_u64().unwrap() + again;
    let retries = retries + by_go["requests_failed"].as_u64().unwrap();
    tell(&format!(
        "rolling: {} brokers and {} proxies restarted, slowest drain {:.2?}; acknowledged: Java \
         {}, librdkafka {sent}, franz-go {}; sent again or failed and retried: {retries}; read by \
         groups: librdkafka {}, franz-go {}; 0 lost, 0 doubled, 0 errors",
        done.brokers,
        done.proxies,
        done.slowest_drain,
        by_java["acked"],
        by_go["acked"],
        read.keys.len(),
        by_go["read"],
    ));
    assert!(done.brokers > 0 && done.proxies > 0 && retries > 0, "nothing happened");
    rig.executed();
}

/// Every broker, then every proxy.
fn roll(progress: &mut Progress<'_>, proxies: &mut [Proxy], done: &mut Done) {
    for broker in progress.rig.cluster.brokers() {
        progress.wait_for(200);
        progress.rig.cluster.stop(broker);
        progress.wait_for(200);
        progress.rig.cluster.restart(broker);
        progress.rig.cluster.wait_until_whole();
        done.brokers += 1;
    }
    for proxy in proxies {
        progress.wait_for(200);
        let begin = Instant::now();
        let ended = proxy.terminate();
        assert_eq!(ended.code(), Some(0), "{}", proxy.log_tail());
        assert_eq!(proxy.logged("drain_ms ran out"), 0, "{}", proxy.log_tail());
        done.slowest_drain = done.slowest_drain.max(begin.elapsed());
        // The other one serves everybody.
        progress.wait_for(200);
        proxy.restart();
        done.proxies += 1;
    }
    progress.wait_for(200);
}

/// The three loads.
struct Progress<'a> {
    rig: &'a mut Rig,
    place: &'a Place,
    go: &'a mut FranzGo,
    producer: &'a ThreadedProducer<Acks>,
}

impl Progress<'_> {
    /// Waits until each of them got `more` records acknowledged.
    fn wait_for(&mut self, more: u64) {
        let wanted = self.acked().map(|acked| acked + more);
        let until = Instant::now() + STANDSTILL_MAX;
        loop {
            let acked = self.acked();
            if acked.iter().zip(wanted).all(|(acked, wanted)| *acked >= wanted) {
                return;
            }
            assert!(Instant::now() < until, "a load stands still: {acked:?} of {wanted:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn acked(&mut self) -> [u64; 3] {
        let topic = json!({"topic": self.place.topic});
        let by_java = self.rig.java.must("load-acked", topic).as_u64().unwrap();
        let by_librdkafka = self.producer.context().0.lock().unwrap().acked.len();
        [by_java, u64::try_from(by_librdkafka).unwrap(), self.go.acked()]
    }
}

fn producer(bootstrap: &str) -> ThreadedProducer<Acks> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true");
    config.set("statistics.interval.ms", "500");
    config.create_with_context(Acks::default()).unwrap()
}

/// What a group's reader saw.
struct Read {
    keys: HashSet<String>,
    errors: Vec<KafkaError>,
}

/// Reads as a group until everything acknowledged was read.
fn follow(
    bootstrap: &str,
    topic: &str,
    producer: &ThreadedProducer<Acks>,
    all_sent: &AtomicBool,
) -> Read {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "readers-of-rolling");
    let consumer: BaseConsumer = config.set("auto.offset.reset", "earliest").create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut read = Read { keys: HashSet::new(), errors: Vec::new() };
    let mut last = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                read.keys.insert(String::from_utf8_lossy(message.key().unwrap()).into_owned());
                last = Instant::now();
            }
            // It is told of every connection that ends, and reconnects by itself.
            Some(Err(error)) if is_connection_loss(&error) => {}
            Some(Err(error)) => read.errors.push(error),
            None => {}
        }
        let acked = || producer.context().0.lock().unwrap().acked.len();
        if all_sent.load(Ordering::Relaxed)
            && (read.keys.len() >= acked() || last.elapsed() > STANDSTILL_MAX)
        {
            return read;
        }
    }
}

fn is_connection_loss(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    let lost = [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown];
    code.is_some_and(|code| lost.contains(&code))
}

/// Gives how many records were sent again.
fn judge_librdkafka(
    rig: &Rig,
    topic: &str,
    producer: &ThreadedProducer<Acks>,
    (sent, read): (usize, &Read),
) -> u64 {
    let acks = producer.context().0.lock().unwrap();
    assert_eq!((acks.acked.len(), acks.failed), (sent, 0), "acknowledged, failed");
    judge_log(rig, topic, sent);
    assert_eq!(read.errors, [], "errors of librdkafka's reader");
    assert_eq!(read.keys.len(), sent, "records that librdkafka's group read");
    acks.sent.saturating_sub(u64::try_from(sent).unwrap())
}

fn judge_franz_go(rig: &Rig, topic: &str, told: &Value) {
    tell(&format!("franz-go: {told}"));
    assert_eq!(told["acked"], told["sent"], "acknowledged by franz-go, and sent");
    assert_eq!((&told["errors"], &told["read_errors"]), (&json!({}), &json!({})), "errors");
    assert_eq!(told["read"], told["acked"], "records that franz-go's group read");
    judge_log(rig, topic, usize::try_from(told["acked"].as_u64().unwrap()).unwrap());
}

/// Each of `sent` records is in the brokers' log once.
fn judge_log(rig: &Rig, topic: &str, sent: usize) {
    let times = count(&rig.cluster.bootstrap(), topic, sent);
    let lost = (0..sent).filter(|n| !times.contains_key(&format!("key-{n}"))).count();
    let doubled = times.values().filter(|count| **count > 1).count();
    assert_eq!((lost, doubled, times.len()), (0, 0, sent), "lost, doubled, records of {topic}");
}

const PARTITIONS: usize = 3;
const STANDSTILL_MAX: Duration = Duration::from_secs(90);
