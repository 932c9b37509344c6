//! The `firebreak` under test: its ports, its life and its death.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::ports;
use crate::process::{Process, Scratch, tail};

/// A running proxy. Unless started elsewhere it listens on [`HOST`] and is advertised as 127.0.0.1,
/// where the relay listens.
pub struct Proxy {
    host: &'static str,
    advertised: &'static str,
    process: Option<Process>,
    upstream: String,
    failpoints: Option<String>,
    /// Tables of a configuration file, in the place of flags.
    tables: Option<Tables>,
    dir: Scratch,
    /// Days by which its clock is ahead from its next start on.
    pub ahead_days: u32,
    /// The bootstrap port; node `n` is served on `port + 1 + n`, the admin port is the last of the
    /// run.
    pub port: u16,
}

/// What a configuration file holds besides addresses and ports.
pub struct Tables {
    /// What clients are told.
    pub advertise: String,
    /// Lines of `[listen]`.
    pub listen: String,
    /// Lines of `[[cluster]]`.
    pub cluster: String,
    /// Tables behind them.
    pub more: String,
}

impl Proxy {
    /// Starts it with a configuration file, where no relay stands in front of it.
    pub fn configured(tables: Tables, failpoints: Option<&str>) -> Self {
        let port = ports::free(&[HOST], NODES + 3);
        Self::configured_at((HOST, port), tables, failpoints)
    }

    /// The same, listening elsewhere; all ports from this one on are free.
    pub fn configured_at(
        (host, port): (&'static str, u16),
        tables: Tables,
        failpoints: Option<&str>,
    ) -> Self {
        let dir = Scratch::new("firebreak");
        let (upstream, tables) = (String::new(), Some(tables));
        let (process, failpoints) = (None, failpoints.map(str::to_owned));
        let advertised = host;
        let ahead_days = 0;
        let mut proxy =
            Self { host, advertised, process, upstream, failpoints, tables, dir, ahead_days, port };
        proxy.restart();
        proxy
    }

    /// Writes its configuration file, if it has one.
    fn write(&self) -> Option<PathBuf> {
        let Tables { advertise, listen, cluster, more } = self.tables.as_ref()?;
        let ports = match listen.contains("sni") {
            true => String::new(),
            false => format!("ports = \"{}-{}\"\n", self.port + 1, self.port + NODES),
        };
        let text = format!(
            "[listen]\nbootstrap = {:?}\nadvertise = {advertise:?}\n{ports}{listen}\n\
             [admin]\naddress = {:?}\n[[cluster]]\n{cluster}\n[limits]\nrefresh_ms = 300\n{more}\n",
            self.address(),
            self.admin(),
        );
        let file = self.dir.path().join("firebreak.toml");
        std::fs::write(&file, text).unwrap();
        Some(file)
    }

    /// The value of a metric with its labels; 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").unwrap();
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.filter_map(|value| value.trim().parse::<f64>().ok()).sum()
    }

    /// Starts it in front of `upstream` and waits until `/readyz` says yes.
    pub fn start(upstream: &str, failpoints: Option<&str>) -> Self {
        Self::start_between(upstream, failpoints, (HOST, ADVERTISED))
    }

    /// The same with no relay in front: it listens where clients are told.
    pub fn start_at(upstream: &str, host: &'static str) -> Self {
        Self::start_between(upstream, None, (host, host))
    }

    fn start_between(
        upstream: &str,
        failpoints: Option<&str>,
        (host, advertised): (&'static str, &'static str),
    ) -> Self {
        let port = ports::free(&[host, advertised], NODES + 3);
        let mut proxy = Self {
            host,
            advertised,
            process: None,
            upstream: upstream.to_owned(),
            failpoints: failpoints.map(str::to_owned),
            tables: None,
            dir: Scratch::new("firebreak"),
            ahead_days: 0,
            port,
        };
        proxy.restart();
        proxy
    }

    /// Starts it again after [`Proxy::kill`], on the same ports.
    pub fn restart(&mut self) {
        let (first, last) = (self.port + 1, self.port + NODES);
        let mut command = self.program();
        if let Some(file) = self.write() {
            command.arg("--config").arg(file);
        } else {
            command.args(["--upstream", &self.upstream, "--advertise", self.advertised]);
            command.args(["--listen", &self.address()]);
            command.args(["--ports", &format!("{first}-{last}")]);
            command.args(["--admin", &self.admin()]);
        }
        command.current_dir(self.dir.path());
        if let Some(failpoints) = &self.failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        self.process = Some(Process::start(&mut command, &self.log()));
        self.wait_until_ready();
    }

    /// The program, by its own clock.
    fn program(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_firebreak");
        if self.ahead_days == 0 {
            return Command::new(program);
        }
        // Without the tool in between, which would take the signals.
        let asked = Command::new("faketime").args(["-m", "now", "env"]).output().unwrap();
        let shown = String::from_utf8(asked.stdout).unwrap();
        let library = shown.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).unwrap();
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", library).env("FAKETIME", format!("+{}d", self.ahead_days));
        // Timers and files keep the times that they have.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        command
    }

    /// Runs a command of the program as an operator does, by the proxy's clock: it must succeed.
    pub fn command(&self, args: &[&str]) -> String {
        let done = self.program().args(args).output().unwrap();
        let (out, errors) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{args:?}: {out}{errors}\n{}", self.log_tail());
        out.into_owned()
    }

    /// Where its configuration is.
    pub fn config_file(&self) -> String {
        self.dir.path().join("firebreak.toml").display().to_string()
    }

    fn wait_until_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            let ended = self.process.as_mut().unwrap().ended();
            assert!(ended.is_none(), "firebreak ended ({ended:?}):\n{}", self.log_tail());
            assert!(Instant::now() < until, "not ready after 30 s:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One answer of the admin port, head and body.
    pub fn get(&self, path: &str) -> std::io::Result<String> {
        get(&self.admin(), path)
    }

    /// Sends it a signal by its name.
    pub fn signal(&mut self, name: &str) {
        self.process.as_mut().unwrap().signal(name);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.take().unwrap().terminate(Duration::from_secs(20))
    }

    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("firebreak.log")
    }

    /// Where it listens for bootstraps.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Lines of its log that hold `text`.
    pub fn logged(&self, text: &str) -> usize {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// Where its admin port is.
    pub fn admin(&self) -> String {
        format!("{}:{}", self.host, self.port + NODES + 2)
    }
}

/// One answer of an admin port, head and body.
pub fn get(admin: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What clients are told.
pub const ADVERTISED: &str = "127.0.0.1";

/// Where the proxy really listens: the relay stands between.
pub const HOST: &str = "127.0.0.9";

/// Ports of virtual brokers; the highest node id is one less.
pub const NODES: u16 = 8;
