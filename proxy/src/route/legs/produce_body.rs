//! The body of a leg's Produce request, in pieces: records go from the client's frame to the socket
//! without a copy.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use protocol_ext::split::Pieces;
use protocol_ext::wire::put_uvarint;

/// Version of the legs: the first flexible one, the last without leader hints.
pub(super) const LEG_VERSION: i16 = 9;
/// Shorter records are copied: a piece of its own costs more.
const COPIED_MAX: usize = 4096;
/// No tagged fields.
const NO_TAGS: u8 = 0;

/// The body: each batch is a topic of its own with one partition.
pub(super) fn leg_body(
    acks: i16,
    timeout_ms: i32,
    batches: impl ExactSizeIterator<Item = (Arc<str>, i32, Pieces)>,
) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 * batches.len() + 1);
    let mut out = Vec::new();
    // No transactional id.
    out.put_u8(0);
    out.put_i16(acks);
    out.put_i32(timeout_ms);
    put_length(&mut out, batches.len());
    for (topic, partition, Pieces { head, body }) in batches {
        put_length(&mut out, topic.len());
        out.put_slice(topic.as_bytes());
        put_length(&mut out, 1);
        out.put_i32(partition);
        put_length(&mut out, head.len() + body.len());
        out.put_slice(&head);
        if body.len() <= COPIED_MAX {
            out.put_slice(&body);
        } else {
            pieces.push(std::mem::take(&mut out).into());
            pieces.push(body);
        }
        // Of the partition and of the topic.
        out.put_bytes(NO_TAGS, 2);
    }
    out.put_u8(NO_TAGS);
    pieces.push(out.into());
    pieces
}

/// The length of a compact string, array or bytes: one more, as an unsigned varint.
fn put_length(out: &mut Vec<u8>, length: usize) {
    // A frame is shorter than that.
    put_uvarint(out, u32::try_from(length + 1).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    #[test]
    fn it_is_what_the_codec_writes() {
        let name = "n".repeat(200);
        let batches: Vec<(Arc<str>, i32, Pieces)> = [0, 1, 126, 127, 4096, 4097, 70_000]
            .into_iter()
            .enumerate()
            .map(|(n, bytes)| {
                let topic = Arc::from(&name[..=n * 30]);
                let head = Bytes::from(vec![7; 61]);
                (topic, i32::try_from(n).unwrap(), Pieces { head, body: vec![8; bytes].into() })
            })
            .collect();
        let topics = batches.iter().map(|(topic, partition, batch)| {
            let data = PartitionProduceData::default().with_index(*partition);
            let data = data.with_records(Some(batch.joined()));
            let name = TopicName(StrBytes::from_string(topic.to_string()));
            TopicProduceData::default().with_name(name).with_partition_data(vec![data])
        });
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(4000);
        let request = request.with_topic_data(topics.collect());
        let mut expected = bytes::BytesMut::new();
        request.encode(&mut expected, LEG_VERSION).unwrap();
        let body = leg_body(-1, 4000, batches.iter().cloned());
        assert_eq!(body.len(), 5, "pieces");
        assert!(body.concat() == expected, "another body");
    }
}
