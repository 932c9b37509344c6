//! Writes the placement log: a transactional producer with a fixed id, so that brokers fence
//! whoever wrote before.
//!
//! take over (InitProducerId) -> write: AddPartitionsToTxn, one batch, EndTxn. Invariant: what is
//! written together is one batch of one transaction; after any failure a writer is used no more,
//! since nobody knows what became of its last transaction but the log.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
    ProduceRequest, ProduceResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;
use protocol_ext::batch::{self, BatchHeader};
use protocol_ext::codec::Framing;
use protocol_ext::varint::{write_varint, write_varlong};

use super::ask::{connect, name};
use super::record::Key;
use super::tail::{self, in_time};
use crate::clock;
use crate::data_plane::DataPlane;
use crate::fault;
use crate::route::virtual_topics::{PLACEMENT_TOPIC, PLACEMENT_WRITER};
use crate::upstream::BrokerConnection;

/// Brokers give up a transaction after this.
const TRANSACTION_MS: i32 = 10_000;
/// How often something is asked again that will be answered soon, and after which pause.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
const TRANSACTION: i8 = 1;
/// Attribute of batches of transactions.
const TRANSACTIONAL: i16 = 1 << 4;

/// Why something was not written, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else has taken over.
    #[error("another process leads")]
    Fenced,
    /// It may have been written.
    #[error(transparent)]
    Unknown(#[from] io::Error),
}

/// One who may write.
#[derive(Debug)]
pub struct Writer {
    id: i64,
    epoch: i16,
    sequence: i32,
    coordinator: BrokerConnection,
    log: Option<BrokerConnection>,
}

/// What to do about an error code.
fn judged(code: i16) -> Result<bool, WriteError> {
    match code {
        0 => Ok(true),
        // The coordinator moves or loads, or is still busy with the transaction before; the log's
        // leader moves.
        3 | 5 | 6 | 7 | 14 | 15 | 16 | 19 | 20 | 51 => Ok(false),
        47 | 49 | 90 => Err(WriteError::Fenced),
        code => Err(io::Error::other(format!("error {code}")).into()),
    }
}

impl Writer {
    /// Takes over: whoever wrote before is fenced, and what they left open comes to nothing.
    pub async fn take_over(plane: &DataPlane) -> Result<Self, WriteError> {
        for _ in 0..TRIES {
            if let Some(writer) = Self::try_to_take_over(plane).await? {
                return Ok(writer);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    async fn try_to_take_over(plane: &DataPlane) -> Result<Option<Self>, WriteError> {
        let mut any = connect(plane, None).await?;
        let request = FindCoordinatorRequest::default()
            .with_key(StrBytes::from_static_str(PLACEMENT_WRITER))
            .with_key_type(TRANSACTION);
        let found: FindCoordinatorResponse =
            in_time(any.call(api::FIND_COORDINATOR, 3, &request)).await?;
        if !judged(found.error_code)? {
            return Ok(None);
        }
        let mut coordinator = connect(plane, Some(found.node_id.0)).await?;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id()))
            .with_transaction_timeout_ms(TRANSACTION_MS)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let given: InitProducerIdResponse =
            in_time(coordinator.call(api::INIT_PRODUCER_ID, 4, &request)).await?;
        let (id, epoch) = (given.producer_id.0, given.producer_epoch);
        let writer = Self { id, epoch, sequence: 0, coordinator, log: None };
        Ok(judged(given.error_code)?.then_some(writer))
    }

    /// Writes records together; those without a value take back what their key said.
    pub async fn write(
        &mut self,
        plane: &DataPlane,
        records: &[(Key, Option<String>)],
    ) -> Result<(), WriteError> {
        self.begin().await?;
        let batch = self.batch(records).map_err(io::Error::other)?;
        self.append(plane, batch).await?;
        if !fault::on("placement-uncommitted") {
            self.end().await?;
        }
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        self.sequence = self.sequence.wrapping_add(count) & i32::MAX;
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), WriteError> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name(PLACEMENT_TOPIC))
            .with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id())
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        for _ in 0..TRIES {
            let call = self.coordinator.call(api::ADD_PARTITIONS_TO_TXN, 3, &request);
            let answer: AddPartitionsToTxnResponse = in_time(call).await?;
            let rows = answer.results_by_topic_v3_and_below.iter();
            let mut rows = rows.flat_map(|topic| &topic.results_by_partition);
            if judged(rows.next().map_or(-1, |row| row.partition_error_code))? {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    async fn append(&mut self, plane: &DataPlane, batch: Bytes) -> Result<(), WriteError> {
        let data = PartitionProduceData::default().with_records(Some(batch));
        let data = TopicProduceData::default()
            .with_name(name(PLACEMENT_TOPIC))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(transactional_id()))
            .with_acks(-1)
            .with_timeout_ms(TRANSACTION_MS / 2)
            .with_topic_data(vec![data]);
        for _ in 0..TRIES {
            let mut log = match self.log.take() {
                Some(log) => log,
                None => tail::connect(plane).await?,
            };
            let call = log.call(api::PRODUCE, 9, &request);
            let answer: ProduceResponse = in_time(call).await?;
            let mut rows = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
            if judged(rows.next().map_or(-1, |row| row.error_code))? {
                self.log = Some(log);
                return Ok(());
            }
            plane.topics.doubt(PLACEMENT_TOPIC);
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    async fn end(&mut self) -> Result<(), WriteError> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(true);
        for _ in 0..TRIES {
            let call = self.coordinator.call(api::END_TXN, 3, &request);
            let answer: EndTxnResponse = in_time(call).await?;
            if judged(answer.error_code)? {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    fn batch(&self, records: &[(Key, Option<String>)]) -> Result<Bytes, batch::BatchError> {
        let now = i64::try_from(clock::unix_ms()).unwrap_or(0);
        let mut body = Vec::new();
        for (delta, (key, value)) in (0..).zip(records) {
            let mut fields = vec![0];
            write_varlong(&mut fields, 0);
            write_varint(&mut fields, delta);
            for bytes in [Some(key.to_string()), value.clone()] {
                match bytes {
                    None => write_varint(&mut fields, -1),
                    Some(bytes) => {
                        write_varint(&mut fields, i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                        fields.extend_from_slice(bytes.as_bytes());
                    }
                }
            }
            write_varint(&mut fields, 0);
            write_varint(&mut body, i32::try_from(fields.len()).unwrap_or(i32::MAX));
            body.extend_from_slice(&fields);
        }
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: TRANSACTIONAL,
            last_offset_delta: count - 1,
            base_timestamp: now,
            max_timestamp: now,
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            records_count: count,
        };
        batch::build(header, Framing::Plain, &body)
    }
}

fn transactional_id() -> TransactionalId {
    if fault::on("writers-apart") {
        let own = format!("{PLACEMENT_WRITER}-{}", std::process::id());
        return TransactionalId(StrBytes::from_string(own));
    }
    TransactionalId(StrBytes::from_static_str(PLACEMENT_WRITER))
}
