//! A blocking connection: sends finished frames, reads or throws away answers.
//!
//! Invariant: answers come in the order of requests; a wrong correlation id ends the run.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use crate::error::{BenchError, Result};
use crate::tls;
use crate::wire::{self, Target};

/// The sending half.
pub struct Sender {
    stream: TcpStream,
    correlation: i32,
    /// Bytes sent so far.
    pub sent_bytes: u64,
}

/// The receiving half.
pub struct Receiver {
    stream: TcpStream,
    correlation: i32,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes received so far.
    pub received_bytes: u64,
}

/// Both halves.
pub struct Connection {
    /// The sending half.
    pub sender: Sender,
    /// The receiving half.
    pub receiver: Receiver,
}

impl Connection {
    /// Connects to `address` with TCP_NODELAY; an answer may take [`ANSWER_MAX`].
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(address: &str, buffer_bytes: usize) -> Result<Self> {
        let mut last = BenchError::Wire("address without a host");
        for place in tls::way_to(address)?.to_socket_addrs()? {
            match TcpStream::connect(place) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(ANSWER_MAX))?;
                    let sending = stream.try_clone()?;
                    return Ok(Self {
                        sender: Sender { stream: sending, correlation: 0, sent_bytes: 0 },
                        receiver: Receiver {
                            stream,
                            correlation: 0,
                            buffer: vec![0; buffer_bytes.max(HEAD_BYTES_MAX)],
                            start: 0,
                            end: 0,
                            received_bytes: 0,
                        },
                    });
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

impl Sender {
    /// Sends one frame under the next correlation id.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn send(&mut self, frame: &mut [u8]) -> Result<()> {
        wire::stamp(frame, self.correlation);
        self.correlation = self.correlation.wrapping_add(1);
        self.stream.write_all(frame)?;
        self.sent_bytes += frame.len() as u64;
        Ok(())
    }
}

impl Receiver {
    /// From now on an answer may take as long as it takes.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait_for_ever(&self) -> Result<()> {
        Ok(self.stream.set_read_timeout(None)?)
    }

    /// Reads one whole answer (at most the buffer's size) and returns it without its length.
    ///
    /// # Errors
    /// When the socket fails or the answer does not fit.
    pub fn read(&mut self) -> Result<&[u8]> {
        let length = self.length()?;
        if length > self.buffer.len() {
            return Err(BenchError::Wire("answer larger than the buffer"));
        }
        self.fill(length)?;
        let body = self.start..self.start + length;
        self.start = body.end;
        Ok(&self.buffer[body])
    }

    /// Reads one Fetch answer of any size, keeping only its head. Returns the bytes of its records.
    /// After a refusal the next answer can be read.
    ///
    /// # Errors
    /// When the socket fails or the fetch was refused.
    pub fn discard_fetch(&mut self) -> Result<u64> {
        let length = self.length()?;
        self.fill(length.min(HEAD_BYTES_MAX))?;
        let held = (self.end - self.start).min(length);
        let records = wire::read_fetch_head(&self.buffer[self.start..self.start + held]);
        self.start += held;
        let mut left = length - held;
        while left > 0 {
            let room = left.min(self.buffer.len());
            let got = self.stream.read(&mut self.buffer[..room])?;
            if got == 0 {
                return Err(CLOSED);
            }
            self.received_bytes += got as u64;
            left -= got;
            (self.start, self.end) = (0, 0);
        }
        records
    }

    /// The length of the next answer, its correlation id checked.
    fn length(&mut self) -> Result<usize> {
        self.fill(8)?;
        let head = &self.buffer[self.start..self.start + 8];
        let (length, correlation) = head.split_at(4);
        let length = length.try_into().map(u32::from_be_bytes).unwrap_or(0);
        let correlation = correlation.try_into().map(i32::from_be_bytes).unwrap_or(-1);
        if correlation != self.correlation {
            return Err(BenchError::Wire("answer out of order"));
        }
        self.correlation = self.correlation.wrapping_add(1);
        self.start += 4;
        usize::try_from(length).map_err(|_| BenchError::Wire("length"))
    }

    /// Makes at least `wanted` bytes available from `start`.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            let got = self.stream.read(&mut self.buffer[self.end..])?;
            if got == 0 {
                return Err(CLOSED);
            }
            self.received_bytes += got as u64;
            self.end += got;
        }
        Ok(())
    }
}

/// Asks `bootstrap` who leads a partition; repeats while a new topic has no leader yet.
///
/// # Errors
/// When there is none after [`LEADER_TRIES`] questions.
pub fn resolve(bootstrap: &str, topic: &str, partition: i32) -> Result<Target> {
    let mut connection = Connection::open(bootstrap, BUFFER_BYTES)?;
    let mut question = wire::metadata(topic)?;
    let mut last = BenchError::Wire("no question asked");
    for _ in 0..LEADER_TRIES {
        connection.sender.send(&mut question)?;
        match wire::read_metadata(connection.receiver.read()?, partition) {
            Ok(target) => return Ok(target),
            Err(error @ BenchError::Refused { .. }) => last = error,
            Err(error) => return Err(error),
        }
        thread::sleep(LEADER_PAUSE);
    }
    Err(last)
}

/// A buffer for answers that are looked at, or thrown away in pieces of this size.
pub const BUFFER_BYTES: usize = 256 * 1024;
/// Everything before the records of a one-partition Fetch answer fits in this.
pub const HEAD_BYTES_MAX: usize = 512;
/// An answer that takes longer voids the run.
pub const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Questions asked before giving up on a leader.
pub const LEADER_TRIES: u32 = 50;
const LEADER_PAUSE: Duration = Duration::from_millis(100);
const CLOSED: BenchError = BenchError::Wire("the peer closed the connection");
