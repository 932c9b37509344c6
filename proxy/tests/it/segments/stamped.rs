//! Days by the records' own timestamps.

use std::collections::{BTreeMap, BTreeSet};

use protocol_ext::codec::{Codec, Framing};
use serde_json::Value;

use super::TOPIC;
use super::leader::roll;
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{Record, batch, read};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, until};
use crate::routed::without_sequences;

const DAY_MS: i64 = 86_400_000;
/// Days that are open at a time.
const RING: i64 = 3;
const BY_TIMESTAMP: &str = "\n[[virtual_topic]]\nname = \"fires\"\npartitions = 1\ndays = true\n\
    day_from = \"timestamp\"\nopen_days = 3\nregion = { header = \"region\" }\n\
    [[region]]\nname = \"norcal\"\n";

#[expect(clippy::disallowed_methods, reason = "the proxy's days are those of this clock")]
fn today() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("small") / DAY_MS
}

/// The day, counted from 1970, that `YYYY-MM-DD` names.
fn day_of(name: &str) -> Option<i64> {
    let parts: Vec<i64> = name.split('-').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [year, month, day] = parts[..] else { return None };
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let of_months: i64 = days.iter().take(usize::try_from(month).ok()? - 1).sum();
    let of_years: i64 = (1970..year).map(|year| 365 + i64::from(leap(year))).sum();
    Some(of_years + of_months + day - 1)
}

/// Open segments of all slots, by the slot's name.
async fn open(proxy: &Proxy) -> Checked<BTreeMap<String, String>> {
    let (_, text) = proxy.admin(&format!("/topics/{TOPIC}")).await?;
    let told: Value = serde_json::from_str(&text).map_err(failure)?;
    let slots = told["slots"].as_array().into_iter().flatten();
    let open = slots.filter_map(|slot| {
        let last = slot["segments"].as_array()?.last()?;
        Some((slot["slot"].as_str()?.to_owned(), last["topic"].as_str()?.to_owned()))
    });
    Ok(open.collect())
}

/// Records of these days in one batch; of every second one the region is known.
fn of_days(days: &[i64]) -> bytes::Bytes {
    let records: Vec<Record> = (0..)
        .zip(days)
        .map(|(offset, day)| Record {
            offset,
            timestamp: day * DAY_MS + 1000 * offset,
            key: None,
            value: Some(day.to_string().into_bytes()),
            headers: match offset % 2 {
                0 => vec![(b"region".to_vec(), Some(b"norcal".to_vec()))],
                _ => Vec::new(),
            },
        })
        .collect();
    without_sequences(&batch(Codec::Zstd, Framing::Plain, &records))
}

/// Days of the records in a topic.
fn days_in(brokers: &Brokers, topic: &str) -> Vec<i64> {
    let mut cluster = brokers.cluster();
    let batches = cluster.log(topic, 0).map(|log| log.batches().collect::<Vec<_>>());
    let records = batches.into_iter().flatten().flat_map(read);
    records.map(|record| record.timestamp / DAY_MS).collect()
}

/// Every record goes to the slot of its region and day, late and early ones too; after a roll all
/// slots go on, and a reader sees every record once.
pub async fn records_go_to_their_days(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    let proxy = Setup::new(&brokers, faults).limit(BY_TIMESTAMP).start().await;
    let slots = 2 * usize::try_from(RING).map_err(failure)?;
    until("segments", async || (open(&proxy).await.ok()?.len() == slots).then_some(())).await?;
    let segments = open(&proxy).await?;
    let names: BTreeSet<&String> = segments.values().collect();
    ensure_eq!(names.len(), slots, "different segments");
    let today = today();
    for (slot, segment) in &segments {
        let (region, nth) = slot.rsplit_once('.').ok_or_else(|| failure(slot))?;
        let day = segment.strip_prefix(&format!("fires-{region}-")).and_then(day_of);
        let day = day.ok_or_else(|| failure(format!("{slot} has segment {segment}")))?;
        let open =
            (today - RING + 1..=today).contains(&day) && day.rem_euclid(RING).to_string() == nth;
        ensure!(open, "{slot} has segment {segment}");
    }
    // Of each day twice: once where the region is known. 40 days ago and tomorrow are not open.
    let days: Vec<i64> =
        [0, 0, -1, -1, -2, -2, -40, -40, 1, 1].iter().map(|ago| today + ago).collect();
    let mut client = Client::connect(proxy.port).await?;
    let (code, _) = client.produce(9, TOPIC, 0, &of_days(&days)).await?;
    ensure_eq!(code, 0, "error of Produce");
    let ensure_placed = |segments: &BTreeMap<String, String>| {
        for (slot, segment) in segments {
            let nth: i64 = slot.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(-1);
            let mut expected: Vec<i64> = days.iter().copied().step_by(2).collect();
            expected.retain(|day| day.rem_euclid(RING) == nth);
            ensure_eq!(days_in(&brokers, segment), expected, "days in {segment} of {slot}");
        }
        Ok::<(), crate::harness::Failure>(())
    };
    ensure_placed(&segments)?;
    for (reason, count) in [("late", 2.0), ("early", 2.0)] {
        let name = format!("firebreak_records_outside_days_total{{reason=\"{reason}\"}}");
        ensure!((proxy.metric(&name).await? - count).abs() < 0.5, "{reason} records");
    }
    roll(&proxy).await?;
    let after = open(&proxy).await?;
    ensure!(after.iter().all(|(slot, name)| segments[slot] != *name), "a slot was not rolled");
    let (code, _) = client.produce(9, TOPIC, 0, &of_days(&days)).await?;
    ensure_eq!(code, 0, "error behind a roll");
    ensure_placed(&after)?;
    let mut read_back = 0;
    for q in 0..i32::try_from(slots).map_err(failure)? {
        let mut offset = 0;
        loop {
            let (code, section) = client.fetch(11, TOPIC, q, offset, 1 << 20).await?;
            ensure_eq!(code, 0, "error of Fetch");
            let records = read(&section);
            let Some(last) = records.last() else { break };
            offset = last.offset + 1;
            read_back += records.len();
        }
    }
    ensure_eq!(read_back, 2 * days.len(), "records read back");
    Ok(())
}

#[tokio::test]
async fn records_go_to_the_days_of_their_timestamps() -> Checked {
    records_go_to_their_days(None).await
}
