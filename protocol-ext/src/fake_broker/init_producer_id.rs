//! InitProducerId: ids count up, the epoch is 0; who has a transactional id gets the same id with
//! the next epoch, and what was open comes to nothing.

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::{FakeCluster, Request};
use crate::reply;
use crate::wire::WireError;

pub(super) fn answer(cluster: &mut FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let asked: InitProducerIdRequest = request.decode()?;
    let (id, epoch) = match asked.transactional_id {
        Some(name) => {
            let (id, epoch) = match cluster.transactional.get(name.as_str()) {
                Some((id, epoch)) => (*id, epoch + 1),
                None => {
                    cluster.producer_ids += 1;
                    (cluster.producer_ids, 0)
                }
            };
            cluster.transactional.insert(name.to_string(), (id, epoch));
            cluster.end_transactions(id, epoch, false);
            (id, epoch)
        }
        None => {
            cluster.producer_ids += 1;
            (cluster.producer_ids, 0)
        }
    };
    let answer =
        InitProducerIdResponse::default().with_producer_id(id.into()).with_producer_epoch(epoch);
    reply::frame(request.head, &answer)
}
