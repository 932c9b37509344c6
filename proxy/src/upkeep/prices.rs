//! What a GB of values costs in the log and offloaded, by a list of prices that can be read.
//!
//! prices, bytes of a value, days -> money without and with offload -> where the claims of this
//! project hold and where they do not. Invariant: no price is built in; every input is printed.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::UpkeepError;
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
    /// Percent saved of storage.
    pub storage_saved: f64,
    /// Percent saved of everything.
    pub saved: f64,
    /// Percent of the bytes that brokers do not get.
    pub fewer_bytes: f64,
}

/// The costs of values of round sizes, and where each claim holds.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    prices: Prices,
    rows: Vec<Cost>,
    claims: Vec<Claim>,
}

/// Something that is said to be saved.
#[derive(Debug, Clone, Serialize)]
struct Claim {
    percent: f64,
    of: &'static str,
    holds: Vec<String>,
    fails: Vec<String>,
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
        let offload = offload_storage + requests;
        let percent = |with: f64| (1.0 - with / log_gb) * 100.0;
        Cost {
            value_bytes,
            days,
            log: log_gb,
            offload,
            offload_storage,
            storage_saved: percent(offload_storage),
            saved: percent(offload),
            fewer_bytes: (1.0 - reference_part) * 100.0,
        }
    }

    /// The costs of values of round sizes, and of one more size, over a week, a month and three.
    pub fn table(self, more: Option<f64>) -> Table {
        let sizes = ROUND_BYTES.into_iter().chain(more);
        let rows: Vec<_> =
            sizes.flat_map(|bytes| DAYS.map(|days| self.cost(bytes, days))).collect();
        let claims = CLAIMS.map(|(percent, of, figure)| {
            let (holds, fails): (Vec<_>, Vec<_>) =
                rows.iter().partition(|row| figure(row) >= percent);
            let names = |rows: Vec<&Cost>| rows.iter().map(|row| row.name()).collect();
            Claim { percent, of, holds: names(holds), fails: names(fails) }
        });
        Table { prices: self, rows, claims: claims.into() }
    }
}

impl Cost {
    fn name(&self) -> String {
        let bytes = match self.value_bytes {
            bytes if bytes >= 1e6 => format!("{} MB", (bytes / 1e5).round() / 10.0),
            bytes => format!("{} KB", (bytes / 1e2).round() / 10.0),
        };
        format!("{bytes} x {} d", self.days)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "per GB of values and their life; inputs:")?;
        for line in toml::to_string(&self.prices).unwrap_or_default().lines() {
            writeln!(out, "  {line}")?;
        }
        let [a, b, c, d] = ["value bytes", "days", "in the log", "offloaded"];
        let [e, f, g] = ["less storage", "less in all", "fewer bytes"];
        writeln!(out, "{a:>12} {b:>5} {c:>11} {d:>11} {e:>13} {f:>13} {g:>13}")?;
        for row in &self.rows {
            let Cost { value_bytes, days, log, offload, .. } = row;
            write!(out, "{value_bytes:>12.0} {days:>5.0} {log:>11.4} {offload:>11.4}")?;
            for percent in [row.storage_saved, row.saved, row.fewer_bytes] {
                write!(out, " {percent:>11.1} %")?;
            }
            writeln!(out)?;
        }
        for claim in &self.claims {
            let of = |rows: &[String]| match rows.len() {
                0 => "nowhere".to_owned(),
                all if all == self.rows.len() => "everywhere".to_owned(),
                _ => rows.join(", "),
            };
            let (holds, fails) = (of(&claim.holds), of(&claim.fails));
            writeln!(out, "{} % less {}: holds {holds}; fails {fails}", claim.percent, claim.of)?;
        }
        Ok(())
    }
}

/// What is claimed: percent, of what, by which figure.
type Figure = fn(&Cost) -> f64;
const CLAIMS: [(f64, &str, Figure); 5] = [
    (78.0, "money for storage", |row| row.storage_saved),
    (90.0, "money for storage", |row| row.storage_saved),
    (78.0, "money with requests", |row| row.saved),
    (90.0, "money with requests", |row| row.saved),
    (90.0, "bytes on brokers", |row| row.fewer_bytes),
];
const ROUND_BYTES: [f64; 3] = [1e5, 1e6, 8e6];
const DAYS: [f64; 3] = [7.0, 30.0, 90.0];
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
        let all = |bytes: f64, days: f64| prices().cost(bytes, days).saved;
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

    #[test]
    fn the_table_says_of_every_row_whether_a_claim_holds_and_of_what() {
        let table = prices().table(Some(2_345_678.0));
        assert_eq!(table.rows.len(), 12);
        for claim in &table.claims {
            assert_eq!(claim.holds.len() + claim.fails.len(), 12, "{claim:?}");
        }
        let claim = |percent: f64, of: &str| {
            let fits = |claim: &&Claim| claim.percent == percent && claim.of == of;
            table.claims.iter().find(fits).expect("a claim")
        };
        // 100 KB for a week: 10,000 writes and reads cost 0.054, more than a third of the log.
        assert!(claim(78.0, "money for storage").fails.is_empty());
        assert!(claim(78.0, "money with requests").fails.contains(&"100 KB x 7 d".to_owned()));
        assert!(claim(78.0, "money with requests").holds.contains(&"2.3 MB x 7 d".to_owned()));
        assert!(claim(90.0, "bytes on brokers").fails.is_empty());
        let text = table.to_string();
        assert!(text.contains("replication = 3.0"), "every input is printed: {text}");
        let line = "78 % less money with requests: holds ";
        assert!(text.lines().any(|text| text.starts_with(line)), "{text}");
    }

    #[test]
    fn a_dear_store_makes_a_claim_fail_everywhere() {
        let dear = Prices { store_gb_month: 0.2, cold_gb_month: 0.2, ..prices() };
        let text = dear.table(None).to_string();
        assert!(text.contains("78 % less money for storage: holds nowhere; fails everywhere"));
    }
}
