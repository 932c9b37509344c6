//! The pure functions of `protocol-ext`, as GB/s and as ratios to `memcpy` of the same buffer.
//!
//! Flow: build the inputs once; then rounds, each running every case for a few milliseconds, the
//! order reversed every second round; print medians. Inputs are named in each row.
//! Invariant: a case's ratio compares with the copy of its own input in the same round. Time is
//! this thread's CPU time, so that a busy machine disturbs caches but not the count.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use protocol_ext::batch::{self, BatchHeader, Batches, Caps, OpenBatch};
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::json::{self, Pointer};
use protocol_ext::reference::{Binding, KeyRing, MacKey, Reference};
use protocol_ext::replace::{RewriteOptions, Rewritten, replace_values};
use protocol_ext::split::{SplitOptions, split};
use protocol_ext::varint;
use serde_json::json;

#[derive(Parser)]
#[command(about = "Record walker, rewriter and splitter against memcpy")]
struct Args {
    /// Rounds; the median is reported.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

struct Case {
    name: String,
    input: &'static str,
    bytes: usize,
    /// Index of the memcpy case of the same buffer.
    baseline: usize,
    run: Box<dyn FnMut()>,
    seconds: Vec<f64>,
}

struct Row {
    name: String,
    input: &'static str,
    bytes: usize,
    micros: f64,
    gb_per_second: f64,
    ratio: f64,
    /// Smallest and largest ratio of the rounds between the quartiles.
    quartiles: (f64, f64),
}

const CAPS: Caps = Caps { body_bytes_max: 64 << 20, rewritten_bytes_max: 64 << 20 };
const ROUND_SECONDS: f64 = 0.004;

fn main() {
    let args = Args::parse();
    let rounds = if args.quick { 7 } else { args.rounds.max(5) };
    let mut cases = cases();
    let repeats: Vec<u32> = cases.iter_mut().map(calibrate).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            let seconds = timed(&mut cases[i], repeats[i]);
            cases[i].seconds.push(seconds);
        }
    }
    let rows: Vec<Row> = cases.iter().map(|case| row(case, &cases)).collect();
    if args.json { print_json(&rows, rounds) } else { print_table(&rows, rounds) }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for input in [
        Input::new("1,000 x 1 KB, none", Codec::None, 1000, 1000),
        Input::new("3,300 x 300 B, none", Codec::None, 3300, 300),
        Input::new("1,000 x 1 KB, lz4", Codec::Lz4, 1000, 1000),
        Input::new("1,000 x 1 KB, zstd", Codec::Zstd, 1000, 1000),
        Input::new("1,000 x 1 KB, snappy", Codec::Snappy, 1000, 1000),
        Input::new("1,000 x 1 KB, gzip", Codec::Gzip, 1000, 1000),
    ] {
        let open = open(&input.batch);
        let plain = input.codec == Codec::None;
        let copied = if plain { input.batch.clone() } else { open.body().clone() };
        let at = baseline(&mut cases, input.name, copied);
        if plain {
            plain_cases(&mut cases, &input, at);
        }
        record_cases(&mut cases, &input, at);
    }
    restore_case(&mut cases);
    region_cases(&mut cases);
    reference_cases(&mut cases);
    cases
}

fn plain_cases(cases: &mut Vec<Case>, input: &Input, at: usize) {
    let bytes = input.batch.clone();
    push(cases, at, "CRC-32C", move || {
        black_box(batch::crc32c(black_box(&bytes)));
    });
    let bytes = input.batch.clone();
    push(cases, at, "batch heads only", move || {
        black_box(Batches::new(black_box(&bytes)).count());
    });
    let open = open(&input.batch);
    push(cases, at, "walk, no candidate", move || {
        let large = black_box(&open).records().filter(|record| {
            record.as_ref().is_ok_and(|r| r.value.is_some_and(|v| v.len() > 100_000))
        });
        black_box(large.count());
    });
}

/// The way back: references become large values. Rates count what comes out.
fn restore_case(cases: &mut Vec<Case>) {
    let name = "8 references -> 8 x 1 MB, none";
    let input = Input::new(name, Codec::None, 8, 112);
    let value = vec![0x5A; 1_000_000];
    let restored = {
        let value = value.clone();
        move |batch: &Bytes| {
            replace_values(batch, &CAPS, &RewriteOptions::default(), |_| Some(&value[..]))
        }
    };
    #[expect(clippy::unwrap_used, reason = "a broken input makes every figure void")]
    let large = restored(&input.batch).unwrap().into_bytes();
    let at = baseline(cases, name, large);
    push(cases, at, "restore, CRC in and out", move || {
        let restored = restored(black_box(&input.batch));
        assert!(black_box(restored).is_ok());
    });
}

