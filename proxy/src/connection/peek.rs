//! The few fields of a request that decide its way, read from the bytes held so far.

use std::borrow::Cow;

use protocol_ext::api;
use protocol_ext::header::{self, Head};
use protocol_ext::schema::{Role, requests};
use protocol_ext::walk::{Value, walk};
use protocol_ext::wire::{Reader, WireError};

use crate::fault;
use crate::limits::IO_BUFFER_BYTES;
use crate::route::topics::TopicId;

/// Within so many bytes the fields before the records of a request must end.
pub const PEEK_BYTES_MAX: usize = IO_BUFFER_BYTES - 4;

/// First version in which a follower says so behind the topics.
const WITH_REPLICA_STATE: i16 = 15;

/// How a request names a topic.
#[derive(Debug, PartialEq, Eq)]
pub enum NamedBy<'a> {
    /// By name.
    Name(Cow<'a, str>),
    /// By id (KIP-516).
    Id(TopicId),
}

/// The start of a Produce request.
#[derive(Debug, PartialEq, Eq)]
pub struct ProducePeek<'a> {
    /// The transactional id, if there is one.
    pub transactional_id: Option<&'a [u8]>,
    /// Acknowledgements wanted; 0: there will be no answer.
    pub acks: i16,
    /// The topic, if the request has exactly one.
    pub only_topic: Option<NamedBy<'a>>,
}

/// Peeks into a Produce request; `None` if more of the frame must be read.
#[inline(always)]
pub fn produce(
    head: Head,
    held: &[u8],
    frame_bytes: usize,
    topic_too: bool,
) -> Result<Option<ProducePeek<'_>>, WireError> {
    peek(held, frame_bytes, |frame| {
        let flexible = api::is_flexible(head.api, head.version);
        let mut read = Reader::new(frame, header::request_body_at(head, frame)?);
        let transactional_id = match head.version {
            3.. => read.bytes(flexible, false)?,
            _ => None,
        };
        let acks = read.i16()?;
        if !topic_too {
            return Ok(ProducePeek { transactional_id, acks, only_topic: None });
        }
        read.i32()?;
        let one = read.length(flexible, true)? == Some(1);
        let only_topic = match (one, head.version >= 13) {
            (false, _) => None,
            (true, true) => {
                let mut id = [0; 16];
                id.copy_from_slice(read.take(16)?);
                Some(NamedBy::Id(id))
            }
            (true, false) => {
                let name = read.bytes(flexible, false)?.unwrap_or_default();
                Some(NamedBy::Name(String::from_utf8_lossy(name)))
            }
        };
        Ok(ProducePeek { transactional_id, acks, only_topic })
    })
}

/// The bounds that a Fetch request sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchPeek {
    /// Bytes that are waited for.
    pub bytes_min: usize,
    /// Bytes asked for at most.
    pub bytes_max: usize,
    /// Where that is said; before version 3 nowhere.
    pub at: Option<usize>,
    /// The same of the first partition named, if any is. Clients ask alike of all.
    pub partition_bytes_max: Option<usize>,
}

/// Peeks into a Fetch request; `None` if more of the frame must be read.
pub fn fetch(head: Head, held: &[u8], frame_bytes: usize) -> Result<Option<FetchPeek>, WireError> {
    peek(held, frame_bytes, |frame| {
        let mut read = Reader::new(frame, header::request_body_at(head, frame)?);
        if head.version <= 14 {
            read.i32()?;
        }
        read.i32()?;
        let bytes_min = read.i32()?;
        let at = read.pos();
        let said = head.version >= 3;
        let bytes_max = if said { read.i32()? } else { i32::MAX };
        let partition = match first_partition_bytes(head, &mut read) {
            // What is malformed there is the broker's to refuse.
            Err(_) if frame.len() >= frame_bytes.min(PEEK_BYTES_MAX) => None,
            partition => partition?,
        };
        Ok(FetchPeek {
            bytes_min: usize::try_from(bytes_min).unwrap_or(0),
            bytes_max: usize::try_from(bytes_max).unwrap_or(0),
            at: said.then_some(at),
            partition_bytes_max: partition.map(|bytes| usize::try_from(bytes).unwrap_or(0)),
        })
    })
}

