//! The Java clients: one JVM per Kafka version, compiled from `java/` against that version's jars.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::jars;
use crate::process::{Process, Scratch};

/// A JVM that takes commands; ends when dropped.
pub struct Driver {
    process: Process,
    commands: ChildStdin,
    waiting: Arc<Mutex<HashMap<u64, SyncSender<Value>>>>,
    next: u64,
    _classes: Scratch,
}

impl Driver {
    /// `hosts`: a file with the names that it resolves, in the place of the machine's.
    pub fn start(version: &str, jars: &Path, hosts: Option<&Path>) -> Self {
        let classes = Scratch::new(&format!("java-{version}"));
        compile(&sources(version), jars, classes.path());
        let hosts = hosts.map(|file| format!("-Djdk.net.hosts.file={}", file.display()));
        let options: Vec<&str> = ["-Xmx1g"].into_iter().chain(hosts.as_deref()).collect();
        let mut command = jars::java(jars, &options, Some(classes.path()));
        command.arg("Cases").stdin(Stdio::piped()).stdout(Stdio::piped());
        let log = classes.path().join("java.log");
        let mut process = Process::start_piped(&mut command, &log);
        let commands = process.child().stdin.take().unwrap();
        let answers = process.child().stdout.take().unwrap();
        let waiting: Arc<Mutex<HashMap<u64, SyncSender<Value>>>> = Arc::default();
        let waiters = waiting.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                let answer: Value = serde_json::from_str(&line).unwrap();
                let waiter = waiters.lock().unwrap().remove(&answer["id"].as_u64().unwrap());
                let _ = waiter.unwrap().send(answer);
            }
        });
        Self { process, commands, waiting, next: 0, _classes: classes }
    }

    /// Runs one command to its end. `None` if this client version has no such API.
    pub fn run(&mut self, what: &str, mut command: Value) -> Option<Value> {
        self.next += 1;
        command["id"] = json!(self.next);
        command["do"] = json!(what);
        let (sender, answers) = sync_channel(1);
        self.waiting.lock().unwrap().insert(self.next, sender);
        writeln!(self.commands, "{command}").unwrap();
        let answer = answers.recv_timeout(Duration::from_secs(240));
        let answer =
            answer.unwrap_or_else(|_| panic!("{command}: no answer:\n{}", self.process.log_tail()));
        if answer.get("lacks").is_some() {
            return None;
        }
        let ok = answer.get("ok");
        let fail = || panic!("{command}: {}\n{}", answer["error"], self.process.log_tail());
        Some(ok.unwrap_or_else(fail).clone())
    }

    /// Runs a command that every version has.
    pub fn must(&mut self, what: &str, command: Value) -> Value {
        self.run(what, command).unwrap_or_else(|| panic!("the Java driver has no {what}"))
    }
}

/// `Share.java` needs an API that 3.9 has not.
fn sources(version: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let java = files.filter(|path| path.extension().is_some_and(|kind| kind == "java"));
    java.filter(|path| !(version.starts_with("3.") && path.ends_with("Share.java"))).collect()
}

/// Where the clients' sources are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/java")
}

/// Compiles `sources` against the jars.
pub fn compile(sources: &[PathBuf], jars: &Path, classes: &Path) {
    let mut javac = Command::new("javac");
    javac.args(["-J-XX:TieredStopAtLevel=1", "-nowarn", "-Xlint:none", "-d"]).arg(classes);
    javac.arg("-cp").arg(format!("{}/*", jars.display())).args(sources);
    let done = javac.output().expect("javac (Debian: default-jdk-headless) is needed");
    assert!(done.status.success(), "javac: {}", String::from_utf8_lossy(&done.stderr));
}
