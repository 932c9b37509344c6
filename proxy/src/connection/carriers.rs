//! Requests that may name virtual topics or their parts to brokers: what brokers serve by the
//! carrier goes on to them, what would reach its empty log or a part does not.

use bytes::Bytes;
use protocol_ext::api;
use protocol_ext::header::{self, Head};
use protocol_ext::schema::{Role, requests};
use protocol_ext::walk::{Value, walk};
use protocol_ext::wire::WireError;

use super::peek;
use super::queue::Answer;
use super::requests::{FETCH_WITH_BATCHES, PRODUCE_WITH_BATCHES};
use super::requests::{Requests, request_error};
use super::responses::{patched, response_error};
use super::rules::treatment;
use crate::error::ConnectionError;
use crate::fault;
use crate::metrics::Class;
use crate::route::carrier::{self, Known};
use crate::route::groups;
use crate::route::legs::{Ways, delete_records};
use crate::route::topics::TopicId;
use crate::route::virtual_topics::Named;

/// First versions that name topics by their ids.
const PRODUCE_WITH_IDS: i16 = 13;
const FETCH_WITH_IDS: i16 = 13;
const DELETE_TOPICS_WITH_IDS: i16 = 6;

/// Whether a request is of a version that virtual topics cannot be served in, and must be looked
/// at for their names.
pub fn is_too_old(head: Head) -> bool {
    let first = match head.api {
        api::PRODUCE => PRODUCE_WITH_BATCHES,
        api::FETCH => FETCH_WITH_BATCHES,
        api::LIST_OFFSETS => 1,
        _ => return false,
    };
    head.version < first && !fault::on("old-versions-pass")
}

/// Whether a request is held whole only because of the carriers of virtual topics.
pub fn concerns(head: Head) -> bool {
    if head.api == api::CONSUMER_GROUP_HEARTBEAT {
        return groups::may_name_a_pattern(head.version);
    }
    matches!(
        head.api,
        api::OFFSET_COMMIT
            | api::TXN_OFFSET_COMMIT
            | api::OFFSET_FOR_LEADER_EPOCH
            | api::CREATE_PARTITIONS
            | api::DELETE_TOPICS
            | api::DELETE_RECORDS
            | api::CREATE_TOPICS
            | api::WRITE_TXN_MARKERS
            | api::DESCRIBE_CONFIGS
            | api::ALTER_CONFIGS
            | api::INCREMENTAL_ALTER_CONFIGS
            | api::ALTER_REPLICA_LOG_DIRS
            | api::ELECT_LEADERS
            | api::ALTER_PARTITION_REASSIGNMENTS
            | api::OFFSET_DELETE
            | api::DESCRIBE_PRODUCERS
            | api::INIT_PRODUCER_ID
            | api::ADD_OFFSETS_TO_TXN
            | api::END_TXN
    )
}

