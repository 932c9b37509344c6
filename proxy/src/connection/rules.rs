//! Which requests are taken, and how a Produce request goes on: said by their first bytes.
//!
//! Asked when the turn of a request has come, and before by who reads ahead (`incoming.rs`).
//! Invariant: asking changes nothing.

use protocol_ext::api::{self, Answer as Treatment};
use protocol_ext::header::Head;
use protocol_ext::schema::Message;
use protocol_ext::wire::WireError;

use super::frames::{PREFIX_BYTES, check_protocol, length_at};
use super::peek::{self, NamedBy};
use super::queue::Answer;
use super::refusals::Refusals;
use super::requests::{PRODUCE_WITH_BATCHES, request_error};
use super::session::Session;
use crate::data_plane::DataPlane;
use crate::error::ConnectionError;
use crate::fault;
use crate::limits::AHEAD_BYTES_MAX;
use crate::metrics::Class;
use crate::route::virtual_topics::Named;

/// What requests of one connection are judged by.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub plane: &'a DataPlane,
    pub session: Option<&'a Session>,
    pub refusals: &'a Refusals,
}

/// How a Produce request goes on.
pub struct ProduceWay {
    pub acks: i16,
    /// It has values to store.
    pub stored: bool,
    /// It has batches to split.
    pub split: bool,
}

/// What may be done with a request before its turn.
pub enum Ahead {
    /// More of it must be read to tell.
    Unknown,
    /// It is for Produce and will be held whole: it can be read, so many bytes.
    Whole(Head, usize),
    /// Nothing.
    Other,
}

impl Rules<'_> {
    /// Head and length of the request at the start of `bytes`, if it may be taken.
    #[inline(always)]
    pub fn head(self, bytes: &[u8]) -> Result<(Head, usize), ConnectionError> {
        let length = length_at(bytes);
        let limit = self.plane.limits.frame_bytes_max;
        let frame_bytes = usize::try_from(length).unwrap_or(0);
        if frame_bytes < PREFIX_BYTES - 4 || frame_bytes > limit {
            check_protocol(bytes)?;
            return Err(ConnectionError::FrameLength { length, limit });
        }
        let head = Head::parse(&bytes[4..]).map_err(|error| request_error(-1, error))?;
        self.check(head)?;
        Ok((head, frame_bytes))
    }

    /// Whether a request may be taken now.
    #[inline(always)]
    pub fn check(self, Head { api, version, .. }: Head) -> Result<(), ConnectionError> {
        if !self.plane.is_servable(api, version) {
            return Err(ConnectionError::NotOffered { name: api::name(api), api, version });
        }
        if self.session.is_some_and(|session| session.is_over(api)) {
            return Err(ConnectionError::SessionOver);
        }
        Ok(())
    }

    /// What may be done with the request at the start of `bytes`. What is wrong with it is told in
    /// its turn.
    pub fn ahead(self, bytes: &[u8]) -> Ahead {
        if bytes.len() < PREFIX_BYTES {
            return Ahead::Unknown;
        }
        let Ok((head, frame_bytes)) = self.head(bytes) else { return Ahead::Other };
        if head.api != api::PRODUCE || frame_bytes > AHEAD_BYTES_MAX {
            return Ahead::Other;
        }
        match self.produce_way(head, &bytes[4..], frame_bytes) {
            Ok(None) => Ahead::Unknown,
            Ok(Some(way)) if way.stored || way.split || fault::forced().holds() => {
                Ahead::Whole(head, frame_bytes)
            }
            Ok(Some(_)) | Err(_) => Ahead::Other,
        }
    }

    /// Looks into a Produce request; `None` if more of it must be read.
    #[inline(always)]
    pub fn produce_way(
        self,
        head: Head,
        held: &[u8],
        frame_bytes: usize,
    ) -> Result<Option<ProduceWay>, WireError> {
        let batches = head.version >= PRODUCE_WITH_BATCHES;
        let offload = self.plane.offload.as_ref();
        let offload = offload.filter(|o| batches && o.may_hold_large(frame_bytes));
        let routed = self.plane.routed.as_ref().filter(|_| batches);
        let topic_too = offload.is_some() || routed.is_some();
        let Some(peeked) = peek::produce(head, held, frame_bytes, topic_too)? else {
            return Ok(None);
        };
        let known;
        let topic = match &peeked.only_topic {
            None => None,
            Some(NamedBy::Name(name)) => Some(&**name),
            Some(NamedBy::Id(id)) => {
                known = self.plane.topics.known_name(id);
                known.as_deref()
            }
        };
        let named = routed.zip(topic).map(|(routed, topic)| routed.named(topic));
        // An id that was not asked for yet may be that of any topic.
        let stored = offload.is_some_and(|o| topic.is_none_or(|topic| o.concerns(topic)));
        // Nothing is stored for what is refused.
        let stored = stored && named != Some(Named::Hidden);
        // What may follow a refused batch is looked at, however small.
        let stored = stored || (batches && !self.refusals.is_empty());
        let own_writer = peeked.transactional_id.is_some_and(|id| {
            let id = std::str::from_utf8(id).unwrap_or_default();
            routed.is_some_and(|routed| routed.is_own_writer(id))
        });
        // One that nobody has seen yet may be a virtual topic, or a part of one.
        let split = routed.is_some() && (named != Some(Named::Plain) || own_writer);
        let stored = stored && !own_writer;
        Ok(Some(ProduceWay { acks: peeked.acks, stored, split }))
    }
}

/// How the answer to a request is treated, and how deep that is.
pub(super) fn treatment(head: Head) -> (Answer, Class) {
    match api::get(head.api).map(|api| api.answer) {
        Some(Treatment::Patch(message)) => (Answer::Patch(message), Class::Patch),
        Some(Treatment::Versions) => (Answer::Versions, Class::Patch),
        Some(Treatment::Tail(message)) if has_tail(message, head.version) => {
            (Answer::Tail(message), Class::Patch)
        }
        Some(Treatment::Tail(_)) => (Answer::Opaque, Class::Peek),
        Some(Treatment::Opaque | Treatment::Hidden) | None => (Answer::Opaque, Class::Opaque),
    }
}

fn has_tail(message: &Message, version: i16) -> bool {
    let endpoints = message.fields.iter().rfind(|f| f.name == protocol_ext::scan::ENDPOINTS);
    endpoints.is_some_and(|f| version >= f.since)
}
