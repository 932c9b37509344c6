//! Reads what brokers keep, raw: which topics there are, and every reference in their logs.
//!
//! Flow: Metadata -> ListOffsets (first, last) -> Fetch until the last. Whatever looks like a
//! reference counts as one, good signature or not, and which of both is told.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use protocol_ext::api;
use protocol_ext::batch::{BatchHeader, Batches, Caps, Entry, OpenBatch};
use protocol_ext::reference::Reference;
use uuid::Uuid;

use super::UpkeepError;
use crate::buffer::Pool;
use crate::config::Config;
use crate::fault;
use crate::limits::Limits;
use crate::route::addresses::{Broker, Directory, Door};
use crate::route::topics::TopicId;
use crate::upstream::BrokerConnection;
use crate::upstream::access::{Access, Login};

/// A partition of a topic.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its topic's name.
    pub topic: String,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its number.
    pub partition: i32,
    /// Brokers that keep a copy of it.
    pub replicas: usize,
    /// The broker that leads it.
    pub leader: i32,
}

/// Batches of a log, for who reads what was committed.
#[derive(Debug)]
pub struct Committed {
    /// The batches.
    pub records: Bytes,
    /// Transactions among them that came to nothing: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
}

/// What the cluster shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// Kafka's id of it.
    pub cluster_id: Option<String>,
    /// All partitions of all topics, its own apart.
    pub partitions: Vec<Partition>,
    /// Topics that it cannot tell of now: name, id and error.
    pub failing: Vec<(String, TopicId, i16)>,
}

/// What one Fetch brought of a log.
#[derive(Debug, Default)]
pub struct Page {
    /// Offset behind the last batch.
    pub next: i64,
    /// Bytes that came.
    pub bytes: usize,
    /// The first batch.
    pub first: Option<BatchHeader>,
    /// The last one.
    pub last: Option<BatchHeader>,
    /// Whether there are messages of an old format among them.
    pub old_format: bool,
}

/// A reference as it lies in a log.
#[derive(Debug, Clone)]
pub struct Found {
    /// Offset of its record.
    pub offset: i64,
    /// Last offset of its batch: while that is in the log, who reads there gets the whole batch.
    pub last: i64,
    /// What it says.
    pub reference: Reference,
    /// Whether its signature fits.
    pub signed: bool,
}

/// Connections to the brokers.
pub struct Cluster {
    directory: Directory,
    limits: Limits,
    caps: Caps,
    brokers: HashMap<i32, BrokerConnection>,
}

impl Cluster {
    /// Brokers are connected to as they are needed.
    pub fn connect(config: &Config) -> io::Result<Self> {
        let body_bytes_max = config.limits.frame_bytes_max;
        let access = Access::new(&config.cluster, &Pool::default());
        let access =
            access.map_err(|(key, why)| io::Error::other(format!("cluster.{key}: {why}")))?;
        Ok(Self {
            directory: Directory::new(&config.listen, &config.cluster, Arc::new(access)),
            limits: config.limits.clone(),
            caps: Caps { body_bytes_max, rewritten_bytes_max: body_bytes_max },
            brokers: HashMap::new(),
        })
    }

    /// All topics that the cluster shows, its own apart.
    pub async fn shown(&mut self) -> io::Result<Shown> {
        let mut request = MetadataRequest::default();
        request.topics = None;
        request.allow_auto_topic_creation = false;
        let answer: MetadataResponse =
            self.ask(None, (api::METADATA, METADATA_VERSION), &request).await?;
        let brokers = answer.brokers.into_iter().filter_map(|broker| {
            let port = u16::try_from(broker.port).ok()?;
            Some(Broker { node: broker.node_id.0, host: broker.host.to_string(), port })
        });
        self.directory.learn(brokers.collect());
        let cluster_id = answer.cluster_id.map(|id| id.to_string());
        let mut found = Shown { cluster_id, ..Shown::default() };
        for topic in answer.topics.into_iter().filter(|topic| !topic.is_internal) {
            let name = topic.name.map(|name| name.0.to_string()).unwrap_or_default();
            if topic.error_code != 0 {
                let id = *topic.topic_id.as_bytes();
                found.failing.push((name.clone(), id, topic.error_code));
            }
            found.partitions.extend(topic.partitions.into_iter().map(|partition| Partition {
                topic: name.clone(),
                topic_id: *topic.topic_id.as_bytes(),
                partition: partition.partition_index,
                replicas: partition.replica_nodes.len(),
                leader: partition.leader_id.0,
            }));
        }
        Ok(found)
    }

