//! Produce (versions 3 to 13): one batch a partition, its CRC checked, kept as it came.

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::log::Sequenced;
use super::{FakeCluster, FakeLog, Request, text};
use crate::batch::{BatchHeader, Batches, Entry};
use crate::ees::StreamId;
use crate::reply;
use crate::wire::WireError;

const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_RECORD: i16 = 87;
const UNKNOWN_TOPIC_ID: i16 = 100;

/// `None` for acks=0.
pub(super) fn answer(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Option<Bytes>, WireError> {
    let asked: ProduceRequest = request.decode()?;
    let version = request.head.version;
    let acks = asked.acks;
    let mut answer = ProduceResponse::default();
    for topic in asked.topic_data {
        let partitions = topic.partition_data.iter();
        let partitions = partitions.map(|data| partition(cluster, &topic, version, data)).collect();
        let answered = TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions);
        answer.responses.push(answered);
    }
    if version >= 10 {
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
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
    if acks == 0 {
        return Ok(None);
    }
    reply::frame(request.head, &answer).map(Some)
}

fn partition(
    cluster: &mut FakeCluster,
    topic: &TopicProduceData,
    version: i16,
    data: &PartitionProduceData,
) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(data.index);
    let failed = |code| answer.clone().with_error_code(code).with_base_offset(-1);
    let found = cluster.topics.iter().position(|known| {
        if version >= 13 { known.id == topic.topic_id } else { known.name == topic.name.as_str() }
    });
    let index = usize::try_from(data.index).unwrap_or(usize::MAX);
    let log = found.and_then(|found| cluster.topics[found].logs.get(index));
    if let Some((error, leader, epoch)) = cluster.moved_partition(data.index, log) {
        let mut answer = failed(error);
        if version >= 10 {
            answer.current_leader =
                LeaderIdAndEpoch::default().with_leader_id(leader.into()).with_leader_epoch(epoch);
        }
        return answer;
    }
    let named = |(name, index, _): &&(String, i32, i16)| {
        *name == topic.name.as_str() && *index == data.index
    };
    if let Some((_, _, code)) = cluster.refusing.iter().find(named) {
        return failed(*code);
    }
    let once = cluster.erring.iter().position(|one| named(&&(one.0.clone(), one.1, one.2)));
    let once = once.map(|at| cluster.erring.remove(at));
    if let Some((_, _, code, false)) = once {
        return failed(code);
    }
    let Some(found) = found else {
        return failed(if version >= 13 { UNKNOWN_TOPIC_ID } else { UNKNOWN_TOPIC_OR_PARTITION });
    };
    let most = cluster.topics[found].configs.get("max.message.bytes");
    let most: Option<usize> = most.and_then(|most| most.parse().ok());
    // As brokers do: before they look at anything else of a batch.
    let bytes = data.records.as_ref().map_or(0, Bytes::len);
    if !cluster.is_behind() && most.is_some_and(|most| bytes > most) {
        return failed(MESSAGE_TOO_LARGE);
    }
    let header = data.records.as_deref().and_then(|records| BatchHeader::parse(records).ok());
    let fenced = header
        .filter(BatchHeader::is_transactional)
        .is_some_and(|header| cluster.fences(header.producer_id, header.producer_epoch));
    if fenced {
        return failed(INVALID_PRODUCER_EPOCH);
    }
    let strict = cluster.strict;
    let Some(log) = cluster.topics[found].logs.get_mut(index) else {
        return failed(UNKNOWN_TOPIC_OR_PARTITION);
    };
    let appended = append(log, strict, data.records.as_deref().unwrap_or_default());
    match appended {
        Ok(Sequenced::New(_) | Sequenced::Duplicate(_)) if once.is_some() => {
            failed(once.map_or(0, |(_, _, code, _)| code))
        }
        Ok(Sequenced::New(base)) => answer.with_base_offset(base).with_log_append_time_ms(-1),
        // As a broker shows duplicates: with the time of the batch that is there.
        Ok(Sequenced::Duplicate(base)) => answer.with_base_offset(base).with_log_append_time_ms(1),
        Ok(Sequenced::Refused(code)) | Err(code) => failed(code),
    }
}

fn append(log: &mut FakeLog, strict: bool, records: &[u8]) -> Result<Sequenced, i16> {
    let mut entries = Batches::new(records);
    let (Some(Ok(Entry::Batch { header, .. })), None) = (entries.next(), entries.next()) else {
        return Err(INVALID_RECORD);
    };
    // Else only ids that the proxy makes itself: tests send the same client batch again and again.
    let made = || StreamId::read(header.producer_id, header.producer_epoch.into()).is_some();
    let appended = if header.producer_id >= 0 && (strict || made()) {
        log.append_sequenced(records)
    } else {
        log.append(records).map(Sequenced::New)
    };
    appended.map_err(|_| CORRUPT_MESSAGE)
}
