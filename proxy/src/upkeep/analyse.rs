//! What offload would save for a topic, and what it costs, by a list of prices that can be read.
//!
//! sizes of values in the log -> bytes that stay, bytes that go -> money per GB and month, for the
//! topic and for round sizes. Invariant: no price is built in; every input is printed.

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::UpkeepError;
use super::log::Cluster;
use crate::config::Config;
use crate::limits::REFERENCE_BYTES;

/// Prices and the circumstances they hold for.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Words about where the prices come from.
    pub source: String,
    /// Money per GB and month of a broker's disk.
    pub broker_gb_month: f64,
    /// Copies that brokers keep.
    pub replication: f64,
    /// Part of a broker's disk that is full at most.
    pub broker_fill: f64,
    /// Money per GB that a broker sends to another zone, once per copy beyond the first.
    pub zone_gb: f64,
    /// Money per GB and month in the store.
    pub store_gb_month: f64,
    /// Money per GB and month in the store's cheaper class.
    pub cold_gb_month: f64,
    /// Days after which objects are in the cheaper class.
    pub cold_after_days: f64,
    /// Money per 1,000 writes.
    pub put_1000: f64,
    /// Money per 1,000 reads.
    pub get_1000: f64,
    /// Reads per value beyond those that are served from memory.
    pub reads_per_value: f64,
    /// Values in a pack.
    pub values_per_pack: f64,
    /// Stored bytes per byte of a value.
    pub compression: f64,
}

/// Money for one GB of values over its life, without and with offload.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Bytes of a value.
    pub value_bytes: f64,
    /// Days it is kept.
    pub days: f64,
    /// In the log as it is: disk and copies between zones.
    pub log: f64,
    /// As reference in the log and object in the store: everything.
    pub offload: f64,
    /// The same without requests.
    pub offload_storage: f64,
}

impl Cost {
    /// Percent saved of storage, and of everything.
    pub fn saved(&self) -> (f64, f64) {
        let percent = |with: f64| (1.0 - with / self.log) * 100.0;
        (percent(self.offload_storage), percent(self.offload))
    }
}

impl Prices {
    /// Reads a list of prices.
    pub fn load(file: &Path) -> Result<Self, UpkeepError> {
        let wrong = |why: String| UpkeepError::Prices { file: file.display().to_string(), why };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// What one GB of such values costs.
    pub fn cost(&self, value_bytes: f64, days: f64) -> Cost {
        let months = days / DAYS_PER_MONTH;
        let disk = self.broker_gb_month / self.broker_fill * self.replication * months;
        let copies = self.zone_gb * (self.replication - 1.0);
        let log_gb = disk + copies;
        let reference_part = REFERENCE_BYTES as f64 / value_bytes;
        let cold_days = (days - self.cold_after_days).max(0.0);
        let stored = self.store_gb_month * (days - cold_days) + self.cold_gb_month * cold_days;
        let stored = stored / DAYS_PER_MONTH * self.compression;
        let values = BYTES_PER_GB / value_bytes;
        let requests = self.put_1000 * values / self.values_per_pack / 1000.0
            + self.get_1000 * values * self.reads_per_value / 1000.0;
        let offload_storage = stored + log_gb * reference_part;
        Cost {
            value_bytes,
            days,
            log: log_gb,
            offload: offload_storage + requests,
            offload_storage,
        }
    }
}

/// What a topic's log holds, and what offload would make of it.
#[derive(Debug, Clone, Serialize)]
pub struct Analysis {
    topic: String,
    threshold_bytes: usize,
    records: u64,
    record_bytes: u64,
    large_values: u64,
    large_bytes: u64,
    references: u64,
    costs: Vec<Cost>,
    prices: Option<Prices>,
}

/// Reads a topic's log.
pub async fn analyse(
    config: &Config,
    cluster: &mut Cluster,
    topic: &str,
    threshold_bytes: usize,
    prices: Option<Prices>,
) -> Result<Analysis, UpkeepError> {
    let mut found = Analysis {
        topic: topic.to_owned(),
        threshold_bytes,
        records: 0,
        record_bytes: 0,
        large_values: 0,
        large_bytes: 0,
        references: 0,
        costs: Vec::new(),
        prices,
    };
    let names = physical(config, topic);
    let shown = cluster.shown().await?;
    let partitions: Vec<_> = shown.partitions.iter().filter(|p| names.contains(&p.topic)).collect();
    if partitions.is_empty() {
        return Err(UpkeepError::NoTopic(topic.to_owned()));
    }
    for at in partitions {
        let mut count = |_: i64, value: &[u8]| {
            found.records += 1;
            found.record_bytes += value.len() as u64;
            if protocol_ext::reference::Reference::parse_unverified(value).is_ok() {
                found.references += 1;
            } else if value.len() > threshold_bytes {
                found.large_values += 1;
                found.large_bytes += value.len() as u64;
            }
        };
        cluster.values(at, &mut count).await?;
    }
    if let Some(prices) = &found.prices {
        let round = [1e5, 1e6, 8e6].into_iter();
        let mean =
            (found.large_values > 0).then(|| found.large_bytes as f64 / found.large_values as f64);
        let sizes = round.chain(mean);
        let costs = sizes.flat_map(|bytes| [7.0, 30.0, 90.0].map(|days| prices.cost(bytes, days)));
        found.costs = costs.collect();
    }
    Ok(found)
}

/// The topics of the cluster that hold a topic's records.
fn physical(config: &Config, topic: &str) -> Vec<String> {
    let routed = config.virtual_topics.iter().find(|routed| routed.name == topic);
    routed.map_or_else(
        || vec![topic.to_owned()],
        |routed| routed.slots.iter().map(|slot| format!("{topic}-{slot}")).collect(),
    )
}

impl Analysis {
    fn bytes_after(&self) -> u64 {
        self.record_bytes - self.large_bytes + self.large_values * REFERENCE_BYTES as u64
    }

