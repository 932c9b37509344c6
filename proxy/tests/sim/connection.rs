//! A client's connection to the proxy: requests go out as they come, answers must come in their
//! order, whole, and without an address of a broker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use turmoil::net::TcpStream;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::world::{Phase, World};

/// Host of the proxy, as clients write it and are told.
pub const PROXY: &str = "proxy";
/// Its bootstrap port.
pub const BOOTSTRAP: u16 = 19092;
/// Port of virtual broker 0.
pub const FIRST: u16 = 19093;
/// What is in the name of every broker's host.
pub const UPSTREAM: &[u8] = b"upstream-";
/// Requests that wait to be written.
const WAITING_MAX: usize = 64;
/// Time to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The connection is gone, and with it the answer.
#[derive(Debug, Clone, Copy)]
pub struct Lost;

struct Due {
    correlation: i32,
    to: oneshot::Sender<Bytes>,
}

struct State {
    world: Rc<World>,
    name: String,
    due: RefCell<VecDeque<Due>>,
    closed: Cell<bool>,
}

/// A connection.
pub struct Connection {
    /// Its number among all of a simulation.
    pub number: usize,
    state: Rc<State>,
    next: Cell<i32>,
    write: mpsc::Sender<Bytes>,
    tasks: [AbortHandle; 2],
}

impl Connection {
    /// Connects to a port of the proxy.
    pub async fn open(world: &Rc<World>, name: &str, port: u16) -> Result<Rc<Self>, Lost> {
        let connect = TcpStream::connect((PROXY, port));
        let stream = tokio::time::timeout(CONNECT_LIMIT, connect).await;
        let stream = stream.map_err(|_| Lost)?.map_err(|_| Lost)?;
        world.count("connections");
        let state = Rc::new(State {
            world: world.clone(),
            name: format!("{name}@{port}"),
            due: RefCell::default(),
            closed: Cell::new(false),
        });
        let (read, write) = stream.into_split();
        let (to_write, writes) = mpsc::channel(WAITING_MAX);
        let writer = tokio::task::spawn_local(write_all(state.clone(), write, writes));
        let reader = tokio::task::spawn_local(read_all(state.clone(), read));
        let tasks = [writer.abort_handle(), reader.abort_handle()];
        // Correlation ids tell connections apart in what brokers and clients note.
        let first = i32::try_from(world.below(1 << 20)).expect("small") << 10;
        let number = world.connections.get() + 1;
        world.connections.set(number);
        Ok(Rc::new(Self { number, state, next: Cell::new(first), write: to_write, tasks }))
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.state.due.borrow().len()
    }

    /// Sends a request that has no answer.
    pub fn send_only<Q>(&self, api: i16, version: i16, request: &Q) -> Result<(), Lost>
    where
        Q: Encodable + HeaderVersion,
    {
        self.put(api, version, request).map(|_| ())
    }

    fn put<Q>(&self, api: i16, version: i16, request: &Q) -> Result<i32, Lost>
    where
        Q: Encodable + HeaderVersion,
    {
        let correlation = self.next.get();
        self.next.set(correlation.wrapping_add(1));
        let frame = frame(&self.state.name, api, version, correlation, request);
        if self.is_closed() || self.write.try_send(frame).is_err() {
            self.close();
            return Err(Lost);
        }
        self.state.world.count("requests");
        Ok(correlation)
    }

    /// Sends a request; the answer comes later.
    pub fn send<Q, A>(
        &self,
        api: i16,
        version: i16,
        request: &Q,
    ) -> Result<impl Future<Output = Result<A, Lost>> + use<Q, A>, Lost>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let correlation = self.put(api, version, request)?;
        let (to, answer) = oneshot::channel();
        self.state.due.borrow_mut().push_back(Due { correlation, to });
        let state = self.state.clone();
        Ok(async move {
            match tokio::time::timeout(state.world.patience.get(), answer).await {
                Ok(Ok(frame)) => decoded(&state, api, version, &frame),
                Ok(Err(_)) => Err(Lost),
                Err(_) => {
                    state.world.count("timeouts");
                    state.close();
                    Err(Lost)
                }
            }
        })
    }

    /// Sends a request and waits for its answer.
    pub async fn call<Q, A>(&self, api: i16, version: i16, request: &Q) -> Result<A, Lost>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.send(api, version, request)?.await
    }

    /// Closes it; answers that are due are lost.
    pub fn close(&self) {
        self.state.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn close(&self) {
        self.closed.set(true);
        self.due.borrow_mut().clear();
    }

    /// Takes a frame that came, without its length.
    fn take(&self, frame: Bytes) {
        let got = i32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
        let Some(due) = self.due.borrow_mut().pop_front() else {
            self.world.violate(format!("{}: answer to {got} that nobody is due", self.name));
            return self.close();
        };
        if got != due.correlation {
            let want = due.correlation;
            self.world.violate(format!("{}: answer to {got} where {want} was due", self.name));
            return self.close();
        }
        if self.world.phase.get() == Phase::Drain {
            self.world.owed.borrow_mut().remove(&(self.name.clone(), got));
        }
        self.world.count("answers");
        // Whoever asked may have given up.
        let _ = due.to.send(frame);
    }
}

