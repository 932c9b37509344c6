//! What clients must not see: segments, those that are yet to come, and the placement log. Whatever
//! names one is told that there is none, nothing of it reaches a broker, and the rest of its
//! request is served.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages as m;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use protocol_ext::api;
use uuid::Uuid;

use super::{NORCAL, PLACEMENT, TOPIC, start};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::Proxy;
use crate::harness::records::single;
use crate::harness::requests::{fetch, id, name, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq};
use crate::routed::without_sequences;

/// A topic of brokers, and three that clients must not see; the second of them does not exist yet.
const NAMES: [&str; 4] = ["t", NORCAL[0], "fires-other-2999-02-01.2", PLACEMENT];
const HIDDEN: [&str; 3] = [NAMES[1], NAMES[2], NAMES[3]];
/// Those that have an id.
const WITH_IDS: [&str; 3] = [NAMES[0], NAMES[1], NAMES[3]];

const UNKNOWN: i16 = 3;
const FORBIDDEN: i16 = 29;
const EXISTS: i16 = 36;
const INVALID_REQUEST: i16 = 42;
const INVALID_TXN_STATE: i16 = 48;
const NOT_ATTEMPTED: i16 = 55;
const UNKNOWN_ID: i16 = 100;

/// Names, or ids as text, and error codes of an answer.
type Rows = Vec<(String, i16)>;

/// Somebody who asks.
struct Asker {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
}

impl Asker {
    async fn new(faults: Faults) -> Checked<Self> {
        let (brokers, proxy) = start(faults).await?;
        {
            let mut cluster = brokers.cluster();
            let listeners =
                format!("PLAINTEXT://{}:{}", cluster.nodes[1].host, cluster.nodes[1].port);
            cluster.configs = vec![("listeners".to_owned(), listeners)];
        }
        let client = Client::connect(proxy.port).await?;
        Ok(Self { brokers, proxy, client })
    }

    /// Asks of these topics, in all versions: the answer has these rows, and no broker gets a
    /// request of the client that names one of which it is not told 'plain'.
    async fn ask<Q, A>(
        &mut self,
        (key, versions): (i16, RangeInclusive<i16>),
        told: &[(&str, i16)],
        plain: i16,
        request: impl Fn(i16, &[&str]) -> Q,
        rows: impl Fn(A) -> Rows,
    ) -> Checked
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        for version in versions {
            let what = format!("{} version {version}", api::name(key));
            self.make_plain(key);
            let named: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
            let correlation = self.client.send(key, version, &request(version, &named)).await?;
            let frame = self.client.receive().await?;
            for host in [Brokers::host(0), Brokers::host(1)] {
                ensure!(!holds(&frame, &host), "the answer of {what} names a broker");
            }
            let mut rows = rows(answer(&frame, version, correlation)?);
            rows.sort_unstable();
            let mut expected: Rows =
                told.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect();
            expected.sort_unstable();
            ensure_eq!(rows, expected, "answer of {what}");
            let kept = std::mem::take(&mut self.brokers.cluster().kept);
            // The proxy has questions of its own.
            let of_client = kept.iter().filter(|(_, frame)| frame[8..12] == *b"\0\x02it");
            let of_client: Vec<&Bytes> = of_client.map(|(_, frame)| frame).collect();
            let goes_on = told.iter().any(|(_, code)| *code == plain);
            ensure_eq!(of_client.len(), usize::from(goes_on), "requests {what} at brokers");
            for (topic, _) in told.iter().filter(|(_, code)| *code != plain) {
                let names = of_client.iter().any(|frame| {
                    let by_id = holds(frame, id(topic).as_bytes());
                    by_id || holds(frame, topic)
                });
                ensure!(!names, "a request {what} at brokers that names {topic}");
            }
        }
        Ok(())
    }

    /// There is an ordinary topic, and requests of an API are kept.
    fn make_plain(&self, key: i16) {
        let mut cluster = self.brokers.cluster();
        if cluster.log("t", 0).is_none() {
            cluster.add_topic("t", 3);
        }
        cluster.keeping = Some(key);
        cluster.kept.clear();
    }

    /// One topic is told this, three another thing; these three alone too.
    async fn hides<Q, A>(
        &mut self,
        of: (i16, RangeInclusive<i16>),
        (plain, hidden): (i16, i16),
        request: impl Fn(i16, &[&str]) -> Q,
        rows: impl Fn(A) -> Rows,
    ) -> Checked
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let told: Vec<(&str, i16)> = HIDDEN.iter().map(|name| (*name, hidden)).collect();
        self.ask(of.clone(), &told, plain, &request, &rows).await?;
        let told = [&[(NAMES[0], plain)], &told[..]].concat();
        self.ask(of, &told, plain, request, rows).await
    }
}

