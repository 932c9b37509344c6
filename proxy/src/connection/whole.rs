//! Requests that are held whole: filters change them, the router sends their parts elsewhere.
//!
//! One order for all: large values are stored first, under the name that clients use; then
//! batches are split (produce.rs). On the way back legs are merged first, then values restored.

use std::io;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::FetchRequest;
use protocol_ext::header::Head;
use protocol_ext::schema::responses;
use protocol_ext::wire::WireError;
use protocol_ext::{api, versions};
use tokio::sync::oneshot;

use super::carriers;
use super::frames::framed;
use super::peek;
use super::queue::{Answer, Exchange};
use super::requests::{Requests, is_too_new, request_error};
use super::responses::response_error;
use super::rules::treatment;
use crate::budget::Room;
use crate::error::ConnectionError;
use crate::filters::offload::{Produced, Sharing, Wanted};
use crate::limits::{IO_BUFFER_BYTES, WHOLE_REQUEST_BYTES_MAX};
use crate::metrics::{Class, Direction, Side};
use crate::route::groups;
use crate::route::legs::{Ways, fetch, list_offsets, metadata};
use crate::route::permissions::{Names, Refused};
use crate::route::transactions;
use crate::stream::chain::write_chain_telling;
use crate::{clock, fault};

/// Questions up to this length take no room: as many as there are connections are little.
const SHORT_QUESTION_BYTES: usize = 4096;