/// Rates of these count the uncompressed records, whatever the codec.
fn record_cases(cases: &mut Vec<Case>, input: &Input, at: usize) {
    if input.codec != Codec::None {
        let bytes = input.batch.clone();
        push(cases, at, "open (decompress)", move || {
            black_box(open(black_box(&bytes)));
        });
    }
    let bytes = input.batch.clone();
    push(cases, at, "open, walk, nothing to do", move || {
        black_box(replace_middle(black_box(&bytes), u32::MAX));
    });
    let bytes = input.batch.clone();
    push(cases, at, "rewrite middle -> 112, CRC in and out", move || {
        black_box(replace_middle(black_box(&bytes), 500));
    });
    let bytes = input.batch.clone();
    push(cases, at, "split in 3, CRC in and out", move || {
        let open = open(black_box(&bytes));
        let slot = |index: u32| u8::try_from(index % 3).unwrap_or(0);
        let parts = split(&open, &SplitOptions::default(), |record| slot(record.at.index));
        assert_eq!(black_box(parts).map_or(0, |parts| parts.len()), 3);
    });
}

/// The region of every record by two numbers in its JSON value, wherever in it they stand.
fn region_cases(cases: &mut Vec<Case>) {
    for (input, at_the_end) in
        [("1,000 x 1 KB JSON, place first", false), ("1,000 x 1 KB JSON, place last", true)]
    {
        let batch = located(at_the_end);
        let at = baseline(cases, input, batch.clone());
        let open = open(&batch);
        let Ok(pointers) = ["/latitude", "/longitude"].map(Pointer::parse).into_iter().collect()
        else {
            return;
        };
        let pointers: Vec<Pointer> = pointers;
        push(cases, at, "region by JSON pointer", move || {
            let inside = black_box(&open).records().filter(|record| {
                let value = record.as_ref().ok().and_then(|record| record.value);
                let found = json::find(value.unwrap_or_default(), [&pointers[0], &pointers[1]]);
                let place = found.ok().map(|found| found.map(|f| f.and_then(|f| f.number())));
                matches!(place, Some([Some(36.0..37.0), Some(-119.0..=-118.0)]))
            });
            assert_eq!(black_box(inside.count()), 1000);
        });
    }
}