fn holds(bytes: &[u8], part: impl AsRef<[u8]>) -> bool {
    let part = part.as_ref();
    bytes.windows(part.len()).any(|window| window == part)
}

fn text(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}

/// The name, or who has the id.
fn who(name: &TopicName, of: Uuid) -> String {
    let known = NAMES.iter().find(|name| id(name) == of);
    known.map_or_else(|| name.to_string(), |name| (*name).to_owned())
}

/// Rows of topics of which each partition has a code.
macro_rules! rows {
    ($topics:expr, $name:ident, $partitions:ident, $code:ident) => {
        $topics
            .into_iter()
            .flat_map(|topic| {
                let name = topic.$name.to_string();
                topic.$partitions.into_iter().map(move |row| (name.clone(), row.$code))
            })
            .collect()
    };
}

/// Topics of a request, with partition 0 of each.
macro_rules! asked {
    ($names:expr, $topic:ty, $name:ident, $partitions:ident, $partition:expr) => {
        $names
            .iter()
            .map(|topic| {
                let mut asked = <$topic>::default();
                asked.$name = name(topic);
                asked.$partitions = vec![$partition];
                asked
            })
            .collect::<Vec<_>>()
    };
}

/// The rows of an answer to Produce.
fn produced(answer: m::ProduceResponse) -> Rows {
    let topics = answer.responses.into_iter();
    let row = |topic: m::produce_response::TopicProduceResponse| {
        (who(&topic.name, topic.topic_id), topic.partition_responses[0].error_code)
    };
    topics.map(row).collect()
}

/// Produce and Fetch, by name and by id.
pub async fn data(faults: Faults) -> Checked {
    let mut asker = Asker::new(faults).await?;
    let batch = without_sequences(&single(b"x".to_vec()));
    let written = |version: i16, names: &[&str]| {
        let mut request = produce(version, -1, names[0], &[(0, batch.clone())]);
        let others = names[1..].iter();
        let others = others.map(|name| produce(version, -1, name, &[(0, batch.clone())]));
        request.topic_data.extend(others.flat_map(|other| other.topic_data));
        request
    };
    let told = produced;
    asker.hides((0, 3..=12), (0, UNKNOWN), written, told).await?;
    let by_id = |plain| {
        let codes = [plain, UNKNOWN_ID, UNKNOWN_ID];
        WITH_IDS.into_iter().zip(codes).collect::<Vec<(&str, i16)>>()
    };
    asker.ask((0, 13..=13), &by_id(0), 0, written, told).await?;
    asker.ask((0, 13..=13), &by_id(0)[1..], 0, written, told).await?;
    let read = |version: i16, names: &[&str]| {
        let mut request = fetch(version, names[0], &[(0, 0)], i32::MAX);
        let others = names[1..].iter().map(|name| fetch(version, name, &[(0, 0)], i32::MAX));
        request.topics.extend(others.flat_map(|other| other.topics));
        request
    };
    let told = |answer: m::FetchResponse| -> Rows {
        let topics = answer.responses.into_iter();
        let row = |topic: m::fetch_response::FetchableTopicResponse| {
            (who(&topic.topic, topic.topic_id), topic.partitions[0].error_code)
        };
        topics.map(row).collect()
    };
    asker.hides((1, 4..=12), (0, UNKNOWN), read, told).await?;
    asker.ask((1, 13..=18), &by_id(0), 0, read, told).await?;
    asker.ask((1, 13..=18), &by_id(0)[1..], 0, read, told).await
}

