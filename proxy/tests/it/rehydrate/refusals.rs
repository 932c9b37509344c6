//! The way out ends with an error, or tells, where a copy would not be all that was read before.

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::reference::{Binding, KeyRing, MacKey, Reference};

use super::{COPY, copied_to, references, scene};
use crate::harness::client::Client;
use crate::harness::proxy::Folder;
use crate::harness::records::single;
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise};
use crate::routed::{self, located};
use crate::segments;
use crate::upkeep::upkeep;

/// References whose key is not known, or that were signed for another topic, or that a later
/// version wrote, stand for values that nobody could restore from a copy.
pub async fn references_that_are_not_followed_end_it(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(0, &single(noise(1, 20_000))).await?;
    let expected = scene.through_proxy(0).await?;
    let key_file = scene.store.path().join("reference.key");
    let key = std::fs::read(&key_file).map_err(failure)?;
    let other: String = noise(7, 32).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&key_file, other).map_err(failure)?;
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    let told = said.contains("t/0 offset 0:") && said.contains("store.key_file");
    ensure!(code == 3 && told, "a reference of another key: {code}: {said}");
    ensure!(copied_to(&scene.brokers, COPY, 0).is_empty(), "records of another key in the copy");
    let args = ["rehydrate", "t", "--to", "raw", "--keep-unsigned"];
    let (code, report, said) = scene.run(&args).await?;
    ensure_eq!(code, 0, "exit code where such are to be kept: {said}");
    ensure_eq!(report["partitions"][0]["unsigned"].as_u64(), Some(1), "values kept");
    ensure_eq!(references(&scene.brokers, "raw", 0).len(), 1, "references in that copy");
    // As it advises.
    std::fs::write(key_file.with_extension("key.previous"), &key).map_err(failure)?;
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code with both keys: {said}");
    scene.is_copy(0, &expected)?;

    let genuine = references(&scene.brokers, "t", 0).remove(0);
    let mut later = genuine.clone();
    later[4] = 2;
    let foreign = [("moved", genuine, "its object is there"), ("later", later, "version")];
    for (topic, value, words) in foreign {
        scene.brokers.cluster().add_topic(topic, 1);
        let put = scene.brokers.cluster().log(topic, 0).expect("a log").append(&single(value));
        put.map_err(failure)?;
        let (code, _, said) = scene.run(&["rehydrate", topic]).await?;
        ensure!(code == 3 && said.contains(words), "{topic}: {code}: {said}");
        let copied = copied_to(&scene.brokers, &format!("{topic}-rehydrated"), 0);
        ensure!(copied.is_empty(), "records in the copy of {topic}");
    }
    Ok(())
}

#[tokio::test]
async fn what_may_be_a_reference_is_not_copied_as_it_is() -> Checked {
    references_that_are_not_followed_end_it(None).await
}

/// A part that the cluster does not show would be missing in the copy, and nobody told.
pub async fn a_hidden_part_ends_it(faults: Faults) -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = routed::start(None, |setup| setup.offload(&store, 1000)).await;
    let mut client = Client::connect(proxy.port).await?;
    let (error, _) = client.produce(9, routed::TOPIC, 0, &located(None, noise(1, 9000))).await?;
    ensure_eq!(error, 0, "error of Produce");
    let hide = |topic: &str| ("ANONYMOUS".to_owned(), topic.to_owned(), NO_OPERATION);
    brokers.cluster().allowed.push(hide(routed::OTHER));
    let args = ["rehydrate", routed::TOPIC];
    let (code, _, said) = upkeep(&args, &proxy.config_file(), faults).await?;
    let told = code == 3 && said.contains("fires-other is not shown");
    ensure!(told, "without a hidden part: {code}: {said}");
    ensure!(brokers.cluster().log("fires-norcal-rehydrated", 0).is_none(), "a copy was made");
    brokers.cluster().allowed.clear();
    let (code, _, said) = upkeep(&args, &proxy.config_file(), faults).await?;
    ensure_eq!(code, 0, "exit code once all is shown: {said}");

    // With days: the copy of a segment is none.
    let store = Folder::new();
    let (brokers, proxy) = segments::start_as(None, |setup| setup.offload(&store, 1000)).await?;
    brokers.cluster().allowed.extend(segments::OTHER.map(hide));
    brokers.cluster().add_topic(&format!("{}-rehydrated", segments::OTHER[0]), 1);
    let args = ["rehydrate", segments::TOPIC];
    let (code, _, said) = upkeep(&args, &proxy.config_file(), faults).await?;
    let told = code == 3 && said.contains("fires-other is not shown");
    ensure!(told, "with a copy in the place of segments: {code}: {said}");
    Ok(())
}

