//! The Redis in which proxies share values: it saves reads of the store, and nothing that it does,
//! says or leaves unsaid is seen by a client.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::crc32c;
use protocol_ext::codec::{Codec, Framing};

use crate::harness::aged::aged;
use crate::harness::broker::Brokers;
use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::hole::Hole;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{batch, read, records, single, sound};
use crate::harness::redis::{Cut, Redis, Slow};
use crate::harness::s3::{Kind, S3};
use crate::harness::{Checked, Failure, Faults, ensure, ensure_eq, failure, noise, until, within};

const THRESHOLD: usize = 1000;
const STORAGE_ERROR: i16 = 56;
const ALL: i32 = i32::MAX;
const PASSWORD: &str = "hush-hush-4711";
const WRONG_PASSWORD: &str = "guess-guess-4712";

/// Two proxies before one cluster, one store and one Redis. No proxy keeps values itself.
struct Scene {
    brokers: Brokers,
    s3: S3,
    redis: Redis,
    first: Proxy,
    second: Proxy,
    writer: Client,
    reader: Client,
}

/// What a store says of a Redis; no test passes or fails by a shorter time.
fn at(url: &str, more: &str) -> String {
    format!("redis = {{ url = {url:?}, timeout_ms = 5000{more} }}")
}

async fn scene(faults: Faults) -> Checked<Scene> {
    scene_with(faults, Redis::start().await?, |redis| at(&redis.url(), "")).await
}

async fn scene_with(
    faults: Faults,
    redis: Redis,
    line: impl Fn(&Redis) -> String,
) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let setup = |line: &str| Setup::new(&brokers, faults).offload_s3(&s3, THRESHOLD).store(line);
    let setups = [setup(&at(&redis.url(), "")), setup(&line(&redis))];
    let (first, second) = tokio::join!(setups[0].start(), setups[1].start());
    for proxy in [&first, &second] {
        connected(proxy, 1.0).await?;
    }
    let writer = Client::connect(first.port).await?;
    let reader = Client::connect(second.port).await?;
    Ok(Scene { brokers, s3, redis, first, second, writer, reader })
}

async fn connected(proxy: &Proxy, times: f64) -> Checked {
    proxy.metric_becomes(&name("connect", "done"), times).await
}

fn name(op: &str, outcome: &str) -> String {
    format!("firebreak_shared_cache_total{{op=\"{op}\",outcome=\"{outcome}\"}}")
}

async fn count(proxy: &Proxy, op: &str, outcome: &str) -> Checked<f64> {
    proxy.metric(&name(op, outcome)).await
}

/// Values of a batch that one question has room for: 10 of these.
fn many() -> Vec<Vec<u8>> {
    (0..40).map(|n| noise(n, 100_000)).collect()
}

fn together(values: &[Vec<u8>]) -> Bytes {
    batch(Codec::None, Framing::Plain, &records(values))
}

impl Scene {
    /// Writes a batch through the one proxy, and waits until so many values in all are in Redis.
    async fn share(&mut self, partition: i32, sent: &Bytes, values: f64) -> Checked {
        self.write(partition, sent).await?;
        self.first.metric_becomes(&name("put", "done"), values).await
    }