impl Requests<'_> {
    /// A request in a version that has no batches: it goes on unless it names a virtual topic or a
    /// part of one.
    pub(super) async fn too_old(
        &mut self,
        head: Head,
        frame: Bytes,
    ) -> Result<(), ConnectionError> {
        let Head { api, version, .. } = head;
        let wrong = |error| request_error(api, error);
        if let Some(routed) = &self.plane.routed {
            let mut found = false;
            see(head, &frame, |role, value| {
                let name = value.bytes().and_then(|name| std::str::from_utf8(name).ok());
                let named = name.filter(|_| role == Role::Topic).map(|name| routed.named(name));
                found |= match named {
                    Some(Named::Virtual) => true,
                    Some(Named::Hidden) => !fault::on("old-versions-of-parts-pass"),
                    Some(Named::Plain) | None => false,
                };
            })
            .map_err(wrong)?;
            if found {
                return Err(ConnectionError::NotOffered { name: api::name(api), api, version });
            }
        }
        let unanswered = api == api::PRODUCE && {
            let peeked = peek::produce(head, &frame, frame.len(), false).map_err(wrong)?;
            peeked.is_some_and(|peeked| peeked.acks == 0)
        };
        match unanswered {
            true => self.plane.metrics.request(api, Class::Full),
            false => self.push(head, treatment(head).0, Class::Full),
        }
        self.forward(vec![frame]).await
    }

    /// Has the topics asked for that a request names by ids nobody here has seen: one may be that
    /// of a virtual topic, and no broker must see it then.
    pub(super) async fn learn_ids(
        &mut self,
        head: Head,
        frame: &Bytes,
    ) -> Result<(), ConnectionError> {
        let by_id = match head.api {
            api::PRODUCE => head.version >= PRODUCE_WITH_IDS,
            api::FETCH => head.version >= FETCH_WITH_IDS,
            api::DELETE_TOPICS => head.version >= DELETE_TOPICS_WITH_IDS,
            _ => false,
        };
        if self.plane.routed.is_none() || !by_id || fault::on("unknown-ids-pass") {
            return Ok(());
        }
        let mut unknown: Vec<TopicId> = Vec::new();
        let ids = see(head, frame, |role, value| {
            if let (Role::TopicId, Value::Uuid(id)) = (role, value)
                && id != [0; 16]
                && self.plane.topics.known_name(&id).is_none()
            {
                unknown.push(id);
            }
        });
        ids.map_err(|error| request_error(head.api, error))?;
        if unknown.is_empty() {
            return Ok(());
        }
        let asked = self.plane.topics.want_names(unknown.into_iter()).await;
        asked.map_err(ConnectionError::BrokerIo)
    }

    /// A request that the carriers of virtual topics serve, but for some rows of it.
    pub(super) async fn by_carrier(
        &mut self,
        head: Head,
        frame: Bytes,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        let answer = treatment(head).0;
        if let Some(routed) = &self.plane.routed {
            self.learn_ids(head, &frame).await?;
            let known = Known { routed, topics: &self.plane.topics, key: head.api };
            if let Some(parted) = carrier::parted(known, head, &frame).map_err(wrong)? {
                let wrong = |error| response_error(head.api, error);
                let told = match (self.home(head, parted.rest).await?, answer) {
                    (None, _) => parted.told,
                    (Some(beside), Answer::Patch(message)) => {
                        let (of, to) = ((head.api, head.version), &self.plane.directory);
                        let beside = patched(message, of, &beside, to).map_err(wrong)?;
                        carrier::joined(head, &parted.told, &beside).map_err(wrong)?
                    }
                    (Some(beside), _) => {
                        carrier::joined(head, &parted.told, &beside).map_err(wrong)?
                    }
                };
                return self.answer(head, told).await;
            }
        }
        self.push(head, answer, Class::Full);
        self.forward(vec![frame]).await
    }

    pub(super) async fn delete_records(
        &mut self,
        head: Head,
        frame: Bytes,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        if let Some(ways) = self.plane.ways()
            && !fault::on("deletions-pass")
            && let Some(request) = delete_records::asked(ways, head, &frame).map_err(wrong)?
        {
            let rest = delete_records::rest(ways, head, &frame, &request).map_err(wrong)?;
            let refused = self.refused(head, &frame, true).await?;
            let ways = Ways { refused: &refused, ..ways };
            let beside = self.home(head, rest).await?;
            let legs = self.legs.get_or_insert_default();
            let answer = legs.delete_records(ways, head, &request, beside).await;
            let answer = answer.map_err(|error| response_error(head.api, error))?;
            return self.answer(head, answer).await;
        }
        self.push(head, treatment(head).0, Class::Full);
        self.forward(vec![frame]).await
    }
}

/// Shows the marked fields of a Produce, Fetch, ListOffsets or DeleteTopics request.
fn see(head: Head, frame: &Bytes, mut look: impl FnMut(Role, Value<'_>)) -> Result<(), WireError> {
    let layout = match head.api {
        api::PRODUCE => &requests::PRODUCE,
        api::FETCH => &requests::FETCH,
        api::DELETE_TOPICS => &requests::DELETE_TOPICS,
        _ => &requests::LIST_OFFSETS,
    };
    let at = header::request_body_at(head, frame)?;
    let mut visit = |role: Role, value: Value<'_>| {
        look(role, value);
        None
    };
    walk(layout, head.version, frame, at, &mut visit).map(drop)
}
