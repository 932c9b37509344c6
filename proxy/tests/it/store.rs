//! The object store behind offload: an S3 service that fails in every way that one can, and what
//! clients, the log and the bucket look like afterwards. Everything is counted.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{FetchResponse, ProduceResponse};
use protocol_ext::codec::{Codec, Framing};

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{batch, read, records, single};
use crate::harness::requests::{fetch, fetched, produce};
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until, within};
use crate::offload::values;

const THRESHOLD: usize = 1000;
const STORAGE_ERROR: i16 = 56;
const ALL: i32 = i32::MAX;

struct Scene {
    brokers: Brokers,
    s3: S3,
    proxy: Proxy,
    client: Client,
    ledger: Ledger,
}

async fn scene(faults: Faults, change: impl FnOnce(Setup) -> Setup) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let setup = change(Setup::new(&brokers, faults).offload_s3(&s3, THRESHOLD));
    let proxy = setup.start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, s3, proxy, client, ledger: Ledger::default() })
}

impl Scene {
    async fn take(&mut self, partition: i32, batch: &Bytes) -> Checked<i64> {
        let (error, base) = self.client.produce(9, "t", partition, batch).await?;
        ensure_eq!(error, 0, "error of Produce");
        self.ledger.acknowledged("t", partition, base, batch);
        Ok(base)
    }

    /// Nothing that was acknowledged is lost, no reference dangles, and there are so many orphans.
    async fn is_sound(&self, what: &str, orphaned: usize) -> Checked {
        let held = Held::in_bucket(&self.s3)?;
        let tally = self.ledger.tally(self.proxy.port, &self.brokers, &held).await?;
        tally.is_sound(what, orphaned)
    }

    async fn count(&self, op: &str) -> Checked<f64> {
        self.proxy.metric(&format!("firebreak_offload_objects_total{{op=\"{op}\"}}")).await
    }

    async fn cached(&self, result: &str) -> Checked<f64> {
        self.proxy.metric(&format!("firebreak_offload_cache_total{{result=\"{result}\"}}")).await
    }

    /// Reads partition 0 from `offset` until a value comes, and expects it.
    async fn reads(&mut self, offset: i64, sent: &Bytes, what: &str) -> Checked {
        let (error, section) = self.client.fetch(11, "t", 0, offset, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch, {what}");
        let got = read(&section);
        let sent = &read(sent)[0];
        let first = got.first().map(|record| (record.offset, record.value == sent.value));
        ensure_eq!(first, Some((offset, true)), "offset and sameness, {what}");
        Ok(())
    }
}

/// Faults that an attempt survives: what was acknowledged is in the store once, and read back.
#[tokio::test]
async fn a_put_that_fails_once_is_acknowledged_after_it_succeeded() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    let faults = [
        Fault::Status(503, "SlowDown"),
        Fault::Status(500, "InternalError"),
        Fault::Status(409, "OperationAborted"),
        Fault::Status(400, "BadDigest"),
        // The object is there, the answer is not: 412 is what a conditional PUT would then say.
        Fault::DoneBut(412, "PreconditionFailed"),
        Fault::DoneBut(503, "SlowDown"),
        Fault::DoneAndGone,
        Fault::Slow(Duration::from_millis(700)),
        Fault::Silent,
    ];
    for (n, fault) in (0..).zip(faults) {
        scene.s3.script(Kind::Put, &[fault]);
        let sent = single(noise(n, 40_000));
        let base = scene.take(0, &sent).await?;
        ensure_eq!(base, i64::try_from(n).unwrap_or(-1), "offset after {fault:?}");
        scene.reads(base, &sent, &format!("{fault:?}")).await?;
    }
    let stored = scene.s3.objects().values().flat_map(|object| values(object)).count();
    ensure_eq!(stored, 9, "values in the store");
    ensure_eq!(scene.brokers.cluster().count(0), 9, "Produce requests at the broker");
    scene.is_sound("PUTs that fail once", 0).await
}

