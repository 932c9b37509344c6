//! Carriers: the real and empty topics that stand for virtual ones to groups.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, FetchResponse, MetadataRequest,
    MetadataResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use uuid::Uuid;

use super::{NORCAL, OTHER, ROUTED, TOPIC, located, start};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::requests::{fetch, id, name, produce};
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, until};

const METADATA: i16 = 3;
const CREATE_TOPICS: i16 = 19;
const LEADER_NOT_AVAILABLE: i16 = 5;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REQUEST: i16 = 42;
const DELETION_DISABLED: i16 = 73;
const UNKNOWN: i16 = 3;
const UNKNOWN_ID: i16 = 100;

/// Error, id and number of partitions of the virtual topic.
async fn told(client: &mut Client) -> Checked<(i16, Uuid, usize)> {
    let topic = MetadataRequestTopic::default().with_name(Some(name(TOPIC)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let mut answer: MetadataResponse = client.call(METADATA, 12, &request).await?;
    ensure_eq!(answer.topics.len(), 1, "topics told");
    let topic = answer.topics.remove(0);
    Ok((topic.error_code, topic.topic_id, topic.partitions.len()))
}

/// What is missing is made, and clients see the carrier's id and no part.
pub async fn the_carrier_is_made(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).start().await;
    let made = async || {
        let mut cluster = brokers.cluster();
        let mut partitions =
            |topic| (0..9).take_while(|n| cluster.log(topic, *n).is_some()).count();
        let all = [partitions(TOPIC), partitions(NORCAL), partitions(OTHER)];
        (all == [4, 2, 2]).then_some(())
    };
    until("a carrier beside the physical topics", made).await?;
    let mut client = Client::connect(proxy.port).await?;
    until("its id", async || match told(&mut client).await {
        Ok((0, told, 4)) => (told == id(TOPIC)).then_some(()),
        _ => None,
    })
    .await?;
    for version in [0, 5, 12] {
        let all = client.metadata(version).await?.topics;
        let mut all: Vec<String> =
            all.iter().filter_map(|topic| Some(topic.name.as_ref()?.to_string())).collect();
        all.sort_unstable();
        ensure_eq!(all, [TOPIC, "t"], "all topics in version {version}");
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_carrier_is_made_and_its_id_told() -> Checked {
    the_carrier_is_made(None).await
}

/// A virtual topic whose carrier is not there yet has no id that could change later.
pub async fn a_carrier_is_waited_for(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    brokers.cluster().versions.retain(|(key, ..)| *key != CREATE_TOPICS);
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let (code, told_id, partitions) = told(&mut client).await?;
    let expected = (LEADER_NOT_AVAILABLE, Uuid::nil(), 0);
    ensure_eq!((code, told_id, partitions), expected, "told of a topic without a carrier");
    brokers.cluster().add_topic(TOPIC, 4);
    ensure_eq!(told(&mut client).await?, (0, id(TOPIC), 4), "told once it is there");
    Ok(())
}

#[tokio::test]
async fn a_virtual_topic_without_a_carrier_is_told_as_one_that_is_being_made() -> Checked {
    a_carrier_is_waited_for(None).await
}

async fn fetched_by(client: &mut Client, id: Uuid) -> Checked<(i16, usize)> {
    let mut request = fetch(13, TOPIC, &[(0, 0)], i32::MAX);
    request.topics[0].topic_id = id;
    let answer: FetchResponse = client.call::<FetchRequest, _>(1, 13, &request).await?;
    let row = &answer.responses[0].partitions[0];
    Ok((row.error_code, row.records.as_ref().map_or(0, Bytes::len)))
}

async fn produced_by(client: &mut Client, id: Uuid) -> Checked<i16> {
    let batch = located(Some("norcal"), b"x".to_vec());
    let mut request = produce(13, -1, TOPIC, &[(0, batch)]);
    request.topic_data[0].topic_id = id;
    let answer: ProduceResponse = client.call::<ProduceRequest, _>(0, 13, &request).await?;
    Ok(answer.responses[0].partition_responses[0].error_code)
}

fn renew(brokers: &Brokers, n: u128) -> Uuid {
    let new = Uuid::from_u128(n);
    let mut cluster = brokers.cluster();
    let carrier = cluster.topics.iter_mut().find(|topic| topic.name == TOPIC);
    carrier.expect("a carrier").id = new;
    new
}

/// A carrier that was deleted and made again has another id: the old one is nobody's.
pub async fn a_new_id_is_followed(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let (_, old, _) = told(&mut client).await?;
    ensure_eq!(produced_by(&mut client, old).await?, 0, "error of Produce by the first id");
    let new = renew(&brokers, 77);
    ensure_eq!(told(&mut client).await?, (0, new, 4), "told of the carrier made again");
    ensure_eq!(produced_by(&mut client, new).await?, 0, "error of Produce by the new id");
    let (code, bytes) = fetched_by(&mut client, new).await?;
    ensure!(code == 0 && bytes > 0, "Fetch by the new id: error {code}, {bytes} bytes");
    ensure_eq!(fetched_by(&mut client, old).await?, (UNKNOWN_ID, 0), "Fetch by the old id");
    ensure_eq!(produced_by(&mut client, old).await?, UNKNOWN_ID, "Produce by the old id");
    Ok(())
}

#[tokio::test]
async fn an_id_that_changed_is_followed() -> Checked {
    a_new_id_is_followed(None).await
}

fn in_carrier(brokers: &Brokers) -> i64 {
    let mut cluster = brokers.cluster();
    (0..4).map(|n| cluster.log(TOPIC, n).map_or(0, |log| log.end())).sum()
}

/// An id that this proxy has not seen yet, for another one told it to the client, is asked for
/// before anything goes on.
pub async fn an_unseen_id_reaches_no_carrier(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup.refresh_ms(600_000)).await;
    let mut client = Client::connect(proxy.port).await?;
    told(&mut client).await?;
    let new = renew(&brokers, 78);
    ensure_eq!(produced_by(&mut client, new).await?, 0, "error of Produce");
    ensure_eq!(in_carrier(&brokers), 0, "records in the carrier");
    let newer = renew(&brokers, 79);
    let (code, bytes) = fetched_by(&mut client, newer).await?;
    ensure!(code == 0 && bytes > 0, "error {code}, {bytes} bytes of Fetch");
    Ok(())
}

#[tokio::test]
async fn an_id_that_nobody_has_seen_is_asked_for_first() -> Checked {
    an_unseen_id_reaches_no_carrier(None).await
}

/// A request of versions that the codec crate does not know: one partition of a topic.
pub fn old_request(key: i16, version: i16, topic: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(-1);
    match key {
        0 => {
            out.put_i16(1);
            out.put_i32(1000);
        }
        1 => {
            out.put_i32(-1);
            out.put_i32(0);
            out.put_i32(1);
        }
        _ => out.put_i32(-1),
    }
    out.put_i32(1);
    out.put_i16(i16::try_from(topic.len()).expect("short"));
    out.put_slice(topic.as_bytes());
    out.put_i32(1);
    out.put_i32(0);
    match key {
        0 => out.put_i32(0),
        1 => {
            out.put_i64(0);
            out.put_i32(1000);
        }
        _ => {
            out.put_i64(-1);
            out.put_i32(1);
        }
    }
    let length = i32::try_from(out.len() - 4).expect("short");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Versions without batches cannot be routed: a broker would take them for the carrier.
pub async fn old_versions_reach_no_carrier(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup.refresh_ms(600_000)).await;
    let all = [(0, 0), (0, 2), (1, 0), (2, 0)].into_iter();
    for ((key, version), named) in all.flat_map(|of| [(of, TOPIC), (of, NORCAL)]) {
        let of_clients = |brokers: &Brokers| {
            let seen = brokers.cluster().seen.clone();
            seen.iter().filter(|s| s.head.api == key && s.head.version == version).count()
        };
        let mut client = Client::connect(proxy.port).await?;
        let before = of_clients(&brokers);
        client.send_raw(&old_request(key, version, named)).await?;
        ensure!(client.receive().await.is_err(), "an answer to {key} in version {version}");
        ensure_eq!(of_clients(&brokers), before, "requests {key} v{version} at a broker");
        let mut client = Client::connect(proxy.port).await?;
        client.send_raw(&old_request(key, version, "t")).await?;
        let arrived = async || (of_clients(&brokers) == before + 1).then_some(());
        until("a request about another topic at a broker", arrived).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_virtual_topic_in_a_version_without_batches_goes_nowhere() -> Checked {
    old_versions_reach_no_carrier(None).await
}

fn commit(of: &[(&str, &[i64])]) -> OffsetCommitRequest {
    let topics = of.iter().map(|(topic, offsets)| {
        let partitions = (0..).zip(*offsets).map(|(index, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(*offset)
        });
        let row = OffsetCommitRequestTopic::default().with_name(name(topic));
        row.with_partitions(partitions.collect())
    });
    OffsetCommitRequest::default().with_topics(topics.collect())
}

fn commit_in_transaction(of: &[(&str, &[i64])]) -> TxnOffsetCommitRequest {
    let topics = of.iter().map(|(topic, offsets)| {
        let partitions = (0..).zip(*offsets).map(|(index, offset)| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(*offset)
        });
        let row = TxnOffsetCommitRequestTopic::default().with_name(name(topic));
        row.with_partitions(partitions.collect())
    });
    TxnOffsetCommitRequest::default().with_topics(topics.collect())
}

/// Logical offsets are the carrier's to keep; only negative ones are no offsets.
pub async fn commits_are_the_carriers(faults: Faults) -> Checked {
    const FAR: i64 = 1 << 62;
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let asked: [(&str, &[i64]); 2] = [(TOPIC, &[FAR, -1, 0, -2]), ("t", &[-1, 5])];
    let kept = [(TOPIC, 0, FAR), (TOPIC, 2, 0), ("t", 0, -1), ("t", 1, 5)];
    let kept = kept.map(|(topic, partition, offset)| (topic.to_owned(), partition, offset));
    let mut expected: Vec<(String, i32, i16)> =
        kept.iter().map(|(topic, partition, _)| (topic.clone(), *partition, 0)).collect();
    expected.extend([1, 3].map(|partition| (TOPIC.to_owned(), partition, INVALID_REQUEST)));
    expected.sort_unstable();
    for version in 2..=9 {
        let answer: OffsetCommitResponse = client.call(8, version, &commit(&asked)).await?;
        let rows = answer.topics.iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic
                .partitions
                .iter()
                .map(move |row| (name.clone(), row.partition_index, row.error_code))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        ensure_eq!(rows, expected, "errors of OffsetCommit in version {version}");
        let taken = std::mem::take(&mut brokers.cluster().commits);
        ensure_eq!(taken, kept, "commits of version {version} at the broker");
    }
    for version in 0..=5 {
        let request = commit_in_transaction(&asked);
        let answer: TxnOffsetCommitResponse = client.call(28, version, &request).await?;
        let rows = answer.topics.iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic
                .partitions
                .iter()
                .map(move |row| (name.clone(), row.partition_index, row.error_code))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        ensure_eq!(rows, expected, "errors of TxnOffsetCommit in version {version}");
        let taken = std::mem::take(&mut brokers.cluster().commits);
        ensure_eq!(taken, kept, "commits of version {version} at the broker");
    }
    let answer: OffsetCommitResponse = client.call(8, 9, &commit(&[(TOPIC, &[-1])])).await?;
    ensure_eq!(answer.topics[0].partitions[0].error_code, INVALID_REQUEST, "error of one alone");
    ensure!(brokers.cluster().commits.is_empty(), "a negative offset at the broker");
    Ok(())
}

#[tokio::test]
async fn commits_of_logical_offsets_pass_and_negative_ones_do_not() -> Checked {
    commits_are_the_carriers(None).await
}

/// A virtual topic tells no leader epochs, so none ends anywhere.
pub async fn epochs_end_nowhere(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let batch = located(None, b"x".to_vec());
    brokers.cluster().log("t", 0).expect("a log").append(&batch).expect("a batch");
    let partitions = |indexes: &[i32]| {
        let rows = indexes.iter().map(|n| OffsetForLeaderPartition::default().with_partition(*n));
        rows.collect::<Vec<_>>()
    };
    let topic = |topic: &str, indexes: &[i32]| {
        OffsetForLeaderTopic::default().with_topic(name(topic)).with_partitions(partitions(indexes))
    };
    for version in 2..=4 {
        let topics = vec![topic(TOPIC, &[0, 3, 4]), topic("t", &[0])];
        let request = OffsetForLeaderEpochRequest::default().with_topics(topics);
        let answer: OffsetForLeaderEpochResponse = client.call(23, version, &request).await?;
        let mut rows: Vec<_> = answer
            .topics
            .iter()
            .flat_map(|topic| {
                let name = topic.topic.to_string();
                topic.partitions.iter().map(move |row| {
                    let end = (row.leader_epoch, row.end_offset);
                    (name.clone(), row.partition, row.error_code, end)
                })
            })
            .collect();
        rows.sort_unstable();
        let expected = [
            (TOPIC, 0, 0, (-1, -1)),
            (TOPIC, 3, 0, (-1, -1)),
            (TOPIC, 4, UNKNOWN, (-1, -1)),
            ("t", 0, 0, (0, 1)),
        ];
        let expected = expected.map(|(topic, n, code, end)| (topic.to_owned(), n, code, end));
        ensure_eq!(rows, expected, "ends of epochs in version {version}");
    }
    Ok(())
}

#[tokio::test]
async fn epochs_of_a_virtual_topic_end_nowhere() -> Checked {
    epochs_end_nowhere(None).await
}

/// A virtual topic keeps its partitions and its life, whatever clients ask for.
pub async fn the_structure_is_kept(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    brokers.cluster().add_topic("u", 1);
    let mut client = Client::connect(proxy.port).await?;
    for version in 0..=3 {
        let topics = [TOPIC, NORCAL, "u"]
            .map(|topic| CreatePartitionsTopic::default().with_name(name(topic)).with_count(9));
        let request = CreatePartitionsRequest::default().with_topics(topics.to_vec());
        let answer: CreatePartitionsResponse = client.call(37, version, &request).await?;
        let rows = answer
            .results
            .iter()
            .map(|row| (row.name.to_string(), row.error_code, row.error_message.is_some()));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        let expected =
            [(TOPIC, INVALID_PARTITIONS, true), (NORCAL, UNKNOWN, false), ("u", 0, false)];
        let expected = expected.map(|(topic, code, text)| (topic.to_owned(), code, text));
        ensure_eq!(rows, expected, "errors of CreatePartitions in version {version}");
    }
    ensure!(brokers.cluster().log("u", 8).is_some(), "an ordinary topic did not grow");
    for version in [1, 5, 6] {
        brokers.cluster().add_topic("w", 1);
        let names = [TOPIC, OTHER, "w"];
        let mut request = DeleteTopicsRequest::default();
        if version < 6 {
            request.topic_names = names.map(name).to_vec();
        } else {
            let state = DeleteTopicState::default();
            let by_name = names.map(|topic| state.clone().with_name(Some(name(topic))));
            request.topics = by_name.to_vec();
            request.topics.push(state.with_topic_id(id(TOPIC)));
        }
        let answer: DeleteTopicsResponse = client.call(20, version, &request).await?;
        let rows = answer.responses.iter().map(|row| {
            let name = row.name.as_ref().map(|name| name.to_string());
            (name.unwrap_or_default(), row.error_code)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        let expected = [("", DELETION_DISABLED), (TOPIC, DELETION_DISABLED), (OTHER, UNKNOWN)];
        let expected = expected.into_iter().skip(usize::from(version < 6)).chain([("w", 0)]);
        let expected: Vec<_> = expected.map(|(topic, code)| (topic.to_owned(), code)).collect();
        ensure_eq!(rows, expected, "errors of DeleteTopics in version {version}");
    }
    let cluster = brokers.cluster();
    let left = |topic: &str| cluster.topics.iter().find(|t| t.name == topic).map(|t| t.logs.len());
    ensure_eq!([left(TOPIC), left(OTHER), left("w")], [Some(4), Some(2), None], "partitions left");
    Ok(())
}

#[tokio::test]
async fn clients_cannot_grow_or_delete_a_virtual_topic() -> Checked {
    the_structure_is_kept(None).await
}

/// Records are deleted where they are.
pub async fn records_are_deleted_in_the_parts(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    for region in [Some("norcal"), None] {
        for q in [0, 1] {
            for _ in 0..3 {
                let batch = located(region, b"x".to_vec());
                ensure_eq!(client.produce(9, TOPIC, q, &batch).await?.0, 0, "error of Produce");
            }
        }
    }
    brokers.cluster().log("t", 0).expect("a log").append(&located(None, vec![1])).expect("one");
    let topic = |topic: &str, offsets: &[(i32, i64)]| {
        let rows = offsets.iter().map(|(index, offset)| {
            DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
        });
        DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(rows.collect())
    };
    for version in 0..=2 {
        let topics = vec![topic(TOPIC, &[(1, 2), (2, -1), (3, 9), (4, 0)]), topic("t", &[(0, 1)])];
        let request = DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(5000);
        let answer: DeleteRecordsResponse = client.call(21, version, &request).await?;
        let mut rows: Vec<_> = answer
            .topics
            .iter()
            .flat_map(|topic| {
                let name = topic.name.to_string();
                topic.partitions.iter().map(move |row| {
                    (name.clone(), row.partition_index, row.error_code, row.low_watermark)
                })
            })
            .collect();
        rows.sort_unstable();
        let expected =
            [(TOPIC, 1, 0, 2), (TOPIC, 2, 0, 3), (TOPIC, 3, 1, -1), (TOPIC, 4, UNKNOWN, -1)];
        let expected = expected.into_iter().chain([("t", 0, 0, 1)]);
        let expected: Vec<_> =
            expected.map(|(topic, n, code, low)| (topic.to_owned(), n, code, low)).collect();
        ensure_eq!(rows, expected, "answers of DeleteRecords in version {version}");
    }
    let mut cluster = brokers.cluster();
    let starts = [(NORCAL, 0), (NORCAL, 1), (OTHER, 0), (OTHER, 1)]
        .map(|(topic, n)| cluster.log(topic, n).expect("a log").start());
    ensure_eq!(starts, [0, 2, 3, 0], "first offsets of the physical partitions");
    Ok(())
}

#[tokio::test]
async fn records_of_a_virtual_topic_are_deleted_in_its_physical_ones() -> Checked {
    records_are_deleted_in_the_parts(None).await
}

/// A carrier that holds records is none: somebody wrote to a topic of that name.
pub async fn records_in_a_carrier_are_told_of(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    brokers.cluster().add_topic(TOPIC, 4);
    let batch = located(None, b"lost".to_vec());
    brokers.cluster().log(TOPIC, 3).expect("a log").append(&batch).expect("a batch");
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).start().await;
    proxy.metric_becomes("firebreak_hidden_topics", 1.0).await?;
    let line = "is hidden by the virtual topic of its name";
    proxy.says(line, 1).await?;
    let brokers = Brokers::start(2).await;
    brokers.cluster().add_topic(TOPIC, 4);
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).start().await;
    // The look-out asks for the ends of all partitions.
    let looked = async || (brokers.cluster().count(2) >= 2).then_some(());
    until("a look at the carrier", looked).await?;
    tokio::time::sleep(QUIET).await;
    ensure_eq!(proxy.logged(line), 0, "lines about an empty one");
    ensure!(proxy.metric("firebreak_hidden_topics").await? < 0.5, "an empty one is hidden");
    Ok(())
}

#[tokio::test]
async fn a_topic_of_the_name_that_holds_records_is_told_of_and_an_empty_one_is_not() -> Checked {
    records_in_a_carrier_are_told_of(None).await
}

/// A physical topic that somebody made with other partitions is told of.
pub async fn misshapen_topics_are_told_of(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    for (topic, partitions) in [(TOPIC, 4), (NORCAL, 1), (OTHER, 2)] {
        brokers.cluster().add_topic(topic, partitions);
    }
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).start().await;
    proxy.metric_becomes("firebreak_misshapen_topics", 1.0).await?;
    let line = "a physical topic has another number of partitions";
    until("a line", async || (proxy.logged(line) > 0).then_some(())).await?;
    let told = proxy.log();
    let told: Vec<&str> = told.lines().filter(|told| told.contains(line)).collect();
    ensure_eq!(told.len(), 1, "lines about it");
    ensure!(told[0].contains("topic=fires-norcal partitions=1 wanted=2"), "it is {}", told[0]);
    Ok(())
}

#[tokio::test]
async fn a_physical_topic_of_other_partitions_is_told_of() -> Checked {
    misshapen_topics_are_told_of(None).await
}