/// Offsets: listed, committed, forgotten, of epochs.
pub async fn offsets(faults: Faults) -> Checked {
    let mut asker = Asker::new(faults).await?;
    let request = |_: i16, names: &[&str]| {
        use m::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topics = asked!(names, ListOffsetsTopic, name, partitions, partition.clone());
        m::ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics)
    };
    let told = |answer: m::ListOffsetsResponse| rows!(answer.topics, name, partitions, error_code);
    asker.hides((2, 1..=7), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let partition = OffsetCommitRequestPartition::default();
        let topics = asked!(names, OffsetCommitRequestTopic, name, partitions, partition.clone());
        m::OffsetCommitRequest::default().with_topics(topics)
    };
    let told = |answer: m::OffsetCommitResponse| rows!(answer.topics, name, partitions, error_code);
    asker.hides((8, 2..=9), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::txn_offset_commit_request::TxnOffsetCommitRequestPartition as Partition;
        use m::txn_offset_commit_request::TxnOffsetCommitRequestTopic as Topic;
        let topics = asked!(names, Topic, name, partitions, Partition::default());
        m::TxnOffsetCommitRequest::default().with_topics(topics)
    };
    let told =
        |answer: m::TxnOffsetCommitResponse| rows!(answer.topics, name, partitions, error_code);
    asker.hides((28, 0..=5), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
        let partition = OffsetDeleteRequestPartition::default();
        let topics = asked!(names, OffsetDeleteRequestTopic, name, partitions, partition.clone());
        m::OffsetDeleteRequest::default().with_topics(topics)
    };
    let told = |answer: m::OffsetDeleteResponse| rows!(answer.topics, name, partitions, error_code);
    asker.hides((47, 0..=0), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
        let partition = OffsetForLeaderPartition::default();
        let topics = asked!(names, OffsetForLeaderTopic, topic, partitions, partition.clone());
        m::OffsetForLeaderEpochRequest::default().with_topics(topics)
    };
    let told = |answer: m::OffsetForLeaderEpochResponse| {
        rows!(answer.topics, topic, partitions, error_code)
    };
    asker.hides((23, 2..=4), (0, UNKNOWN), request, told).await
}

/// Topics as such, and their configurations.
pub async fn topics(faults: Faults) -> Checked {
    let mut asker = Asker::new(faults).await?;
    let request = |_: i16, names: &[&str]| {
        let topic = m::create_topics_request::CreatableTopic::default();
        let topics = names.iter().map(|n| topic.clone().with_name(name(n)).with_num_partitions(1));
        m::CreateTopicsRequest::default().with_topics(topics.collect())
    };
    let told = |answer: m::CreateTopicsResponse| -> Rows {
        answer.topics.into_iter().map(|row| (row.name.to_string(), row.error_code)).collect()
    };
    asker.hides((19, 2..=7), (EXISTS, FORBIDDEN), request, told).await?;
    // Nobody makes the carrier but the proxy.
    asker.ask((19, 2..=7), &[(TOPIC, EXISTS)], 0, request, told).await?;
    let request = |version: i16, names: &[&str]| {
        let request = m::DeleteTopicsRequest::default();
        if version < 6 {
            return request.with_topic_names(names.iter().map(|n| name(n)).collect());
        }
        let topic = m::delete_topics_request::DeleteTopicState::default();
        let topics = names.iter().map(|n| topic.clone().with_name(Some(name(n))));
        request.with_topics(topics.collect())
    };
    let told = |answer: m::DeleteTopicsResponse| -> Rows {
        let rows = answer.responses.into_iter();
        rows.map(|row| (who(&row.name.unwrap_or_default(), row.topic_id), row.error_code)).collect()
    };
    asker.hides((20, 1..=6), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        let topic = m::delete_topics_request::DeleteTopicState::default().with_name(None);
        let topics = names.iter().map(|n| topic.clone().with_topic_id(id(n)));
        m::DeleteTopicsRequest::default().with_topics(topics.collect())
    };
    let by_id: Vec<(&str, i16)> = WITH_IDS.into_iter().zip([0, UNKNOWN_ID, UNKNOWN_ID]).collect();
    asker.ask((20, 6..=6), &by_id, 0, request, told).await?;
    let request = |_: i16, names: &[&str]| {
        let topic = m::create_partitions_request::CreatePartitionsTopic::default().with_count(9);
        let topics = names.iter().map(|n| topic.clone().with_name(name(n)));
        m::CreatePartitionsRequest::default().with_topics(topics.collect())
    };
    let told = |answer: m::CreatePartitionsResponse| -> Rows {
        answer.results.into_iter().map(|row| (row.name.to_string(), row.error_code)).collect()
    };
    asker.hides((37, 0..=3), (0, UNKNOWN), request, told).await?;
    configs(&mut asker).await
}

