//! Kills the proxy again and again under idempotent and transactional load, and shows that nothing
//! is lost, doubled, reordered or torn.
//!
//! Flow: start the proxy, make topics -> producers and a following group -> kill -9 and restart
//! until time is up -> let everything in flight come to an end -> read all through the proxy and
//! compare with what the producers were told -> read all on the broker and count references ->
//! copy a topic by `rehydrate` and read that on the broker, with no proxy.
//! Invariant: every count that must be greater than zero is judged as strictly as those that must
//! be zero, so that a run in which nothing happened fails.

mod bucket;
mod clients;
mod copy;
mod error;
mod idempotent;
mod ledger;
mod load;
mod proxy;
mod random;
mod read;
mod record;
mod report;
mod timeline;
mod transactional;
mod verdict;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser;
use rdkafka::message::Message;

use bucket::Bucket;
use copy::{Comparison, Copied};
use error::{Result, SoakError};
use ledger::{Account, Ledger};
use load::{Journal, LARGE_TOPIC, Load, TRANSACTIONS_TOPIC, Totals};
use proxy::Proxy;
use random::Random;
use read::{InLog, Tail, Visible};
use record::{Identity, PARTITIONS, Sizes};
use verdict::Run;
use verify::{Findings, Verifier};

#[derive(Parser)]
#[command(about = "Kill -9 of the proxy under load: nothing lost, doubled, reordered, torn")]
struct Args {
    /// The proxy's binary.
    #[arg(long)]
    firebreak: PathBuf,
    /// Its configuration: offload for `soak-*`.
    #[arg(long)]
    config: PathBuf,
    /// Its bootstrap address.
    #[arg(long)]
    proxy: SocketAddr,
    /// The brokers' addresses, to look into the log.
    #[arg(long)]
    brokers: String,
    /// Threshold of the offload rule, in bytes.
    #[arg(long)]
    threshold: usize,
    /// Replicas of each partition.
    #[arg(long, default_value_t = 1)]
    replicas: i32,
    /// Folder for the journal, the proxy's log and its pid.
    #[arg(long)]
    dir: PathBuf,
    /// Where the JSON goes.
    #[arg(long)]
    out: PathBuf,
    /// Length of the load.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// Mean time between two kills, in seconds.
    #[arg(long, default_value_t = 5)]
    kill_every: u32,
    /// Seed of sizes, transactions and moments of kills.
    #[arg(long)]
    seed: u64,
    /// Idempotent producers.
    #[arg(long, default_value_t = 4)]
    idempotent: u32,
    /// Records per second of each.
    #[arg(long, default_value_t = 300)]
    records_per_second: u32,
    /// Producers of values of 1-9 MB, and of some longer than 32 MiB, which S3 gets in parts.
    #[arg(long, default_value_t = 0)]
    large: u32,
    /// Records per second of each, small ones among them.
    #[arg(long, default_value_t = 12)]
    large_records_per_second: u32,
    /// Transactional producers.
    #[arg(long, default_value_t = 3)]
    transactional: u32,
    /// Transactions per second of each.
    #[arg(long, default_value_t = 8)]
    transactions_per_second: u32,
    /// The store is the S3 service of MINIO_ENDPOINT, MINIO_ACCESS_KEY, MINIO_SECRET_KEY and
    /// S3_BUCKET: half of the kills wait until parts of a value are sent to it.
    #[arg(long)]
    s3: bool,
    /// Bar for the p99 of the gap, in seconds.
    #[arg(long, default_value_t = 1.5)]
    gap_p99_max: f64,
    /// So many times the p99 of a PUT straight to the S3 service, 4 s at most, the gap may have
    /// besides.
    #[arg(long, default_value_t = 2)]
    puts_allowed: u32,
    /// What librdkafka is to write into the journal besides, as its setting `debug`.
    #[arg(long)]
    client_debug: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match soak(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(args: &Args) -> Result<bool> {
    let load = Arc::new(Load {
        proxy: args.proxy.to_string(),
        seed: args.seed,
        records_per_second: args.records_per_second,
        large: args.large,
        large_records_per_second: args.large_records_per_second,
        transactions_per_second: args.transactions_per_second,
        client_debug: args.client_debug.clone(),
        stop: AtomicBool::new(false),
        huge_wanted: AtomicBool::new(false),
        totals: Totals::default(),
        journal: Journal::open(&args.dir.join("journal.log"))?,
    });
    let (binary, config) = (args.firebreak.clone(), args.config.clone());
    let mut proxy = Proxy::new(binary, config, &args.dir, args.proxy);
    proxy.start()?;
    clients::create_topics(&load, args.replicas)?;
    let producers = args.idempotent + args.large + args.transactional;
    let ledgers: Vec<_> = (0..producers).map(|number| Arc::new(Ledger::new(number))).collect();
    let tail = Arc::new(Mutex::new(Tail::default()));
    let threads = start(args, &load, &ledgers, &tail);
    let watch = args.s3.then(|| {
        let load = load.clone();
        std::thread::spawn(move || bucket::watch(&load))
    });
    let killed = kill(args, &load, &mut proxy, &ledgers);
    load.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| SoakError::Panicked)??;
    }
    let puts = watch.map(|watch| watch.join().map_err(|_| SoakError::Panicked));
    let puts = puts.transpose()?.transpose()?.unwrap_or_default();
    let (begin, end, kills) = killed?;
    load.journal.say("soak", "load ended");

