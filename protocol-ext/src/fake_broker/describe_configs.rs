//! DescribeConfigs: the configured values of a broker or topic, each with a synonym of the same
//! value.

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{FakeCluster, FakeTopic, Request, text};
use crate::reply;
use crate::wire::WireError;

const BROKER: i8 = 4;
const TOPIC: i8 = 2;
/// Where a value comes from, as Kafka numbers it.
const DYNAMIC_TOPIC: i8 = 1;
const STATIC: i8 = 4;
const DEFAULT: i8 = 5;
/// What a broker sets for topics that say nothing: it takes batches of any length.
const DEFAULTS: [(&str, &str); 2] =
    [("cleanup.policy", "delete"), ("max.message.bytes", "2147483647")];

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: DescribeConfigsRequest = request.decode()?;
    let with_synonyms = asked.include_synonyms;
    let of = |source: i8, (name, value): &(String, String)| {
        let synonym = DescribeConfigsSynonym::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_source(4);
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_config_source(source)
            .with_synonyms(if with_synonyms { vec![synonym] } else { Vec::new() })
    };
    let results = asked.resources.into_iter().map(|resource| {
        let configs = match resource.resource_type {
            BROKER => cluster.configs.iter().map(|entry| of(STATIC, entry)).collect(),
            TOPIC => match cluster.topic_by_name(&resource.resource_name) {
                Some(topic) => topic_configs(topic, cluster.is_behind())
                    .iter()
                    .map(|(source, entry)| of(*source, entry))
                    .collect(),
                None => Vec::new(),
            },
            _ => Vec::new(),
        };
        DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_configs(configs)
    });
    let answer = DescribeConfigsResponse::default().with_results(results.collect());
    reply::frame(request.head, &answer)
}

/// What holds for a topic, and where that comes from; who is behind knows of defaults only.
fn topic_configs(topic: &FakeTopic, is_behind: bool) -> Vec<(i8, (String, String))> {
    let own = topic.configs.iter().filter(|_| !is_behind);
    let own: Vec<_> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    let defaults = defaults(&own).into_iter().map(|entry| (DEFAULT, entry));
    let defaults: Vec<_> = defaults.collect();
    own.into_iter().map(|entry| (DYNAMIC_TOPIC, entry)).chain(defaults).collect()
}

/// What holds where nothing else is set.
fn defaults(set: &[(String, String)]) -> Vec<(String, String)> {
    let unset = DEFAULTS.iter().filter(|(name, _)| set.iter().all(|(own, _)| own != name));
    unset.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
