//! Request and response headers.
//!
//! A request starts with api key, version, correlation id and (since header version 1) the client
//! id; flexible versions add tags. A response starts with the correlation id; flexible versions
//! add tags, ApiVersions never does (KIP-511).

use crate::api;
use crate::wire::{Reader, WireError};

/// Bytes of a request frame, behind the length, that every request has: key, version, correlation.
pub const HEAD_BYTES: usize = 8;

/// The fixed start of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// API key.
    pub api: i16,
    /// Version of the API.
    pub version: i16,
    /// The client's correlation id.
    pub correlation: i32,
}

impl Head {
    /// Reads the head of a request frame (without its length).
    pub fn parse(frame: &[u8]) -> Result<Self, WireError> {
        let mut read = Reader::new(frame, 0);
        Ok(Self { api: read.i16()?, version: read.i16()?, correlation: read.i32()? })
    }
}

/// Offset of a request's body: behind client id and header tags.
pub fn request_body_at(head: Head, frame: &[u8]) -> Result<usize, WireError> {
    let mut read = Reader::new(frame, HEAD_BYTES);
    read.bytes(false, false)?;
    if api::is_flexible(head.api, head.version) {
        skip_tags(&mut read)?;
    }
    Ok(read.pos())
}

/// The client id of a request; empty if it is null, absent or not UTF-8.
pub fn client_id(frame: &[u8]) -> &str {
    let id = Reader::new(frame, HEAD_BYTES).bytes(false, false).ok().flatten();
    id.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
}

/// Offset of a response's body: behind correlation id and header tags.
pub fn response_body_at(api: i16, version: i16, frame: &[u8]) -> Result<usize, WireError> {
    let mut read = Reader::new(frame, 0);
    read.i32()?;
    if api != api::API_VERSIONS && api::is_flexible(api, version) {
        skip_tags(&mut read)?;
    }
    Ok(read.pos())
}

/// Skips a section of tagged fields.
pub fn skip_tags(read: &mut Reader<'_>) -> Result<(), WireError> {
    for _ in 0..read.uvarint()? {
        read.uvarint()?;
        let size = read.uvarint()?;
        read.take(size as usize)?;
    }
    Ok(())
}
