//! franz-go: a program in `franz-go/`, built by `go` once a run. It produces and reads until told
//! to stop, or for one round of a client that logs in.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use crate::process::{Process, Scratch};

/// The program at work; ends when dropped.
pub struct FranzGo {
    process: Process,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _folder: Scratch,
}

impl FranzGo {
    /// Starts its load on `topic`.
    pub fn start(bootstrap: &str, topic: &str, partitions: usize) -> Self {
        Self::run(&[bootstrap, topic, &partitions.to_string()])
    }

    /// Starts a load of keyed records of several regions, told apart by their writer's name.
    pub fn keyed(bootstrap: &str, topic: &str, name: &str, keys: u64, regions: &[&str]) -> Self {
        Self::run(&["keyed", bootstrap, topic, name, &keys.to_string(), &regions.join(",")])
    }

    /// Starts a member of a group that reads on and on.
    pub fn follow(bootstrap: &str, topic: &str, group: &str) -> Self {
        Self::run(&["follow", bootstrap, topic, group])
    }

    /// Ends such a member once it has read so many records; tells what it read.
    pub fn followed(mut self, count: u64) -> Value {
        self.ask(&count.to_string())
    }

    fn run(arguments: &[&str]) -> Self {
        let folder = Scratch::new("franz-go");
        let mut command = Command::new(program());
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start_piped(&mut command, &folder.path().join("franz-go.log"));
        let commands = process.child().stdin.take().unwrap();
        let answers = BufReader::new(process.child().stdout.take().unwrap());
        Self { process, commands, answers, _folder: folder }
    }

    /// Records acknowledged so far.
    pub fn acked(&mut self) -> u64 {
        self.ask("acked").as_u64().unwrap()
    }

    /// Ends the load and tells everything.
    pub fn stop(mut self) -> Value {
        self.ask("stop")
    }

    fn ask(&mut self, line: &str) -> Value {
        let mut answer = String::new();
        let asked = writeln!(self.commands, "{line}");
        let read = asked.and_then(|()| self.answers.read_line(&mut answer));
        let told = serde_json::from_str(&answer);
        told.unwrap_or_else(|_| panic!("{line}: {read:?}:\n{}", self.process.log_tail()))
    }
}

/// One round of a client that logs in, and what came of it.
pub fn round(wanted: &Value) -> Value {
    let mut command = Command::new("timeout");
    command.arg("90").arg(program()).arg("round").arg(wanted.to_string());
    let done = command.output().unwrap();
    let told = serde_json::from_slice(&done.stdout);
    told.unwrap_or_else(|_| panic!("franz-go: {}", String::from_utf8_lossy(&done.stderr)))
}

/// The program, built.
pub fn program() -> PathBuf {
    static FOLDER: LazyLock<Scratch> = LazyLock::new(|| {
        let folder = Scratch::new("franz-go-program");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(folder.path().join(PROGRAM)).arg(".");
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/franz-go"));
        let built = build.output().expect("go (Debian: golang-go) is needed");
        assert!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
        folder
    });
    FOLDER.path().join(PROGRAM)
}

const PROGRAM: &str = "rolling";
