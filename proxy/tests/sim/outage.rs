//! A store that is away for ten minutes, and one that never answers for one object: what only
//! simulated time can wait for.

use std::rc::Rc;
use std::time::Duration;

use firebreak::limits::FETCH_DEADLINE;
use firebreak::store::weather::{self, ALWAYS, Weather};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use turmoil::Sim;

use crate::brokers;
use crate::connection::{Lost, PROXY};
use crate::producer::NOT_STORED_BATCHES;
use crate::proxy::{self, Features};
use crate::records::{self, NO_SEQUENCE, Numbered, batch};
use crate::scenario::{Outcome, client_host, hosts, network, prepare, run_phase, step, watched};
use crate::seeds::apart;
use crate::topology::{Client, topic_name};
use crate::world::{Phase, World};

/// Simulated time between two looks at a host.
const TICK: Duration = Duration::from_millis(10);
/// Time before the store goes.
const BEFORE: Duration = Duration::from_secs(3);
/// Time for which it is away.
const AWAY: Duration = Duration::from_secs(600);
/// Time after which clients go on once it is back.
const AFTER: Duration = Duration::from_secs(4);
/// How much longer clients rest meanwhile.
const SLOW: u32 = 100;
/// A seed whose simulation has a store and no virtual topic.
const SEED: u64 = 1;
const TOPIC: &str = "big-x";
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;

/// Steps for some time.
fn pass(sim: &mut Sim<'_>, world: &World, time: Duration) -> bool {
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        if !step(sim, world) {
            return false;
        }
    }
    true
}

fn away(world: &Rc<World>) {
    let features = Features::of(world.seed);
    prepare(world, features, 2);
    // Brokers close what is idle, and a value that nobody can be told of closes its connection.
    world.calm.set(false);
    let mut sim = network(world, TICK);
    hosts(&mut sim, world, features);
    if !pass(&mut sim, world, BEFORE) {
        return;
    }
    let counts = || {
        let acked = world.counted("records acknowledged");
        (weather::kept().0, acked, world.counted("large values read"))
    };
    let before = counts();
    world.slow.set(SLOW);
    weather::set(Weather { late: Duration::from_millis(20), failing: ALWAYS });
    if !pass(&mut sim, world, AWAY) {
        return;
    }
    let meanwhile = counts();
    world.slow.set(1);
    weather::set(Weather::default());
    if !pass(&mut sim, world, AFTER) {
        return;
    }
    let after = counts();
    let refused = world.counted(NOT_STORED_BATCHES);
    println!(
        "objects, records acknowledged, large values read: {before:?}, {meanwhile:?}, {after:?}"
    );
    println!("batches not stored: {refused}");
    if before.0 == 0 || before.2 == 0 {
        world.violate("nothing was stored or read before the store went away");
    }
    if meanwhile.1 < before.1 + 100 || refused < 100 {
        world.violate("small values do not go on while the store is away, or large ones do");
    }
    if after.0 <= meanwhile.0 || after.2 <= meanwhile.2 {
        world.violate("nothing is stored or read once the store is back");
    }
    for phase in [Phase::Finish, Phase::Read] {
        if !run_phase(&mut sim, world, phase) {
            return;
        }
    }
}

