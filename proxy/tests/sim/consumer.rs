//! Consumers: read partitions from their leaders, batch by batch.

use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};

use crate::connection::Lost;
use crate::ledger::Reading;
use crate::records;
use crate::topology::{Client, topic_name};
use crate::world::{Phase, World};

const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
/// First versions that name topics by id, and that have no replica id.
const WITH_IDS: i16 = 13;
const WITHOUT_REPLICA: i16 = 15;
/// Codes after which a client looks for the leader again, or asks once more.
const AGAIN: [i16; 8] = [3, 5, 6, 7, 56, 74, 76, 100];
const LATEST: i64 = -1;

/// A topic to read, and whether producers' partitions are not the ones read.
pub type Topic = (String, bool);

/// Reads while there is trouble.
pub async fn follow(world: Rc<World>, name: String, topics: Vec<Topic>) {
    let reader = Reader::new(&world, &name, topics);
    let mut reading = Reading::default();
    reader.learn().await;
    while world.phase.get() < Phase::Finish {
        let (topic, split) = reader.topics[world.below(reader.topics.len())].clone();
        let partitions = usize::try_from(reader.client.partitions(&topic)).expect("few");
        let partition = i32::try_from(world.below(partitions)).expect("few");
        match reader.read(&mut reading, (&topic, partition, split)).await {
            Ok(0) => tokio::time::sleep(world.rest(20, 200)).await,
            Ok(_) => {}
            Err(Lost) => {
                reader.learn().await;
                tokio::time::sleep(Duration::from_millis(50) * world.slow.get()).await;
            }
        }
    }
    reader.client.close_all();
}

/// Reads everything once nobody writes, and compares.
pub async fn read_all(world: Rc<World>, topics: Vec<Topic>) {
    world.until(Phase::Read).await;
    let reader = Reader::new(&world, "r0", topics);
    let mut reading = Reading::default();
    reader.learn().await;
    for (topic, split) in &reader.topics {
        for partition in 0..reader.client.partitions(topic) {
            let end = reader.end(topic, partition).await;
            while reading.next(topic, partition) < end {
                if let Err(Lost) = reader.read(&mut reading, (topic, partition, *split)).await {
                    reader.learn().await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            world.count("partitions read to their ends");
        }
    }
    reading.check_complete(&world);
    reader.client.close_all();
    world.busy.set(world.busy.get() - 1);
}

struct Reader {
    client: Client,
    topics: Vec<Topic>,
}

impl Reader {
    fn new(world: &Rc<World>, name: &str, topics: Vec<Topic>) -> Self {
        Self { client: Client::new(world, name), topics }
    }

    async fn learn(&self) {
        let topics: Vec<String> = self.topics.iter().map(|(topic, _)| topic.clone()).collect();
        self.client.learn(&topics).await;
    }

    /// Reads once from a partition; gives the bytes of records that came.
    async fn read(
        &self,
        reading: &mut Reading,
        (topic, partition, split): (&str, i32, bool),
    ) -> Result<usize, Lost> {
        let world = &self.client.world;
        let node = self.client.leader(topic, partition).ok_or(Lost)?;
        let open = self.client.to_node(node).await?;
        let version = i16::try_from(world.between(11, 16)).expect("small");
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(reading.next(topic, partition))
            .with_partition_max_bytes(i32::try_from(world.between(100, 60_000)).expect("small"));
        let asked = FetchTopic::default().with_partitions(vec![asked]);
        let asked = match self.client.id(topic) {
            Some(id) if version >= WITH_IDS => asked.with_topic_id(id),
            _ => asked.with_topic(topic_name(topic)),
        };
        let request = FetchRequest::default().with_max_wait_ms(100).with_max_bytes(1 << 20);
        let request = request.with_topics(vec![asked]);
        let request = match version {
            WITHOUT_REPLICA.. => request,
            _ => request.with_replica_id((-1).into()),
        };
        let answer: FetchResponse = open.call(FETCH, version, &request).await?;
        for node in &answer.node_endpoints {
            self.client.check_place(node.node_id.0, &node.host, node.port, "Fetch");
        }
        let row = answer.responses.first().and_then(|topic| topic.partitions.first());
        let Some(row) = row.filter(|row| row.partition_index == partition) else {
            world.violate(format!("an answer of Fetch says nothing of {topic}-{partition}"));
            return Err(Lost);
        };
        match row.error_code {
            0 => {}
            code if AGAIN.contains(&code) => {
                self.client.forget(topic, partition);
                return Err(Lost);
            }
            code => {
                world.violate(format!("error {code} for a Fetch from {topic}-{partition}"));
                return Err(Lost);
            }
        }
        let section = row.records.clone().unwrap_or_default();
        match records::read(&section) {
            Ok(records) => reading.take(world, (topic, partition, split), &records),
            Err(why) => world.violate(format!("{topic}-{partition}: {why}")),
        }
        Ok(section.len())
    }

    /// The end of a partition.
    async fn end(&self, topic: &str, partition: i32) -> i64 {
        loop {
            if let Ok(Some(end)) = self.ask_end(topic, partition).await {
                return end;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.learn().await;
        }
    }

    async fn ask_end(&self, topic: &str, partition: i32) -> Result<Option<i64>, Lost> {
        let node = self.client.leader(topic, partition).ok_or(Lost)?;
        let open = self.client.to_node(node).await?;
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(LATEST);
        let asked =
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
        let request =
            ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
        let answer: ListOffsetsResponse = open.call(LIST_OFFSETS, 7, &request).await?;
        let row = answer.topics.first().and_then(|topic| topic.partitions.first());
        Ok(row.filter(|row| row.error_code == 0).map(|row| row.offset))
    }
}
