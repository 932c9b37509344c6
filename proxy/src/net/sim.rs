//! Sockets of a simulated network (crate turmoil), beside the real ones: which of them is opened
//! depends on whether a simulation runs on this thread.
//!
//! A simulated socket does what the data path counts on and turmoil has not: vectored writes, a
//! look whether bytes are there, and a second hand that sees the peer hang up behind unread bytes.
//! Its writes are cut short by chance, as a full socket buffer cuts them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, tcp};
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::random;

/// Most bytes that one write takes, unless another number is set.
pub const WRITE_BYTES_MAX: usize = 16 * 1024;
/// Time that a name takes.
const LOOK_UP: Duration = Duration::from_millis(1);
/// One write in so many takes a few bytes only.
const SHORT_OF: usize = 8;
/// Most bytes of such a write.
const SHORT_BYTES_MAX: usize = 48;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// A listener.
pub enum Listener {
    /// On this machine.
    Real(TcpListener),
    /// On a simulated host.
    Simulated(turmoil::net::TcpListener),
}

/// Listens on a simulated host if one runs this code, else on this machine.
pub fn listen(address: SocketAddr) -> io::Result<Listener> {
    if !turmoil::in_simulation() {
        return super::bind(address).map(Listener::Real);
    }
    let bound = turmoil::net::TcpListener::bind(address).now_or_never();
    bound.ok_or(io::ErrorKind::WouldBlock)?.map(Listener::Simulated)
}

impl Listener {
    /// The next connection and its peer.
    pub async fn accept(&self) -> io::Result<(Tcp, SocketAddr)> {
        match self {
            Self::Real(listener) => {
                listener.accept().await.map(|(stream, peer)| (Tcp::Real(stream), peer))
            }
            Self::Simulated(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Tcp::Simulated(Simulated::new(stream)?), peer))
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Tcp {
    /// Of this machine.
    Real(TcpStream),
    /// Of a simulated host.
    Simulated(Simulated),
}

impl Tcp {
    /// Connects to an address.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        if turmoil::in_simulation() {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            return Simulated::new(stream).map(Self::Simulated);
        }
        TcpStream::connect(address).await.map(Self::Real)
    }

    /// Both sides.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Real(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Real(read), WriteHalf::Real(write))
            }
            Self::Simulated(stream) => {
                (ReadHalf::Simulated(&stream.read), WriteHalf::Simulated(&mut stream.write))
            }
        }
    }

    /// Reads what is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Real(stream) => stream.try_read(buffer),
            Self::Simulated(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                let mut space = ReadBuf::new(buffer);
                match stream.read.lock().poll_read(&mut cx, &mut space) {
                    Poll::Ready(read) => read.map(|()| space.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Looks at the next bytes without taking them.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Real(stream) => stream.peek(buffer).await,
            Self::Simulated(stream) => {
                std::future::poll_fn(|cx| stream.read.lock().poll_ready(cx)).await?;
                let incoming = stream.read.lock();
                let n = buffer.len().min(incoming.ahead.len());
                for (to, from) in buffer.iter_mut().zip(&incoming.ahead) {
                    *to = *from;
                }
                Ok(n)
            }
        }
    }

    /// Polls until a read may give something.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Real(stream) => stream.poll_read_ready(cx),
            Self::Simulated(stream) => stream.read.lock().poll_ready(cx),
        }
    }
}

/// Addresses of a simulated host; none while names are dark.
pub(super) async fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    tokio::time::sleep(LOOK_UP).await;
    match DARK.get() {
        true => Err(io::Error::other("no name server answers")),
        false => Ok(vec![turmoil::lookup(host)]),
    }
}

/// From now on no host has an address, or each has one again.
pub fn darken(dark: bool) {
    DARK.set(dark);
}

/// From now on a write takes so many bytes at most: with the segments that a simulated socket holds
/// they bound what a peer that does not read lets a writer send.
pub fn set_write_bytes_max(bytes: usize) {
    WRITE_MOST.set(bytes);
}

thread_local! {
    static OPEN: RefCell<Vec<Weak<Mutex<Incoming>>>> = const { RefCell::new(Vec::new()) };
    static DARK: Cell<bool> = const { Cell::new(false) };
    static WRITE_MOST: Cell<usize> = const { Cell::new(WRITE_BYTES_MAX) };
}

/// Enters a connection among the open ones; those that are gone leave now and then.
fn enter(incoming: &Arc<Mutex<Incoming>>) {
    OPEN.with_borrow_mut(|open| {
        if open.len() == open.capacity() {
            open.retain(|one| one.strong_count() > 0);
        }
        open.push(Arc::downgrade(incoming));
    });
}

