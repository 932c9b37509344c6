//! The proxy's process: started, killed with SIGKILL, started again on the same ports.
//!
//! Invariant: the pid in the pid file is that of a process of this run, and it ends with the run.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use firebreak_benches::clock::{now, sleep_until};

use crate::error::{Result, SoakError};
use crate::load::Journal;
use crate::random::Random;

/// How to run it.
pub struct Proxy {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    pid_file: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

/// One kill.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// When, since the start of the journal.
    pub at: Duration,
    /// Until the next process took connections.
    pub down: Duration,
    /// It had ended by itself before.
    pub was_dead: bool,
    /// While a value was being stored in parts.
    pub aimed: bool,
}

impl Proxy {
    /// Nothing runs yet. Log and pid file go to `dir`.
    pub fn new(
        binary: PathBuf,
        config: PathBuf,
        dir: &std::path::Path,
        address: SocketAddr,
    ) -> Self {
        let (log, pid_file) = (dir.join("firebreak.log"), dir.join("firebreak.pid"));
        Self { binary, config, log, pid_file, address, child: None }
    }

    /// Starts it and waits until it takes connections.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(SoakError::io(self.log.display().to_string()))?;
        let errors = log.try_clone().map_err(SoakError::io("log"))?;
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(SoakError::io(self.binary.display().to_string()))?;
        fs::write(&self.pid_file, child.id().to_string()).map_err(SoakError::io("pid file"))?;
        self.child = Some(child);
        let begin = now();
        while TcpStream::connect(self.address).is_err() {
            if begin.elapsed() > START_MAX {
                let what = format!("connection to {}", self.address);
                return Err(SoakError::Stuck { what, after: START_MAX, why: String::new() });
            }
            sleep_until(now() + START_PAUSE);
        }
        Ok(())
    }

    /// Ends it without a word; true if it had ended by itself.
    fn kill(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        let was_dead = matches!(child.try_wait(), Ok(Some(_)));
        // Both can only fail when it is gone already.
        let _ = child.kill();
        let _ = child.wait();
        was_dead
    }

    /// Kills and restarts it about every `period`, three tenths more or less, until `end`. Half
    /// of the kills wait for what `aim` waits for; it tells whether that came.
    pub fn kill_until(
        &mut self,
        end: Duration,
        period: Duration,
        (random, journal): (&mut Random, &Journal),
        mut aim: impl FnMut(&mut Random) -> bool,
    ) -> Result<Vec<Kill>> {
        let mut kills = Vec::new();
        loop {
            let per_mille = u32::try_from(random.between(700, 1300)).unwrap_or(1000);
            let at = journal.elapsed() + period * per_mille / 1000;
            std::thread::sleep(at.min(end).saturating_sub(journal.elapsed()));
            if at >= end {
                return Ok(kills);
            }
            let aimed = random.chance(AIMED_PER_MILLE) && aim(random);
            let at = journal.elapsed();
            let was_dead = self.kill();
            self.start()?;
            let down = journal.elapsed() - at;
            let when = if aimed { " while parts of a value were sent" } else { "" };
            journal.say("proxy", &format!("killed{when}, away for {} ms", down.as_millis()));
            kills.push(Kill { at, down, was_dead, aimed });
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_file(&self.pid_file);
    }
}

const AIMED_PER_MILLE: u64 = 500;
const START_MAX: Duration = Duration::from_secs(20);
const START_PAUSE: Duration = Duration::from_millis(2);