/// Whether a Fetch request is a follower's, which copies the log as it lies there; `None` if more
/// of it must be read. What is malformed is the broker's to refuse.
pub fn is_follower(head: Head, held: &[u8], frame_bytes: usize) -> Option<bool> {
    if fault::on("followers-restored") {
        return Some(false);
    }
    let body_at = header::request_body_at(head, held);
    if head.version < WITH_REPLICA_STATE {
        let replica = body_at.and_then(|at| Reader::new(held, at).i32());
        return replica.ok().map(|replica| replica >= 0);
    }
    // A tag behind everything else.
    let frame = held.get(..frame_bytes)?;
    let mut replica = -1;
    let mut look = |role: Role, value: Value<'_>| {
        if role == Role::Replica {
            replica = value.int();
        }
        None
    };
    let walked = body_at.and_then(|at| walk(&requests::FETCH, head.version, frame, at, &mut look));
    Some(walked.is_ok() && replica >= 0)
}

/// Reads on from behind the bytes asked for to what the first partition says of itself.
fn first_partition_bytes(head: Head, read: &mut Reader<'_>) -> Result<Option<i32>, WireError> {
    let version = head.version;
    let flexible = api::is_flexible(head.api, version);
    // Isolation level, id and epoch of the session.
    read.take(usize::from(version >= 4) + if version >= 7 { 8 } else { 0 })?;
    if read.length(flexible, true)?.unwrap_or(0) == 0 {
        return Ok(None);
    }
    match version {
        13.. => read.take(16).map(drop)?,
        _ => read.bytes(flexible, false).map(drop)?,
    }
    if read.length(flexible, true)?.unwrap_or(0) == 0 {
        return Ok(None);
    }
    // Index, leader epoch, offset, epoch of the last batch, start of a follower's log.
    let before = [(0, 4), (9, 4), (0, 8), (12, 4), (5, 8)];
    let before = before.iter().filter(|(since, _)| version >= *since).map(|(_, bytes)| bytes);
    read.take(before.sum())?;
    read.i32().map(Some)
}

/// The bounds that a ShareFetch request sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareFetchPeek {
    /// The group that asks.
    pub group: Box<[u8]>,
    /// Bytes asked for at most.
    pub bytes_max: usize,
    /// Records asked for at most.
    pub records_max: i32,
    /// Where both are said, the bytes first.
    pub at: usize,
}

/// Peeks into a whole ShareFetch request.
pub fn share_fetch(head: Head, frame: &[u8]) -> Result<ShareFetchPeek, WireError> {
    let mut read = Reader::new(frame, header::request_body_at(head, frame)?);
    let flexible = api::is_flexible(head.api, head.version);
    let group = read.bytes(flexible, false)?.unwrap_or_default().into();
    // Member; epoch of the session, time to wait, least bytes.
    read.bytes(flexible, false)?;
    read.take(12)?;
    let at = read.pos();
    let bytes_max = usize::try_from(read.i32()?).unwrap_or(0);
    Ok(ShareFetchPeek { group, bytes_max, records_max: read.i32()?, at })
}

