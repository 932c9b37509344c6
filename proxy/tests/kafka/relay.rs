//! The recording relay between clients and the proxy.
//!
//! It listens where the proxy is advertised (127.0.0.1), one port for each of the proxy's, forwards
//! every byte as it comes, and searches each response frame as [`crate::leak`] says. Requests are
//! noted on the way in, so that a response is known by its place in the order and must carry that
//! request's correlation id.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::leak::{Findings, Rules};
use crate::proxy::{ADVERTISED, HOST, NODES};

/// A running relay; its sockets close when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    rules: Rules,
    findings: Mutex<Findings>,
}

impl Relay {
    /// Relays the proxy's ports, which start at `bootstrap`.
    pub fn start(bootstrap: u16, upstream_ports: Vec<u16>) -> Self {
        let rules = Rules { upstream_ports, bootstrap, first: bootstrap + 1 };
        let shared = Arc::new(Shared { rules, findings: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        for port in bootstrap..=bootstrap + NODES {
            let listener = runtime.block_on(TcpListener::bind((ADVERTISED, port))).unwrap();
            runtime.spawn(accept(listener, port, shared.clone()));
        }
        Self { shared, runtime: Some(runtime) }
    }

    /// What was found since the start.
    pub fn findings(&self) -> Findings {
        self.shared.findings.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn accept(listener: TcpListener, port: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // A proxy that is down looks to the client as it would without the relay: closed at
            // once.
            if let Ok(proxy) = TcpStream::connect((HOST, port)).await {
                let _ = relay(client, proxy, &shared).await;
            }
        });
    }
}

async fn relay(client: TcpStream, proxy: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    proxy.set_nodelay(true)?;
    let (client_in, client_out) = client.into_split();
    let (proxy_in, proxy_out) = proxy.into_split();
    let asked = Mutex::new(VecDeque::new());
    let note = |frame: &[u8]| asked.lock().unwrap().extend(Asked::read(frame));
    let search = |frame: &[u8]| shared.answered(asked.lock().unwrap().pop_front(), frame);
    tokio::try_join!(
        pump(client_in, proxy_out, Frames::heads(), note),
        pump(proxy_in, client_out, Frames::whole(), search),
    )?;
    Ok(())
}

/// A frame is noted or searched before its last byte leaves: what a client has seen has been
/// searched.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frames: Frames,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        frames.feed(&buffer[..count], &mut each);
        to.write_all(&buffer[..count]).await?;
    }
}

/// Cuts a stream into frames and keeps of each at most `keep` bytes.
struct Frames {
    keep: usize,
    length: Vec<u8>,
    missing: usize,
    frame: Vec<u8>,
    told: bool,
}

impl Frames {
    fn heads() -> Self {
        Self::new(4096)
    }

    fn whole() -> Self {
        Self::new(usize::MAX)
    }

    fn new(keep: usize) -> Self {
        Self { keep, length: Vec::new(), missing: 0, frame: Vec::new(), told: true }
    }

    /// Calls `each` once per frame, as soon as what is kept of it is there.
    fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.missing == 0 && self.length.len() < 4 {
                let take = bytes.len().min(4 - self.length.len());
                self.length.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if let Ok(length) = <[u8; 4]>::try_from(&self.length[..]) {
                    self.missing = u32::from_be_bytes(length) as usize;
                    (self.told, self.frame) = (false, Vec::new());
                }
            } else {
                let take = bytes.len().min(self.missing);
                let room = take.min(self.keep - self.frame.len());
                self.frame.extend_from_slice(&bytes[..room]);
                self.missing -= take;
                bytes = &bytes[take..];
            }
            if self.length.len() == 4
                && !self.told
                && (self.missing == 0 || self.frame.len() == self.keep)
            {
                self.told = true;
                each(&self.frame);
            }
            if self.missing == 0 && self.told {
                self.length.clear();
            }
        }
    }
}

/// A request that will be answered.
struct Asked {
    key: i16,
    version: i16,
    correlation: [u8; 4],
}

impl Asked {
    /// `None` for Produce with acks=0, which has no answer.
    fn read(frame: &[u8]) -> Option<Self> {
        let number =
            |at: usize| Some(i16::from_be_bytes(frame.get(at..at + 2)?.try_into().unwrap()));
        let (key, version) = (number(0)?, number(2)?);
        let correlation = frame.get(4..8)?.try_into().unwrap();
        if key == 0 {
            let client = usize::try_from(number(8)?).unwrap_or(0);
            let acks = match version {
                0..3 => 10 + client,
                3..9 => 12 + client + usize::try_from(number(10 + client)?).unwrap_or(0),
                // one byte of tags ends the header; the transactional id is a compact string
                _ => {
                    let id = usize::from(*frame.get(11 + client)?).saturating_sub(1);
                    assert!(id < 127, "longer transactional ids have longer lengths");
                    12 + client + id
                }
            };
            if number(acks)? == 0 {
                return None;
            }
        }
        Some(Self { key, version, correlation })
    }
}

impl Shared {
    fn answered(&self, asked: Option<Asked>, frame: &[u8]) {
        let mut findings = self.findings.lock().unwrap();
        match asked {
            Some(asked) if frame.starts_with(&asked.correlation) => {
                findings.search(&self.rules, asked.key, asked.version, frame);
            }
            Some(asked) => findings.out_of_order.push(format!(
                "an answer with correlation id {:?} where api {} v{} {:?} was owed",
                frame.get(..4),
                asked.key,
                asked.version,
                asked.correlation
            )),
            None => findings.out_of_order.push("an answer that no request owed".to_owned()),
        }
    }
}
