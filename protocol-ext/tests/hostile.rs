//! Mutants of sound frames of every API and version, read by everything that reads peers' bytes.
//!
//! `FIREBREAK_MUTANTS` says how many (the short form without it), `FIREBREAK_SEED` which ones,
//! `FIREBREAK_MUTANT` runs a single one again. In a process of their own, one after the other, since
//! they count every allocation: what one reader allocates for one mutant, in all, is an upper bound
//! of what it held at once.

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use protocol_ext::api;
use protocol_ext::codec::Codec;
use protocol_ext::header::HEAD_BYTES;
use protocol_ext::hostile::mutate::{LIES, MUTANT_BYTES_MAX, Mutator};
use protocol_ext::hostile::random::Random;
use protocol_ext::hostile::targets::{
    CODEC, Checked, FRAMES, REFERENCE, SECTIONS, Verdict, records,
};
use protocol_ext::hostile::{Frame, corpus};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MUTANTS: u64 = 200_000;
const SEED: u64 = 20_260_727;
/// Besides what is allowed per byte of the mutant.
const ALLOCATED_BYTES_MAX: usize = 2 << 20;
/// The kafka-protocol crate keeps an item of two bytes in up to a hundred times as many.
const ALLOCATED_PER_BYTE_MAX: usize = 160;
/// Bytes of a batch up to its magic, which decides whether the rest is looked at.
const MAGIC_END: usize = 17;
/// Broken promises that are told before the run gives up.
const BROKEN_MAX: usize = 10;

/// What one reader did with all mutants.
#[derive(Default)]
struct Tally {
    taken: u64,
    refused: BTreeMap<&'static str, u64>,
    allocated_max: usize,
}

/// The whole run.
struct Run {
    frames: Vec<Frame>,
    sections: Vec<Bytes>,
    packed: Vec<(Codec, Bytes)>,
    signed: Vec<u8>,
    mutator: Mutator,
    tallies: BTreeMap<&'static str, Tally>,
    mutated: BTreeSet<(i16, i16, bool)>,
    broken: Vec<String>,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.replace('_', "").parse().expect("a number"))
}

impl Run {
    fn new() -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let frames = corpus::all(&golden).expect("the golden frames");
        let sections = corpus::sections(&frames);
        Self {
            packed: corpus::packed(&sections),
            signed: records::signed().expect("a key").to_vec(),
            frames,
            sections,
            mutator: Mutator::default(),
            tallies: BTreeMap::new(),
            mutated: BTreeSet::new(),
            broken: Vec::new(),
        }
    }

    /// Makes mutant `n` and shows it to everyone whose business it is.
    fn mutant(&mut self, seed: u64, n: u64) {
        let mut random = Random::new(seed, n);
        match n % 16 {
            0..=9 => self.frame(n, &mut random),
            10..=13 => self.section(n, &mut random),
            14 => self.compressed(n, &mut random),
            _ => self.reference(n, &mut random),
        }
    }

    fn frame(&mut self, n: u64, random: &mut Random) {
        // Every frame in turn, so that none is forgotten.
        let at = usize::try_from(n / 16 * 10 + n % 16).expect("64 bits") % self.frames.len();
        let frame = &self.frames[at];
        let other = random.pick(&self.frames).expect("frames").bytes.clone();
        let head = if frame.request { HEAD_BYTES } else { 4 };
        let bytes = self.mutator.mutant(random, &frame.bytes, head, &other);
        let mutant = Frame { bytes: bytes.into(), ..frame.clone() };
        self.mutated.insert((frame.api, frame.version, frame.request));
        for (name, read) in FRAMES {
            self.show(name, n, &mutant.bytes, |random| read(&mutant, random), random);
        }
    }

    fn section(&mut self, n: u64, random: &mut Random) {
        let section = random.pick(&self.sections).expect("sections").clone();
        let other = random.pick(&self.sections).expect("sections").clone();
        let bytes = self.mutator.mutant(random, &section, MAGIC_END, &other);
        // With a true CRC half of them get as far as sound batches do.
        let section = match random.below(4) {
            0 | 1 => Bytes::from(bytes),
            mend => records::mended(&bytes, mend == 3 && bytes.len() > 12),
        };
        for (name, read) in SECTIONS {
            self.show(name, n, &section, |random| read(&section, random), random);
        }
    }

    fn compressed(&mut self, n: u64, random: &mut Random) {
        let (codec, packed) = random.pick(&self.packed).expect("compressed batches").clone();
        let other = random.pick(&self.packed).expect("compressed batches").1.clone();
        let bytes = Bytes::from(self.mutator.mutant(random, &packed, 0, &other));
        let name = format!("{} {codec:?}", CODEC.0).leak();
        self.show(name, n, &bytes, |_| CODEC.1(codec, &bytes), random);
    }

    fn reference(&mut self, n: u64, random: &mut Random) {
        let bytes = match random.below(50) {
            0 => self.signed.clone(),
            _ => self.mutator.mutant(random, &self.signed, 0, &[]),
        };
        let changed = bytes != self.signed;
        let shown = Bytes::from(bytes);
        self.show(REFERENCE.0, n, &shown, |_| REFERENCE.1(&shown, changed), random);
    }

    /// Counts what `read` makes of mutant `n`, and notes the promises it breaks.
    fn show(
        &mut self,
        name: &'static str,
        n: u64,
        bytes: &[u8],
        read: impl FnOnce(&mut Random) -> Checked,
        random: &mut Random,
    ) {
        let region = Region::new(ALLOCATOR);
        let verdict = catch_unwind(AssertUnwindSafe(|| read(random)));
        let allocated = region.change().bytes_allocated;
        let tally = self.tallies.entry(name).or_default();
        tally.allocated_max = tally.allocated_max.max(allocated);
        let broken = match verdict {
            Ok(Ok(Verdict::Other)) => return,
            Ok(Ok(Verdict::Taken)) => {
                tally.taken += 1;
                None
            }
            Ok(Ok(Verdict::Refused(why))) => {
                *tally.refused.entry(why).or_default() += 1;
                None
            }
            Ok(Err(promise)) => Some(promise),
            Err(_) => Some("panicked".to_owned()),
        };
        let cap = ALLOCATED_BYTES_MAX + ALLOCATED_PER_BYTE_MAX * bytes.len();
        let costly = format!("allocated {allocated} bytes for {}", bytes.len());
        if let Some(broken) = broken.or_else(|| (allocated > cap).then_some(costly)) {
            self.broken.push(format!("{name}, mutant {n}: {broken}: {}", hex(bytes)));
        }
    }

    fn report(&self, mutants: u64) {
        for (name, tally) in &self.tallies {
            let refused: u64 = tally.refused.values().sum();
            let Tally { taken, allocated_max, .. } = tally;
            println!("{name}: {taken} taken, {refused} refused, at most {allocated_max} bytes");
            println!("    {:?}", tally.refused);
        }
        let lies: Vec<String> =
            LIES.iter().zip(self.mutator.counts).map(|(lie, n)| format!("{lie:?} {n}")).collect();
        println!("lies: {}", lies.join(", "));
        println!("{mutants} mutants, {} APIs, versions and directions", self.mutated.len());
    }

    /// Whatever must not be zero.
    fn check(&self, mutants: u64) {
        assert!(self.broken.is_empty(), "{} broken:\n{}", self.broken.len(), self.broken[0]);
        if mutants < MUTANTS {
            return;
        }
        for (name, tally) in &self.tallies {
            let refused: u64 = tally.refused.values().sum();
            assert!(tally.taken > 0 && refused > 0, "{name} is not tried in earnest");
        }
        assert!(self.mutator.counts.iter().all(|n| *n > 0), "a lie was never told");
        let all: BTreeSet<_> =
            self.frames.iter().map(|frame| (frame.api, frame.version, frame.request)).collect();
        assert_eq!(self.mutated, all, "an API, version or direction was left out");
        let seen: BTreeSet<i16> = all.iter().map(|(api, ..)| *api).collect();
        for key in 0..i16::try_from(api::KEY_END).expect("few keys") {
            assert!(seen.contains(&key) || WITHOUT_FRAMES.contains(&key), "no frame of api {key}");
        }
    }
}

