//! From what a run left to figures with bars.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::copy::Copied;
use crate::ledger::{Account, Delivery, Outcome};
use crate::load::{Journal, Totals};
use crate::proxy::Kill;
use crate::read::{InLog, Tail};
use crate::record::{HUGE_BYTES_MIN, LARGE_BYTES_MIN};
use crate::report::{Bar, Report};
use crate::timeline::{empty_windows, firsts, quantile, silences};
use crate::verify::Findings;

/// A run that has ended.
pub struct Run<'a> {
    /// By number of the producer: idempotent ones, those of large values, transactional ones.
    pub accounts: &'a [Account],
    /// How many of them are idempotent and have no large values.
    pub idempotent: usize,
    /// How many of them have large values.
    pub large_producers: usize,
    /// What the copy of a topic came to.
    pub copied: &'a Copied,
    /// How long PUTs straight to the S3 service took; empty without one.
    pub puts: &'a [Duration],
    /// Bar for the p99 of the gap where nothing is asked of an S3 service, in seconds.
    pub gap_p99_max: f64,
    /// How many PUTs it may have besides.
    pub puts_allowed: u32,
    /// When killing began.
    pub begin: Duration,
    /// When it ended.
    pub end: Duration,
    /// The kills.
    pub kills: &'a [Kill],
    /// Counts of the clients.
    pub totals: &'a Totals,
    /// What the following group read.
    pub tail: &'a Tail,
    /// What the comparison found.
    pub findings: &'a Findings,
    /// What lies in the log.
    pub log: &'a InLog,
    /// Large values that readers see.
    pub large: u64,
}

