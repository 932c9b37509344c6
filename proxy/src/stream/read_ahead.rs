//! A socket that is read in large pieces, for a TLS session that asks for small ones.
//!
//! Invariant: a buffer is held only while it has bytes that the session did not take yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::Pool;
use crate::net::Tcp;

/// A TCP connection with what was read of it and not yet asked for.
#[derive(Debug)]
pub struct ReadAhead {
    tcp: Tcp,
    pool: Pool,
    bytes: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    /// Reads `tcp` with buffers of `pool`.
    pub fn new(tcp: Tcp, pool: &Pool) -> Self {
        Self { tcp, pool: pool.clone(), bytes: None, start: 0, end: 0 }
    }

    /// The socket.
    pub fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(bytes) = self.bytes.take() {
            self.pool.give(bytes);
        }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.end {
            ready!(this.tcp.poll_read_ready(cx))?;
            let bytes = this.bytes.get_or_insert_with(|| this.pool.take());
            let mut space = ReadBuf::new(bytes);
            let read = Pin::new(&mut this.tcp).poll_read(cx, &mut space);
            this.end = space.filled().len();
            if this.end == 0 {
                this.release();
                return read;
            }
        }
        if let Some(bytes) = &this.bytes {
            let n = buffer.remaining().min(this.end - this.start);
            buffer.put_slice(&bytes[this.start..this.start + n]);
            this.start += n;
        }
        if this.start == this.end {
            this.release();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.release();
    }
}