    /// One page of a partition's log from an offset on, and every reference in it; `signed` checks
    /// the signature of one.
    pub async fn page(
        &mut self,
        at: &Partition,
        from: i64,
        signed: &impl Fn(&[u8]) -> bool,
    ) -> Result<(Page, Vec<Found>), UpkeepError> {
        let failed = |why| unreadable(at, why);
        let read = self.fetch(at, from, UNCOMMITTED.1).await?.map_err(failed)?;
        let records = read.records.unwrap_or_default();
        let mut found = Vec::new();
        let mut take = |batch: &BatchHeader, offset: i64, value: &[u8]| {
            if let Ok((reference, _)) = Reference::parse_unverified(value) {
                let by_record = fault::on("index-by-record");
                let last = if by_record { offset } else { offset.max(behind(batch) - 1) };
                found.push(Found { offset, last, reference, signed: signed(value) });
            }
        };
        let page = self.read(&records, from, &mut take).map_err(failed)?;
        Ok((page, found))
    }

    /// Shows every value in a partition's log, from its first record to the last there is now, with
    /// its offset.
    pub async fn values(
        &mut self,
        at: &Partition,
        take: &mut impl FnMut(i64, &[u8]),
    ) -> Result<(), UpkeepError> {
        let failed = |why| unreadable(at, why);
        let mut next = self.log_start(at).await?;
        let end = self.high_watermark(at).await?;
        let mut take = |_: &BatchHeader, offset: i64, value: &[u8]| take(offset, value);
        while next < end {
            let read = self.fetch(at, next, UNCOMMITTED.1).await?.map_err(failed)?;
            let records = read.records.unwrap_or_default();
            next = self.read(&records, next, &mut take).map_err(failed)?.next;
        }
        Ok(())
    }

    /// Shows the values of some batches. Fails where nothing can be read at `from`.
    fn read(
        &self,
        records: &Bytes,
        from: i64,
        take: &mut impl FnMut(&BatchHeader, i64, &[u8]),
    ) -> Result<Page, String> {
        let mut page = Page { next: from, bytes: records.len(), ..Page::default() };
        for entry in Batches::new(records) {
            match entry.map_err(|error| error.to_string())? {
                Entry::Batch { range, header } => {
                    page.next = behind(&header);
                    page.first = page.first.or(Some(header));
                    page.last = Some(header);
                    let open = OpenBatch::open(records.slice(range), &self.caps);
                    let mut open = open.map_err(|error| error.to_string())?;
                    // What is misread here once an index would lack for ever.
                    let sound = open.check_crc().map_err(|error| {
                        format!("batch at offset {}: {error}", header.base_offset)
                    });
                    if !fault::on("log-sums-unchecked") {
                        sound?;
                    }
                    if header.is_control() {
                        continue;
                    }
                    for record in open.records() {
                        let record = record.map_err(|error| error.to_string())?;
                        let offset = header.base_offset + i64::from(record.offset_delta);
                        take(&header, offset, record.value.unwrap_or_default());
                    }
                }
                Entry::Partial { .. } => break,
                // Values of the old formats are never stored, so none of them is a reference.
                Entry::Legacy { range } => {
                    let offset = records[range].first_chunk().copied().map(i64::from_be_bytes);
                    page.next = offset.ok_or("a message without an offset")? + 1;
                    page.old_format = true;
                }
            }
        }
        if page.next <= from {
            return Err(format!("nothing readable at offset {from}"));
        }
        Ok(page)
    }

    /// First offset of a log, and the offset behind what was committed for good.
    pub async fn bounds(&mut self, at: &Partition) -> Result<(i64, i64), UpkeepError> {
        let failed = |why| unreadable(at, why);
        let first = self.offset(at, EARLIEST, COMMITTED).await?.map_err(failed)?;
        Ok((first, self.offset(at, LATEST, COMMITTED).await?.map_err(failed)?))
    }

