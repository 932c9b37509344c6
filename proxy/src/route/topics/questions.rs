//! Questions about topics to the brokers: one at a time; what is asked meanwhile is asked next, all
//! of it at once.
//!
//! ask -> waiting -> (serve: one question, asked again on a new connection if it fails) -> told.
//! Invariant: nobody holds a lock while a broker is waited for.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use protocol_ext::api;
use tokio::sync::{Notify, oneshot};

use super::TopicId;
use crate::fault;
use crate::limits::Limits;
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

/// Those who wait for the end of a question.
type Waiters = Vec<oneshot::Sender<Result<(), Arc<str>>>>;

/// What is to be asked next.
#[derive(Debug, Default)]
pub(super) struct Questions {
    next: Mutex<(BTreeSet<Wanted>, Waiters)>,
    wake: Notify,
}

/// One question, and those who wait for its end.
#[derive(Debug)]
pub(super) struct Question {
    pub wanted: Vec<Wanted>,
    waiters: Waiters,
}

impl Questions {
    /// Has topics asked for and waits until what was answered is known.
    pub async fn ask(&self, wanted: impl IntoIterator<Item = Wanted>) -> io::Result<()> {
        let (to, told) = oneshot::channel();
        {
            let mut next = self.next.lock();
            next.0.extend(wanted);
            next.1.push(to);
        }
        self.wake.notify_one();
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(io::Error::other(why.to_string())),
            // Nobody asks any more: the process ends.
            Err(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Waits for the next question.
    pub async fn next(&self) -> Question {
        loop {
            let (wanted, waiters) = std::mem::take(&mut *self.next.lock());
            if !waiters.is_empty() {
                return Question { wanted: wanted.into_iter().collect(), waiters };
            }
            self.wake.notified().await;
        }
    }
}

impl Question {
    /// Asks it on the connection that is held, and once more on a new one if that fails.
    pub async fn put(
        &self,
        directory: &Directory,
        limits: &Limits,
        held: &mut Option<BrokerConnection>,
    ) -> io::Result<MetadataResponse> {
        let request = self.request();
        if let Some(connection) = held.take().and_then(|mut held| held.is_open().then_some(held)) {
            match within(limits, call(connection, &request)).await {
                Ok((answer, connection)) => {
                    *held = Some(connection);
                    return Ok(answer);
                }
                Err(error) if fault::on("question-asked-once") => return Err(error),
                Err(error) => tracing::debug!(%error, "asked on a stale connection"),
            }
        }
        let any = within(limits, directory.connect_any(limits, &Login::Proxy)).await?;
        let called = within(limits, call(BrokerConnection::new(any), &request)).await;
        let (answer, connection) = called?;
        *held = Some(connection);
        Ok(answer)
    }

    fn request(&self) -> MetadataRequest {
        let topics = self.wanted.iter().map(|wanted| match wanted {
            Wanted::Name(name) => {
                let name = TopicName(StrBytes::from_string(name.to_string()));
                MetadataRequestTopic::default().with_name(Some(name))
            }
            Wanted::Id(id) => MetadataRequestTopic::default()
                .with_name(None)
                .with_topic_id(uuid::Uuid::from_bytes(*id)),
        });
        MetadataRequest::default()
            .with_topics(Some(topics.collect()))
            .with_allow_auto_topic_creation(false)
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
    mut connection: BrokerConnection,
    request: &MetadataRequest,
) -> io::Result<(MetadataResponse, BrokerConnection)> {
    let answer = connection.call(api::METADATA, METADATA_VERSION, request).await?;
    Ok((answer, connection))
}

async fn within<T>(limits: &Limits, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to Metadata");
    tokio::time::timeout(limits.connect, done).await.map_err(late)?
}
