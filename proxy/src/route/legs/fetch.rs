//! Fetch: each logical partition is read at the leader of its physical one, and merged.
//!
//! Fetch sessions are not kept for requests with virtual partitions: the answer carries session 0,
//! so the client sends whole requests. Leader epochs are -1 everywhere.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::batch::{Batches, Entry, set_partition_leader_epoch};
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::{Leg, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, by_leader, encoded};

/// Version of the legs: the newest that names topics.
const LEG_VERSION: i16 = 12;
/// FETCH_SESSION_ID_NOT_FOUND: the client starts a session anew, with a whole request.
const NO_SESSION: i16 = 70;

/// One partition asked for: where the answer goes, and where the question.
struct Question {
    topic: usize,
    partition: FetchPartition,
    physical: String,
    physical_partition: i32,
}

impl Legs {
    /// Answers a Fetch request that names a virtual topic; `None` if it names none.
    pub async fn fetch(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        frame: &Bytes,
    ) -> Result<Option<Bytes>, WireError> {
        let at = header::request_body_at(head, frame)?;
        let request: FetchRequest = guard::request(api::FETCH, head.version, frame, at)?;
        let is_virtual = |topic: &FetchTopic| {
            let routed = ways.routed.by_name(&topic.topic);
            routed.or_else(|| ways.routed.by_id(topic.topic_id.as_bytes())).is_some()
        };
        if !request.topics.iter().any(is_virtual) {
            return Ok(None);
        }
        let mut answer = FetchResponse::default();
        if request.session_id != 0 && request.session_epoch > 0 {
            answer.error_code = NO_SESSION;
            return Ok(Some(reply::frame(head, &answer)?));
        }
        let questions = questions(ways, &request, &mut answer).await;
        self.read(ways, &request, questions, &mut answer).await?;
        Ok(Some(reply::frame(head, &answer)?))
    }

    async fn read(
        &mut self,
        ways: Ways<'_>,
        request: &FetchRequest,
        questions: Vec<Question>,
        answer: &mut FetchResponse,
    ) -> Result<(), WireError> {
        let (led, lost) =
            by_leader(ways.topics, questions, |q| (&q.physical, q.physical_partition)).await;
        for q in lost {
            answer.responses[q.topic].partitions.push(failed(q.partition.partition, NOT_LEADER));
        }
        let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
        let limit = Duration::from_millis(wait) + ways.limits.connect * 3;
        let mut legs = Vec::with_capacity(led.len());
        for (node, questions) in &led {
            let body = encoded(api::FETCH, LEG_VERSION, &leg_request(request, questions))?;
            legs.push(Leg { node: *node, key: api::FETCH, version: LEG_VERSION, body, limit });
        }
        let answers = self.run(ways, legs).await;
        for (questions, ran) in led.into_values().zip(answers) {
            let ran = ran.ok().and_then(|body| {
                guard::response::<FetchResponse>(api::FETCH, LEG_VERSION, &body, 0).ok()
            });
            for q in questions {
                let found = ran.as_ref().and_then(|ran| find(ran, &q));
                if found.is_none_or(|found| found.error_code != 0) {
                    ways.topics.forget(&q.physical);
                }
                let index = q.partition.partition;
                let data = found.map_or_else(|| failed(index, NOT_LEADER), |f| logical(f, index));
                answer.responses[q.topic].partitions.push(data);
            }
        }
        Ok(())
    }
}

/// The partitions to read; those that do not exist are answered at once.
async fn questions(
    ways: Ways<'_>,
    request: &FetchRequest,
    answer: &mut FetchResponse,
) -> Vec<Question> {
    let mut questions = Vec::new();
    for (n, topic) in request.topics.iter().enumerate() {
        let row = FetchableTopicResponse::default()
            .with_topic(topic.topic.clone())
            .with_topic_id(topic.topic_id);
        answer.responses.push(row);
        let id = topic.topic_id.into_bytes();
        let routed = ways.routed.by_name(&topic.topic).or_else(|| ways.routed.by_id(&id));
        let own = match (routed, topic.topic.is_empty()) {
            (Some(_), _) => None,
            (None, true) => ways.topics.name(id).await.ok().flatten().map(|n| n.to_string()),
            (None, false) => Some(topic.topic.to_string()),
        };
        for partition in &topic.partitions {
            let q = partition.partition;
            let place = match routed {
                None => own.clone().map(|name| (name, q)),
                Some(r) => r.place(q).map(|(slot, p)| (r.physical[slot].to_string(), p)),
            };
            match place {
                None => answer.responses[n].partitions.push(failed(q, UNKNOWN_PARTITION)),
                Some((physical, physical_partition)) => {
                    let partition = partition.clone();
                    questions.push(Question { topic: n, partition, physical, physical_partition });
                }
            }
        }
    }
    questions
}

fn leg_request(request: &FetchRequest, questions: &[Question]) -> FetchRequest {
    let topics = questions.iter().map(|q| {
        let name = TopicName(StrBytes::from_string(q.physical.clone()));
        let partition = FetchPartition::default()
            .with_partition(q.physical_partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(q.partition.fetch_offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(q.partition.partition_max_bytes);
        FetchTopic::default().with_topic(name).with_partitions(vec![partition])
    });
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(request.max_wait_ms)
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(request.max_bytes)
        .with_isolation_level(request.isolation_level)
        .with_session_epoch(-1)
        .with_topics(topics.collect())
}

fn find<'a>(answer: &'a FetchResponse, q: &Question) -> Option<&'a PartitionData> {
    let topics = answer.responses.iter().filter(|t| *t.topic.0 == *q.physical);
    topics.flat_map(|t| &t.partitions).find(|p| p.partition_index == q.physical_partition)
}

/// A physical partition's data as that of logical partition `index`.
fn logical(data: &PartitionData, index: i32) -> PartitionData {
    let records = data.records.as_ref().map(without_leader_epochs);
    data.clone()
        .with_partition_index(index)
        .with_diverging_epoch(EpochEndOffset::default())
        .with_current_leader(LeaderIdAndEpoch::default())
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(records)
}

fn without_leader_epochs(records: &Bytes) -> Bytes {
    let mut new = BytesMut::from(&records[..]);
    for entry in Batches::new(records) {
        if let Ok(Entry::Batch { range, .. }) = entry {
            // The entry was just parsed, so it is long enough to have an epoch.
            let _ = set_partition_leader_epoch(&mut new[range], -1);
        }
    }
    new.freeze()
}

fn failed(partition: i32, code: i16) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}
