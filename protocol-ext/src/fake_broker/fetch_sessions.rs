//! Fetch sessions (KIP-227): what a request does not name is asked for as it was before, and an
//! answer tells only what is new. Partitions that gave something have their turn last.

use std::collections::BTreeMap;

use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::fetch_response::FetchableTopicResponse;
use kafka_protocol::messages::{FetchRequest, FetchResponse};

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;

/// The sessions of all clients.
#[derive(Debug, Default)]
pub struct FetchSessions {
    last: i32,
    open: BTreeMap<i32, Session>,
}

#[derive(Debug)]
struct Session {
    /// Of the next request.
    epoch: i32,
    /// Each with one partition, the next ones first.
    topics: Vec<FetchTopic>,
}

impl FetchSessions {
    /// Sessions that are open.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Makes a request one for all partitions of its session, and gives the session; 0 without one.
    pub(super) fn enter(&mut self, asked: &mut FetchRequest) -> Result<i32, i16> {
        let (id, epoch) = (asked.session_id, asked.session_epoch);
        if epoch <= 0 {
            self.open.remove(&id);
            if epoch < 0 {
                return Ok(0);
            }
            self.last += 1;
            asked.topics = one_by_one(&asked.topics);
            self.open.insert(self.last, Session { epoch: 1, topics: asked.topics.clone() });
            return Ok(self.last);
        }
        let session = self.open.get_mut(&id).ok_or(FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch {
            return Err(INVALID_FETCH_SESSION_EPOCH);
        }
        session.epoch += 1;
        for gone in &asked.forgotten_topics_data {
            session.topics.retain(|topic| {
                let partition = topic.partitions[0].partition;
                let same = (&topic.topic, topic.topic_id) == (&gone.topic, gone.topic_id);
                !(same && gone.partitions.contains(&partition))
            });
        }
        for named in one_by_one(&asked.topics) {
            match session.topics.iter_mut().find(|topic| is_same(topic, &named)) {
                Some(topic) => *topic = named,
                None => session.topics.push(named),
            }
        }
        asked.topics.clone_from(&session.topics);
        Ok(id)
    }

    /// Makes an answer one of a session, that goes on or begins.
    pub(super) fn tell(&mut self, id: i32, goes_on: bool, answer: &mut FetchResponse) {
        let Some(session) = self.open.get_mut(&id) else { return };
        answer.session_id = id;
        let topics = std::mem::take(&mut session.topics);
        let rows = topics.into_iter().zip(&answer.responses);
        let (gave, silent): (Vec<_>, Vec<_>) = rows.partition(|(_, row)| has_news(row));
        session.topics = silent.into_iter().chain(gave).map(|(topic, _)| topic).collect();
        if goes_on {
            answer.responses.retain(has_news);
        }
    }
}

fn one_by_one(topics: &[FetchTopic]) -> Vec<FetchTopic> {
    let apart = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(move |one| topic.clone().with_partitions(vec![one.clone()]))
    });
    apart.collect()
}

fn is_same(a: &FetchTopic, b: &FetchTopic) -> bool {
    let place = |topic: &FetchTopic| topic.partitions.first().map(|one| one.partition);
    (&a.topic, a.topic_id, place(a)) == (&b.topic, b.topic_id, place(b))
}

fn has_news(topic: &FetchableTopicResponse) -> bool {
    let records = |row: &bytes::Bytes| !row.is_empty();
    let mut rows = topic.partitions.iter();
    rows.any(|row| row.error_code != 0 || row.records.as_ref().is_some_and(records))
}
