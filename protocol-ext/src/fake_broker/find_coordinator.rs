//! FindCoordinator: the first broker coordinates everything.

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::{FakeCluster, Request, text};
use crate::reply;
use crate::wire::WireError;

/// First version that asks for several at once (KIP-699).
const BATCHED: i16 = 4;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: FindCoordinatorRequest = request.decode()?;
    let first = cluster.nodes.first();
    let (id, host, port) = first.map_or((-1, "", 0), |n| (n.id, n.host.as_str(), n.port));
    let mut answer = FindCoordinatorResponse::default();
    if request.head.version >= BATCHED {
        let coordinators = asked.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(id.into())
                .with_host(text(host))
                .with_port(port.into())
        });
        answer.coordinators = coordinators.collect();
    } else {
        answer.node_id = id.into();
        answer.host = text(host);
        answer.port = port.into();
    }
    reply::frame(request.head, &answer)
}
