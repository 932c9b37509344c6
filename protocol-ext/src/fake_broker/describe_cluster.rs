//! DescribeCluster: all brokers.

use bytes::Bytes;
use kafka_protocol::messages::DescribeClusterResponse;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;

use super::{FakeCluster, Request, text};
use crate::reply;
use crate::wire::WireError;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let brokers = cluster.nodes.iter().map(|node| {
        DescribeClusterBroker::default()
            .with_broker_id(node.id.into())
            .with_host(text(&node.host))
            .with_port(node.port.into())
    });
    let answer = DescribeClusterResponse::default()
        .with_cluster_id(text(&cluster.id))
        .with_controller_id(cluster.nodes.first().map_or(-1, |node| node.id).into())
        .with_brokers(brokers.collect());
    reply::frame(request.head, &answer)
}