    /// First offset of a log.
    pub async fn log_start(&mut self, at: &Partition) -> Result<i64, UpkeepError> {
        let start = self.offset(at, EARLIEST, UNCOMMITTED).await?;
        start.map_err(|why| unreadable(at, why))
    }

    /// The offset behind what every replica in sync has.
    pub async fn high_watermark(&mut self, at: &Partition) -> Result<i64, UpkeepError> {
        let end = self.offset(at, LATEST, UNCOMMITTED).await?;
        end.map_err(|why| unreadable(at, why))
    }

    /// The offset behind all that its leader has, whoever else has it.
    pub async fn log_end(&mut self, at: &Partition) -> Result<i64, UpkeepError> {
        let end = self.offset(at, LATEST, AS_DEBUGGER).await?;
        end.map_err(|why| unreadable(at, why))
    }

    /// Batches from an offset on, as who reads committed records gets them.
    pub async fn committed(&mut self, at: &Partition, from: i64) -> Result<Committed, UpkeepError> {
        let read = self.fetch(at, from, COMMITTED.1).await?.map_err(|why| unreadable(at, why))?;
        let aborted = read.aborted_transactions.unwrap_or_default();
        let aborted = aborted.into_iter().map(|one| (one.producer_id.0, one.first_offset));
        Ok(Committed { records: read.records.unwrap_or_default(), aborted: aborted.collect() })
    }

    /// Closes all connections: whatever went wrong on one of them, the next has none of it.
    pub fn hang_up(&mut self) {
        self.brokers.clear();
    }

    /// Asks one broker, or any, with this API and version. Who does not answer in time is given up.
    pub async fn ask<Q, A>(
        &mut self,
        node: Option<i32>,
        (key, version): (i16, i16),
        request: &Q,
    ) -> io::Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable,
    {
        let asked = async {
            match node {
                Some(node) => self.broker(node).await?.call(key, version, request).await,
                None => self.any().await?.call(key, version, request).await,
            }
        };
        let answer = match tokio::time::timeout(ANSWER, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "a broker does not answer")),
        };
        if let (Some(node), Err(_)) = (node, &answer) {
            // What still comes there is the answer to nothing.
            self.brokers.remove(&node);
        }
        answer
    }

    async fn any(&mut self) -> io::Result<BrokerConnection> {
        let stream = self.directory.connect_any(&self.limits, &Login::Proxy).await?;
        Ok(BrokerConnection::new(stream))
    }

    async fn broker(&mut self, node: i32) -> io::Result<&mut BrokerConnection> {
        if !self.brokers.contains_key(&node) {
            let stream =
                self.directory.connect(Door::Node(node), &self.limits, &Login::Proxy).await?;
            let broker = BrokerConnection::new(stream).with_answers_of(ANSWER_BYTES_MAX);
            self.brokers.insert(node, broker);
        }
        self.brokers.get_mut(&node).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn offset(
        &mut self,
        at: &Partition,
        time: i64,
        (replica, isolation): (i32, i8),
    ) -> io::Result<Result<i64, String>> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(at.partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(time);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&at.topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(replica))
            .with_isolation_level(isolation)
            .with_topics(vec![topic]);
        let api = (api::LIST_OFFSETS, LIST_OFFSETS_VERSION);
        let answer: ListOffsetsResponse = self.ask(Some(at.leader), api, &request).await?;
        let found = answer.topics.first().and_then(|topic| topic.partitions.first());
        Ok(match found {
            Some(partition) if partition.error_code == 0 => Ok(partition.offset),
            Some(partition) => Err(format!("error {}", partition.error_code)),
            None => Err("no answer".to_owned()),
        })
    }

    async fn fetch(
        &mut self,
        at: &Partition,
        from: i64,
        isolation: i8,
    ) -> io::Result<Result<PartitionData, String>> {
        let partition = FetchPartition::default()
            .with_partition(at.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(from)
            .with_partition_max_bytes(FETCH_BYTES);
        let topic = FetchTopic::default()
            .with_topic(topic_name(&at.topic))
            .with_topic_id(Uuid::from_bytes(at.topic_id))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_isolation_level(isolation)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        // By the id: a topic that is made anew meanwhile has its name and another log.
        let has_id = at.topic_id != [0; 16];
        let api = (api::FETCH, if has_id { FETCH_VERSION } else { FETCH_VERSION_OF_NAMES });
        let answer: FetchResponse = self.ask(Some(at.leader), api, &request).await?;
        let found = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        Ok(match found {
            Some(partition) if partition.error_code == 0 => Ok(partition),
            Some(partition) => Err(format!("error {}", partition.error_code)),
            None => Err("no answer".to_owned()),
        })
    }
}

