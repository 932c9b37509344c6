//! Who leads when processes are stopped and go on.

use std::time::Duration;

use protocol_ext::fake_broker::Fault;

use super::TOPIC;
use super::leader::{LEADS, another, ensure_written, roll, segments, send, start};
use crate::harness::client::Client;
use crate::harness::{Checked, Faults, ensure_eq, until};

const FETCH: i16 = 1;
/// Longer than a candidate waits for a sign of life.
const STOPPED: Duration = Duration::from_millis(4500);
/// Longer than a leader takes to see that it is none.
const SEEN: Duration = Duration::from_millis(1500);

/// The leader is stopped in the middle of a roll: the next one ends it, and the one that led does
/// nothing more when it goes on.
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
    first.signal("CONT");
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

/// Who did not run has heard nobody, and that is no silence of the leader's.
#[tokio::test]
async fn who_was_stopped_takes_nothing_over() -> Checked {
    let (brokers, first) = start(None).await?;
    let second = another(&brokers, None).await?;
    first.says(LEADS, 1).await?;
    // Neither hears what is new in the log: what waits for it when it goes on is of no help.
    let unheard = {
        let mut cluster = brokers.cluster();
        (0..2).for_each(|_| cluster.script(FETCH, Fault::Never));
        cluster.count(FETCH) + 2
    };
    until("questions without an answer", async || {
        (brokers.cluster().count(FETCH) >= unheard).then_some(())
    })
    .await?;
    second.signal("STOP");
    tokio::time::sleep(STOPPED).await;
    second.signal("CONT");
    tokio::time::sleep(2 * SEEN).await;
    let fenced = first.logged("another process leads");
    ensure_eq!((fenced, second.logged(LEADS)), (0, 0), "how often who led was fenced");
    roll(&first).await
}
