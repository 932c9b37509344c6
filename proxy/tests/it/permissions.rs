//! What clients may do where the proxy acts for them as itself: their brokers are asked first.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, FetchRequest, FetchResponse, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::Decodable;
use protocol_ext::fake_broker::Fault;
use protocol_ext::header::{Head, request_body_at};
use protocol_ext::sasl::Mechanism;
use protocol_ext::split::{ProducerFields, with_producer};

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::{fetch, fetched, id, list_offsets, name, produce};
use crate::harness::s3::{Kind, S3};
use crate::harness::{Checked, Faults, ensure, ensure_eq, noise, until};
use crate::routed::looked_out;
use crate::sasl::{PASSWORD, brokers, cluster, listen, log_in};

const FORBIDDEN: i16 = 29;
const UNKNOWN_ID: i16 = 100;
const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const DESCRIBE: i32 = 1 << 8;

/// Topic `v`, whose parts are `v-a` and `v-other`, an ordinary one, and what alice and bob may do.
async fn start(faults: Faults, brokers: &Brokers, more: &str) -> (Folder, Proxy) {
    for (topic, partitions) in [("v", 2), ("v-a", 1), ("v-other", 1), ("plain", 1)] {
        brokers.cluster().add_topic(topic, partitions);
    }
    let folder = Folder::new();
    let setup = Setup::new(brokers, faults).virtual_topic().refresh_ms(60_000);
    let setup = setup.cluster(&cluster(&folder, Mechanism::Plain));
    let setup = if more.is_empty() { setup } else { setup.listen(&listen(&folder, more)) };
    let proxy = setup.start().await;
    looked_out(brokers).await;
    (folder, proxy)
}

fn allow(brokers: &Brokers, topic: &str, operations: i32) {
    let mut cluster = brokers.cluster();
    cluster.allowed.retain(|(_, of, _)| of != topic);
    cluster.allowed.push(("alice".to_owned(), topic.to_owned(), operations));
}

async fn alice(proxy: &Proxy) -> Checked<Client> {
    let mut client = Client::connect(proxy.port).await?;
    let logged = log_in(&mut client, Mechanism::Plain, "alice", PASSWORD).await?;
    ensure!(logged.is_ok(), "login: {logged:?}");
    Ok(client)
}

fn batches(brokers: &Brokers) -> usize {
    let mut cluster = brokers.cluster();
    let mut in_log = |topic| cluster.log(topic, 0).map_or(0, |log| log.batches().count());
    in_log("v-a") + in_log("v-other") + in_log("plain")
}

/// The first batch of a new producer.
fn fresh() -> Bytes {
    static PRODUCERS: AtomicI64 = AtomicI64::new(1);
    let id = PRODUCERS.fetch_add(1, Ordering::Relaxed);
    let fields = ProducerFields { id, epoch: 0, base_sequence: 0 };
    with_producer(&single(vec![7; 100]), fields).expect("a batch")
}

async fn written(client: &mut Client) -> Checked<i16> {
    // Partition 1 is that of the slot `other`, where records without the header go.
    Ok(client.produce(9, "v", 1, &fresh()).await?.0)
}

async fn read(client: &mut Client) -> Checked<(i16, usize)> {
    let (error, records) = client.fetch(12, "v", 1, 0, i32::MAX).await?;
    Ok((error, records.len()))
}

async fn offsets(client: &mut Client) -> Checked<i16> {
    let answer: ListOffsetsResponse = client.call(2, 7, &list_offsets("v")).await?;
    Ok(answer.topics[0].partitions[0].error_code)
}

async fn told(client: &mut Client, of: MetadataRequestTopic) -> Checked<MetadataResponse> {
    let request = MetadataRequest::default().with_topics(Some(vec![of]));
    client.call(3, 12, &request).await
}

#[tokio::test]
async fn a_client_may_do_with_a_virtual_topic_what_it_may_do_with_its_carrier() -> Checked {
    acls_hold_through_legs(None).await
}

