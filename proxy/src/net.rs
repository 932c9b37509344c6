//! The one place that opens sockets. With the feature `sim` a simulated network takes their place
//! where one runs; without it the types here are tokio's own.

#[cfg(feature = "sim")]
pub mod sim;

pub mod names;
mod race;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream};

use names::Names;
pub use race::race;

#[cfg(feature = "sim")]
pub use self::sim::{Listener, ReadHalf, Tcp, WriteHalf};
#[cfg(not(feature = "sim"))]
pub use tokio::net::{
    TcpListener as Listener, TcpStream as Tcp,
    tcp::{ReadHalf, WriteHalf},
};

/// Pending connections a listener keeps: after a restart all clients come at once.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Listens on `address`; a restart may take the port over at once.
pub fn listen(address: SocketAddr) -> io::Result<Listener> {
    #[cfg(feature = "sim")]
    return sim::listen(address);
    #[cfg(not(feature = "sim"))]
    bind(address)
}

/// The same, always on this machine's own network.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to `host:port` within `limit`: all addresses of the host race.
pub async fn connect(names: &Names, (host, port): (&str, u16), limit: Duration) -> io::Result<Tcp> {
    let connect = async {
        let addresses = names.of(host).await?;
        let attempts = addresses.into_iter().map(|ip| open(SocketAddr::new(ip, port)).boxed());
        race(attempts.collect()).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "connect timed out");
    let stream = tokio::time::timeout(limit, connect).await.map_err(late)??;
    tune(&stream)?;
    Ok(stream)
}

/// Connects to an address.
pub async fn open(address: SocketAddr) -> io::Result<Tcp> {
    Tcp::connect(address).await.map_err(|error| match error.kind() {
        // A firewall's word, which must not be taken for that of a broker about a password.
        io::ErrorKind::PermissionDenied => io::Error::other(error),
        _ => error,
    })
}

/// Polls until a read may give something.
pub fn poll_read_ready(half: &ReadHalf<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    #[cfg(feature = "sim")]
    return half.poll_read_ready(cx);
    #[cfg(not(feature = "sim"))]
    half.as_ref().poll_read_ready(cx)
}

/// Reads what is there, and keeps the socket for ready until a read finds nothing: in the midst of
/// something long more has mostly come meanwhile, and the kernel need not tell.
pub fn poll_read_on(
    half: &mut ReadHalf<'_>,
    cx: &mut Context<'_>,
    space: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    #[cfg(feature = "sim")]
    return tokio::io::AsyncRead::poll_read(std::pin::Pin::new(half), cx, space);
    #[cfg(not(feature = "sim"))]
    loop {
        std::task::ready!(half.as_ref().poll_read_ready(cx))?;
        match half.try_read(space.initialize_unfilled()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read.map(|n| space.advance(n))),
        }
    }
}

/// A second hand on a connection, to ask whether its peer is still there.
#[derive(Debug)]
pub struct Line(Hand);

#[derive(Debug)]
enum Hand {
    Socket(OwnedFd),
    #[cfg(feature = "sim")]
    Simulated(sim::Hand),
}

impl Line {
    /// The line of a connection, whatever is spoken over it.
    pub fn of(stream: &Tcp) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        let stream = match stream {
            Tcp::Real(stream) => stream,
            Tcp::Simulated(stream) => return Ok(Self(Hand::Simulated(stream.hand()))),
        };
        stream.as_fd().try_clone_to_owned().map(|fd| Self(Hand::Socket(fd)))
    }

    /// Whether the peer has closed its side, even if bytes of it are still unread.
    pub fn is_hung_up(&self) -> bool {
        match &self.0 {
            Hand::Socket(fd) => {
                let mut fds = [PollFd::new(fd, PollFlags::RDHUP)];
                let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
            }
            #[cfg(feature = "sim")]
            Hand::Simulated(hand) => hand.is_hung_up(),
        }
    }
}

/// Has a connection end by a reset, at once and without a word, when it is dropped.
pub fn reset_at_close(stream: &Tcp) {
    #[cfg(feature = "sim")]
    let Tcp::Real(stream) = stream else { return };
    // Without it the peer sees an end, which is worse to look at and no harm.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Settings of every connection: no delay, keep-alive.
pub fn tune(stream: &Tcp) -> io::Result<()> {
    #[cfg(feature = "sim")]
    let Tcp::Real(stream) = stream else { return Ok(()) };
    tune_socket(stream)
}

fn tune_socket(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
