//! Requests that are held whole: filters change them, the router sends their parts elsewhere.
//!
//! One order for all: large values are stored first, under the name that clients use; then
//! batches are split. On the way back legs are merged first, then values restored.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::FetchRequest;
use protocol_ext::header::Head;
use protocol_ext::schema::responses;
use protocol_ext::wire::WireError;
use protocol_ext::{api, batch, reply};

use tokio::sync::OwnedSemaphorePermit;

use super::forced;
use super::frames::{framed, gather, write_chain};
use super::peek;
use super::queue::Answer;
use super::requests::{Requests, request_error, treatment};
use super::storing::{Stored, Storing};
use crate::error::ConnectionError;
use crate::fault;
use crate::filters::offload::Produced;
use crate::metrics::{Class, Direction};
use crate::route::legs::produce::Produced as Routed;
use crate::route::legs::{Ways, fetch, metadata};
use crate::route::transactions;

impl<'a> Requests<'a> {
    /// Takes a request of `frame_bytes` bytes whole and sees it on its way.
    pub(super) async fn whole(
        &mut self,
        head: Head,
        frame_bytes: usize,
    ) -> Result<(), ConnectionError> {
        let _room = self.plane.requests.take(frame_bytes).await;
        let frame = self.gathered(head, frame_bytes).await?;
        match head.api {
            api::PRODUCE => self.produced(head, frame, Produced::Same).await,
            api::FETCH => self.fetch(head, frame).await,
            api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE => self.renew(head, frame).await,
            api::LIST_OFFSETS => self.list_offsets(head, frame).await,
            api::ADD_PARTITIONS_TO_TXN | api::TXN_OFFSET_COMMIT => {
                self.transaction(head, frame).await
            }
            _ => self.metadata(head, frame).await,
        }
    }

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
        let mut room = self.plane.requests.try_take(frame_bytes);
        while room.is_none() && !storing.is_empty() {
            let stored = storing.next().await;
            self.stored(stored).await?;
            room = self.plane.requests.try_take(frame_bytes);
        }
        if room.is_none() {
            room = self.plane.requests.take(frame_bytes).await;
        }
        if fault::on("room-leaked") {
            room.take().into_iter().for_each(OwnedSemaphorePermit::forget);
        }
        let frame = storing.beside(self.gathered(head, frame_bytes)).await?;
        storing.add(offload, head, frame, room);
        Ok(())
    }

    /// Sees a Produce request on its way whose values are stored, or could not be.
    pub(super) async fn stored(&mut self, stored: Stored) -> Result<(), ConnectionError> {
        let produced = stored.produced.map_err(|error| request_error(stored.head.api, error))?;
        self.produced(stored.head, stored.frame, produced).await
    }

    /// The next `frame_bytes` bytes, behind a length.
    async fn gathered(&mut self, head: Head, frame_bytes: usize) -> Result<Bytes, ConnectionError> {
        self.input.consume(4);
        let (handle, metrics) = (self.handle, &self.plane.metrics);
        if self.input.len() < frame_bytes {
            handle.waits(false);
        }
        let read = |n| {
            handle.received(n);
            handle.waits(false);
            metrics.bytes(Direction::FromClient, n);
        };
        let gathered = gather(&mut self.input, &mut self.from_client, frame_bytes, read).await;
        let frame = gathered.map_err(ConnectionError::ClientIo)?;
        handle.received(0);
        forced::request(head, frame)
    }

    async fn produced(
        &mut self,
        head: Head,
        frame: Bytes,
        produced: Produced,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        let peeked = peek::produce(head, &frame, frame.len(), false).map_err(wrong)?;
        let acks = peeked.map_or(0, |peeked| peeked.acks);
        let pieces = match produced {
            Produced::Same => vec![frame],
            Produced::New(pieces) => pieces,
            Produced::Refused(_) if acks == 0 => {
                // As a broker does that cannot answer: the closed connection tells.
                return Err(ConnectionError::Filter("value of acks=0 was not stored".to_owned()));
            }
            Produced::Refused(_) if fault::on("refused-unanswered") => return Ok(()),
            Produced::Refused(code) => {
                let answer = reply::produce_error(head, &frame, code).map_err(wrong)?;
                return self.answer(head, answer);
            }
        };
        if let Some(ways) = self.plane.ways() {
            let frame = joined(&pieces);
            let body_bytes_max = self.plane.limits.frame_bytes_max;
            let caps = batch::Caps { body_bytes_max, rewritten_bytes_max: body_bytes_max };
            let client = self.line.as_ref();
            let legs = self.legs.get_or_insert_default();
            let routed = legs.produce(ways, &caps, &self.plane.metrics, client, head, &frame).await;
            match routed.map_err(wrong)? {
                Routed::Answered(_) if acks == 0 => {
                    self.plane.metrics.request(head.api, Class::Full);
                    return Ok(());
                }
                Routed::Rest(rest, _) if acks == 0 => {
                    self.plane.metrics.request(head.api, Class::Full);
                    return self.forward(vec![rest]).await;
                }
                Routed::Answered(answer) => return self.answer(head, answer),
                Routed::Rest(rest, told) => {
                    self.push(head, Answer::Produced(told), Class::Full);
                    return self.forward(vec![rest]).await;
                }
                Routed::Untouched => {}
            }
        }
        if acks == 0 {
            self.plane.metrics.request(head.api, Class::Full);
        } else {
            self.push(head, treatment(head).0, Class::Full);
        }
        self.forward(pieces).await
    }

    async fn fetch(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        let budget = peek::fetch_bytes_max(head, &frame, frame.len()).map_err(wrong)?;
        let budget = budget.unwrap_or(0);
        if let Some(ways) = self.plane.ways()
            && let Some(request) = fetch::asked(ways, head, &frame).map_err(wrong)?
        {
            return self.read(ways, head, &request, budget).await;
        }
        let answer = match &self.plane.offload {
            Some(_) => Answer::Restore(&responses::FETCH, budget),
            None => treatment(head).0,
        };
        self.push(head, answer, Class::Full);
        self.forward(vec![frame]).await
    }

    /// Answers a Fetch request about virtual topics, when its turn has come: room that is held by
    /// who waits for the answers before may be the room that these need.
    async fn read(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        request: &FetchRequest,
        budget: usize,
    ) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        if !fault::on("read-out-of-turn") {
            self.queue.turn().await;
        }
        let legs = self.legs.get_or_insert_default();
        let (answer, room) = legs.fetch(ways, head, request).await.map_err(wrong)?;
        let Some(offload) = self.plane.offload.as_ref().filter(|_| !fault::on("routed-unrestored"))
        else {
            let held = room.into_iter().collect();
            self.push(head, Answer::Local(framed(vec![answer]), held), Class::Full);
            return Ok(());
        };
        let message = &responses::FETCH;
        let restored =
            offload.restore(message, head.version, &answer, budget, ways.directory).await;
        let restored = restored.map_err(wrong)?;
        let held = room.into_iter().chain(restored.room).collect();
        self.push(head, Answer::Local(framed(restored.frame), held), Class::Full);
        Ok(())
    }

    async fn list_offsets(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        if let Some(ways) = self.plane.ways().filter(|_| head.version > 0) {
            let legs = self.legs.get_or_insert_default();
            let asked = legs.list_offsets(ways, head, &frame).await;
            if let Some(answer) = asked.map_err(|error| request_error(head.api, error))? {
                return self.answer(head, answer);
            }
        }
        self.push(head, treatment(head).0, Class::Full);
        self.forward(vec![frame]).await
    }

    /// A request that takes topics into a transaction: virtual ones cannot be.
    async fn transaction(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        if let Some(routed) = &self.plane.routed {
            let refusal = transactions::refusal(routed, head, &frame);
            if let Some(answer) = refusal.map_err(|error| request_error(head.api, error))? {
                return self.answer(head, answer);
            }
        }
        self.push(head, treatment(head).0, Class::Full);
        self.forward(vec![frame]).await
    }

    async fn metadata(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let asked = match &self.plane.routed {
            Some(routed) => metadata::request(routed, head, &frame),
            None => Ok::<_, WireError>(None),
        };
        match asked.map_err(|error| request_error(head.api, error))? {
            Some((frame, asked)) => {
                // Perhaps in another version than the client's.
                let head = Head::parse(&frame).map_err(|error| request_error(head.api, error))?;
                self.push(head, Answer::Metadata(Box::new(asked)), Class::Full);
                self.forward(vec![frame]).await
            }
            None => {
                self.push(head, treatment(head).0, Class::Full);
                self.forward(vec![frame]).await
            }
        }
    }

    pub(super) fn answer(&self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        self.push(head, Answer::Local(framed(vec![frame]), Vec::new()), Class::Full);
        Ok(())
    }

    async fn forward(&mut self, pieces: Vec<Bytes>) -> Result<(), ConnectionError> {
        let pieces = framed(pieces);
        write_chain(&mut self.to_home, &pieces).await.map_err(ConnectionError::BrokerIo)?;
        self.plane.metrics.bytes(Direction::ToBroker, pieces.iter().map(Bytes::len).sum());
        Ok(())
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
