//! CreateTopics, CreatePartitions and DeleteTopics: a virtual topic keeps its shape for life, since
//! the slot of a record must not change under it, and is there for as long as it is configured.
//!
//! What a physical topic is named is nothing to clients: for them it does not exist. Nor may they
//! make one of such a name: the proxy would take it for its own.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::wire::WireError;

use super::{Known, Shared};
use crate::fault;
use crate::route::legs::{UNKNOWN_ID, UNKNOWN_PARTITION};
use crate::route::permissions::FORBIDDEN;
use crate::route::virtual_topics::Named;

/// TOPIC_ALREADY_EXISTS.
const ALREADY_EXISTS: i16 = 36;
/// INVALID_PARTITIONS.
const INVALID_PARTITIONS: i16 = 37;
/// TOPIC_DELETION_DISABLED.
const DELETION_DISABLED: i16 = 73;
const FIXED: &str = "the number of partitions of a virtual topic is fixed for its life";
const CONFIGURED: &str =
    "a virtual topic cannot be deleted by clients: it is there as long as the proxy configures it";

const RESERVED: &str = "topics of this name are parts of a virtual topic: the proxy makes them";

impl Shared for CreateTopicsRequest {
    type Answer = CreateTopicsResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let mut told = Vec::new();
        self.topics.retain(|topic| {
            let (code, text) = match known.named(&topic.name) {
                Named::Plain => return true,
                Named::Virtual if fault::on("structure-passes") => return true,
                Named::Virtual => {
                    (ALREADY_EXISTS, format!("Topic '{}' already exists.", topic.name.as_str()))
                }
                Named::Hidden => (FORBIDDEN, RESERVED.to_owned()),
            };
            let row = CreatableTopicResult::default().with_name(topic.name.clone());
            let row = row.with_error_message(Some(StrBytes::from_string(text)));
            told.push(row.with_error_code(code));
            false
        });
        Ok((!told.is_empty()).then(|| CreateTopicsResponse::default().with_topics(told)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        answer.topics.extend(told.topics);
    }
}

impl Shared for CreatePartitionsRequest {
    type Answer = CreatePartitionsResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let mut told = Vec::new();
        self.topics.retain(|topic| {
            let row = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            match known.named(&topic.name) {
                Named::Plain => return true,
                Named::Virtual if fault::on("structure-passes") => return true,
                Named::Virtual => told.push(
                    row.with_error_code(INVALID_PARTITIONS)
                        .with_error_message(Some(StrBytes::from_static_str(FIXED))),
                ),
                Named::Hidden => told.push(row.with_error_code(UNKNOWN_PARTITION)),
            }
            false
        });
        Ok((!told.is_empty()).then(|| CreatePartitionsResponse::default().with_results(told)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut CreatePartitionsResponse, told: CreatePartitionsResponse) {
        answer.results.extend(told.results);
    }
}

impl Shared for DeleteTopicsRequest {
    type Answer = DeleteTopicsResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let mut told = Vec::new();
        let mut refused = |named: Named, row: DeletableTopicResult, hidden: i16| {
            match named {
                Named::Plain => return false,
                Named::Virtual if fault::on("structure-passes") => return false,
                Named::Virtual => told.push(
                    row.with_error_code(DELETION_DISABLED)
                        .with_error_message(Some(StrBytes::from_static_str(CONFIGURED))),
                ),
                Named::Hidden => told.push(row.with_error_code(hidden)),
            }
            true
        };
        self.topic_names.retain(|name| {
            let row = DeletableTopicResult::default().with_name(Some(name.clone()));
            !refused(known.named(name), row, UNKNOWN_PARTITION)
        });
        self.topics.retain(|topic| {
            let (name, id) = (topic.name.clone(), topic.topic_id);
            let hidden = if name.is_some() { UNKNOWN_PARTITION } else { UNKNOWN_ID };
            let named = known.named_or(name.as_ref().map(|name| name.as_str()), id.as_bytes());
            let row = DeletableTopicResult::default().with_name(name).with_topic_id(id);
            !refused(named, row, hidden)
        });
        Ok((!told.is_empty()).then(|| DeleteTopicsResponse::default().with_responses(told)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.topic_names.is_empty()
    }

    fn join(answer: &mut DeleteTopicsResponse, told: DeleteTopicsResponse) {
        answer.responses.extend(told.responses);
    }
}
