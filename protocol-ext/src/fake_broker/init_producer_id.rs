//! InitProducerId: ids count up, the epoch is 0.

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::{FakeCluster, Request};
use crate::reply;
use crate::wire::WireError;

pub(super) fn answer(cluster: &mut FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let _: InitProducerIdRequest = request.decode()?;
    cluster.producer_ids += 1;
    let answer = InitProducerIdResponse::default()
        .with_producer_id(cluster.producer_ids.into())
        .with_producer_epoch(0);
    reply::frame(request.head, &answer)
}