impl Run<'_> {
    /// All figures.
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        self.counts(&mut report);
        self.large_values(&mut report);
        self.offload(&mut report);
        self.windows(&mut report);
        self.gaps(&mut report);
        self.puts(&mut report);
        self.findings(&mut report);
        self.copied(&mut report);
        report.examples.clone_from(&self.findings.examples);
        report
    }

    /// Idempotent producers, those of large values, transactional ones.
    fn kinds(&self) -> (&[Account], &[Account], &[Account]) {
        let (plain, others) = self.accounts.split_at(self.idempotent);
        let (large, transactional) = others.split_at(self.large_producers);
        (plain, large, transactional)
    }

    /// Writes every gap into the journal, to see which were long, and when.
    pub fn tell_gaps(&self, journal: &Journal) {
        let kills: Vec<Duration> = self.kills.iter().map(|kill| kill.at).collect();
        for (producer, account) in self.accounts.iter().enumerate() {
            let first = firsts(&account.acknowledged_at, &kills, self.end);
            let silent = silences(&account.acknowledged_at, &kills, self.end);
            for ((kill, first), silence) in kills.iter().zip(first).zip(silent) {
                let what = format!(
                    "producer {producer}: killed at {kill:.3?}, first ack after {first:.3?}, \
                     longest silence {:.3?} from {:.3?}",
                    silence.length, silence.since
                );
                journal.say("gap", &what);
            }
        }
    }

    fn counts(&self, to: &mut Report) {
        let idempotent = self.idempotent + self.large_producers;
        let (plain, transactional) = self.accounts.split_at(idempotent);
        let told = |accounts: &[Account]| {
            accounts.iter().map(|account| account.acknowledged_at.len() as u64).sum::<u64>()
        };
        let acknowledged = told(self.accounts);
        // Not of transactions: an abort drops records that may have been sent or not.
        let sent: u64 = plain.iter().map(|account| account.sent).sum();
        let failed: u64 = plain.iter().map(|account| account.failed).sum();
        let again = sent.saturating_sub(told(plain) + failed);
        let count = |outcome| {
            let all = transactional.iter().flat_map(|account| &account.transactions);
            all.filter(|transaction| transaction.outcome == outcome).count() as u64
        };
        let unknown = plain.iter().flat_map(|account| &account.deliveries);
        let unknown = unknown.filter(|delivery| **delivery == Delivery::Unknown).count() as u64;
        let totals = self.totals;
        let killed = self.kills.len() as u64;
        let dead = self.kills.iter().filter(|kill| kill.was_dead).count() as u64;

        to.count("kills", "kills", killed, Bar::Positive);
        to.count("ended_by_itself", "proxies that had ended by themselves", dead, Bar::Zero);
        to.count("acknowledged", "records acknowledged", acknowledged, Bar::Positive);
        to.count("acknowledged_idempotent", "  idempotent", told(plain), Bar::Positive);
        to.count(
            "acknowledged_transactional",
            "  transactional",
            told(transactional),
            Bar::Positive,
        );
        to.count("sent_again", "idempotent records sent again", again, Bar::Positive);
        to.count(
            "requests_retried",
            "other requests retried",
            read(&totals.requests_retried),
            Bar::None,
        );
        to.count(
            "connections_lost",
            "connections lost",
            read(&totals.connections_lost),
            Bar::Positive,
        );
        to.count("unknown", "idempotent records of unknown fate", unknown, Bar::None);
        let unfinished = read(&totals.unfinished);
        to.count("unfinished", "idempotent producers not done in time", unfinished, Bar::Zero);
        to.count("commits", "transactions committed", count(Outcome::Committed), Bar::Positive);
        to.count("aborts", "transactions aborted", count(Outcome::Aborted), Bar::Positive);
        to.count("forced_aborts", "  not on purpose", read(&totals.forced_aborts), Bar::None);
        to.count(
            "outcomes_unknown",
            "transactions of unknown fate",
            count(Outcome::Unknown),
            Bar::None,
        );
        to.count(
            "calls_retried",
            "transactional calls made again",
            read(&totals.calls_retried),
            Bar::None,
        );
        to.count("fatal", "producers made anew", read(&totals.fatal), Bar::None);
        let tail = self.tail.read_at.len() as u64;
        to.count("tail_read", "records read by the following group", tail, Bar::Positive);
        to.count("tail_errors", "  errors instead of a record", self.tail.errors, Bar::None);
    }

    /// Values that are objects of their own, and those that an S3 service gets in parts.
    fn large_values(&self, to: &mut Report) {
        let (_, large, _) = self.kinds();
        if large.is_empty() {
            return;
        }
        let told = large.iter().flat_map(|account| account.deliveries.iter().zip(&account.values));
        let told = told.filter(|(delivery, _)| matches!(delivery, Delivery::Acknowledged(_)));
        let lengths: Vec<u64> = told
            .filter(|(_, value)| value.bytes >= LARGE_BYTES_MIN)
            .map(|(_, value)| value.bytes as u64)
            .collect();
        let huge = lengths.iter().filter(|bytes| **bytes >= HUGE_BYTES_MIN as u64).count() as u64;
        let megabytes = lengths.iter().sum::<u64>() / 1_000_000;
        to.count("large", "values of 1 MB and more", lengths.len() as u64, Bar::Positive);
        to.count("huge", "  longer than 32 MiB", huge, Bar::Positive);
        to.count("large_mb", "  MB of both", megabytes, Bar::Positive);
        if !self.puts.is_empty() {
            let aimed = self.kills.iter().filter(|kill| kill.aimed).count() as u64;
            to.count("kills_in_parts", "kills while parts were sent", aimed, Bar::Positive);
        }
    }

    fn offload(&self, to: &mut Report) {
        let log = self.log;
        let share = (log.references, log.visible);
        to.count("read_back", "records read back", self.findings.read, Bar::Positive);
        to.count("offloaded", "offloaded records in the log", log.references, Bar::Positive);
        to.share("offloaded_percent", "  percent of all", share, Bar::Within(8.0, 12.0));
        to.count("hidden", "records of aborted transactions in the log", log.hidden, Bar::Positive);
        let missing = self.findings.read.abs_diff(log.visible);
        let mismatched = log.mismatched + missing + self.large.abs_diff(log.references);
        to.count("mismatched", "log and reading disagree", mismatched, Bar::Zero);
    }

    fn windows(&self, to: &mut Report) {
        let (plain, _, transactional) = self.kinds();
        let acknowledged = |accounts: &[Account]| {
            accounts.iter().flat_map(|account| account.acknowledged_at.clone()).collect::<Vec<_>>()
        };
        let commits: Vec<Duration> =
            transactional.iter().flat_map(|account| account.committed_at.clone()).collect();
        let empty = |events: &[Duration]| empty_windows(events, self.begin, self.end, WINDOW);
        let (plain, all) = empty(&acknowledged(plain));
        let (transactional, _) = empty(&acknowledged(transactional));
        to.count("windows", "windows of 5 s", all, Bar::Positive);
        to.count("windows_idempotent", "  without an idempotent ack", plain, Bar::Zero);
        to.count(
            "windows_transactional",
            "  without a transactional ack",
            transactional,
            Bar::Zero,
        );
        to.count("windows_commits", "  without a commit", empty(&commits).0, Bar::None);
        to.count("windows_read", "  without a record read", empty(&self.tail.read_at).0, Bar::None);
    }

    /// Every producer after every kill. Those of large values have a line of their own and no bar:
    /// what they wait for is megabytes.
    fn gaps(&self, to: &mut Report) {
        let (plain, large, transactional) = self.kinds();
        let kills: Vec<Duration> = self.kills.iter().map(|kill| kill.at).collect();
        let silent = |accounts: &[Account]| {
            let of = |account: &Account| silences(&account.acknowledged_at, &kills, self.end);
            accounts.iter().flat_map(of).map(|silence| silence.length).collect::<Vec<_>>()
        };
        let first = |account: &Account| firsts(&account.acknowledged_at, &kills, self.end);
        let first: Vec<Duration> = plain.iter().chain(transactional).flat_map(first).collect();
        let down: Vec<Duration> = self.kills.iter().map(|kill| kill.down).collect();
        let (plain, large, transactional) = (silent(plain), silent(large), silent(transactional));
        let all = [&*plain, &*transactional].concat();
        let bar = Bar::AtMost(gap_bar(self.gap_p99_max, self.puts, self.puts_allowed));
        let outlasting = all.iter().filter(|gap| **gap > WINDOW).count() as u64;
        to.count("gaps", "gaps: kills x producers", all.len() as u64, Bar::Positive);
        to.time("gap_p50_s", "gap p50, s", quantile(&all, 500), Bar::None);
        to.time("gap_p99_s", "gap p99, s", quantile(&all, 990), bar);
        to.time("gap_max_s", "gap max, s", quantile(&all, 1000), Bar::None);
        to.count("gaps_over_5_s", "  longer than 5 s", outlasting, Bar::None);
        to.time("gap_idempotent_p99_s", "  idempotent p99, s", quantile(&plain, 990), Bar::None);
        let p99 = quantile(&transactional, 990);
        to.time("gap_transactional_p99_s", "  transactional p99, s", p99, Bar::None);
        if !large.is_empty() {
            let p99 = quantile(&large, 990);
            to.time("gap_large_p99_s", "gap p99 of large values, s", p99, Bar::None);
        }
        to.time("first_p50_s", "kill to first ack p50, s", quantile(&first, 500), Bar::None);
        to.time("first_p99_s", "kill to first ack p99, s", quantile(&first, 990), Bar::None);
        to.time("down_p50_s", "kill to listening p50, s", quantile(&down, 500), Bar::None);
        to.time("down_max_s", "kill to listening max, s", quantile(&down, 1000), Bar::None);
    }

    /// The S3 service without the proxy, at the same time.
    fn puts(&self, to: &mut Report) {
        if self.puts.is_empty() {
            return;
        }
        let [p50, p99, max] = [500, 990, 1000].map(|per_mille| quantile(self.puts, per_mille));
        to.time("put_p50_s", "PUT straight to the store p50, s", p50, Bar::None);
        to.time("put_p99_s", "PUT straight to the store p99, s", p99, Bar::None);
        to.time("put_max_s", "PUT straight to the store max, s", max, Bar::None);
    }

    /// A topic copied by `rehydrate` and read with no proxy.
    fn copied(&self, to: &mut Report) {
        let Copied { read, restored, differing } = *self.copied;
        to.count("copied", "records of a copy, read with no proxy", read, Bar::Positive);
        to.count("copied_restored", "  whose values were in the store", restored, Bar::Positive);
        to.count("copied_differing", "  other ones than produced", differing, Bar::Zero);
    }

    fn findings(&self, to: &mut Report) {
        let found = self.findings;
        let aborted = found.aborted_visible;
        let tail_aborted = self.tail.aborted_seen(self.accounts);
        to.count("lost", "lost", found.lost, Bar::Zero);
        to.count("doubled", "doubled", found.doubled, Bar::Zero);
        to.count("reordered", "reordered", found.reordered, Bar::Zero);
        to.count("misplaced", "at another offset than told", found.misplaced, Bar::Zero);
        to.count("torn_values", "torn values", found.torn_values, Bar::Zero);
        to.count("torn_transactions", "torn transactions", found.torn_transactions, Bar::Zero);
        to.count("aborted_visible", "aborted transactions visible", aborted, Bar::Zero);
        to.count("tail_torn", "torn values, following group", self.tail.torn, Bar::Zero);
        to.count("tail_aborted", "aborted visible, following group", tail_aborted, Bar::Zero);
    }
}