/// A body that is damaged on its way is refused by its checksum and sent again, in one piece and
/// in parts.
pub async fn a_damaged_body_is_sent_again(faults: Faults) -> Checked {
    let unsigned = |setup: Setup| setup.store("sign_payload = false");
    let mut scene = scene(faults, unsigned).await?;
    for (n, bytes) in [(0, 40_000), (1, 34_000_000)] {
        let sent = noise(n, bytes);
        let before = scene.s3.count(Kind::Put);
        scene.s3.script(Kind::Put, &[Fault::Damaged]);
        scene.take(0, &single(sent.clone())).await?;
        let object = scene.s3.objects().into_values().find(|object| object.len() > bytes);
        let object = object.ok_or_else(|| failure("no object"))?;
        ensure!(object[64..64 + bytes] == sent, "{bytes} bytes in the store differ");
        ensure!(scene.s3.count(Kind::Put) > before + 1, "{bytes} bytes were sent once");
    }
    ensure_eq!(scene.s3.unsigned(), scene.s3.count(Kind::Put) - 2, "bodies taken unsigned");
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_damaged_on_its_way_is_refused_by_its_checksum() -> Checked {
    a_damaged_body_is_sent_again(None).await
}

/// Without TLS bodies are signed byte for byte unless told otherwise.
#[tokio::test]
async fn without_tls_bodies_are_signed() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    scene.s3.script(Kind::Put, &[Fault::Damaged]);
    scene.take(0, &single(noise(1, 40_000))).await?;
    ensure_eq!((scene.s3.unsigned(), scene.s3.count(Kind::Put)), (0, 2), "unsigned, sent");
    Ok(())
}

/// A service that takes no unsigned payload is told with what helps.
#[tokio::test]
async fn a_service_that_wants_signed_payloads_is_told() -> Checked {
    let mut scene = scene(None, |setup| setup.store("sign_payload = false")).await?;
    for (status, code) in
        [(400, "InvalidRequest"), (501, "NotImplemented"), (400, "XAmzContentSHA256Mismatch")]
    {
        scene.s3.script(Kind::Put, &[Fault::Status(status, code)]);
        let (error, _) = scene.client.produce(9, "t", 0, &single(noise(1, 30_000))).await?;
        ensure_eq!(error, STORAGE_ERROR, "error of Produce after {code}");
        let told = format!("{status} {code} for v1/");
        let told = async || {
            let log = scene.proxy.log();
            log.lines()
                .any(|l| l.contains(&told) && l.contains("sign_payload = true"))
                .then_some(())
        };
        until("a line with the key", told).await?;
    }
    ensure_eq!(scene.s3.count(Kind::Put), 3, "PUTs");
    Ok(())
}

/// Faults of a read that an attempt survives.
#[tokio::test]
async fn a_get_that_fails_is_asked_again_and_the_value_is_right() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    let sent = single(noise(1, 300_000));
    scene.take(0, &sent).await?;
    for fault in [
        Fault::Status(503, "SlowDown"),
        Fault::Status(500, "InternalError"),
        Fault::Slow(Duration::from_millis(700)),
        Fault::Reset(100_000),
        Fault::Truncated(100_000),
        Fault::OtherRange,
        Fault::Whole,
        Fault::Silent,
    ] {
        let before = scene.s3.count(Kind::Get);
        scene.s3.script(Kind::Get, &[fault]);
        scene.reads(0, &sent, &format!("{fault:?}")).await?;
        ensure!(scene.s3.count(Kind::Get) > before, "nothing was read with {fault:?}");
    }
    ensure_eq!(scene.count("damaged").await?, 0.0, "objects found damaged");
    scene.is_sound("GETs that fail once", 0).await
}

/// A read that takes long is asked again, and the first answer counts.
pub async fn a_slow_read_is_asked_twice(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let sent = single(noise(1, 30_000));
    scene.take(0, &sent).await?;
    scene.s3.script(Kind::Get, &[Fault::Slow(Duration::from_millis(1500))]);
    scene.reads(0, &sent, "asked twice").await?;
    ensure_eq!(scene.s3.count(Kind::Get), 2, "reads of the store");
    let hedged = scene.proxy.metric("firebreak_offload_hedged_total").await?;
    ensure_eq!(hedged, 1.0, "reads counted as asked twice");
    Ok(())
}

