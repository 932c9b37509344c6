//! One simulation from its seed to its verdict.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use firebreak::random;
use firebreak::store::weather::{self, Weather};
use protocol_ext::fake_broker::FakeLog;
use turmoil::{Builder, Sim};

use crate::connection::PROXY;
use crate::ledger::Promise;
use crate::producer::Orders;
use crate::proxy::Features;
use crate::trouble::{LATENCY_MAX, Trouble};
use crate::world::{Counts, Phase, World};
use crate::{admin, brokers, consumer, producer, proxy, records};

const CREATE_TOPICS: i16 = 19;
/// Hosts of clients.
pub const CLIENTS: usize = 3;
/// Simulated time between two looks at a host.
const TICK: Duration = Duration::from_millis(2);
/// Time before anything breaks.
const QUIET: Duration = Duration::from_millis(1500);
/// Time of load and trouble.
const TROUBLE: Duration = Duration::from_secs(10);
/// Time in which everything must be as it should once nothing is broken.
const PATIENCE: Duration = Duration::from_secs(40);
/// Time after which a connection that is closed is closed at its other end too.
const SETTLED: Duration = Duration::from_secs(2);
/// Time after which nothing of any client is left: the longest of idle, half-closed and lingering.
const ALONE: Duration = Duration::from_secs(20);
/// Time in which requests are sent before the proxy drains.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Segments that a socket holds.
const SEGMENTS: usize = 256;

/// The host of some clients.
pub fn client_host(n: usize) -> String {
    format!("clients-{n}")
}

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Hash of everything that happened.
    pub trace: u64,
    /// What must not be.
    pub violations: Vec<String>,
    /// What happened how often.
    pub counts: Counts,
}

/// Runs the simulation of a seed.
pub fn run(seed: u64) -> Outcome {
    watched(seed, simulate)
}

/// Runs some simulation of a seed; what panics in it is seen.
pub fn watched(seed: u64, simulate: impl FnOnce(&Rc<World>)) -> Outcome {
    random::seed(Some(seed ^ 0x5eed));
    weather::begin(Some(Weather::default()));
    let world = World::new(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulate(&world)));
    if outcome.is_err() {
        world.violate("the simulation itself panicked");
    }
    for panic in crate::seeds::take_panics() {
        world.violate(format!("panic: {panic}"));
    }
    weather::begin(None);
    random::seed(None);
    Outcome { seed, trace: world.trace(), violations: world.violations(), counts: world.counts() }
}

fn simulate(world: &Rc<World>) {
    let features = Features::of(world.seed);
    prepare(world, features, 2);
    let mut sim = network(world, TICK);
    hosts(&mut sim, world, features);
    let mut trouble = Trouble::new(world, QUIET);
    while sim.elapsed() < TROUBLE {
        trouble.step(&mut sim);
        if !step(&mut sim, world) {
            return;
        }
    }
    trouble.end(&mut sim);
    world.count_by("milliseconds of trouble", u64::try_from(TROUBLE.as_millis()).expect("small"));
    for phase in [Phase::Finish, Phase::Read] {
        if !run_phase(&mut sim, world, phase) {
            return;
        }
    }
    let alone = sim.elapsed() + ALONE;
    while sim.elapsed() < alone {
        if !step(&mut sim, world) {
            return;
        }
    }
    proxy::check_empty(world, "though all clients are long gone,");
    drain(&mut sim, world);
    tally(world);
}

/// A network without hosts, which are looked at once in `tick`.
pub fn network<'a>(world: &World, tick: Duration) -> Sim<'a> {
    Builder::new()
        .rng_seed(world.seed)
        .tick_duration(tick)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(SEGMENTS)
        .enable_random_order()
        .build()
}

/// Counts what logs and the store hold at the end.
fn tally(world: &World) {
    let cluster = world.cluster.borrow();
    let logs = || cluster.topics.iter().flat_map(|topic| &topic.logs);
    world.count_by("duplicates answered", logs().map(|log| log.duplicates as u64).sum());
    let references = logs().flat_map(FakeLog::batches).map(records::references);
    world.count_by("references in logs", references.sum::<usize>() as u64);
    world.count_by("objects in the store", weather::kept().0 as u64);
    let routed = cluster.topics.iter().filter(|topic| topic.name.starts_with("fires-"));
    let batches = routed.flat_map(|topic| &topic.logs).flat_map(FakeLog::batches);
    world.count_by("batches of virtual topics", batches.count() as u64);
}

