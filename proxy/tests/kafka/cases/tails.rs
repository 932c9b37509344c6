//! KIP-951: a broker that no longer leads a partition names the new leader and its address at the
//! end of its answer. Raw requests to the old leader provoke that every time.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::initialize_share_group_state_request::{
    InitializeStateData, PartitionData as InitialState,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::read_share_group_state_request::{
    PartitionData as ReadState, ReadStateData,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, FindCoordinatorRequest, GroupId,
    InitializeShareGroupStateRequest, ProduceRequest, ProduceResponse, ReadShareGroupStateRequest,
    ResponseHeader, ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest,
    ShareFetchResponse, share_acknowledge_request, share_fetch_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use serde_json::{Value, json};
use uuid::Uuid;

use super::expect;
use crate::raw::{self, Raw};
use crate::rig::{Place, Rig};
use crate::{batch, leak};

/// Produce and Fetch to the old leader, in every version that has a tail.
pub fn stale_leader(rig: &mut Rig) {
    let offered = rig.proxied();
    let produce = tailed(raw::versions(&offered, ApiKey::Produce).unwrap(), 10);
    let fetch = tailed(raw::versions(&offered, ApiKey::Fetch).unwrap(), 16);
    assert!(!produce.is_empty() && !fetch.is_empty(), "no version with a tail is offered");
    rig.compare("tails of Produce and Fetch", 0, |rig, place| {
        let topic = Topic::moved(rig, place);
        let mut outcome = Vec::new();
        for version in &produce {
            outcome.push(json!([
                format!("Produce v{version}"),
                stale_produce(place, &topic, *version)
            ]));
        }
        for version in &fetch {
            outcome
                .push(json!([format!("Fetch v{version}"), stale_fetch(place, &topic, *version)]));
        }
        json!(outcome)
    });
}

/// A tail behind more bytes than anybody holds: the address may be left out, the records may not
/// change.
pub fn tail_behind_many_bytes(rig: &mut Rig) {
    let newest = *raw::versions(&rig.proxied(), ApiKey::Fetch).unwrap().end();
    rig.compare("a tail behind 20 MB", 0, |rig, place| {
        let full = Topic::new(rig, place);
        let stale = Topic::moved(rig, place);
        let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
        let value = "0123456789abcdef".repeat(20 << 16);
        let records = Bytes::from(batch::records(&[&value]));
        write(&mut broker, &full, &records);
        let topics = [&full, &stale].map(|topic| {
            let partition = FetchPartition::default().with_partition_max_bytes(32 << 20);
            let partition = partition.with_current_leader_epoch(0);
            FetchTopic::default().with_topic_id(topic.id).with_partitions(vec![partition])
        });
        let request = FetchRequest::default().with_max_wait_ms(10).with_max_bytes(64 << 20);
        let request = request.with_session_epoch(-1).with_topics(topics.to_vec());
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answer: FetchResponse = broker.call(newest, &request).unwrap();
            let errors: Vec<i16> =
                answer.responses.iter().map(|t| t.partitions[0].error_code).collect();
            let read = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
            // The broker sets the leader epoch, outside what the checksum covers.
            let whole = read.len() == records.len() && read[16..] == records[16..];
            if errors == [0, FENCED] && whole {
                return json!(errors);
            }
            assert!(
                Instant::now() < until,
                "{errors:?}, {} bytes of {}",
                read.len(),
                records.len()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

fn write(broker: &mut Raw, topic: &Topic, records: &Bytes) {
    let data = PartitionProduceData::default().with_records(Some(records.clone()));
    let of_topic = TopicProduceData::default().with_name(raw::topic(&topic.name));
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000);
    let request = request.with_topic_data(vec![of_topic.with_partition_data(vec![data])]);
    let answer: ProduceResponse = broker.call(9, &request).unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

pub fn share_groups_there(rig: &Rig) -> bool {
    !raw::versions(&rig.cluster.address(1), ApiKey::ShareFetch).unwrap().is_empty()
}

/// ShareFetch to the old leader; ShareAcknowledge to a leader that another one has fenced.
pub fn stale_share_partition(rig: &mut Rig) {
    let offered = rig.proxied();
    let fetch: Vec<i16> = raw::versions(&offered, ApiKey::ShareFetch).unwrap().collect();
    let acknowledge: Vec<i16> =
        raw::versions(&offered, ApiKey::ShareAcknowledge).unwrap().collect();
    assert!(!fetch.is_empty() && !acknowledge.is_empty(), "share APIs are not offered");
    rig.compare("tails of ShareFetch and ShareAcknowledge", 0, |rig, place| {
        let mut outcome = Vec::new();
        for version in &acknowledge {
            let tail = fenced_acknowledge(rig, place, *version);
            outcome.push(json!([format!("ShareAcknowledge v{version}"), tail]));
        }
        let topic = Topic::moved(rig, place);
        for version in &fetch {
            let tail = stale_share_fetch(place, &topic, *version);
            outcome.push(json!([format!("ShareFetch v{version}"), tail]));
        }
        json!(outcome)
    });
}

fn tailed(versions: std::ops::RangeInclusive<i16>, first: i16) -> Vec<i16> {
    versions.filter(|version| *version >= first).collect()
}

/// A topic of one partition that is led by broker 1, or was.
pub struct Topic {
    name: String,
    id: Uuid,
}

impl Topic {
    fn new(rig: &mut Rig, place: &Place) -> Self {
        let name = format!("{}-{}", place.topic, Uuid::new_v4().simple());
        let id = Uuid::parse_str(&rig.create_topic(&name, 1)).unwrap();
        Self { name, id }
    }

    /// Led by broker 2 after broker 1, which the brokers have heard of.
    pub fn moved(rig: &mut Rig, place: &Place) -> Self {
        let topic = Self::new(rig, place);
        let bootstrap = rig.cluster.bootstrap();
        let mut moved = json!({"bootstrap": bootstrap, "topic": topic.name, "partition": 0});
        moved["replicas"] = json!([2, 3, 1]);
        rig.java.must("move-leader", moved);
        topic
    }
}

/// Asks until the old leader refuses: it hears of the move a moment later than the others.
fn until_refused(mut ask: impl FnMut() -> Value) -> Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask();
        if answer["error"] == NOT_LEADER || answer["error"] == FENCED {
            assert_ne!(answer["endpoints"], json!([]), "refused, without naming the leader");
            return answer;
        }
        assert!(Instant::now() < until, "the old leader still answers {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The error, the leader and the endpoints of an answer, for any of the four APIs.
macro_rules! tail {
    ($partition:expr, $error:expr, $answer:expr, $plain:expr) => {{
        let endpoints = $answer.node_endpoints.iter();
        let endpoints =
            endpoints.map(|e| json!([$plain(&e.node_id), format!("{}:{}", e.host, e.port)]));
        let endpoints: Vec<Value> = endpoints.collect();
        let leader = $plain(&$partition.current_leader.leader_id);
        json!({"error": $error, "leader": leader, "endpoints": endpoints})
    }};
}

pub fn stale_produce(place: &Place, topic: &Topic, version: i16) -> Value {
    let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
    until_refused(|| {
        let records = Bytes::from(batch::records(&["stale"]));
        let data = PartitionProduceData::default().with_records(Some(records));
        let mut of_topic = TopicProduceData::default().with_partition_data(vec![data]);
        if version < 13 {
            of_topic = of_topic.with_name(raw::topic(&topic.name));
        } else {
            of_topic = of_topic.with_topic_id(topic.id);
        }
        let request = ProduceRequest::default().with_acks(1).with_timeout_ms(5_000);
        let answer: ProduceResponse =
            broker.call(version, &request.with_topic_data(vec![of_topic])).unwrap();
        let partition = &answer.responses[0].partition_responses[0];
        tail!(partition, partition.error_code, answer, |id: &BrokerId| id.0)
    })
}

pub fn stale_fetch(place: &Place, topic: &Topic, version: i16) -> Value {
    let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
    until_refused(|| {
        // A follower answers consumers too (KIP-392); it refuses the epoch of its own leadership.
        let partition = FetchPartition::default().with_current_leader_epoch(0);
        let partition = partition.with_partition_max_bytes(1 << 20);
        let of_topic =
            FetchTopic::default().with_topic_id(topic.id).with_partitions(vec![partition]);
        let request = FetchRequest::default().with_max_wait_ms(10).with_max_bytes(1 << 20);
        let request = request.with_session_epoch(-1).with_topics(vec![of_topic]);
        let answer: FetchResponse = broker.call(version, &request).unwrap();
        let partition = &answer.responses[0].partitions[0];
        tail!(partition, partition.error_code, answer, |id: &BrokerId| id.0)
    })
}

pub fn stale_share_fetch(place: &Place, topic: &Topic, version: i16) -> Value {
    let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
    let member = Member::new(place, topic);
    until_refused(|| {
        let answer = member.fetch(&mut broker, version, 0);
        let partition = &answer.responses[0].partitions[0];
        tail!(partition, partition.error_code, answer, |id: &i32| *id)
    })
}

/// A member takes a record; then the share coordinator hears of a newer leader; the acknowledgement
/// is refused with the address of the leader the broker knows: itself.
pub fn fenced_acknowledge(rig: &mut Rig, place: &Place, version: i16) -> Value {
    let topic = Topic::new(rig, place);
    let member = Member::new(place, &topic);
    let coordinator = member.start_at_the_first_record(rig);
    let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
    write(&mut broker, &topic, &Bytes::from(batch::records(&["one"])));
    let mut epoch = 0;
    let until = Instant::now() + Duration::from_secs(20);
    while member
        .fetch(&mut broker, 1, epoch)
        .responses
        .iter()
        .all(|topic| topic.partitions[0].acquired_records.is_empty())
    {
        epoch += 1;
        assert!(Instant::now() < until, "no record acquired");
    }
    member.fence(&coordinator);
    let answer = member.acknowledge(&mut broker, version, epoch + 1);
    let partition = &answer.responses[0].partitions[0];
    let outcome = tail!(partition, partition.error_code, answer, |id: &i32| *id);
    expect(&outcome, "/error", NOT_LEADER);
    assert_ne!(outcome["endpoints"], json!([]));
    outcome
}

/// A member of a share group, by hand.
struct Member {
    group: String,
    id: String,
    topic: Uuid,
}

impl Member {
    fn new(place: &Place, topic: &Topic) -> Self {
        let group = format!("{}-{}", place.topic, Uuid::new_v4().simple());
        // Kafka writes UUIDs in base64; 16 letters after "AAAAAA" are one too, and random enough.
        let id = format!("AAAAAA{}", &Uuid::new_v4().simple().to_string()[..16]);
        Self { group, id, topic: topic.id }
    }

    fn group(&self) -> StrBytes {
        StrBytes::from_string(self.group.clone())
    }

    /// Makes the group's state, as the group coordinator does when a member joins. Returns the
    /// share coordinator.
    fn start_at_the_first_record(&self, rig: &Rig) -> String {
        let coordinator = self.coordinator(rig);
        let state = InitialState::default().with_state_epoch(1).with_start_offset(0);
        let of_topic =
            InitializeStateData::default().with_topic_id(self.topic).with_partitions(vec![state]);
        let request = InitializeShareGroupStateRequest::default().with_group_id(self.group());
        let request = request.with_topics(vec![of_topic]);
        // The coordinator may hear of the topic a moment later than the broker that made it.
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = Raw::connect(&coordinator).unwrap().call(0, &request).unwrap();
            if answer.results[0].partitions[0].error_code == 0 {
                return coordinator;
            }
            assert!(Instant::now() < until, "{answer:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn coordinator(&self, rig: &Rig) -> String {
        let key = format!("{}:{}:0", self.group, kafka_uuid(self.topic));
        let request = FindCoordinatorRequest::default().with_key_type(2);
        let request = request.with_coordinator_keys(vec![StrBytes::from_string(key)]);
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let mut broker = Raw::connect(&rig.cluster.address(1)).unwrap();
            let answer = broker.call(6, &request).unwrap();
            let found = &answer.coordinators[0];
            if found.error_code == 0 {
                return format!("{}:{}", found.host.as_str(), found.port);
            }
            assert!(Instant::now() < until, "no share coordinator: {found:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Tells the share coordinator of a leader epoch far ahead.
    fn fence(&self, coordinator: &str) {
        let state = ReadState::default().with_leader_epoch(1_000);
        let of_topic =
            ReadStateData::default().with_topic_id(self.topic).with_partitions(vec![state]);
        let request = ReadShareGroupStateRequest::default().with_group_id(self.group());
        let request = request.with_topics(vec![of_topic]);
        let answer = Raw::connect(coordinator).unwrap().call(0, &request).unwrap();
        assert_eq!(answer.results[0].partitions[0].error_code, 0, "{answer:?}");
    }

    /// Version 2 has two more bytes, after the fields of fixed size.
    fn fetch(&self, broker: &mut Raw, version: i16, epoch: i32) -> ShareFetchResponse {
        let partition = share_fetch_request::FetchPartition::default();
        let topic = share_fetch_request::FetchTopic::default().with_topic_id(self.topic);
        let request = ShareFetchRequest::default()
            .with_group_id(Some(GroupId(self.group())))
            .with_member_id(Some(StrBytes::from_string(self.id.clone())))
            .with_share_session_epoch(epoch)
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_records(10)
            .with_batch_size(10)
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        let mut body = BytesMut::new();
        request.encode(&mut body, 1).unwrap();
        let fixed = self.ids_length() + 6 * 4;
        let body = if version == 2 { with_zeros(&body, fixed, 2) } else { body.to_vec() };
        broker.send(ApiKey::ShareFetch as i16, version, 2, &body).unwrap();
        decode(&broker.receive().unwrap())
    }

    /// Version 2 has one more byte, after the epoch; its answer four more.
    fn acknowledge(&self, broker: &mut Raw, version: i16, epoch: i32) -> ShareAcknowledgeResponse {
        let batch = share_acknowledge_request::AcknowledgementBatch::default()
            .with_acknowledge_types(vec![1]);
        let partition = share_acknowledge_request::AcknowledgePartition::default();
        let partition = partition.with_acknowledgement_batches(vec![batch]);
        let topic =
            share_acknowledge_request::AcknowledgeTopic::default().with_topic_id(self.topic);
        let request = ShareAcknowledgeRequest::default()
            .with_group_id(Some(GroupId(self.group())))
            .with_member_id(Some(StrBytes::from_string(self.id.clone())))
            .with_share_session_epoch(epoch)
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        let mut body = BytesMut::new();
        request.encode(&mut body, 1).unwrap();
        let fixed = self.ids_length() + 4;
        let body = if version == 2 { with_zeros(&body, fixed, 1) } else { body.to_vec() };
        broker.send(ApiKey::ShareAcknowledge as i16, version, 2, &body).unwrap();
        let answer = broker.receive().unwrap();
        if version == 2 { decode(&leak::without_lock_time(&answer)) } else { decode(&answer) }
    }

    /// Both are compact strings of less than 127 bytes.
    fn ids_length(&self) -> usize {
        1 + self.group.len() + 1 + self.id.len()
    }
}

fn with_zeros(body: &[u8], at: usize, count: usize) -> Vec<u8> {
    [&body[..at], &vec![0; count], &body[at..]].concat()
}

/// An answer of version 1.
fn decode<T: Decodable>(frame: &[u8]) -> T {
    let mut bytes = Bytes::copy_from_slice(frame);
    ResponseHeader::decode(&mut bytes, 1).unwrap();
    T::decode(&mut bytes, 1).unwrap()
}

/// As Kafka writes a UUID: base64 for URLs, unpadded.
fn kafka_uuid(id: Uuid) -> String {
    let bits = id.as_u128();
    (0..22)
        .map(|digit| {
            // 22 digits of 6 bits are 4 bits more than 128: the last digit holds two.
            let value = if digit < 21 { bits >> (122 - 6 * digit) } else { bits << 4 };
            let index = usize::try_from(value & 63).unwrap();
            char::from(BASE64[index])
        })
        .collect()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const NOT_LEADER: i16 = 6;
const FENCED: i16 = 74;
