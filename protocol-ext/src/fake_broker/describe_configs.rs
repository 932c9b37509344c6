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
/// What a broker sets for topics that say nothing.
const DEFAULTS: [(&str, &str); 1] = [("max.message.bytes", "1048588")];

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: DescribeConfigsRequest = request.decode()?;
    let with_synonyms = asked.include_synonyms;
    let entry = |(name, value): &(String, String)| {
        let synonym = DescribeConfigsSynonym::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_source(4);
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
            .with_synonyms(if with_synonyms { vec![synonym] } else { Vec::new() })
    };
    let results = asked.resources.into_iter().map(|resource| {
        let configs = match resource.resource_type {
            BROKER => cluster.configs.iter().map(entry).collect(),
            TOPIC => match cluster.topic_by_name(&resource.resource_name) {
                Some(_) if cluster.is_behind() => defaults(&[]).iter().map(entry).collect(),
                Some(topic) => topic_configs(topic).iter().map(entry).collect(),
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

fn topic_configs(topic: &FakeTopic) -> Vec<(String, String)> {
    let own = topic.configs.iter().map(|(name, value)| (name.clone(), value.clone()));
    let own: Vec<_> = own.collect();
    let defaults = defaults(&own);
    own.into_iter().chain(defaults).collect()
}

/// What holds where nothing else is set.
fn defaults(set: &[(String, String)]) -> Vec<(String, String)> {
    let unset = DEFAULTS.iter().filter(|(name, _)| set.iter().all(|(own, _)| own != name));
    unset.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
