//! A hundred rolls in a row under consumers that are caught up, of kcat, librdkafka, Java and
//! franz-go. The proxy that leads the placement is killed in the middle of some. Nobody may meet a
//! reset or a gap, and lag is what it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::reading::{self, Reading};
use super::writing::{self, Told};
use super::{Ends, LOGICAL, Run, breaking, start};
use crate::cases::{kcat, tools};
use crate::franz_go::FranzGo;
use crate::process::{Process, Scratch};
use crate::proxy::Proxy;
use crate::rig::{Place, Rig, tell};

const ROLLS: usize = 100;
/// The leader is killed in one of so many rolls.
const KILLED_OF: usize = 6;
const CAUGHT_UP_MAX: Duration = Duration::from_secs(120);
const GROUPS: [&str; 3] = ["librdkafka", "java", "franz-go"];
/// A group that reads nothing.
const LAGS: &str = "lags";

pub fn a_hundred_rolls_in_a_row(rig: &mut Rig) {
    let topic = format!("rolls-{}", uuid::Uuid::new_v4().simple());
    let (mut proxies, balancer) = start(rig, &topic);
    let run = Run::new(&topic, &balancer, &proxies, Duration::from_secs(3600));
    let place = Place { bootstrap: run.bootstrap.clone(), ..rig.place(true, &topic) };
    commit_start(rig, &run);
    let before = run.segments().unwrap();
    let all_written = AtomicBool::new(false);
    let (told, mut readings) = std::thread::scope(|scope| {
        let _ends = Ends(&run, &all_written);
        let librdkafka = scope.spawn(|| reading::follow(&run, Some("librdkafka"), &all_written));
        let followers = Followers::start(rig, &run);
        let writer = scope.spawn(|| writing::librdkafka(&run));
        let begin = Instant::now();
        let mut leaderless = Vec::new();
        for n in 0..ROLLS {
            match n % KILLED_OF {
                0 => leaderless.extend(roll_and_kill(&mut proxies, &run)),
                _ => breaking::roll(&run),
            }
        }
        tell(&format!("{ROLLS} rolls in {:.1?}", begin.elapsed()));
        judge_leaderless(leaderless);
        run.pause(Duration::from_secs(2));
        run.over.store(true, Ordering::Relaxed);
        let told = writer.join().unwrap();
        all_written.store(true, Ordering::Relaxed);
        let mut readings = followers.stop(rig, told.acked());
        readings.insert("librdkafka", librdkafka.join().unwrap());
        (told, readings)
    });
    assert!(told.failed.is_empty(), "records failed: {:?}", told.errors);
    lag(rig, &place, told.acked());
    readings.insert("a group that lagged and was started again", catch_up(rig, &run, told.acked()));
    judge(told, &readings);
    for (slot, segments) in run.segments().unwrap() {
        let (before, after) = (before[&slot].len(), segments.len());
        assert!(after >= before + ROLLS, "segments of {slot}: {before}, then {after}");
    }
    let counts = run.counts.lock().unwrap().clone();
    tell(&format!("rolls: {counts:?}"));
    assert!(counts.get(KILLED).is_some_and(|count| *count > 0), "no {KILLED}");
    rig.executed();
}

const KILLED: &str = "leaders killed in the middle of a roll";
/// What whoever leads says when it begins.
const LEADS: &str = "leads the placement id=";
/// Nobody leads longer than this, as a rule, once the proxy that led is killed.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

/// Groups that have committed the beginning.
fn commit_start(rig: &mut Rig, run: &Run<'_>) {
    let groups: Vec<&str> = GROUPS.into_iter().chain([LAGS]).collect();
    let command = json!({
        "bootstrap": run.bootstrap, "topic": run.topic, "partitions": LOGICAL, "groups": groups,
    });
    rig.java.must("commit-start", command);
}

/// Kills the proxy that leads a moment after a roll has begun; how long nobody leads then, if it
/// led.
fn roll_and_kill(proxies: &mut [Proxy; 2], run: &Run<'_>) -> Option<Duration> {
    let leads = |proxy: &Proxy| proxy.metric("firebreak_placement_leader") > 0.5;
    let which = usize::from(leads(&proxies[1]));
    let said = || -> usize { run.logs.iter().map(|log| lines_with(log, LEADS)).sum() };
    std::thread::scope(|scope| {
        scope.spawn(|| breaking::roll(run));
        std::thread::sleep(breaking::sometime((30, 280)));
        let (led, before) = (leads(&proxies[which]), said());
        proxies[which].kill();
        let killed = Instant::now();
        let next = scope.spawn(move || {
            while said() == before {
                assert!(killed.elapsed() < CAUGHT_UP_MAX, "nobody leads:\n{}", run.said());
                std::thread::sleep(Duration::from_millis(20));
            }
            killed.elapsed()
        });
        let other = &proxies[1 - which];
        let begun = other.metric("firebreak_placement_intents") > 0.5;
        run.count(KILLED, u64::from(begun));
        run.count("leaders killed", 1);
        proxies[which].restart();
        let leaderless = next.join().unwrap();
        led.then_some(leaderless)
    })
}

fn lines_with(log: &Path, text: &str) -> usize {
    let log = fs::read_to_string(log).unwrap_or_default();
    log.lines().filter(|line| line.contains(text)).count()
}