async fn configs(asker: &mut Asker) -> Checked {
    macro_rules! resources {
        ($request:ty, $resource:ty, $answer:ty, $rows:ident) => {
            (
                |_: i16, names: &[&str]| {
                    let resource = <$resource>::default().with_resource_type(2);
                    let all = names.iter().map(|n| resource.clone().with_resource_name(text(n)));
                    <$request>::default().with_resources(all.collect())
                },
                |answer: $answer| -> Rows {
                    let rows = answer.$rows.into_iter();
                    rows.map(|row| (row.resource_name.to_string(), row.error_code)).collect()
                },
            )
        };
    }
    let (request, told) = resources!(
        m::DescribeConfigsRequest,
        m::describe_configs_request::DescribeConfigsResource,
        m::DescribeConfigsResponse,
        results
    );
    asker.hides((32, 1..=4), (0, UNKNOWN), request, told).await?;
    let (request, told) = resources!(
        m::AlterConfigsRequest,
        m::alter_configs_request::AlterConfigsResource,
        m::AlterConfigsResponse,
        responses
    );
    // Refused with a text that names listeners.
    asker.hides((33, 0..=2), (INVALID_REQUEST, UNKNOWN), request, told).await?;
    let (request, told) = resources!(
        m::IncrementalAlterConfigsRequest,
        m::incremental_alter_configs_request::AlterConfigsResource,
        m::IncrementalAlterConfigsResponse,
        responses
    );
    asker.hides((44, 0..=1), (0, UNKNOWN), request, told).await
}

/// What is done with partitions.
pub async fn partitions(faults: Faults) -> Checked {
    let mut asker = Asker::new(faults).await?;
    let request = |_: i16, names: &[&str]| {
        use m::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let partition = DeleteRecordsPartition::default();
        let topics = asked!(names, DeleteRecordsTopic, name, partitions, partition.clone());
        m::DeleteRecordsRequest::default().with_topics(topics)
    };
    let told =
        |answer: m::DeleteRecordsResponse| rows!(answer.topics, name, partitions, error_code);
    asker.hides((21, 0..=2), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
        let topics = asked!(names, AddPartitionsToTxnTopic, name, partitions, 0);
        m::AddPartitionsToTxnRequest::default().with_v3_and_below_topics(topics)
    };
    let told = |answer: m::AddPartitionsToTxnResponse| -> Rows {
        let topics = answer.results_by_topic_v3_and_below;
        rows!(topics, name, results_by_partition, partition_error_code)
    };
    // All or nothing.
    let codes = NAMES.into_iter().zip([NOT_ATTEMPTED, UNKNOWN, UNKNOWN, UNKNOWN]);
    let codes: Vec<(&str, i16)> = codes.collect();
    asker.ask((24, 0..=3), &codes, 0, request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
        let topics = asked!(names, WritableTxnMarkerTopic, name, partition_indexes, 0);
        let marker = WritableTxnMarker::default().with_topics(topics);
        m::WriteTxnMarkersRequest::default().with_markers(vec![marker])
    };
    let told = |answer: m::WriteTxnMarkersResponse| -> Rows {
        let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
        rows!(topics, name, partitions, error_code)
    };
    asker.hides((27, 1..=1), (0, UNKNOWN), request, told).await?;
    let with_virtual = [("t", 0), (TOPIC, INVALID_TXN_STATE)];
    asker.ask((27, 1..=1), &with_virtual, 0, request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
        let topics = asked!(names, AlterReplicaLogDirTopic, name, partitions, 0);
        let dir = AlterReplicaLogDir::default().with_path(text("/d")).with_topics(topics);
        m::AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
    };
    let told = |answer: m::AlterReplicaLogDirsResponse| -> Rows {
        rows!(answer.results, topic_name, partitions, error_code)
    };
    asker.hides((34, 1..=2), (0, UNKNOWN), request, told).await?;
    led(&mut asker).await
}

