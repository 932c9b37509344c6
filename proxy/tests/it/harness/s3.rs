//! An S3 service in this process that fails by script, byte for byte as told: no framework stands
//! between a fault and the socket.
//!
//! It keeps objects in memory, knows PUT, ranged GET, HEAD, DELETE, listings in pages of three and
//! uploads in parts, checks bodies by their sums (signatures are the strict server's to check), and
//! does what the script says to the next request of that kind.

mod uploads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol_ext::batch::crc32c;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::uploads::{Upload, in_parts};
use super::proxy::Folder;

/// Where a start writes and reads whose objects these are, at any time: it counts for nothing.
const OWNERS: &str = "upkeep/v1/owner/";
/// The one bucket.
pub const BUCKET: &str = "images";
/// The hash that stands for a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const CHECKSUM: &str = "x-amz-checksum-crc32c";
/// What a page of a listing holds at most.
const PAGE: usize = 3;
/// When everything was written that is old.
const LONG_AGO: &str = "2020-01-01T00:00:00.000Z";

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is served.
    None,
    /// Refused with this status and code.
    Status(u16, &'static str),
    /// A bit of its body is changed on the way.
    Damaged,
    /// Done, and then answered with this status and code.
    DoneBut(u16, &'static str),
    /// Done, and the connection closed without an answer.
    DoneAndGone,
    /// Reset (RST) after so many bytes of its body.
    ResetBody(usize),
    /// No more is read after so many bytes of its body.
    StalledBody(usize),
    /// The answer's first byte comes late.
    Slow(Duration),
    /// Never answered.
    Silent,
    /// The answer's body is reset (RST) after so many bytes.
    Reset(usize),
    /// The answer's body ends after so many bytes, against its length.
    Truncated(usize),
    /// Another range than asked for, and said so.
    OtherRange,
    /// The range that was asked for by its head, other bytes in its body.
    OtherBytes,
    /// The whole object where a range was asked for.
    Whole,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An object, or a part of one.
    Put,
    /// A range.
    Get,
    /// What a listing would show of one object.
    Head,
    /// Objects.
    List,
    /// To remove one.
    Delete,
    /// Uploads that are not complete.
    Uploads,
    /// To end one of them.
    Abort,
    /// Anything else.
    Other,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// By their names.
    uploads: BTreeMap<String, Upload>,
    uploads_begun: usize,
    /// Requests of a kind that are served now, and the most that ever were.
    at_once: BTreeMap<Kind, (usize, usize)>,
    longest_range: usize,
    unsigned: usize,
    script: BTreeMap<Kind, VecDeque<Fault>>,
    always: BTreeMap<Kind, Fault>,
    counts: BTreeMap<Kind, usize>,
    connections: usize,
    unlisted: BTreeSet<String>,
    /// What goes when the next object is asked for, and what has gone so.
    vanishing: Option<String>,
    vanished: BTreeMap<String, Vec<u8>>,
    lifecycle: Option<Vec<u8>>,
    refusing: bool,
}

impl State {
    /// Counts a request, and tells what happens to it.
    fn happens(&mut self, kind: Kind) -> Fault {
        *self.counts.entry(kind).or_default() += 1;
        if kind == Kind::Get
            && let Some(key) = self.vanishing.take()
            && let Some(object) = self.objects.remove(&key)
        {
            self.vanished.insert(key, object);
        }
        let scripted = self.script.get_mut(&kind).and_then(VecDeque::pop_front);
        scripted.or(self.always.get(&kind).copied()).unwrap_or(Fault::None)
    }

    /// The same for what goes wrong while the body comes: behind how many bytes of it, and whether
    /// the connection is reset. All else happens once the body is there.
    fn amid_the_body(&mut self, kind: Kind) -> Option<(usize, bool)> {
        let scripted = self.script.get(&kind).and_then(VecDeque::front);
        let amid = match scripted.or(self.always.get(&kind))? {
            Fault::ResetBody(bytes) => (*bytes, true),
            Fault::StalledBody(bytes) => (*bytes, false),
            _ => return None,
        };
        self.happens(kind);
        Some(amid)
    }
}

/// The service.
#[derive(Debug)]
pub struct S3 {
    /// Where it listens.
    pub port: u16,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
    keys: Folder,
}

impl S3 {
    /// Starts it on a free port.
    #[expect(clippy::disallowed_methods, reason = "it ends with its test")]
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                shared.lock().expect("not poisoned").connections += 1;
                tokio::spawn(async move {
                    // A client that goes away is no concern of this service.
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        let keys = Folder::new();
        let key = "5d5e0f7e6b1b4c22a6d5b2e0f0c1d9483a7f";
        std::fs::write(keys.path().join("reference.key"), key).expect("a key file");
        Self { port, state, task, keys }
    }

    /// The key that signs references to its objects.
    pub fn key_file(&self) -> PathBuf {
        self.keys.path().join("reference.key")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// The rules of the bucket, as they were written.
    pub fn lifecycle(&self) -> String {
        let rules = self.lock().lifecycle.clone().unwrap_or_default();
        String::from_utf8_lossy(&rules).into_owned()
    }

    /// From now on nobody may ask anything, or everybody may.
    pub fn refuse(&self, refusing: bool) {
        self.lock().refusing = refusing;
    }

    /// Gives the bucket rules.
    pub fn set_lifecycle(&self, rules: &str) {
        self.lock().lifecycle = Some(rules.as_bytes().to_vec());
    }

    /// What happens to the next requests of a kind, one after the other.
    pub fn script(&self, kind: Kind, faults: &[Fault]) {
        self.lock().script.entry(kind).or_default().extend(faults);
    }

    /// What happens to every request of a kind for which no script is left.
    pub fn always(&self, kind: Kind, fault: Fault) {
        self.lock().always.insert(kind, fault);
    }

    /// Requests of a kind so far.
    pub fn count(&self, kind: Kind) -> usize {
        self.lock().counts.get(&kind).copied().unwrap_or(0)
    }

    /// The objects, but for what a start writes.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = self.lock().objects.clone();
        objects.retain(|key, _| !key.starts_with(OWNERS));
        objects
    }

    /// Whether a start has said whose objects these are.
    pub fn has_owner(&self) -> bool {
        self.lock().objects.keys().any(|key| key.starts_with(OWNERS))
    }

    /// Leaves an object out of listings, as if it had been stored behind them.
    pub fn unlist(&self, key: &str) {
        self.lock().unlisted.insert(key.to_owned());
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        self.lock().objects.remove(key);
    }

    /// Changes what there is, as somebody else would.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        change(&mut self.lock().objects);
    }

    /// The most requests of a kind that were served at once.
    pub fn at_once(&self, kind: Kind) -> usize {
        self.lock().at_once.get(&kind).map_or(0, |(_, most)| *most)
    }

    /// Bytes of the longest range that was asked for.
    pub fn longest_range(&self) -> usize {
        self.lock().longest_range
    }

    /// Removes an object when the next one is asked for, whichever that is.
    pub fn vanish(&self, key: &str) {
        self.lock().vanishing = Some(key.to_owned());
    }

    /// Puts back what has gone so, and tells how many objects that are.
    pub fn bring_back(&self) -> usize {
        let mut state = self.lock();
        let mut vanished = std::mem::take(&mut state.vanished);
        let count = vanished.len();
        state.objects.append(&mut vanished);
        count
    }

    /// Bodies so far that were not signed byte for byte.
    pub fn unsigned(&self) -> usize {
        self.lock().unsigned
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Request {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    range: Option<(usize, usize)>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn kind(&self) -> Kind {
        let asks = |name: &str| self.query.contains_key(name);
        match (self.method.as_str(), self.key.is_empty()) {
            ("PUT", _) => Kind::Put,
            ("GET", false) if !asks("uploadId") => Kind::Get,
            ("GET", true) if asks("uploads") => Kind::Uploads,
            ("GET", true) if !asks("lifecycle") => Kind::List,
            ("HEAD", _) => Kind::Head,
            ("DELETE", _) if asks("uploadId") => Kind::Abort,
            ("DELETE", _) => Kind::Delete,
            _ => Kind::Other,
        }
    }

    /// What is wrong with its body by the sums that it came with.
    fn wrong(&self) -> Option<&'static str> {
        let header = |name: &str| self.headers.get(name).map_or("", String::as_str);
        let signed = header("x-amz-content-sha256");
        let digest = Sha256::digest(&self.body).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        if signed != UNSIGNED && signed != digest {
            return Some("XAmzContentSHA256Mismatch");
        }
        let sum = header(CHECKSUM);
        (!sum.is_empty() && sum != checksum(&self.body)).then_some("BadDigest")
    }
}

/// The CRC-32C of a body as its header says it.
fn checksum(body: &[u8]) -> String {
    STANDARD.encode(crc32c(body).to_be_bytes())
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: String::new(), body: body.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self::of(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"))
    }
}

/// A request that is served.
struct Served<'a> {
    state: &'a Mutex<State>,
    kind: Kind,
}

impl<'a> Served<'a> {
    fn new(state: &'a Mutex<State>, request: &Request) -> Self {
        let kind = request.kind();
        let mut all = state.lock().expect("not poisoned");
        let (now, most) = all.at_once.entry(kind).or_default();
        *now += 1;
        *most = (*most).max(*now);
        let range = request.range.map_or(0, |(from, to)| to.saturating_sub(from));
        all.longest_range = all.longest_range.max(range);
        Self { state, kind }
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let mut all = self.state.lock().expect("not poisoned");
        if let Some((now, _)) = all.at_once.get_mut(&self.kind) {
            *now -= 1;
        }
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    while let Some((mut request, body_bytes)) = read_head(&mut stream, &mut held).await? {
        let kind = request.kind();
        let _served = Served::new(state, &request);
        let owners = request.query.get("prefix").is_some_and(|prefix| prefix == OWNERS);
        let is_free = request.key.starts_with(OWNERS) || owners;
        let lock = || state.lock().expect("not poisoned");
        let refusing = lock().refusing;
        let amid = if refusing || is_free { None } else { lock().amid_the_body(kind) };
        if let Some((bytes, is_reset)) = amid {
            read_body(&mut stream, &mut held, bytes.min(body_bytes)).await?;
            return if is_reset { reset(&stream) } else { std::future::pending().await };
        }
        let Some(body) = read_body(&mut stream, &mut held, body_bytes).await? else {
            return Ok(());
        };
        request.body = body;
        let fault = if refusing {
            Fault::Status(403, "AccessDenied")
        } else if is_free {
            Fault::None
        } else {
            lock().happens(kind)
        };
        let middle = request.body.len() / 2;
        if fault == Fault::Damaged
            && let Some(byte) = request.body.get_mut(middle)
        {
            *byte ^= 1;
        }
        let done = || match request.wrong() {
            Some(code) => Answer::error(400, code),
            None => answer(&request, &mut lock()),
        };
        let answer = match fault {
            Fault::Status(status, code) => Answer::error(status, code),
            Fault::DoneBut(status, code) => {
                done();
                Answer::error(status, code)
            }
            Fault::DoneAndGone => {
                done();
                return Ok(());
            }
            Fault::Silent => std::future::pending().await,
            Fault::Slow(time) => {
                tokio::time::sleep(time).await;
                done()
            }
            _ => done(),
        };
        if !write(&mut stream, answer, (fault, request.method == "HEAD")).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// From now on a close is a reset: it does not linger.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// The bytes of a body; `None` if it breaks off.
async fn read_body(
    stream: &mut TcpStream,
    held: &mut Vec<u8>,
    bytes: usize,
) -> io::Result<Option<Vec<u8>>> {
    while held.len() < bytes {
        if stream.read_buf(held).await? == 0 {
            return Ok(None);
        }
    }
    let rest = held.split_off(bytes);
    Ok(Some(std::mem::replace(held, rest)))
}

/// A request without its body, and the bytes of that.
async fn read_head(
    stream: &mut TcpStream,
    held: &mut Vec<u8>,
) -> io::Result<Option<(Request, usize)>> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(held).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    let mut lines = head.lines();
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let bytes = headers.get("content-length").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    if headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    held.drain(..end);
    let (path, query) = first[1].split_once('?').unwrap_or((first[1], ""));
    let path = path.trim_start_matches('/');
    let key = path.strip_prefix(BUCKET).unwrap_or(path).trim_start_matches('/').to_owned();
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = pairs.map(|(k, v)| (k.to_owned(), v.replace("%2F", "/"))).collect();
    let range = headers.get("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse().ok()?, to.parse::<usize>().ok()? + 1))
    });
    let (method, body) = (first[0].to_owned(), Vec::new());
    Ok(Some((Request { method, key, query, range, headers, body }, bytes)))
}

fn answer(request: &Request, state: &mut State) -> Answer {
    let Request { method, key, query, range, headers, body } = request;
    let counts = method == "PUT" && !key.starts_with(OWNERS);
    if counts && headers.get("x-amz-content-sha256").is_some_and(|sum| sum == UNSIGNED) {
        state.unsigned += 1;
    }
    let missing = || Answer::error(404, "NoSuchKey");
    if query.contains_key("uploads") || query.contains_key("uploadId") {
        return in_parts(request, state);
    }
    match method.as_str() {
        "GET" if query.contains_key("lifecycle") => match &state.lifecycle {
            Some(rules) => Answer::of(200, rules.clone()),
            None => Answer::error(404, "NoSuchLifecycleConfiguration"),
        },
        "PUT" if query.contains_key("lifecycle") => {
            state.lifecycle = Some(body.clone());
            Answer::of(200, "")
        }
        "PUT" => {
            state.objects.insert(key.clone(), body.clone());
            Answer { headers: "ETag: \"x\"\r\n".to_owned(), ..Answer::of(200, "") }
        }
        "DELETE" => {
            state.objects.remove(key);
            Answer::of(204, "")
        }
        "GET" if key.is_empty() => list(state, query),
        "HEAD" => match state.objects.get(key) {
            Some(object) => Answer::of(200, object.clone()),
            None => Answer::of(404, ""),
        },
        _ => match (state.objects.get(key), range) {
            (None, _) => missing(),
            (Some(object), Some((from, _))) if *from >= object.len() => {
                Answer::error(416, "InvalidRange")
            }
            (Some(object), Some((from, to))) => {
                let to = (*to).min(object.len());
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, object.len());
                Answer { headers: range, ..Answer::of(206, &object[*from..to]) }
            }
            (Some(object), None) => Answer::of(200, object.clone()),
        },
    }
}

fn list(state: &State, query: &BTreeMap<String, String>) -> Answer {
    let after = query.get("start-after").map_or("", String::as_str);
    let prefix = query.get("prefix").map_or("", String::as_str);
    let mut xml = String::from("<ListBucketResult>");
    let listed = state.objects.iter().filter(|(key, _)| !state.unlisted.contains(*key));
    let found = listed.filter(|(key, _)| key.starts_with(prefix));
    for (key, object) in found.filter(|(key, _)| key.as_str() > after).take(PAGE) {
        let _ = write!(
            xml,
            "<Contents><Key>{key}</Key><Size>{}</Size>\
             <LastModified>{LONG_AGO}</LastModified></Contents>",
            object.len()
        );
    }
    xml.push_str("</ListBucketResult>");
    Answer::of(200, xml)
}

/// Writes an answer as the fault has it, or only its head; false if the connection is gone.
async fn write(
    stream: &mut TcpStream,
    mut answer: Answer,
    (fault, only_head): (Fault, bool),
) -> io::Result<bool> {
    match fault {
        Fault::OtherRange => {
            answer.headers = "Content-Range: bytes 0-9/100000\r\n".to_owned();
            answer.body.truncate(10);
        }
        Fault::OtherBytes => answer.body.iter_mut().for_each(|byte| *byte ^= 0x55),
        Fault::Whole => {
            answer.status = 200;
            answer.headers.clear();
        }
        _ => {}
    }
    let Answer { status, headers, body } = answer;
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}Connection: keep-alive\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if only_head {
        return Ok(true);
    }
    match fault {
        Fault::Reset(n) => {
            stream.write_all(&body[..n.min(body.len())]).await?;
            stream.flush().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            reset(stream)?;
            Ok(false)
        }
        Fault::Truncated(n) => {
            stream.write_all(&body[..n.min(body.len())]).await?;
            Ok(false)
        }
        _ => {
            stream.write_all(&body).await?;
            Ok(true)
        }
    }
}
