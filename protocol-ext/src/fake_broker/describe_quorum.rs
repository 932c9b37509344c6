//! DescribeQuorum: every broker is a controller too (KIP-595, addresses by KIP-853).

use bytes::Bytes;
use kafka_protocol::messages::DescribeQuorumResponse;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node};

use super::{FakeCluster, Request, text};
use crate::reply;
use crate::wire::WireError;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let nodes = cluster.nodes.iter().map(|node| {
        let listener = |name| {
            let listener = Listener::default().with_name(text(name));
            listener.with_host(text(&node.host)).with_port(node.port)
        };
        let listeners = vec![listener("CONTROLLER"), listener("OTHER")];
        Node::default().with_node_id(node.id.into()).with_listeners(listeners)
    });
    let answer = DescribeQuorumResponse::default();
    let named = if request.head.version < 2 { Vec::new() } else { nodes.collect() };
    reply::frame(request.head, &answer.with_nodes(named))
}
