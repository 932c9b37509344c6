//! Fetch: each logical partition is read at the leader of its physical one, and merged. Offsets
//! are translated by the base of the segment that holds the one asked for; no answer mixes two.
//!
//! Topics that are not virtual are read by the home broker first, as their client. Then:
//! asked -> questions by leader -> legs, the bytes shared out between them -> rows in the order of
//! the request, cut to the bytes asked for -> frame. Fetch sessions are not kept for requests with
//! virtual partitions: the answer carries session 0, so the client sends whole requests. Leader
//! epochs are -1 everywhere.

mod logical;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::batch::{Batches, Entry};
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard, reply};

use super::look_up::Place;
use super::{
    Leg, Legs, NOT_LEADER, UNKNOWN_PARTITION, Ways, bounded, by_leader, doubts_leader, encoded,
    hidden,
};
use crate::budget::Room;
use crate::fault;
use crate::limits::{IO_BUFFER_BYTES, LEG_FETCH_BYTES_MAX};
use crate::route::chain::Chain;
use crate::route::placement::Placement;
use crate::route::virtual_topics::Routed;
use logical::{OpenEnd, Span, logical, section_bases, translated};

/// Version of the legs: the newest that names topics.
const LEG_VERSION: i16 = 12;
/// FETCH_SESSION_ID_NOT_FOUND: the client starts a session anew, with a whole request.
const NO_SESSION: i16 = 70;
/// OFFSET_OUT_OF_RANGE.
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// One partition asked for: where the answer goes, and where the question.
struct Question {
    /// Topic and partition of the request.
    of: (usize, usize),
    /// Physical offset.
    offset: i64,
    bytes_max: i32,
    physical: Arc<str>,
    partition: i32,
    span: Span,
    /// It is an open segment, as far as is known here.
    open: bool,
}

/// What came of the legs.
#[derive(Default)]
struct Came {
    room: Option<Room>,
    /// Bases of the rows whose offsets are not physical ones.
    bases: HashMap<(usize, usize), i64>,
}

/// A Fetch request that names a virtual topic or a part of one; `None` for any other.
pub fn asked(ways: Ways<'_>, head: Head, frame: &Bytes) -> Result<Option<FetchRequest>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let request: FetchRequest = guard::request(api::FETCH, head.version, frame, at)?;
    if request.topics.iter().all(|topic| is_plain(ways, topic)) {
        return Ok(None);
    }
    bounded(request.topics.iter().map(|topic| topic.partitions.len()))?;
    Ok(Some(request))
}

/// The part of such a request that is for the home broker: it waits for nothing, and asks for few
/// bytes, since its answer is held without room until the legs take theirs. A broker gives its
/// first batch whole all the same.
pub fn rest(
    ways: Ways<'_>,
    head: Head,
    frame: &Bytes,
    request: &FetchRequest,
) -> Result<Option<Bytes>, WireError> {
    let plain = request.topics.iter().filter(|topic| is_plain(ways, topic));
    let topics: Vec<_> = plain.cloned().collect();
    if topics.is_empty() || is_in_session(request) {
        return Ok(None);
    }
    let rest = request
        .clone()
        .with_topics(topics)
        .with_forgotten_topics_data(Vec::new())
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_max_wait_ms(0)
        .with_max_bytes(REST_BYTES_MAX.min(request.max_bytes / 2));
    let at = header::request_body_at(head, frame)?;
    let mut frame = BytesMut::from(&frame[..at]);
    frame.extend_from_slice(&encoded(api::FETCH, head.version, &rest)?);
    Ok(Some(frame.freeze()))
}

fn routed<'a>(ways: Ways<'a>, topic: &FetchTopic) -> Option<&'a Routed> {
    let by_name = ways.routed.by_name(&topic.topic);
    by_name.or_else(|| ways.routed.by_id(topic.topic_id.as_bytes()))
}

/// What is told of a topic that clients must not see.
fn unseen(ways: Ways<'_>, topic: &FetchTopic) -> Option<i16> {
    hidden(ways, api::FETCH, &topic.topic, topic.topic_id.as_bytes())
}

