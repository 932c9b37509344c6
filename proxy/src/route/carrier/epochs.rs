//! OffsetForLeaderEpoch: a virtual topic has no leader epochs (they are -1 wherever they are
//! told), so none has an end.

use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{Known, Named, Shared};
use crate::fault;
use crate::route::legs::UNKNOWN_PARTITION;

impl Shared for OffsetForLeaderEpochRequest {
    type Answer = OffsetForLeaderEpochResponse;

    fn take_out(&mut self, known: Known<'_>) -> Option<OffsetForLeaderEpochResponse> {
        if fault::on("epochs-pass") {
            return None;
        }
        let topics = std::mem::take(&mut self.topics).into_iter();
        let is_virtual = |name: &str| known.named(name) == Named::Virtual;
        let (ours, rest): (Vec<_>, Vec<_>) = topics.partition(|topic| is_virtual(&topic.topic));
        self.topics = rest;
        let topics = ours.into_iter().map(|topic| {
            let logical = known.routed.by_name(&topic.topic).map_or(0, |routed| routed.logical());
            let rows = topic.partitions.iter().map(|asked| {
                let exists = (0..logical).contains(&asked.partition);
                EpochEndOffset::default()
                    .with_error_code(if exists { 0 } else { UNKNOWN_PARTITION })
                    .with_partition(asked.partition)
                    .with_leader_epoch(-1)
                    .with_end_offset(-1)
            });
            let rows = rows.collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(rows)
        });
        let topics: Vec<_> = topics.collect();
        let told = OffsetForLeaderEpochResponse::default();
        (!topics.is_empty()).then(|| told.with_topics(topics))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut OffsetForLeaderEpochResponse, told: OffsetForLeaderEpochResponse) {
        answer.topics.extend(told.topics);
    }
}
