//! The ApiVersions answer: the versions clients may use are those the broker has and we serve.

use bytes::Bytes;

use crate::header::skip_tags;
use crate::wire::{Reader, WireError, put_length};

/// Newest ApiVersions version whose layout is known.
pub const VERSION_MAX: i16 = 4;
const UNSUPPORTED_VERSION: i16 = 35;

/// Rewrites a whole ApiVersions response frame (correlation id first) so that it names only the
/// versions `allow(key, min, max)` gives; `None` from it hides a key. The broker answers a version
/// it does not know in the layout of version 0 with error 35 (KIP-511); that passes as it is.
pub fn limit(
    frame: &Bytes,
    version: i16,
    allow: impl Fn(i16, i16, i16) -> Option<(i16, i16)>,
) -> Result<Bytes, WireError> {
    let mut read = Reader::new(frame, 4);
    let error = read.i16()?;
    if error == UNSUPPORTED_VERSION {
        return Ok(frame.clone());
    }
    if version > VERSION_MAX {
        return Err(WireError::Version { api: crate::api::API_VERSIONS, version });
    }
    let flexible = version >= 3;
    let count = read.length(flexible, true)?.unwrap_or(0);
    let (mut kept, mut rows) = (0, Vec::with_capacity(frame.len()));
    for _ in 0..count {
        let (key, min, max) = (read.i16()?, read.i16()?, read.i16()?);
        if flexible {
            skip_tags(&mut read)?;
        }
        let Some((min, max)) = allow(key, min, max) else {
            continue;
        };
        kept += 1;
        for part in [key, min, max] {
            rows.extend_from_slice(&part.to_be_bytes());
        }
        if flexible {
            rows.push(0);
        }
    }
    let mut out = Vec::with_capacity(frame.len());
    out.extend_from_slice(&frame[..6]);
    put_length(&mut out, flexible, true, Some(kept));
    out.extend_from_slice(&rows);
    out.extend_from_slice(&frame[read.pos()..]);
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_keys_go_and_ranges_shrink() {
        let frame = Bytes::from_static(&[
            0, 0, 0, 9, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 13, 0, 3, 0, 0, 0, 13, 0, 0, 0, 0,
        ]);
        let only_produce = |key, min, _| (key == 0).then_some((min, 5));
        let out = limit(&frame, 1, only_produce).expect("an answer");
        assert_eq!(out.as_ref(), [0, 0, 0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]);
    }
}