/// What the client's own broker forbids it, legs do not do for it.
pub async fn acls_hold_through_legs(faults: Faults) -> Checked {
    for more in ["", ", brokers_see = \"client\""] {
        let brokers = brokers().await;
        let (_folder, proxy) = start(faults, &brokers, more).await;
        let mut client = alice(&proxy).await?;
        ensure_eq!(written(&mut client).await?, 0, "error of Produce with every operation");
        let (error, bytes) = read(&mut client).await?;
        ensure!(error == 0 && bytes > 0, "error of Fetch {error}, {bytes} bytes");
        allow(&brokers, "v", READ | DESCRIBE);
        let mut client = alice(&proxy).await?;
        let before = batches(&brokers);
        ensure_eq!(written(&mut client).await?, FORBIDDEN, "error of Produce without WRITE");
        ensure_eq!(batches(&brokers), before, "batches at the brokers");
        let (error, bytes) = read(&mut client).await?;
        ensure!(error == 0 && bytes > 0, "error of Fetch {error}, {bytes} bytes, with READ");
        allow(&brokers, "v", WRITE | DESCRIBE);
        let mut client = alice(&proxy).await?;
        ensure_eq!(written(&mut client).await?, 0, "error of Produce with WRITE");
        ensure_eq!(read(&mut client).await?, (FORBIDDEN, 0), "Fetch without READ");
        ensure_eq!(offsets(&mut client).await?, 0, "error of ListOffsets with DESCRIBE");
        allow(&brokers, "v", READ | WRITE);
        let mut client = alice(&proxy).await?;
        ensure_eq!(offsets(&mut client).await?, FORBIDDEN, "ListOffsets without DESCRIBE");
        allow(&brokers, "v", 0);
        let mut client = alice(&proxy).await?;
        ensure_eq!(written(&mut client).await?, FORBIDDEN, "error of Produce with nothing");
        ensure_eq!(read(&mut client).await?, (FORBIDDEN, 0), "Fetch with nothing");
        ensure_eq!(offsets(&mut client).await?, FORBIDDEN, "ListOffsets with nothing");
    }
    Ok(())
}

#[tokio::test]
async fn a_virtual_topic_with_a_forbidden_carrier_is_not_seen() -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = start(None, &brokers, "").await;
    let mut client = alice(&proxy).await?;
    let by_name = || MetadataRequestTopic::default().with_name(Some(name("v")));
    let seen = told(&mut client, by_name()).await?.topics.remove(0);
    ensure_eq!((seen.error_code, seen.partitions.len()), (0, 2), "topic with every operation");
    let id = seen.topic_id;
    allow(&brokers, "v", 0);
    let unseen = told(&mut client, by_name()).await?.topics.remove(0);
    ensure_eq!((unseen.error_code, unseen.partitions.len()), (FORBIDDEN, 0), "by its name");
    ensure_eq!(unseen.name, Some(name("v")), "its name");
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let unseen = told(&mut client, by_id).await?.topics.remove(0);
    ensure_eq!((unseen.error_code, unseen.name), (FORBIDDEN, None), "by its id");
    let all = client.metadata(12).await?.topics;
    let all: Vec<_> = all.iter().filter_map(|topic| topic.name.as_ref()).collect();
    ensure_eq!(all, [&name("t"), &name("plain")], "all topics");
    Ok(())
}