    let accounts: Vec<_> = ledgers.iter().map(|ledger| ledger.account()).collect();
    let Compared { findings, log, large, wanted } = compare(args, &load, &accounts)?;
    // From here on there is no proxy.
    drop(proxy);
    let copied = copy_out(args, &load, &accounts, &wanted).unwrap_or_else(|error| {
        // The other figures are worth showing; that nothing was read fails the run.
        eprintln!("soak: {error}");
        Copied::default()
    });
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    let run = Run {
        accounts: &accounts,
        idempotent: args.idempotent as usize,
        large_producers: args.large as usize,
        copied: &copied,
        puts: &puts,
        gap_p99_max: args.gap_p99_max,
        puts_allowed: args.puts_allowed,
        begin,
        end,
        kills: &kills,
        totals: &load.totals,
        tail: &tail,
        findings: &findings,
        log: &log,
        large,
    };
    run.tell_gaps(&load.journal);
    tell(args, &run.report())
}

/// All threads of the load.
fn start(
    args: &Args,
    load: &Arc<Load>,
    ledgers: &[Arc<Ledger>],
    tail: &Arc<Mutex<Tail>>,
) -> Vec<JoinHandle<Result<()>>> {
    let producers = ledgers.iter().map(|ledger| {
        let (load, ledger) = (load.clone(), ledger.clone());
        let sizes = match ledger.producer {
            producer if producer < args.idempotent => Some(Sizes::Usual),
            producer if producer < args.idempotent + args.large => Some(Sizes::Large),
            _ => None,
        };
        std::thread::spawn(move || match sizes {
            Some(sizes) => idempotent::run(&load, &ledger, sizes),
            None => transactional::run(&load, &ledger),
        })
    });
    let readers = (0..READERS).map(|member| {
        let (load, tail) = (load.clone(), tail.clone());
        std::thread::spawn(move || read::follow(&load, member, &tail))
    });
    producers.chain(readers).collect()
}

/// Kills once every producer is at work; gives the begin and end of that time.
fn kill(
    args: &Args,
    load: &Load,
    proxy: &mut Proxy,
    ledgers: &[Arc<Ledger>],
) -> Result<(Duration, Duration, Vec<proxy::Kill>)> {
    let asked = load.journal.elapsed();
    while ledgers.iter().any(|ledger| ledger.acknowledged() == 0) {
        if load.journal.elapsed() - asked > WARM_MAX {
            let what = "an acknowledgement of every producer".to_owned();
            return Err(SoakError::Stuck { what, after: WARM_MAX, why: String::new() });
        }
        std::thread::sleep(WARM_PAUSE);
    }
    let begin = load.journal.elapsed();
    let end = begin + Duration::from_secs(args.seconds.into());
    let period = Duration::from_secs(args.kill_every.into());
    let mut random = Random::new(args.seed, u64::MAX);
    let bucket = args.s3.then(Bucket::open).transpose()?;
    let aim = |random: &mut Random| args.large > 0 && aim(load, bucket.as_ref(), random);
    load.journal.say("soak", "every producer is at work");
    let kills = proxy.kill_until(end, period, (&mut random, &load.journal), aim)?;
    Ok((begin, end, kills))
}

/// Has a value produced that is stored in parts, and waits until a part of it may be on its way;
/// true if it is. A local store has no parts: there it waits a moment, in which it may be written.
fn aim(load: &Load, bucket: Option<&Bucket>, random: &mut Random) -> bool {
    let mut pause = |max_ms| std::thread::sleep(Duration::from_millis(random.between(0, max_ms)));
    let Some(bucket) = bucket else {
        load.huge_wanted.store(true, Ordering::Relaxed);
        pause(LOCAL_AIM_MS);
        return false;
    };
    let Ok(known) = bucket.uploads() else { return false };
    load.huge_wanted.store(true, Ordering::Relaxed);
    let begun = bucket.begins(&known, AIM_MAX);
    pause(AIM_MS);
    begun
}