/// A batch of 1,000 records of 1 KB, each a JSON object with a place in it.
fn located(at_the_end: bool) -> Bytes {
    let mut body = Vec::new();
    for delta in 0..1000 {
        let place = format!(r#""latitude":36.{delta},"longitude":-118.{delta}"#);
        let mut rest = String::new();
        for n in 0.. {
            let field =
                format!(r#""field_{n}":{{"raw":[{n},{delta}.5,-1e-3],"unit":"some text"}}"#);
            if place.len() + rest.len() + field.len() + 3 > 1000 {
                break;
            }
            rest.push_str(&field);
            rest.push(',');
        }
        rest.pop();
        let value = match at_the_end {
            true => format!("{{{rest},{place}}}"),
            false => format!("{{{place},{rest}}}"),
        };
        put_record(&mut body, delta, value.as_bytes());
    }
    batch::build(head(Codec::None, 1000), Framing::Plain, &body).unwrap_or_default()
}

fn reference_cases(cases: &mut Vec<Case>) {
    let input = "112-byte reference";
    let secret: Vec<u8> =
        (0..32u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let Ok(ring) = MacKey::new(&secret).and_then(|key| KeyRing::new(key, None)) else {
        return;
    };
    let binding = Binding { topic: "wildfire-images", tenant: "default" };
    let reference = Reference {
        flags: 0,
        store_alias: 1,
        codec: 1,
        filter: 0,
        content_type: 2,
        shard: 0,
        written_at_ms: 1_700_000_000_000,
        stored_bytes: 400_000,
        original_bytes: 1_000_000,
        original_crc: 7,
        pack_offset: 64,
        data_key_id: 0,
        partition: 0,
        pack_id: [9; 16],
        topic_id: [8; 16],
        original_hash: [7; 16],
    };
    let signed = ring.sign(&reference, &binding);
    let at = cases.len();
    let mut target = signed;
    let add = |cases: &mut Vec<Case>, name: &str, run: Box<dyn FnMut()>| {
        let bytes = signed.len();
        let seconds = Vec::new();
        cases.push(Case { name: name.to_owned(), input, bytes, baseline: at, run, seconds });
    };
    add(
        cases,
        "memcpy",
        Box::new(move || {
            target.copy_from_slice(black_box(&signed));
            black_box(&mut target);
        }),
    );
    let signer = ring.clone();
    add(
        cases,
        "sign",
        Box::new(move || {
            black_box(signer.sign(black_box(&reference), &binding));
        }),
    );
    add(
        cases,
        "open (verify)",
        Box::new(move || {
            assert!(black_box(ring.open(black_box(&signed), &binding)).is_ok());
        }),
    );
}

struct Input {
    name: &'static str,
    codec: Codec,
    batch: Bytes,
}

impl Input {
    /// A batch as a producer sends it; values are text-like and compress about fourfold.
    fn new(name: &'static str, codec: Codec, records: i32, value_bytes: usize) -> Input {
        let mut body = Vec::new();
        for delta in 0..records {
            let value = text(delta, value_bytes);
            put_record(&mut body, delta, &value);
        }
        let framing = if codec == Codec::Snappy { Framing::Xerial } else { Framing::Plain };
        let batch = batch::build(head(codec, records), framing, &body).unwrap_or_default();
        Input { name, codec, batch }
    }
}

fn put_record(body: &mut Vec<u8>, delta: i32, value: &[u8]) {
    let mut record = vec![0, 0];
    varint::write_varint(&mut record, delta);
    varint::write_varint(&mut record, -1);
    varint::write_varint(&mut record, length(value.len()));
    record.extend_from_slice(value);
    record.push(0);
    varint::write_varint(body, length(record.len()));
    body.extend_from_slice(&record);
}

fn head(codec: Codec, records: i32) -> BatchHeader {
    BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: codec.bits(),
        last_offset_delta: records - 1,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: records,
    }
}

fn text(seed: i32, bytes: usize) -> Vec<u8> {
    let mut state = seed.unsigned_abs().wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut out = Vec::new();
    while out.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (lat, lon) = (state >> 16 & 0xfff, state >> 8 & 0xfff);
        let line = format!(
            r#"{{"latitude":36.{lat},"longitude":-118.{lon},"frp":{},"satellite":"N"}},"#,
            state >> 24
        );
        out.extend_from_slice(line.as_bytes());
    }
    out.truncate(bytes);
    out
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn open(batch: &Bytes) -> OpenBatch {
    #[expect(clippy::unwrap_used, reason = "a broken input makes every figure void")]
    OpenBatch::open(batch.clone(), &CAPS).unwrap()
}

fn replace_middle(batch: &Bytes, index: u32) -> Rewritten {
    let replaced = replace_values(batch, &CAPS, &RewriteOptions::default(), |record| {
        (record.at.index == index).then_some([0xFB; 112])
    });
    #[expect(clippy::unwrap_used, reason = "a broken input makes every figure void")]
    replaced.unwrap()
}

/// Copies `source` into a buffer that is there already.
fn baseline(cases: &mut Vec<Case>, input: &'static str, source: Bytes) -> usize {
    let bytes = source.len();
    let at = cases.len();
    let mut target = vec![0u8; bytes];
    let run = Box::new(move || {
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
    });
    let name = "memcpy".to_owned();
    cases.push(Case { name, input, bytes, baseline: at, run, seconds: Vec::new() });
    at
}

fn push(cases: &mut Vec<Case>, baseline: usize, name: &str, run: impl FnMut() + 'static) {
    let Case { input, bytes, .. } = cases[baseline];
    let (name, run, seconds) = (name.to_owned(), Box::new(run), Vec::new());
    cases.push(Case { name, input, bytes, baseline, run, seconds });
}

/// Repeats that fill a round; also warms the case up.
fn calibrate(case: &mut Case) -> u32 {
    let mut repeats = 1u32;
    loop {
        let seconds = timed(case, repeats) * f64::from(repeats);
        if seconds >= ROUND_SECONDS || repeats >= 1 << 20 {
            return repeats;
        }
        repeats *= 2;
    }
}

/// Seconds of one run.
fn timed(case: &mut Case, repeats: u32) -> f64 {
    let start = cpu_seconds();
    for _ in 0..repeats {
        (case.run)();
    }
    (cpu_seconds() - start) / f64::from(repeats)
}

/// CPU time of this thread.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).map_or(0.0, |time| time.as_secs_f64())
}

fn row(case: &Case, cases: &[Case]) -> Row {
    let copies = &cases[case.baseline].seconds;
    let ratios = sorted(copies.iter().zip(&case.seconds).map(|(copy, own)| copy / own));
    let seconds = median(&sorted(case.seconds.iter().copied()));
    Row {
        name: case.name.clone(),
        input: case.input,
        bytes: case.bytes,
        micros: seconds * 1e6,
        gb_per_second: bytes_as_f64(case.bytes) / seconds / 1e9,
        ratio: median(&ratios),
        quartiles: (ratios[ratios.len() / 4], ratios[ratios.len() * 3 / 4]),
    }
}

fn bytes_as_f64(bytes: usize) -> f64 {
    u32::try_from(bytes).map_or(f64::INFINITY, f64::from)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn machine() -> (usize, String) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    (cores, model.map_or("unknown", |(_, model)| model).to_owned())
}

fn print_table(rows: &[Row], rounds: usize) {
    let (cores, model) = machine();
    println!("{model}, {cores} cores; medians of {rounds} interleaved rounds, CPU time; in GB/s\n");
    println!("| input | case | us | GB/s | x memcpy | quartiles |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {} | {:.2} | {:.2} | {:.3} | {:.3}-{:.3} |",
            row.input,
            row.name,
            row.micros,
            row.gb_per_second,
            row.ratio,
            row.quartiles.0,
            row.quartiles.1
        );
    }
}

fn print_json(rows: &[Row], rounds: usize) {
    let (cores, model) = machine();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "input": row.input, "case": row.name, "bytes": row.bytes, "us": row.micros,
                "gb_per_second": row.gb_per_second, "memcpy_ratio": row.ratio,
                "ratio_quartiles": [row.quartiles.0, row.quartiles.1],
            })
        })
        .collect();
    println!("{}", json!({ "machine": model, "cores": cores, "rounds": rounds, "rows": rows }));
}