#[tokio::test]
async fn a_read_that_takes_long_is_asked_twice() -> Checked {
    a_slow_read_is_asked_twice(None).await
}

/// Other bytes under the right head are never given out.
pub async fn other_bytes_of_a_store_are_never_data(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    scene.take(0, &single(noise(1, 30_000))).await?;
    scene.s3.script(Kind::Get, &[Fault::OtherBytes]);
    let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!((error, section.len()), (STORAGE_ERROR, 0), "error and bytes of other bytes");
    ensure_eq!(scene.count("damaged").await?, 1.0, "objects found damaged");
    scene.is_sound("other bytes under the right head", 0).await
}

#[tokio::test]
async fn other_bytes_under_the_right_head_are_an_error() -> Checked {
    other_bytes_of_a_store_are_never_data(None).await
}

/// 404, 403 and silence are told apart; the partition gets a retriable error, others their data.
#[tokio::test]
async fn an_object_that_is_gone_is_an_error_of_its_partition_only() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    let sent: Vec<_> = (0..3).map(|n| single(noise(n, 30_000))).collect();
    for (partition, batch) in (0..).zip(&sent) {
        scene.take(partition, batch).await?;
    }
    let objects = scene.s3.objects();
    let (key, _) = objects.iter().find(|(key, _)| key.contains("/1/")).expect("of partition 1");
    scene.s3.remove(key);
    let all = [(0, 0), (1, 0), (2, 0)];
    let answer: FetchResponse = scene.client.call(1, 11, &fetch(11, "t", &all, ALL)).await?;
    for (partition, error, section) in fetched(answer)? {
        let expected = if partition == 1 { STORAGE_ERROR } else { 0 };
        ensure_eq!(error, expected, "error of partition {partition}");
        if partition != 1 {
            let sent = &sent[usize::try_from(partition).unwrap_or(9)];
            ensure!(read(&section) == read(sent), "records of partition {partition} differ");
        }
    }
    let missing = async || (scene.proxy.logged("does not exist") > 0).then_some(());
    until("the log says what is missing", missing).await?;
    scene.s3.script(Kind::Get, &[Fault::Status(403, "AccessDenied")]);
    let (error, _) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of a refusal");
    let refused = async || (scene.proxy.logged("AccessDenied") > 0).then_some(());
    until("the log says that we are refused", refused).await
}

/// An object goes once a Fetch has begun to read, and comes back: its partition has an error while
/// it is away, the other one its value.
#[tokio::test]
async fn an_object_that_goes_amid_a_fetch_is_an_error_of_its_partition_only() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    let sent: Vec<_> = (0..2).map(|n| single(noise(n, 30_000))).collect();
    for (partition, batch) in (0..).zip(&sent) {
        scene.take(partition, batch).await?;
    }
    let key = scene.s3.objects().into_keys().find(|key| key.contains("/1/"));
    scene.s3.vanish(&key.ok_or_else(|| failure("no object of partition 1"))?);
    let both = fetch(11, "t", &[(0, 0), (1, 0)], ALL);
    for (errors, back) in [([0, STORAGE_ERROR], 1), ([0, 0], 0)] {
        let answer: FetchResponse = scene.client.call(1, 11, &both).await?;
        for ((partition, error, section), sent) in fetched(answer)?.into_iter().zip(&sent) {
            let expected = errors[usize::from(partition == 1)];
            ensure_eq!(error, expected, "error of partition {partition}");
            let whole = read(&section) == read(sent);
            ensure_eq!(whole, error == 0, "whether partition {partition} has its value");
        }
        ensure_eq!(scene.s3.bring_back(), back, "objects that went");
    }
    scene.is_sound("404 between plan and GET", 0).await
}

/// A key that is taken by another object is never overwritten nor taken for stored.
pub async fn a_taken_key_is_no_stored_value(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    scene.s3.always(Kind::Put, Fault::Status(412, "PreconditionFailed"));
    let (error, base) = scene.client.produce(9, "t", 0, &single(noise(1, 30_000))).await?;
    ensure_eq!((error, base), (STORAGE_ERROR, -1), "answer for a key that is taken");
    ensure_eq!(scene.brokers.cluster().count(0), 0, "Produce requests at the broker");
    scene.s3.always(Kind::Put, Fault::None);
    scene.take(0, &single(noise(1, 30_000))).await?;
    scene.is_sound("keys that are taken", 0).await
}

