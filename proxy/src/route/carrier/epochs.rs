//! OffsetForLeaderEpoch: a virtual topic has no leader epochs (they are -1 wherever they are
//! told), so none has an end. A part of one has no partitions either.

use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use protocol_ext::wire::WireError;

use super::{Known, Shared};
use crate::fault;
use crate::route::legs::UNKNOWN_PARTITION;
use crate::route::virtual_topics::Named;

impl Shared for OffsetForLeaderEpochRequest {
    type Answer = OffsetForLeaderEpochResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let ours = self.topics.extract_if(.., |topic| match known.named(&topic.topic) {
            Named::Virtual => !fault::on("epochs-pass"),
            Named::Hidden => true,
            Named::Plain => false,
        });
        let topics = ours.map(|topic| {
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
        Ok((!topics.is_empty()).then(|| told.with_topics(topics)))
    }

    fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn join(answer: &mut OffsetForLeaderEpochResponse, told: OffsetForLeaderEpochResponse) {
        answer.topics.extend(told.topics);
    }
}