#[tokio::test]
async fn an_ordinary_topic_beside_a_virtual_one_is_for_the_clients_own_broker_to_judge() -> Checked
{
    let brokers = brokers().await;
    let (_folder, proxy) = start(None, &brokers, "").await;
    let mut client = alice(&proxy).await?;
    ensure_eq!(client.produce(9, "plain", 0, &fresh()).await?.0, 0, "error");
    allow(&brokers, "plain", DESCRIBE);
    let mut client = alice(&proxy).await?;
    let mut request = fetch(12, "v", &[(0, 0)], i32::MAX);
    let partition = FetchPartition::default().with_partition_max_bytes(i32::MAX);
    let plain = FetchTopic::default().with_topic(name("plain")).with_partitions(vec![partition]);
    request.topics.push(plain);
    let answer: FetchResponse = client.call::<FetchRequest, _>(1, 12, &request).await?;
    let answered = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let answered = answered.map(|p| (p.error_code, p.records.as_ref().map_or(0, Bytes::len)));
    let answered: Vec<_> = answered.collect();
    ensure_eq!(answered, [(0, 0), (FORBIDDEN, 0)], "errors and bytes of Fetch");
    let batch = fresh();
    let mut request = produce(9, -1, "v", &[(1, batch.clone())]);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let plain = TopicProduceData::default().with_name(name("plain"));
    request.topic_data.insert(0, plain.with_partition_data(vec![data]));
    let errors = async |client: &mut Client| {
        let answer: ProduceResponse = client.call::<ProduceRequest, _>(0, 9, &request).await?;
        let of = |topic: &str| {
            let told = answer.responses.iter().find(|told| told.name == name(topic));
            told.map(|told| told.partition_responses[0].error_code)
        };
        Ok::<_, crate::harness::Failure>((of("plain"), of("v")))
    };
    // What becomes of the ordinary one is said by the client's own broker.
    ensure_eq!(errors(&mut client).await?, (Some(0), Some(0)), "errors of Produce");
    allow(&brokers, "v", DESCRIBE);
    let mut client = alice(&proxy).await?;
    let before = batches(&brokers);
    ensure_eq!(errors(&mut client).await?, (Some(0), Some(FORBIDDEN)), "errors of Produce");
    ensure_eq!(batches(&brokers), before + 1, "batches at the brokers");
    Ok(())
}

#[tokio::test]
async fn topics_named_by_id_are_asked_for_too() -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = start(None, &brokers, "").await;
    let mut client = alice(&proxy).await?;
    let by_name = MetadataRequestTopic::default().with_name(Some(name("v")));
    let id = told(&mut client, by_name).await?.topics.remove(0).topic_id;
    allow(&brokers, "v", DESCRIBE);
    let mut request = fetch(13, "v", &[(1, 0)], i32::MAX);
    request.topics[0].topic_id = id;
    let answer: FetchResponse = client.call::<FetchRequest, _>(1, 13, &request).await?;
    ensure_eq!(fetched(answer)?[0].1, FORBIDDEN, "error of Fetch");
    let mut request = produce(13, -1, "v", &[(1, fresh())]);
    request.topic_data[0].topic_id = id;
    let answer: ProduceResponse = client.call::<ProduceRequest, _>(0, 13, &request).await?;
    let error = answer.responses[0].partition_responses[0].error_code;
    ensure_eq!(error, FORBIDDEN, "error of Produce");
    ensure_eq!(batches(&brokers), 0, "batches at the brokers");
    Ok(())
}

#[tokio::test]
async fn brokers_are_asked_once_for_a_while_and_again_soon_where_they_forbade() -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = start(None, &brokers, "").await;
    let mut client = alice(&proxy).await?;
    written(&mut client).await?;
    let asked = |brokers: &Brokers| {
        let cluster = brokers.cluster();
        cluster.seen.iter().filter(|s| s.head.correlation == i32::MIN).count()
    };
    ensure_eq!(asked(&brokers), 1, "questions for one topic");
    for _ in 0..5 {
        ensure_eq!(written(&mut client).await?, 0, "error of Produce");
        read(&mut client).await?;
    }
    ensure_eq!(asked(&brokers), 1, "questions for one topic, asked for again and again");
    allow(&brokers, "v", DESCRIBE);
    let mut client = alice(&proxy).await?;
    ensure_eq!(written(&mut client).await?, FORBIDDEN, "error of Produce");
    allow(&brokers, "v", WRITE | DESCRIBE);
    let allowed = async || (written(&mut client).await.ok()? == 0).then_some(());
    until("what an ACL allows since a moment", allowed).await
}

