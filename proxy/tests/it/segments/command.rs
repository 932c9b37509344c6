//! `firebreak topic`: a roll finds whoever leads, and a list says why a topic is not served.

use std::process::{Command, Stdio};

use super::leader::{LEADS, another, segments, start};
use super::{ROUTED, TOPIC, placed};
use crate::harness::broker::Brokers;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, until, within};

async fn roll(at: &Proxy, wait_s: u32, faults: Faults) -> Checked<(bool, String, String)> {
    run(at, &["roll", TOPIC, "--wait-s", &wait_s.to_string()], faults).await
}

/// Runs a command of topics: whether it was done, what it printed, and what it said.
async fn run(at: &Proxy, arguments: &[&str], faults: Faults) -> Checked<(bool, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    command.arg("topic").args(arguments).args(["--admin", &at.admin_address()]);
    command.stdin(Stdio::null());
    match faults {
        Some(faults) => command.env("FAILPOINTS", faults),
        None => command.env_remove("FAILPOINTS"),
    };
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = within("a command", done).await?.map_err(failure)?.map_err(failure)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((done.status.success(), text(&done.stdout), text(&done.stderr)))
}

/// Whoever follows says who leads; a leader that is lost is waited for.
pub async fn the_leader_is_found(faults: Faults) -> Checked {
    let (brokers, first) = start(faults).await?;
    let second = another(&brokers, faults).await?;
    first.says(LEADS, 1).await?;
    let (done, printed, said) = roll(&second, 25, faults).await?;
    ensure!(done, "asked at who does not lead: {said}");
    ensure_eq!(printed.lines().count(), 2, "names in {printed:?}");
    drop(first);
    let (done, _, said) = roll(&second, 25, faults).await?;
    ensure!(done, "asked while nobody leads: {said}");
    ensure_eq!(segments(&second).await?.len(), 6, "segments after two rolls");
    Ok(())
}

#[tokio::test]
async fn a_roll_is_done_by_whoever_leads() -> Checked {
    the_leader_is_found(None).await
}

/// A topic of which the placement log has another layout has its reason in the list.
#[tokio::test]
async fn a_list_says_why_a_topic_is_not_served() -> Checked {
    let brokers = placed().await;
    let other = ROUTED.replace("partitions = 1", "partitions = 2");
    let proxy = Setup::new(&brokers, None).limit(&other).start().await;
    let why = "not served in norcal, other: the placement log has another layout";
    until("the reason", async || {
        let (done, printed, _) = run(&proxy, &["list"], None).await.ok()?;
        (done && printed.contains(why)).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_list_without_a_virtual_topic_says_that_there_is_none() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let (done, printed, _) = run(&proxy, &["list"], None).await?;
    ensure!(done && printed.starts_with("no virtual topic is configured"), "list: {printed:?}");
    let (_, printed, _) = run(&proxy, &["list", "--json"], None).await?;
    ensure_eq!(printed, "[]\n", "list in JSON");
    Ok(())
}

/// No broker answers, so nobody can lead: the command ends in its time and says why.
#[tokio::test]
async fn a_roll_without_a_leader_says_so() -> Checked {
    let (brokers, first) = start(None).await?;
    let second = another(&brokers, None).await?;
    first.says(LEADS, 1).await?;
    let leader = first.admin_address();
    (0..2).for_each(|node| brokers.freeze(node));
    drop(first);
    let (done, _, said) = roll(&second, 2, None).await?;
    ensure!(!done && said.contains("no leader within 2s"), "what it says: {said}");
    ensure!(said.contains(&leader) || said.contains(&second.admin_address()), "whom: {said}");
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    nowhere.args(["topic", "roll", TOPIC, "--admin", &leader]);
    let done = tokio::task::spawn_blocking(move || nowhere.output());
    let done = within("a command", done).await?.map_err(failure)?.map_err(failure)?;
    ensure!(!done.status.success(), "a roll where nobody listens");
    Ok(())
}
