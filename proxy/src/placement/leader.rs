//! The one process that decides: it leads while its writer is not fenced.
//!
//! candidate (no sign of life of a leader for a while) -> take over -> the log read to the end ->
//! open intents finished -> leads, in `reign.rs`: a sign of life every second, a roll at 00:00 UTC
//! or on command, old segments deleted. Order of every change: intent -> brokers -> facts.
//! Invariant: a process decides by what it has read of the log behind its own take-over, so nothing
//! is decided twice.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::ask::Asker;
use super::reign::Reign;
use super::seal;
use super::tail::Read;
use super::writer::{WriteError, Writer};
use crate::clock;
use crate::data_plane::DataPlane;
use crate::route::virtual_topics::PLACEMENT_TOPIC;
use crate::{fault, random};

/// How often a leader gives a sign of life.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Without one for so long a candidate takes over.
const SILENCE: Duration = Duration::from_secs(3);
/// What was read longer ago says nothing about who is silent.
const FRESH: Duration = Duration::from_secs(2);
/// A candidate tries so long to take over while a broker that it needs is down.
const TAKE_OVER_MAX: Duration = Duration::from_secs(15);
/// Most replicas of the log.
const REPLICAS_MAX: usize = 3;

/// What somebody asks of the leader.
#[derive(Debug)]
pub enum Command {
    /// Ends the open segments of a topic; answers with the names of the new ones.
    Roll {
        /// The virtual topic.
        topic: String,
        /// The answer.
        done: oneshot::Sender<Result<Vec<String>, Refused>>,
    },
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// Somebody else leads: where its admin port is.
    Elsewhere(String),
    /// This process does not lead, and who led last has the same admin address: it was this one
    /// before a restart, or is one on another machine.
    SameAddress,
    /// Nobody leads now.
    Nobody,
    /// There is no such topic with days.
    Unknown,
    /// The placement log has another layout of the topic than the configuration.
    Layout,
    /// It was begun, and somebody else will end it.
    Failed(String),
    /// It goes on: these slots have no new segment yet.
    Late(Vec<String>),
}

/// Who this process is to others.
#[derive(Debug, Clone)]
pub struct Who {
    /// Its id: a new one with every start.
    pub id: String,
    /// Its admin port.
    pub admin: String,
}

/// Leads whenever nobody does, for ever; dropped at shutdown.
pub async fn run(
    plane: Arc<DataPlane>,
    who: Who,
    read: watch::Receiver<Read>,
    commands: mpsc::Receiver<Command>,
) {
    if !plane.routed.iter().flat_map(|all| all.all()).any(|topic| topic.days) {
        return;
    }
    let mut seat = Seat { plane, who, read, commands };
    nobody_leads(&mut seat.commands, Box::pin(make_log(&seat.plane))).await;
    let mut waits = true;
    loop {
        if waits {
            seat.wait_for_silence().await;
        }
        waits = match seat.lead().await {
            WriteError::Fenced => {
                tracing::info!("another process leads the placement");
                !fault::on("fenced-leader-fights")
            }
            WriteError::Unknown(error) => {
                if let Some(left_out) = seat.plane.lines.allows("leads") {
                    tracing::warn!(%error, left_out, "leads the placement no more");
                }
                seat.read_anew().await;
                // Who lost a broker, and its seat to nobody, waits for nobody's silence.
                seat.last_leader().as_ref() != Some(&seat.who.id)
            }
        };
    }
}

/// How the log is kept. A sign of life a second is some 25 MB a day, of which the last one counts:
/// files are short, so that they are closed and compacted soon, and what a start reads stays small.
/// What is in the log must not be lost with one broker. Its times are the brokers': who writes with
/// a clock of its own that is ahead would be refused.
fn log_configs(replicas: i16) -> Vec<(&'static str, &'static str)> {
    let in_sync = if replicas >= 3 { "2" } else { "1" };
    vec![
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "3600000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("max.compaction.lag.ms", "7200000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", in_sync),
        ("unclean.leader.election.enable", "false"),
    ]
}

struct Seat {
    plane: Arc<DataPlane>,
    who: Who,
    read: watch::Receiver<Read>,
    commands: mpsc::Receiver<Command>,
}

