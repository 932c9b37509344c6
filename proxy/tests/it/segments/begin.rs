//! How proxies begin: not ready before they know the placement, and one of them leads.

use protocol_ext::fake_broker::Fault;

use super::begun::begun;
use super::leader::{another, ensure_written, roll, segments, send};
use super::{ROUTED, TOPIC, placed};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::{Checked, Faults, ensure_eq, until};

const FETCH: i16 = 1;
const INIT_PRODUCER_ID: i16 = 22;
/// More answers than a proxy waits for while a test looks.
const HELD: usize = 20;
const NOT_LEADER: i16 = 6;

/// While the placement log gives no answer nobody is sent here, and nothing is written.
pub async fn who_has_not_read_is_not_ready(faults: Faults) -> Checked {
    let brokers = placed().await;
    (0..HELD).for_each(|_| brokers.cluster().script(FETCH, Fault::HoldAfter(0)));
    let proxy = Setup::new(&brokers, faults).limit(ROUTED).not_ready().start().await;
    let asked = async || (brokers.cluster().count(FETCH) > 0).then_some(());
    until("a question about the log", asked).await?;
    let ready = async || {
        let told = proxy.admin("/readyz").await.ok()?;
        (!told.1.contains("was not reached yet")).then_some(told)
    };
    let unread = (503, "the placement log was not read to its end yet\n".to_owned());
    ensure_eq!(until("the cluster", ready).await?, unread, "readiness before the log is read");
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, NOT_LEADER, "error before the log is read");
    (0..HELD).for_each(|_| brokers.release());
    let ready = async || (proxy.admin("/readyz").await.ok()?.0 == 200).then_some(());
    until("readiness once the log is read", ready).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error once the log is read");
    Ok(())
}

#[tokio::test]
async fn who_has_not_read_the_placement_is_not_ready() -> Checked {
    who_has_not_read_is_not_ready(None).await
}

/// Physical topics of the virtual one, sorted.
fn made(brokers: &Brokers) -> Vec<String> {
    let cluster = brokers.cluster();
    let names = cluster.topics.iter().map(|topic| topic.name.clone());
    let mut made: Vec<String> = names.filter(|name| name.starts_with("fires-")).collect();
    made.sort_unstable();
    made
}

/// Both tell of the same segments, of which there is one for whatever was begun, and no more.
async fn ensure_same(brokers: &Brokers, both: [&Proxy; 2], count: usize) -> Checked {
    for proxy in both {
        let there = async || (segments(proxy).await.ok()?.len() >= count).then_some(());
        until("segments", there).await?;
        let all = segments(proxy).await?;
        let mut names: Vec<String> = all.into_iter().map(|(topic, ..)| topic).collect();
        ensure_eq!(names.len(), count, "segments");
        ensure_eq!(names, begun(brokers), "segments, and what was begun");
        names.sort_unstable();
        ensure_eq!(names, made(brokers), "segments, and topics that were made");
        ensure_eq!(proxy.admin("/readyz").await?.0, 200, "readiness");
    }
    Ok(())
}

async fn leads(proxy: &Proxy) -> bool {
    proxy.metric("firebreak_placement_leader").await.unwrap_or(0.0) > 0.5
}

/// Two proxies start at once where there is nothing, and both take over: one leads, the other one
/// says who, and no segment is there twice.
pub async fn two_start_at_once(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    // Whoever is first hears of it when the other one has taken over too.
    brokers.cluster().script(INIT_PRODUCER_ID, Fault::HoldAfter(0));
    let (one, other) = tokio::join!(another(&brokers, faults), another(&brokers, faults));
    let (one, other) = (one?, other?);
    let [leader, follower] = match leads(&one).await {
        true => [&one, &other],
        false => [&other, &one],
    };
    brokers.release();
    let decided = async || {
        let follows = follower.logged("another process leads") > 0;
        (follows || leads(follower).await).then_some(())
    };
    until("what becomes of the other one", decided).await?;
    ensure_eq!((leads(leader).await, leads(follower).await), (true, false), "who leads");
    ensure_same(&brokers, [leader, follower], 2).await?;
    let (code, told) = follower.post(&format!("/topics/{TOPIC}/roll")).await?;
    let elsewhere = format!("{{\"leader\":\"{}\"}}", leader.admin_address());
    ensure_eq!((code, told), (421, elsewhere), "what the other one says");
    let mut client = Client::connect(follower.port).await?;
    ensure_eq!(send(&mut client, 0, 4).await?, 0, "error of the first batch");
    roll(leader).await?;
    ensure_same(&brokers, [leader, follower], 4).await?;
    ensure_eq!(send(&mut client, 4, 4).await?, 0, "error of the second batch");
    ensure_written(&brokers, follower, 8).await?;
    ensure_eq!((leads(leader).await, leads(follower).await), (true, false), "who leads in the end");
    Ok(())
}

#[tokio::test]
async fn two_that_start_at_once_make_every_segment_once() -> Checked {
    two_start_at_once(None).await
}
