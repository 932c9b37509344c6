//! Reads the placement log for ever and puts what it says in force.
//!
//! leader -> Fetch (read_committed: what came to nothing is skipped) -> table -> chains.
//! Invariant: records of one transaction, which are one batch, take force together.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use protocol_ext::api;
use protocol_ext::batch::{BatchError, Batches, Caps, Entry, OpenBatch};
use tokio::sync::watch;

use super::table::{Table, Unplaced};
use crate::clock::Tick;
use crate::data_plane::DataPlane;
use crate::route::addresses::Door;
use crate::route::virtual_topics::{PLACEMENT_TOPIC, VirtualTopics};
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;
use crate::{clock, fault, random};

const FETCH_VERSION: i16 = 12;
const OFFSETS_VERSION: i16 = 5;
const READ_COMMITTED: i8 = 1;
/// How long a broker waits for something to read, and how many bytes it gives at once.
const WAIT_MS: i32 = 500;
const READ_BYTES_MAX: i32 = 4 * 1024 * 1024;
const BREAK: Duration = Duration::from_millis(20);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(250);
/// A log that was just made is without a leader for less than this.
const JUST_MADE: Duration = Duration::from_secs(5);
const OFFSET_OUT_OF_RANGE: i16 = 1;
const CAPS: Caps = Caps { body_bytes_max: 64 << 20, rewritten_bytes_max: 64 << 20 };

/// How far the log was read.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Everything is in here that was in the log when reading began.
    pub whole: bool,
    /// What it says.
    pub table: Arc<Table>,
    /// When a broker answered last.
    pub at: Option<Tick>,
}

/// Reads for ever; dropped at shutdown.
pub async fn follow(plane: Arc<DataPlane>, read: watch::Sender<Read>) {
    let Some(routed) = plane.routed.as_ref().filter(|_| plane.has_days()) else { return };
    let mut tail = Tail::default();
    let (mut told, mut last) = (BTreeMap::new(), None);
    let mut failing = None;
    loop {
        let next = tail.next(&plane).await;
        if next.is_ok() {
            failing = None;
            // Nobody is woken for that.
            read.send_if_modified(|read| {
                read.at = Some(clock::now());
                false
            });
        }
        match next {
            // Brokers wait for something to read; who does not is not asked without a break.
            Ok(false) => tokio::time::sleep(BREAK).await,
            Ok(true) => {
                let (whole, table) = (tail.whole, Arc::new(tail.table.clone()));
                plane.metrics.placed.segments(table.counts(), table.intents.len());
                let same = last.as_ref().is_some_and(|last: &Arc<Table>| last.places_as(&table));
                if whole && !same {
                    put_in_force(routed, &table, &mut told);
                    last = Some(table.clone());
                }
                read.send_replace(Read { whole, table, at: Some(clock::now()) });
            }
            Err(error) => {
                tail.connection = None;
                plane.topics.doubt(PLACEMENT_TOPIC);
                tell(&plane, &error, tail.whole, &mut failing);
                tokio::time::sleep(random::jittered(PAUSE)).await;
            }
        }
    }
}

/// Tells of a failure, the last one of those since `failing`. A log that was never read to its end
/// may have been made a moment ago, which is worth one line and no warning.
fn tell(plane: &DataPlane, error: &io::Error, whole: bool, failing: &mut Option<Tick>) {
    let first = failing.is_none();
    let since = *failing.get_or_insert_with(clock::now);
    let is_new = !whole && clock::now() - since < JUST_MADE;
    // Who reads beside another one in this process leaves that to it.
    if is_new && first && !plane.read_only {
        tracing::info!(%error, "the placement log cannot be read yet");
    }
    if !is_new && let Some(left_out) = plane.lines.allows("placement") {
        tracing::warn!(%error, left_out, "the placement log cannot be read");
    }
}

/// Swaps the chains in; a slot without one is told about once.
fn put_in_force(
    routed: &VirtualTopics,
    table: &Table,
    told: &mut BTreeMap<(usize, usize), Unplaced>,
) {
    routed.place(|topic, slot| table.chain(topic, slot).ok());
    for topic in routed.all().iter().filter(|topic| topic.days) {
        for slot in 0..topic.physical.len() {
            let place = (topic.number, slot);
            match table.chain(topic, slot) {
                Ok(_) | Err(Unplaced::None) => drop(told.remove(&place)),
                Err(why) if told.get(&place) == Some(&why) => {}
                Err(why) => {
                    let (topic, slot) = (&topic.name, topic.slot_name(slot).unwrap_or_default());
                    tracing::error!(%topic, slot, %why, "a slot has no segments to use");
                    told.insert(place, why);
                }
            }
        }
    }
}

/// A reader of the log.
#[derive(Debug, Default)]
pub struct Tail {
    table: Table,
    whole: bool,
    offset: i64,
    /// End of the log when reading began.
    end: Option<i64>,
    aborting: HashSet<i64>,
    connection: Option<BrokerConnection>,
}