#[tokio::test]
async fn a_key_that_is_taken_by_nothing_of_ours_is_refused() -> Checked {
    a_taken_key_is_no_stored_value(None).await
}

/// The store is away: nothing is forwarded, clients get a retriable error soon; then it is back.
#[tokio::test]
async fn a_store_that_is_away_costs_no_record_and_no_long_wait() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    scene.s3.always(Kind::Put, Fault::Status(503, "SlowDown"));
    let sent = single(noise(1, 30_000));
    let mut refused = 0;
    for _ in 0..20 {
        let (error, _) = scene.client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, STORAGE_ERROR, "error while the store is away");
        refused += 1;
    }
    let asked = scene.s3.count(Kind::Put);
    ensure!(asked < 20, "the store that is away was asked {asked} times for {refused} requests");
    ensure_eq!(scene.brokers.cluster().count(0), 0, "Produce requests at the broker");
    // Small values do not need it.
    scene.take(0, &single(noise(2, 100))).await?;
    scene.s3.always(Kind::Put, Fault::None);
    let taken = until("a store that is back", async || {
        let (error, base) = scene.client.produce(9, "t", 0, &sent).await.ok()?;
        (error == 0).then_some(base)
    });
    let base = taken.await?;
    ensure_eq!(base, 1, "offset once the store is back");
    scene.ledger.acknowledged("t", 0, base, &sent);
    scene.reads(base, &sent, "once the store is back").await?;
    scene.is_sound("a store that was away", 0).await
}

/// `on_store_failure = "inline"`: the original goes on if brokers take it, but never a value that
/// looks like a reference.
pub async fn inline_lets_originals_through_but_no_forgery(faults: Faults) -> Checked {
    let rule =
        |setup: Setup| setup.rule("on_store_failure = \"inline\"").rule("inline_bytes_max = 50000");
    let mut scene = scene(faults, rule).await?;
    scene.s3.always(Kind::Put, Fault::Status(503, "SlowDown"));
    let sent = single(noise(1, 30_000));
    let base = scene.take(0, &sent).await?;
    scene.reads(base, &sent, "inline").await?;
    ensure_eq!(scene.count("inline").await?, 1.0, "batches counted as inline");
    let (error, _) = scene.client.produce(9, "t", 0, &single(noise(2, 60_000))).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of a batch that brokers would refuse");
    let forged = [&[0xfb, b'R', b'E', b'F'][..], &noise(3, 20_000)].concat();
    let (error, _) = scene.client.produce(9, "t", 0, &single(forged)).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of a value that looks like a reference");
    ensure_eq!(scene.brokers.cluster().count(0), 1, "Produce requests at the broker");
    scene.is_sound("originals inline", 0).await
}

#[tokio::test]
async fn a_store_failure_inline_lets_originals_through_but_no_forgery() -> Checked {
    inline_lets_originals_through_but_no_forgery(None).await
}

/// Values of one batch lie in one pack, and reading them back takes one request.
pub async fn values_of_a_batch_are_read_at_once(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let large: Vec<_> = (0..40).map(|n| noise(n, 20_000)).collect();
    let sent = records(&large);
    scene.take(0, &batch(Codec::None, Framing::Plain, &sent)).await?;
    ensure_eq!(scene.s3.objects().len(), 1, "objects");
    let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == sent, "records differ");
    let hedged = scene.proxy.metric("firebreak_offload_hedged_total").await?;
    let reads = scene.s3.count(Kind::Get) as f64 - hedged;
    ensure_eq!(reads, 1.0, "reads of the store for 40 values");
    Ok(())
}

#[tokio::test]
async fn values_of_one_batch_lie_in_one_pack_and_are_read_at_once() -> Checked {
    values_of_a_batch_are_read_at_once(None).await
}

