//! The `firebreak` binary as a child process, with ports of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::broker::Brokers;
use super::s3::{BUCKET, S3};
use super::{Checked, Faults, ensure_eq, failure, until, within};

/// Virtual brokers that a proxy listens for: nodes 0 to 5.
const NODES: u16 = 6;
/// Ports are drawn below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 18_000..31_000;
/// Other processes draw ports too.
const STARTS_MAX: usize = 20;

static DRAWN: AtomicU16 = AtomicU16::new(0);

/// How to start a proxy.
#[derive(Debug)]
pub struct Setup {
    bootstrap: Vec<String>,
    advertise: &'static str,
    refresh_ms: u32,
    limits: String,
    listen: String,
    cluster: String,
    named: bool,
    virtual_topic: bool,
    local: Option<PathBuf>,
    offload: Option<(String, usize)>,
    rule: String,
    offloaded: &'static str,
    cache_bytes: usize,
    store_lines: String,
    faults: Faults,
    names: Option<PathBuf>,
    forced: Option<&'static str>,
    ready: bool,
    open_files: Option<u32>,
}

impl Setup {
    /// A proxy before these brokers, that asks them often who they are.
    pub fn new(brokers: &Brokers, faults: Faults) -> Self {
        Self {
            bootstrap: brokers.bootstrap(),
            advertise: "127.0.0.1",
            refresh_ms: 200,
            limits: String::new(),
            listen: String::new(),
            cluster: String::new(),
            named: false,
            local: None,
            offload: None,
            virtual_topic: false,
            rule: String::new(),
            offloaded: "*",
            cache_bytes: 0,
            store_lines: String::new(),
            faults,
            names: None,
            forced: None,
            ready: true,
            open_files: None,
        }
    }

    /// Where brokers are asked for first, in the place of where they are.
    pub fn bootstrap(mut self, places: &[String]) -> Self {
        self.bootstrap = places.to_vec();
        self
    }

    /// Addresses of hosts, `ADDRESS HOST` a line; only with the feature `failpoints`.
    #[cfg(feature = "failpoints")]
    pub fn names(mut self, file: PathBuf) -> Self {
        self.names = Some(file);
        self
    }

    /// How all frames are treated; only with the feature `failpoints`.
    #[cfg(feature = "failpoints")]
    pub fn forced(mut self, mode: &'static str) -> Self {
        self.forced = Some(mode);
        self
    }

    /// The host that clients are told.
    pub fn advertise(mut self, host: &'static str) -> Self {
        self.advertise = host;
        self
    }

    /// How often brokers are asked who they are.
    pub fn refresh_ms(mut self, refresh_ms: u32) -> Self {
        self.refresh_ms = refresh_ms;
        self
    }

    /// A line of `[limits]`.
    pub fn limit(mut self, line: &str) -> Self {
        self.limits.push_str(line);
        self.limits.push('\n');
        self
    }

    /// A line of `[listen]`.
    pub fn listen(mut self, line: &str) -> Self {
        self.listen.push_str(line);
        self.listen.push('\n');
        self
    }

    /// Virtual brokers have names of this pattern in the place of ports.
    pub fn sni(mut self, pattern: &str) -> Self {
        self.named = true;
        self.listen(&format!("sni = {pattern:?}"))
    }

    /// A line of `[[cluster]]`.
    pub fn cluster(mut self, line: &str) -> Self {
        self.cluster.push_str(line);
        self.cluster.push('\n');
        self
    }

    /// Starts under this soft limit of open files.
    pub fn open_files(mut self, soft: u32) -> Self {
        self.open_files = Some(soft);
        self
    }

    /// Waits only until it has started, or ended.
    pub fn not_ready(mut self) -> Self {
        self.ready = false;
        self
    }

    /// Offloads values above the threshold to a store in this directory.
    pub fn offload(mut self, store: &Folder, threshold_bytes: usize) -> Self {
        let local = format!("kind = \"local\"\npath = {:?}\n", store.0);
        self.offload = Some((local, threshold_bytes));
        self.local = Some(store.0.clone());
        self
    }

    /// Offloads values above the threshold to the bucket of this service.
    pub fn offload_s3(mut self, s3: &S3, threshold_bytes: usize) -> Self {
        let (port, key) = (s3.port, s3.key_file());
        let s3 = format!(
            "kind = \"s3\"\nendpoint = \"http://127.0.0.1:{port}\"\nbucket = {BUCKET:?}\n\
             key_file = {key:?}\n"
        );
        self.offload = Some((s3, threshold_bytes));
        self
    }

