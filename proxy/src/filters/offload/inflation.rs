//! How much longer values make what a partition gives, and so how little of its log has room in an
//! answer.
//!
//! Brokers count bytes of references, clients want answers that they can hold: what a broker gives
//! beyond is dropped and asked for again. answer -> bytes of the log and with values, partition by
//! partition -> the next Fetch requests of the connection ask for as much of each log as its values
//! have room for. Connections learn for themselves: readers stand at different places of a log.
//!
//! What is lowered is `partition_max_bytes`, and that only of partitions that a request names. In a
//! session (KIP-227) those are all that gave something in the answer before; what holds on for the
//! others costs one answer that is too short or too long. `max_bytes` stays: with less of it the
//! first partitions could leave nothing for those behind them.
//! Invariants: nothing is raised; nothing is lowered below what the broker waits for, nor below the
//! longest batch in the answer before; of what gives nothing, more is asked for.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol_ext::header::{self, Head};
use protocol_ext::schema::{Role, requests};
use protocol_ext::walk::{Edits, Replace, Value, walk};
use protocol_ext::wire::WireError;

use super::sections::{Section, TopicRef};
use crate::fault;
use crate::limits::RESTORED_BYTES_MAX;

/// What one connection knows of the partitions that it reads.
#[derive(Debug, Default)]
pub struct Inflation(Mutex<HashMap<Place, Learned>>);

/// A hash of a topic, as the client names it, and a partition. Two that share one are asked for too
/// much or too little, and no more.
type Place = u64;

/// What is known of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Learned {
    /// Bytes of an answer that `UNIT` bytes of the log become.
    inflation: usize,
    /// Bytes of the longest batch in the log.
    batch_bytes: usize,
}

/// What was looked at of a partition in an answer, also where there was no room for it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Bytes in the log.
    log_bytes: usize,
    /// The same with values.
    bytes: usize,
    /// Bytes of the longest batch in the log.
    batch_bytes: usize,
}

impl Seen {
    /// Adds a batch.
    pub fn add(&mut self, log_bytes: usize, bytes: usize) {
        self.log_bytes += log_bytes;
        self.bytes += bytes;
        self.batch_bytes = self.batch_bytes.max(log_bytes);
    }

    fn inflation(self) -> usize {
        self.bytes.saturating_mul(UNIT) / self.log_bytes.max(1)
    }
}

impl Inflation {
    /// Whether any partition is to be asked for less.
    pub fn is_known(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// Learns from what an answer held of a partition.
    pub(super) fn learn(&self, section: &Section, seen: Seen) {
        let unread = seen.log_bytes == 0 && !section.records.is_empty();
        if unread || fault::on("inflation-unlearned") {
            return;
        }
        let mut known = self.0.lock();
        if known.is_empty() && seen.bytes == seen.log_bytes {
            return;
        }
        let place = place(&section.topic, section.partition);
        let before = known.get(&place).copied().unwrap_or_default();
        let kept = if fault::on("inflation-kept") { 1 } else { GROWTH };
        let learned = Learned {
            inflation: seen.inflation().max(before.inflation / kept),
            batch_bytes: seen.batch_bytes.max(before.batch_bytes / 2),
        };
        if learned.inflation < INFLATION_MIN {
            known.remove(&place);
            if known.is_empty() {
                *known = HashMap::new();
            }
            return;
        }
        // Those that are read now are learned again with their next answers.
        if known.len() >= PARTITIONS_MAX && !known.contains_key(&place) {
            *known = HashMap::new();
        }
        known.insert(place, learned);
    }

    /// A Fetch request whose answer has room for so many `bytes`, changed so that it asks for as
    /// much of each log as its values have room for, but for no less than the `least` that it waits
    /// for; `None` if it is so already. What is malformed is the broker's to refuse.
    pub fn lowered(
        &self,
        head: Head,
        frame: &Bytes,
        (bytes, least): (usize, usize),
    ) -> Option<Bytes> {
        let known = self.0.lock();
        let mut sharers = 0;
        let count = |place: Place, _: usize| {
            sharers += usize::from(known.contains_key(&place));
            None
        };
        if known.is_empty() || look(head, frame, count).is_err() || sharers == 0 {
            return None;
        }
        let share = bytes.min(RESTORED_BYTES_MAX) / sharers;
        let lower = |place: Place, asked: usize| known.get(&place)?.lowered(asked, share, least);
        let edits = look(head, frame, lower).ok()?;
        (!edits.is_empty()).then(|| edits.apply(frame))
    }
}

impl Learned {
    /// The bytes to ask a partition for in the place of `asked`, if that is less.
    fn lowered(self, asked: usize, share: usize, least: usize) -> Option<usize> {
        let fits = asked.min(share).saturating_mul(UNIT) / self.inflation.max(1);
        let least = if fault::on("waited-bytes-undercut") { 0 } else { least };
        // A batch more: what is cut off at its end would be missed, and what is asked for is a
        // mean.
        let bytes = (fits + self.batch_bytes).max(LOG_BYTES_MIN).max(least);
        (bytes < asked).then_some(bytes)
    }
}

/// Shows the partitions that a Fetch request names, with the bytes that it asks of each for; gives
/// the edits by which it asks for others.
fn look(
    head: Head,
    frame: &Bytes,
    mut partition_bytes: impl FnMut(Place, usize) -> Option<usize>,
) -> Result<Edits, WireError> {
    let at = header::request_body_at(head, frame)?;
    let mut topic = TopicRef::Id([0; 16]);
    let mut partition = -1;
    let mut visit = |role: Role, value: Value<'_>| {
        match (role, value) {
            (Role::Topic, Value::Bytes(name, _)) => {
                topic = TopicRef::Name(String::from_utf8_lossy(name.unwrap_or_default()).into());
            }
            (Role::TopicId, Value::Uuid(id)) => topic = TopicRef::Id(id),
            (Role::Partition, value) => partition = i32::try_from(value.int()).unwrap_or(-1),
            (Role::PartitionBytes, value) => {
                let asked = usize::try_from(value.int()).unwrap_or(0);
                let bytes = partition_bytes(place(&topic, partition), asked)?;
                return i64::try_from(bytes).ok().map(Replace::Int);
            }
            _ => {}
        }
        None
    };
    walk(&requests::FETCH, head.version, frame, at, &mut visit)
}

