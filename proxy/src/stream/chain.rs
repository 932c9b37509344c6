//! Bytes in pieces -> a socket, without a copy.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Slices handed to the kernel in one call.
const SLICES_MAX: usize = 16;

/// Writes all pieces, in as few calls as the kernel lets.
pub async fn write_chain(to: &mut (impl AsyncWrite + Unpin), pieces: &[Bytes]) -> io::Result<()> {
    write_chain_telling(to, pieces, |_| {}).await
}

/// The same; `took` hears of the bytes as they go.
pub async fn write_chain_telling(
    to: &mut (impl AsyncWrite + Unpin),
    pieces: &[Bytes],
    mut took: impl FnMut(usize),
) -> io::Result<()> {
    let (mut first, mut skip) = (0, 0);
    while first < pieces.len() {
        let slices: Vec<IoSlice<'_>> = pieces[first..]
            .iter()
            .take(SLICES_MAX)
            .enumerate()
            .map(|(n, piece)| IoSlice::new(if n == 0 { &piece[skip..] } else { piece }))
            .collect();
        let mut written = poll_fn(|cx| Pin::new(&mut *to).poll_write_vectored(cx, &slices)).await?;
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        took(written);
        while first < pieces.len() && written >= pieces[first].len() - skip {
            written -= pieces[first].len() - skip;
            (first, skip) = (first + 1, 0);
        }
        skip += written;
    }
    // TLS may have taken more than the socket did.
    to.flush().await
}
