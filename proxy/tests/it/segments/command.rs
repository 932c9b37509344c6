//! `firebreak topic roll` finds whoever leads.

use std::process::{Command, Stdio};

use super::TOPIC;
use super::leader::{LEADS, another, segments, start};
use crate::harness::proxy::Proxy;
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, within};

/// Runs it: whether it was done, what it printed, and what it said.
async fn roll(at: &Proxy, wait_s: u32, faults: Faults) -> Checked<(bool, String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    command.args(["topic", "roll", TOPIC, "--admin", &at.admin_address()]);
    command.args(["--wait-s", &wait_s.to_string()]).stdin(Stdio::null());
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