/// Ends the connections between two hosts as a kernel does that sends again and again in vain: a
/// simulated partition loses bytes, and turmoil never sends them again.
pub fn time_out(a: IpAddr, b: IpAddr) {
    let open = OPEN.with_borrow_mut(|open| {
        open.retain(|one| one.strong_count() > 0);
        open.clone()
    });
    for incoming in open.iter().filter_map(Weak::upgrade) {
        let mut incoming = incoming.lock();
        if [(a, b), (b, a)].contains(&incoming.hosts) {
            incoming.end = Some(Some(io::ErrorKind::TimedOut));
            let wakers = [incoming.waker.take(), incoming.writer.take()];
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

/// A connection of a simulated host.
#[derive(Debug)]
pub struct Simulated {
    read: Arc<Mutex<Incoming>>,
    write: Outgoing,
}

/// The side of a connection that is written.
#[derive(Debug)]
pub struct Outgoing {
    half: OwnedWriteHalf,
    read: Arc<Mutex<Incoming>>,
}

impl Simulated {
    fn new(stream: turmoil::net::TcpStream) -> io::Result<Self> {
        let hosts = (stream.local_addr()?.ip(), stream.peer_addr()?.ip());
        let (half, write) = stream.into_split();
        let (ahead, end, waker, writer) = (VecDeque::new(), None, None, None);
        let incoming = Incoming { hosts, half, ahead, end, waker, writer };
        let read = Arc::new(Mutex::new(incoming));
        enter(&read);
        Ok(Self { write: Outgoing { half: write, read: read.clone() }, read })
    }

    /// A second hand on it.
    pub fn hand(&self) -> Hand {
        Hand(self.read.clone())
    }
}

/// What comes in, and what was taken of it before anyone asked.
#[derive(Debug)]
struct Incoming {
    hosts: (IpAddr, IpAddr),
    half: OwnedReadHalf,
    ahead: VecDeque<u8>,
    /// The stream is over: well, or with an error.
    end: Option<Option<io::ErrorKind>>,
    /// Who waits for bytes.
    waker: Option<Waker>,
    /// Who waits to write.
    writer: Option<Waker>,
}

impl Incoming {
    /// Takes what is there, at most one piece.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut space = ReadBuf::uninit(&mut bytes);
        match ready!(Pin::new(&mut self.half).poll_read(cx, &mut space)) {
            Ok(()) if space.filled().is_empty() => self.end = Some(None),
            Ok(()) => self.ahead.extend(space.filled()),
            Err(error) => self.end = Some(Some(error.kind())),
        }
        Poll::Ready(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() && self.end.is_none() {
            self.waker = Some(cx.waker().clone());
            ready!(self.poll_take(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        let n = buffer.remaining().min(self.ahead.len());
        if n == 0
            && let Some(Some(kind)) = self.end
        {
            return Poll::Ready(Err(kind.into()));
        }
        let (first, second) = self.ahead.as_slices();
        let m = n.min(first.len());
        buffer.put_slice(&first[..m]);
        buffer.put_slice(&second[..n - m]);
        self.ahead.drain(..n);
        Poll::Ready(Ok(()))
    }
}

/// A second hand on a simulated connection.
#[derive(Debug)]
pub struct Hand(Arc<Mutex<Incoming>>);

impl Hand {
    /// Whether the peer has closed its side, even if bytes of it are still unread.
    pub fn is_hung_up(&self) -> bool {
        let mut incoming = self.0.lock();
        // Whoever waits for bytes goes on waiting.
        let waker = incoming.waker.clone().unwrap_or_else(|| Waker::noop().clone());
        let mut cx = Context::from_waker(&waker);
        while incoming.end.is_none() && incoming.poll_take(&mut cx).is_ready() {}
        incoming.end.is_some()
    }
}

/// The side that is read.
#[derive(Debug)]
pub enum ReadHalf<'a> {
    /// Of a real connection.
    Real(tcp::ReadHalf<'a>),
    /// Of a simulated one.
    #[expect(private_interfaces, reason = "nobody looks inside")]
    Simulated(&'a Arc<Mutex<Incoming>>),
}

impl ReadHalf<'_> {
    /// Polls until a read may give something.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Real(half) => half.as_ref().poll_read_ready(cx),
            Self::Simulated(half) => half.lock().poll_ready(cx),
        }
    }
}

/// The side that is written.
#[derive(Debug)]
pub enum WriteHalf<'a> {
    /// Of a real connection.
    Real(tcp::WriteHalf<'a>),
    /// Of a simulated one.
    Simulated(&'a mut Outgoing),
}

/// Writes the first bytes of some slices, as many as chance has the socket take.
fn poll_write_some(
    to: &mut Outgoing,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let short = random::below(SHORT_OF) == 0;
    let most = if short { 1 + random::below(SHORT_BYTES_MAX) } else { WRITE_MOST.get() };
    let mut bytes = Vec::new();
    for slice in slices {
        let n = slice.len().min(most - bytes.len());
        bytes.extend_from_slice(&slice[..n]);
    }
    let mut read = to.read.lock();
    if let Some(Some(kind)) = read.end {
        return Poll::Ready(Err(kind.into()));
    }
    read.writer = Some(cx.waker().clone());
    Pin::new(&mut to.half).poll_write(cx, &bytes)
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Simulated(stream) => stream.read.lock().poll_read(cx, buffer),
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Real(half) => Pin::new(half).poll_read(cx, buffer),
            Self::Simulated(half) => half.lock().poll_read(cx, buffer),
        }
    }
}

macro_rules! writes {
    ($type:ty, $simulated:ident => $half:expr) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_write(cx, bytes),
                    Self::Simulated($simulated) => {
                        poll_write_some(&mut $half, cx, &[IoSlice::new(bytes)])
                    }
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
                    Self::Simulated($simulated) => poll_write_some(&mut $half, cx, slices),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::Real(stream) => stream.is_write_vectored(),
                    Self::Simulated(_) => true,
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_flush(cx),
                    Self::Simulated($simulated) => Pin::new(&mut $half.half).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Real(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::Simulated($simulated) => Pin::new(&mut $half.half).poll_shutdown(cx),
                }
            }
        }
    };
}

writes!(Tcp, stream => stream.write);
writes!(WriteHalf<'_>, half => **half);
