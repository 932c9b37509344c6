//! Followers copy logs as they lie there: no value is restored for them, in any version.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, ReplicaState};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Setup};
use crate::harness::records::{read, single};
use crate::harness::requests::{fetch, fetched};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise};

const ALL: i32 = i32::MAX;
/// First version in which a follower says so behind the topics.
const WITH_REPLICA_STATE: i16 = 15;

/// The request, asked by a replica of this id.
fn asked_by(replica: i32, version: i16, request: FetchRequest) -> FetchRequest {
    match version {
        WITH_REPLICA_STATE.. => {
            let state = ReplicaState::default().with_replica_id(replica.into());
            request.with_replica_state(state.with_replica_epoch(7))
        }
        _ => request.with_replica_id(replica.into()),
    }
}

/// What a follower is given is what lies in the log; others are given values.
pub async fn logs_are_copied(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, faults).offload(&store, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let sent = single(noise(1, 20_000));
    let (error, _) = client.produce(9, "t", 0, &sent).await?;
    ensure_eq!(error, 0, "error of Produce");
    let stored = brokers.cluster().log("t", 0).and_then(|log| log.batches().next().cloned());
    let stored = stored.ok_or_else(|| failure("no batch in the log"))?;
    for version in [4, 11, 12, 13, 14, 15, 16, 17, 18] {
        let request = || fetch(version, "t", &[(0, 0)], ALL);
        let of_follower = asked_by(5, version, request());
        let first = first(client.call(1, version, &of_follower).await?)?;
        ensure!(first == stored, "{} bytes for a follower by Fetch {version}", first.len());
        // Nobody, and who only looks as a consumer does.
        for replica in [-1, -2] {
            let of_consumer = asked_by(replica, version, request());
            let first = self::first(client.call(1, version, &of_consumer).await?)?;
            ensure!(read(&first) == read(&sent), "records for {replica} by Fetch {version} differ");
        }
    }
    // Longer than what is looked at as it passes.
    let mut long = fetch(17, "t", &[(0, 0)], ALL);
    let more = (1000..8000).map(|n| FetchPartition::default().with_partition(n));
    long.topics[0].partitions.extend(more);
    for (replica, expected) in [(5, &stored), (-1, &sent)] {
        let first = first(client.call(1, 17, &asked_by(replica, 17, long.clone())).await?)?;
        ensure!(read(&first) == read(expected), "records for {replica} by a long request differ");
    }
    Ok(())
}

/// The records of an answer's first partition.
fn first(answer: FetchResponse) -> Checked<Bytes> {
    let (partition, error, section) = fetched(answer)?.remove(0);
    ensure_eq!((partition, error), (0, 0), "partition and error of Fetch");
    Ok(section)
}

#[tokio::test]
async fn followers_are_given_what_lies_in_the_log() -> Checked {
    logs_are_copied(None).await
}
