//! Fetch (versions 4 to 18): stored batches; an error and endpoints for a partition that moved.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use super::{FakeCluster, FakeTopic, Request, text};
use crate::reply;
use crate::wire::WireError;

const READ_COMMITTED: i8 = 1;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// As Kafka numbers it in a set of bits (KIP-430).
const READ: i32 = 1 << 3;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNKNOWN_TOPIC_ID: i16 = 100;

pub(super) fn answer(cluster: &mut FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let mut asked: FetchRequest = request.decode()?;
    let version = request.head.version;
    let goes_on = asked.session_epoch > 0;
    let entered = cluster.fetch_sessions.as_mut().map_or(Ok(0), |all| all.enter(&mut asked));
    let answer = match entered {
        Err(code) => FetchResponse::default().with_error_code(code),
        Ok(session) => {
            let mut answer = answered(cluster, version, &asked);
            if let Some(sessions) = &mut cluster.fetch_sessions {
                sessions.tell(session, goes_on, &mut answer);
            }
            answer
        }
    };
    reply::frame(request.head, &answer)
}

fn answered(cluster: &FakeCluster, version: i16, asked: &FetchRequest) -> FetchResponse {
    let committed = asked.isolation_level == READ_COMMITTED;
    let mut left = usize::try_from(asked.max_bytes).unwrap_or(0);
    let mut first = true;
    let topics = asked.topics.iter().map(|asked| {
        let topic = find(cluster, version, asked);
        let partitions = asked.partitions.iter().map(|asked| {
            let mut answer = partition(cluster, topic, (version, committed), asked, (left, first));
            let bytes = answer.records.as_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(bytes);
            first &= bytes == 0;
            if version < 11 {
                answer.preferred_read_replica = (-1).into();
            }
            answer
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(asked.topic.clone())
            .with_topic_id(asked.topic_id)
            .with_partitions(partitions)
    });
    let mut answer = FetchResponse::default().with_responses(topics.collect());
    if version >= 16 {
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let leaders = partitions.map(|partition| partition.current_leader.leader_id.0);
        let endpoints = cluster.endpoints(leaders);
        let endpoints = endpoints.iter().map(|node| {
            NodeEndpoint::default()
                .with_node_id(node.id.into())
                .with_host(text(&node.host))
                .with_port(node.port.into())
        });
        answer.node_endpoints = endpoints.collect();
    }
    answer
}

fn find<'a>(cluster: &'a FakeCluster, version: i16, asked: &FetchTopic) -> Option<&'a FakeTopic> {
    if version >= 13 {
        cluster.topic_by_id(asked.topic_id)
    } else {
        cluster.topic_by_name(&asked.topic)
    }
}

fn partition(
    cluster: &FakeCluster,
    topic: Option<&FakeTopic>,
    (version, committed): (i16, bool),
    asked: &FetchPartition,
    (left, first): (usize, bool),
) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(asked.partition);
    let failed = |code| answer.clone().with_error_code(code).with_high_watermark(-1);
    let Some(topic) = topic else {
        return failed(if version >= 13 { UNKNOWN_TOPIC_ID } else { UNKNOWN_TOPIC_OR_PARTITION });
    };
    if cluster.allowed(&topic.name).is_some_and(|operations| operations & READ == 0) {
        return failed(TOPIC_AUTHORIZATION_FAILED);
    }
    let index = usize::try_from(asked.partition).unwrap_or(usize::MAX);
    let log = topic.logs.get(index);
    if let Some((error, leader, epoch)) = cluster.moved_partition(asked.partition, log) {
        let mut answer = failed(error);
        if version >= 12 {
            answer.current_leader =
                LeaderIdAndEpoch::default().with_leader_id(leader.into()).with_leader_epoch(epoch);
        }
        return answer;
    }
    let Some(log) = log else { return failed(UNKNOWN_TOPIC_OR_PARTITION) };
    if !(log.start()..=log.end()).contains(&asked.fetch_offset) {
        return failed(OFFSET_OUT_OF_RANGE);
    }
    let max = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
    let end = if committed { log.stable_end() } else { log.end() };
    let aborted = log.aborted_behind(asked.fetch_offset).map(|(id, first)| {
        AbortedTransaction::default().with_producer_id(id.into()).with_first_offset(first)
    });
    answer
        .with_high_watermark(log.end())
        .with_last_stable_offset(log.stable_end())
        .with_log_start_offset(log.start())
        .with_aborted_transactions(committed.then(|| aborted.collect()))
        .with_records(Some(log.read((asked.fetch_offset, end), max, first)))
}