impl Requests<'_> {
    /// Takes a request of `frame_bytes` bytes whole, in the room that it has or else in some that
    /// is waited for, and sees it on its way.
    pub(super) async fn whole(
        &mut self,
        head: Head,
        frame_bytes: usize,
        room: Option<Room>,
    ) -> Result<(), ConnectionError> {
        // A heartbeat that waited behind long requests would cost a member its session.
        let short = frame_bytes <= SHORT_QUESTION_BYTES && head.api != api::PRODUCE;
        let _room = match room {
            None if !short || fault::on("short-questions-wait") => {
                self.incoming.take(frame_bytes).await
            }
            room => room,
        };
        let frame = self.incoming.gathered(head, frame_bytes).await?;
        match head.api {
            api::PRODUCE if self.plane.read_only => self.refuse_writes(head, &frame).await,
            _ if carriers::is_too_old(head) => self.too_old(head, frame).await,
            api::PRODUCE => self.produced(head, frame, Produced::default()).await,
            api::FETCH => self.fetch(head, frame).await,
            api::SHARE_FETCH if self.plane.offload.is_some() => self.share_fetch(head, frame).await,
            api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE if self.session.is_some() => {
                self.renew(head, frame).await
            }
            api::API_VERSIONS if is_too_new(head.version) => {
                self.answer(head, versions::unsupported(head)).await
            }
            api::LIST_OFFSETS => self.list_offsets(head, frame).await,
            api::ADD_PARTITIONS_TO_TXN
            | api::INIT_PRODUCER_ID
            | api::ADD_OFFSETS_TO_TXN
            | api::END_TXN
            | api::CONSUMER_GROUP_HEARTBEAT => self.unless_refused(head, frame).await,
            api::DELETE_RECORDS => self.delete_records(head, frame).await,
            _ if carriers::concerns(head) => self.by_carrier(head, frame).await,
            api::METADATA => self.metadata(head, frame).await,
            // Held whole for no need of its own.
            _ => {
                self.push(head, treatment(head).0, Class::Full);
                self.forward(vec![frame]).await
            }
        }
    }

    /// Whether a Fetch request of so many bytes that could pass is held whole, so that it asks for
    /// less, and the room that it has. It waits for none: producers may hold all there is.
    pub(super) fn lowers(&self, frame_bytes: usize) -> (bool, Option<Room>) {
        let known = self.queue.reading.inflation.is_known();
        if !known || frame_bytes > WHOLE_REQUEST_BYTES_MAX {
            return (false, None);
        }
        if frame_bytes <= SHORT_QUESTION_BYTES || fault::on("lowered-fetches-wait") {
            return (true, None);
        }
        let room = self.plane.requests.try_take(frame_bytes);
        (room.is_some(), room)
    }

    async fn fetch(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let wrong = |error| request_error(head.api, error);
        self.learn_ids(head, &frame).await?;
        let asked = peek::fetch(head, &frame, frame.len()).map_err(wrong)?.unwrap_or_default();
        let follower = peek::is_follower(head, &frame, frame.len()) == Some(true);
        let (bytes, frame) = match follower {
            false => self.bounded(frame, (asked.bytes_max, asked.at)),
            true => (asked.bytes_max, frame),
        };
        let wanted = self.wanted(bytes, asked.partition_bytes_max);
        let lowered = match &self.plane.offload {
            Some(_) if !follower => self.lowered(head, &frame, (bytes, asked.bytes_min)),
            Some(_) | None => None,
        };
        if let Some(ways) = self.plane.ways()
            && let Some(request) = fetch::asked(ways, head, &frame).map_err(wrong)?
        {
            let lowered = lowered.map(|frame| fetch::asked(ways, head, &frame)).transpose();
            let lowered = lowered.map_err(wrong)?.flatten();
            let lowered = lowered.as_ref().unwrap_or(&request);
            // Decided before anything is waited for: an id may become known meanwhile.
            let rest = fetch::rest(ways, head, &frame, lowered).map_err(wrong)?;
            let refused = self.refused(head, &frame, true).await?;
            let ways = Ways { refused: &refused, ..ways };
            let wanted = (!follower).then_some(wanted);
            return self.read(ways, head, ((&request, lowered), rest), wanted).await;
        }
        let answer = match &self.plane.offload {
            Some(_) if !follower => Answer::Restore(&responses::FETCH, wanted),
            Some(_) | None => treatment(head).0,
        };
        self.push(head, answer, Class::Full);
        self.forward(vec![lowered.unwrap_or(frame)]).await
    }

    /// A request of a share consumer. It asks for no more than is held whole of its answer, and for
    /// as many records as their values fit one.
    async fn share_fetch(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let asked = peek::share_fetch(head, &frame).map_err(|e| request_error(head.api, e))?;
        let bytes_max = asked.bytes_max.min(self.plane.fetch_bytes_max());
        let Some(offload) = &self.plane.offload else {
            return Err(ConnectionError::Filter("no filter for a request".to_owned()));
        };
        let pace = offload.pace(&asked.group);
        let most = if fault::on("share-pace-ignored") { i32::MAX } else { pace.records_max() };
        let records_max = asked.records_max.min(most);
        let mut bounded = BytesMut::from(&frame[..]);
        let bytes = i32::try_from(bytes_max).unwrap_or(i32::MAX);
        bounded[asked.at..asked.at + 4].copy_from_slice(&bytes.to_be_bytes());
        bounded[asked.at + 4..asked.at + 8].copy_from_slice(&records_max.to_be_bytes());
        let sharing = Sharing { bytes: bytes_max, records: records_max, pace };
        self.push(head, Answer::Shared(sharing), Class::Full);
        self.forward(vec![bounded.freeze()]).await
    }

    /// A Fetch request that asks for no more than is held whole of its answer, and how much that
    /// is. What is longer would close the connection, at every retry again.
    fn bounded(&self, frame: Bytes, (asked, at): (usize, Option<usize>)) -> (usize, Bytes) {
        let most = self.plane.fetch_bytes_max();
        let beyond = asked > most && self.plane.offload.is_some();
        let (Some(at), true) = (at, beyond) else {
            return (asked, frame);
        };
        let said = i32::try_from(most).unwrap_or(i32::MAX);
        let mut bounded = BytesMut::from(&frame[..]);
        bounded[at..at + 4].copy_from_slice(&said.to_be_bytes());
        (most, bounded.freeze())
    }

    /// A Fetch request that asks for as much of each log as its values have room for in so many
    /// bytes, and for no less than it waits for; `None` if it does so already.
    fn lowered(&self, head: Head, frame: &Bytes, bounds: (usize, usize)) -> Option<Bytes> {
        let lowered = self.queue.reading.inflation.lowered(head, frame, bounds)?;
        self.plane.metrics.offload_lowered.inc();
        Some(lowered)
    }

    /// Answers a Fetch request about virtual topics, when its turn has come: room that is held by
    /// who waits for the answers before may be the room that these need. Values are restored for
    /// who wants some.
    async fn read(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        (requests, rest): ((&FetchRequest, &FetchRequest), Option<Bytes>),
        wanted: Option<Wanted>,
    ) -> Result<(), ConnectionError> {
        // The request was read: what is wrong now is what the home broker told beside it.
        let wrong = |error| response_error(head.api, error);
        if !fault::on("read-out-of-turn") {
            self.queue.turn().await;
        }
        let beside = self.home(head, rest).await?;
        let legs = self.legs.get_or_insert_default();
        let (answer, room) = legs.fetch(ways, head, requests, beside).await.map_err(wrong)?;
        let offload = self.plane.offload.as_ref().filter(|_| !fault::on("routed-unrestored"));
        let Some((offload, wanted)) = offload.zip(wanted) else {
            let held = room.into_iter().collect();
            self.push(head, Answer::Local(framed(vec![answer]), held), Class::Full);
            return Ok(());
        };
        let layout = (&responses::FETCH, head.version);
        let wanted = (wanted, &self.queue.reading);
        let restored = offload.restore(layout, &answer, wanted, ways.directory).await;
        let restored = restored.map_err(wrong)?;
        let held = room.into_iter().chain(restored.room).collect();
        self.push(head, Answer::Local(framed(restored.frame), held), Class::Full);
        Ok(())
    }

    async fn list_offsets(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        if let Some(ways) = self.plane.ways() {
            let wrong = |error| request_error(head.api, error);
            if let Some(request) = list_offsets::asked(ways, head, &frame).map_err(wrong)? {
                let rest = list_offsets::rest(ways, head, &frame, &request).map_err(wrong)?;
                let refused = self.refused(head, &frame, true).await?;
                let ways = Ways { refused: &refused, ..ways };
                let beside = self.home(head, rest).await?;
                let legs = self.legs.get_or_insert_default();
                let answer = legs.list_offsets(ways, head, &request, beside).await;
                let answer = answer.map_err(|error| response_error(head.api, error))?;
                return self.answer(head, answer).await;
            }
        }
        self.push(head, treatment(head).0, Class::Full);
        self.forward(vec![frame]).await
    }

    /// Asks the home broker for what a request names besides virtual topics: as its client, on its
    /// connection. Gives the frame of the answer.
    pub(super) async fn home(
        &mut self,
        head: Head,
        rest: Option<Bytes>,
    ) -> Result<Option<Bytes>, ConnectionError> {
        let Some(rest) = rest else {
            // Nothing is told to who its broker tells nothing.
            self.admitted().await?;
            return Ok(None);
        };
        let Head { api, version, correlation } = head;
        let (to, told) = oneshot::channel();
        let (answer, at) = (Answer::Own(to), clock::now());
        self.queue.push(Exchange { api, version, correlation, answer, at });
        self.forward(vec![rest]).await?;
        let gone = |_| ConnectionError::BrokerIo(io::ErrorKind::UnexpectedEof.into());
        told.await.map(Some).map_err(gone)
    }

    /// A request that cannot be served beside virtual topics as it may be: one about a transaction,
    /// or of a member of a KIP-848 group.
    async fn unless_refused(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        if let Some(routed) = &self.plane.routed {
            let refusal = match head.api {
                api::CONSUMER_GROUP_HEARTBEAT => groups::refusal(head, &frame),
                _ => transactions::refusal(routed, head, &frame),
            };
            if let Some(answer) = refusal.map_err(|error| request_error(head.api, error))? {
                self.admitted().await?;
                return self.answer(head, answer).await;
            }
        }
        self.push(head, treatment(head).0, Class::Full);
        self.forward(vec![frame]).await
    }

    /// The topics of a request that its client may not use, where the proxy is somebody else.
    pub(super) async fn refused(
        &mut self,
        head: Head,
        frame: &Bytes,
        for_legs: bool,
    ) -> Result<Refused, ConnectionError> {
        let plane = self.plane;
        let unasked = match for_legs {
            true => fault::on("legs-unasked"),
            false => fault::on("store-unasked"),
        };
        if !plane.clients_differ || unasked {
            return Ok(Refused::default());
        }
        let names = Names { routed: plane.routed.as_ref(), topics: &plane.topics };
        let mut permissions = std::mem::take(&mut self.permissions);
        let refused = permissions.refused(self, names, (head, frame), for_legs).await;
        self.permissions = permissions;
        refused.map_err(ConnectionError::BrokerIo)
    }

    /// Sees that the client's broker would answer it, where the proxy does.
    pub(super) async fn admitted(&mut self) -> Result<(), ConnectionError> {
        if !self.plane.clients_differ {
            return Ok(());
        }
        let mut permissions = std::mem::take(&mut self.permissions);
        let admitted = permissions.admitted(self).await;
        self.permissions = permissions;
        admitted.map_err(ConnectionError::BrokerIo)
    }

    async fn metadata(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let asked = match self.plane.ways() {
            Some(ways) => metadata::request(ways, head, &frame).await,
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

    /// Answers a request here. A long answer waits for its turn and for room: who waits holds no
    /// room of answers, and whoever holds that waits for none of requests.
    pub(super) async fn answer(&self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let mut held = Vec::new();
        if frame.len() > IO_BUFFER_BYTES && !fault::on("answers-take-no-room") {
            self.queue.turn().await;
            held.extend(self.plane.responses.take(frame.len()).await);
        }
        self.push(head, Answer::Local(framed(vec![frame]), held), Class::Full);
        Ok(())
    }

    pub(super) async fn forward(&mut self, pieces: Vec<Bytes>) -> Result<(), ConnectionError> {
        let pieces = framed(pieces);
        let handle = self.handle;
        handle.gives(Side::Broker, true);
        let written = write_chain_telling(&mut self.to_home, &pieces, |n| handle.given(n)).await;
        handle.gives(Side::Broker, false);
        written.map_err(ConnectionError::BrokerIo)?;
        self.plane.metrics.bytes(Direction::ToBroker, pieces.iter().map(Bytes::len).sum());
        Ok(())
    }
}
