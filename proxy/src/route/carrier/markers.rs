//! WriteTxnMarkers: the end of a transaction is written into no part of a virtual topic, where no
//! transaction can be, and not into a carrier, which is empty. Brokers would write it anywhere.

use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarkerTopic;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use protocol_ext::wire::WireError;

use super::{Known, Shared};
use crate::fault;
use crate::route::legs::{UNKNOWN_PARTITION, bounded};
use crate::route::transactions::INVALID_TXN_STATE;
use crate::route::virtual_topics::Named;

impl Shared for WriteTxnMarkersRequest {
    type Answer = WriteTxnMarkersResponse;

    fn take_out(&mut self, known: Known<'_>) -> Result<Option<Self::Answer>, WireError> {
        let code = |topic: &WritableTxnMarkerTopic| match known.named(&topic.name) {
            Named::Virtual if fault::on("markers-pass") => None,
            Named::Virtual => Some(INVALID_TXN_STATE),
            Named::Hidden => Some(UNKNOWN_PARTITION),
            Named::Plain => None,
        };
        let topics = self.markers.iter().flat_map(|marker| &marker.topics);
        let refused = topics.filter(|topic| code(topic).is_some());
        bounded(refused.map(|topic| topic.partition_indexes.len()))?;
        let mut told = Vec::new();
        self.markers.retain_mut(|marker| {
            let refused = marker.topics.extract_if(.., |topic| code(topic).is_some());
            let topics = refused.map(|topic| {
                let row = WritableTxnMarkerPartitionResult::default();
                let row = row.with_error_code(code(&topic).unwrap_or(UNKNOWN_PARTITION));
                let indexes = topic.partition_indexes.iter();
                let rows = indexes.map(|index| row.clone().with_partition_index(*index));
                let rows = rows.collect();
                WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(rows)
            });
            let topics: Vec<_> = topics.collect();
            if topics.is_empty() {
                return true;
            }
            let row = WritableTxnMarkerResult::default().with_producer_id(marker.producer_id);
            told.push(row.with_topics(topics));
            !marker.topics.is_empty()
        });
        Ok((!told.is_empty()).then(|| WriteTxnMarkersResponse::default().with_markers(told)))
    }

    fn is_empty(&self) -> bool {
        self.markers.is_empty()
    }

    fn join(answer: &mut Self::Answer, told: Self::Answer) {
        for marker in told.markers {
            let id = marker.producer_id;
            match answer.markers.iter_mut().find(|other| other.producer_id == id) {
                Some(known) => known.topics.extend(marker.topics),
                None => answer.markers.push(marker),
            }
        }
    }
}