fn peek<'a, T>(
    held: &'a [u8],
    frame_bytes: usize,
    read: impl FnOnce(&'a [u8]) -> Result<T, WireError>,
) -> Result<Option<T>, WireError> {
    let frame = &held[..held.len().min(frame_bytes)];
    match read(frame) {
        Ok(peeked) => Ok(Some(peeked)),
        // A length that does not fit what is held may fit what is still to come.
        Err(_) if frame.len() < frame_bytes && frame.len() < PEEK_BYTES_MAX => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { api: 0, version: 3, correlation: 1 };

    fn frame() -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 3, 0, 0, 0, 1, 0, 2, b'm', b'e', 0xff, 0xff, 0xff, 0xff];
        frame.extend([0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn acks_and_the_only_topic_are_read_and_nothing_is_guessed_from_a_part() {
        let frame = frame();
        for held in 0..frame.len() {
            let peeked = produce(HEAD, &frame[..held], frame.len(), true).expect("no error");
            if let Some(peeked) = peeked {
                assert_eq!(peeked.acks, -1);
                assert_eq!(peeked.only_topic, Some(NamedBy::Name("t".into())));
            } else {
                assert!(held < 27, "{held} bytes are enough");
            }
        }
    }

    #[test]
    fn a_frame_that_is_whole_and_cut_inside_is_an_error() {
        let frame = frame();
        assert!(produce(HEAD, &frame[..14], 14, false).is_err());
    }

    #[test]
    fn the_bounds_of_a_fetch_request_are_read_in_every_version() {
        use kafka_protocol::messages::FetchRequest;
        use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
        use kafka_protocol::protocol::Encodable;
        for version in 4..=18 {
            let partition = FetchPartition::default().with_partition_max_bytes(4321);
            let topic = FetchTopic::default().with_partitions(vec![partition]);
            for (topics, expected) in [(vec![topic], Some(4321)), (Vec::new(), None)] {
                let request = FetchRequest::default().with_max_bytes(1234).with_topics(topics);
                let mut frame = bytes::BytesMut::from(&[0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..]);
                frame[3] = u8::try_from(version).expect("small");
                if api::is_flexible(api::FETCH, version) {
                    frame.extend_from_slice(&[0]);
                }
                request.encode(&mut frame, version).expect("a request");
                let head = Head { api: api::FETCH, version, correlation: 1 };
                let peeked = fetch(head, &frame, frame.len()).expect("a peek").expect("whole");
                let got = (peeked.bytes_max, peeked.partition_bytes_max);
                assert_eq!(got, (1234, expected), "version {version}");
            }
        }
    }

    /// Mutants of captured requests, in parts of every length: a part never gives another answer
    /// than the whole, and a whole one is never called incomplete.
    #[test]
    fn no_mutant_is_read_otherwise_from_a_part_than_from_the_whole() {
        use protocol_ext::hostile::{corpus, mutate::Mutator, random::Random};
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol-ext/tests/golden");
        let frames = corpus::read(golden.as_ref()).expect("golden frames");
        let asks = |frame: &&protocol_ext::hostile::Frame| frame.request && frame.api < 2;
        let frames: Vec<_> = frames.iter().filter(asks).collect();
        let (mut mutator, mut taken, mut refused) = (Mutator::default(), 0, 0);
        for n in 0..30_000 {
            let mut random = Random::new(7, n);
            let frame = random.pick(&frames).expect("a frame");
            let other = random.pick(&frames).expect("a frame");
            let bytes = mutator.mutant(&mut random, &frame.bytes, 8, &other.bytes);
            let Ok(head) = Head::parse(&bytes) else { continue };
            let whole = produce(head, &bytes, bytes.len(), true);
            match &whole {
                Ok(peeked) => {
                    assert!(peeked.is_some(), "a whole request is incomplete");
                    taken += 1;
                }
                Err(_) => refused += 1,
            }
            let held = random.below(bytes.len());
            match produce(head, &bytes[..held], bytes.len(), true) {
                Ok(Some(part)) => assert_eq!(whole.as_ref().ok(), Some(&Some(part))),
                Ok(None) => {}
                Err(_) => assert!(held >= PEEK_BYTES_MAX, "refused by a part of {held} bytes"),
            }
            let asked = fetch(head, &bytes, bytes.len());
            match fetch(head, &bytes[..held], bytes.len()) {
                Ok(Some(part)) => assert_eq!(asked, Ok(Some(part))),
                Ok(None) => {}
                Err(_) => assert!(held >= PEEK_BYTES_MAX, "refused by a part of {held} bytes"),
            }
            if let Some(part) = is_follower(head, &bytes[..held], bytes.len()) {
                assert_eq!(is_follower(head, &bytes, bytes.len()), Some(part));
            }
        }
        assert!(taken > 10_000 && refused > 1000, "{taken} taken, {refused} refused");
    }
}
