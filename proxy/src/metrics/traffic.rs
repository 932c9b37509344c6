//! What every request counts: bytes, requests and how long they took.
//!
//! Each thread has a row of its own (more threads than rows share them), which lies together, so
//! that no core waits for a line of another one; whoever reads adds the rows up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use protocol_ext::api;

use super::{CLASSES, Class, DIRECTIONS, Direction};

/// Upper ends of the buckets of times; longer ones have the last bucket.
const BUCKETS: [Duration; 17] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// More rows than this would not be worth their memory.
const ROWS_MAX: usize = 64;

#[derive(Debug, Default)]
struct OfApi {
    requests: [AtomicU64; CLASSES.len()],
    micros: AtomicU64,
    took: [AtomicU64; BUCKETS.len() + 1],
}

/// Lines come in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Row {
    bytes: [AtomicU64; DIRECTIONS.len()],
    apis: [OfApi; api::KEY_END],
}

/// All rows.
#[derive(Debug)]
pub struct Traffic(Box<[Row]>);

impl Default for Traffic {
    fn default() -> Self {
        let threads = available_parallelism().map_or(1, usize::from);
        // Workers that hand their work to another thread have more than one.
        let rows = (4 * threads).next_power_of_two().min(ROWS_MAX);
        Self((0..rows).map(|_| Row::default()).collect())
    }
}

impl Traffic {
    /// Counts a request.
    #[inline(always)]
    pub fn request(&self, key: i16, class: Class) {
        if let Some(api) = self.row().api(key) {
            add(&api.requests[class as usize], 1);
        }
    }

    /// Notes how long an exchange took.
    #[inline(always)]
    pub fn answered(&self, key: i16, took: Duration) {
        if let Some(api) = self.row().api(key) {
            let bucket = BUCKETS.iter().position(|end| took <= *end).unwrap_or(BUCKETS.len());
            add(&api.took[bucket], 1);
            // Rounded, and without the wide division of `as_nanos`.
            let rounded = took.saturating_add(Duration::from_nanos(500));
            let micros = u64::from(rounded.subsec_micros());
            add(&api.micros, rounded.as_secs().wrapping_mul(1_000_000).wrapping_add(micros));
        }
    }

    /// Counts bytes.
    #[inline(always)]
    pub fn bytes(&self, direction: Direction, n: usize) {
        add(&self.row().bytes[direction as usize], n as u64);
    }

    /// Bytes counted so far.
    pub fn bytes_so_far(&self, direction: Direction) -> u64 {
        self.sum(|row| &row.bytes[direction as usize])
    }

    #[inline(always)]
    fn row(&self) -> &Row {
        &self.0[row_of_thread() % self.0.len()]
    }

    fn sum<'a>(&'a self, count: impl Fn(&'a Row) -> &'a AtomicU64) -> u64 {
        self.0.iter().fold(0, |sum, row| sum.wrapping_add(count(row).load(Ordering::Relaxed)))
    }
}

impl Default for Row {
    fn default() -> Self {
        Self { bytes: Default::default(), apis: std::array::from_fn(|_| OfApi::default()) }
    }
}

impl Row {
    fn api(&self, key: i16) -> Option<&OfApi> {
        self.apis.get(usize::try_from(key).ok()?)
    }
}

/// Who shares a row loses no counts.
fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

fn row_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static ROW: Cell<Option<usize>> = const { Cell::new(None) };
    }
    ROW.get().unwrap_or_else(|| {
        let row = NEXT.fetch_add(1, Ordering::Relaxed);
        ROW.set(Some(row));
        row
    })
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_bytes(&mut encoder)?;
        self.encode_seconds(&mut encoder)
    }
}

impl Traffic {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let of_api = |key: usize| (0..CLASSES.len()).map(move |class| (key, class));
        let counted = (0..api::KEY_END).flat_map(of_api).map(|(key, class)| {
            (key, CLASSES[class], self.sum(|row| &row.apis[key].requests[class]))
        });
        let mut counted = counted.filter(|(.., count)| *count > 0).peekable();
        if counted.peek().is_none() {
            return Ok(());
        }
        let help = "Requests by API and how deep they were read.";
        let mut requests =
            encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (key, class, count) in counted {
            let labels = [("api", name(key)), ("class", class)];
            requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_bytes(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Bytes read and written.";
        let mut bytes = encoder.encode_descriptor("bytes", help, None, MetricType::Counter)?;
        for (direction, name) in DIRECTIONS.iter().enumerate() {
            let count = self.sum(|row| &row.bytes[direction]);
            let labels = [("direction", *name)];
            bytes.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_seconds(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let took = |key: usize| {
            let ends = BUCKETS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            let count = |bucket: usize| self.sum(|row| &row.apis[key].took[bucket]);
            (key, ends.enumerate().map(|(i, end)| (end, count(i))).collect::<Vec<_>>())
        };
        let told = |(_, buckets): &(usize, Vec<(f64, u64)>)| buckets.iter().any(|b| b.1 > 0);
        let mut took = (0..api::KEY_END).map(took).filter(told).peekable();
        if took.peek().is_none() {
            return Ok(());
        }
        let help = "Time from a request's head to its answer's head.";
        let histogram = MetricType::Histogram;
        let mut seconds = encoder.encode_descriptor("request_seconds", help, None, histogram)?;
        for (key, buckets) in took {
            let sum = Duration::from_micros(self.sum(|row| &row.apis[key].micros)).as_secs_f64();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("api", name(key))];
            let mut of_api = seconds.encode_family(&labels)?;
            of_api.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn name(key: usize) -> &'static str {
    api::name(i16::try_from(key).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn rows_of_all_threads_are_told_as_one() {
        let metrics = Metrics::new();
        let before = metrics.text();
        assert!(!before.contains("firebreak_request"), "what never came is told: {before}");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    metrics.request(api::PRODUCE, Class::Peek);
                    metrics.bytes(Direction::ToBroker, 7);
                    metrics.answered(api::PRODUCE, Duration::from_micros(250));
                    metrics.answered(api::PRODUCE, Duration::from_secs(31));
                });
            }
        });
        let text = metrics.text();
        for line in [
            "firebreak_requests_total{api=\"Produce\",class=\"peek\"} 3",
            "firebreak_bytes_total{direction=\"to_broker\"} 21",
            "firebreak_bytes_total{direction=\"to_client\"} 0",
            "firebreak_request_seconds_sum{api=\"Produce\"} 93.00075",
            "firebreak_request_seconds_count{api=\"Produce\"} 6",
            "firebreak_request_seconds_bucket{le=\"0.0001\",api=\"Produce\"} 0",
            "firebreak_request_seconds_bucket{le=\"0.00025\",api=\"Produce\"} 3",
            "firebreak_request_seconds_bucket{le=\"30.0\",api=\"Produce\"} 3",
            "firebreak_request_seconds_bucket{le=\"+Inf\",api=\"Produce\"} 6",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
        }
        assert_eq!(metrics.bytes_so_far(Direction::ToBroker), 21);
    }
}