fn is_plain(ways: Ways<'_>, topic: &FetchTopic) -> bool {
    routed(ways, topic).is_none() && unseen(ways, topic).is_none()
}

fn is_in_session(request: &FetchRequest) -> bool {
    request.session_id != 0 && request.session_epoch > 0
}

impl Legs {
    /// Answers a Fetch request that names a virtual topic; gives the frame and the room it takes.
    /// `lowered` is the request as logs are asked: what comes of them is cut to what the client
    /// asked for. `beside` is what the home broker answered to the rest of it.
    pub async fn fetch(
        &mut self,
        ways: Ways<'_>,
        head: Head,
        (request, lowered): (&FetchRequest, &FetchRequest),
        beside: Option<Bytes>,
    ) -> Result<(Bytes, Option<Room>), WireError> {
        let mut answer = FetchResponse::default();
        if is_in_session(request) {
            answer.error_code = NO_SESSION;
            return Ok((reply::frame(head, &answer)?, None));
        }
        let placement = ways.routed.placements().now();
        let questions = questions((ways, &placement), lowered, &mut answer);
        let mut waits = Waits { ms: request.max_wait_ms, bytes: request.max_bytes };
        let ways = Ways { beside: beside.as_ref().map_or(0, Bytes::len), ..ways };
        if let Some(frame) = beside {
            let at = header::response_body_at(api::FETCH, head.version, &frame)?;
            let told: FetchResponse = guard::response(api::FETCH, head.version, &frame, at)?;
            put_beside(&mut answer, told, &mut waits);
        }
        let came = self.read(ways, (request, waits), questions, &mut answer).await?;
        cut(&mut answer, if fault::on("cut-to-lowered") { lowered } else { request });
        let frame = reply::frame(head, &answer)?;
        let bases = section_bases(&answer, &came.bases);
        drop(answer);
        Ok((translated(head.version, frame, &bases)?, came.room))
    }

    async fn read(
        &mut self,
        ways: Ways<'_>,
        (request, waits): (&FetchRequest, Waits),
        questions: Vec<Question>,
        answer: &mut FetchResponse,
    ) -> Result<Came, WireError> {
        let (led, _) = by_leader(ways.topics, questions, |q| (&q.physical, q.partition)).await;
        let wait = u64::try_from(waits.ms).unwrap_or(0);
        let limit = Duration::from_millis(wait) + ways.limits.connect * 3;
        let room = i32::try_from(ways.room.bytes() / 2).unwrap_or(i32::MAX);
        let most = waits.bytes.min(room).min(LEG_BYTES_MAX);
        let parts = i32::try_from(led.len()).unwrap_or(i32::MAX).max(1);
        let most = if fault::on("bytes-unbounded") { i32::MAX } else { most / parts };
        let waits = Waits { bytes: most, ..waits };
        let mut legs = Vec::with_capacity(led.len());
        for (node, questions) in &led {
            let body = encoded(api::FETCH, LEG_VERSION, &leg_request(request, waits, questions))?;
            legs.push(Leg {
                node: *node,
                key: api::FETCH,
                version: LEG_VERSION,
                body: vec![body],
                limit,
            });
        }
        let ran = self.run(ways, legs).await;
        let mut came = Came { room: ran.room, ..Came::default() };
        let (mut ends, mut beyond) = (Vec::new(), Vec::new());
        for (questions, ran) in led.into_values().zip(ran.answers) {
            let ran = ran.ok().and_then(|body| {
                guard::response::<FetchResponse>(api::FETCH, LEG_VERSION, &body, 0).ok()
            });
            let rows = ran.as_ref().map(by_place).unwrap_or_default();
            for Question { of, physical, partition, span, open, .. } in questions {
                let found = rows.get(&(&*physical, partition));
                if found.is_none_or(|found| doubts_leader(found.error_code)) {
                    ways.topics.doubt(&physical);
                }
                let Some(found) = found else { continue };
                let row = &mut answer.responses[of.0].partitions[of.1];
                *row = logical(found, row.partition_index, &span);
                if span.base != 0 {
                    came.bases.insert(of, span.base);
                }
                if row.error_code == OFFSET_OUT_OF_RANGE && open {
                    beyond.push((of, (physical, partition)));
                }
                if let Some((_, open)) = span.sealed.filter(|_| row.error_code == 0) {
                    ends.push((of, open));
                }
            }
        }
        if !beyond.is_empty() {
            self.ask_for_seals(ways, beyond, answer).await?;
        }
        if !ends.is_empty() {
            self.tell_ends(ways, request.isolation_level, ends, answer).await?;
        }
        Ok(came)
    }