/// Between brokers of old; streams groups, which the kafka-protocol crate does not know.
const WITHOUT_FRAMES: [i16; 4] = [4, 5, 6, 7];

/// Both tests count allocations, so they take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(2000).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn no_mutant_panics_breaks_a_promise_or_takes_memory_beyond_its_cap() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seed = number("FIREBREAK_SEED").unwrap_or(SEED);
    let mutants = number("FIREBREAK_MUTANTS").unwrap_or(MUTANTS);
    let mut run = Run::new();
    println!("seed {seed}, {} frames, {} records fields", run.frames.len(), run.sections.len());
    if let Some(n) = number("FIREBREAK_MUTANT") {
        run.mutant(seed, n);
        run.report(1);
        return run.check(1);
    }
    for n in 0..mutants {
        run.mutant(seed, n);
        if run.broken.len() >= BROKEN_MAX {
            break;
        }
    }
    for broken in &run.broken {
        println!("BROKEN {}", &broken[..broken.len().min(3000)]);
    }
    run.report(mutants);
    assert!(run.frames.iter().all(|frame| frame.bytes.len() <= MUTANT_BYTES_MAX));
    run.check(mutants);
}

#[test]
fn a_reader_that_trusts_a_length_or_keeps_too_much_is_found() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut run = Run::new();
    let careless = |frame: &Frame| {
        let at = usize::from(frame.bytes[9]);
        Ok(if frame.bytes[at] == 0 { Verdict::Taken } else { Verdict::Refused("other") })
    };
    let greedy = |frame: &Frame| {
        let count = frame.bytes.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four));
        let kept: Vec<u8> = Vec::with_capacity(count as usize % (64 << 20));
        Ok(if kept.is_empty() { Verdict::Taken } else { Verdict::Refused("other") })
    };
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for n in 0..3000 {
        let mut random = Random::new(SEED, n);
        let frame = random.pick(&run.frames).expect("frames").clone();
        let bytes = run.mutator.mutant(&mut random, &frame.bytes, 0, &[]);
        let mutant = Frame { bytes: bytes.into(), ..frame };
        run.show("careless", n, &mutant.bytes, |_| careless(&mutant), &mut random);
        run.show("greedy", n, &mutant.bytes, |_| greedy(&mutant), &mut random);
    }
    std::panic::set_hook(quiet);
    let found = |what: &str| run.broken.iter().filter(|broken| broken.contains(what)).count();
    let (panicked, allocated) = (found("panicked"), found("allocated"));
    assert!(panicked > 10 && allocated > 10, "{panicked} panics, {allocated} times too much");
}
