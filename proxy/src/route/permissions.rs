//! What a client may do with topics, where the proxy itself does something for it: legs, values.
//!
//! topics of a request -> asked on the client's own home connection (KIP-430), kept for a while ->
//! error codes of those it may not use. Invariant: the proxy does nothing for a client that its
//! broker would not do for it. What it may do with a virtual topic it may do with its carrier.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    DeleteRecordsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use protocol_ext::header::{self, Head};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::legs::{UNKNOWN_PARTITION, is_name};
use super::topics::{TopicId, Topics};
use super::virtual_topics::{Routed, VirtualTopics};
use crate::clock::{self, Tick};
use crate::fault;
use crate::upstream::auth::Ask;

/// TOPIC_AUTHORIZATION_FAILED.
pub const FORBIDDEN: i16 = 29;
/// How long what is allowed is believed.
const ALLOWED_AGE_MAX: Duration = Duration::from_secs(30);
/// How long what is not: an ACL that was just made should help soon.
const FORBIDDEN_AGE_MAX: Duration = Duration::from_secs(1);
/// Topics remembered for one connection; beyond it all are asked again.
const KNOWN_MAX: usize = 4096;
/// Metadata version of the question: by name, with operations (version 8 and later).
const VERSION: i16 = 12;

/// Operations as Kafka numbers them in a set of bits.
const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const DELETE: i32 = 1 << 6;
const DESCRIBE: i32 = 1 << 8;

/// Error codes of topics that a request may not use, by their place among those that legs see.
#[derive(Debug, Default)]
pub struct Refused {
    codes: Vec<(usize, i16)>,
    topics: usize,
}

impl Refused {
    /// Everything may be used.
    pub const NONE: &'static Self = &Self { codes: Vec::new(), topics: 0 };

    /// The error code of the topic at this place of the request.
    pub fn code(&self, place: usize) -> Option<i16> {
        self.codes.iter().find(|(refused, _)| *refused == place).map(|(_, code)| *code)
    }

    /// Whether the client may use none of the request's topics.
    pub fn forbids_all(&self) -> bool {
        let forbidden = self.codes.iter().filter(|(_, code)| *code == FORBIDDEN).count();
        forbidden > 0 && forbidden == self.topics
    }
}

/// What a broker said of a topic.
#[derive(Debug, Clone, Copy)]
struct Known {
    operations: Operations,
    at: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operations {
    /// These may be done.
    Some(i32),
    /// There is no such topic now.
    NoTopic,
}

/// What the names and ids in a request stand for.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Virtual topics, if there are some.
    pub routed: Option<&'a VirtualTopics>,
    /// Topics of brokers.
    pub topics: &'a Topics,
}

/// What one client may do with topics.
#[derive(Debug, Default)]
pub struct Permissions {
    known: HashMap<Arc<str>, Known>,
    /// The client's broker answered a question.
    answered: bool,
}

impl Permissions {
    /// Which topics of a request its client may not use. `for_legs`: nobody is asked if it names
    /// no virtual topic. A `broker` that cannot be asked is an error.
    pub async fn refused(
        &mut self,
        broker: &mut impl Ask,
        names: Names<'_>,
        (head, frame): (Head, &Bytes),
        for_legs: bool,
    ) -> io::Result<Refused> {
        let mut asked = asked(head, frame).map_err(invalid)?;
        if for_legs && head.api == api::PRODUCE {
            // Ordinary topics go to the client's own broker, so legs count without them.
            asked.retain(|topic| topic.routed(names).is_some());
        }
        let ask = !for_legs || asked.iter().any(|topic| topic.routed(names).is_some());
        if ask {
            let by_id = asked.iter().filter(|topic| topic.name.is_empty());
            let by_id = by_id.filter(|topic| topic.routed(names).is_none()).map(|topic| topic.id);
            names.topics.want_names(by_id).await?;
        }
        let topics = asked.iter().filter(|_| ask).map(|topic| topic.of_brokers(names));
        let topics: Vec<Vec<Arc<str>>> = topics.collect();
        let needed = needed(head.api);
        let names: BTreeSet<&Arc<str>> = topics.iter().flatten().collect();
        let new = names.iter().filter(|name| !self.known.contains_key(&***name)).count();
        if self.known.len() + new > KNOWN_MAX {
            self.known = HashMap::new();
        }
        let stale = names.into_iter().filter(|name| !self.is_fresh(name, needed));
        let stale: Vec<Arc<str>> = stale.cloned().collect();
        if ask && !stale.is_empty() {
            self.ask(broker, &stale).await?;
        } else if ask {
            self.admitted(broker).await?;
        }
        let codes = topics.iter().enumerate().filter_map(|(place, names)| {
            let codes = names.iter().filter_map(|name| self.code(name, needed));
            codes.max().map(|code| (place, code))
        });
        Ok(Refused { codes: codes.collect(), topics: topics.len() })
    }

