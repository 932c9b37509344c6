//! The bytes of a connection, plain or in TLS: the two kinds meet here and nowhere else.
//!
//! Invariant: a plain connection takes the same calls as without TLS; one branch tells them apart.

pub mod chain;
pub mod read_ahead;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::read_ahead::ReadAhead;
use crate::net::{self, Tcp};

/// TLS over TCP.
pub type TlsStream = tokio_rustls::TlsStream<ReadAhead>;

/// A connection to a client or a broker.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(Tcp),
    /// TLS over it.
    Tls(Box<TlsStream>),
}

/// The side of a connection that is read.
#[derive(Debug)]
pub enum ReadHalf<'a> {
    /// Plain TCP.
    Plain(net::ReadHalf<'a>),
    /// TLS over it.
    Tls(tokio::io::ReadHalf<&'a mut TlsStream>),
}

/// The side of a connection that is written.
#[derive(Debug)]
pub enum WriteHalf<'a> {
    /// Plain TCP.
    Plain(net::WriteHalf<'a>),
    /// TLS over it.
    Tls(tokio::io::WriteHalf<&'a mut TlsStream>),
}

impl Stream {
    /// Both sides, for two pumps of one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(tls) => {
                let (read, write) = tokio::io::split(&mut **tls);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }

    /// Whether the peer neither closed nor sent anything, as far as one can tell without waiting.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Plain(tcp) => {
                let read = tcp.try_read(&mut byte);
                matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(tls) => {
                // Records that hold no data, such as tickets, are taken here.
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(&mut **tls).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Has it end by a reset when it is dropped.
    pub fn reset_at_close(&self) {
        net::reset_at_close(match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0.tcp(),
        });
    }

    /// Whether it is in TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl ReadHalf<'_> {
    /// Polls until a read may give something. TLS may hold data that no socket tells of, so there
    /// it is always worth a try.
    #[inline(always)]
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(half) => net::poll_read_ready(half, cx),
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Polls for as much as is there: TLS gives one record at a time. `within` something long more
    /// is expected at once.
    #[inline(always)]
    pub fn poll_read_much(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
        within: bool,
    ) -> Poll<io::Result<()>> {
        let tls = match self {
            Self::Plain(tcp) if within => return net::poll_read_on(tcp, cx, space),
            Self::Plain(tcp) => return Pin::new(tcp).poll_read(cx, space),
            Self::Tls(tls) => tls,
        };
        let before = space.filled().len();
        loop {
            let had = space.filled().len();
            let read = end_of_stream(Pin::new(&mut *tls).poll_read(cx, space));
            let has = space.filled().len();
            let more = has > had && space.remaining() > 0;
            match read {
                Poll::Ready(Ok(())) if more => {}
                // An error or the end comes again with the next poll.
                _ if has > before => return Poll::Ready(Ok(())),
                read => return read,
            }
        }
    }
}

/// A TLS peer that closes without saying so is treated as one that closes: Kafka's frames have
/// lengths, so nobody can cut one short unseen.
fn end_of_stream(read: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    match read {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Poll::Ready(Ok(()))
        }
        read => read,
    }
}

macro_rules! reads {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
                    Self::Tls(tls) => end_of_stream(Pin::new(tls).poll_read(cx, buffer)),
                }
            }
        }
    };
}

macro_rules! writes {
    ($type:ty) => {
        impl AsyncWrite for $type {
            #[inline(always)]
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
                    Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
                    Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    Self::Plain(tcp) => tcp.is_write_vectored(),
                    Self::Tls(tls) => tls.is_write_vectored(),
                }
            }

            #[inline(always)]
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
                    Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
                    Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
                }
            }
        }
    };
}

reads!(Stream);
reads!(ReadHalf<'_>);
writes!(Stream);
writes!(WriteHalf<'_>);
