//! Trouble: what breaks, and when it is repaired.

use std::time::Duration;

use firebreak::net;
use firebreak::store::weather::{self, Weather};
use futures_util::FutureExt;
use turmoil::Sim;

use crate::brokers;
use crate::connection::PROXY;
use crate::producer::NOT_STORED_BATCHES;
use crate::proxy::Features;
use crate::scenario::{CLIENTS, client_host};
use crate::world::World;

/// Longest way of a message where nothing is wrong.
pub const LATENCY_MAX: Duration = Duration::from_millis(5);
/// The same where a link is slow.
const SLOW_LATENCY_MAX: Duration = Duration::from_millis(250);
/// A store that went away stays away until some batch was not stored, at most so much longer.
const UNFELT_MAX: Duration = Duration::from_secs(6);

/// What is broken now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Broken {
    Broker(usize),
    Proxy,
    Cut(String, String),
    Held(String, String),
    Slow(String, String),
    Store,
    Pace,
    Names,
}

/// Breaks things and repairs them.
pub struct Trouble<'a> {
    world: &'a World,
    broken: Vec<(Duration, Broken)>,
    next: Duration,
    has_store: bool,
    /// How often the store was in trouble.
    weathers: usize,
    /// Batches that were not stored when the store went away.
    not_stored: Option<u64>,
}

impl<'a> Trouble<'a> {
    /// Nothing is broken yet.
    pub fn new(world: &'a World, first: Duration) -> Self {
        let has_store = Features::of(world.seed).offload;
        Self { world, broken: Vec::new(), next: first, has_store, weathers: 0, not_stored: None }
    }

