//! The PROXY protocol, versions 1 and 2: what a load balancer writes in front of a connection.
//!
//! prefix -> how many bytes are still to come -> header -> where the client is.
//! Invariant: a header is at most [`HEADER_BYTES_MAX`] long, and nothing behind it is asked for.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes that every header has: enough to tell the versions apart.
pub const PREFIX_BYTES: usize = 12;
/// Longest header that is taken: addresses and a few kilobytes of extensions.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Longest header of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;

const SIGNATURE: &[u8; PREFIX_BYTES] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8] = b"PROXY ";

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header: {0}")]
pub struct HeaderError(pub &'static str);

/// What the bytes so far ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Exactly so many more bytes.
    More(usize),
    /// This was all. The client's address; `None`: the connection is the balancer's own, or of a
    /// kind that has no address.
    Done(Option<SocketAddr>),
}

/// Whether bytes begin like a header.
pub fn is_begun(bytes: &[u8]) -> bool {
    bytes.len() >= WORD.len() && (bytes.starts_with(WORD) || SIGNATURE.starts_with(bytes))
        || bytes.starts_with(SIGNATURE)
}

/// Looks at all bytes of a connection read so far.
pub fn read(bytes: &[u8]) -> Result<Read, HeaderError> {
    if bytes.len() < PREFIX_BYTES {
        return Ok(Read::More(PREFIX_BYTES - bytes.len()));
    }
    if bytes.starts_with(SIGNATURE) {
        return binary(bytes);
    }
    if bytes.starts_with(WORD) {
        return line(bytes);
    }
    Err(HeaderError("another protocol"))
}

/// Version 1: a line of text.
fn line(bytes: &[u8]) -> Result<Read, HeaderError> {
    if bytes.len() > LINE_BYTES_MAX {
        return Err(HeaderError("a line without end"));
    }
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        let cr = bytes.iter().position(|byte| *byte == b'\r');
        return match cr {
            Some(at) if at + 1 < bytes.len() => Err(HeaderError("a line that ends otherwise")),
            _ if bytes.len() == LINE_BYTES_MAX => Err(HeaderError("a line without end")),
            // An end has two bytes; one that began has one left.
            Some(_) => Ok(Read::More(1)),
            None if bytes.len() + 1 == LINE_BYTES_MAX => Ok(Read::More(1)),
            None => Ok(Read::More(2)),
        };
    };
    let text = std::str::from_utf8(text).map_err(|_| HeaderError("not ASCII"))?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Read::Done(None));
    }
    let (Some(from), Some(to), Some(port), Some(to_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeaderError("not four fields"));
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = plain && (text == "0" || !text.starts_with('0'));
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    match (address(from), address(to), number(port), number(to_port)) {
        (Some(from), Some(_), Some(port), Some(_)) => Ok(Read::Done(Some((from, port).into()))),
        _ => Err(HeaderError("no addresses")),
    }
}