impl Tail {
    /// Reads what comes next; whether anything changed.
    async fn next(&mut self, plane: &DataPlane) -> io::Result<bool> {
        let mut broker = match self.connection.take() {
            Some(connection) => connection,
            None => connect(plane).await?,
        };
        let end = match self.end {
            Some(end) => end,
            None => end_of(&mut broker).await?,
        };
        self.end = Some(end);
        let row = fetch(&mut broker, self.offset).await?;
        if row.error_code == OFFSET_OUT_OF_RANGE {
            tracing::error!(offset = self.offset, "the placement log was made anew: read again");
            *self = Self::default();
            return Ok(false);
        }
        if row.error_code != 0 {
            return Err(io::Error::other(format!("error {}", row.error_code)));
        }
        self.connection = Some(broker);
        let changed = self.take(&row).map_err(io::Error::other)?;
        let empty = row.records.as_ref().is_none_or(Bytes::is_empty);
        let reached = self.offset >= end || empty && row.last_stable_offset >= end;
        let newly = reached && !self.whole;
        self.whole |= reached;
        Ok(changed || newly)
    }

    /// Takes the records of an answer, but those of transactions that came to nothing.
    fn take(&mut self, row: &PartitionData) -> Result<bool, BatchError> {
        let records = row.records.clone().unwrap_or_default();
        let mut aborted: Vec<(i64, i64)> = row
            .aborted_transactions
            .iter()
            .flatten()
            .map(|aborted| (aborted.first_offset, aborted.producer_id.0))
            .collect();
        aborted.sort_unstable();
        let mut aborted = aborted.into_iter().peekable();
        let mut changed = false;
        for entry in Batches::new(&records) {
            let Entry::Batch { range, header } = entry? else { break };
            let next = header.base_offset + i64::from(header.last_offset_delta) + 1;
            while let Some((_, id)) = aborted.next_if(|(first, _)| *first < next) {
                self.aborting.insert(id);
            }
            if next <= self.offset {
                continue;
            }
            self.offset = next;
            let id = header.producer_id;
            if header.is_control() {
                // A marker: what comes behind it is of another transaction.
                self.aborting.remove(&id);
                continue;
            }
            let dropped = header.is_transactional() && self.aborting.contains(&id);
            if dropped && !fault::on("aborted-placement-read") {
                continue;
            }
            let open = OpenBatch::open(records.slice(range), &CAPS)?;
            for record in open.records().filter_map(Result::ok) {
                let applied = self.table.apply(record.key.unwrap_or_default(), record.value);
                if let Err(error) = applied {
                    let key = String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
                    tracing::error!(key, %error, "a record of the placement log is unreadable");
                }
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// A connection to the broker that leads the log.
pub(super) async fn connect(plane: &DataPlane) -> io::Result<BrokerConnection> {
    plane.topics.want_leaders([(PLACEMENT_TOPIC, 0)].into_iter()).await;
    let leader = plane.topics.leader(PLACEMENT_TOPIC, 0);
    let leader = leader.ok_or_else(|| io::Error::other("it has no leader yet"))?;
    let door = Door::Node(leader.node);
    let connect = plane.directory.connect(door, &plane.limits, &Login::Proxy);
    let connected = tokio::time::timeout(plane.limits.connect, connect).await;
    Ok(BrokerConnection::new(connected.map_err(|_| io::ErrorKind::TimedOut)??))
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str(PLACEMENT_TOPIC))
}

/// Where the log ends for readers of what is committed.
async fn end_of(broker: &mut BrokerConnection) -> io::Result<i64> {
    let partition =
        ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(name()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(READ_COMMITTED)
        .with_topics(vec![topic]);
    let call = broker.call(api::LIST_OFFSETS, OFFSETS_VERSION, &request);
    let answer: ListOffsetsResponse = in_time(call).await?;
    let row = answer.topics.first().and_then(|topic| topic.partitions.first());
    match row {
        Some(row) if row.error_code == 0 => Ok(row.offset),
        row => {
            let code = row.map_or(-1, |row| row.error_code);
            Err(io::Error::other(format!("error {code} of its end")))
        }
    }
}

async fn fetch(broker: &mut BrokerConnection, offset: i64) -> io::Result<PartitionData> {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(READ_BYTES_MAX);
    let topic = FetchTopic::default().with_topic(name()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(READ_BYTES_MAX)
        .with_isolation_level(READ_COMMITTED)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let mut body = BytesMut::new();
    request.encode(&mut body, FETCH_VERSION).map_err(io::Error::other)?;
    let body = [body.freeze()];
    let answer = in_time(broker.exchange(api::FETCH, FETCH_VERSION, &body)).await?;
    let answer: FetchResponse =
        protocol_ext::guard::response(api::FETCH, FETCH_VERSION, &answer, 0)
            .map_err(io::Error::other)?;
    let row = answer.responses.into_iter().next().and_then(|t| t.partitions.into_iter().next());
    row.ok_or_else(|| io::Error::other("an answer without it"))
}

/// A broker that says nothing for so long is asked no more.
const SILENCE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn in_time<T>(asked: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(SILENCE_MAX, asked).await.map_err(|_| io::ErrorKind::TimedOut)?
}
