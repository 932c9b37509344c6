//! Exactly once, whatever breaks: idempotent producers of three kinds write keyed records to a
//! virtual topic with days, through two proxies behind a load balancer, while
//!
//! * a broker that leads a segment is killed (-9) every 20 s and started again;
//! * a proxy is killed (-9) every few seconds and started again;
//! * a proxy, the one that leads the placement if one does, is stopped for 40 s and goes on then,
//!   with its clients gone, of which it learns every second time only;
//! * answers are lost and connections cut;
//! * segments are sealed and new ones opened.
//!
//! In the end every acknowledged record is read once, in the order of its key in its slot, without
//! a gap between offsets, and no sealed segment has grown. `FIREBREAK_EXACT_SECONDS` is how long it
//! goes on; it goes on for up to three times as long until everything has happened that must.
//! compose/exact.sh is the long form.

mod breaking;
#[cfg(feature = "failpoints")]
pub mod mutants;
mod reading;
mod rolls;
mod writing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::balancer::Balancer;
use crate::ports;
use crate::process::tail;
use crate::proxy::{NODES, Proxy, Tables, get, metric_in};
use crate::rig::{Rig, tell};
use reading::Reading;
use writing::Told;

/// Partitions of each slot.
const PARTITIONS: i32 = 2;
const REGIONS: [&str; 3] = ["norcal", "socal", "other"];
const LOGICAL: i32 = PARTITIONS * 3;
const PROXIES: [&str; 2] = ["127.0.0.31", "127.0.0.32"];
const FRONT: &str = "127.0.0.33";
/// Records a second that each writer gets acknowledged at least, over everything that breaks.
const RATE_MIN: u64 = 20;

pub use rolls::a_hundred_rolls_in_a_row;

pub fn exactly_once_whatever_breaks(rig: &mut Rig) {
    let shown = everything_breaks(rig, &WHILE_IT_RUNS);
    assert!(shown.wrong.is_empty(), "{:#?}", shown.wrong);
    for what in WHILE_IT_RUNS.iter().chain(&IN_THE_END) {
        let count = shown.counts.get(what);
        assert!(count.is_some_and(|count| *count > 0), "no {what}: nothing is shown");
    }
    rig.executed();
}

/// What a run showed.
#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "mutants count them"))]
struct Shown {
    counts: BTreeMap<&'static str, u64>,
    /// Acknowledged records that were not read in the end, and records that were read twice.
    lost: u64,
    doubled: u64,
    /// Everything that may not be, in words.
    wrong: Vec<String>,
}