fn silent(world: &Rc<World>) {
    let features = Features::of(world.seed);
    prepare(world, features, 2);
    // Brokers close what is idle, and a value that nobody can be told of closes its connection.
    world.calm.set(false);
    // No broker closes the connection meanwhile.
    world.idle.set(AWAY);
    let mut sim = network(world, TICK);
    for n in 0..brokers::HOSTS {
        let world = world.clone();
        sim.host(brokers::host(n), move || brokers::run(world.clone(), n));
    }
    let of_proxy = world.clone();
    let config = proxy::config(features, "");
    sim.host(PROXY, move || proxy::run(of_proxy.clone(), config.clone()));
    let of_client = world.clone();
    world.busy.set(1);
    sim.host(client_host(0), move || {
        let world = of_client.clone();
        async move {
            if let Err(Lost) = read_beside_silence(&world).await {
                world.violate("a request has no answer");
            }
            world.busy.set(0);
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    while world.busy.get() > 0 && sim.elapsed() < AWAY {
        if !step(&mut sim, world) {
            return;
        }
    }
    if world.busy.get() > 0 {
        world.violate("the client is not done");
    }
}

/// One object of two is silent: the other is read, and the silent one once it is heard again.
async fn read_beside_silence(world: &Rc<World>) -> Result<(), Lost> {
    world.patience.set(FETCH_DEADLINE * 2);
    // All brokers are there.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let node = world.ids.borrow()[0];
    if let Some(topic) = world.cluster.borrow_mut().topics.iter_mut().find(|t| t.name == TOPIC) {
        topic.logs.iter_mut().for_each(|log| log.leader = Some((node, 100)));
    }
    let client = Client::new(world, "c0");
    client.learn(&[TOPIC.to_owned()]).await;
    let open = client.to_node(node).await?;
    let sent = [0, 1].map(|partition| Numbered { producer: 0, partition, number: 0, bytes: 6000 });
    let data = sent.map(|record| {
        PartitionProduceData::default()
            .with_index(record.partition)
            .with_records(Some(batch(&[record], NO_SEQUENCE)))
    });
    let data = TopicProduceData::default()
        .with_name(topic_name(TOPIC))
        .with_partition_data(data.into_iter().collect());
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(2000).with_topic_data(vec![data]);
    let answer: ProduceResponse = open.call(PRODUCE, 9, &request).await?;
    for row in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
        if row.error_code != 0 {
            world.violate(format!("error {} of Produce", row.error_code));
        }
    }
    let partitions = [0, 1].map(|partition| {
        FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20)
    });
    let asked = FetchTopic::default()
        .with_topic(topic_name(TOPIC))
        .with_partitions(partitions.into_iter().collect());
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(100)
        .with_max_bytes(1 << 20)
        .with_topics(vec![asked]);
    // The object of the second partition, as its key says.
    for (silent, expected) in [(Some("/1/"), &sent[..1]), (None, &sent[..])] {
        weather::silence(silent);
        let begun = world.time();
        let answer: FetchResponse = open.call(FETCH, 12, &request).await?;
        let took = world.time() - begun;
        let mut came = Vec::new();
        for row in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            if row.error_code != 0 {
                world.violate(format!("error {} of a partition", row.error_code));
            }
            match records::read(&row.records.clone().unwrap_or_default()) {
                Ok(records) => came.extend(records.into_iter().map(|(_, record)| record)),
                Err(why) => world.violate(why),
            }
        }
        let late =
            world.plane.borrow().as_ref().map_or(0, |plane| plane.metrics.offload_late.get());
        println!("silent {silent:?}: {} values after {took:?}, late {late}", came.len());
        if came != expected {
            world.violate(format!("{} values came beside {silent:?}", came.len()));
        }
        if late != 1 || took > FETCH_DEADLINE + Duration::from_secs(1) {
            world.violate(format!("{late} answers are counted as late, after {took:?}"));
        }
    }
    client.close_all();
    Ok(())
}

/// Runs one of them.
pub fn run_silent() -> Outcome {
    apart(|| watched(SEED, silent))
}

/// See [`run_silent`].
pub fn run_away() -> Outcome {
    apart(|| watched(SEED, away))
}

#[test]
fn a_store_that_is_away_for_ten_minutes_loses_nothing_and_clients_go_on() {
    let _none = crate::seeds::FAULTS.read();
    let outcome = run_away();
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[test]
fn an_object_that_is_never_answered_for_keeps_no_other_partition() {
    let _none = crate::seeds::FAULTS.read();
    let outcome = run_silent();
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}
