//! Reads the topic whole, and compares it with what its writers were told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::writing::Told;
use super::{LOGICAL, Run};

const STANDSTILL_MAX: Duration = Duration::from_secs(120);

/// What a reader saw.
#[derive(Default)]
pub struct Reading {
    /// What may not be.
    pub wrong: Vec<String>,
    /// By writer: how often each of its records came.
    times: BTreeMap<String, Vec<u8>>,
    next: BTreeMap<i32, i64>,
    newest: HashMap<(i32, String), usize>,
    /// Errors that a reader may see while things break.
    errors: BTreeMap<String, u64>,
}

/// Reads from the beginning until everything that was written has come; a group goes on from what
/// it committed.
pub fn follow(run: &Run<'_>, group: Option<&str>, all_written: &AtomicBool) -> Reading {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &run.bootstrap).set("group.id", group.unwrap_or("alone"));
    config.set("auto.offset.reset", "error").set("enable.auto.commit", "false");
    let reader: BaseConsumer = config.create().unwrap();
    if group.is_some() {
        reader.subscribe(&[run.topic]).unwrap();
    } else {
        let mut all = TopicPartitionList::new();
        for partition in 0..LOGICAL {
            all.add_partition_offset(run.topic, partition, Offset::Offset(0)).unwrap();
        }
        reader.assign(&all).unwrap();
    }
    let (mut reading, mut ends) = (Reading::default(), None);
    let mut last = Instant::now();
    while !ends.as_ref().is_some_and(|ends| reading.reached(ends)) {
        if ends.is_none() && all_written.load(Ordering::Relaxed) {
            ends = ends_of(&reader, run.topic);
        }
        if last.elapsed() > STANDSTILL_MAX {
            let at = format!("nothing comes behind {:?} of {ends:?}", reading.next);
            reading.wrong.push(at);
            break;
        }
        match reader.poll(Duration::from_millis(200)) {
            None => {}
            Some(Ok(message)) => {
                last = Instant::now();
                let (key, value) = (message.key().unwrap(), message.payload().unwrap());
                let [key, value] = [key, value].map(|bytes| str::from_utf8(bytes).unwrap());
                reading.take((message.partition(), message.offset()), key, value);
            }
            Some(Err(KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange),
            ))) => {
                reading.wrong.push(format!("a reset: {code}"));
                break;
            }
            Some(Err(error)) => *reading.errors.entry(error.to_string()).or_default() += 1,
        }
    }
    if group.is_some() {
        reader.commit_consumer_state(CommitMode::Sync).unwrap();
    }
    reading
}

fn ends_of(reader: &BaseConsumer, topic: &str) -> Option<BTreeMap<i32, i64>> {
    let ends = (0..LOGICAL).map(|partition| {
        let marks = reader.fetch_watermarks(topic, partition, Duration::from_secs(5));
        Some((partition, marks.ok()?.1))
    });
    ends.collect()
}

impl Reading {
    fn reached(&self, ends: &BTreeMap<i32, i64>) -> bool {
        ends.iter().all(|(partition, end)| self.next.get(partition).unwrap_or(&0) >= end)
    }

    /// What was read by another client, `PARTITION OFFSET KEY WRITER NUMBER` a line.
    pub fn of_lines<'l>(lines: impl Iterator<Item = &'l str>) -> Self {
        let mut reading = Self::default();
        for line in lines {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            let at = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
            reading.take(at, parts[2], parts[3]);
        }
        reading
    }

    fn take(&mut self, (partition, offset): (i32, i64), key: &str, value: &str) {
        let next = self.next.entry(partition).or_default();
        if offset != *next {
            self.wrong.push(format!("offset {offset} of {partition} comes behind {}", *next - 1));
        }
        *next = offset + 1;
        let (writer, number) = value.split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        let times = self.times.entry(writer.to_owned()).or_default();
        times.resize(times.len().max(number + 1), 0);
        times[number] += 1;
        if times[number] > 1 {
            self.wrong.push(format!("{value} of {key} comes again at {offset} of {partition}"));
        }
        let newest = self.newest.entry((partition, key.to_owned())).or_insert(number);
        if *newest > number {
            self.wrong.push(format!("{value} comes behind {newest} at {offset} of {partition}"));
        }
        *newest = number.max(*newest);
    }

    /// What came of the records that were acknowledged, and of the others.
    pub fn compare(&self, told: &BTreeMap<String, Told>) -> Compared {
        let mut found = Compared { errors: self.errors.clone(), ..Compared::default() };
        for (writer, told) in told {
            let times = self.times.get(writer).map_or(&[][..], Vec::as_slice);
            for number in 0..told.sent {
                let at = usize::try_from(number).unwrap();
                let count = times.get(at).copied().unwrap_or(0);
                found.read += u64::from(count > 0);
                found.doubled += u64::from(count > 1);
                match told.failed.contains(&number) {
                    true => found.failed_but_read += u64::from(count > 0),
                    false if count == 0 => {
                        found.lost += 1;
                        found.examples.push(format!("{writer} {number}"));
                    }
                    false => {}
                }
            }
            let sent = usize::try_from(told.sent).unwrap();
            found.unsent += u64::try_from(times.len().saturating_sub(sent)).unwrap();
        }
        let unknown = self.times.keys().filter(|writer| !told.contains_key(*writer));
        found.unsent += u64::try_from(unknown.count()).unwrap();
        found.examples.truncate(10);
        found
    }
}

/// Records of all writers, as one reader saw them.
#[derive(Default)]
pub struct Compared {
    read: u64,
    lost: u64,
    doubled: u64,
    unsent: u64,
    failed_but_read: u64,
    examples: Vec<String>,
    errors: BTreeMap<String, u64>,
}

impl Compared {
    pub fn is_exact(&self) -> bool {
        (self.lost, self.doubled, self.unsent) == (0, 0, 0) && self.read > 0
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, lost, doubled, unsent, failed_but_read, examples, errors } = self;
        write!(
            out,
            "{read} records read, {lost} acknowledged ones lost {examples:?}, {doubled} doubled, \
             {unsent} that nobody sent, {failed_but_read} that had failed; errors: {errors:?}"
        )
    }
}