    fn saved(&self) -> f64 {
        if self.record_bytes == 0 {
            return 0.0;
        }
        (1.0 - self.bytes_after() as f64 / self.record_bytes as f64) * 100.0
    }
}

impl fmt::Display for Analysis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, threshold_bytes, records, record_bytes, .. } = self;
        writeln!(out, "{topic}: {records} records, {record_bytes} bytes of values")?;
        writeln!(out, "  already references     {}", self.references)?;
        let (large, bytes) = (self.large_values, self.large_bytes);
        writeln!(out, "  above {threshold_bytes:>9} bytes  {large} values, {bytes} bytes")?;
        let (after, saved) = (self.bytes_after(), self.saved());
        writeln!(out, "  bytes in the log with offload: {after}, {saved:.1} % less")?;
        let Some(prices) = &self.prices else { return Ok(()) };
        writeln!(out, "\nper GB of values; inputs:")?;
        for line in toml::to_string(prices).unwrap_or_default().lines() {
            writeln!(out, "  {line}")?;
        }
        let titles = ["value bytes", "days", "in the log", "offloaded", "storage", "all"];
        let [a, b, c, d, e, f] = titles;
        writeln!(out, "{a:>12} {b:>5} {c:>11} {d:>11} {e:>9} {f:>9}")?;
        for cost in &self.costs {
            let (storage, all) = cost.saved();
            let Cost { value_bytes, days, log, offload, .. } = cost;
            let mut line = String::new();
            let _ = write!(line, "{value_bytes:>12.0} {days:>5.0} {log:>11.4} {offload:>11.4}");
            writeln!(out, "{line} {storage:>7.1} % {all:>7.1} %")?;
        }
        let holds = |claim: f64| {
            let all = self.costs.iter().filter(|cost| cost.saved().0 >= claim);
            format!("{} of {} rows", all.count(), self.costs.len())
        };
        writeln!(out, "78 % of storage saved in {}, 90 % in {}", holds(78.0), holds(90.0))
    }
}

const BYTES_PER_GB: f64 = 1e9;
const DAYS_PER_MONTH: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        Prices {
            source: "a test".to_owned(),
            broker_gb_month: 0.08,
            replication: 3.0,
            broker_fill: 0.6,
            zone_gb: 0.01,
            store_gb_month: 0.023,
            cold_gb_month: 0.0125,
            cold_after_days: 30.0,
            put_1000: 0.005,
            get_1000: 0.0004,
            reads_per_value: 1.0,
            values_per_pack: 1.0,
            compression: 1.0,
        }
    }

    #[test]
    fn a_cost_is_the_sum_of_its_visible_parts() {
        let cost = prices().cost(1e6, 30.0);
        let log = 0.08 / 0.6 * 3.0 + 0.02;
        assert!((cost.log - log).abs() < 1e-12);
        let offload = 0.023 + log * 112.0 / 1e6 + 0.005 + 0.0004;
        assert!((cost.offload - offload).abs() < 1e-12, "{cost:?}");
        let later = prices().cost(1e6, 90.0);
        let stored = 0.023 + 0.0125 * 2.0;
        assert!((later.offload_storage - stored - later.log * 112.0 / 1e6).abs() < 1e-12);
    }

    #[test]
    fn small_values_and_short_lives_save_less() {
        let all = |bytes: f64, days: f64| prices().cost(bytes, days).saved().1;
        assert!(all(1e5, 7.0) < all(1e6, 7.0) && all(1e6, 7.0) < all(8e6, 7.0));
        assert!(all(1e5, 7.0) < all(1e5, 30.0));
    }

    #[test]
    fn a_list_of_prices_has_every_key_and_no_other() {
        let file = include_str!("../../../docs/prices.example.toml");
        let read: Prices = toml::from_str(file).expect("valid");
        assert!(read.replication >= 1.0);
        assert!(toml::from_str::<Prices>(&format!("{file}\nmore = 1")).is_err());
    }
}
