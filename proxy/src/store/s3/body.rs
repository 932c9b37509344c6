//! What is sent of an object at once: bytes from anywhere in its pieces, and their checksum.
//!
//! Invariant: a checksum is joined of those that are known; only pieces that are cut are read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use protocol_ext::batch::{crc32c, crc32c_joined};

use crate::store::Piece;

/// Bytes to send.
#[derive(Debug)]
pub struct Body {
    /// With the CRC of each that was not cut.
    pieces: Vec<(Bytes, Option<u32>)>,
    bytes: usize,
}

impl Body {
    /// `bytes` bytes of an object from `from` on.
    pub fn of(object: &[Piece], mut from: usize, bytes: usize) -> Self {
        let mut body = Self { pieces: Vec::with_capacity(object.len()), bytes: 0 };
        for Piece { bytes: piece, crc } in object {
            if from >= piece.len() {
                from -= piece.len();
                continue;
            }
            let n = (piece.len() - from).min(bytes - body.bytes);
            if n == 0 {
                break;
            }
            let crc = (n == piece.len()).then_some(*crc);
            body.pieces.push((piece.slice(from..from + n), crc));
            body.bytes += n;
            from = 0;
        }
        body
    }

    /// Its CRC-32C as S3 writes it.
    pub fn checksum(&self) -> String {
        let join = |sum: u32, (piece, crc): &(Bytes, Option<u32>)| {
            crc32c_joined(sum, crc.unwrap_or_else(|| crc32c(piece)), piece.len() as u64)
        };
        STANDARD.encode(self.pieces.iter().fold(0, join).to_be_bytes())
    }

    /// All of it in one piece, which can be signed; a copy where it is in several.
    pub fn joined(self) -> ByteStream {
        self.whole().into()
    }

    /// All of it as it lies, which can be read once: not for a signature, nor for a retry of the
    /// SDK's.
    pub fn in_pieces(self) -> ByteStream {
        let pieces = self.pieces.into_iter().map(|(piece, _)| piece).rev().collect();
        ByteStream::from_body_1_x(Pieces { pieces, left: self.bytes as u64 })
    }

    fn whole(self) -> Bytes {
        if let [(only, _)] = &self.pieces[..] {
            return only.clone();
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        self.pieces.iter().for_each(|(piece, _)| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

/// What is left to send, the next piece last.
struct Pieces {
    pieces: Vec<Bytes>,
    left: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.pop();
        self.left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Exact, so that the length is sent with the head.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_cut_anywhere_and_the_checksum_is_that_of_the_bytes() {
        let pieces = [&b"abc"[..], b"", b"defgh", b"i"].map(Piece::of);
        for from in 0..9 {
            for bytes in 0..=9 - from {
                let body = Body::of(&pieces, from, bytes);
                let expected = &b"abcdefghi"[from..from + bytes];
                let checksum = STANDARD.encode(crc32c(expected).to_be_bytes());
                assert_eq!(body.checksum(), checksum, "{bytes} bytes from {from}");
                assert_eq!(body.whole(), expected, "{bytes} bytes from {from}");
            }
        }
        let within = Body::of(&pieces, 4, 3).whole();
        assert_eq!(within.as_ptr(), pieces[2].bytes[1..].as_ptr());
    }
}
