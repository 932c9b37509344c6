//! Questions about topics to the brokers: one at a time; what is asked meanwhile is asked next, as
//! much of it at once as one question may hold.
//!
//! ask -> waiting -> (serve: one question, to several brokers if one does not answer) -> told.
//! Invariant: nobody holds a lock while a broker is waited for.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use protocol_ext::api;
use tokio::sync::{Notify, oneshot};

use super::TopicId;
use crate::fault;
use crate::limits::Limits;
use crate::net::race;
use crate::route::addresses::Directory;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// Metadata version of the questions: the first that is asked by id (KIP-516 and KAFKA-10345).
const METADATA_VERSION: i16 = 12;

/// A topic that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    Name(Arc<str>),
    Id(TopicId),
}

/// Topics of one question: its request and its answer stay short whatever clients ask for.
const WANTED_MAX: usize = 2000;

/// Who waits for the end of a question.
type Waiter = oneshot::Sender<Result<(), Arc<str>>>;

/// What is to be asked next, in the order in which it was wanted.
#[derive(Debug, Default)]
pub(super) struct Questions {
    next: Mutex<VecDeque<(Vec<Wanted>, Waiter)>>,
    wake: Notify,
}

/// One question, and those who wait for its end.
#[derive(Debug)]
pub(super) struct Question {
    pub wanted: Vec<Wanted>,
    waiters: Vec<Waiter>,
}

impl Questions {
    /// Has topics asked for and waits until what was answered is known.
    pub async fn ask(&self, wanted: impl IntoIterator<Item = Wanted>) -> io::Result<()> {
        let wanted: Vec<Wanted> = wanted.into_iter().collect();
        let most = if fault::on("questions-unbounded") { usize::MAX } else { WANTED_MAX };
        for wanted in wanted.chunks(most) {
            let (to, told) = oneshot::channel();
            self.next.lock().push_back((wanted.to_vec(), to));
            self.wake.notify_one();
            match told.await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(io::Error::other(why.to_string())),
                // Nobody asks any more: the process ends.
                Err(_) => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
        Ok(())
    }

    /// Waits for the next question.
    pub async fn next(&self) -> Question {
        loop {
            let (wanted, waiters) = taken(&mut self.next.lock());
            if !waiters.is_empty() {
                return Question { wanted: wanted.into_iter().collect(), waiters };
            }
            self.wake.notified().await;
        }
    }
}

/// As many of those that wait, in order, as one question may ask for.
fn taken(next: &mut VecDeque<(Vec<Wanted>, Waiter)>) -> (BTreeSet<Wanted>, Vec<Waiter>) {
    let (mut taken, mut waiters) = (BTreeSet::new(), Vec::new());
    while let Some((wanted, waiter)) = next.pop_front() {
        let new = wanted.iter().filter(|wanted| !taken.contains(*wanted)).count();
        if !waiters.is_empty() && taken.len() + new > WANTED_MAX {
            next.push_front((wanted, waiter));
            break;
        }
        taken.extend(wanted);
        waiters.push(waiter);
    }
    (taken, waiters)
}

/// A broker that may answer.
enum Way<'a> {
    /// The one that answered before.
    Again(BrokerConnection),
    /// One that may be at this place.
    Anew(&'a (String, u16)),
}

impl Question {
    /// Asks it on the connection that is held, and other brokers too when that one does not
    /// answer: a broker that is dead, or takes connections and no more, costs a head start.
    pub async fn put(
        &self,
        directory: &Directory,
        limits: &Limits,
        held: &mut Option<BrokerConnection>,
    ) -> io::Result<Vec<MetadataResponseTopic>> {
        let (requests, places) = (self.requests(), directory.places());
        let again = held.take().and_then(|mut held| held.is_open().then_some(held));
        let once = again.is_some() && fault::on("question-asked-once");
        let anew = places.iter().filter(|_| !once).map(Way::Anew);
        let ways = again.map(Way::Again).into_iter().chain(anew);
        let asked = ways.map(|way| call(directory, limits, way, &requests).boxed());
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to Metadata");
        let race = tokio::time::timeout(limits.connect * 2, race(asked.collect()));
        let (topics, connection) = race.await.map_err(late)??;
        *held = Some(connection);
        Ok(topics)
    }

    /// One request for names and one for ids: a broker that is asked for both looks at ids only.
    fn requests(&self) -> Vec<MetadataRequest> {
        let (mut names, mut ids) = (Vec::new(), Vec::new());
        for wanted in &self.wanted {
            let topic = MetadataRequestTopic::default();
            match wanted {
                Wanted::Name(name) => {
                    let name = TopicName(StrBytes::from_string(name.to_string()));
                    names.push(topic.with_name(Some(name)));
                }
                Wanted::Id(id) => {
                    ids.push(topic.with_name(None).with_topic_id(uuid::Uuid::from_bytes(*id)));
                }
            }
        }
        if fault::on("names-beside-ids") {
            names.append(&mut ids);
        }
        let asked = [names, ids].into_iter().filter(|topics| !topics.is_empty());
        let requests = asked.map(|topics| {
            MetadataRequest::default()
                .with_topics(Some(topics))
                .with_allow_auto_topic_creation(false)
        });
        requests.collect()
    }

    /// Tells those who wait that what was answered is known, or why nothing was.
    pub fn tell(self, end: Result<(), &io::Error>) {
        let end = end.map_err(|error| Arc::from(error.to_string()));
        for waiter in self.waiters {
            // Whoever asked may be gone.
            let _ = waiter.send(end.clone());
        }
    }
}

async fn call(
    directory: &Directory,
    limits: &Limits,
    way: Way<'_>,
    requests: &[MetadataRequest],
) -> io::Result<(Vec<MetadataResponseTopic>, BrokerConnection)> {
    let mut connection = match way {
        Way::Again(connection) => connection,
        Way::Anew(place) => {
            BrokerConnection::new(directory.reach(place, limits, &Login::Proxy).await?)
        }
    };
    let mut topics = Vec::new();
    for request in requests {
        let answer: MetadataResponse =
            connection.call(api::METADATA, METADATA_VERSION, request).await?;
        topics.extend(answer.topics);
    }
    Ok((topics, connection))
}
