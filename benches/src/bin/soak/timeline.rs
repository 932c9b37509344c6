//! What clients saw of the kills: silences, first acknowledgements, empty windows. Pure functions
//! of instants, each given as the time since the start of the journal, in order.

use std::time::Duration;

/// A time without an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// When it began, or the kill if that came later.
    pub since: Duration,
    /// How long it lasted.
    pub length: Duration,
}

impl Silence {
    fn between(since: Duration, until: Duration) -> Self {
        Self { since, length: until.saturating_sub(since) }
    }

    fn longer(self, other: Self) -> Self {
        if other.length > self.length { other } else { self }
    }
}

/// For every kill the longest time without an acknowledgement that lies behind it and reaches into
/// the time before the next one, counted from the kill at the earliest.
pub fn silences(acknowledged: &[Duration], kills: &[Duration], end: Duration) -> Vec<Silence> {
    let ends = kills.iter().skip(1).copied().chain([end]);
    let one = |(&kill, next): (&Duration, Duration)| {
        let mut since = kill;
        let mut longest = Silence::default();
        for &at in &acknowledged[after(acknowledged, kill)..] {
            longest = longest.longer(Silence::between(since, at));
            since = at;
            if at >= next {
                return longest;
            }
        }
        longest.longer(Silence::between(since, end))
    };
    kills.iter().zip(ends).map(one).collect()
}

/// For every kill the time until the next acknowledgement, or until the end.
pub fn firsts(acknowledged: &[Duration], kills: &[Duration], end: Duration) -> Vec<Duration> {
    let first = |&kill: &Duration| {
        let at = acknowledged.get(after(acknowledged, kill)).copied();
        at.unwrap_or(end).saturating_sub(kill)
    };
    kills.iter().map(first).collect()
}

/// Windows of `begin..end` in which nothing happened; a last one that is not full does not count.
pub fn empty_windows(
    events: &[Duration],
    begin: Duration,
    end: Duration,
    window: Duration,
) -> (u64, u64) {
    let (mut all, mut empty) = (0, 0);
    let mut from = begin;
    while from + window <= end {
        let next = from + window;
        all += 1;
        empty += u64::from(!events.iter().any(|at| (from..next).contains(at)));
        from = next;
    }
    (empty, all)
}

/// What `per_mille` of a thousand do not exceed; zero when there is none.
pub fn quantile(values: &[Duration], per_mille: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let wanted = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(wanted - 1).copied().unwrap_or_default()
}

/// Index of the first instant behind `kill`.
fn after(sorted: &[Duration], kill: Duration) -> usize {
    sorted.partition_point(|at| *at <= kill)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(values: &[u64]) -> Vec<Duration> {
        values.iter().map(|value| Duration::from_secs(*value)).collect()
    }

    fn lengths(acknowledged: &[u64], kills: &[u64]) -> Vec<Duration> {
        let silences = silences(&seconds(acknowledged), &seconds(kills), END);
        silences.into_iter().map(|silence| silence.length).collect()
    }

    const END: Duration = Duration::from_secs(100);

    #[test]
    fn a_silence_is_the_longest_pause_behind_a_kill() {
        let acknowledged = [1, 9, 11, 12, 18, 19, 99];
        assert_eq!(lengths(&acknowledged, &[10, 17]), seconds(&[6, 80]));
        let acknowledged = seconds(&acknowledged);
        let since = |kills| silences(&acknowledged, &seconds(kills), END)[0].since;
        assert_eq!((since(&[10]), since(&[17])), (seconds(&[19])[0], seconds(&[19])[0]));
        assert_eq!(firsts(&acknowledged, &seconds(&[10, 17]), END), seconds(&[1, 1]));
    }

    #[test]
    fn a_silence_that_outlasts_the_next_kill_counts_whole_for_the_first() {
        assert_eq!(lengths(&[1, 25, 99], &[10, 20]), seconds(&[15, 74]));
    }

    #[test]
    fn a_producer_that_never_comes_back_is_silent_until_the_end() {
        assert_eq!(lengths(&[1], &[10]), seconds(&[90]));
        assert_eq!(firsts(&seconds(&[1]), &seconds(&[10]), END), seconds(&[90]));
    }

    #[test]
    fn only_full_windows_count() {
        let (begin, end) = (Duration::from_secs(10), Duration::from_secs(28));
        let window = Duration::from_secs(5);
        assert_eq!(empty_windows(&seconds(&[3, 12, 20, 26]), begin, end, window), (1, 3));
    }

    #[test]
    fn quantiles_of_a_hundred_seconds() {
        let values = seconds(&(1..=100).rev().collect::<Vec<_>>());
        assert_eq!(quantile(&values, 500), Duration::from_secs(50));
        assert_eq!(quantile(&values, 990), Duration::from_secs(99));
        assert_eq!(quantile(&values, 1000), END);
        assert_eq!(quantile(&[], 990), Duration::ZERO);
    }
}
