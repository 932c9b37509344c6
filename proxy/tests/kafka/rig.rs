//! What the tests of one Kafka version share, and how a case is judged.
//!
//! Tests take turns, in the order in which they asked: all cases of one version run on one rig, the
//! next version replaces it. A case runs directly and through the proxy on topics of its own; the
//! outcomes, with topic names and node addresses replaced by words, must be equal. After every test
//! nothing that the relay saw may have been a leak or out of order.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::driver::Driver;
use crate::proxy::{ADVERTISED, Proxy};
use crate::raw;
use crate::relay::Relay;
use crate::secured::{ALICE, FIREBREAK};

/// A Kafka version and the cluster it is tested with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub name: &'static str,
    pub brokers: usize,
    /// Whether it has listeners with TLS and SASL too.
    pub secured: bool,
}

/// A cluster, a proxy and a relay in front of it, and the Java clients.
pub struct Rig {
    pub cluster: Cluster,
    pub proxy: Proxy,
    pub relay: Relay,
    pub java: Driver,
    /// Faults of proxies that cases configure.
    pub faults: Option<String>,
    compared: usize,
    alone: usize,
    skipped: Vec<String>,
    topics: usize,
}

/// One of the two ways to the brokers, with the topic a case may use there.
pub struct Place {
    pub bootstrap: String,
    pub topic: String,
    pub proxied: bool,
    /// Where each node is reached.
    pub brokers: BTreeMap<i32, String>,
}

impl Place {
    /// The way through a proxy whose ports start at `port`.
    pub fn proxied(port: u16, brokers: &[i32], topic: &str) -> Self {
        let served = |id: &i32| format!("{ADVERTISED}:{}", i32::from(port) + 1 + id);
        Self {
            bootstrap: format!("{ADVERTISED}:{port}"),
            topic: topic.to_owned(),
            proxied: true,
            brokers: brokers.iter().map(|id| (*id, served(id))).collect(),
        }
    }
}

/// Runs `test` on the rig of `version`, which is started if it is not the current one.
pub fn with(version: Version, name: &str, test: fn(&mut Rig)) {
    static TURN: tokio::sync::Mutex<Option<(Version, Rig)>> = tokio::sync::Mutex::const_new(None);
    if !picked(version.name) {
        return tell(&format!("{} {name}: not picked by FIREBREAK_KAFKA_VERSIONS", version.name));
    }
    let mut current = TURN.blocking_lock();
    let (_, mut rig) = match current.take() {
        Some((running, rig)) if running == version => (running, rig),
        other => {
            drop(other);
            (version, Rig::start(version))
        }
    };
    (rig.compared, rig.alone, rig.skipped) = (0, 0, Vec::new());
    let started = Instant::now();
    let before = rig.relay.findings();
    let result = catch_unwind(AssertUnwindSafe(|| {
        test(&mut rig);
        rig.judge_every_answer();
    }));
    if let Err(failure) = result {
        // A failed test may leave anything behind: the next one gets a new rig.
        tell(&format!(
            "{} {name}: FAILED; the proxy's log ends:\n{}",
            version.name,
            rig.proxy.log_tail()
        ));
        drop(rig);
        resume_unwind(failure);
    }
    let searched = rig.relay.findings().total(|c| c.responses) - before.total(|c| c.responses);
    let skipped: String = rig.skipped.iter().map(|what| format!("; skipped: {what}")).collect();
    tell(&format!(
        "{} {name}: {} cases equal direct and proxied, {} of the proxy alone, {searched} answers \
         searched, {:.1} s{skipped}",
        version.name,
        rig.compared,
        rig.alone,
        started.elapsed().as_secs_f64()
    ));
    assert!(rig.compared + rig.alone > 0 || !rig.skipped.is_empty(), "no case was executed");
    in_all(rig.compared, rig.alone, rig.skipped.len());
    *current = Some((version, rig));
}