#[tokio::test]
async fn long_values_lie_alone_and_the_longest_go_in_parts() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    let large = vec![noise(1, 20_000), noise(2, 9_000_000), noise(3, 34_000_000), noise(4, 5000)];
    let sent = records(&large);
    scene.take(0, &batch(Codec::None, Framing::Plain, &sent)).await?;
    let mut sizes: Vec<_> =
        scene.s3.objects().values().map(|object| values(object).len()).collect();
    sizes.sort_unstable();
    ensure_eq!(sizes, [1, 1, 2], "values by object");
    ensure!(scene.s3.count(Kind::Put) >= 5, "{} PUTs, no parts", scene.s3.count(Kind::Put));
    let (error, section) = scene.client.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == sent, "records differ");
    // A part that fails for good leaves nothing behind.
    scene.s3.always(Kind::Put, Fault::Status(403, "AccessDenied"));
    let (error, _) = scene.client.produce(9, "t", 0, &single(noise(5, 33_000_000))).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of Produce with a part that is refused");
    let gone = async || (scene.s3.parts_left() == 0).then_some(());
    until("an end of the parts that were stored", gone).await
}

/// A part that is never answered has its attempt given up: what is stored of it goes, though the
/// first attempt to remove it fails too, and that which came next stays.
pub async fn a_part_that_is_not_answered_leaves_nothing(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    scene.s3.script(Kind::Put, &[Fault::Silent]);
    scene.s3.script(Kind::Abort, &[Fault::Status(503, "SlowDown")]);
    let value = noise(1, 33_600_000);
    scene.take(0, &single(value.clone())).await?;
    ensure!(scene.s3.count(Kind::Put) >= 6, "{} parts", scene.s3.count(Kind::Put));
    let gone = async || (scene.s3.parts_left() == 0).then_some(());
    until("an end of the parts of the late attempt", gone).await?;
    let stored: Vec<_> = scene.s3.objects().values().flat_map(|object| values(object)).collect();
    ensure!(stored == [value], "the value in the store differs");
    ensure!(scene.s3.count(Kind::Abort) >= 2, "the upload was aborted once only");
    Ok(())
}

#[tokio::test]
async fn an_attempt_in_parts_that_is_given_up_leaves_no_parts() -> Checked {
    a_part_that_is_not_answered_leaves_nothing(None).await
}

/// Whoever reads at the tail reads from memory.
pub async fn what_was_just_stored_is_read_from_memory(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup.cache_bytes(8 << 20)).await?;
    let sent = single(noise(1, 300_000));
    scene.take(0, &sent).await?;
    for _ in 0..5 {
        scene.reads(0, &sent, "from memory").await?;
    }
    ensure_eq!(scene.s3.count(Kind::Get), 0, "reads of the store");
    ensure_eq!(scene.cached("hit").await?, 5.0, "values found in memory");
    Ok(())
}

#[tokio::test]
async fn tail_readers_read_what_was_stored_from_memory() -> Checked {
    what_was_just_stored_is_read_from_memory(None).await
}

/// Readers that want one value at the same time read it once.
#[expect(clippy::disallowed_methods, reason = "it is awaited here")]
pub async fn readers_at_once_read_once(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    let sent = single(noise(1, 300_000));
    scene.take(0, &sent).await?;
    scene.s3.always(Kind::Get, Fault::Slow(Duration::from_millis(1500)));
    let mut readers = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(scene.proxy.port).await?;
        let sent = sent.clone();
        readers.push(tokio::spawn(async move {
            let (error, section) = client.fetch(11, "t", 0, 0, ALL).await?;
            ensure_eq!(error, 0, "error of Fetch");
            ensure!(read(&section) == read(&sent), "records differ");
            Ok(())
        }));
    }
    for reader in readers {
        within("a reader", reader).await?.expect("no panic")?;
    }
    let asked = scene.s3.count(Kind::Get);
    ensure!(asked < 4, "16 readers read the store {asked} times");
    Ok(())
}

#[tokio::test]
async fn readers_that_want_one_value_at_once_read_it_once() -> Checked {
    readers_at_once_read_once(None).await
}