/// Times without a leader: a machine that has much else to do may be late once, not as a rule.
fn judge_leaderless(mut times: Vec<Duration>) {
    assert!(!times.is_empty(), "no leader was killed");
    times.sort_unstable();
    let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
    let count = times.len();
    tell(&format!("nobody led for {middle:.1?} behind half of {count} kills, {most:.1?} at most"));
    assert!(middle <= LEADERLESS_MAX, "nobody led for {times:.1?}");
}

/// Consumers outside this process.
struct Followers {
    franz_go: FranzGo,
    kcat: Kcat,
}

struct Kcat {
    process: Process,
    out: PathBuf,
    _folder: Scratch,
}

impl Followers {
    fn start(rig: &mut Rig, run: &Run<'_>) -> Self {
        let command = json!({"bootstrap": run.bootstrap, "topic": run.topic, "group": "java"});
        rig.java.must("follow-start", command);
        let franz_go = FranzGo::follow(&run.bootstrap, run.topic, "franz-go");
        Self { franz_go, kcat: Kcat::start(run) }
    }

    /// Ends them once they have read so many records.
    fn stop(self, rig: &mut Rig, count: u64) -> BTreeMap<&'static str, Reading> {
        let java = rig.java.must("follow-stop", json!({"group": "java", "count": count}));
        let mut readings = BTreeMap::new();
        readings.insert("java", of_told(&[java]));
        readings.insert("franz-go", of_told(&[self.franz_go.followed(count)]));
        readings.insert("kcat", self.kcat.stop(count));
        readings
    }
}

fn of_told(told: &[Value]) -> Reading {
    let lines = told.iter().flat_map(|told| told["lines"].as_array().unwrap());
    let mut reading = Reading::of_lines(lines.map(|line| line.as_str().unwrap()));
    let errors = told.iter().flat_map(|told| told["errors"].as_object().unwrap());
    reading.wrong.extend(errors.map(|(text, count)| format!("{text} ({count} times)")));
    reading
}

/// The group that has read nothing reads one half over all segments, ends, and goes on from its
/// commits.
fn catch_up(rig: &mut Rig, run: &Run<'_>, count: u64) -> Reading {
    let mut told: Vec<Value> = Vec::new();
    for half in [count / 2, count] {
        let command = json!({
            "bootstrap": run.bootstrap, "topic": run.topic, "group": LAGS,
            "config": {"max.poll.records": 50},
        });
        rig.java.must("follow-start", command);
        let read: usize = told.iter().map(|told| told["lines"].as_array().unwrap().len()).sum();
        let left = half.saturating_sub(u64::try_from(read).unwrap());
        told.push(rig.java.must("follow-stop", json!({"group": LAGS, "count": left})));
    }
    of_told(&told)
}

impl Kcat {
    fn start(run: &Run<'_>) -> Self {
        let folder = Scratch::new("kcat");
        let out = folder.path().join("read.txt");
        let mut command = kcat::command(3600);
        command.args(["kcat", "-b", &run.bootstrap, "-C", "-E", "-u", "-q", "-t", run.topic]);
        command.args(["-o", "beginning", "-X", "auto.offset.reset=error"]);
        command.args(["-f", "%p %o %k %s\\n"]);
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap());
        let process = Process::start_piped(&mut command, &folder.path().join("kcat.log"));
        Self { process, out, _folder: folder }
    }

    fn stop(mut self, count: u64) -> Reading {
        let until = Instant::now() + CAUGHT_UP_MAX;
        let lines = || fs::read_to_string(&self.out).unwrap();
        while u64::try_from(lines().lines().count()).unwrap() < count && Instant::now() < until {
            let ended = self.process.ended();
            assert!(ended.is_none(), "kcat ended: {}", self.process.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
        // `timeout` hands the signal on.
        self.process.terminate(Duration::from_secs(5));
        Reading::of_lines(fs::read_to_string(&self.out).unwrap().lines())
    }
}

/// What `kafka-consumer-groups --describe` shows: nothing left for groups that have read all, and
/// everything for the one that has read nothing.
fn lag(rig: &mut Rig, place: &Place, written: u64) {
    let all: Vec<&str> = GROUPS.into_iter().chain([LAGS]).collect();
    let named: Vec<&str> = all.iter().flat_map(|group| ["--group", group]).collect();
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let text = tools::tool(rig, place, class, &[&["--describe"], &named], "");
    for group in all {
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|row| row.first() == Some(&group) && row[1] == place.topic);
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), usize::try_from(LOGICAL).unwrap(), "rows of {group} in\n{text}");
        let sum = |column: usize| rows.iter().map(|row| row[column].parse::<u64>().unwrap()).sum();
        let (read, end, lag): (u64, u64, u64) = (sum(3), sum(4), sum(5));
        let expected = if group == LAGS { (0, written) } else { (written, 0) };
        assert_eq!((read, lag, end), (expected.0, expected.1, written), "{group} in\n{text}");
    }
    rig.executed();
}

fn judge(told: Told, readings: &BTreeMap<&'static str, Reading>) {
    let told = BTreeMap::from([("librdkafka".to_owned(), told)]);
    let mut wrong = Vec::new();
    for (who, reading) in readings {
        let found = reading.compare(&told);
        tell(&format!("{who}: {found}"));
        wrong.extend(reading.wrong.iter().take(20).map(|what| format!("{who}: {what}")));
        wrong.extend((!found.is_exact()).then(|| format!("{who}: {found}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
