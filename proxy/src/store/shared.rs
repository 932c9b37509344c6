//! Values that the proxies of a cluster share; the one module that names Redis.
//!
//! Flow: `serve` connects and writes, `get` asks, `put` has something written. A question without
//! an answer in time ends the connection, and until there is a new one nobody waits. Invariants:
//! what is given out fits what was asked for; what fails here is no failure of who asks; what is
//! under way and what waits is bounded in bytes.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::cache::PartKey;
use crate::buffer::Pool;
use crate::config::SharedCache;
use crate::limits::{
    RESTORING_BYTES, SHARED_AT_ONCE, SHARED_BYTES_PER_MS, SHARED_CONNECT, SHARED_QUESTION_BYTES,
    SHARED_QUEUE_BYTES, SHARED_QUEUE_MAX, SHARED_REST,
};
use crate::metrics::{Metrics, SharedOp, SharedOutcome};
use crate::net::{self, names::Names};
use crate::stream::Stream;
use crate::telemetry::LineLimits;
use crate::tls::{self, files};
use crate::{clock, fault, random};

/// The cache.
#[derive(Debug)]
pub struct Shared {
    settings: SharedCache,
    /// What keys begin with.
    prefix: String,
    link: Mutex<Option<Arc<Link>>>,
    at_once: Semaphore,
    /// Room for what waits to be written.
    room: Arc<Semaphore>,
    orders: mpsc::Sender<Order>,
    ordered: tokio::sync::Mutex<mpsc::Receiver<Order>>,
    metrics: Arc<Metrics>,
    lines: Arc<LineLimits>,
    names: Names,
    pool: Pool,
}

/// A value that is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Which one.
    pub key: PartKey,
    /// Its bytes.
    pub bytes: usize,
}

/// A connection.
#[derive(Debug)]
struct Link {
    connection: MultiplexedConnection,
    /// That it is of no use any more.
    broken: Notify,
}

/// What keeps a connection going.
type Driver = BoxFuture<'static, ()>;

/// A value to write, or to remove if there is none.
#[derive(Debug)]
struct Order {
    key: String,
    value: Option<Bytes>,
    _room: OwnedSemaphorePermit,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer in time")]
    Late,
    /// With the first word of its answer: what follows may repeat what it was told.
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Ended(String),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some(code) => Self::Refused(code.to_owned()),
            None => Self::Ended(error.category().to_owned()),
        }
    }
}

impl Failure {
    fn outcome(&self) -> SharedOutcome {
        match self {
            Self::Late => SharedOutcome::Late,
            Self::Refused(_) | Self::Io(_) | Self::Ended(_) => SharedOutcome::Failed,
        }
    }
}

impl Shared {
    /// One as configured, for values of this cluster; nothing is asked until it is served.
    pub fn new(
        settings: &SharedCache,
        cluster: &str,
        (metrics, lines): (Arc<Metrics>, Arc<LineLimits>),
    ) -> Self {
        let (orders, ordered) = mpsc::channel(SHARED_QUEUE_MAX);
        Self {
            settings: settings.clone(),
            prefix: format!("firebreak:1:{cluster}:"),
            link: Mutex::default(),
            at_once: Semaphore::new(SHARED_AT_ONCE),
            room: Arc::new(Semaphore::new(SHARED_QUEUE_BYTES)),
            orders,
            ordered: tokio::sync::Mutex::new(ordered),
            metrics,
            lines,
            names: Names::default(),
            pool: Pool::default(),
        }
    }

    /// Whether values of so many bytes are shared.
    pub fn takes(&self, bytes: usize) -> bool {
        bytes <= self.settings.value_bytes_max
    }