impl Seat {
    /// Waits until no leader gave a sign of life for a while; meanwhile commands go elsewhere.
    async fn wait_for_silence(&mut self) {
        let mut last = self.read.borrow_and_update().table.leader.clone();
        let mut since = clock::now();
        let silence = SILENCE + random::jittered(BEAT / 2);
        loop {
            let slept = clock::now();
            tokio::select! {
                biased;
                () = tokio::time::sleep(BEAT / 4) => {}
                Some(command) = self.commands.recv() => {
                    let known = self.read.borrow().whole && clock::now() - since < silence;
                    let leader = last.as_ref().filter(|_| known);
                    command.refuse(match leader.map(|leader| &leader.admin) {
                        None => Refused::Nobody,
                        Some(admin) if *admin == self.who.admin => Refused::SameAddress,
                        Some(admin) => Refused::Elsewhere(admin.clone()),
                    });
                }
            }
            let read = self.read.borrow_and_update().clone();
            let fresh = read.whole && read.at.is_some_and(|at| clock::now() - at < FRESH);
            // Who did not run has heard nobody: what was read last may be an answer from before.
            let stopped = clock::now() - slept > FRESH;
            if !fresh || stopped || read.table.leader != last {
                (last, since) = (read.table.leader.clone(), clock::now());
            } else if clock::now() - since >= silence {
                return;
            }
        }
    }

    /// Waits until brokers answered twice what is new in the log: the first answer may be one from
    /// before.
    async fn read_anew(&mut self) {
        let read = self.read.clone();
        let anew = async {
            for _ in 0..2 {
                let seen = read.borrow().at;
                while read.borrow().at == seen {
                    tokio::time::sleep(BEAT / 20).await;
                }
            }
        };
        nobody_leads(&mut self.commands, anew).await;
    }

    /// Who led last, as far as was read.
    fn last_leader(&self) -> Option<String> {
        last_leader(&self.read)
    }

    /// Leads until that ends; why it did.
    async fn lead(&mut self) -> WriteError {
        let plane = self.plane.clone();
        let taken = nobody_leads(&mut self.commands, take_over(&plane, &self.read)).await;
        match taken {
            Ok(writer) => {
                let mut reign = Reign::new(&plane, self.who.clone(), self.read.clone(), writer);
                reign.run(&mut self.commands).await
            }
            Err(error) => error,
        }
    }
}

/// Makes the log, if it is not there.
async fn make_log(plane: &DataPlane) {
    loop {
        let mut asker = Asker::new(plane);
        let brokers = plane.directory.brokers().len();
        let replicas = i16::try_from(brokers.clamp(1, REPLICAS_MAX)).unwrap_or(1);
        let log = (PLACEMENT_TOPIC, 1, replicas);
        let made = match asker.shape(PLACEMENT_TOPIC).await {
            Ok(Some(_)) => return,
            Ok(None) if brokers == 0 => Ok(()),
            Ok(None) => seal::create(&mut asker, log, &log_configs(replicas)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made
            && let Some(left_out) = plane.lines.allows("placement_topic")
        {
            tracing::warn!(%error, left_out, "the placement log cannot be made yet");
        }
        tokio::time::sleep(random::jittered(BEAT / 2)).await;
    }
}

fn last_leader(read: &watch::Receiver<Read>) -> Option<String> {
    read.borrow().table.leader.as_ref().map(|leader| leader.id.clone())
}

/// Takes over, unless somebody else does meanwhile.
async fn take_over(plane: &DataPlane, read: &watch::Receiver<Read>) -> Result<Writer, WriteError> {
    let before = last_leader(read);
    let until = clock::now() + TAKE_OVER_MAX;
    loop {
        match Writer::take_over(plane).await {
            Ok(writer) => return Ok(writer),
            // A broker that was needed is down: soon the cluster has another one for it.
            Err(WriteError::Unknown(_)) if clock::now() < until => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(random::jittered(BEAT / 4)).await;
        if last_leader(read) != before {
            return Err(WriteError::Fenced);
        }
    }
}

/// Waits for something; whoever asks meanwhile is told that nobody leads.
async fn nobody_leads<T>(
    commands: &mut mpsc::Receiver<Command>,
    other: impl Future<Output = T>,
) -> T {
    let mut other = pin!(other);
    loop {
        tokio::select! {
            biased;
            given = &mut other => return given,
            Some(command) = commands.recv() => command.refuse(Refused::Nobody),
        }
    }
}

impl Command {
    fn refuse(self, why: Refused) {
        let Self::Roll { done, .. } = self;
        // Who asked may be gone.
        let _ = done.send(Err(why));
    }
}