/// What both readings of everything gave.
struct Compared {
    findings: Findings,
    log: InLog,
    large: u64,
    /// Who is where in the topic that is to be copied, by partition.
    wanted: Vec<Vec<Identity>>,
}

/// Reads all topics through the proxy, then on the brokers.
fn compare(args: &Args, load: &Arc<Load>, accounts: &[Account]) -> Result<Compared> {
    let mut verifier = Verifier::new(accounts);
    let mut log = InLog::default();
    let mut large = 0;
    let mut wanted = vec![Vec::new(); usize::try_from(PARTITIONS).unwrap_or(0)];
    for &topic in load.topics() {
        let mut shown = Visible::new();
        read::whole_topic(&load.proxy, topic, "read_committed", load, |message| {
            let place = (message.partition(), message.offset());
            let identity = verifier.record(place, message.key(), message.payload());
            if topic == to_copy(load)
                && let Some(identity) = identity
            {
                wanted[usize::try_from(place.0).unwrap_or(0)].push(identity);
            }
            shown.insert(place, message.payload_len() > args.threshold);
        })?;
        large += shown.values().filter(|is_large| **is_large).count() as u64;
        read::whole_topic(&args.brokers, topic, "read_uncommitted", load, |message| {
            let place = (message.partition(), message.offset());
            log.record(&shown, place, message.payload().unwrap_or_default());
        })?;
    }
    load.journal.say("soak", "everything read");
    Ok(Compared { findings: verifier.finish(), log, large, wanted })
}

/// The topic that is copied: the one with the large values, if there is one.
fn to_copy(load: &Load) -> &'static str {
    if load.large > 0 { LARGE_TOPIC } else { TRANSACTIONS_TOPIC }
}

/// Copies a topic, reads the copy on the brokers and compares it with what was produced.
fn copy_out(
    args: &Args,
    load: &Arc<Load>,
    accounts: &[Account],
    wanted: &[Vec<Identity>],
) -> Result<Copied> {
    let restored = copy::rehydrate(&args.firebreak, &args.config, to_copy(load), COPY)?;
    load.journal.say("soak", "a topic copied");
    let mut comparison = Comparison::new(accounts, wanted, restored);
    read::whole_topic(&args.brokers, COPY, "read_committed", load, |message| {
        let place = (message.partition(), message.offset());
        comparison.record(place, message.key(), message.payload());
    })?;
    Ok(comparison.finish())
}

/// Prints the table, writes the JSON; true if every bar holds.
fn tell(args: &Args, report: &report::Report) -> Result<bool> {
    let Args { seconds, kill_every, seed, idempotent, large, transactional, .. } = args;
    let (records, transactions) = (args.records_per_second, args.transactions_per_second);
    let large_records = args.large_records_per_second;
    let librdkafka = rdkafka::util::get_rdkafka_version().1;
    println!(
        "soak: {seconds} s, kill -9 about every {kill_every} s, seed {seed}, librdkafka \
         {librdkafka}\n  {idempotent} idempotent producers x {records} records/s, {large} of large \
         values x {large_records} records/s,\n  {transactional} transactional x {transactions} \
         transactions/s, {READERS} readers"
    );
    if args.s3 {
        let (base, puts) = (args.gap_p99_max, args.puts_allowed);
        println!(
            "  gap p99: {base} s and {puts} x the p99 of a PUT straight to the S3 service: values \
             in flight\n  at a kill are stored again before anything behind them is acknowledged"
        );
    }
    print!("{}", report.table());
    let mut json = report.json();
    json["seconds"] = (*seconds).into();
    json["kill_every"] = (*kill_every).into();
    json["seed"] = (*seed).into();
    json["replicas"] = args.replicas.into();
    json["large"] = (*large).into();
    json["s3"] = args.s3.into();
    json["gap_p99_max_s"] = args.gap_p99_max.into();
    json["puts_allowed"] = args.puts_allowed.into();
    json["librdkafka"] = librdkafka.into();
    std::fs::write(&args.out, format!("{json:#}\n"))
        .map_err(SoakError::io(args.out.display().to_string()))?;
    Ok(report.passed())
}

const READERS: u32 = 2;
/// No rule of the proxy's fits it, so that nothing of it is looked for in the store.
const COPY: &str = "copy-of-soak";
/// How long a kill waits for an upload in parts.
const AIM_MAX: Duration = Duration::from_secs(3);
/// And then, so that some parts are there already.
const AIM_MS: u64 = 60;
const LOCAL_AIM_MS: u64 = 600;
const WARM_MAX: Duration = Duration::from_secs(60);
const WARM_PAUSE: Duration = Duration::from_millis(50);