    /// The topics of the rule for offload, in the place of all.
    pub fn offloaded(mut self, topics: &'static str) -> Self {
        self.offloaded = topics;
        self
    }

    /// A line of the rule for offload.
    pub fn rule(mut self, line: &str) -> Self {
        self.rule.push_str(line);
        self.rule.push('\n');
        self
    }

    /// Room for values in memory; none unless asked for, so that every read shows at the store.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// A line of `[store]`.
    pub fn store(mut self, line: &str) -> Self {
        self.store_lines.push_str(line);
        self.store_lines.push('\n');
        self
    }

    /// One virtual topic, `v`, of two slots.
    pub fn virtual_topic(mut self) -> Self {
        self.virtual_topic = true;
        self
    }

    /// Starts and waits until it is ready. Panics if it cannot be started: that is no promise's
    /// business.
    pub async fn start(&self) -> Proxy {
        for _ in 0..STARTS_MAX {
            let first = free_block();
            let mut proxy = self.spawn(first);
            let there = if self.ready { " ready " } else { " started: " };
            loop {
                if proxy.logged(there) > 0 {
                    self.settle().await;
                    return proxy;
                }
                if let Some(status) = proxy.child.try_wait().expect("a child") {
                    proxy.read_to_end();
                    let log = proxy.log();
                    if log.contains("cannot listen") {
                        break;
                    }
                    assert!(!self.ready, "firebreak ended, {status}:\n{log}");
                    return proxy;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("no free ports for a proxy");
    }

    /// Waits for what a start writes into a local store, at any time, so that nothing of it is
    /// under way when a test breaks the store; not for long, since a fault may be on.
    async fn settle(&self) {
        let Some(store) = &self.local else { return };
        let owner = store.join("upkeep/v1/owner/fake");
        let pending = || std::fs::read_dir(store.join("pending")).map_or(0, Iterator::count);
        for _ in 0..500 {
            if owner.exists() && pending() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn spawn(&self, first: u16) -> Proxy {
        let folder = Folder::new();
        let file = folder.0.join("firebreak.toml");
        std::fs::write(&file, self.toml(first)).expect("a configuration file");
        let mut command = self.command();
        command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("RUST_LOG", "info").env_remove("KAFKA_BOOTSTRAP_SERVERS");
        command.env_remove("MINIO_ENDPOINT").env_remove("USE_AWS_S3");
        command.env_remove("REDIS_PASSWORD");
        command.env("MINIO_ACCESS_KEY", "tester").env("MINIO_SECRET_KEY", "tester-secret");
        match self.faults {
            Some(faults) => command.env("FAILPOINTS", faults),
            None => command.env_remove("FAILPOINTS"),
        };
        command.envs(self.names.iter().map(|file| ("FIREBREAK_NAMES", file)));
        command.envs(self.forced.map(|mode| ("FIREBREAK_FORCED", mode)));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("firebreak starts");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(String::new()));
        let lines = log.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().expect("not poisoned");
                log.push_str(&line);
                log.push_str(" \n");
            }
        });
        Proxy { child, port: first, admin: first + 1 + NODES, log, reader: Some(reader), folder }
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_firebreak");
        let Some(soft) = self.open_files else { return Command::new(binary) };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -Sn {soft} && exec \"$0\" \"$@\"")).arg(binary);
        shell
    }

    fn toml(&self, first: u16) -> String {
        let (nodes, last, admin) = (first + 1, first + NODES, first + 1 + NODES);
        let Self { bootstrap, advertise, limits, refresh_ms, listen, cluster, .. } = self;
        let ports =
            if self.named { String::new() } else { format!("ports = \"{nodes}-{last}\"\n") };
        let mut toml = format!(
            "[listen]\nbootstrap = \"127.0.0.1:{first}\"\nadvertise = \"{advertise}\"\n\
             {ports}{listen}[admin]\naddress = \"127.0.0.1:{admin}\"\n\
             [[cluster]]\nname = \"fake\"\nbootstrap = {bootstrap:?}\n{cluster}\
             [limits]\nrefresh_ms = {refresh_ms}\n{limits}"
        );
        if let Some((store, threshold)) = &self.offload {
            let Self { rule, offloaded, cache_bytes, store_lines, .. } = self;
            let _ = write!(
                toml,
                "[store]\n{store}{store_lines}cache_bytes = {cache_bytes}\n\
                 [[offload]]\ntopics = [{offloaded:?}]\nthreshold_bytes = {threshold}\n{rule}"
            );
        }
        if self.virtual_topic {
            toml.push_str(
                "[[virtual_topic]]\nname = \"v\"\npartitions = 1\nregion = { header = \"r\" }\n\
                 [[region]]\nname = \"a\"\ncluster = \"fake\"\n",
            );
        }
        toml
    }
}

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    /// The bootstrap port.
    pub port: u16,
    admin: u16,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    folder: Folder,
}