/// What was executed up to now; the last of these lines is the suite's.
fn in_all(compared: usize, alone: usize, skipped: usize) {
    static SUMS: Mutex<[usize; 4]> = Mutex::new([0; 4]);
    let mut sums = SUMS.lock().unwrap();
    for (sum, more) in sums.iter_mut().zip([1, compared, alone, skipped]) {
        *sum += more;
    }
    let [tests, compared, alone, skipped] = *sums;
    tell(&format!(
        "in all so far: {tests} tests, {compared} cases equal direct and proxied, \
         {alone} of the proxy alone, {skipped} skipped"
    ));
}

fn picked(version: &str) -> bool {
    let versions = std::env::var("FIREBREAK_KAFKA_VERSIONS");
    versions.map_or(true, |all| all.split(',').any(|one| one.trim() == version))
}

/// A line that is seen without `--nocapture`.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "kafka {line}");
}

impl Rig {
    fn start(version: Version) -> Self {
        let cluster = Cluster::start(version);
        let mut java = Driver::start(version.name, &cluster.jars, cluster.hosts().as_deref());
        for (user, password) in [ALICE, FIREBREAK].into_iter().filter(|_| version.secured) {
            let bootstrap = cluster.bootstrap();
            let user = json!({"bootstrap": bootstrap, "user": user, "password": password});
            java.must("scram-user", user);
        }
        let proxy = Proxy::start(&cluster.bootstrap(), None);
        let relay = Relay::start(proxy.port, cluster.ports());
        let (faults, skipped) = (None, Vec::new());
        Self { cluster, proxy, relay, java, faults, compared: 0, alone: 0, skipped, topics: 0 }
    }

    /// The bootstrap address that clients of the proxy use.
    pub fn proxied(&self) -> String {
        format!("{ADVERTISED}:{}", self.proxy.port)
    }

    /// One of the two ways, for a case that uses `topic`.
    pub fn place(&self, proxied: bool, topic: &str) -> Place {
        let ids = self.cluster.brokers();
        if proxied {
            return Place::proxied(self.proxy.port, &ids, topic);
        }
        Place {
            bootstrap: self.cluster.bootstrap(),
            topic: topic.to_owned(),
            proxied,
            brokers: ids.iter().map(|id| (*id, self.cluster.address(*id))).collect(),
        }
    }

    /// Creates a topic directly; partition `p` is led by broker `p + 1`, wrapping. Returns its id
    /// in hex.
    pub fn create_topic(&mut self, topic: &str, partitions: usize) -> String {
        let replicas = self.replicas_in_turn(partitions);
        self.create_topic_on(topic, &replicas)
    }

    /// The same with `min.insync.replicas`.
    pub fn create_safe_topic(&mut self, topic: &str, partitions: usize, min_isr: u32) {
        self.create_topic_with(topic, partitions, &json!({"min.insync.replicas": min_isr}));
    }

    /// The same with what is set for it.
    pub fn create_topic_with(&mut self, topic: &str, partitions: usize, configs: &Value) {
        let replicas = self.replicas_in_turn(partitions);
        self.create(topic, &replicas, json!({"configs": configs}));
    }

    fn replicas_in_turn(&self, partitions: usize) -> Vec<Vec<i32>> {
        let brokers = self.cluster.brokers();
        let turned = (0..partitions).map(|partition| {
            let mut all = brokers.clone();
            all.rotate_left(partition % brokers.len());
            all
        });
        turned.collect()
    }

    /// Creates a topic with these replicas directly, and waits until every broker tells of it.
    pub fn create_topic_on(&mut self, topic: &str, replicas: &[Vec<i32>]) -> String {
        self.create(topic, replicas, json!({}))
    }