#[tokio::test]
async fn who_has_not_logged_in_gets_nothing() -> Checked {
    strangers_get_nothing(None).await
}

/// Without a login at the broker, where SASL passes through, no request is answered and none has
/// an effect, whatever the proxy could do or say by itself.
pub async fn strangers_get_nothing(faults: Faults) -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = start(faults, &brokers, "").await;
    // Whatever the proxy learned for another client is of no use to a stranger.
    let mut known = alice(&proxy).await?;
    ensure_eq!(written(&mut known).await?, 0, "error of Produce");
    ensure_eq!(read(&mut known).await?.0, 0, "error of Fetch");
    let before = batches(&brokers);
    let v = id("v");
    let metadata = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name("v")))]));
    let mut by_id = fetch(13, "v", &[(1, 0)], i32::MAX);
    by_id.topics[0].topic_id = v;
    let mut written_by_id = produce(13, -1, "v", &[(1, fresh())]);
    written_by_id.topic_data[0].topic_id = v;
    let mut in_session = fetch(12, "v", &[(1, 0)], i32::MAX);
    (in_session.session_id, in_session.session_epoch) = (7, 7);
    let joins = AddPartitionsToTxnTopic::default().with_name(name("v")).with_partitions(vec![0]);
    let joins = AddPartitionsToTxnRequest::default().with_v3_and_below_topics(vec![joins]);
    let requests = [
        request_frame(0, 9, 1, &produce(9, -1, "v", &[(1, fresh())])),
        request_frame(0, 9, 1, &produce(9, 0, "v", &[(1, fresh())])),
        request_frame(0, 13, 1, &written_by_id),
        request_frame(1, 12, 1, &fetch(12, "v", &[(1, 0)], i32::MAX)),
        request_frame(1, 12, 1, &in_session),
        request_frame(1, 13, 1, &by_id),
        request_frame(2, 7, 1, &list_offsets("v")),
        request_frame(3, 12, 1, &metadata),
        request_frame(3, 1, 1, &MetadataRequest::default().with_topics(None)),
        request_frame(24, 3, 1, &joins),
    ];
    for (n, frame) in requests.iter().enumerate() {
        let mut client = Client::connect(proxy.port).await?;
        client.send_raw(frame).await?;
        ensure!(client.receive().await.is_err(), "an answer to request {n} before a login");
        ensure!(client.receive_to_end().await?.is_empty(), "bytes behind request {n}");
    }
    ensure_eq!(batches(&brokers), before, "batches at the brokers");
    Ok(())
}

#[tokio::test]
async fn a_broker_that_does_not_answer_the_question_forbids() -> Checked {
    let brokers = brokers().await;
    let (_folder, proxy) = start(None, &brokers, "").await;
    let mut client = alice(&proxy).await?;
    brokers.cluster().script(3, Fault::CloseAfter(0));
    client.send(0, 9, &produce(9, -1, "v", &[(1, fresh())])).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer though nobody was asked");
    ensure_eq!(batches(&brokers), 0, "batches at the brokers");
    Ok(())
}

#[tokio::test]
async fn nothing_is_stored_for_who_may_not_write() -> Checked {
    values_of_strangers_are_not_stored(None).await
}

