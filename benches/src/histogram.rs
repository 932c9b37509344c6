//! Latencies in logarithmic buckets: 128 per factor of two, so a value is known to better than 1 %.

use std::time::Duration;

/// A histogram of durations from 1 ns to hours in constant memory.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; (OCTAVES << STEPS_BITS) as usize], count: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_many(duration, 1);
    }

    /// Counts `times` equal durations.
    pub fn record_many(&mut self, duration: Duration, times: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = index(nanos).min(self.buckets.len() - 1);
        self.buckets[bucket] += times;
        self.count += times;
        self.max_ns = self.max_ns.max(nanos);
    }

    /// Adds everything `other` holds.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest duration, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        micros(self.max_ns)
    }

    /// The duration, in microseconds, that `per_mille` of a thousand do not exceed; 0 when empty.
    #[must_use]
    pub fn quantile_us(&self, per_mille: u64) -> f64 {
        let wanted = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return micros(upper(bucket as u64).min(self.max_ns));
            }
        }
        0.0
    }
}

fn index(nanos: u64) -> usize {
    let octave = (nanos | STEPS).ilog2() - STEPS_BITS;
    let step = nanos >> octave;
    usize::try_from((u64::from(octave) << STEPS_BITS) + step).unwrap_or(usize::MAX)
}

fn upper(bucket: u64) -> u64 {
    let octave = (bucket >> STEPS_BITS).saturating_sub(1);
    ((bucket - (octave << STEPS_BITS) + 1) << octave) - 1
}

#[expect(clippy::cast_precision_loss, reason = "a latency has fewer than 52 significant bits")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

const STEPS_BITS: u32 = 7;
const STEPS: u64 = 1 << STEPS_BITS;
const OCTAVES: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_ends_where_the_next_begins() {
        for bucket in 0..2000_u64 {
            let end = upper(bucket);
            assert_eq!(index(end), usize::try_from(bucket).unwrap(), "end of {bucket}");
            assert_eq!(index(end + 1), usize::try_from(bucket + 1).unwrap(), "after {bucket}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_values_are_within_one_percent() {
        let mut histogram = Histogram::default();
        for micro in 1..=1000 {
            histogram.record(Duration::from_micros(micro));
        }
        assert!((histogram.quantile_us(500) - 500.0).abs() < 5.0);
        assert!((histogram.quantile_us(990) - 990.0).abs() < 10.0);
        assert!((histogram.quantile_us(1000) - 1000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_merge_counts_both() {
        let mut one = Histogram::default();
        one.record_many(Duration::from_micros(10), 3);
        let mut two = Histogram::default();
        two.record(Duration::from_micros(90));
        one.merge(&two);
        assert_eq!(one.count(), 4);
        assert!((one.max_us() - 90.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        assert!(Histogram::default().quantile_us(990).abs() < f64::EPSILON);
    }
}
