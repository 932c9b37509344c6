//! Clients at work while leaders move, brokers stop and the proxy dies.
//!
//! One load per case: producers that remember what was acknowledged. At the end the brokers are
//! read directly: everything acknowledged is there once, in order, and nothing that was aborted is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::{command, expect};
use crate::rig::{Place, Rig, tell};

pub fn leader_moves_under_load(rig: &mut Rig) {
    rig.compare("leader moved", 3, |rig, place| {
        start_load(rig, place, false);
        for leader in [2, 3, 1, 3] {
            wait_for_acks(rig, place, 300);
            let replicas: Vec<i32> = (0..3).map(|step| (leader - 1 + step) % 3 + 1).collect();
            let bootstrap = rig.cluster.bootstrap();
            let mut moved = json!({"bootstrap": bootstrap, "topic": place.topic, "partition": 0});
            moved["replicas"] = json!(replicas);
            rig.java.must("move-leader", moved);
        }
        wait_for_acks(rig, place, 300);
        stop_load(rig, place)
    });
}

/// One stop with hand-over and one kill -9; with one broker the whole cluster is away for a while.
pub fn broker_restarts_under_load(rig: &mut Rig) {
    rig.compare("brokers restarted", 3, |rig, place| {
        start_load(rig, place, false);
        wait_for_acks(rig, place, 300);
        let last = *rig.cluster.brokers().last().unwrap();
        rig.cluster.stop(last);
        if last > 1 {
            wait_for_acks(rig, place, 300);
        }
        rig.cluster.restart(last);
        rig.cluster.wait_until_whole();
        wait_for_acks(rig, place, 300);
        let victim = if last > 1 { 2 } else { 1 };
        rig.cluster.kill(victim);
        std::thread::sleep(Duration::from_secs(1));
        rig.cluster.restart(victim);
        rig.cluster.wait_until_whole();
        wait_for_acks(rig, place, 300);
        stop_load(rig, place)
    });
}

pub fn proxy_killed_under_idempotent_load(rig: &mut Rig) {
    kill_proxy_under_load(rig, false);
}

pub fn proxy_killed_under_transactions(rig: &mut Rig) {
    kill_proxy_under_load(rig, true);
}

fn kill_proxy_under_load(rig: &mut Rig, transactional: bool) {
    let place = rig.place(true, &format!("killed-{transactional}"));
    rig.create_topic(&place.topic, 3);
    start_load(rig, &place, transactional);
    for _ in 0..KILLS {
        wait_for_acks(rig, &place, 200);
        rig.proxy.kill();
        rig.proxy.restart();
    }
    wait_for_acks(rig, &place, 200);
    stop_load(rig, &place);
    rig.executed();
}

/// SIGTERM: what is in flight is answered, the exit code is 0.
pub fn proxy_drained_under_load(rig: &mut Rig) {
    let place = rig.place(true, "drained");
    rig.create_topic(&place.topic, 3);
    start_load(rig, &place, false);
    for _ in 0..2 {
        wait_for_acks(rig, &place, 200);
        let ended = rig.proxy.terminate();
        assert_eq!(ended.code(), Some(0), "{}", rig.proxy.log_tail());
        rig.proxy.restart();
    }
    wait_for_acks(rig, &place, 200);
    stop_load(rig, &place);
    rig.executed();
}

pub(super) fn start_load(rig: &mut Rig, place: &Place, transactional: bool) {
    let load = json!({"partitions": 3, "producers": 2, "transactional": transactional});
    rig.java.must("load-start", command(place, &load));
}

