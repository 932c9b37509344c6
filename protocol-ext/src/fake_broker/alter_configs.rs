//! AlterConfigs and IncrementalAlterConfigs: every change is refused, with a text that names what
//! is set now, as brokers do for listeners they cannot change; but topics can be changed by the
//! latter.

use bytes::Bytes;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{FakeCluster, Request, text};
use crate::reply;
use crate::wire::WireError;

/// A topic, among resources.
const TOPIC: i8 = 2;
const INVALID_REQUEST: i16 = 42;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: AlterConfigsRequest = request.decode()?;
    let refused = asked.resources.into_iter().map(|resource| {
        Altered::default()
            .with_error_code(INVALID_REQUEST)
            .with_error_message(Some(refusal(cluster)))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
    });
    let answer = AlterConfigsResponse::default().with_responses(refused.collect());
    reply::frame(request.head, &answer)
}

pub(super) fn incremental_answer(
    cluster: &mut FakeCluster,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let asked: IncrementalAlterConfigsRequest = request.decode()?;
    let told = asked.resources.into_iter().map(|resource| {
        let row = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let known = cluster.topic_by_name(&resource.resource_name).is_some();
        if resource.resource_type != TOPIC || !known {
            let text = Some(refusal(cluster));
            return row.with_error_code(INVALID_REQUEST).with_error_message(text);
        }
        for config in resource.configs {
            let value = config.value.unwrap_or_default();
            cluster.configure(&resource.resource_name, &config.name, &value);
        }
        row
    });
    let answer = IncrementalAlterConfigsResponse::default().with_responses(told.collect());
    reply::frame(request.head, &answer)
}

fn refusal(cluster: &FakeCluster) -> StrBytes {
    let settings = cluster.configs.iter().map(|(name, value)| format!("{name}={value}"));
    text(&format!("cannot change {}", settings.collect::<Vec<_>>().join(", ")))
}