    /// A segment that another proxy knows to be sealed goes on in the next one, and who read there
    /// is ahead of what is known here: that reader asks again. It must not be told to start anew.
    async fn ask_for_seals(
        &mut self,
        ways: Ways<'_>,
        rows: Vec<((usize, usize), Place)>,
        answer: &mut FetchResponse,
    ) -> Result<(), WireError> {
        if fault::on("ahead-is-out-of-range") {
            return Ok(());
        }
        let places = rows.iter().map(|(_, place)| place.clone()).collect();
        let sealed = self.sealed_of(ways, places).await?;
        for ((topic, row), _) in rows.iter().filter(|(_, (physical, _))| sealed.contains(physical))
        {
            let row = &mut answer.responses[*topic].partitions[*row];
            *row = failed(row.partition_index, NOT_LEADER);
        }
        Ok(())
    }

    /// Who reads a sealed segment is told where its partition ends, which the open one knows.
    async fn tell_ends(
        &mut self,
        ways: Ways<'_>,
        isolation_level: i8,
        rows: Vec<((usize, usize), OpenEnd)>,
        answer: &mut FetchResponse,
    ) -> Result<(), WireError> {
        let places = rows.iter().map(|(_, open)| open.place.clone()).collect();
        let ends = self.ends(ways, isolation_level, places).await?;
        for ((topic, row), open) in rows {
            // Without an answer it ends where the open segment starts, or later.
            let end = open.base + ends.get(&open.place).copied().unwrap_or(0);
            let row = &mut answer.responses[topic].partitions[row];
            if !fault::on("sealed-end-told") {
                (row.high_watermark, row.last_stable_offset) = (end, end);
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const LEG_BYTES_MAX: i32 = LEG_FETCH_BYTES_MAX as i32;

#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const REST_BYTES_MAX: i32 = (IO_BUFFER_BYTES / 2) as i32;

/// How long legs may wait for records, and for how many bytes they may ask.
#[derive(Debug, Clone, Copy)]
struct Waits {
    ms: i32,
    bytes: i32,
}

/// Puts the rows of the home broker in. Legs wait for nothing if there are records in them.
fn put_beside(answer: &mut FetchResponse, told: FetchResponse, waits: &mut Waits) {
    answer.throttle_time_ms = told.throttle_time_ms;
    answer.error_code = told.error_code;
    let mut rows = HashMap::new();
    for topic in told.responses {
        for row in topic.partitions {
            let bytes = row.records.as_ref().map_or(0, Bytes::len);
            if bytes > 0 {
                waits.ms = 0;
                let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
                // A broker gives its first batch whole, however long it is.
                waits.bytes = waits.bytes.saturating_sub(bytes).max(0);
            }
            rows.insert((topic.topic.clone(), topic.topic_id, row.partition_index), row);
        }
    }
    for topic in &mut answer.responses {
        for row in &mut topic.partitions {
            let place = (topic.topic.clone(), topic.topic_id, row.partition_index);
            if let Some(told) = rows.remove(&place) {
                // Without hints to new leaders: the client asks for metadata.
                *row = told.with_current_leader(LeaderIdAndEpoch::default());
            }
        }
    }
}

/// The partitions to read. The answer gets a row for each, in the order of the request, that says
/// what is told without an answer.
fn questions(
    (ways, placement): (Ways<'_>, &Placement),
    request: &FetchRequest,
    answer: &mut FetchResponse,
) -> Vec<Question> {
    let mut questions = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let routed = routed(ways, topic);
        // The home broker refuses topics of its own in its own words.
        let refused = match routed {
            Some(_) => ways.refused.code(t),
            None => unseen(ways, topic),
        };
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for (row, asked) in topic.partitions.iter().enumerate() {
            let q = asked.partition;
            if let Some(code) = refused {
                rows.push(failed(q, code));
                continue;
            }
            let placed = routed.map(|routed| {
                let (slot, p) = routed.place(q).ok_or((UNKNOWN_PARTITION, -1))?;
                let chain = placement.chain(routed, slot).ok_or((NOT_LEADER, -1))?;
                let below = || (OFFSET_OUT_OF_RANGE, chain.start(p).unwrap_or(-1));
                let asked = question(chain, p, asked, (t, row)).ok_or_else(below)?;
                Ok::<_, (i16, i64)>(Question { open: asked.open && routed.days, ..asked })
            });
            let (code, start) = placed
                .as_ref()
                .and_then(|placed| placed.as_ref().err().copied())
                .unwrap_or((NOT_LEADER, -1));
            rows.push(failed(q, code).with_log_start_offset(start));
            questions.extend(placed.and_then(Result::ok));
        }
        answer.responses.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_topic_id(topic.topic_id)
                .with_partitions(rows),
        );
    }
    questions
}

/// The question about a partition, put to the segment that holds the offset asked for; `None`
/// below the oldest.
fn question(
    chain: &Chain,
    partition: i32,
    asked: &FetchPartition,
    of: (usize, usize),
) -> Option<Question> {
    let stretch = chain.holding(partition, asked.fetch_offset)?;
    let (base, start) = (stretch.base, chain.start(partition)?);
    let sealed = stretch.length().zip(chain.open(partition)).map(|(length, open)| {
        (length, OpenEnd { place: (open.topic.clone(), partition), base: open.base })
    });
    Some(Question {
        of,
        offset: asked.fetch_offset - base,
        bytes_max: asked.partition_max_bytes,
        physical: stretch.topic.clone(),
        partition,
        span: Span { base, start, sealed },
        open: stretch.end.is_none(),
    })
}

fn leg_request(request: &FetchRequest, waits: Waits, questions: &[Question]) -> FetchRequest {
    let topics = questions.chunk_by(|a, b| a.physical == b.physical).map(|of_topic| {
        let name = TopicName(StrBytes::from_string(of_topic[0].physical.to_string()));
        let partitions = of_topic.iter().map(|q| {
            FetchPartition::default()
                .with_partition(q.partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(q.offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(q.bytes_max)
        });
        FetchTopic::default().with_topic(name).with_partitions(partitions.collect())
    });
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(waits.ms)
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(waits.bytes)
        .with_isolation_level(request.isolation_level)
        .with_session_epoch(-1)
        .with_topics(topics.collect())
}

fn by_place(answer: &FetchResponse) -> HashMap<(&str, i32), &PartitionData> {
    let rows = answer.responses.iter().flat_map(|topic| {
        topic.partitions.iter().map(|row| ((topic.topic.as_str(), row.partition_index), row))
    });
    rows.collect()
}

/// Keeps of the records what one broker would give: so many bytes in all and of each partition,
/// in the order of the request, but always the first batch of the answer.
fn cut(answer: &mut FetchResponse, request: &FetchRequest) {
    if fault::on("bytes-unbounded") {
        return;
    }
    let mut left = usize::try_from(request.max_bytes).unwrap_or(0);
    let mut first = true;
    let asked = request.topics.iter().flat_map(|topic| &topic.partitions);
    let rows = answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
    for (row, asked) in rows.zip(asked) {
        let Some(records) = &mut row.records else { continue };
        let most = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
        if records.len() > most {
            records.truncate(whole_batches(records, most, first));
        }
        left = left.saturating_sub(records.len());
        first &= records.is_empty();
    }
}

/// Bytes of the batches that end within `most` bytes, or of the first one if it must be kept.
fn whole_batches(records: &[u8], most: usize, first: bool) -> usize {
    let mut end = 0;
    for entry in Batches::new(records) {
        let range = match entry {
            Ok(Entry::Batch { range, .. } | Entry::Legacy { range }) => range,
            Ok(Entry::Partial { .. }) | Err(_) => break,
        };
        if range.end > most && !(first && end == 0) {
            break;
        }
        end = range.end;
    }
    end
}

fn failed(partition: i32, code: i16) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(code)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}
