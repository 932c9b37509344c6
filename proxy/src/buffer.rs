//! I/O buffers: taken when bytes are there, given back when none are left.
//!
//! Invariant: an idle connection holds no buffer; a busy one holds one per direction.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{future::poll_fn, io};

use parking_lot::Mutex;
use tokio::io::{AsyncWrite, ReadBuf};

use crate::clock;
use crate::limits::{IO_BUFFER_BYTES, IO_BUFFERS_KEPT};
use crate::stream::{ReadHalf, WriteHalf};

/// Bytes go on in pieces of this size: whoever waits for the end of a frame works on one while the
/// next one is copied, and what was just copied is still in the cache.
const PIECE_BYTES: usize = IO_BUFFER_BYTES / 2;
/// With so much of a frame still to come, larger pieces save more than they delay.
const LONG_FRAME_BYTES: usize = 4 << 20;

/// Buffers that nobody uses now: up to `IO_BUFFERS_KEPT`, beside two that each thread keeps at
/// hand, which lie in its core's cache.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Box<[u8]>>>>);

thread_local! {
    static AT_HAND: Cell<[Option<Box<[u8]>>; 2]> = const { Cell::new([None, None]) };
}

impl Pool {
    /// A buffer, of any content.
    #[inline(always)]
    pub fn take(&self) -> Box<[u8]> {
        let at_hand = AT_HAND.try_with(|buffers| {
            let [first, second] = buffers.take();
            buffers.set([second, None]);
            first
        });
        if let Ok(Some(buffer)) = at_hand {
            return buffer;
        }
        let kept = self.0.lock().pop();
        kept.unwrap_or_else(|| vec![0; IO_BUFFER_BYTES].into_boxed_slice())
    }

    /// Takes a buffer back.
    #[inline(always)]
    pub fn give(&self, buffer: Box<[u8]>) {
        let mut left = Some(buffer);
        // A thread that ends keeps none.
        let _ = AT_HAND.try_with(|buffers| {
            let [first, second] = buffers.take();
            buffers.set([left.take(), first]);
            left = second;
        });
        if let Some(buffer) = left {
            let mut kept = self.0.lock();
            if kept.len() < IO_BUFFERS_KEPT {
                kept.push(buffer);
            }
        }
    }
}

/// Bytes read from one side and not yet passed to the other.
#[derive(Debug)]
pub struct Buffer {
    pool: Pool,
    bytes: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty one, that holds no memory.
    pub fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), bytes: None, start: 0, end: 0 }
    }

    /// The bytes held.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes[self.start..self.end])
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether none are held.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `n` bytes; the memory goes back to the pool with the last one.
    pub fn consume(&mut self, n: usize) {
        self.start += n.min(self.len());
        if self.is_empty() {
            self.release();
        }
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(bytes) = self.bytes.take() {
            self.pool.give(bytes);
        }
    }

    /// Polls for more bytes behind those held; `left` of a frame are still to come, 0 between two.
    /// Gives 0 at the end of the stream.
    #[inline(always)]
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        left: usize,
    ) -> Poll<io::Result<usize>> {
        let long = left > LONG_FRAME_BYTES;
        let most = if long { IO_BUFFER_BYTES } else { PIECE_BYTES };
        ready!(from.poll_ready(cx))?;
        let bytes = self.bytes.get_or_insert_with(|| self.pool.take());
        if self.start > 0 {
            bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let end = (self.end + most).min(IO_BUFFER_BYTES);
        let mut space = ReadBuf::new(&mut bytes[self.end..end]);
        if space.capacity() == 0 {
            let full = io::Error::new(io::ErrorKind::InvalidData, "a value fills the buffer");
            return Poll::Ready(Err(full));
        }
        let read = from.poll_read_much(cx, &mut space, long);
        let filled = space.filled().len();
        self.end += filled;
        if self.is_empty() {
            self.release();
        }
        ready!(read)?;
        Poll::Ready(Ok(filled))
    }

    /// Reads more bytes behind those held, between two frames; 0 at the end of the stream.
    pub async fn fill(&mut self, from: &mut ReadHalf<'_>) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, from, 0)).await
    }

    /// The same within a frame, of which so many bytes are still to come.
    pub async fn fill_within(&mut self, from: &mut ReadHalf<'_>, left: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, from, left)).await
    }

    /// Writes the first `n` bytes to `to` and drops them; gives the time spent waiting, if any.
    pub fn pass(
        &mut self,
        mut n: usize,
        to: &mut WriteHalf<'_>,
    ) -> impl Future<Output = io::Result<Option<Duration>>> {
        let mut blocked: Option<clock::Tick> = None;
        poll_fn(move |cx| {
            let passed = self.poll_pass(cx, &mut n, to);
            if passed.is_pending() {
                blocked.get_or_insert_with(clock::now);
            }
            passed.map_ok(|()| blocked.map(|since| clock::now() - since))
        })
    }

    /// Polls until the first `left` bytes are with `to`; counts down what it drops.
    #[inline(always)]
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        left: &mut usize,
        to: &mut WriteHalf<'_>,
    ) -> Poll<io::Result<()>> {
        while *left > 0 {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.bytes()[..*left]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.consume(written);
                    *left -= written;
                }
            }
        }
        // TLS may have taken more than the socket did.
        Pin::new(to).poll_flush(cx)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}
