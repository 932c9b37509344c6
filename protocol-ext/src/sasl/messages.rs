//! SaslHandshake and SaslAuthenticate: the frames around SASL's tokens.
//!
//! Requests are read where the proxy is the server, answers where it is the client.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api;
use crate::header::{self, Head, skip_tags};
use crate::reply;
use crate::wire::{Reader, WireError};

/// UNSUPPORTED_SASL_MECHANISM.
pub const UNSUPPORTED_MECHANISM: i16 = 33;
/// ILLEGAL_SASL_STATE.
pub const ILLEGAL_STATE: i16 = 34;
/// SASL_AUTHENTICATION_FAILED.
pub const FAILED: i16 = 58;

/// The mechanism that a SaslHandshake request asks for.
pub fn handshake(head: Head, frame: &[u8]) -> Result<&str, WireError> {
    let mut read = Reader::new(frame, header::request_body_at(head, frame)?);
    let name = read.bytes(false, false)?.unwrap_or_default();
    std::str::from_utf8(name).map_err(|_| wrong(head))
}

/// The token of a SaslAuthenticate request.
pub fn authenticate(head: Head, frame: &[u8]) -> Result<&[u8], WireError> {
    let flexible = api::is_flexible(head.api, head.version);
    let mut read = Reader::new(frame, header::request_body_at(head, frame)?);
    read.bytes(flexible, true)?.ok_or_else(|| wrong(head))
}

fn wrong(head: Head) -> WireError {
    WireError::Body { api: head.api, version: head.version }
}

/// The answer to a SaslHandshake request.
pub fn handshake_answer(head: Head, code: i16, names: &[&'static str]) -> Result<Bytes, WireError> {
    let names = names.iter().map(|name| StrBytes::from_static_str(name)).collect();
    let answer = SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(names);
    reply::frame(head, &answer)
}

/// The answer to a SaslAuthenticate request that was good. `lifetime` counts with the last one.
pub fn token_answer(head: Head, token: Bytes, lifetime: Duration) -> Result<Bytes, WireError> {
    let ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    let answer = SaslAuthenticateResponse::default().with_auth_bytes(token);
    reply::frame(head, &answer.with_session_lifetime_ms(if head.version > 0 { ms } else { 0 }))
}

/// The answer to a SaslAuthenticate request that was not.
pub fn refusal(head: Head, code: i16, why: String) -> Result<Bytes, WireError> {
    let why = Some(StrBytes::from_string(why));
    let answer = SaslAuthenticateResponse::default().with_error_code(code).with_error_message(why);
    reply::frame(head, &answer)
}

/// The code in an answer's body to a SaslHandshake request, and the mechanisms in it.
pub fn read_handshake(body: &[u8]) -> Result<(i16, Vec<String>), WireError> {
    let mut read = Reader::new(body, 0);
    let code = read.i16()?;
    let mut names = Vec::new();
    for _ in 0..read.length(false, true)?.unwrap_or(0) {
        let name = read.bytes(false, false)?.unwrap_or_default();
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok((code, names))
}

/// What a server answered to a SaslAuthenticate request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Error code.
    pub code: i16,
    /// What the server says about it.
    pub message: String,
    /// The server's token.
    pub token: Vec<u8>,
    /// Time after which the session must be renewed (KIP-368); zero: never.
    pub lifetime: Duration,
}

/// Reads the body of an answer to SaslAuthenticate.
pub fn read_answer(version: i16, body: &[u8]) -> Result<Answered, WireError> {
    let flexible = api::is_flexible(api::SASL_AUTHENTICATE, version);
    let mut read = Reader::new(body, 0);
    let code = read.i16()?;
    let message = read.bytes(flexible, false)?.unwrap_or_default();
    let token = read.bytes(flexible, true)?.unwrap_or_default();
    let ms = if version > 0 { read.i64()? } else { 0 };
    if flexible {
        skip_tags(&mut read)?;
    }
    Ok(Answered {
        code,
        message: String::from_utf8_lossy(message).into_owned(),
        token: token.to_vec(),
        lifetime: Duration::from_millis(u64::try_from(ms).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::{RequestHeader, SaslAuthenticateRequest, SaslHandshakeRequest};
    use kafka_protocol::protocol::{Encodable, HeaderVersion};

    use super::*;

    fn framed<Q: Encodable + HeaderVersion>(key: i16, version: i16, body: &Q) -> (Head, Bytes) {
        let header = RequestHeader::default().with_request_api_key(key).with_correlation_id(7);
        let header = header.with_request_api_version(version);
        let mut out = BytesMut::new();
        header.encode(&mut out, Q::header_version(version)).expect("a header");
        body.encode(&mut out, version).expect("a body");
        let head = Head { api: key, version, correlation: 7 };
        (head, out.freeze())
    }

    #[test]
    fn requests_of_every_version_are_read_and_cut_ones_refused() {
        for version in 0..=1 {
            let name = StrBytes::from_static_str("PLAIN");
            let (head, frame) =
                framed(17, version, &SaslHandshakeRequest::default().with_mechanism(name));
            assert_eq!(handshake(head, &frame), Ok("PLAIN"));
            assert!(handshake(head, &frame[..frame.len() - 1]).is_err());
        }
        for version in 0..=2 {
            let token = Bytes::from_static(b"token");
            let request = SaslAuthenticateRequest::default().with_auth_bytes(token);
            let (head, frame) = framed(36, version, &request);
            assert_eq!(authenticate(head, &frame), Ok(&b"token"[..]));
            assert!(authenticate(head, &frame[..frame.len() - 3]).is_err());
        }
    }

    #[test]
    fn answers_of_every_version_are_read_as_they_are_written() {
        for version in 0..=2 {
            let head = Head { api: 36, version, correlation: 7 };
            let minute = Duration::from_secs(60);
            let frame = token_answer(head, Bytes::from_static(b"token"), minute).expect("written");
            let at = header::response_body_at(36, version, &frame).expect("a header");
            let read = read_answer(version, &frame[at..]).expect("read");
            assert_eq!((read.code, read.token.as_slice()), (0, &b"token"[..]));
            assert_eq!(read.lifetime, if version == 0 { Duration::ZERO } else { minute });
            let frame = refusal(head, FAILED, "no".to_owned()).expect("written");
            let read = read_answer(version, &frame[at..]).expect("read");
            assert_eq!((read.code, read.message.as_str()), (FAILED, "no"));
        }
        let head = Head { api: 17, version: 1, correlation: 7 };
        let mut expected = BytesMut::new();
        expected.put_i32(7);
        expected.put_slice(&[0, 33, 0, 0, 0, 1, 0, 5]);
        expected.put_slice(b"PLAIN");
        let frame = handshake_answer(head, UNSUPPORTED_MECHANISM, &["PLAIN"]).expect("written");
        assert_eq!(frame, expected.freeze());
        assert_eq!(read_handshake(&frame[4..]), Ok((33, vec!["PLAIN".to_owned()])));
    }
}
