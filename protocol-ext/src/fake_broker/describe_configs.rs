//! DescribeConfigs: the configured values of a broker, each with a synonym of the same value.

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{FakeCluster, Request, text};
use crate::reply;
use crate::wire::WireError;

const BROKER: i8 = 4;

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