/// Waits until the load got `more` records acknowledged than it has now.
pub(super) fn wait_for_acks(rig: &mut Rig, place: &Place, more: u64) {
    let mut acked = || rig.java.must("load-acked", json!({"topic": place.topic})).as_u64().unwrap();
    let enough = acked() + more;
    let until = Instant::now() + Duration::from_secs(90);
    while acked() < enough {
        assert!(
            Instant::now() < until,
            "the load stands still at {} of {enough} acknowledgements",
            acked()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the load; the part of the verdict that must be equal everywhere.
fn stop_load(rig: &mut Rig, place: &Place) -> Value {
    let verdict = verdict(rig, place);
    json!({"errors": verdict["errors"]})
}

/// Ends the load: nothing is lost, doubled or reordered; everything that it counted.
pub(super) fn verdict(rig: &mut Rig, place: &Place) -> Value {
    let bootstrap = rig.cluster.bootstrap();
    verdict_of(rig, place, json!({"bootstrap": bootstrap, "topic": place.topic}))
}

/// The same, read as `command` says.
pub(super) fn verdict_of(rig: &mut Rig, place: &Place, command: Value) -> Value {
    let verdict = rig.java.must("load-stop", command);
    tell(&format!("{}: {verdict}", place.topic));
    for promise in ["lost", "doubled", "reordered", "aborted but read"] {
        expect(&verdict, &format!("/{promise}"), 0);
    }
    assert!(verdict["acked"].as_u64() > Some(0));
    verdict
}

/// A broker that joins later is listed, served on its own port, and can lead.
pub fn broker_added(rig: &mut Rig) {
    let id = rig.cluster.add();
    rig.cluster.wait_until_whole();
    rig.compare("broker added", 0, |rig, place| {
        rig.create_topic_on(&place.topic, &[vec![id], vec![1]]);
        let sent = rig.java.must("produce", command(place, &json!({"partitions": 2, "count": 40})));
        let read = rig.java.must("consume", command(place, &json!({"at_least": 40})));
        expect(&read, "/records", 40);
        let leaders = rig.java.must("leaders", command(place, &json!({})));
        assert_eq!(leaders[0], id);
        json!([sent, read, leaders])
    });
    rig.remove_broker(id);
}

/// librdkafka's idempotent producer over deaths of the proxy.
pub fn proxy_killed_under_librdkafka(rig: &mut Rig) {
    let place = rig.place(true, "killed-librdkafka");
    rig.create_topic(&place.topic, 3);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &place.bootstrap).set("enable.idempotence", "true");
    let producer: ThreadedProducer<Acks> = config.create_with_context(Acks::default()).unwrap();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let load = scope.spawn(|| send_until(&stop, &producer, &place.topic));
        for _ in 0..KILLS {
            producer.context().wait_for(200);
            rig.proxy.kill();
            rig.proxy.restart();
        }
        producer.context().wait_for(200);
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    producer.flush(Duration::from_secs(90)).unwrap();
    let acks = producer.context().0.lock().unwrap();
    assert_eq!((acks.acked.len(), acks.failed), (sent, 0), "acknowledged, failed");
    let times = count(&rig.cluster.bootstrap(), &place.topic, sent);
    let lost = acks.acked.iter().filter(|key| !times.contains_key(*key)).count();
    let doubled = times.values().filter(|count| **count > 1).count();
    tell(&format!(
        "librdkafka: {sent} acknowledged over {KILLS} kills, {lost} lost, {doubled} doubled"
    ));
    assert_eq!((lost, doubled), (0, 0));
    rig.executed();
}

pub(super) fn send_until(
    stop: &AtomicBool,
    producer: &ThreadedProducer<Acks>,
    topic: &str,
) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("key-{sent}");
        let record = BaseRecord::to(topic).key(&key).payload("some value");
        let partition = i32::try_from(sent % 3).unwrap();
        producer.send(record.partition(partition)).map_err(|(error, _)| error).unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_micros(500));
    }
    sent
}

/// How often each key is in the topic, read directly until `expected` records and the ends are
/// reached.
pub(super) fn count(bootstrap: &str, topic: &str, expected: usize) -> HashMap<String, usize> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "counts")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..3 {
        partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut times = HashMap::new();
    let (mut read, mut ends) = (0, 0);
    let until = Instant::now() + Duration::from_secs(60);
    while ends < 3 && Instant::now() < until {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let key = String::from_utf8_lossy(message.key().unwrap()).into_owned();
                *times.entry(key).or_insert(0) += 1;
                read += 1;
            }
            Some(Err(_)) => ends += 1,
            None => {}
        }
    }
    assert!(read >= expected, "{read} of {expected} records read");
    times
}

/// Keys of acknowledged records, and how many were not.
#[derive(Default)]
pub(super) struct Acks(pub std::sync::Mutex<Acked>);

#[derive(Default)]
pub(super) struct Acked {
    pub acked: std::collections::HashSet<String>,
    pub failed: usize,
    /// Messages put on the wire, each time anew; only with `statistics.interval.ms`.
    pub sent: u64,
}

impl Acks {
    fn wait_for(&self, more: usize) {
        let enough = self.0.lock().unwrap().acked.len() + more;
        let until = Instant::now() + Duration::from_secs(90);
        while self.0.lock().unwrap().acked.len() < enough {
            assert!(Instant::now() < until, "the load stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl ClientContext for Acks {
    fn stats(&self, told: rdkafka::Statistics) {
        self.0.lock().unwrap().sent = u64::try_from(told.txmsgs).unwrap_or(0);
    }
}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut acks = self.0.lock().unwrap();
        match result {
            Ok(message) => {
                let key = String::from_utf8_lossy(message.key().unwrap()).into_owned();
                acks.acked.insert(key);
            }
            Err(_) => acks.failed += 1,
        }
    }
}

const KILLS: usize = 4;