impl Proxy {
    /// The file that it was configured with.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("firebreak.toml")
    }

    /// The port of a virtual broker.
    pub fn node(&self, id: u16) -> u16 {
        self.port + 1 + id
    }

    /// Everything it logged so far; each line ends with a blank.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Lines of the log that hold `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits for so many lines that hold `text`: the log is read beside the test, a line that was
    /// written before an answer may be read after it.
    pub async fn says(&self, text: &str, lines: usize) -> Checked {
        until(text, async || (self.logged(text) >= lines).then_some(())).await?;
        ensure_eq!(self.logged(text), lines, "lines with \"{text}\"");
        Ok(())
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Where its admin port is.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }

    /// Changes its configuration file and asks it to read it again.
    pub fn reload(&self, change: impl FnOnce(String) -> String) {
        let file = self.folder.0.join("firebreak.toml");
        let text = std::fs::read_to_string(&file).expect("a file");
        std::fs::write(&file, change(text)).expect("a file");
        self.signal("HUP");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits for its end and the last line of its log.
    pub async fn ended(&mut self) -> Checked<ExitStatus> {
        let status = async || self.child.try_wait().expect("a child");
        let status = until("end of the process", status).await?;
        self.read_to_end();
        Ok(status)
    }

    /// Waits for the last line of its log, once it has ended.
    fn read_to_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log was read");
        }
    }

    /// A field of `/proc/PID/status` in bytes, such as `VmRSS`.
    fn memory(&self, field: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        let kib: String = line.chars().filter(char::is_ascii_digit).collect();
        kib.parse::<usize>().expect("a number") * 1024
    }

    /// Memory in use now.
    pub fn resident_bytes(&self) -> usize {
        self.memory("VmRSS")
    }

    /// The most that ever was.
    pub fn resident_bytes_max(&self) -> usize {
        self.memory("VmHWM")
    }

    /// A page of the admin port: status code and body.
    pub async fn admin(&self, path: &str) -> Checked<(u16, String)> {
        self.ask_admin("GET", path).await
    }

    /// The same, where something is done.
    pub async fn post(&self, path: &str) -> Checked<(u16, String)> {
        self.ask_admin("POST", path).await
    }

    async fn ask_admin(&self, method: &str, path: &str) -> Checked<(u16, String)> {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await?;
            let ask = format!(
                "{method} {path} HTTP/1.1\r\nHost: it\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            stream.write_all(ask.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<String, std::io::Error>(answer)
        };
        let answer = within("admin port", ask).await?.map_err(failure)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failure("no HTTP"))?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.ok_or_else(|| failure("no status code"))?, body.to_owned()))
    }

    /// The value of a metric with its labels; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> Checked<f64> {
        let (_, text) = self.admin("/metrics").await?;
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
    }

    /// Waits until a metric has a value.
    pub async fn metric_becomes(&self, name: &str, value: f64) -> Checked {
        let mut last = f64::NAN;
        let reached = until(name, async || {
            last = self.metric(name).await.unwrap_or(f64::NAN);
            ((last - value).abs() < 1e-9).then_some(())
        });
        reached.await.map_err(|_| failure(format!("{name} is {last}, not {value}")))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that is removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        let name = format!("firebreak-it-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whatever is left belongs to the temporary folder of the machine.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first of enough ports that nobody listens on now.
pub fn free_block() -> u16 {
    let block = NODES + 2;
    let room = (PORTS.end - PORTS.start) / block;
    loop {
        let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_add(u16::from_be_bytes([a, b]));
        let first = PORTS.start + drawn % room * block;
        if (first..first + block).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}
