//! The proxy's process: fresh for every run, ended by its pid, asked for counts and memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use firebreak_benches::clock::{now, sleep_until};
use firebreak_benches::error::{BenchError, Result};

use crate::broker::NODE;

/// A running proxy.
pub struct Proxy {
    child: Child,
    /// Where the broker is served.
    pub node: SocketAddr,
    admin: SocketAddr,
}

/// Memory of the process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
}

/// Connections as the proxy counts them.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Of clients.
    pub clients: u64,
    /// To brokers.
    pub brokers: u64,
}

impl Proxy {
    /// Starts it in front of `broker` and waits until it is ready.
    pub fn start(binary: &Path, broker: SocketAddr) -> Result<Self> {
        let first = free_ports()?;
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (node, admin) = (at(first + 1 + NODE), at(first + PORTS - 1));
        let child = Command::new(binary)
            .args(["--upstream", &broker.to_string(), "--listen", &at(first).to_string()])
            .args(["--ports", &format!("{}-{}", first + 1, first + PORTS - 2)])
            .args(["--admin", &admin.to_string()])
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut proxy = Self { child, node, admin };
        let begin = now();
        while !proxy.page("/readyz").is_ok_and(|page| page.starts_with("HTTP/1.1 200")) {
            if begin.elapsed() > READY_MAX || proxy.child.try_wait()?.is_some() {
                return Err(BenchError::Wire("the proxy is not ready"));
            }
            sleep_until(now() + PAUSE);
        }
        Ok(proxy)
    }

    /// Connections open now.
    pub fn connections(&self) -> Result<Open> {
        let page = self.page("/metrics")?;
        let value = |side: &str| {
            let name = format!("firebreak_connections{{side=\"{side}\"}} ");
            let line = page.lines().find_map(|line| line.strip_prefix(&*name));
            let value = line.and_then(|value| value.parse().ok());
            value.ok_or(BenchError::Wire("no count of connections"))
        };
        Ok(Open { clients: value("client")?, brokers: value("broker")? })
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
            let kib: Option<u64> = kib.and_then(|kib| kib.parse().ok());
            kib.map(|kib| kib * 1024).ok_or(BenchError::Wire("no memory of the proxy"))
        };
        Ok(Memory { resident: field("VmRSS")?, peak: field("VmHWM")? })
    }

    /// Ends it without a word: its clients are gone.
    pub fn stop(mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(_) => Err(BenchError::Wire("the proxy ended by itself")),
            None => Ok(()),
        }
    }

    fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(READY_MAX))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: crowd\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of [`PORTS`] ports in a row that nobody listens on, below those that clients get.
fn free_ports() -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut firsts = (20_000..31_000).step_by(usize::from(PORTS));
    let start = usize::try_from(std::process::id()).unwrap_or(0) % 200;
    let found = firsts.by_ref().skip(start).find(|first| (*first..*first + PORTS).all(is_free));
    found.ok_or(BenchError::Wire("no free ports"))
}

/// Bootstrap, virtual brokers, admin port.
const PORTS: u16 = 10;
const READY_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
