//! What offload would save for a topic.
//!
//! sizes of values in the log -> bytes that stay, bytes that go -> money, by prices.rs.

use std::fmt;

use serde::Serialize;

use super::log::Cluster;
use super::prices::{Prices, Table};
use super::scope::sources;
use super::{Progress, UpkeepError};
use crate::config::Config;
use crate::fault;
use crate::limits::REFERENCE_BYTES;

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
    bytes_with_offload: u64,
    fewer_bytes_percent: f64,
    costs: Option<Table>,
}

/// Reads a topic's log; of a virtual topic those of all its parts.
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
        bytes_with_offload: 0,
        fewer_bytes_percent: 0.0,
        costs: None,
    };
    let shown = cluster.shown().await?;
    let mut names = sources(config, &shown, topic)?;
    if fault::on("one-part-analysed") {
        names.truncate(1);
    }
    let partitions: Vec<_> = shown.partitions.iter().filter(|p| names.contains(&p.topic)).collect();
    let progress = Progress::new();
    for (n, at) in partitions.iter().enumerate() {
        progress.show("logs", n, partitions.len());
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
    progress.show("logs", partitions.len(), partitions.len());
    found.bytes_with_offload = found.bytes_after();
    found.fewer_bytes_percent = found.saved();
    let mean =
        (found.large_values > 0).then(|| found.large_bytes as f64 / found.large_values as f64);
    found.costs = prices.map(|prices| prices.table(mean));
    Ok(found)
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
        self.costs.iter().try_for_each(|costs| write!(out, "\n{costs}"))
    }
}
