//! Topics of segments whose day begins soon.

use firebreak::clock::{DAY_MS, unix_ms};
use firebreak::placement::day::day;

use super::ROUTED;
use super::leader::{away_from_midnight, ensure_written, roll, segments, send};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::{Checked, Faults, ensure, ensure_eq, until};

#[tokio::test]
async fn they_are_made_before_and_open_on_their_day() -> Checked {
    made_before_and_opened_later(None).await
}

/// Tomorrow's topics are there, nothing is open in them, and a roll of today takes another one.
pub async fn made_before_and_opened_later(faults: Faults) -> Checked {
    away_from_midnight().await;
    let brokers = Brokers::start(2).await;
    let all_day = ROUTED.replace("create_ahead_s = 0\n", "create_ahead_s = 86400\n");
    let proxy = Setup::new(&brokers, faults).limit(&all_day).start().await;
    let tomorrow = day(unix_ms() + DAY_MS);
    let next = ["norcal", "other"].map(|slot| format!("fires-{slot}-{tomorrow}"));
    until("tomorrow's topics", async || {
        let mut cluster = brokers.cluster();
        next.iter().all(|topic| cluster.log(topic, 0).is_some()).then_some(())
    })
    .await?;
    let open = segments(&proxy).await?;
    ensure_eq!(open.len(), 2, "segments before the day");
    ensure!(open.iter().all(|(topic, ..)| !next.contains(topic)), "open: {open:?}");
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    roll(&proxy).await?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error behind a roll");
    let rolled = segments(&proxy).await?;
    ensure_eq!(rolled.len(), 4, "segments behind a roll");
    ensure!(rolled.iter().all(|(topic, ..)| !next.contains(topic)), "open: {rolled:?}");
    ensure_written(&brokers, &proxy, 8).await?;
    for topic in &next {
        let end = brokers.cluster().log(topic, 0).map(|log| log.end());
        ensure_eq!(end, Some(0), "end of {topic}");
    }
    Ok(())
}