/// A reader that goes away while it reads for others leaves them their value.
#[tokio::test]
async fn a_reader_that_leaves_does_not_take_the_value_from_others() -> Checked {
    let mut scene = scene(None, |setup| setup).await?;
    let sent = single(noise(1, 300_000));
    scene.take(0, &sent).await?;
    scene.s3.always(Kind::Get, Fault::Slow(Duration::from_secs(3)));
    let mut first = Client::connect(scene.proxy.port).await?;
    first.send(1, 11, &fetch(11, "t", &[(0, 0)], ALL)).await?;
    until("a read under way", async || (scene.s3.count(Kind::Get) > 0).then_some(())).await?;
    let mut second = Client::connect(scene.proxy.port).await?;
    let correlation = second.send(1, 11, &fetch(11, "t", &[(0, 0)], ALL)).await?;
    until("a second reader", async || (scene.cached("joined").await.ok()? > 0.0).then_some(()))
        .await?;
    drop(first);
    let answer: FetchResponse = answer(&second.receive().await?, 11, correlation)?;
    let (_, error, section) = fetched(answer)?.remove(0);
    ensure_eq!(error, 0, "error of Fetch");
    ensure!(read(&section) == read(&sent), "records differ");
    Ok(())
}

/// Pipelined requests store side by side and reach the broker in the order they were sent.
pub async fn pipelined_uploads_overlap_in_order(faults: Faults) -> Checked {
    let mut scene = scene(faults, |setup| setup).await?;
    // The first takes longest.
    let times = [3500, 2500, 1500, 0].map(|ms| Fault::Slow(Duration::from_millis(ms)));
    scene.s3.script(Kind::Put, &times);
    let sent: Vec<_> = (0..4).map(|n| single(noise(n, 30_000))).collect();
    // A small one behind them waits for its turn.
    let small = single(noise(9, 100));
    let mut asked = Vec::new();
    for batch in sent.iter().chain([&small]) {
        let request = produce(9, -1, "t", &[(0, batch.clone())]);
        asked.push(scene.client.send(0, 9, &request).await?);
    }
    let there = until("four uploads", async || {
        (scene.s3.count(Kind::Put) == 4).then(|| scene.s3.objects().len())
    });
    let there = there.await?;
    ensure!(there <= 1, "{there} objects there when the last upload began");
    for (n, correlation) in (0..).zip(asked) {
        let answer: ProduceResponse = answer(&scene.client.receive().await?, 9, correlation)?;
        let partition = &answer.responses[0].partition_responses[0];
        ensure_eq!((partition.error_code, partition.base_offset), (0, n), "error and offset");
    }
    for (n, batch) in (0..).zip(sent.iter().chain([&small])) {
        scene.reads(n, batch, "in order").await?;
    }
    Ok(())
}

#[tokio::test]
async fn uploads_of_pipelined_requests_overlap_and_are_forwarded_in_order() -> Checked {
    pipelined_uploads_overlap_in_order(None).await
}

/// A store that cannot be asked is told at the start, and what is not stored is served all the
/// same.
pub async fn a_store_that_refuses_is_told_at_the_start(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    s3.refuse(true);
    let proxy = Setup::new(&brokers, faults).offload_s3(&s3, 1000).start().await;
    until("a line about the store", async || {
        (proxy.logged("the object store cannot be asked") > 0).then_some(())
    })
    .await?;
    let (code, why) = proxy.admin("/readyz").await?;
    ensure_eq!(code, 200, "code of /readyz: {why}");
    let mut client = Client::connect(proxy.port).await?;
    let (error, _) = client.produce(9, "t", 0, &single(noise(1, 100))).await?;
    ensure_eq!(error, 0, "error of Produce with a small value");
    // Who may only read and write objects is answered.
    s3.refuse(false);
    for kind in [Kind::Head, Kind::List, Kind::Delete, Kind::Uploads, Kind::Abort, Kind::Other] {
        s3.always(kind, Fault::Status(403, "AccessDenied"));
    }
    until("an answer of the store", async || {
        (proxy.logged("the object store answers") > 0).then_some(())
    })
    .await?;
    let (error, _) = client.produce(9, "t", 0, &single(noise(2, 20_000))).await?;
    ensure_eq!(error, 0, "error of Produce with a large value");
    Ok(())
}

#[tokio::test]
async fn a_store_that_refuses_is_told_and_stops_no_small_values() -> Checked {
    a_store_that_refuses_is_told_at_the_start(None).await
}