/// What the p99 of the gap may be, in seconds: behind a kill everything that is in flight is stored
/// anew, and what came behind it in its connection waits. More than the proxy waits for one PUT is
/// not allowed for.
fn gap_bar(base_s: f64, puts: &[Duration], puts_allowed: u32) -> f64 {
    let put = quantile(puts, 990).min(PUT_ALLOWED_MAX);
    let bar = base_s + (put * puts_allowed).as_secs_f64();
    (bar * 1000.0).round() / 1000.0
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

const WINDOW: Duration = Duration::from_secs(5);
/// The proxy's `STORE_ATTEMPT`.
const PUT_ALLOWED_MAX: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(put_ms: &[u64], puts_allowed: u32) -> Bar {
        let puts: Vec<_> = put_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Bar::AtMost(gap_bar(1.5, &puts, puts_allowed))
    }

    #[test]
    fn a_gap_may_be_longer_by_the_time_that_the_store_takes_without_the_proxy() {
        assert_eq!(bar(&[], 2), Bar::AtMost(1.5));
        assert_eq!(bar(&[10, 250], 2), Bar::AtMost(2.0));
        assert_eq!(bar(&[10, 250], 0), Bar::AtMost(1.5));
    }

    #[test]
    fn no_more_is_allowed_for_than_the_proxy_waits_for_a_put() {
        assert_eq!(bar(&[60_000], 2), Bar::AtMost(9.5));
    }
}