async fn led(asker: &mut Asker) -> Checked {
    let request = |_: i16, names: &[&str]| {
        use m::elect_leaders_request::TopicPartitions;
        let topics = asked!(names, TopicPartitions, topic, partitions, 0);
        m::ElectLeadersRequest::default().with_topic_partitions(Some(topics))
    };
    let told = |answer: m::ElectLeadersResponse| -> Rows {
        rows!(answer.replica_election_results, topic, partition_result, error_code)
    };
    asker.hides((43, 0..=2), (0, UNKNOWN), request, told).await?;
    let all = m::ElectLeadersRequest::default().with_topic_partitions(None);
    let answer: m::ElectLeadersResponse = asker.client.call(43, 2, &all).await?;
    ensure_eq!(answer.error_code, 0, "error of ElectLeaders of all");
    ensure_eq!(asker.brokers.cluster().kept.len(), 1, "requests about all at brokers");
    let request = |_: i16, names: &[&str]| {
        use m::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
        let partition = ReassignablePartition::default();
        let topics = asked!(names, ReassignableTopic, name, partitions, partition.clone());
        m::AlterPartitionReassignmentsRequest::default().with_topics(topics)
    };
    let told = |answer: m::AlterPartitionReassignmentsResponse| -> Rows {
        rows!(answer.responses, name, partitions, error_code)
    };
    asker.hides((45, 0..=1), (0, UNKNOWN), request, told).await?;
    let request = |_: i16, names: &[&str]| {
        use m::describe_producers_request::TopicRequest;
        let topics = asked!(names, TopicRequest, name, partition_indexes, 0);
        m::DescribeProducersRequest::default().with_topics(topics)
    };
    let told =
        |answer: m::DescribeProducersResponse| rows!(answer.topics, name, partitions, error_code);
    asker.hides((61, 0..=0), (0, UNKNOWN), request, told).await
}

#[tokio::test]
async fn nobody_writes_to_or_reads_what_clients_must_not_see() -> Checked {
    data(None).await
}

#[tokio::test]
async fn what_clients_must_not_see_has_no_offsets() -> Checked {
    offsets(None).await
}

#[tokio::test]
async fn nobody_makes_deletes_or_configures_what_clients_must_not_see() -> Checked {
    topics(None).await
}

#[tokio::test]
async fn nobody_does_anything_with_partitions_that_clients_must_not_see() -> Checked {
    partitions(None).await
}

/// A refusal has a row for each partition: of too many the connection ends instead.
#[tokio::test]
async fn a_refusal_of_too_many_rows_is_not_answered() -> Checked {
    let mut asker = Asker::new(None).await?;
    let indexes = vec![0; 30_000];
    let topic = m::describe_producers_request::TopicRequest::default().with_name(name(PLACEMENT));
    let topic = topic.with_partition_indexes(indexes);
    let request = m::DescribeProducersRequest::default().with_topics(vec![topic]);
    asker.client.send(61, 0, &request).await?;
    ensure!(asker.client.receive().await.is_err(), "a row for each");
    let metric = "firebreak_errors_total{blame=\"client\",kind=\"request\"}";
    asker.proxy.metric_becomes(metric, 1.0).await
}

/// The transactional id of the placement's writer.
const WRITER: &str = "firebreak-placement";
const ID_FORBIDDEN: i16 = 53;

