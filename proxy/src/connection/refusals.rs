//! Partitions of Produce requests that are refused here, and the batches that follow them.
//!
//! What is refused is taken out of its request and told beside the answer to the rest. Invariant:
//! nothing that an idempotent producer sends behind a refused batch goes on before that batch has
//! come again. A broker that does not know the producer takes any first sequence, and would then
//! never take the refused one.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::protocol::Encodable;
use protocol_ext::batch::BatchHeader;
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use crate::fault;
use crate::filters::offload::{TopicRef, produce_sections};
use crate::limits::STREAMS_MAX;

/// MESSAGE_TOO_LARGE: final for a batch that cannot be split, and only for that one.
const TOO_LARGE: i16 = 10;
/// OUT_OF_ORDER_SEQUENCE_NUMBER: what brokers say of a batch whose forerunner is missing.
const OUT_OF_ORDER: i16 = 45;

/// A producer id, and where it writes.
type Stream = (i64, TopicRef, i32);

/// The first batch of a stream that was refused and has not come again.
#[derive(Debug)]
struct Gap {
    epoch: i16,
    sequence: i32,
    code: i16,
}

/// What one connection must not let through.
#[derive(Debug, Default)]
pub struct Refusals(HashMap<Stream, Gap>);

impl Refusals {
    /// Whether any batch is to come again.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the followers of batches that were refused before to those that are `refused` now, and
    /// keeps these in mind. False if they are too many to be.
    pub fn follow(
        &mut self,
        head: Head,
        frame: &Bytes,
        refused: &mut BTreeMap<usize, i16>,
    ) -> Result<bool, WireError> {
        if (refused.is_empty() && self.0.is_empty()) || fault::on("refusals-forgotten") {
            return Ok(true);
        }
        for (n, section) in produce_sections(head, frame)?.into_iter().enumerate() {
            let Ok(batch) = BatchHeader::parse(&section.records) else { continue };
            let (epoch, sequence) = (batch.producer_epoch, batch.base_sequence);
            if batch.producer_id < 0 || sequence < 0 {
                continue;
            }
            let stream = (batch.producer_id, section.topic, section.partition);
            let code = refused.get(&n).copied();
            match (self.0.get(&stream), code) {
                // An old producer is the broker's to refuse.
                (Some(gap), _) if gap.epoch > epoch => {}
                (Some(gap), code) if gap.epoch == epoch && is_behind(gap.sequence, sequence) => {
                    let follows = if gap.code == TOO_LARGE { OUT_OF_ORDER } else { gap.code };
                    refused.insert(n, code.unwrap_or(follows));
                }
                (Some(gap), None) if gap.epoch == epoch && gap.sequence != sequence => {}
                (Some(_), None) => {
                    self.0.remove(&stream);
                    if self.0.is_empty() {
                        // A connection may live for long with nothing to come again.
                        self.0 = HashMap::new();
                    }
                }
                (_, Some(code)) => {
                    self.0.insert(stream, Gap { epoch, sequence, code });
                }
                (None, None) => {}
            }
        }
        Ok(self.0.len() <= STREAMS_MAX)
    }
}

/// Whether a sequence comes after another one; they begin anew behind the largest.
fn is_behind(before: i32, sequence: i32) -> bool {
    let distance = sequence.wrapping_sub(before) & i32::MAX;
    distance > 0 && distance < 1 << 30
}

/// Takes the partitions out of a request that are refused: what is left, if anything is, and what
/// the client is told of them.
pub fn taken_out(
    head: Head,
    frame: &Bytes,
    refused: &BTreeMap<usize, i16>,
) -> Result<(Option<Bytes>, Vec<TopicProduceResponse>), WireError> {
    let at = header::request_body_at(head, frame)?;
    let mut request: ProduceRequest = guard::request(api::PRODUCE, head.version, frame, at)?;
    let (mut told, mut n) = (Vec::new(), 0);
    request.topic_data.retain_mut(|topic| {
        let mut rows = Vec::new();
        topic.partition_data.retain(|data| {
            let code = refused.get(&n).copied();
            n += 1;
            rows.extend(code.map(|code| row(data.index, code)));
            code.is_none()
        });
        if rows.is_empty() {
            return true;
        }
        told.push(
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partition_responses(rows),
        );
        !topic.partition_data.is_empty()
    });
    if request.topic_data.is_empty() || fault::on("refused-for-others") {
        return Ok((None, told));
    }
    let mut rest = BytesMut::from(&frame[..at]);
    let unknown = |_| WireError::Version { api: head.api, version: head.version };
    request.encode(&mut rest, head.version).map_err(unknown)?;
    Ok((Some(rest.freeze()), told))
}

fn row(index: i32, code: i16) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_come_after_each_other_around_the_largest() {
        assert!(is_behind(0, 1) && is_behind(5, 1000) && !is_behind(5, 5) && !is_behind(5, 4));
        assert!(is_behind(i32::MAX, 0) && is_behind(i32::MAX - 1, 3) && !is_behind(3, i32::MAX));
    }
}
