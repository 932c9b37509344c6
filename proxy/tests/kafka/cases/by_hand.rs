//! Old and odd clients, by hand: every version of Produce and Fetch, message sets of before 0.11,
//! acks=0, pipelining, versions nobody knows. Answers are compared byte for byte.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest,
    ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::expect;
use crate::batch;
use crate::raw::{self, Raw};
use crate::rig::{Place, Rig, tell};

/// A batch written in each version and with each acks, then read in each version.
pub fn produce_and_fetch_in_every_version(rig: &mut Rig) {
    let broker = rig.cluster.address(1);
    let produce = raw::versions(&broker, ApiKey::Produce).unwrap();
    let fetch = raw::versions(&broker, ApiKey::Fetch).unwrap();
    rig.compare("Produce and Fetch in every version", 0, |rig, place| {
        let id = Uuid::parse_str(&rig.create_topic(&place.topic, 1)).unwrap();
        let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
        let mut outcome = Vec::new();
        for version in produce.clone() {
            for acks in [1, -1] {
                let answer = write(&mut broker, place, id, version, acks);
                expect(&answer, "/0/error", 0);
                outcome.push(json!([format!("Produce v{version} acks={acks}"), answer]));
            }
        }
        let count = outcome.len();
        for version in fetch.clone() {
            let mut answer = read(&mut broker, place, id, version);
            while answer["high watermark"] != count * VALUES.len() {
                std::thread::sleep(Duration::from_millis(20));
                answer = read(&mut broker, place, id, version);
            }
            assert_eq!(answer["bytes"], count * batch::records(VALUES).len(), "Fetch v{version}");
            outcome.push(json!([format!("Fetch v{version}"), answer]));
        }
        json!(outcome)
    });
}

fn write(broker: &mut Raw, place: &Place, id: Uuid, version: i16, acks: i16) -> Value {
    let answer: ProduceResponse = broker.call(version, &produce(place, id, version, acks)).unwrap();
    let partitions = answer.responses[0].partition_responses.iter();
    partitions
        .map(|p| json!({"error": p.error_code, "base": p.base_offset, "start": p.log_start_offset}))
        .collect()
}

fn produce(place: &Place, id: Uuid, version: i16, acks: i16) -> ProduceRequest {
    let records = Bytes::from(batch::records(VALUES));
    let data = PartitionProduceData::default().with_records(Some(records));
    let mut topic = TopicProduceData::default().with_partition_data(vec![data]);
    if version < 13 {
        topic = topic.with_name(raw::topic(&place.topic));
    } else {
        topic = topic.with_topic_id(id);
    }
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5_000).with_topic_data(vec![topic])
}

fn read(broker: &mut Raw, place: &Place, id: Uuid, version: i16) -> Value {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let mut topic = FetchTopic::default().with_partitions(vec![partition]);
    if version < 13 {
        topic = topic.with_topic(raw::topic(&place.topic));
    } else {
        topic = topic.with_topic_id(id);
    }
    let mut request = FetchRequest::default().with_max_wait_ms(100).with_max_bytes(1 << 20);
    if version > 6 {
        request = request.with_session_epoch(-1);
    }
    let answer: FetchResponse = broker.call(version, &request.with_topics(vec![topic])).unwrap();
    let partition = &answer.responses[0].partitions[0];
    let records = partition.records.clone().unwrap_or_default();
    json!({
        "error": partition.error_code,
        "high watermark": partition.high_watermark,
        "bytes": records.len(),
        "records": records.escape_ascii().to_string(),
    })
}

/// Produce 0-2 and Fetch 0-3 with message sets, where the broker still has them; else its refusal.
pub fn message_sets(rig: &mut Rig) {
    rig.compare("message sets", 1, |rig, place| {
        let mut outcome = Vec::new();
        for (version, magic) in [(0, 0), (1, 0), (2, 1)] {
            let body = old_produce(&place.topic, &batch::message_set(magic, VALUES));
            outcome.push(json!([format!("Produce v{version}"), ask(place, 0, version, 1, &body)]));
        }
        for version in 0..4 {
            let body = old_fetch(&place.topic, version);
            outcome.push(json!([format!("Fetch v{version}"), ask(place, 1, version, 1, &body)]));
        }
        let closed = outcome.iter().filter(|answer| answer[1].is_null()).count();
        assert!(closed == 0 || rig.cluster.version.starts_with("4."), "{outcome:#?}");
        json!(outcome)
    });
}

fn old_produce(topic: &str, set: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i16(-1); // so that what was written is readable at once
    body.put_i32(5_000);
    put_topic(&mut body, topic);
    body.put_u32(u32::try_from(set.len()).unwrap());
    body.put_slice(set);
    body
}

fn old_fetch(topic: &str, version: i16) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i32(-1);
    body.put_i32(100);
    body.put_i32(1);
    if version > 2 {
        body.put_i32(1 << 20);
    }
    put_topic(&mut body, topic);
    body.put_i64(0);
    body.put_i32(1 << 20);
    body
}

/// An array of one topic with an array of one partition, up to the partition's number.
fn put_topic(body: &mut Vec<u8>, topic: &str) {
    body.put_i32(1);
    body.put_i16(i16::try_from(topic.len()).unwrap());
    body.put_slice(topic.as_bytes());
    body.put_i32(1);
    body.put_i32(0);
}