    /// Sees that the client's broker answers it at all: nothing is told to who has not logged in.
    pub async fn admitted(&mut self, broker: &mut impl Ask) -> io::Result<()> {
        if self.answered || fault::on("strangers-answered") {
            return Ok(());
        }
        self.ask(broker, &[]).await
    }

    fn is_fresh(&self, name: &str, needed: i32) -> bool {
        let Some(known) = self.known.get(name) else { return false };
        let age_max = match known.operations {
            Operations::Some(all) if all & needed != 0 => ALLOWED_AGE_MAX,
            Operations::Some(_) => FORBIDDEN_AGE_MAX,
            Operations::NoTopic => Duration::ZERO,
        };
        clock::now() - known.at < age_max
    }

    /// The code of a topic that may not be used.
    fn code(&self, name: &str, needed: i32) -> Option<i16> {
        match self.known.get(name).map(|known| known.operations) {
            Some(Operations::Some(all)) => (all & needed == 0).then_some(FORBIDDEN),
            Some(Operations::NoTopic) | None => Some(UNKNOWN_PARTITION),
        }
    }

    async fn ask(&mut self, broker: &mut impl Ask, names: &[Arc<str>]) -> io::Result<()> {
        let topics = names.iter().map(|name| {
            let name = TopicName(StrBytes::from_string(name.to_string()));
            MetadataRequestTopic::default().with_name(Some(name))
        });
        let mut request = MetadataRequest::default();
        request.topics = Some(topics.collect());
        request.allow_auto_topic_creation = false;
        request.include_topic_authorized_operations = true;
        let mut body = BytesMut::new();
        request.encode(&mut body, VERSION).map_err(invalid)?;
        let answer = broker.ask(api::METADATA, VERSION, body.freeze()).await?;
        let answer: MetadataResponse =
            guard::response(api::METADATA, VERSION, &answer, 0).map_err(invalid)?;
        self.answered = true;
        let at = clock::now();
        // What will not be believed any more need not be kept.
        self.known.retain(|_, known| at - known.at < ALLOWED_AGE_MAX * 2);
        for name in names {
            self.known.insert(name.clone(), Known { operations: Operations::NoTopic, at });
        }
        for topic in answer.topics {
            let operations = match topic.error_code {
                FORBIDDEN => Operations::Some(0),
                UNKNOWN_PARTITION => Operations::NoTopic,
                // A broker that tells no operations allows none: its lowest bits are not set.
                _ => Operations::Some(topic.topic_authorized_operations),
            };
            if let Some(name) = topic.name
                && let Some(known) = self.known.get_mut(name.as_str())
            {
                known.operations = operations;
            }
        }
        Ok(())
    }
}

/// A topic as a request names it.
struct Asked {
    name: String,
    id: TopicId,
}

impl Asked {
    fn new(name: &TopicName, id: uuid::Uuid) -> Self {
        Self { name: name.to_string(), id: id.into_bytes() }
    }

    fn routed<'a>(&self, names: Names<'a>) -> Option<&'a Routed> {
        let routed = names.routed?;
        routed.by_name(&self.name).or_else(|| routed.by_id(&self.id))
    }

    /// The topics of brokers that it stands for; none if its id is not known, which its leg tells.
    fn of_brokers(&self, names: Names<'_>) -> Vec<Arc<str>> {
        if let Some(routed) = self.routed(names) {
            return vec![routed.name.clone()];
        }
        if self.name.is_empty() {
            return names.topics.known_name(&self.id).into_iter().collect();
        }
        // What is no name is no topic.
        is_name(&self.name).then(|| self.name.as_str().into()).into_iter().collect()
    }
}

/// The topics of a request.
fn asked(head: Head, frame: &Bytes) -> Result<Vec<Asked>, WireError> {
    let at = header::request_body_at(head, frame)?;
    let none = uuid::Uuid::nil();
    Ok(match head.api {
        api::PRODUCE => {
            let request: ProduceRequest = guard::request(head.api, head.version, frame, at)?;
            request.topic_data.iter().map(|t| Asked::new(&t.name, t.topic_id)).collect()
        }
        api::FETCH => {
            let request: FetchRequest = guard::request(head.api, head.version, frame, at)?;
            request.topics.iter().map(|t| Asked::new(&t.topic, t.topic_id)).collect()
        }
        api::DELETE_RECORDS => {
            let request: DeleteRecordsRequest = guard::request(head.api, head.version, frame, at)?;
            request.topics.iter().map(|t| Asked::new(&t.name, none)).collect()
        }
        _ => {
            let request: ListOffsetsRequest = guard::request(head.api, head.version, frame, at)?;
            request.topics.iter().map(|t| Asked::new(&t.name, none)).collect()
        }
    })
}

/// The operation that a request needs on its topics.
fn needed(key: i16) -> i32 {
    match key {
        api::PRODUCE => WRITE,
        api::FETCH => READ,
        api::DELETE_RECORDS => DELETE,
        _ => DESCRIBE,
    }
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("permissions: {error}"))
}
