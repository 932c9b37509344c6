//! Mutants over sockets: from clients, and from a broker towards clients, into a running proxy with
//! offload on, while a good client writes and reads.
//!
//! `FIREBREAK_MUTANTS` says how many (the short form without it), `FIREBREAK_SEED` which ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::api;
use protocol_ext::header::HEAD_BYTES;
use protocol_ext::hostile::mutate::Mutator;
use protocol_ext::hostile::random::Random;
use protocol_ext::hostile::{Frame, corpus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::parrot::{Parrot, Versions};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{read, single};
use crate::harness::{Checked, ensure, ensure_eq, failure, noise};

const MUTANTS: u64 = 30_000;
const SEED: u64 = 20_260_728;
const MIB: usize = 1 << 20;
const BUDGET: usize = 32 * MIB;
/// The budget, and what the process needs besides.
const RESIDENT_BYTES_MAX: usize = BUDGET + 60 * MIB;
/// Clients that send mutants, and clients that ask the broker that answers with them: many, since
/// what is never answered, or never whole, is waited for by one of them.
const LIARS: u64 = 32;
/// Frames of one connection: what a mutant breaks takes the rest with it.
const FRAMES_AT_ONCE: u64 = 4;
const ANSWERS_MAX: Duration = Duration::from_secs(20);
/// Mutants of one side in which every API and version must occur.
const ENOUGH_FOR_ALL: u64 = 100_000;
/// One frame in so many has a length that lies.
const LIES_ABOUT_LENGTHS: usize = 40;

struct Load {
    seed: u64,
    wanted: u64,
    requests: Vec<Frame>,
    sent: AtomicU64,
    /// APIs and versions of mutants that were sent.
    mutated: Versions,
    over: AtomicBool,
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}

/// Sends bytes, closes the sending side and reads whatever comes.
pub async fn spend(port: u16, bytes: &[u8]) -> Checked {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(failure)?;
    let talk = async {
        // The proxy may have closed before the last byte; that is its right.
        if stream.write_all(bytes).await.is_ok() && stream.shutdown().await.is_ok() {
            let mut sink = vec![0; 16 * 1024];
            while matches!(stream.read(&mut sink).await, Ok(1..)) {}
        }
    };
    let late = |_| failure(format!("no close within {ANSWERS_MAX:?} of {} bytes", bytes.len()));
    tokio::time::timeout(ANSWERS_MAX, talk).await.map_err(late)
}

fn put(out: &mut Vec<u8>, frame: &[u8], random: &mut Random, lies: bool) {
    let mut length = i32::try_from(frame.len()).unwrap_or(i32::MAX);
    if lies && random.one_in(LIES_ABOUT_LENGTHS) {
        length = [0, 7, -1, i32::MIN, i32::MAX, 8 << 20, length + 1, length - 1][random.below(8)];
    }
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(frame);
}

/// Mutants of requests, connection by connection.
async fn lying_client(load: Arc<Load>, port: u16) -> Checked {
    let mut mutator = Mutator::default();
    loop {
        let first = load.sent.fetch_add(FRAMES_AT_ONCE, Ordering::Relaxed);
        if first >= load.wanted {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for n in first..first + FRAMES_AT_ONCE {
            let mut random = Random::new(load.seed, n);
            let frame = random.pick(&load.requests).expect("requests");
            load.mutated.note(frame.api, frame.version);
            let other = random.pick(&load.requests).expect("requests");
            let mutant = mutator.mutant(&mut random, &frame.bytes, HEAD_BYTES, &other.bytes);
            put(&mut bytes, &mutant, &mut random, true);
        }
        spend(port, &bytes).await?;
    }
}

/// Sound requests to the broker that answers with mutants.
async fn asking_client(load: Arc<Load>, port: u16, seed: u64, answers: Arc<AtomicU64>) -> Checked {
    let mut n = 0;
    while answers.load(Ordering::Relaxed) < load.wanted {
        let mut random = Random::new(seed, n);
        n += 1;
        let mut bytes = Vec::new();
        for _ in 0..FRAMES_AT_ONCE {
            let frame = random.pick(&load.requests).expect("requests");
            put(&mut bytes, &frame.bytes, &mut random, false);
        }
        spend(port, &bytes).await?;
    }
    Ok(())
}

/// Writes and reads, values above the threshold and below; gives how often it was served.
async fn good_client(load: Arc<Load>, port: u16) -> Checked<(u64, Duration)> {
    let mut client = Client::connect(port).await?;
    let (mut served, mut slowest) = (0, Duration::ZERO);
    while !load.over.load(Ordering::Relaxed) {
        let started = tokio::time::Instant::now();
        let size = [200, 5_000, 70_000][usize::try_from(served % 3).map_err(failure)?];
        let sent = single(noise(served + 1, size));
        let (error, base) = client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, 0, "error of Produce {served}");
        let (error, got) = client.fetch(11, "t", 0, base, 1 << 20).await?;
        ensure_eq!(error, 0, "error of Fetch {served}");
        let (sent, got) = (read(&sent), read(&got));
        let value = |records: &[crate::harness::records::Record]| {
            records.first().and_then(|record| record.value.clone())
        };
        ensure!(value(&got) == value(&sent), "value {served} differs");
        client.metadata(12).await?;
        served += 1;
        slowest = slowest.max(started.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((served, slowest))
}

/// The samples of a counter by their labels.
pub async fn counts(proxy: &Proxy, name: &str) -> Checked<BTreeMap<String, u64>> {
    let (_, text) = proxy.admin("/metrics").await?;
    let samples = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    let value = |text: &str| text.parse().unwrap_or(0);
    Ok(samples.map(|(labels, n)| (labels.to_owned(), value(n))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutants_of_clients_and_brokers_end_their_own_connections_and_nothing_else() -> Checked {
    let (seed, mutants) = (number("FIREBREAK_SEED", SEED), number("FIREBREAK_MUTANTS", MUTANTS));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol-ext/tests/golden");
    let frames = corpus::all(golden.as_ref()).map_err(failure)?;
    let brokers = Brokers::start(1).await;
    let lying = Parrot::start(&brokers, 1, &frames, Some(seed)).await;
    let _calm = Parrot::start(&brokers, 2, &frames, None).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, None).offload(&store, 1000);
    let setup = setup.limit("frame_bytes_max = 8388608");
    let setup = setup.limit(&format!("buffered_bytes_max = {BUDGET}"));
    let proxy = setup.start().await;
    let served = |frame: &Frame| frame.request && api::is_servable(frame.api, frame.version);
    let load = Arc::new(Load {
        seed,
        wanted: mutants / 2,
        requests: frames.iter().filter(|frame| served(frame)).cloned().collect(),
        sent: AtomicU64::new(0),
        mutated: Versions::default(),
        over: AtomicBool::new(false),
    });
    let mut good = JoinSet::new();
    good.spawn(good_client(load.clone(), proxy.node(0)));
    let started = tokio::time::Instant::now();
    let mut liars = JoinSet::new();
    for n in 0..LIARS {
        liars.spawn(lying_client(load.clone(), proxy.node(2)));
        let answers = lying.answers.clone();
        liars.spawn(asking_client(load.clone(), proxy.node(1), seed ^ (n + 1), answers));
    }
    while let Some(ended) = liars.join_next().await {
        ended.map_err(failure)??;
    }
    let took = started.elapsed();
    load.over.store(true, Ordering::Relaxed);
    judge(&proxy, &load, &lying, took).await?;
    let good = good.join_next().await.ok_or_else(|| failure("no good client"))?;
    let (served, slowest) = good.map_err(failure)??;
    println!("good client: {served} times served, slowest {slowest:?}");
    ensure!(served > 10, "a good client was served {served} times");
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 0.0).await?;
    proxy.metric_becomes("firebreak_connections{side=\"broker\"}", 0.0).await
}

/// What must hold when all mutants are spent.
async fn judge(proxy: &Proxy, load: &Load, lying: &Parrot, took: Duration) -> Checked {
    let sent = load.sent.load(Ordering::Relaxed).min(load.wanted);
    let answered = lying.answers.load(Ordering::Relaxed);
    let closes = counts(proxy, "firebreak_errors_total").await?;
    let requests = counts(proxy, "firebreak_requests_total").await?;
    let opened: u64 = requests.values().sum();
    let refused: u64 =
        closes.iter().filter(|(kind, _)| kind.contains("client")).map(|(_, n)| n).sum();
    let (resident, lines) = (proxy.resident_bytes_max() / MIB, proxy.log().lines().count());
    println!("seed {}: {sent} mutants of requests, {answered} of answers, {took:.1?}", load.seed);
    println!(
        "{opened} requests opened, {refused} refused; resident {resident} MiB at most, allowed {} \
         (budget {}); {lines} lines of log",
        RESIDENT_BYTES_MAX / MIB,
        BUDGET / MIB
    );
    every_version(load, lying)?;
    for (kind, n) in &closes {
        println!("    {kind} {n}");
    }
    ensure_eq!(proxy.logged("panicked at"), 0, "panics");
    let ours: Vec<_> = closes.keys().filter(|labels| labels.contains("\"filter\"")).collect();
    ensure!(ours.is_empty(), "what peers did is called the proxy's fault: {ours:?}");
    ensure!(resident <= RESIDENT_BYTES_MAX / MIB, "{resident} MiB resident");
    // Ten at once and one a second of each kind, the start, and what is told of those left out.
    let seconds = usize::try_from(took.as_secs()).map_err(failure)?;
    let lines_max = 30 + (closes.len() + 6) * (12 + seconds) * 2;
    ensure!(lines <= lines_max, "{lines} lines in {seconds} s");
    for kind in ["not_offered", "request", "frame_length", "response", "order", "response_length"] {
        let some =
            closes.iter().any(|(labels, n)| labels.contains(&format!("\"{kind}\"")) && *n > 0);
        ensure!(some, "no close of kind {kind}");
    }
    Ok(())
}

/// Each API and version lied, from clients and from the broker.
fn every_version(load: &Load, lying: &Parrot) -> Checked {
    let known: BTreeSet<_> = load.requests.iter().map(|f| (f.api, f.version)).collect();
    let apis = |of: &BTreeSet<(i16, i16)>| of.iter().map(|(api, _)| *api).collect::<BTreeSet<_>>();
    let lied = [&load.mutated, &lying.answered].map(Versions::seen);
    let [requests, answers] = &lied;
    println!(
        "APIs and versions: {} and {} of requests, {} and {} of answers, {} and {} in all",
        apis(requests).len(),
        requests.len(),
        apis(answers).len(),
        answers.len(),
        apis(&known).len(),
        known.len()
    );
    let unasked: Vec<_> = known.difference(answers).collect();
    println!("never asked of the broker that lies: {unasked:?}");
    // ApiVersions above 4 is answered here.
    let hidden = |api: i16, version: i16| api == 18 && version > 4;
    let lost: Vec<_> = unasked.iter().filter(|(api, version)| !hidden(*api, *version)).collect();
    ensure!(load.wanted < ENOUGH_FOR_ALL || lost.is_empty(), "{lost:?} never asked");
    let missing: Vec<_> = known.difference(requests).collect();
    let enough = load.wanted >= ENOUGH_FOR_ALL;
    ensure!(!enough || missing.is_empty(), "{missing:?} never lied");
    Ok(())
}

/// Bytes that a broker sends in place of answers to the proxy's own questions.
#[tokio::test]
async fn nonsense_in_answer_to_the_proxys_own_questions_is_survived() -> Checked {
    use protocol_ext::fake_broker::Fault;
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).refresh_ms(20).start().await;
    for n in 0..6 {
        let mut random = Random::new(9, n);
        let size = 8 + random.below(200);
        let mut answer: Vec<u8> = (0..size).map(|_| random.byte()).collect();
        let length = u32::try_from(answer.len() - 4).map_err(failure)?;
        answer[..4].copy_from_slice(&length.to_be_bytes());
        let fault = match n % 3 {
            0 => Fault::Instead(Bytes::from(answer)),
            1 => Fault::Truncated(random.below(60)),
            _ => Fault::Length([i32::MAX, -1, 0, 3][random.below(4)]),
        };
        brokers.cluster().script(if n % 2 == 0 { 3 } else { 18 }, fault);
    }
    // Whatever goes wrong, the proxy asks anew on a new connection.
    let asked = async || (brokers.cluster().count(18) > 6).then_some(());
    crate::harness::until("questions of the proxy", asked).await?;
    ensure_eq!(proxy.logged("panicked at"), 0, "panics");
    let ready = async || proxy.admin("/readyz").await.is_ok_and(|(c, _)| c == 200).then_some(());
    crate::harness::until("ready again", ready).await?;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    Ok(())
}