/// Version 2: signature, command, family, length, addresses, extensions.
fn binary(bytes: &[u8]) -> Result<Read, HeaderError> {
    let Some(head) = bytes.get(PREFIX_BYTES..PREFIX_BYTES + 4) else {
        return Ok(Read::More(PREFIX_BYTES + 4 - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let own = match head[0] {
        0x20 => true,
        0x21 => false,
        byte if byte >> 4 != 2 => return Err(HeaderError("another version")),
        _ => return Err(HeaderError("an unknown command")),
    };
    let end = PREFIX_BYTES + 4 + length;
    if end > HEADER_BYTES_MAX {
        return Err(HeaderError("too long"));
    }
    if bytes.len() < end {
        return Ok(Read::More(end - bytes.len()));
    }
    if bytes.len() > end {
        return Err(HeaderError("read too far"));
    }
    if own {
        return Ok(Read::Done(None));
    }
    let rest = &bytes[PREFIX_BYTES + 4..];
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let found = match head[1] {
        // TCP over IPv4, then over IPv6.
        0x11 => rest.get(..12).and_then(|all| {
            let from: [u8; 4] = *all.first_chunk()?;
            Some(SocketAddr::from((from, port(8)?)))
        }),
        0x21 => rest.get(..36).and_then(|all| {
            let from: [u8; 16] = *all.first_chunk()?;
            Some(SocketAddr::from((from, port(32)?)))
        }),
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Ok(Read::Done(None)),
        _ => return Err(HeaderError("an unknown family")),
    };
    found.map(|from| Read::Done(Some(from))).ok_or(HeaderError("no addresses"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as a socket would: only what was asked for.
    fn fed(all: &[u8]) -> Result<(Option<SocketAddr>, usize), HeaderError> {
        let mut at = 0;
        loop {
            match read(&all[..at])? {
                Read::Done(from) => return Ok((from, at)),
                Read::More(n) if at + n <= all.len() => at += n,
                Read::More(_) => return Err(HeaderError("cut")),
            }
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    #[test]
    fn lines_are_read_to_their_end_and_no_further() {
        for (line, from) in [
            ("PROXY TCP4 10.1.2.3 10.0.0.1 56324 9092\r\n", Some("10.1.2.3:56324")),
            ("PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", Some("[2001:db8::7]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f:f:f:f:f:f:f ::1 1 2\r\n", None),
        ] {
            let from = from.map(|text| text.parse().expect("an address"));
            for behind in ["", "\0\0\0", "\r\n\r\n"] {
                let all = format!("{line}{behind}");
                assert_eq!(fed(all.as_bytes()), Ok((from, line.len())), "{all:?}");
            }
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 16));
        assert_eq!(fed(long.as_bytes()), Ok((None, LINE_BYTES_MAX)));
        for bad in [
            "PROXY TCP4 10.1.2.3 10.0.0.1 56324\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 56324 9092 1\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 10.1.2.3 10.0.0.1 1 2\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 65536 1\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 +1 1\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 01 1\r\n",
            "PROXY TCP4 10.01.2.3 10.0.0.1 1 1\r\n",
            "PROXY UDP4 10.1.2.3 10.0.0.1 1 1\r\n",
            "PROXY TCP4  10.1.2.3 10.0.0.1 1 1\r\n",
            "PROXY TCP4 10.1.2.3 10.0.0.1 1 1\n",
            "PROXY TCP4 10.1.2.3\r10.0.0.1 1 1\r\n",
            "PROXY  TCP4 10.1.2.3 10.0.0.1 1 1\r\n",
            "proxy TCP4 10.1.2.3 10.0.0.1 1 1\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(fed(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX));
        assert!(fed(endless.as_bytes()).is_err());
    }

    #[test]
    fn binary_headers_are_read_to_their_end_and_no_further() {
        let v4 = [&[10, 1, 2, 3, 10, 0, 0, 1][..], &56324_u16.to_be_bytes(), &[0, 1]].concat();
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 9;
        let more = [&v4[..], &[4, 0, 2, 7, 7]].concat();
        for (header, from) in [
            (v2(0x21, 0x11, &v4), Some("10.1.2.3:56324")),
            (v2(0x21, 0x11, &more), Some("10.1.2.3:56324")),
            (v2(0x21, 0x21, &v6), Some("[::1]:9")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x31, &[7; 216]), None),
        ] {
            let from = from.map(|text| text.parse().expect("an address"));
            let all = [&header[..], b"behind"].concat();
            assert_eq!(fed(&all), Ok((from, header.len())), "{header:?}");
        }
        let long = vec![0; HEADER_BYTES_MAX - PREFIX_BYTES - 3];
        for (bad, why) in [
            (v2(0x11, 0x11, &v4), "another version"),
            (v2(0x22, 0x11, &v4), "an unknown command"),
            (v2(0x21, 0x13, &v4), "an unknown family"),
            (v2(0x21, 0x11, &v4[..11]), "no addresses"),
            (v2(0x21, 0x21, &v4), "no addresses"),
            (v2(0x21, 0x11, &long), "too long"),
            (v2(0x21, 0x11, &v4)[..20].to_vec(), "cut"),
        ] {
            assert_eq!(fed(&bad), Err(HeaderError(why)));
        }
    }

    #[test]
    fn a_header_is_known_by_its_begin() {
        assert!(is_begun(b"PROXY TCP4") && is_begun(SIGNATURE) && is_begun(&SIGNATURE[..8]));
        assert!(!is_begun(b"\0\0\0\x20\0\x12") && !is_begun(b"\r\n") && !is_begun(b""));
    }

    proptest! {
        /// Whatever comes: an answer, never more than the bound, never nothing.
        #[test]
        fn every_byte_string_ends(tail: Vec<u8>, kind in 0..3_usize) {
            let begin = [&b""[..], SIGNATURE, b"PROXY TCP4 1"][kind];
            let all = [begin, &tail].concat();
            let mut at = 0;
            while let Ok(Read::More(n)) = read(&all[..at]) {
                prop_assert!(n > 0 && at + n <= HEADER_BYTES_MAX);
                at += n;
                if at > all.len() {
                    break;
                }
            }
        }
    }
}