/// One run, which ends once all of this has been counted.
fn everything_breaks(rig: &mut Rig, needed: &[&'static str]) -> Shown {
    let seconds = std::env::var("FIREBREAK_EXACT_SECONDS");
    let seconds: u64 = seconds.map_or(60, |seconds| seconds.parse().unwrap());
    in_sync(rig, 2);
    let topic = format!("exact-{}", uuid::Uuid::new_v4().simple());
    let (mut proxies, balancer) = start(rig, &topic);
    let run = Run::new(&topic, &balancer, &proxies, Duration::from_secs(seconds));
    let all_written = AtomicBool::new(false);
    let (told, followed) = std::thread::scope(|scope| {
        let _ends = Ends(&run, &all_written);
        let follower = scope.spawn(|| reading::follow(&run, None, &all_written));
        let writers = writing::start(scope, rig, &run);
        let breaking = [
            scope.spawn(|| breaking::proxies(&mut proxies, &run)),
            scope.spawn(|| breaking::answers(&run)),
            scope.spawn(|| breaking::days(&run)),
            scope.spawn(|| run.goes_on_until(needed)),
        ];
        breaking::brokers(&mut rig.cluster, &run);
        for thread in breaking {
            thread.join().unwrap();
        }
        let told = writers.stop(rig, &run);
        all_written.store(true, Ordering::Relaxed);
        (told, follower.join().unwrap())
    });
    let read = reading::follow(&run, None, &all_written);
    proxies.iter().for_each(|proxy| run.collect(&proxy.admin()));
    let shown = compared(
        &run,
        &told,
        &[("a reader that followed", &followed), ("a reader in the end", &read)],
    );
    let shown = with_lengths(rig, &run, shown);
    in_sync(rig, 1);
    shown
}

/// How many replicas must have what is acknowledged.
fn in_sync(rig: &mut Rig, replicas: u8) {
    let bootstrap = rig.cluster.bootstrap();
    let wanted = json!({
        "bootstrap": bootstrap, "name": "min.insync.replicas", "value": replicas,
    });
    rig.java.must("cluster-config", wanted);
}

/// Two proxies that are advertised as the balancer in front of them, with a topic with days, once
/// each slot has a segment.
fn start(rig: &Rig, topic: &str) -> ([Proxy; 2], Balancer) {
    let port = ports::free(&[PROXIES[0], PROXIES[1], FRONT], NODES + 3);
    let brokers = rig.cluster.bootstrap();
    let brokers: Vec<&str> = brokers.split(',').collect();
    let proxies = PROXIES.map(|host| {
        let tables = Tables {
            advertise: FRONT.to_owned(),
            listen: String::new(),
            cluster: format!("bootstrap = {brokers:?}"),
            more: format!(
                "[[virtual_topic]]\nname = {topic:?}\npartitions = {PARTITIONS}\ndays = true\n\
                 region = {{ header = \"region\" }}\n\
                 [[region]]\nname = \"norcal\"\n[[region]]\nname = \"socal\"\n"
            ),
        };
        Proxy::configured_at((host, port), tables, rig.faults.as_deref())
    });
    let balancer = Balancer::start(FRONT, (port, port + NODES), PROXIES.to_vec());
    (proxies, balancer)
}

/// Everything that is shared while it goes on.
struct Run<'a> {
    topic: &'a str,
    balancer: &'a Balancer,
    bootstrap: String,
    admins: Vec<String>,
    /// Where the proxies write what they have to say.
    logs: Vec<PathBuf>,
    time: Duration,
    /// It goes on no longer than this.
    end: Instant,
    over: AtomicBool,
    /// By proxy: it is stopped now.
    stopped: [AtomicBool; 2],
    /// A broker is down now.
    broker_down: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl<'a> Run<'a> {
    fn new(topic: &'a str, balancer: &'a Balancer, proxies: &[Proxy; 2], time: Duration) -> Self {
        let run = Self {
            topic,
            balancer,
            bootstrap: format!("{FRONT}:{}", proxies[0].port),
            admins: proxies.iter().map(Proxy::admin).collect(),
            logs: proxies.iter().map(Proxy::log).collect(),
            time,
            end: Instant::now(),
            over: AtomicBool::new(false),
            stopped: Default::default(),
            broker_down: AtomicBool::new(false),
            counts: Mutex::default(),
        };
        let until = Instant::now() + Duration::from_secs(60);
        while !run.segments().is_some_and(|slots| slots.values().all(|slot| !slot.is_empty())) {
            assert!(Instant::now() < until, "no segments:\n{}", proxies[0].log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
        Self { end: Instant::now() + time * 3, ..run }
    }

    /// Ends it once its time is over and all of this has been counted.
    fn goes_on_until(&self, needed: &[&'static str]) {
        self.pause(self.time);
        loop {
            // What living proxies counted so far is theirs until they end.
            let living = Mutex::default();
            self.admins().for_each(|admin| collect(admin, &living));
            let (counts, living) = (self.counts.lock().unwrap().clone(), living.into_inner());
            let living = living.unwrap();
            let is_there = |what: &str| {
                [&counts, &living].iter().any(|all| all.get(what).is_some_and(|count| *count > 0))
            };
            if needed.iter().all(|what| is_there(what)) || !self.pause(Duration::from_secs(1)) {
                break;
            }
        }
        self.over.store(true, Ordering::Relaxed);
    }

    /// The last lines of both proxies.
    fn said(&self) -> String {
        let tails = self.logs.iter().map(|log| format!("{}:\n{}\n", log.display(), tail(log)));
        tails.collect()
    }

    fn count(&self, what: &'static str, more: u64) {
        *self.counts.lock().unwrap().entry(what).or_default() += more;
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    /// Waits; whether it still goes on then.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.is_over()
    }

    /// Admin ports of proxies that are not stopped.
    fn admins(&self) -> impl Iterator<Item = &String> {
        let admins = self.admins.iter().zip(&self.stopped);
        admins.filter(|(_, stopped)| !stopped.load(Ordering::Relaxed)).map(|(admin, _)| admin)
    }

    /// What some proxy tells of the topic.
    fn described(&self) -> Option<Value> {
        let path = format!("/topics/{}", self.topic);
        let answer = self.admins().find_map(|admin| get(admin, &path).ok())?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Physical topics of the segments of each slot.
    fn segments(&self) -> Option<BTreeMap<String, Vec<String>>> {
        let told = self.described()?;
        let slots = told["slots"].as_array()?.iter().map(|slot| {
            let segments = slot["segments"].as_array()?.iter();
            let names = segments.map(|segment| Some(segment["topic"].as_str()?.to_owned()));
            Some((slot["slot"].as_str()?.to_owned(), names.collect::<Option<_>>()?))
        });
        slots.collect()
    }

    /// Adds up what a process counted, which ends with it.
    fn collect(&self, admin: &str) {
        collect(admin, &self.counts);
    }
}

/// Adds what a process has counted.
fn collect(admin: &str, counts: &Mutex<BTreeMap<&'static str, u64>>) {
    let Ok(text) = get(admin, "/metrics") else { return };
    let results = [
        ("duplicate", "parts that were there (0)"),
        ("older", "parts that were there (47)"),
        ("sealed", "parts found in a sealed segment"),
        ("again", "parts sent again"),
        ("deferred", "batches deferred"),
        ("contradiction", CONTRADICTIONS),
    ];
    for (result, what) in results {
        let name = format!("firebreak_routed_parts_total{{result=\"{result}\"}}");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let value = metric_in(&text, &name) as u64;
        *counts.lock().unwrap().entry(what).or_default() += value;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let grown = metric_in(&text, "firebreak_sealed_segments_grown_total") as u64;
    *counts.lock().unwrap().entry(GROWN).or_default() += grown;
}

/// Ends everything, also when something failed.
struct Ends<'a>(&'a Run<'a>, &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.1.store(true, Ordering::Relaxed);
    }
}

/// Compares what was read with what was acknowledged.
fn compared(run: &Run<'_>, told: &BTreeMap<String, Told>, readings: &[(&str, &Reading)]) -> Shown {
    let mut wrong = Vec::new();
    for (writer, told) in told {
        let (acked, failed) = (told.acked(), told.failed.len());
        tell(&format!("{writer}: {acked} acknowledged, {failed} failed: {:?}", told.errors));
        let few = format!("{writer} had {acked} records acknowledged");
        wrong.extend((acked < run.time.as_secs() * RATE_MIN).then_some(few));
        run.count("records acknowledged", acked);
        run.count("records sent again by clients", told.retries);
    }
    let (mut lost, mut doubled) = (0, 0);
    for (who, reading) in readings {
        let found = reading.compare(told);
        tell(&format!("{who}: {found}"));
        wrong.extend(reading.wrong.iter().take(20).map(|what| format!("{who}: {what}")));
        wrong.extend((!found.is_exact()).then(|| format!("{who}: {found}")));
        (lost, doubled) = (found.lost, found.doubled);
    }
    Shown { counts: BTreeMap::new(), lost, doubled, wrong }
}

/// Compares the sealed segments with the logs that brokers have, and takes what was counted.
fn with_lengths(rig: &Rig, run: &Run<'_>, mut shown: Shown) -> Shown {
    let mut config = ClientConfig::new();
    let direct: BaseConsumer =
        config.set("bootstrap.servers", rig.cluster.bootstrap()).create().unwrap();
    let told = run.described().unwrap();
    let slots = told["slots"].as_array().unwrap().iter();
    for segment in slots.flat_map(|slot| slot["segments"].as_array().unwrap()) {
        let Some(ends) = segment["ends"].as_array() else { continue };
        run.count("segments sealed", 1);
        let name = segment["topic"].as_str().unwrap();
        for (partition, end) in (0..).zip(ends) {
            let at = usize::try_from(partition).unwrap();
            let sealed = end.as_i64().unwrap() - segment["bases"][at].as_i64().unwrap();
            let marks = direct.fetch_watermarks(name, partition, Duration::from_secs(30));
            let (_, there) = marks.unwrap();
            let other = format!("{name} {partition}: sealed with {sealed} records, {there} there");
            shown.wrong.extend((there != sealed).then_some(other));
        }
    }
    shown.counts.clone_from(&run.counts.lock().unwrap());
    let counts = &shown.counts;
    let lines: Vec<String> = counts.iter().map(|(what, n)| format!("  {what}: {n}\n")).collect();
    tell(&format!("exact, {} s:\n{}", run.time.as_secs(), lines.concat()));
    for never in [CONTRADICTIONS, GROWN] {
        let count = counts.get(never).copied();
        shown.wrong.extend((count != Some(0)).then(|| format!("{never}: {count:?}")));
    }
    shown
}

const CONTRADICTIONS: &str = "contradictions";
const GROWN: &str = "sealed segments that grew";

/// What must have happened, as far as it is known while it goes on.
const WHILE_IT_RUNS: [&str; 10] = [
    "parts that were there (0)",
    "parts that were there (47)",
    "parts found in a sealed segment",
    "parts sent again",
    "brokers killed",
    "proxies killed",
    "proxies stopped for 40 s",
    "connections cut behind lost answers",
    "rolls",
    "rolls while a broker was down",
];

/// And what is known then.
const IN_THE_END: [&str; 3] =
    ["records acknowledged", "records sent again by clients", "segments sealed"];