fn decoded<A>(state: &State, api: i16, version: i16, frame: &Bytes) -> Result<A, Lost>
where
    A: Decodable + HeaderVersion,
{
    decoded_body(version, frame).map_err(|why| {
        state.world.violate(format!("{}: answer of {api} v{version}: {why}", state.name));
        Lost
    })
}

/// Reads the answer that a frame holds, behind its length.
pub fn decoded_body<A>(version: i16, frame: &Bytes) -> Result<A, String>
where
    A: Decodable + HeaderVersion,
{
    let mut left = frame.clone();
    let read = ResponseHeader::decode(&mut left, A::header_version(version));
    let answer = read.and_then(|_| A::decode(&mut left, version)).map_err(|e| e.to_string())?;
    match left.remaining() {
        0 => Ok(answer),
        left => Err(format!("{left} bytes behind it")),
    }
}

/// The frame of a request, with its length.
pub fn frame<Q>(client: &str, api: i16, version: i16, correlation: i32, request: &Q) -> Bytes
where
    Q: Encodable + HeaderVersion,
{
    let header = RequestHeader::default()
        .with_request_api_key(api)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_string(client.to_owned())));
    let mut out = BytesMut::new();
    out.put_i32(0);
    header.encode(&mut out, Q::header_version(version)).expect("a header");
    request.encode(&mut out, version).expect("a request of that version");
    let length = i32::try_from(out.len() - 4).expect("small");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Writes frames, some of them in pieces with pauses between them.
async fn write_all(state: Rc<State>, mut to: OwnedWriteHalf, mut frames: mpsc::Receiver<Bytes>) {
    let world = state.world.clone();
    while let Some(frame) = frames.recv().await {
        let mut left = frame;
        while !left.is_empty() {
            let slow = world.one_in(12);
            let most = if slow { left.len().min(300) } else { left.len() };
            let piece = left.split_to(world.between(1, most).max(most.min(2)));
            if to.write_all(&piece).await.is_err() {
                return state.close();
            }
            if slow {
                tokio::time::sleep(world.ms(0, 3)).await;
            }
        }
    }
}

/// Reads answers to the end of the stream.
async fn read_all(state: Rc<State>, mut from: OwnedReadHalf) {
    let world = state.world.clone();
    let mut held = BytesMut::new();
    let mut seen = 0;
    loop {
        let read = from.read_buf(&mut held).await;
        if state.closed.get() {
            // Given up on this side: whatever still comes is of no interest.
            return;
        }
        let n = *read.as_ref().unwrap_or(&0);
        world.event(&state.name, "read", &held[held.len() - n..]);
        if n == 0 {
            if world.calm.get() && !state.closed.get() {
                world.violate(format!("{}: closed though nothing is broken", state.name));
            }
            return state.close();
        }
        // Also across the pieces in which bytes come.
        let start = seen.max(UPSTREAM.len()) - UPSTREAM.len();
        if held[start.min(held.len())..].windows(UPSTREAM.len()).any(|bytes| bytes == UPSTREAM) {
            world.violate(format!("{}: an answer names a broker's host", state.name));
            return state.close();
        }
        while let Some(length) = held.first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if !(4..=1 << 26).contains(&length) {
                world.violate(format!("{}: an answer of {length} bytes", state.name));
                return state.close();
            }
            if held.len() < 4 + length {
                break;
            }
            held.advance(4);
            state.take(held.split_to(length).freeze());
            if state.closed.get() {
                return;
            }
        }
        seen = held.len();
    }
}