/// Values of a request that its broker will refuse leave nothing in the store.
pub async fn values_of_strangers_are_not_stored(faults: Faults) -> Checked {
    let (brokers, folder, s3) = (brokers().await, Folder::new(), S3::start().await);
    brokers.cluster().add_topic("plain", 1);
    let setup = Setup::new(&brokers, faults).cluster(&cluster(&folder, Mechanism::Plain));
    let proxy = setup.offload_s3(&s3, 10_000).refresh_ms(60_000).start().await;
    let large = |n| single(noise(n, 30_000));
    let mut client = alice(&proxy).await?;
    ensure_eq!(client.produce(9, "plain", 0, &large(1)).await?.0, 0, "error of Produce");
    ensure_eq!(s3.count(Kind::Put), 1, "uploads of who may write");
    allow(&brokers, "plain", READ | DESCRIBE);
    let mut client = alice(&proxy).await?;
    client.produce(9, "plain", 0, &large(2)).await?;
    ensure_eq!(s3.count(Kind::Put), 1, "uploads of who may not write");
    let length = brokers.cluster().log("plain", 0).and_then(|log| log.batches().last().cloned());
    ensure!(length.is_some_and(|batch| batch.len() > 30_000), "the broker did not see the batch");
    let mut client = Client::connect(proxy.port).await?;
    client.send(0, 9, &produce(9, -1, "plain", &[(0, large(3))])).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer before a login");
    ensure_eq!(s3.count(Kind::Put), 1, "uploads of who did not log in");
    let mut client = Client::connect(proxy.port).await?;
    let no_name = "n".repeat(300);
    client.send(0, 9, &produce(9, -1, &no_name, &[(0, large(4))])).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer before a login");
    ensure_eq!(s3.count(Kind::Put), 1, "uploads to a topic that cannot be");
    Ok(())
}

#[tokio::test]
async fn nobody_is_asked_where_brokers_see_all_clients_as_the_proxy() -> Checked {
    let brokers = brokers().await;
    allow(&brokers, "v", 0);
    let (_folder, proxy) = start(None, &brokers, ", brokers_see = \"proxy\"").await;
    let mut client = alice(&proxy).await?;
    ensure_eq!(written(&mut client).await?, 0, "error of Produce");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let cluster = brokers.cluster();
    let asked = cluster.seen.iter().filter(|s| s.head.correlation == i32::MIN).count();
    ensure_eq!(asked, 0, "questions");
    Ok(())
}

/// However many topics clients name by id, a question is about so many at most, and they are not
/// asked for one by one.
pub async fn questions_are_bounded(faults: Faults) -> Checked {
    const NAMED: u128 = 5000;
    const MOST: usize = 2000;
    let brokers = brokers().await;
    let (_folder, proxy) = start(faults, &brokers, "").await;
    let mut client = alice(&proxy).await?;
    ensure_eq!(read(&mut client).await?.0, 0, "error of Fetch");
    let mut request = fetch(13, "v", &[(1, 0)], i32::MAX);
    request.topics[0].topic_id = id("v");
    let partitions = request.topics[0].partitions.clone();
    request.topics.extend((1..=NAMED).map(|n| {
        let id = uuid::Uuid::from_u128(n);
        FetchTopic::default().with_topic_id(id).with_partitions(partitions.clone())
    }));
    brokers.cluster().keeping = Some(3);
    let answer: FetchResponse = client.call::<FetchRequest, _>(1, 13, &request).await?;
    let codes = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let unknown = codes.filter(|partition| partition.error_code == UNKNOWN_ID).count();
    ensure_eq!(unknown as u128, NAMED, "ids that are told to be unknown");
    let kept = std::mem::take(&mut brokers.cluster().kept);
    let topics = kept.iter().map(|(_, frame)| {
        let head = Head::parse(frame).expect("a head");
        let mut body = frame.slice(request_body_at(head, frame).expect("a body")..);
        let asked = MetadataRequest::decode(&mut body, head.version).expect("a request");
        asked.topics.map_or(0, |topics| topics.len())
    });
    let sizes: Vec<usize> = topics.collect();
    ensure!(sizes.len() <= 8, "{} questions about {NAMED} topics", sizes.len());
    let most = sizes.iter().max().copied().unwrap_or_default();
    ensure!((1..=MOST).contains(&most), "{most} topics in one question");
    Ok(())
}

#[tokio::test]
async fn a_client_that_names_many_topics_makes_no_long_question() -> Checked {
    questions_are_bounded(None).await
}
