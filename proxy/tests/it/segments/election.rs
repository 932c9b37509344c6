//! Who leads when processes are stopped and go on.

use std::time::Duration;

use super::TOPIC;
use super::leader::{LEADS, another, ensure_written, roll, segments, send, start};
use crate::harness::client::Client;
use crate::harness::{Checked, Faults, ensure_eq, until};

/// Longer than a leader takes to see that it is none.
const SEEN: Duration = Duration::from_millis(1500);

/// The leader is stopped in the middle of a roll: the next one ends it. When the one that led goes
/// on, brokers refuse what it writes, and it does nothing more.
pub async fn a_stopped_leader_is_followed(faults: Faults) -> Checked {
    let (brokers, first) = start(faults).await?;
    let second = another(&brokers, faults).await?;
    first.says(LEADS, 1).await?;
    let mut client = Client::connect(second.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    brokers.cluster().behind.push(0);
    let path = format!("/topics/{TOPIC}/roll");
    let begun = second.metric_becomes("firebreak_placement_intents", 2.0);
    tokio::select! {
        biased;
        begun = begun => begun?,
        rolled = first.post(&path) => drop(rolled?),
    }
    first.signal("STOP");
    second.says(LEADS, 1).await?;
    brokers.cluster().behind.clear();
    until("the roll", async || (segments(&second).await.ok()?.len() == 4).then_some(())).await?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    ensure_eq!(brokers.cluster().fenced, 0, "writes that were refused while it was stopped");
    first.signal("CONT");
    let refused = async || (brokers.cluster().fenced > 0).then_some(());
    until("a write of the old leader that a broker refuses", refused).await?;
    until("it steps down", async || (first.logged("another process leads") > 0).then_some(()))
        .await?;
    tokio::time::sleep(SEEN).await;
    ensure_eq!((first.logged(LEADS), second.logged(LEADS)), (1, 1), "how often each one led");
    roll(&second).await?;
    ensure_eq!(send(&mut client, 8, 4).await?, 0, "error of the third batch");
    ensure_eq!(segments(&second).await?.len(), 6, "segments in the end");
    ensure_written(&brokers, &second, 12).await
}

#[tokio::test]
async fn a_leader_that_is_stopped_is_followed_and_does_not_fight() -> Checked {
    a_stopped_leader_is_followed(None).await
}
