//! What brokers do with old records of a topic: delete them from the front, or compact them.

use std::collections::HashMap;
use std::io;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;

use crate::fault;
use crate::upkeep::log::Cluster;

/// What a topic's log loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Its front, or nothing.
    Deleted,
    /// Records anywhere in it.
    Compacted,
}

/// The policies of topics, of those that the cluster tells.
pub async fn policies(
    cluster: &mut Cluster,
    topics: &[&str],
) -> io::Result<HashMap<String, Policy>> {
    let mut found = HashMap::new();
    for topics in topics.chunks(TOPICS_AT_ONCE) {
        let resources = topics.iter().map(|topic| {
            DescribeConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(StrBytes::from_string((*topic).to_owned()))
                .with_configuration_keys(Some(vec![StrBytes::from_static_str(KEY)]))
        });
        let request = DescribeConfigsRequest::default().with_resources(resources.collect());
        let api = (api::DESCRIBE_CONFIGS, DESCRIBE_CONFIGS_VERSION);
        let answer: DescribeConfigsResponse = cluster.ask(None, api, &request).await?;
        let told = answer
            .results
            .iter()
            .filter_map(|topic| Some((topic.resource_name.to_string(), policy(topic)?)));
        found.extend(told);
    }
    Ok(found)
}

fn policy(topic: &DescribeConfigsResult) -> Option<Policy> {
    let config = topic.configs.iter().find(|config| config.name.as_str() == KEY)?;
    let value = config.value.as_ref().filter(|_| topic.error_code == 0)?;
    let mut all = value.as_str().split(',').map(str::trim);
    let is_deleted = all.all(|policy| matches!(policy, "" | "delete"));
    let is_deleted = is_deleted || fault::on("compacted-logs-indexed");
    Some(if is_deleted { Policy::Deleted } else { Policy::Compacted })
}

const KEY: &str = "cleanup.policy";
/// Topics in one question.
const TOPICS_AT_ONCE: usize = 500;
/// A version that every broker from 3.9 to 4.3 has.
const DESCRIBE_CONFIGS_VERSION: i16 = 1;
/// A topic, as DescribeConfigs numbers resources.
const TOPIC: i8 = 2;