    /// Does what is due at this time.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let unfelt = self.not_stored == Some(self.world.counted(NOT_STORED_BATCHES));
        let (due, later) = self.broken.drain(..).partition(|(at, broken)| {
            let longer =
                if unfelt && *broken == Broken::Store { UNFELT_MAX } else { Duration::ZERO };
            *at + longer <= now
        });
        self.broken = later;
        for (_, broken) in due {
            self.repair(sim, &broken);
        }
        if now >= self.next {
            self.next = now + self.world.ms(50, 700);
            self.break_something(sim);
        }
    }

    /// Repairs everything.
    pub fn end(&mut self, sim: &mut Sim<'_>) {
        for (_, broken) in std::mem::take(&mut self.broken) {
            self.repair(sim, &broken);
        }
        self.world.cuts.set(0);
    }

    fn until(&mut self, sim: &Sim<'_>, ms: (u64, u64), broken: Broken) {
        let at = sim.elapsed() + self.world.ms(ms.0, ms.1);
        self.broken.push((at, broken));
    }

    fn is_broken(&self, broken: &Broken) -> bool {
        self.broken.iter().any(|(_, other)| other == broken)
    }

    fn break_something(&mut self, sim: &mut Sim<'_>) {
        let world = self.world;
        world.calm.set(false);
        match world.below(16) {
            0 | 1 => self.crash_broker(sim),
            2 if !self.is_broken(&Broken::Proxy) => {
                world.event("trouble", "the proxy crashes", &[]);
                world.count("crashes of the proxy");
                world.kill.notify_one();
                self.until(sim, (50, 600), Broken::Proxy);
            }
            3 if !self.is_broken(&Broken::Proxy) => {
                world.event("trouble", "the proxy drains", &[]);
                world.drain.notify_one();
                // Some drains are cut off by a crash.
                self.until(sim, (300, 9000), Broken::Proxy);
            }
            4 | 5 => self.link(sim, Broken::Cut),
            6 | 7 => self.link(sim, Broken::Held),
            8 => self.link(sim, Broken::Slow),
            9 => {
                world.event("trouble", "leaders move", &[]);
                brokers::lead(world, 2);
            }
            10 => {
                world.event("trouble", "the controller moves", &[]);
                world.count("controller moves");
                let mut cluster = world.cluster.borrow_mut();
                if !cluster.nodes.is_empty() {
                    cluster.nodes.rotate_left(1);
                }
            }
            11 => {
                world.cuts.set(world.cuts.get() + world.between(1, 3));
            }
            12 | 15 if self.has_store && !self.is_broken(&Broken::Store) => {
                // A store is away the first time and slow the second.
                let kind = match self.weathers {
                    0 => 0,
                    1 => 2,
                    _ => world.below(4),
                };
                self.weathers += 1;
                let (late, failing, time) = match kind {
                    0 => (world.ms(5, 60), weather::ALWAYS, (1500, 4000)),
                    1 => (world.ms(20, 900), world.below(6), (300, 3000)),
                    _ => (world.ms(20, 900), 0, (300, 3000)),
                };
                let away = failing == weather::ALWAYS;
                world.event("trouble", if away { "the store is away" } else { "it is slow" }, &[]);
                world.count(if away { "stores away" } else { "slow stores" });
                weather::set(Weather { late, failing });
                self.not_stored = away.then(|| world.counted(NOT_STORED_BATCHES));
                self.until(sim, time, Broken::Store);
            }
            13 if !self.is_broken(&Broken::Pace) => {
                world.count("slow brokers");
                world.pace.set(world.ms(20, 120));
                self.until(sim, (300, 2000), Broken::Pace);
            }
            14 if !self.is_broken(&Broken::Names) => {
                world.event("trouble", "no host has an address", &[]);
                world.count("names lost");
                net::sim::darken(true);
                self.until(sim, (100, 1500), Broken::Names);
            }
            _ => {}
        }
    }

    fn crash_broker(&mut self, sim: &mut Sim<'_>) {
        let world = self.world;
        let down = self.broken.iter().filter(|(_, b)| matches!(b, Broken::Broker(_))).count();
        let n = world.below(brokers::HOSTS);
        if down + 1 >= brokers::HOSTS || self.is_broken(&Broken::Broker(n)) {
            return;
        }
        world.event("trouble", &format!("broker at host {n} crashes"), &[]);
        world.count("crashes of brokers");
        sim.crash(brokers::host(n));
        // The controller takes a moment to see it: it never does where the broker is back before.
        if !world.one_in(4) {
            brokers::leave(world, n);
        }
        self.until(sim, (50, 3000), Broken::Broker(n));
    }

    fn link(&mut self, sim: &mut Sim<'_>, broken: impl Fn(String, String) -> Broken) {
        let world = self.world;
        let other = match world.below(3) {
            0 => client_host(world.below(CLIENTS)),
            _ => brokers::host(world.below(brokers::HOSTS)),
        };
        let taken = |b: &Broken| match b {
            Broken::Cut(_, b) | Broken::Held(_, b) | Broken::Slow(_, b) => *b == other,
            Broken::Broker(_) | Broken::Proxy => false,
            Broken::Store | Broken::Pace | Broken::Names => false,
        };
        if self.broken.iter().any(|(_, b)| taken(b)) {
            return;
        }
        let broken = broken(PROXY.to_owned(), other);
        world.event("trouble", &format!("{broken:?}"), &[]);
        match &broken {
            Broken::Cut(a, b) => {
                world.count("partitions");
                sim.partition(a.as_str(), b.as_str());
            }
            Broken::Held(a, b) => {
                world.count("messages held");
                sim.hold(a.as_str(), b.as_str());
            }
            Broken::Slow(a, b) => {
                world.count("slow links");
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), SLOW_LATENCY_MAX);
            }
            Broken::Broker(_) | Broken::Proxy => {}
            Broken::Store | Broken::Pace | Broken::Names => {}
        }
        self.until(sim, (100, 2500), broken);
    }

    fn repair(&mut self, sim: &mut Sim<'_>, broken: &Broken) {
        let world = self.world;
        world.event("trouble", &format!("{broken:?} is repaired"), &[]);
        match broken {
            Broken::Broker(n) => {
                brokers::leave(world, *n);
                self.new_id(*n);
                sim.bounce(brokers::host(*n));
            }
            Broken::Proxy => {
                while sim.is_host_running(PROXY) {
                    world.kill.notify_one();
                    if let Err(error) = sim.step() {
                        return world.violate(format!("a host failed: {error}"));
                    }
                }
                world.drained.set(None);
                // It may have crashed before it saw that it should drain.
                let _ = world.drain.notified().now_or_never();
                let _ = world.kill.notified().now_or_never();
                sim.bounce(PROXY);
            }
            Broken::Cut(a, b) => {
                sim.repair(a.as_str(), b.as_str());
                net::sim::time_out(sim.lookup(a.as_str()), sim.lookup(b.as_str()));
            }
            Broken::Held(a, b) => sim.release(a.as_str(), b.as_str()),
            Broken::Slow(a, b) => {
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), LATENCY_MAX);
            }
            Broken::Store => weather::set(Weather::default()),
            Broken::Pace => world.pace.set(Duration::from_millis(4)),
            Broken::Names => net::sim::darken(false),
        }
    }

    /// A broker that starts may have another id than before, one that another host had.
    fn new_id(&self, n: usize) {
        let world = self.world;
        let mut ids = world.ids.borrow_mut();
        if world.one_in(3) {
            let id = i32::try_from(world.below(usize::try_from(brokers::IDS).expect("few")));
            let id = id.expect("small");
            if !ids.contains(&id) {
                world.event("trouble", &format!("host {n} has broker {id} now"), &[]);
                world.count("broker ids moved");
                ids[n] = id;
            }
        }
    }
}