/// The bytes of the answer after its correlation id; `None` if the connection was closed.
pub fn ask(place: &Place, key: i16, version: i16, header: i16, body: &[u8]) -> Option<String> {
    let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
    broker.send(key, version, header, body).unwrap();
    match broker.receive() {
        Ok(frame) => Some(frame[4..].escape_ascii().to_string()),
        Err(error) if CLOSES.contains(&error.kind()) => None,
        Err(error) => panic!("api {key} v{version}: {error}"),
    }
}

/// What no broker understands is answered or dropped as a broker does.
pub fn requests_no_broker_knows(rig: &mut Rig) {
    rig.compare("requests no broker knows", 1, |_, place| {
        let closed = |key, version, body: &[u8]| ask(place, key, version, 1, body).is_none();
        json!({
            // Behind the client id a header of these versions has its tagged fields: none.
            "ApiVersions v99": ask(place, 18, 99, 1, &[0]),
            "api 999": closed(999, 0, &[]),
            "Metadata v99": closed(3, 99, &[0, 0, 0, 0]),
            "Metadata of a negative count": closed(3, 1, &[0x80, 0, 0, 0]),
            "Metadata of two billion topics": closed(3, 1, &[0x7f, 0xff, 0xff, 0xff]),
            "half a Fetch": closed(1, 11, &[0, 0, 0]),
        })
    });
}

/// The proxy offers a part of what the broker offers, never more.
pub fn versions_are_an_intersection(rig: &mut Rig) {
    let direct = offered(&rig.cluster.address(1), 4);
    for version in 0..=4 {
        let proxied = offered(&rig.place(true, "").brokers[&1], version);
        for api in &proxied.api_keys {
            let of_broker = direct.api_keys.iter().find(|other| other.api_key == api.api_key);
            let of_broker = of_broker.unwrap_or_else(|| panic!("{api:?} is not the broker's"));
            assert!(api.min_version >= of_broker.min_version, "{api:?} against {of_broker:?}");
            assert!(api.max_version <= of_broker.max_version, "{api:?} against {of_broker:?}");
        }
        let oldest = |answer: &ApiVersionsResponse| {
            answer.api_keys.iter().find(|api| api.api_key == 0).map(|api| api.min_version)
        };
        assert_eq!(oldest(&proxied), oldest(&direct), "old clients begin with Produce 0");
        if version == 4 {
            tell(&format!("{}: {}", rig.cluster.version, narrowed(&direct, &proxied)));
        }
    }
    rig.executed();
}

fn offered(address: &str, version: i16) -> ApiVersionsResponse {
    let name = StrBytes::from_static_str("raw");
    let mut request = ApiVersionsRequest::default();
    if version > 2 {
        request =
            request.with_client_software_name(name.clone()).with_client_software_version(name);
    }
    Raw::connect(address).unwrap().call(version, &request).unwrap()
}

fn narrowed(direct: &ApiVersionsResponse, proxied: &ApiVersionsResponse) -> String {
    let difference = direct.api_keys.iter().filter_map(|api| {
        let ours = proxied.api_keys.iter().find(|ours| ours.api_key == api.api_key);
        let name = ApiKey::try_from(api.api_key)
            .map_or_else(|()| api.api_key.to_string(), |key| format!("{key:?}"));
        match ours {
            None => Some(format!("{name} hidden")),
            Some(ours) if ours.max_version < api.max_version => {
                Some(format!("{name} {} of {}", ours.max_version, api.max_version))
            }
            Some(_) => None,
        }
    });
    let words: Vec<String> = difference.collect();
    format!("{} APIs offered, narrowed: {}", proxied.api_keys.len(), words.join(", "))
}

/// acks=0 has no answer; what follows on the connection is answered in order, however much is under
/// way.
pub fn pipelined_requests(rig: &mut Rig) {
    rig.compare("pipelined", 0, |rig, place| {
        let id = Uuid::parse_str(&rig.create_topic(&place.topic, 1)).unwrap();
        let mut broker = Raw::connect(&place.brokers[&1]).unwrap();
        let mut owed = Vec::new();
        for round in 0..100 {
            let acks = if round % 3 == 0 { 0 } else { 1 };
            let correlation = broker.start(9, &produce(place, id, 9, acks)).unwrap();
            owed.extend((acks == 1).then_some((correlation, true)));
            let correlation = broker.start(5, &MetadataRequest::default().with_topics(None));
            owed.push((correlation.unwrap(), false));
        }
        for (correlation, written) in owed {
            let frame = broker.receive().unwrap();
            assert_eq!(frame.clone().get_i32(), correlation);
            if written {
                let answer: ProduceResponse = raw::decode(9, frame).unwrap();
                assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            }
        }
        // What was acknowledged by the leader alone is readable once the followers have it.
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = read(&mut broker, place, id, 11);
            if answer["bytes"] == 100 * batch::records(VALUES).len() {
                return answer;
            }
            let unread = [&answer["error"], &answer["high watermark"], &answer["bytes"]];
            assert!(Instant::now() < until, "error, high watermark and bytes: {unread:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

const VALUES: &[&str] = &["first", "second", "third"];
const CLOSES: [ErrorKind; 3] =
    [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
