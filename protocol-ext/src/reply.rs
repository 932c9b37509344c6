//! Error answers made here, in the API's own shape and only with codes a broker could send.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::api;
use crate::header::{self, Head};
use crate::schema::{Role, requests};
use crate::walk::{Value, walk};
use crate::wire::WireError;

/// Response header and body in one frame, without its length.
pub fn frame(head: Head, body: &impl Encodable) -> Result<Bytes, WireError> {
    let mut out = BytesMut::new();
    out.put_i32(head.correlation);
    if head.api != api::API_VERSIONS && api::is_flexible(head.api, head.version) {
        out.put_u8(0);
    }
    let unknown = |_| WireError::Version { api: head.api, version: head.version };
    body.encode(&mut out, head.version).map_err(unknown)?;
    Ok(out.freeze())
}

/// The answer to a Produce request of which nothing was appended: `code` for every partition.
pub fn produce_error(head: Head, request: &[u8], code: i16) -> Result<Bytes, WireError> {
    let at = header::request_body_at(head, request)?;
    let mut topics: Vec<TopicProduceResponse> = Vec::new();
    let mut list = |role: Role, value: Value<'_>| {
        match role {
            Role::Topic => {
                let name = String::from_utf8_lossy(value.bytes().unwrap_or_default()).into_owned();
                let name = TopicName(StrBytes::from_string(name));
                topics.push(TopicProduceResponse::default().with_name(name));
            }
            Role::TopicId => {
                if let Value::Uuid(id) = value {
                    let id = uuid::Uuid::from_bytes(id);
                    topics.push(TopicProduceResponse::default().with_topic_id(id));
                }
            }
            Role::Partition => {
                let index = i32::try_from(value.int()).unwrap_or(-1);
                let partition = PartitionProduceResponse::default()
                    .with_index(index)
                    .with_error_code(code)
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1);
                if let Some(topic) = topics.last_mut() {
                    topic.partition_responses.push(partition);
                }
            }
            _ => {}
        }
        None
    };
    walk(&requests::PRODUCE, head.version, request, at, &mut list)?;
    frame(head, &ProduceResponse::default().with_responses(topics))
}
