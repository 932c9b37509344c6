//! What is broken, one thread for each kind of it.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Run;
use crate::cluster::Cluster;
use crate::proxy::Proxy;
use crate::raw;

/// A broker is killed so often, and down for so long.
const BROKER_EVERY: Duration = Duration::from_secs(20);
const BROKER_DOWN: Duration = Duration::from_secs(11);
/// A proxy is killed after a time between these: whoever leads the placement next has 3 s to wait
/// first, and something to do then.
const PROXY_EVERY_MS: (u64, u64) = (5_000, 10_000);
const STOPPED: Duration = Duration::from_secs(40);
/// Between two stopped proxies.
const STOPPED_EVERY: Duration = Duration::from_secs(60);
const ROLL_EVERY: Duration = Duration::from_secs(5);
const ROLL_MAX: Duration = Duration::from_secs(90);

/// Kills brokers that lead a segment.
pub fn brokers(cluster: &mut Cluster, run: &Run<'_>) {
    run.pause(BROKER_EVERY / 5);
    while !run.is_over() {
        let next = Instant::now() + BROKER_EVERY;
        let victim = leader(cluster, run).unwrap_or(1);
        run.broker_down.store(true, Ordering::Relaxed);
        cluster.kill(victim);
        run.count("brokers killed", 1);
        run.pause(BROKER_DOWN);
        run.broker_down.store(false, Ordering::Relaxed);
        cluster.restart(victim);
        cluster.wait_until_whole();
        run.pause(next.saturating_duration_since(Instant::now()));
    }
}

/// Who leads an open segment.
fn leader(cluster: &Cluster, run: &Run<'_>) -> Option<i32> {
    let open = run.segments()?.into_values().find_map(|of_slot| of_slot.last().cloned())?;
    let metadata = raw::metadata(&cluster.address(1)).ok()?;
    let mut topics = metadata.topics.iter();
    let topic = topics.find(|topic| topic.name.as_ref().is_some_and(|name| **name == *open))?;
    Some(topic.partitions.first()?.leader_id.0).filter(|leader| *leader > 0)
}

/// Kills proxies in turn, and stops one now and then.
pub fn proxies(proxies: &mut [Proxy; 2], run: &Run<'_>) {
    let mut stop_at = Instant::now();
    let (mut turn, mut told) = (0, false);
    while run.pause(sometime(PROXY_EVERY_MS)) {
        let now = Instant::now();
        if now >= stop_at && now + STOPPED < run.end {
            stop_one(proxies, run, told);
            (told, stop_at) = (!told, Instant::now() + STOPPED_EVERY);
        } else {
            kill(&mut proxies[turn % 2], run);
        }
        turn += 1;
    }
}

/// Stops the proxy that leads the placement, if one does, and kills the other one again and again
/// meanwhile.
fn stop_one(proxies: &mut [Proxy; 2], run: &Run<'_>, told: bool) {
    let leads = |proxy: &Proxy| proxy.metric("firebreak_placement_leader") > 0.5;
    let which = usize::from(leads(&proxies[1]));
    run.stopped[which].store(true, Ordering::Relaxed);
    proxies[which].signal("STOP");
    run.balancer.take_out(which, told);
    let until = Instant::now() + STOPPED;
    while Instant::now() < until && run.pause(sometime(PROXY_EVERY_MS)) {
        kill(&mut proxies[1 - which], run);
    }
    proxies[which].signal("CONT");
    run.balancer.put_in(which);
    run.stopped[which].store(false, Ordering::Relaxed);
    run.count("proxies stopped for 40 s", u64::from(Instant::now() >= until));
}

/// A time between two, in milliseconds.
pub fn sometime((least, most): (u64, u64)) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() % u128::from(most - least);
    Duration::from_millis(least + u64::try_from(random).unwrap())
}

fn kill(proxy: &mut Proxy, run: &Run<'_>) {
    run.collect(proxy);
    proxy.kill();
    run.count("proxies killed", 1);
    proxy.restart();
}

/// Loses answers: those of one connection, and now and then those of all.
pub fn answers(run: &Run<'_>) {
    let mut turn = 0;
    while run.pause(Duration::from_millis(1300)) {
        turn += 1;
        lose(run, turn % 4 == 0);
    }
}

fn lose(run: &Run<'_>, all: bool) {
    let cut = run.balancer.lose_answers(all, Duration::from_millis(300));
    run.count("connections cut behind lost answers", u64::try_from(cut).unwrap());
}

/// Rolls as an operator does, every second time with the answers to what is written just before
/// lost.
pub fn days(run: &Run<'_>) {
    let mut turn = 0;
    while run.pause(ROLL_EVERY) {
        turn += 1;
        std::thread::scope(|scope| {
            if turn % 2 == 0 {
                scope.spawn(|| lose(run, true));
                std::thread::sleep(Duration::from_millis(150));
            }
            roll(run);
        });
    }
}

/// One roll, asked for until it is done.
pub fn roll(run: &Run<'_>) {
    let without = run.broker_down.load(Ordering::Relaxed);
    let until = Instant::now() + ROLL_MAX;
    for turn in 0.. {
        let admins: Vec<&String> = run.admins().collect();
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_firebreak"), "topic", "roll", run.topic]);
        command.args(["--admin", admins[turn % admins.len()]]);
        let done = command.output().unwrap();
        if done.status.success() {
            run.count("rolls", 1);
            let down = without && run.broker_down.load(Ordering::Relaxed);
            run.count("rolls while a broker was down", u64::from(down));
            return;
        }
        // The leader was killed or stopped: the next one ends what it began.
        run.count("rolls asked again", 1);
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(Instant::now() < until, "no roll within {ROLL_MAX:?}: {errors}");
        if !run.pause(Duration::from_millis(300)) {
            return;
        }
    }
}