/// No client can fence whoever leads the placement, nor end what it has begun.
pub async fn the_writer(faults: Faults) -> Checked {
    let mut asker = Asker::new(faults).await?;
    // A row for the request as a whole is called by who asks.
    let init = |_: i16, names: &[&str]| {
        m::InitProducerIdRequest::default().with_transactional_id(Some(text(names[0]).into()))
    };
    let told = |who: &'static str| {
        move |answer: m::InitProducerIdResponse| vec![(who.to_owned(), answer.error_code)]
    };
    asker.ask((22, 0..=5), &[(WRITER, ID_FORBIDDEN)], 0, init, told(WRITER)).await?;
    asker.ask((22, 0..=5), &[("mine", 0)], 0, init, told("mine")).await?;
    let nobody = m::InitProducerIdRequest::default().with_transactional_id(None);
    let answer: m::InitProducerIdResponse = asker.client.call(22, 4, &nobody).await?;
    ensure_eq!(answer.error_code, 0, "error of InitProducerId without a transactional id");
    let end = |_: i16, names: &[&str]| {
        m::EndTxnRequest::default().with_transactional_id(text(names[0]).into())
    };
    let told = |who: &'static str| {
        move |answer: m::EndTxnResponse| vec![(who.to_owned(), answer.error_code)]
    };
    asker.ask((26, 0..=5), &[(WRITER, ID_FORBIDDEN)], 0, end, told(WRITER)).await?;
    asker.ask((26, 0..=3), &[("mine", 0)], 0, end, told("mine")).await?;
    let offsets = |_: i16, names: &[&str]| {
        m::AddOffsetsToTxnRequest::default().with_transactional_id(text(names[0]).into())
    };
    let told = |answer: m::AddOffsetsToTxnResponse| vec![(WRITER.to_owned(), answer.error_code)];
    asker.ask((25, 0..=4), &[(WRITER, ID_FORBIDDEN)], 0, offsets, told).await?;
    let partitions = |version: i16, names: &[&str]| {
        use m::add_partitions_to_txn_request::{
            AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
        };
        let (id, request) = (text(WRITER).into(), m::AddPartitionsToTxnRequest::default());
        let topics = asked!(names, AddPartitionsToTxnTopic, name, partitions, 0);
        if version < 4 {
            return request.with_v3_and_below_transactional_id(id).with_v3_and_below_topics(topics);
        }
        let transaction = AddPartitionsToTxnTransaction::default().with_transactional_id(id);
        request.with_transactions(vec![transaction.with_topics(topics)])
    };
    let told = |answer: m::AddPartitionsToTxnResponse| -> Rows {
        let several = answer.results_by_transaction.into_iter();
        let topics = several.flat_map(|transaction| transaction.topic_results);
        let topics = topics.chain(answer.results_by_topic_v3_and_below);
        rows!(topics, name, results_by_partition, partition_error_code)
    };
    asker.ask((24, 0..=5), &[("t", ID_FORBIDDEN)], 0, partitions, told).await?;
    let commit = |_: i16, names: &[&str]| {
        use m::txn_offset_commit_request::TxnOffsetCommitRequestPartition as Partition;
        use m::txn_offset_commit_request::TxnOffsetCommitRequestTopic as Topic;
        let topics = asked!(names, Topic, name, partitions, Partition::default());
        let request = m::TxnOffsetCommitRequest::default().with_topics(topics);
        request.with_transactional_id(text(WRITER).into())
    };
    let told =
        |answer: m::TxnOffsetCommitResponse| rows!(answer.topics, name, partitions, error_code);
    asker.ask((28, 0..=5), &[("t", ID_FORBIDDEN)], 0, commit, told).await?;
    // A broker adds the partitions of a request to its transaction.
    let batch = single(b"x".to_vec());
    let write = |version: i16, names: &[&str]| {
        let request = produce(version, -1, names[0], &[(0, batch.clone())]);
        request.with_transactional_id(Some(text(WRITER).into()))
    };
    asker.ask((0, 3..=13), &[("t", ID_FORBIDDEN)], 0, write, produced).await
}

#[tokio::test]
async fn nobody_takes_the_place_of_the_placements_writer() -> Checked {
    the_writer(None).await
}