    fn create(&mut self, topic: &str, replicas: &[Vec<i32>], mut command: Value) -> String {
        command["bootstrap"] = json!(self.cluster.bootstrap());
        command["topic"] = json!(topic);
        command["replicas"] = json!(replicas);
        let id = self.java.must("create-topic", command).as_str().unwrap().to_owned();
        let until = Instant::now() + Duration::from_secs(30);
        for broker in self.cluster.brokers() {
            while raw::leaders(&self.cluster.address(broker), topic).unwrap() != replicas.len() {
                assert!(Instant::now() < until, "broker {broker} does not know {topic}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        id
    }

    /// Runs a case in both places, each with a topic of `partitions` (0: the name only).
    pub fn compare(
        &mut self,
        what: &str,
        partitions: usize,
        case: impl Fn(&mut Self, &Place) -> Value,
    ) {
        let outcome = self.compare_if_there(what, partitions, |rig, place| Some(case(rig, place)));
        assert!(outcome, "{what}: not executed");
    }

    /// As [`Rig::compare`]; `None` in the direct place says that this Kafka version lacks the API.
    pub fn compare_if_there(
        &mut self,
        what: &str,
        partitions: usize,
        case: impl Fn(&mut Self, &Place) -> Option<Value>,
    ) -> bool {
        self.topics += 1;
        let number = self.topics;
        let mut outcomes = Vec::new();
        for proxied in [false, true] {
            let topic = format!("case-{number}-{}", if proxied { "p" } else { "d" });
            if partitions > 0 {
                self.create_topic(&topic, partitions);
            }
            let place = self.place(proxied, &topic);
            match case(self, &place) {
                Some(value) => outcomes.push(in_words(&place, &value)),
                None => {
                    assert!(!proxied, "{what}: there directly, not through the proxy");
                    self.skip(what);
                    return false;
                }
            }
        }
        assert!(
            outcomes[0] == outcomes[1],
            "{what}: the outcomes differ\n{}",
            differences(&outcomes[0], &outcomes[1])
        );
        self.compared += 1;
        true
    }

    /// Takes broker `id` away again, with the topics of the last case, which it led.
    pub fn remove_broker(&mut self, id: i32) {
        for way in ["d", "p"] {
            let topic = format!("case-{}-{way}", self.topics);
            let command = json!({"bootstrap": self.cluster.bootstrap(), "topic": topic});
            self.java.must("delete-topic", command);
        }
        self.cluster.remove(id);
        let command = json!({"bootstrap": self.cluster.bootstrap(), "broker": id});
        self.java.must("unregister-broker", command);
        self.cluster.wait_until_whole();
    }

    /// Leaves out a case for the one reason there may be.
    pub fn skip(&mut self, what: &str) {
        self.skipped.push(format!("{what} ({} lacks the API)", self.cluster.version));
    }

    /// Counts a comparison that a case made itself.
    pub fn equal(&mut self) {
        self.compared += 1;
    }

    /// Counts a case that is not a comparison: one that asks about the proxy alone.
    pub fn executed(&mut self) {
        self.alone += 1;
    }

    /// No leak and no answer out of order, ever.
    fn judge_every_answer(&self) {
        let findings = self.relay.findings();
        assert!(findings.leaks.is_empty(), "leaks:\n{}", some(&findings.leaks));
        assert!(findings.out_of_order.is_empty(), "order:\n{}", some(&findings.out_of_order));
    }
}

fn in_words(place: &Place, value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap().replace(&place.topic, "TOPIC");
    for (id, address) in &place.brokers {
        text = text.replace(address, &format!("NODE-{id}"));
    }
    text
}

fn some(lines: &[String]) -> String {
    format!("{} in all\n{}", lines.len(), lines[..lines.len().min(20)].join("\n"))
}

/// The lines that only one of two outcomes has.
fn differences(direct: &str, proxied: &str) -> String {
    let only = |one: &str, other: &str, name: &str| -> String {
        let other: HashSet<&str> = other.lines().collect();
        let lines = one.lines().filter(|line| !other.contains(line)).take(20);
        lines.map(|line| format!("  {name} {line}\n")).collect()
    };
    only(direct, proxied, "direct ") + &only(proxied, direct, "proxied")
}