#[tokio::test]
async fn a_virtual_topic_is_copied_only_if_every_part_is_shown() -> Checked {
    a_hidden_part_ends_it(None).await
}

/// What the leader acknowledged and its replicas do not have is not copied, and that is told.
pub async fn what_replicas_lack_is_told(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(0, &single(noise(1, 20_000))).await?;
    scene.send(0, &single(noise(2, 20_000))).await?;
    let expected = scene.through_proxy(0).await?;
    scene.brokers.cluster().log("t", 0).expect("a log").replicated = Some(1);
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(report["partitions"][0]["unreplicated"].as_i64(), Some(1), "told: {said}");
    ensure_eq!(report["partitions"][0]["held_back"].as_i64(), Some(0), "in transactions");
    ensure_eq!(code, 1, "exit code without what replicas lack: {said}");
    scene.brokers.cluster().log("t", 0).expect("a log").replicated = None;
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code once they have it: {said}");
    scene.is_copy(0, &expected)
}

#[tokio::test]
async fn a_copy_that_ends_before_the_end_of_the_leaders_log_is_none() -> Checked {
    what_replicas_lack_is_told(None).await
}

/// A topic that was made beforehand and would lose something of the copy is refused; what its
/// retention deletes later is told.
pub async fn a_copy_that_would_lose_is_refused(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send_many(0, 1).await?;
    let expected = scene.through_proxy(0).await?;
    scene.brokers.cluster().add_topic(COPY, 3);
    let set = |name: &str, value: &str| scene.brokers.cluster().configure(COPY, name, value);
    set("message.timestamp.type", "LogAppendTime");
    set("retention.bytes", "1000");
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    let told = code == 3 && said.contains("set message.timestamp.type=CreateTime");
    ensure!(told, "a copy with new times: {code}: {said}");
    set("message.timestamp.type", "CreateTime");
    let (code, _, said) = scene.run(&["rehydrate", "t"]).await?;
    let told = code == 3 && said.contains("set retention.bytes=-1");
    ensure!(told, "a copy that is cut off: {code}: {said}");
    ensure!(copied_to(&scene.brokers, COPY, 0).is_empty(), "records in the copy");
    set("retention.bytes", "-1");
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code once it keeps all: {said}");
    ensure_eq!(report["partitions"][0]["trimmed"].as_i64(), Some(0), "records deleted again");
    scene.is_copy(0, &expected)?;

    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(7);
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(COPY)))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
    let deleted: DeleteRecordsResponse = scene.client.call(21, 2, &request).await?;
    ensure_eq!(deleted.topics[0].partitions[0].low_watermark, 7, "start of the copy");
    let (code, report, said) = scene.run(&["rehydrate", "t"]).await?;
    ensure_eq!(code, 0, "exit code behind it: {said}");
    ensure_eq!(report["partitions"][0]["trimmed"].as_i64(), Some(7), "records deleted again");
    Ok(())
}

#[tokio::test]
async fn a_copy_made_beforehand_keeps_all_or_is_refused() -> Checked {
    a_copy_that_would_lose_is_refused(None).await
}

/// Length and CRC of a value are checked for clients, its hash for a copy.
pub async fn a_value_of_another_hash_is_not_copied(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(0, &single(noise(1, 20_000))).await?;
    let key = std::fs::read(scene.store.path().join("reference.key")).map_err(failure)?;
    let key = MacKey::new(key.trim_ascii()).map_err(failure)?;
    let keys = KeyRing::new(key, None).map_err(failure)?;
    let genuine = references(&scene.brokers, "t", 0).remove(0);
    let (mut reference, _) = Reference::parse_unverified(&genuine).map_err(failure)?;
    reference.original_hash[15] ^= 1;
    let signed = keys.sign(&reference, &Binding { topic: "u", tenant: "" });
    scene.brokers.cluster().add_topic("u", 1);
    let put = scene.brokers.cluster().log("u", 0).expect("a log").append(&single(signed.to_vec()));
    put.map_err(failure)?;
    let (error, section) = scene.client.fetch(11, "u", 0, 0, i32::MAX).await?;
    ensure_eq!((error, section.len() > 20_000), (0, true), "error, and whether clients read it");
    let (code, _, said) = scene.run(&["rehydrate", "u"]).await?;
    let told = said.contains("u/0 offset 0") && said.contains("not what was stored");
    ensure!(code == 3 && told, "with another hash: {code}: {said}");
    Ok(())
}

#[tokio::test]
async fn a_value_whose_hash_does_not_fit_ends_a_copy() -> Checked {
    a_value_of_another_hash_is_not_copied(None).await
}

const NO_OPERATION: i32 = 0;
