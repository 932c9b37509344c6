//! Produce requests that are held whole: values to the store, refusals, parts to other brokers.
//!
//! store -> stored (or whole) -> what is refused taken out -> legs, with the next request read
//! meanwhile -> the rest to the home broker.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::TopicProduceResponse;
use protocol_ext::header::Head;
use protocol_ext::{batch, reply};

use super::peek;
use super::queue::Answer;
use super::refusals;
use super::requests::{Requests, request_error};
use super::rules::Rules;
use super::rules::treatment;
use super::storing::{Stored, Storing};
use crate::budget::Room;
use crate::error::ConnectionError;
use crate::fault;
use crate::filters::offload::{Produced, STORAGE_ERROR, produce_sections};
use crate::limits::STORING_MAX;
use crate::metrics::Class;
use crate::route::legs::Ways;
use crate::route::legs::produce::{self, Produced as Routed};
use crate::route::permissions::FORBIDDEN;

impl<'a> Requests<'a> {
    /// Takes a Produce request whole and begins to store its values. While others are under way
    /// it waits for none: whoever holds room and waits for more could wait for ever.
    pub(super) async fn store(
        &mut self,
        head: Head,
        frame_bytes: usize,
        storing: &mut Storing<'a>,
    ) -> Result<(), ConnectionError> {
        let plane = self.plane;
        let Some(offload) = &plane.offload else {
            return Err(ConnectionError::Filter("no store for a value".to_owned()));
        };
        let mut room = self.incoming.try_take(frame_bytes);
        while room.is_none() && !storing.is_empty() {
            let stored = storing.next().await;
            storing.beside(Box::pin(self.stored(stored))).await?;
            room = self.incoming.try_take(frame_bytes);
        }
        if room.is_none() {
            room = self.incoming.take(frame_bytes).await;
        }
        if fault::on("room-leaked") {
            room.take().into_iter().for_each(Room::leak);
        }
        let frame = storing.beside(self.incoming.gathered(head, frame_bytes)).await?;
        // A request that its broker will refuse goes there as it is, and leaves nothing behind.
        let refused = storing.beside(self.refused(head, &frame, false)).await?;
        let offload = Some(offload).filter(|_| !refused.forbids_all());
        storing.add(offload, head, frame, room);
        Ok(())
    }

    /// Sees a Produce request on its way whose values are stored, or could not be.
    pub(super) async fn stored(&mut self, stored: Stored) -> Result<(), ConnectionError> {
        let produced = stored.produced.map_err(|error| request_error(stored.head.api, error))?;
        self.queue.work(true);
        self.produced(stored.head, stored.frame, produced).await?;
        self.queue.work(false);
        Ok(())
    }

    /// Answers a Produce request where nothing is written: none of its topics may be.
    pub(super) async fn refuse_writes(
        &mut self,
        head: Head,
        frame: &Bytes,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        let sections = produce_sections(head, frame).map_err(wrong)?.len();
        let refused = (0..sections).map(|n| (n, FORBIDDEN)).collect();
        let peeked = peek::produce(head, frame, frame.len(), false).map_err(wrong)?;
        if peeked.is_none_or(|peeked| peeked.acks == 0) {
            return Err(ConnectionError::Refused(FORBIDDEN));
        }
        let (_, rows) = refusals::taken_out(head, frame, &refused).map_err(wrong)?;
        self.admitted().await?;
        let answer = ProduceResponse::default().with_responses(rows);
        self.answer(head, reply::frame(head, &answer).map_err(wrong)?).await
    }

    pub(super) async fn produced(
        &mut self,
        head: Head,
        frame: Bytes,
        produced: Produced,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        let peeked = peek::produce(head, &frame, frame.len(), false).map_err(wrong)?;
        let acks = peeked.map_or(0, |peeked| peeked.acks);
        let Produced { new, mut refused } = produced;
        if acks == 0
            && let Some(code) = refused.values().next()
        {
            return Err(ConnectionError::Refused(*code));
        }
        if acks != 0 && !self.refusals.follow(head, &frame, &mut refused).map_err(wrong)? {
            let code = refused.values().next().copied().unwrap_or(STORAGE_ERROR);
            return Err(ConnectionError::Refused(code));
        }
        let mut pieces = new.unwrap_or_else(|| vec![frame]);
        let mut told = Vec::new();
        if !refused.is_empty() {
            let (rest, rows) =
                refusals::taken_out(head, &joined(&pieces), &refused).map_err(wrong)?;
            let Some(rest) = rest else {
                if fault::on("refused-unanswered") {
                    return Ok(());
                }
                let answer = ProduceResponse::default().with_responses(rows);
                return self.answer(head, reply::frame(head, &answer).map_err(wrong)?).await;
            };
            (pieces, told) = (vec![rest], rows);
        }
        self.written(head, acks, pieces, told).await
    }

    /// Sees a Produce request on its way, split where its topics are virtual. What is `told`
    /// already goes beside the answer.
    async fn written(
        &mut self,
        head: Head,
        acks: i16,
        pieces: Vec<Bytes>,
        mut told: Vec<TopicProduceResponse>,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        if let Some(ways) = self.plane.ways() {
            let frame = joined(&pieces);
            self.learn_ids(head, &frame).await?;
            let body_bytes_max = self.plane.limits.frame_bytes_max;
            let caps = batch::Caps { body_bytes_max, rewritten_bytes_max: body_bytes_max };
            let refused = self.refused(head, &frame, true).await?;
            let ways = Ways { refused: &refused, ..ways };
            let routed = {
                let (plane, session) = (self.plane, self.session.as_deref());
                let rules = Rules { plane, session, refusals: &self.refusals };
                let (legs, client) = (self.legs.get_or_insert_default(), self.line.as_ref());
                let routed = pin!(legs.produce(ways, &caps, &plane.metrics, client, head, &frame));
                // Nothing that has room may wait for its turn because of those before it.
                match self.queue.has_room_for(STORING_MAX + 2) {
                    true => self.incoming.beside(rules, routed).await,
                    false => routed.await,
                }
            };
            match routed.map_err(wrong)? {
                Routed::Answered(_) if acks == 0 => {
                    self.plane.metrics.request(head.api, Class::Full);
                    return Ok(());
                }
                Routed::Rest(rest, _) if acks == 0 => {
                    self.plane.metrics.request(head.api, Class::Full);
                    return self.forward(vec![rest]).await;
                }
                Routed::Answered(answer) if told.is_empty() => {
                    self.admitted().await?;
                    return self.answer(head, answer).await;
                }
                Routed::Answered(answer) => {
                    self.admitted().await?;
                    let directory = &self.plane.directory;
                    let answer = produce::joined(head.version, &answer, told, directory);
                    return self.answer(head, answer.map_err(wrong)?).await;
                }
                Routed::Rest(rest, more) => {
                    told.extend(more);
                    self.push(head, Answer::Produced(told), Class::Full);
                    return self.forward(vec![rest]).await;
                }
                Routed::Untouched => {}
            }
        }
        match acks {
            0 => self.plane.metrics.request(head.api, Class::Full),
            _ if told.is_empty() => self.push(head, treatment(head).0, Class::Full),
            _ => self.push(head, Answer::Produced(told), Class::Full),
        }
        self.forward(pieces).await
    }
}

fn joined(pieces: &[Bytes]) -> Bytes {
    if let [one] = pieces {
        return one.clone();
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        joined.extend_from_slice(piece);
    }
    joined.freeze()
}
