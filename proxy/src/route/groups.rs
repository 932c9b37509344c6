//! Members of KIP-848 groups beside virtual topics.
//!
//! By name a member gets the partitions of a virtual topic's carrier, which are the logical ones.
//! A pattern would be matched by brokers, with the physical topics too, which clients must not
//! see: a member that names one is told that it is invalid, and no broker hears of it.

use bytes::Bytes;
use kafka_protocol::messages::ConsumerGroupHeartbeatResponse;
use kafka_protocol::protocol::StrBytes;
use protocol_ext::header::{self, Head};
use protocol_ext::reply;
use protocol_ext::wire::{Reader, WireError};

use crate::fault;

/// First version that may name topics by a pattern.
const WITH_PATTERN: i16 = 1;
/// INVALID_REGULAR_EXPRESSION.
const INVALID_PATTERN: i16 = 128;
const WHY: &str = "topics cannot be subscribed to by a pattern that brokers match where there are \
    virtual topics: name them, or use group.protocol=classic";

/// Whether a heartbeat of this version must be looked into.
pub fn may_name_a_pattern(version: i16) -> bool {
    version >= WITH_PATTERN && !fault::on("patterns-pass")
}

/// The refusal of a heartbeat that names topics by a pattern; `None` of any other.
pub fn refusal(head: Head, frame: &Bytes) -> Result<Option<Bytes>, WireError> {
    if !may_name_a_pattern(head.version) {
        return Ok(None);
    }
    let (epoch, pattern) = subscription(head, frame)?;
    // Who leaves subscribes to nothing, whatever it names.
    if epoch < 0 || pattern.is_none_or(<[u8]>::is_empty) {
        return Ok(None);
    }
    let answer = ConsumerGroupHeartbeatResponse::default()
        .with_error_code(INVALID_PATTERN)
        .with_error_message(Some(StrBytes::from_static_str(WHY)));
    reply::frame(head, &answer).map(Some)
}

/// MemberEpoch and SubscribedTopicRegex; all versions are flexible (KIP-482).
fn subscription(head: Head, frame: &[u8]) -> Result<(i32, Option<&[u8]>), WireError> {
    let mut read = Reader::new(frame, header::request_body_at(head, frame)?);
    let (_group, _member) = (read.bytes(true, false)?, read.bytes(true, false)?);
    let epoch = read.i32()?;
    let (_instance, _rack) = (read.bytes(true, false)?, read.bytes(true, false)?);
    let _rebalance_timeout = read.i32()?;
    for _name in 0..read.length(true, true)?.unwrap_or(0) {
        read.bytes(true, false)?;
    }
    Ok((epoch, read.bytes(true, false)?))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, RequestHeader};
    use kafka_protocol::protocol::{Encodable, HeaderVersion};
    use protocol_ext::api;

    use super::*;

    fn member() -> ConsumerGroupHeartbeatRequest {
        let group = StrBytes::from_static_str("g").into();
        let rack = Some(StrBytes::from_static_str("rack"));
        ConsumerGroupHeartbeatRequest::default().with_group_id(group).with_rack_id(rack)
    }

    fn named(
        names: Option<&[&'static str]>,
        pattern: Option<&'static str>,
    ) -> ConsumerGroupHeartbeatRequest {
        let name = |name: &&'static str| StrBytes::from_static_str(name).into();
        member()
            .with_subscribed_topic_names(names.map(|names| names.iter().map(name).collect()))
            .with_subscribed_topic_regex(pattern.map(StrBytes::from_static_str))
    }

    fn is_refused(version: i16, request: &ConsumerGroupHeartbeatRequest) -> bool {
        let header = RequestHeader::default().with_request_api_key(api::CONSUMER_GROUP_HEARTBEAT);
        let header = header.with_request_api_version(version);
        let mut frame = BytesMut::new();
        let of_header = ConsumerGroupHeartbeatRequest::header_version(version);
        header.encode(&mut frame, of_header).unwrap();
        request.encode(&mut frame, version).unwrap();
        let head = Head::parse(&frame).unwrap();
        refusal(head, &frame.freeze()).unwrap().is_some()
    }

    #[test]
    fn only_a_pattern_is_refused() {
        assert!(!is_refused(1, &named(Some(&["fires", "t"]), None)));
        assert!(!is_refused(1, &named(None, None)));
        assert!(!is_refused(1, &named(Some(&[]), Some(""))), "no pattern any more");
        assert!(is_refused(1, &named(None, Some("fires.*"))));
        assert!(is_refused(1, &named(Some(&["t"]), Some("fires.*"))));
        let leaves = named(None, Some("fires.*")).with_member_epoch(-1);
        assert!(!is_refused(1, &leaves), "a member that leaves");
        let assignor = member().with_server_assignor(Some(StrBytes::from_static_str("uniform")));
        assert!(!is_refused(0, &assignor), "an assignor where later versions have a pattern");
    }
}
