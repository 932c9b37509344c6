//! Frames at the edge of a socket: lengths, foreign protocols, whole frames, chains of slices.

use std::io;

use bytes::{Bytes, BytesMut};
use protocol_ext::header::HEAD_BYTES;
use protocol_ext::proxy_header;
use tokio::io::AsyncReadExt;

use crate::buffer::Buffer;
use crate::error::ConnectionError;
use crate::stream::ReadHalf;

/// Bytes needed to know a request: its length and head.
pub const PREFIX_BYTES: usize = 4 + HEAD_BYTES;

/// First bytes of protocols that are often sent to a Kafka port by mistake.
const FOREIGN: [(&[u8], &str); 6] = [
    (&[0x16, 0x03], "TLS"),
    (b"GET ", "HTTP"),
    (b"POST", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"PRI ", "HTTP/2"),
];

/// Refuses bytes that begin another protocol.
pub fn check_protocol(bytes: &[u8]) -> Result<(), ConnectionError> {
    if proxy_header::is_begun(bytes) {
        return Err(ConnectionError::NotKafka("the PROXY protocol"));
    }
    let foreign = FOREIGN.iter().find(|(start, _)| bytes.starts_with(start));
    foreign.map_or(Ok(()), |(_, name)| Err(ConnectionError::NotKafka(name)))
}

/// The big-endian INT32 at the start of `bytes`; 0 if there are fewer than four.
pub fn length_at(bytes: &[u8]) -> i32 {
    bytes.first_chunk::<4>().map_or(0, |four| i32::from_be_bytes(*four))
}

/// Takes a whole frame of `n` bytes (without its length): what `buffer` has, then from the socket.
/// The caller holds the byte permits for it; `read` hears of the bytes as they come.
pub async fn gather(
    buffer: &mut Buffer,
    from: &mut ReadHalf<'_>,
    n: usize,
    read: impl FnMut(usize),
) -> io::Result<Bytes> {
    let mut frame = BytesMut::with_capacity(n);
    gather_into(&mut frame, buffer, from, n, read).await?;
    Ok(frame.freeze())
}

/// The same for a frame that may have begun. May be dropped at any time and called again: what was
/// read is in the frame.
pub async fn gather_into(
    frame: &mut BytesMut,
    buffer: &mut Buffer,
    from: &mut ReadHalf<'_>,
    n: usize,
    mut read: impl FnMut(usize),
) -> io::Result<()> {
    let held = buffer.len().min(n - frame.len());
    frame.extend_from_slice(&buffer.bytes()[..held]);
    buffer.consume(held);
    while frame.len() < n {
        let left = n - frame.len();
        match (&mut *from).take(left as u64).read_buf(frame).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read(n),
        }
    }
    Ok(())
}

/// A frame in pieces with its length in front.
pub fn framed(mut pieces: Vec<Bytes>) -> Vec<Bytes> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    pieces.insert(0, Bytes::copy_from_slice(&length.to_be_bytes()));
    pieces
}