/// The offset behind a batch.
pub fn behind(batch: &BatchHeader) -> i64 {
    batch.base_offset + i64::from(batch.last_offset_delta) + 1
}

fn unreadable(at: &Partition, why: String) -> UpkeepError {
    UpkeepError::Log { topic: at.topic.clone(), partition: at.partition, why }
}

/// A name as the codec crate wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Versions that every broker from 3.9 to 4.3 has, and the last Fetch that names topics, for those
/// that have no ids.
const METADATA_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 5;
const FETCH_VERSION: i16 = 13;
const FETCH_VERSION_OF_NAMES: i16 = 12;
/// Timestamps of ListOffsets that stand for ends of the log.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
/// Who asks, and of which records: replica id and isolation level. The last is no replica either,
/// and is shown all that a leader has.
const UNCOMMITTED: (i32, i8) = (-1, 0);
const COMMITTED: (i32, i8) = (-1, 1);
const AS_DEBUGGER: (i32, i8) = (-2, 0);
const FETCH_BYTES: i32 = 8 * 1024 * 1024;
/// Time for the answer of a broker.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest batch that is written to a copy: the longest request that brokers take unless they
/// were told otherwise.
pub const BATCH_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Longest answer: a batch is whole however long it is; and all else that is asked for.
const ANSWER_BYTES_MAX: usize = BATCH_BYTES_MAX + 16 * 1024 * 1024;
const FETCH_WAIT_MS: i32 = 500;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::raw::Flags;

    async fn cluster() -> (TcpListener, Cluster) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let text = format!("[[cluster]]\nbootstrap = [\"127.0.0.1:{port}\"]\n");
        let config = Config::parse(&text, &Flags::default()).expect("valid");
        let cluster = Cluster::connect(&config).expect("no connection yet");
        cluster.directory.learn(vec![Broker { node: 0, host: "127.0.0.1".to_owned(), port }]);
        (listener, cluster)
    }

    #[tokio::test]
    async fn a_broker_that_does_not_answer_is_given_up() {
        let (listener, mut cluster) = cluster().await;
        cluster.broker(0).await.expect("a connection");
        let (silent, _) = listener.accept().await.expect("a connection");
        // Hours pass at once from here on.
        tokio::time::pause();
        let at = Partition {
            topic: "t".to_owned(),
            topic_id: [1; 16],
            partition: 0,
            replicas: 1,
            leader: 0,
        };
        let asked = tokio::time::timeout(ANSWER * 10, cluster.log_end(&at)).await;
        let error = asked.expect("it is given up").expect_err("no answer");
        assert!(error.to_string().contains("does not answer"), "{error}");
        assert!(cluster.brokers.is_empty(), "the connection is used again");
        drop(silent);
    }

    #[tokio::test]
    async fn a_batch_as_long_as_any_that_is_written_is_read() {
        let (listener, mut cluster) = cluster().await;
        let broker = cluster.broker(0).await.expect("a connection");
        let (mut answering, _) = listener.accept().await.expect("a connection");
        let fetched = usize::try_from(FETCH_BYTES).expect("a number");
        for (bytes, is_read) in [(BATCH_BYTES_MAX + fetched, true), (usize::MAX >> 33, false)] {
            let length = i32::try_from(bytes).expect("a length").to_be_bytes();
            answering.write_all(&length).await.expect("written");
            assert_eq!(broker.answer_bytes().await.ok().is_some(), is_read, "{bytes} bytes");
        }
    }
}
