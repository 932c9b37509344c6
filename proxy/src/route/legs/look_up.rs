//! What brokers know of producers, asked of the leaders of physical partitions.
//!
//! leaders anew -> DescribeProducers -> log ends -> high watermarks. The last two name the leader's
//! epoch, so a broker that led before does not answer for the one that leads now.
//! Invariants: a partition whose leader did not answer all three is missing from the result, and
//! so is a sealed one whose log end and high watermark are not both the sealed length.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, DescribeProducersRequest, DescribeProducersResponse, ListOffsetsRequest,
    ListOffsetsResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use protocol_ext::ees::{Position, StreamId};
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::{Leg, Legs, Ways, encoded};
use crate::fault;
use crate::route::topics::Leader;

/// A physical partition.
pub(super) type Place = (Arc<str>, i32);

/// A physical partition to look at, and how many records it has if it is sealed.
pub(super) type Asked = (Place, Option<i64>);

/// What the leader of a physical partition knows.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The last batch of each block of each stream, and its records.
    pub rows: Vec<(StreamId, Position, u32)>,
    /// All of it is replicated.
    pub committed: bool,
}

/// Version of ListOffsets: names the leader's epoch (KIP-320), not flexible.
const OFFSETS_VERSION: i16 = 5;
/// Asks for the log end instead of the high watermark, as replicas do.
const DEBUGGING_REPLICA: i32 = -2;
const LATEST: i64 = -1;
/// How often and after which pause the high watermark is asked for until it reaches the log end.
const WATERMARKS_MAX: u32 = 8;
const WATERMARK_PAUSE: Duration = Duration::from_millis(25);

type Led = BTreeMap<i32, Vec<(Place, Leader)>>;

impl Legs {
    /// Looks at all of these.
    pub(super) async fn look_up(
        &mut self,
        ways: Ways<'_>,
        asked: &[Asked],
    ) -> Result<HashMap<Place, Found>, WireError> {
        let places = || asked.iter().map(|(place, _)| place);
        let mut topics: Vec<&str> = places().map(|(topic, _)| &**topic).collect();
        topics.sort_unstable();
        topics.dedup();
        ways.topics.ask_leaders(&topics).await;
        let mut led = Led::new();
        for (topic, partition) in places() {
            if let Some(leader) = ways.topics.leader(topic, *partition) {
                led.entry(leader.node).or_default().push(((topic.clone(), *partition), leader));
            }
        }
        let mut found = self.rows(ways, &led).await?;
        let ends = self.offsets(ways, &led, DEBUGGING_REPLICA).await?;
        for tries in 1..=WATERMARKS_MAX {
            let marks = self.offsets(ways, &led, -1).await?;
            // A leader that is not one any more answered the first question at most.
            found.retain(|place, _| ends.contains_key(place) && marks.contains_key(place));
            for (place, found) in &mut found {
                found.committed |= marks.get(place) >= ends.get(place);
            }
            if tries == WATERMARKS_MAX || found.values().all(|found| found.committed) {
                break;
            }
            tokio::time::sleep(WATERMARK_PAUSE).await;
        }
        for (place, length) in asked {
            let whole = length.is_none_or(|n| {
                let end = ends.get(place).copied();
                end == Some(n) && found.get(place).is_some_and(|found| found.committed)
            });
            if !whole && !fault::on("sealed-length-unchecked") {
                found.remove(place);
            }
        }
        Ok(found)
    }

    async fn rows(
        &mut self,
        ways: Ways<'_>,
        led: &Led,
    ) -> Result<HashMap<Place, Found>, WireError> {
        let request = |places: &[(Place, Leader)]| {
            let topics = places.iter().map(|((topic, partition), _)| {
                TopicRequest::default()
                    .with_name(name(topic))
                    .with_partition_indexes(vec![*partition])
            });
            let body = DescribeProducersRequest::default().with_topics(topics.collect());
            encoded(api::DESCRIBE_PRODUCERS, 0, &body)
        };
        let mut all = HashMap::new();
        let answers = self
            .questions::<DescribeProducersResponse>(ways, led, api::DESCRIBE_PRODUCERS, 0, request)
            .await?;
        for (places, answer) in answers {
            for (place, _) in places {
                let topics = answer.topics.iter().filter(|topic| *topic.name.0 == *place.0);
                let mut rows = topics.flat_map(|topic| &topic.partitions);
                let row = rows.find(|row| row.partition_index == place.1 && row.error_code == 0);
                let Some(row) = row else { continue };
                let rows = row.active_producers.iter().filter_map(|producer| {
                    let id = producer.producer_id.0;
                    let (stream, at) = StreamId::read(id, producer.producer_epoch)?;
                    let records = u32::try_from(producer.last_sequence).ok()?.checked_add(1)?;
                    Some((stream, at, records))
                });
                all.insert(place.clone(), Found { rows: rows.collect(), committed: false });
            }
        }
        Ok(all)
    }

    async fn offsets(
        &mut self,
        ways: Ways<'_>,
        led: &Led,
        replica: i32,
    ) -> Result<HashMap<Place, i64>, WireError> {
        let request = |places: &[(Place, Leader)]| {
            let topics = places.iter().map(|((topic, partition), leader)| {
                let partition = ListOffsetsPartition::default()
                    .with_partition_index(*partition)
                    .with_current_leader_epoch(leader.epoch)
                    .with_timestamp(LATEST);
                ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition])
            });
            let body = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(replica))
                .with_topics(topics.collect());
            encoded(api::LIST_OFFSETS, OFFSETS_VERSION, &body)
        };
        let (key, version) = (api::LIST_OFFSETS, OFFSETS_VERSION);
        let answers =
            self.questions::<ListOffsetsResponse>(ways, led, key, version, request).await?;
        let mut all = HashMap::new();
        for (places, answer) in answers {
            for (place, _) in places {
                let topics = answer.topics.iter().filter(|topic| *topic.name.0 == *place.0);
                let mut rows = topics.flat_map(|topic| &topic.partitions);
                let row = rows.find(|row| row.partition_index == place.1 && row.error_code == 0);
                if let Some(row) = row {
                    all.insert(place.clone(), row.offset);
                }
            }
        }
        Ok(all)
    }

    /// Asks each leader about its places; those that do not answer are left out.
    async fn questions<'a, A: Decodable>(
        &mut self,
        ways: Ways<'_>,
        led: &'a Led,
        key: i16,
        version: i16,
        request: impl Fn(&[(Place, Leader)]) -> Result<Bytes, WireError>,
    ) -> Result<Vec<(&'a [(Place, Leader)], A)>, WireError> {
        let mut legs = Vec::with_capacity(led.len());
        for (node, places) in led {
            let (node, limit) = (*node, ways.limits.connect);
            legs.push(Leg { node, key, version, body: vec![request(places)?], limit });
        }
        let ran = self.run(ways, legs).await;
        let answers = led.values().zip(ran.answers).filter_map(|(places, ran)| {
            let answer = guard::response(key, version, &ran.ok()?, 0).ok()?;
            Some((places.as_slice(), answer))
        });
        Ok(answers.collect())
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
