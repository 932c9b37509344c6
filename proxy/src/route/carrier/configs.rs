//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: those of a virtual topic are its
//! carrier's, and a part of one has none. Else a client could undo a seal, or have brokers delete
//! what only the proxy may.

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use protocol_ext::wire::WireError;

use super::{Known, Shared};
use crate::route::legs::UNKNOWN_PARTITION;
use crate::route::virtual_topics::Named;

/// A topic, among resources.
const TOPIC: i8 = 2;

/// The three have the same fields that count under other types; `$rows` are those of the answer.
macro_rules! configs {
    ($request:ty, $answer:ty, $row:ty, $rows:ident) => {
        impl Shared for $request {
            type Answer = $answer;

            fn take_out(&mut self, known: Known<'_>) -> Result<Option<$answer>, WireError> {
                let hidden = self.resources.extract_if(.., |resource| {
                    resource.resource_type == TOPIC
                        && known.named(&resource.resource_name) == Named::Hidden
                });
                let rows = hidden.map(|resource| {
                    <$row>::default()
                        .with_error_code(UNKNOWN_PARTITION)
                        .with_error_message(None)
                        .with_resource_type(TOPIC)
                        .with_resource_name(resource.resource_name)
                });
                let mut told = <$answer>::default();
                told.$rows = rows.collect();
                Ok((!told.$rows.is_empty()).then_some(told))
            }

            fn is_empty(&self) -> bool {
                self.resources.is_empty()
            }

            fn join(answer: &mut $answer, told: $answer) {
                answer.$rows.extend(told.$rows);
            }
        }
    };
}

configs!(DescribeConfigsRequest, DescribeConfigsResponse, DescribeConfigsResult, results);
configs!(AlterConfigsRequest, AlterConfigsResponse, Altered, responses);
configs!(
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    AlterConfigsResourceResponse,
    responses
);
