//! Requests of administrators about partitions, with a row in the answer for each: of a virtual
//! topic they are about its carrier, of a part of one about nothing.

use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, TopicResponse};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, ElectLeadersRequest, ElectLeadersResponse, OffsetDeleteRequest,
    OffsetDeleteResponse,
};
use protocol_ext::wire::WireError;

use super::{Known, Shared};
use crate::route::legs::{UNKNOWN_PARTITION, bounded};

impl Shared for ElectLeadersRequest {
    type Answer = ElectLeadersResponse;

    /// One that names no topic is about all that the cluster has.
    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let Some(topics) = &mut self.topic_partitions else { return Ok(None) };
        let hidden = known.hidden(topics, |topic| &topic.topic, |topic| topic.partitions.len())?;
        let row = PartitionResult::default().with_error_message(None);
        let row = row.with_error_code(UNKNOWN_PARTITION);
        let told = hidden.into_iter().map(|topic| {
            let rows = topic.partitions.iter().map(|n| row.clone().with_partition_id(*n));
            let told = ReplicaElectionResult::default().with_topic(topic.topic);
            told.with_partition_result(rows.collect())
        });
        let told: Vec<_> = told.collect();
        let answer = ElectLeadersResponse::default();
        Ok((!told.is_empty()).then(|| answer.with_replica_election_results(told)))
    }

    fn is_empty(&self) -> bool {
        self.topic_partitions.as_ref().is_some_and(Vec::is_empty)
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        answer.replica_election_results.extend(told.replica_election_results);
    }
}

impl Shared for AlterPartitionReassignmentsRequest {
    type Answer = AlterPartitionReassignmentsResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let topics = &mut self.topics;
        let hidden = known.hidden(topics, |topic| &topic.name, |topic| topic.partitions.len())?;
        let row = ReassignablePartitionResponse::default().with_error_message(None);
        let row = row.with_error_code(UNKNOWN_PARTITION);
        let told = hidden.into_iter().map(|topic| {
            let rows = topic.partitions.iter();
            let rows = rows.map(|asked| row.clone().with_partition_index(asked.partition_index));
            let told = ReassignableTopicResponse::default().with_name(topic.name);
            told.with_partitions(rows.collect())
        });
        let told: Vec<_> = told.collect();
        let answer = AlterPartitionReassignmentsResponse::default().with_error_message(None);
        Ok((!told.is_empty()).then(|| answer.with_responses(told)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        answer.responses.extend(told.responses);
    }
}

impl Shared for OffsetDeleteRequest {
    type Answer = OffsetDeleteResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let topics = &mut self.topics;
        let hidden = known.hidden(topics, |topic| &topic.name, |topic| topic.partitions.len())?;
        let row = OffsetDeleteResponsePartition::default().with_error_code(UNKNOWN_PARTITION);
        let told = hidden.into_iter().map(|topic| {
            let rows = topic.partitions.iter();
            let rows = rows.map(|asked| row.clone().with_partition_index(asked.partition_index));
            let told = OffsetDeleteResponseTopic::default().with_name(topic.name);
            told.with_partitions(rows.collect())
        });
        let told: Vec<_> = told.collect();
        let answer = OffsetDeleteResponse::default();
        Ok((!told.is_empty()).then(|| answer.with_topics(told)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        answer.topics.extend(told.topics);
    }
}

impl Shared for DescribeProducersRequest {
    type Answer = DescribeProducersResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let topics = &mut self.topics;
        let partitions = |topic: &TopicRequest| topic.partition_indexes.len();
        let hidden = known.hidden(topics, |topic| &topic.name, partitions)?;
        let row = PartitionResponse::default().with_error_code(UNKNOWN_PARTITION);
        let told = hidden.into_iter().map(|topic| {
            let rows = topic.partition_indexes.iter();
            let rows = rows.map(|index| row.clone().with_partition_index(*index));
            TopicResponse::default().with_name(topic.name).with_partitions(rows.collect())
        });
        let told: Vec<_> = told.collect();
        let answer = DescribeProducersResponse::default();
        Ok((!told.is_empty()).then(|| answer.with_topics(told)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        answer.topics.extend(told.topics);
    }
}

impl Shared for AlterReplicaLogDirsRequest {
    type Answer = AlterReplicaLogDirsResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let mut told = Vec::new();
        for dir in &mut self.dirs {
            let topics = &mut dir.topics;
            let hidden =
                known.hidden(topics, |topic| &topic.name, |topic| topic.partitions.len())?;
            let row = AlterReplicaLogDirPartitionResult::default();
            let row = row.with_error_code(UNKNOWN_PARTITION);
            told.extend(hidden.into_iter().map(|topic| {
                let rows = topic.partitions.iter().map(|n| row.clone().with_partition_index(*n));
                let told = AlterReplicaLogDirTopicResult::default().with_topic_name(topic.name);
                told.with_partitions(rows.collect())
            }));
        }
        if told.is_empty() {
            return Ok(None);
        }
        bounded(told.iter().map(|topic| topic.partitions.len()))?;
        self.dirs.retain(|dir| !dir.topics.is_empty());
        Ok(Some(AlterReplicaLogDirsResponse::default().with_results(told)))
    }

    fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        answer.results.extend(told.results);
    }
}
