//! The one place that opens sockets, so that a simulation can replace it.

pub mod names;
mod race;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use names::Names;
pub use race::race;

/// Pending connections a listener keeps: after a restart all clients come at once.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Listens on `address`; a restart may take the port over at once.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects to an address.
pub async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// Connects to `host:port` within `limit`: all addresses of the host race.
pub async fn connect(
    names: &Names,
    (host, port): (&str, u16),
    limit: Duration,
) -> io::Result<TcpStream> {
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

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await.map_err(|error| match error.kind() {
        // A firewall's word, which must not be taken for that of a broker about a password.
        io::ErrorKind::PermissionDenied => io::Error::other(error),
        _ => error,
    })
}

/// A second hand on a socket, to ask whether its peer is still there.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// The line of a connection, whatever is spoken over it.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self)
    }

    /// Whether the peer has closed its side, even if bytes of it are still unread.
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }
}

/// Has a connection end by a reset, at once and without a word, when it is dropped.
pub fn reset_at_close(stream: &TcpStream) {
    // Without it the peer sees an end, which is worse to look at and no harm.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Settings of every connection: no delay, keep-alive.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