    async fn write(&mut self, partition: i32, sent: &Bytes) -> Checked {
        let (error, _) = self.writer.produce(9, "t", partition, sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        Ok(())
    }

    /// Reads a batch through the other one, and expects it.
    async fn reads(&mut self, partition: i32, sent: &Bytes) -> Checked {
        reads(&mut self.reader, partition, sent).await
    }

    fn gets(&self) -> usize {
        self.s3.count(Kind::Get)
    }
}

async fn reads(client: &mut Client, partition: i32, sent: &Bytes) -> Checked {
    reads_of(client, ("t", partition), sent).await
}

async fn reads_of(client: &mut Client, (topic, partition): (&str, i32), sent: &Bytes) -> Checked {
    let (error, section) = client.fetch(11, topic, partition, 0, ALL).await?;
    ensure_eq!(error, 0, "error of Fetch");
    let values = |section: &Bytes| read(section).into_iter().map(|record| record.value);
    let same = sound(&section) && values(&section).eq(values(sent));
    ensure!(same, "values differ from those sent");
    Ok(())
}

/// What one proxy has stored another one restores without a read of the store.
pub async fn what_was_stored_needs_no_store(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let sent = together(&[noise(1, 5000), noise(2, 300_000), noise(3, 900_000)]);
    scene.share(0, &sent, 3.0).await?;
    scene.reads(0, &sent).await?;
    ensure_eq!(scene.gets(), 0, "reads of the store");
    ensure_eq!(count(&scene.second, "get", "hit").await?, 3.0, "values found");
    let shared = "firebreak_offload_cache_total{result=\"shared\"}";
    ensure_eq!(scene.second.metric(shared).await?, 3.0, "values counted as shared");
    let ttl: i64 = scene.redis.ask(&["TTL", &scene.redis.all().await?[0].0]).await?;
    ensure!((1..=3600).contains(&ttl), "{ttl} s until it is forgotten");
    // Longer ones are not shared.
    let long = single(noise(4, 1_100_000));
    scene.write(1, &long).await?;
    scene.reads(1, &long).await?;
    ensure_eq!(scene.gets(), 1, "reads of the store for a long value");
    ensure_eq!(scene.redis.all().await?.len(), 3, "values in Redis");
    Ok(())
}

#[tokio::test]
async fn a_second_proxy_restores_what_the_first_one_stored_without_the_store() -> Checked {
    what_was_stored_needs_no_store(None).await
}

/// What one proxy has read from the store another one need not.
pub async fn what_was_read_needs_no_store(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let sent = single(noise(1, 300_000));
    scene.share(0, &sent, 1.0).await?;
    let _: String = scene.redis.ask(&["FLUSHALL"]).await?;
    scene.reads(0, &sent).await?;
    ensure_eq!(scene.gets(), 1, "reads of the store");
    scene.second.metric_becomes(&name("put", "done"), 1.0).await?;
    reads(&mut scene.writer, 0, &sent).await?;
    ensure_eq!(scene.gets(), 1, "reads of the store by both");
    ensure_eq!(count(&scene.second, "get", "miss").await?, 1.0, "values not found");
    Ok(())
}

#[tokio::test]
async fn what_one_proxy_reads_from_the_store_another_one_need_not() -> Checked {
    what_was_read_needs_no_store(None).await
}

#[tokio::test]
async fn values_are_shared_in_tls() -> Checked {
    let authority = Authority::new("cache authority");
    let redis = Redis::start_in_tls(&authority).await?;
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let line = at(&redis.url(), &format!(", ca = {:?}", redis.ca()));
    let setup = Setup::new(&brokers, None).offload_s3(&s3, THRESHOLD).store(&line);
    let proxy = setup.start().await;
    connected(&proxy, 1.0).await?;
    let mut client = Client::connect(proxy.port).await?;
    let sent = single(noise(1, 300_000));
    let (error, _) = client.produce(9, "t", 0, &sent).await?;
    ensure_eq!(error, 0, "error of Produce");
    proxy.metric_becomes(&name("put", "done"), 1.0).await?;
    reads(&mut client, 0, &sent).await?;
    ensure_eq!(s3.count(Kind::Get), 0, "reads of the store");
    Ok(())
}

/// Redis is killed amid reads: they go on through the store, and through Redis once it is back.
pub async fn a_redis_that_dies_costs_no_read(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let sent = together(&many()[..20]);
    scene.share(0, &sent, 20.0).await?;
    for round in 0..30 {
        if round == 10 {
            scene.redis.kill();
        }
        scene.reads(0, &sent).await?;
        if round < 10 {
            ensure_eq!(scene.gets(), 0, "reads of the store while Redis is there");
        }
    }
    ensure!(scene.gets() > 0, "the store was not read though Redis is gone");
    let hits = count(&scene.second, "get", "hit").await?;
    ensure!(hits >= 200.0, "{hits} values came from Redis");
    let (failed, away) =
        (count(&scene.second, "get", "failed").await?, count(&scene.second, "get", "away").await?);
    ensure!(failed + away >= 380.0, "{failed} failed and {away} away of 400 values");
    let told = scene.second.logged("shared cache: done without");
    ensure!(told > 0, "no line about a Redis that is away");
    // It is empty at first.
    scene.redis.again().await?;
    until("a Redis that is used again", async || {
        scene.reads(0, &sent).await.ok()?;
        (count(&scene.second, "get", "hit").await.ok()? > hits).then_some(())
    })
    .await?;
    scene.reads(0, &sent).await
}

#[tokio::test]
async fn a_redis_that_is_killed_amid_reads_costs_none_and_is_used_again() -> Checked {
    a_redis_that_dies_costs_no_read(None).await
}

/// Redis is killed while answers of it to eight readers are half sent: no reader has an error or
/// another value, and each reads on through the store.
#[expect(clippy::disallowed_methods, reason = "it is awaited here")]
pub async fn half_an_answer_costs_no_read(faults: Faults) -> Checked {
    const READERS: u64 = 8;
    /// Of each reader.
    const VALUES: u64 = 10;
    /// So often each reads once Redis is gone.
    const AFTER: usize = 3;
    let redis = Redis::start().await?;
    // All read all of theirs once, and some of it again.
    let cut = Cut::before(&redis, 10_000_001).await;
    let line = at(&format!("redis://127.0.0.1:{}", cut.port), "");
    let mut scene = scene_with(faults, redis, |_| line.clone()).await?;
    scene.brokers.cluster().add_topic("wide", 8);
    let values = |reader: u64| (0..VALUES).map(move |n| noise(reader * VALUES + n, 100_000));
    let sent: Vec<_> = (0..READERS).map(|n| together(&values(n).collect::<Vec<_>>())).collect();
    for (partition, sent) in (0..).zip(&sent) {
        let (error, _) = scene.writer.produce(9, "wide", partition, sent).await?;
        ensure_eq!(error, 0, "error of Produce");
    }
    scene.first.metric_becomes(&name("put", "done"), (READERS * VALUES) as f64).await?;

    let gone = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for (partition, sent) in (0..).zip(sent) {
        let mut client = Client::connect(scene.second.port).await?;
        let gone = gone.clone();
        readers.push(tokio::spawn(async move {
            let (mut all, mut after) = (0, 0);
            while after < AFTER {
                after += usize::from(gone.load(Ordering::Relaxed));
                reads_of(&mut client, ("wide", partition), &sent).await?;
                all += 1;
            }
            Ok::<usize, Failure>(all)
        }));
    }
    until("an answer that is half sent", async || cut.is_over().then_some(())).await?;
    scene.redis.kill();
    gone.store(true, Ordering::Relaxed);
    let mut all = 0;
    for reader in readers {
        all += within("a reader", reader).await?.expect("no panic")?;
    }
    let hits = count(&scene.second, "get", "hit").await?;
    let failed = count(&scene.second, "get", "failed").await?;
    let away = count(&scene.second, "get", "away").await?;
    let gets = scene.gets();
    println!("{all} reads, 0 errors: {hits} values shared, {failed} broken off, {gets} GETs");
    ensure!(hits >= 40.0, "{hits} values came from Redis");
    ensure!(failed >= 1.0, "no answer broke off");
    ensure!(away >= 80.0, "{away} values without a Redis");
    ensure!(gets > 0, "the store was not read");
    Ok(())
}

#[tokio::test]
async fn a_redis_killed_amid_answers_to_eight_readers_costs_none_a_read() -> Checked {
    half_an_answer_costs_no_read(None).await
}

/// What somebody else has written to Redis is given to nobody, counted and replaced.
pub async fn a_planted_value_is_not_given_out(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let values: Vec<_> = (0..5).map(|n| noise(n, 20_000)).collect();
    let sent = together(&values);
    scene.share(0, &sent, 5.0).await?;
    for (n, (key, value)) in scene.redis.all().await?.into_iter().enumerate() {
        ensure!(values.contains(&value), "what is in Redis is none of the values");
        let key = key.as_bytes();
        let planted = match n {
            0 => value.iter().map(|byte| byte ^ 0x55).collect(),
            1 => value[1..].to_vec(),
            2 => [&value[..], b"x"].concat(),
            3 => of_the_same_crc(&value),
            _ => {
                let _: i64 = scene.redis.ask_bytes(&[b"DEL", key]).await?;
                let _: i64 = scene.redis.ask_bytes(&[b"LPUSH", key, b"x"]).await?;
                continue;
            }
        };
        let _: String = scene.redis.ask_bytes(&[b"SET", key, &planted]).await?;
    }
    scene.reads(0, &sent).await?;
    ensure_eq!(count(&scene.second, "get", "wrong").await?, 5.0, "values that are wrong");
    ensure_eq!(count(&scene.second, "get", "hit").await?, 0.0, "values that are right");
    scene.second.metric_becomes(&name("put", "done"), 5.0).await?;
    scene.reads(0, &sent).await?;
    ensure_eq!(count(&scene.second, "get", "hit").await?, 5.0, "values that were replaced");
    // Where the store has none, what is wrong goes all the same.
    let (key, _) = scene.redis.all().await?.swap_remove(0);
    let _: String = scene.redis.ask(&["SET", &key, "planted"]).await?;
    scene.s3.objects().keys().for_each(|object| scene.s3.remove(object));
    let (error, section) = scene.reader.fetch(11, "t", 0, 0, ALL).await?;
    ensure_eq!((error, section.len()), (STORAGE_ERROR, 0), "error and bytes without an object");
    until("removal of what is wrong", async || {
        let there: i64 = scene.redis.ask(&["EXISTS", &key]).await.ok()?;
        (there == 0).then_some(())
    })
    .await
}

/// Other bytes of the same length and CRC-32C: a multiple of its polynomial is added.
fn of_the_same_crc(value: &[u8]) -> Vec<u8> {
    let polynomial = 1 | (0x82f6_3b78_u64 << 1);
    let mut other = value.to_vec();
    for (byte, added) in other[100..].iter_mut().zip(polynomial.to_le_bytes()) {
        *byte ^= added;
    }
    assert!(other != value && crc32c(&other) == crc32c(value), "the CRC differs");
    other
}

#[tokio::test]
async fn what_was_planted_in_redis_is_not_given_out_and_replaced() -> Checked {
    a_planted_value_is_not_given_out(None).await
}

/// However long a value in Redis is, no more is taken of it than was stored.
pub async fn a_planted_length_takes_no_memory(faults: Faults) -> Checked {
    const PLANTED: usize = 200 << 20;
    let mut scene = scene(faults).await?;
    let sent = single(noise(1, 20_000));
    scene.share(0, &sent, 1.0).await?;
    let (key, _) = scene.redis.all().await?.swap_remove(0);
    let _: i64 = scene.redis.ask(&["SETRANGE", &key, &(PLANTED - 1).to_string(), "x"]).await?;
    let before = scene.second.resident_bytes_max();
    scene.reads(0, &sent).await?;
    let more = scene.second.resident_bytes_max() - before;
    ensure!(more < PLANTED / 4, "{more} bytes of memory for a value of 20,000");
    ensure_eq!(count(&scene.second, "get", "wrong").await?, 1.0, "values that are wrong");
    Ok(())
}

#[tokio::test]
async fn the_length_of_what_was_planted_takes_no_memory() -> Checked {
    a_planted_length_takes_no_memory(None).await
}

/// A Redis that says no more is waited for once, not for each value nor by each reader.
pub async fn a_silent_redis_is_waited_for_once(faults: Faults) -> Checked {
    let brief = |redis: &Redis| at(&redis.url(), "").replace("5000", "1000");
    let mut scene = scene_with(faults, Redis::start().await?, brief).await?;
    let sent = together(&many());
    scene.share(0, &sent, 40.0).await?;
    scene.redis.freeze();
    for _ in 0..3 {
        scene.reads(0, &sent).await?;
    }
    let late = count(&scene.second, "get", "late").await?;
    ensure!((1.0..=10.0).contains(&late), "{late} values waited for in vain");
    let away = count(&scene.second, "get", "away").await?;
    ensure_eq!(late + away, 120.0, "values that did not come from Redis");
    scene.redis.thaw();
    connected(&scene.second, 2.0).await?;
    scene.reads(0, &sent).await?;
    ensure_eq!(count(&scene.second, "get", "hit").await?, 40.0, "values found again");
    Ok(())
}

#[tokio::test]
async fn a_redis_that_falls_silent_is_waited_for_once() -> Checked {
    a_silent_redis_is_waited_for_once(None).await
}

/// One that never said anything is not waited for at all, not even by a start.
#[tokio::test]
async fn a_redis_that_never_says_anything_is_not_waited_for() -> Checked {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let (_hole, hole) = Hole::at(([127, 0, 0, 1], 0).into());
    let refused = "127.0.0.1:1".parse().expect("an address");
    for place in [silent.local_addr().expect("bound"), hole, refused] {
        let brokers = Brokers::start(1).await;
        let s3 = S3::start().await;
        let line = at(&format!("redis://{place}"), "");
        let setup = Setup::new(&brokers, None).offload_s3(&s3, THRESHOLD).store(&line);
        let proxy = setup.start().await;
        let mut client = Client::connect(proxy.port).await?;
        let sent = together(&many());
        let (error, _) = client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        reads(&mut client, 0, &sent).await?;
        // They were to be written when they were stored, and again when they were read.
        for (op, values) in [("put", 80.0), ("get", 40.0)] {
            ensure_eq!(count(&proxy, op, "away").await?, values, "values of {op}");
        }
        let told = async || (proxy.logged("shared cache: done without") > 0).then_some(());
        until("a line about a Redis that cannot be reached", told).await?;
    }
    Ok(())
}

/// A Redis that answers slowly is asked until one answer's time is over, then the store is.
pub async fn a_slow_redis_is_not_asked_on(faults: Faults) -> Checked {
    let redis = Redis::start().await?;
    let slow = Slow::before(&redis, Duration::from_millis(1100)).await;
    let line = at(&format!("redis://127.0.0.1:{}", slow.port), "").replace("5000", "3000");
    let mut scene = scene_with(faults, redis, |_| line.clone()).await?;
    let sent = together(&many());
    scene.share(0, &sent, 40.0).await?;
    scene.reads(0, &sent).await?;
    let (hit, busy) =
        (count(&scene.second, "get", "hit").await?, count(&scene.second, "get", "busy").await?);
    ensure!(hit > 0.0, "nothing came from a slow Redis");
    ensure!(busy > 0.0, "{hit} of 40 values were waited for, question by question");
    Ok(())
}

#[tokio::test]
async fn a_redis_that_is_slow_is_not_asked_on_and_on() -> Checked {
    a_slow_redis_is_not_asked_on(None).await
}

/// What is to be written to a Redis that does not take it waits for no more than a bound, and
/// nobody waits for it.
pub async fn the_queue_is_bounded(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.redis.freeze();
    let values: Vec<_> = (0..30).map(|n| noise(n, 1_000_000)).collect();
    let sent = together(&values);
    scene.write(0, &sent).await?;
    let busy = count(&scene.first, "put", "busy").await?;
    ensure!(busy >= 10.0, "{busy} of 30 MB were turned away");
    Ok(())
}

#[tokio::test]
async fn what_waits_for_redis_is_bounded_and_holds_up_no_producer() -> Checked {
    the_queue_is_bounded(None).await
}

/// Readers of what was written long ago ask the store only.
pub async fn old_values_are_not_asked_for(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    let value = noise(1, 20_000);
    scene.share(0, &single(value.clone()), 1.0).await?;
    let stored = {
        let mut cluster = scene.brokers.cluster();
        let log = cluster.log("t", 0).expect("a log");
        log.batches().next().expect("a batch").clone()
    };
    let old = aged(&stored, "t", &scene.s3.key_file())?;
    {
        let mut cluster = scene.brokers.cluster();
        let log = cluster.log("t", 1).expect("a log");
        log.append(&old).expect("a batch");
    }
    scene.reads(1, &single(value)).await?;
    ensure_eq!(scene.gets(), 1, "reads of the store for an old value");
    let asked = count(&scene.second, "get", "hit").await?;
    ensure_eq!(asked, 0.0, "old values that Redis was asked for");
    ensure_eq!(count(&scene.second, "put", "done").await?, 0.0, "old values shared");
    Ok(())
}

#[tokio::test]
async fn what_is_old_is_neither_asked_for_nor_shared() -> Checked {
    old_values_are_not_asked_for(None).await
}

/// The password is used, and shown nowhere: neither the right one nor a wrong one.
pub async fn the_password_is_never_shown(faults: Faults) -> Checked {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        format!(", password_file = {file:?}")
    };
    let (right, wrong) = (file("right", PASSWORD), file("wrong", WRONG_PASSWORD));
    let redis = Redis::start_with_password(PASSWORD).await?;
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let start = async |more: &str| {
        let line = at(&redis.url(), more);
        Setup::new(&brokers, faults).offload_s3(&s3, THRESHOLD).store(&line).start().await
    };
    let proxy = start(&right).await;
    connected(&proxy, 1.0).await?;
    let mut client = Client::connect(proxy.port).await?;
    let sent = single(noise(1, 20_000));
    let (error, _) = client.produce(9, "t", 0, &sent).await?;
    ensure_eq!(error, 0, "error of Produce");
    proxy.metric_becomes(&name("put", "done"), 1.0).await?;
    reads(&mut client, 0, &sent).await?;
    ensure_eq!(s3.count(Kind::Get), 0, "reads of the store");
    let other = start(&wrong).await;
    let refused = async || (other.logged("shared cache: done without") > 0).then_some(());
    until("a line about a wrong password", refused).await?;
    hides(&proxy).await?;
    // Nor by a reload that takes the one for the other, or that has one where none belongs.
    proxy.reload(|toml| toml.replace(&right, &wrong));
    until("the reload", async || (proxy.logged(" reloaded ") > 0).then_some(())).await?;
    for key in ["store.redis.password ", "store.redis.password_file "] {
        proxy.says(&format!("not changed key={key}"), 1).await?;
    }
    let good = std::fs::read_to_string(proxy.config_file()).map_err(failure)?;
    let (url, other_url) = (redis.url(), format!("redis://:{PASSWORD}@127.0.0.1:1"));
    let no_table = format!("redis = \"{other_url}\" #");
    let bad = [
        good.replace(&url, &other_url),
        good.replace(&url, &format!("not-{other_url}")),
        good.replace("redis = {", &no_table),
        good.replace("redis = {", &no_table.replace('"', "")),
    ];
    for (n, text) in bad.into_iter().enumerate() {
        proxy.reload(|_| text);
        let refused = async || (proxy.logged("reload refused") > n).then_some(());
        until("the refusal", refused).await?;
    }
    hides(&proxy).await?;
    hides(&other).await
}

/// Fails if a password is in what a proxy shows.
async fn hides(proxy: &Proxy) -> Checked {
    let mut shown = proxy.log();
    for page in ["/config", "/status", "/metrics", "/readyz"] {
        shown.push_str(&proxy.admin(page).await?.1);
    }
    ensure!(shown.contains("\"password\":\"***\""), "no password is masked: {shown}");
    for secret in [PASSWORD, WRONG_PASSWORD] {
        ensure!(!shown.contains(secret), "{secret:?} is shown");
    }
    Ok(())
}

#[tokio::test]
async fn the_password_of_redis_is_used_and_never_shown() -> Checked {
    the_password_is_never_shown(None).await
}