fn place(topic: &TopicRef, partition: i32) -> Place {
    let mut hasher = DefaultHasher::new();
    (topic, partition).hash(&mut hasher);
    hasher.finish()
}

/// Inflations are told in parts of this.
const UNIT: usize = 1024;
/// Where values make less than twice of what is in the log, as much is asked for as clients do.
const INFLATION_MIN: usize = 2 * UNIT;
/// An answer with less of values lets so many times as much be asked for: behind a backlog of
/// references plain records come in full after a few answers, and where both are mixed one answer
/// without values does not bring back one with far too many.
const GROWTH: usize = 8;
/// The least that is asked for: some references or small records.
const LOG_BYTES_MIN: usize = 1024;
/// Partitions that a connection keeps; beyond it all are learned anew.
const PARTITIONS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::{FetchRequest, TopicName};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use protocol_ext::api;

    use super::*;

    const BY_NAME: i16 = 12;
    const BY_ID: i16 = 13;
    const ID: [u8; 16] = [7; 16];
    const MIB: usize = 1 << 20;
    /// Batches of 200 bytes that become 200,000.
    const LONG: Seen = Seen { log_bytes: 2000, bytes: 2_000_000, batch_bytes: 200 };
    const PLAIN: Seen = Seen { log_bytes: 2000, bytes: 2000, batch_bytes: 200 };

    fn section(version: i16, partition: i32, bytes: usize) -> Section {
        let topic = match version {
            BY_ID.. => TopicRef::Id(ID),
            _ => TopicRef::Name("t".into()),
        };
        let records = vec![0; bytes].into();
        Section { topic, partition, records, acquired: Vec::new(), aborted: Vec::new() }
    }

    /// Learned of partition 0, in the words of this version.
    fn learned(version: i16) -> Inflation {
        let inflation = Inflation::default();
        inflation.learn(&section(version, 0, 2000), LONG);
        inflation
    }

    fn request(version: i16, partitions: &[(i32, i32)]) -> (Head, Bytes) {
        let partition = |(partition, bytes): &(i32, i32)| {
            let asked = FetchPartition::default().with_partition(*partition);
            asked.with_fetch_offset(77).with_partition_max_bytes(*bytes)
        };
        let topic = FetchTopic::default();
        let topic = match version {
            BY_ID.. => topic.with_topic_id(uuid::Uuid::from_bytes(ID)),
            _ => topic.with_topic(TopicName(StrBytes::from_static_str("t"))),
        };
        let topic = topic.with_partitions(partitions.iter().map(partition).collect());
        let request = FetchRequest::default().with_min_bytes(5).with_topics(vec![topic]);
        let mut frame = bytes::BytesMut::from(&[0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..]);
        frame[3] = u8::try_from(version).expect("small");
        if api::is_flexible(api::FETCH, version) {
            frame.extend_from_slice(&[0]);
        }
        request.encode(&mut frame, version).expect("a request");
        (Head { api: api::FETCH, version, correlation: 1 }, frame.freeze())
    }

    /// Bytes that a request asks of each partition for.
    fn told(head: Head, frame: &Bytes) -> Vec<i32> {
        let at = header::request_body_at(head, frame).expect("a head");
        let request = FetchRequest::decode(&mut frame.slice(at..), head.version);
        let request = request.expect("a request");
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.partition_max_bytes).collect()
    }

    fn asked(inflation: &Inflation, bytes: i32, bounds: (usize, usize)) -> i32 {
        let (head, frame) = request(BY_NAME, &[(0, bytes)]);
        let lowered = inflation.lowered(head, &frame, bounds).unwrap_or(frame);
        told(head, &lowered)[0]
    }

    #[test]
    fn every_version_asks_for_what_values_have_room_for_and_changes_nothing_else() {
        for version in 4..=18 {
            let (head, frame) = request(version, &[(0, 1_000_000), (1, 1_000_000)]);
            assert_eq!(Inflation::default().lowered(head, &frame, (50 * MIB, 1)), None);
            let lowered = learned(version).lowered(head, &frame, (50 * MIB, 1));
            let lowered = lowered.expect("it asks for less");
            assert_eq!(told(head, &lowered), [1200, 1_000_000], "version {version}");
            let differs = frame.iter().zip(&lowered).filter(|(a, b)| a != b).count();
            assert!(frame.len() == lowered.len() && differs <= 4, "{differs} bytes differ");
        }
    }

    #[test]
    fn nothing_is_raised_nor_less_than_is_waited_for_or_than_a_batch() {
        let inflation = learned(BY_NAME);
        assert_eq!(asked(&inflation, 1_000_000, (50 * MIB, 9000)), 9000);
        assert_eq!(asked(&inflation, 1_000_000, (50 * MIB, 2_000_000)), 1_000_000);
        assert_eq!(asked(&inflation, 700, (50 * MIB, 1)), 700);
        assert_eq!(asked(&inflation, 0, (50 * MIB, 1)), 0);
        assert_eq!(asked(&inflation, -1, (50 * MIB, 1)), -1);
        assert_eq!(asked(&inflation, 5000, (50 * MIB, 1)), 1024);
        let batch = Seen { log_bytes: 90_000, bytes: 90_000_000, batch_bytes: 60_000 };
        inflation.learn(&section(BY_NAME, 0, 90_000), batch);
        assert_eq!(asked(&inflation, 1_000_000, (50 * MIB, 1)), 61_000);
    }

    #[test]
    fn partitions_share_what_an_answer_has_room_for() {
        let inflation = learned(BY_ID);
        inflation.learn(&section(BY_ID, 1, 2000), LONG);
        let (head, frame) = request(BY_ID, &[(0, 50_000_000), (1, 50_000_000), (2, 50_000_000)]);
        let lowered = inflation.lowered(head, &frame, (50_000_000, 1)).expect("less");
        assert_eq!(told(head, &lowered), [25_200, 25_200, 50_000_000]);
    }

    #[test]
    fn plain_records_and_empty_answers_let_more_be_asked_for_until_it_is_all() {
        for (bytes, seen) in [(2000, PLAIN), (0, Seen::default())] {
            let inflation = learned(BY_NAME);
            let mut before = asked(&inflation, 1 << 20, (50 * MIB, 1));
            for _ in 0..3 {
                inflation.learn(&section(BY_NAME, 0, bytes), seen);
                let now = asked(&inflation, 1 << 20, (50 * MIB, 1));
                assert!(now >= 5 * before, "{now} bytes after {before}");
                before = now;
            }
            inflation.learn(&section(BY_NAME, 0, bytes), seen);
            assert!(!inflation.is_known(), "something is still known");
            assert_eq!(inflation.0.lock().capacity(), 0, "memory for nothing");
        }
        // Nothing was looked at.
        let inflation = learned(BY_NAME);
        (0..9).for_each(|_| inflation.learn(&section(BY_NAME, 0, 2000), Seen::default()));
        assert!(inflation.is_known(), "something unread was learned from");
    }

    #[test]
    fn partitions_are_bounded_in_number() {
        let inflation = Inflation::default();
        let most = i32::try_from(PARTITIONS_MAX).expect("small");
        for partition in 0..=most * 2 {
            inflation.learn(&section(BY_NAME, partition, 2000), LONG);
            assert!(inflation.0.lock().len() <= PARTITIONS_MAX);
        }
        assert!(inflation.is_known());
        let capacity = inflation.0.lock().capacity();
        assert!(capacity < PARTITIONS_MAX, "memory for {capacity} partitions where one is known");
    }
}