/// Everything drains while requests are under way.
fn drain(sim: &mut Sim<'_>, world: &Rc<World>) {
    world.pace.set(Duration::from_millis(80));
    world.phase.set(Phase::Drain);
    world.busy.set(CLIENTS);
    let mut at = sim.elapsed() + PATIENCE;
    while sim.elapsed() < at {
        if !step(sim, world) {
            return;
        }
        if world.ready.get() == CLIENTS {
            at = at.min(sim.elapsed() + UNDER_WAY);
        }
    }
    if world.ready.get() < CLIENTS {
        return world.violate("no virtual broker is reached though nothing is broken");
    }
    world.drained.set(None);
    world.drain.notify_one();
    if !run_phase(sim, world, Phase::Drain) {
        return;
    }
    let at = sim.elapsed() + SETTLED;
    while sim.elapsed() < at {
        if !step(sim, world) {
            return;
        }
    }
    if world.drained.get().is_none() {
        world.violate("the proxy did not stop after a drain");
    }
    if let Some(((client, correlation), _)) = world.owed.borrow().first_key_value() {
        world.violate(format!("{client}: a broker took {correlation} and no answer came"));
    }
    let open = world.open_at_brokers.get();
    if open > 0 {
        world.violate(format!("{open} connections open at brokers after a drain"));
    }
}

/// Steps until nobody is busy with a phase.
pub fn run_phase(sim: &mut Sim<'_>, world: &Rc<World>, phase: Phase) -> bool {
    if phase == Phase::Read {
        world.busy.set(1);
    }
    world.phase.set(phase);
    let began = sim.elapsed();
    while world.busy.get() > 0 {
        if !step(sim, world) {
            return false;
        }
        if sim.elapsed() - began > PATIENCE {
            let busy = world.busy.get();
            world.violate(format!("{busy} clients not done {PATIENCE:?} after {phase:?} began"));
            return false;
        }
    }
    true
}

/// A step of a simulation; false once something is wrong.
pub fn step(sim: &mut Sim<'_>, world: &World) -> bool {
    let stepped = sim.step();
    world.now.set(sim.elapsed());
    match stepped {
        Ok(_) => world.violations().is_empty(),
        Err(error) => {
            world.violate(format!("a host failed: {error}"));
            false
        }
    }
}

/// The cluster before the simulation begins, with so many partitions for large values.
pub fn prepare(world: &World, features: Features, partitions: usize) {
    let mut cluster = world.cluster.borrow_mut();
    cluster.strict = true;
    cluster.add_topic("t", 3);
    cluster.add_topic("big-x", partitions);
    if features.routed {
        cluster.versions.push((CREATE_TOPICS, 2, 7));
        cluster.add_topic("fires-norcal", 2);
        cluster.add_topic("fires-other", 2);
    }
    cluster.configs = vec![
        ("advertised.listeners".to_owned(), "PLAINTEXT://upstream-0:9092".to_owned()),
        ("log.dirs".to_owned(), "/tmp".to_owned()),
    ];
    *world.ids.borrow_mut() = (1..).take(brokers::HOSTS).collect();
    for n in 0..brokers::HOSTS {
        let id = world.ids.borrow()[n];
        cluster.nodes.push(protocol_ext::fake_broker::FakeNode {
            id,
            host: brokers::host(n),
            port: brokers::PORT,
        });
    }
    drop(cluster);
    brokers::lead(world, 0);
}

/// Brokers, the proxy and clients of every kind.
pub fn hosts(sim: &mut Sim<'_>, world: &Rc<World>, features: Features) {
    for n in 0..brokers::HOSTS {
        let world = world.clone();
        sim.host(brokers::host(n), move || brokers::run(world.clone(), n));
    }
    let of_proxy = world.clone();
    let config = proxy::config(features, proxy::LIMITS);
    sim.host(PROXY, move || proxy::run(of_proxy.clone(), config.clone()));
    let mut topics = vec![("t".to_owned(), false), ("big-x".to_owned(), features.offload)];
    let mut read = vec![("t".to_owned(), false), ("big-x".to_owned(), false)];
    if features.routed {
        topics.push(("fires".to_owned(), false));
        read.push(("fires".to_owned(), true));
    }
    let promises = [Promise::Exactly, Promise::AtLeast, Promise::Exactly, Promise::AtMost];
    world.busy.set(promises.len());
    for host in 0..CLIENTS {
        let (world, topics, read) = (world.clone(), topics.clone(), read.clone());
        sim.host(client_host(host), move || {
            let (world, topics, read) = (world.clone(), topics.clone(), read.clone());
            async move {
                for (number, promise) in (0..).zip(promises) {
                    if number as usize % CLIENTS == host {
                        let orders = Orders { number, topics: topics.clone(), promise };
                        tokio::task::spawn_local(producer::run(world.clone(), orders));
                    }
                }
                if host == 0 {
                    tokio::task::spawn_local(consumer::read_all(world.clone(), read.clone()));
                } else {
                    let name = format!("c{host}");
                    tokio::task::spawn_local(consumer::follow(world.clone(), name, read.clone()));
                }
                tokio::task::spawn_local(admin::run(world.clone(), format!("a{host}")));
                tokio::task::spawn_local(admin::drained(world.clone(), format!("d{host}")));
                std::future::pending::<()>().await;
                Ok(())
            }
        });
    }
}
