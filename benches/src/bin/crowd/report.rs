//! From the runs to figures with bars.

use std::path::Path;

use firebreak_benches::error::Result;
use firebreak_benches::histogram::Histogram;
use serde_json::{Value, json};

use crate::proxy::{Memory, Open};
use crate::slow::Counts;

/// What one run left.
pub struct Run {
    /// Healthy clients, connected to the end.
    pub healthy: u64,
    /// What the slow ones did.
    pub slow: Counts,
    /// What the healthy ones saw, from when a request was due to its answer.
    pub latencies: Histogram,
    /// Connections at its end.
    pub open: Open,
    /// The proxy's memory at its end.
    pub memory: Memory,
}

impl Run {
    /// The figures in one line.
    pub fn line(&self) -> String {
        let Self { slow, latencies, open, memory, .. } = self;
        format!(
            "{} slow: {} answers, p50 {:.2} ms, p99 {:.2} ms; connections of clients {}, to \
             brokers {}; slow ones ended {}, sent {} bytes, read {}; RSS {} MB, peak {} MB",
            slow.opened,
            latencies.count(),
            self.ms(500),
            self.ms(990),
            open.clients,
            open.brokers,
            slow.ended,
            slow.sent,
            slow.received,
            memory.resident / MB,
            memory.peak / MB,
        )
    }

    fn ms(&self, per_mille: u64) -> f64 {
        self.latencies.quantile_us(per_mille) / 1000.0
    }

    /// What must hold for the figures to mean anything.
    fn problems(&self) -> Vec<String> {
        let Self { healthy, slow, latencies, open, .. } = self;
        let crowded = slow.opened > 0;
        let held = [
            ("no answer", latencies.count() > 0),
            ("connections of clients", open.clients == healthy + slow.opened),
            ("connections to brokers", open.brokers == healthy + slow.with_broker),
            ("slow clients ended", slow.ended == 0),
            ("slow clients sent nothing", slow.sent > 0 || !crowded),
            ("slow clients read nothing", slow.received > 0 || !crowded),
        ];
        let broken = held.into_iter().filter(|(_, holds)| !holds);
        broken.map(|(what, _)| format!("{what}: {}", self.line())).collect()
    }

    fn json(&self) -> Value {
        let Self { healthy, slow, latencies, open, memory } = self;
        json!({
            "healthy": healthy, "slow": slow.opened, "answers": latencies.count(),
            "p50_ms": self.ms(500), "p99_ms": self.ms(990), "max_ms": self.ms(1000),
            "connections_client": open.clients, "connections_broker": open.brokers,
            "slow_ended": slow.ended, "slow_sent_bytes": slow.sent,
            "slow_read_bytes": slow.received,
            "rss_bytes": memory.resident, "rss_peak_bytes": memory.peak,
        })
    }
}

/// Prints the verdict over pairs of runs, without and with slow clients; true if it is good.
pub fn tell(out: Option<&Path>, pairs: &[(Run, Run)]) -> Result<bool> {
    let mut ratios: Vec<f64> =
        pairs.iter().map(|(alone, crowded)| crowded.ms(990) / alone.ms(990)).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
    let peak = pairs.iter().map(|(_, crowded)| crowded.memory.peak).max().unwrap_or(u64::MAX);
    let runs = || pairs.iter().flat_map(|(alone, crowded)| [alone, crowded]);
    let mut problems: Vec<String> = runs().flat_map(Run::problems).collect();
    if ratio.is_nan() || ratio > P99_RATIO_MAX {
        problems.push(format!("p99 with the slow clients is {ratio:.2} times that without"));
    }
    if peak > RSS_BYTES_MAX {
        problems.push(format!("the proxy took {} MB", peak / MB));
    }
    println!(
        "  p99 of healthy clients, with / without slow ones: {ratio:.2} (bar {P99_RATIO_MAX}), \
         of {ratios:.2?}\n  peak RSS of the proxy: {} MB (bar {} MB)",
        peak / MB,
        RSS_BYTES_MAX / MB,
    );
    for problem in &problems {
        println!("  NOT MET {problem}");
    }
    if let Some(out) = out {
        let runs: Vec<Value> = runs().map(Run::json).collect();
        let all = json!({
            "passed": problems.is_empty(), "problems": problems, "p99_ratio": ratio,
            "p99_ratios": ratios, "rss_peak_bytes": peak, "runs": runs,
        });
        std::fs::write(out, format!("{all:#}\n"))?;
    }
    Ok(problems.is_empty())
}

const MB: u64 = 1_000_000;
const P99_RATIO_MAX: f64 = 2.0;
const RSS_BYTES_MAX: u64 = 512 * MB;