    /// Connects, again and again, and writes what is to be written.
    pub async fn serve(&self) {
        let mut ordered = self.ordered.lock().await;
        loop {
            match within(SHARED_CONNECT, self.connect()).await {
                Ok((link, driver)) => {
                    self.count(SharedOp::Connect, SharedOutcome::Done, 1);
                    if let Some(left_out) = self.lines.allows("shared_cache_reached") {
                        tracing::info!(left_out, "shared cache: connected");
                    }
                    *self.link.lock() = Some(link.clone());
                    tokio::select! {
                        biased;
                        () = driver => self.lose(&link, &closed()),
                        () = link.broken.notified() => {}
                        () = self.write(&link, &mut ordered) => {}
                    }
                }
                Err(failure) => {
                    self.count(SharedOp::Connect, failure.outcome(), 1);
                    self.tell(&failure);
                }
            }
            if fault::on("shared-not-regained") {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(random::jittered(SHARED_REST)).await;
        }
    }

    /// The values among these that are there and fit; each is `None` that is to be read elsewhere.
    /// That takes hardly more than twice the time for one answer.
    pub async fn get(
        &self,
        asked: &[Asked],
        fits: impl Fn(usize, &Bytes) -> bool,
    ) -> Vec<Option<Bytes>> {
        let start = clock::now();
        let mut found = Vec::with_capacity(asked.len());
        while found.len() < asked.len() {
            let question = first_of(&asked[found.len()..]);
            let left = self.settings.timeout.saturating_sub(clock::now() - start);
            let left = if fault::on("shared-asked-on") { self.settings.timeout } else { left };
            match self.ask(question, left).await {
                Ok(values) => {
                    for value in values {
                        found.push(self.checked(&asked[found.len()].key, value, |value| {
                            fits(found.len(), value)
                        }));
                    }
                }
                Err(outcome) => {
                    self.count(SharedOp::Get, outcome, question.len());
                    found.resize(found.len() + question.len(), None);
                }
            }
        }
        found
    }

    /// Has a value written some time, unless it is too long or too much waits.
    pub fn put(&self, key: &PartKey, value: &[u8]) {
        if !self.takes(value.len()) {
            return;
        }
        let is_there = self.link.lock().is_some();
        let outcome = match is_there {
            true if self.order(key, Some(value)) => return,
            true => SharedOutcome::Busy,
            false => SharedOutcome::Away,
        };
        self.count(SharedOp::Put, outcome, 1);
    }

    fn order(&self, key: &PartKey, value: Option<&[u8]>) -> bool {
        let bytes = value.map_or(0, <[u8]>::len) + RESTORING_BYTES;
        let bytes = if fault::on("shared-queue-unbounded") { 0 } else { bytes };
        let room =
            u32::try_from(bytes).map(|bytes| self.room.clone().try_acquire_many_owned(bytes));
        let Ok(Ok(room)) = room else { return false };
        let value = value.map(Bytes::copy_from_slice);
        self.orders.try_send(Order { key: self.key(key), value, _room: room }).is_ok()
    }

    /// Asks one question, if there is a place for it in the time that is `left`.
    async fn ask(
        &self,
        question: &[Asked],
        left: Duration,
    ) -> Result<Vec<Option<Bytes>>, SharedOutcome> {
        let link = || self.link.lock().clone().ok_or(SharedOutcome::Away);
        link()?;
        if left.is_zero() {
            return Err(SharedOutcome::Busy);
        }
        let place = timeout(left, self.at_once.acquire()).await;
        let Ok(Ok(_place)) = place else { return Err(SharedOutcome::Busy) };
        let link = link()?;
        let mut all = redis::pipe();
        for Asked { key, bytes } in question {
            // Nobody gets more than a byte too much, whatever is there.
            let most = if fault::on("shared-unmeasured") { usize::MAX / 2 } else { *bytes };
            all.cmd("GETRANGE").arg(self.key(key)).arg(0).arg(most);
        }
        let mut connection = link.connection.clone();
        let answer = async {
            let answer = connection.send_packed_commands(&all, 0, question.len()).await?;
            answer.into_iter().map(value).collect::<Result<Vec<_>, _>>()
        };
        let bytes = question.iter().map(|asked| asked.bytes).sum();
        let answer = within(self.limit(bytes), answer).await;
        answer.map_err(|failure| {
            self.lose(&link, &failure);
            failure.outcome()
        })
    }

    /// Time for an answer with so many bytes, or to so many: a slow network is no silence.
    fn limit(&self, bytes: usize) -> Duration {
        let ms = (bytes / SHARED_BYTES_PER_MS) as u64;
        self.settings.timeout + Duration::from_millis(ms)
    }

    /// What is there, if it fits; else it is removed.
    fn checked(
        &self,
        key: &PartKey,
        value: Option<Bytes>,
        fits: impl Fn(&Bytes) -> bool,
    ) -> Option<Bytes> {
        let (outcome, value) = match value {
            None => (SharedOutcome::Miss, None),
            Some(value) if fits(&value) || fault::on("shared-trusted") => {
                (SharedOutcome::Hit, Some(value))
            }
            Some(_) => {
                let removed = !fault::on("shared-wrong-stays") && self.order(key, None);
                if let Some(left_out) = self.lines.allows("shared_cache_wrong") {
                    let key = self.key(key);
                    tracing::warn!(key, removed, left_out, "shared cache: not what was stored");
                }
                (SharedOutcome::Wrong, None)
            }
        };
        self.count(SharedOp::Get, outcome, 1);
        value
    }

    async fn connect(&self) -> Result<(Arc<Link>, Driver), Failure> {
        let place = &self.settings.place;
        let host = (place.host.as_str(), place.port);
        let tcp = net::connect(&self.names, host, SHARED_CONNECT).await?;
        let stream = match &self.settings.tls {
            None => Stream::Plain(tcp),
            Some(tls) => {
                // Read anew each time: the authorities may be others by now.
                let client = files::client(tls).map_err(|problems| {
                    let (_, text) = files::first(problems);
                    Failure::Ended(text)
                })?;
                tls::connect(&client, host.0, tcp, &self.pool).await?
            }
        };
        let mut who = RedisConnectionInfo::default().set_db(place.database.into());
        who = who.set_skip_set_lib_name();
        if let Some(username) = &place.username {
            who = who.set_username(username);
        }
        if let Some(password) = &self.settings.password {
            who = who.set_password(password.reveal());
        }
        // Times are kept here.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&who, stream, config).await?;
        let mut driver = driver.boxed();
        let mut first = connection.clone();
        let mut question = redis::cmd("GETRANGE");
        question.arg(&self.prefix).arg(0).arg(0);
        let answered = tokio::select! {
            biased;
            answer = first.send_packed_command(&question) => answer,
            () = &mut driver => return Err(closed()),
        };
        value(answered?)?;
        Ok((Arc::new(Link { connection, broken: Notify::new() }), driver))
    }

    /// Writes what is to be written until that fails.
    async fn write(&self, link: &Arc<Link>, ordered: &mut mpsc::Receiver<Order>) {
        while let Some(Order { key, value, _room }) = ordered.recv().await {
            let mut connection = link.connection.clone();
            let command = self.command(&key, value.as_deref());
            let done = connection.send_packed_command(&command).map(|done| Ok(done?));
            let limit = self.limit(value.as_ref().map_or(0, Bytes::len));
            let outcome = match within(limit, done).await {
                Ok(redis::Value::ServerError(error)) => {
                    let refused = Failure::Refused(error.code().to_owned());
                    match error.code() {
                        // It became a replica: its name may lead to another one by now.
                        "READONLY" => self.lose(link, &refused),
                        _ => self.tell(&refused),
                    }
                    SharedOutcome::Failed
                }
                Ok(_) => SharedOutcome::Done,
                Err(failure) => {
                    self.lose(link, &failure);
                    failure.outcome()
                }
            };
            if value.is_some() {
                self.count(SharedOp::Put, outcome, 1);
            }
        }
    }

    fn command(&self, key: &str, value: Option<&[u8]>) -> Cmd {
        let Some(value) = value else { return redis::cmd("DEL").arg(key).take() };
        let ttl = self.settings.ttl.as_secs();
        redis::cmd("SET").arg(key).arg(value).arg("EX").arg(ttl).take()
    }

    /// Uses a connection no more.
    fn lose(&self, link: &Arc<Link>, failure: &Failure) {
        let mut now = self.link.lock();
        let is_in_use = now.as_ref().is_some_and(|now| Arc::ptr_eq(now, link));
        if is_in_use && !fault::on("shared-kept-asking") {
            *now = None;
            drop(now);
            link.broken.notify_one();
            self.tell(failure);
        }
    }

    fn tell(&self, failure: &Failure) {
        if let Some(left_out) = self.lines.allows("shared_cache") {
            let SharedCache { place, .. } = &self.settings;
            let (host, port) = (&place.host, place.port);
            tracing::warn!(host, port, %failure, left_out, "shared cache: done without");
        }
    }

    fn key(&self, (pack, offset): &PartKey) -> String {
        let mut key = self.prefix.clone();
        let _ = write!(key, "{}:{offset}", uuid::Uuid::from_bytes(*pack).simple());
        key
    }

    fn count(&self, op: SharedOp, outcome: SharedOutcome, n: usize) {
        self.metrics.shared.count(op, outcome, n);
    }
}

/// As many as one question is for: at least one.
fn first_of(asked: &[Asked]) -> &[Asked] {
    let mut bytes = 0;
    let fit = asked.iter().take_while(|asked| {
        bytes += asked.bytes + RESTORING_BYTES;
        bytes <= SHARED_QUESTION_BYTES
    });
    &asked[..fit.count().max(1).min(asked.len())]
}

/// The value in an answer; `None`: it is not there, since none is empty.
fn value(answer: redis::Value) -> Result<Option<Bytes>, Failure> {
    match answer {
        redis::Value::BulkString(bytes) => Ok((!bytes.is_empty()).then(|| bytes.into())),
        // Something that is no string fits nothing.
        redis::Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Some(Bytes::new())),
        redis::Value::ServerError(error) => Err(Failure::Refused(error.code().to_owned())),
        _ => Err(Failure::Refused("an answer to something else".to_owned())),
    }
}

fn closed() -> Failure {
    Failure::Ended("it closed the connection".to_owned())
}

async fn within<T>(
    limit: Duration,
    done: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, done).await.unwrap_or(Err(Failure::Late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_for_one_value_at_least_and_for_no_more_than_fit() {
        let asked = |sizes: &[usize]| {
            let asked = sizes.iter().map(|bytes| Asked { key: ([0; 16], 0), bytes: *bytes });
            first_of(&asked.collect::<Vec<_>>()).len()
        };
        assert_eq!(asked(&[]), 0);
        assert_eq!(asked(&[SHARED_QUESTION_BYTES * 2, 1]), 1);
        assert_eq!(asked(&[100_000; 20]), 10);
        assert_eq!(asked(&[0; 10_000]), SHARED_QUESTION_BYTES / RESTORING_BYTES);
    }
}
