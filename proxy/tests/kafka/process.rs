//! Child processes that cannot outlive the suite.
//!
//! A test binary can end without running a single `drop` (statics, a panic that aborts, Ctrl-C,
//! kill -9). So every child and every scratch directory is also known to a *janitor*: a shell that
//! reads names on its stdin, and when that closes, whatever the reason, kills what is left and
//! removes the directories.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A child with its output in a file; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; both output streams are appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(out.try_clone().unwrap());
        Self::start_with_stdout(command, log, out)
    }

    /// Starts `command`, whose stdout is already set; stderr is appended to `log`.
    pub fn start_piped(command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        Self::start_with_stdout(command, log, out)
    }

    fn start_with_stdout(command: &mut Command, log: &Path, errors: File) -> Self {
        let child = command.stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        tell_janitor(&format!("pid {}", child.id()));
        Self { child, log: log.to_owned(), ended: None }
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
            if self.ended.is_some() {
                tell_janitor(&format!("gone {}", self.child.id()));
            }
        }
        self.ended
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            self.ended();
        }
    }

    /// Sends a signal by its name.
    pub fn signal(&mut self, name: &str) {
        assert!(self.ended().is_none(), "it has ended");
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// SIGTERM; kill -9 after `within`. Returns how it ended.
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        let pid = self.child.id().to_string();
        let until = Instant::now() + within;
        if self.ended().is_none() {
            Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        }
        while self.ended().is_none() && Instant::now() < until {
            sleep(Duration::from_millis(10));
        }
        self.kill();
        self.ended().unwrap()
    }

    /// The last lines it wrote, for the message of a failing test.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last 40 lines of a file.
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A directory that is removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = scratch_root().join(format!("{name}-{number}"));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // the janitor removes it; until the run ends its logs can be read
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scratch_root() -> PathBuf {
    std::env::temp_dir().join(format!("firebreak-kafka-{}", std::process::id()))
}

/// Makes a process known that another program has started: it cannot outlive the suite either.
pub fn adopt(pid: u32) {
    tell_janitor(&format!("pid {pid}"));
}

/// Such a process has ended.
pub fn forget(pid: u32) {
    tell_janitor(&format!("gone {pid}"));
}

fn tell_janitor(line: &str) {
    static JANITOR: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
        let mut janitor = Command::new("sh");
        janitor.args(["-c", JANITOR_SCRIPT, "janitor"]).arg(scratch_root());
        janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(janitor.spawn().unwrap().stdin.take().unwrap())
    });
    writeln!(JANITOR.lock().unwrap(), "{line}").unwrap();
}

const JANITOR_SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=
while read -r word pid; do
  case $word in
    pid) pids="$pids $pid" ;;
    gone) left=; for p in $pids; do [ "$p" = "$pid" ] || left="$left $p"; done; pids=$left ;;
  esac
done
[ -n "$pids" ] && kill -9 $pids
for try in 1 2 3 4 5; do rm -rf "$1" && break; sleep 0.3; done
"#;
