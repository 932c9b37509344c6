//! ListOffsets: each logical partition is asked at the leader of its physical one.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::{Leg, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, by_leader, encoded};

/// Version of the legs: the newest without special timestamps that segments cannot answer.
const LEG_VERSION: i16 = 7;

/// One partition asked for: where the answer goes, and where the question.
struct Question {
    topic: usize,
    partition: ListOffsetsPartition,
    physical: String,
    physical_partition: i32,
}

impl Legs {
    /// Answers a ListOffsets request that names a virtual topic; `None` if it names none.
    pub async fn list_offsets(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        frame: &Bytes,
    ) -> Result<Option<Bytes>, WireError> {
        let at = header::request_body_at(head, frame)?;
        let request: ListOffsetsRequest =
            guard::request(api::LIST_OFFSETS, head.version, frame, at)?;
        if !request.topics.iter().any(|topic| ways.routed.by_name(&topic.name).is_some()) {
            return Ok(None);
        }
        let mut answer = ListOffsetsResponse::default();
        let mut questions = Vec::new();
        for (n, topic) in request.topics.iter().enumerate() {
            answer.topics.push(ListOffsetsTopicResponse::default().with_name(topic.name.clone()));
            let routed = ways.routed.by_name(&topic.name);
            for partition in &topic.partitions {
                let q = partition.partition_index;
                let place = match routed {
                    None => Some((topic.name.to_string(), q)),
                    Some(routed) => {
                        routed.place(q).map(|(slot, p)| (routed.physical[slot].to_string(), p))
                    }
                };
                let Some((physical, physical_partition)) = place else {
                    answer.topics[n].partitions.push(failed(q, UNKNOWN_PARTITION));
                    continue;
                };
                let partition = partition.clone();
                questions.push(Question { topic: n, partition, physical, physical_partition });
            }
        }
        self.ask(ways, &request, questions, &mut answer).await?;
        Ok(Some(reply::frame(head, &answer)?))
    }

    async fn ask(
        &mut self,
        ways: Ways<'_>,
        request: &ListOffsetsRequest,
        questions: Vec<Question>,
        answer: &mut ListOffsetsResponse,
    ) -> Result<(), WireError> {
        let place = |q: &Question| (q.physical.clone(), q.physical_partition);
        let (led, lost) =
            by_leader(ways.topics, questions, |q| (&q.physical, q.physical_partition)).await;
        for q in lost {
            let failed = failed(q.partition.partition_index, NOT_LEADER);
            answer.topics[q.topic].partitions.push(failed);
        }
        let mut legs = Vec::with_capacity(led.len());
        for (node, questions) in &led {
            let body = encoded(api::LIST_OFFSETS, LEG_VERSION, &leg_request(request, questions))?;
            let (key, version, node) = (api::LIST_OFFSETS, LEG_VERSION, *node);
            legs.push(Leg { node, key, version, body, limit: ways.limits.connect * 3 });
        }
        let answers = self.run(ways, legs).await;
        for (questions, ran) in led.into_values().zip(answers) {
            let ran = ran.ok().and_then(|body| {
                guard::response::<ListOffsetsResponse>(api::LIST_OFFSETS, LEG_VERSION, &body, 0)
                    .ok()
            });
            for q in questions {
                let (topic, p) = place(&q);
                let found = ran.as_ref().and_then(|ran| find(ran, &topic, p));
                if found.is_none_or(|found| found.error_code != 0) {
                    ways.topics.forget(&topic);
                }
                let index = q.partition.partition_index;
                let row = found.map_or_else(
                    || failed(index, NOT_LEADER),
                    |found| found.clone().with_partition_index(index).with_leader_epoch(-1),
                );
                answer.topics[q.topic].partitions.push(row);
            }
        }
        Ok(())
    }
}

fn leg_request(request: &ListOffsetsRequest, questions: &[Question]) -> ListOffsetsRequest {
    let topics = questions.iter().map(|q| {
        let name = TopicName(StrBytes::from_string(q.physical.clone()));
        let partition = ListOffsetsPartition::default()
            .with_partition_index(q.physical_partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(q.partition.timestamp);
        ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition])
    });
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(request.isolation_level)
        .with_topics(topics.collect())
}

fn find<'a>(
    answer: &'a ListOffsetsResponse,
    topic: &str,
    partition: i32,
) -> Option<&'a ListOffsetsPartitionResponse> {
    let topics = answer.topics.iter().filter(|t| &*t.name.0 == topic);
    topics.flat_map(|t| &t.partitions).find(|p| p.partition_index == partition)
}

fn failed(partition: i32, code: i16) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(partition)
        .with_error_code(code)
        .with_timestamp(-1)
        .with_offset(-1)
        .with_leader_epoch(-1)
}
