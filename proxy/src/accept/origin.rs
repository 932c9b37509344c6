//! Where a client really is, if it comes through a load balancer that says so (PROXY protocol).
//!
//! accepted -> header, exactly its bytes, within a time -> the client's address.
//! Invariant: only balancers of the configuration are believed, and from them a header must come.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use protocol_ext::proxy_header::{HEADER_BYTES_MAX, HeaderError, Read, read};
use tokio::io::AsyncReadExt;

use crate::error::ConnectionError;
use crate::fault;
use crate::net::Tcp;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    first: IpAddr,
    bits: u8,
}

impl Net {
    /// Reads `ADDRESS` or `ADDRESS/BITS`; bits behind must be 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first: IpAddr = address.parse().ok()?;
        let all = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok()).filter(|bits| *bits <= all)?;
        let net = Self { first, bits };
        (net.prefix(first) == number(first)).then_some(net)
    }

    /// Whether an address lies in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.first.is_ipv4() == address.is_ipv4() && self.prefix(address) == self.prefix(self.first)
    }

    fn prefix(&self, address: IpAddr) -> u128 {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
        number(address) & mask
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.first, self.bits)
    }
}

/// The address as a number, left in 128 bits.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Whether a header must come from there.
pub fn is_balancer(balancers: &[Net], peer: SocketAddr) -> bool {
    balancers.iter().any(|net| net.holds(peer.ip()))
        || !balancers.is_empty() && fault::on("any-header-believed")
}

/// Reads the header in front of a connection: the address of the client, or of the balancer `peer`
/// if the connection is its own.
pub async fn read_from(
    stream: &mut Tcp,
    peer: SocketAddr,
    limit: Duration,
) -> Result<SocketAddr, ConnectionError> {
    let header = async {
        let mut header = [0; HEADER_BYTES_MAX];
        let mut at = 0;
        loop {
            match read(&header[..at]).map_err(ConnectionError::ProxyHeader)? {
                Read::Done(from) => return Ok(from.map_or(peer, canonical)),
                Read::More(n) => {
                    let room = header.get_mut(at..at + n).ok_or(TOO_LONG)?;
                    let read = stream.read_exact(room).await;
                    read.map_err(|error| ConnectionError::ClientIo(left(at, error)))?;
                    at += n;
                }
            }
        }
    };
    // The buffer is as large as the longest header.
    match tokio::time::timeout(limit, Box::pin(header)).await {
        Ok(read) => read,
        Err(_) => Err(ConnectionError::SlowHandshake(limit)),
    }
}

/// A balancer that looks whether the port is open connects and says nothing: it only hung up.
fn left(at: usize, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof if at == 0 => io::ErrorKind::ConnectionReset.into(),
        _ => error,
    }
}

const TOO_LONG: ConnectionError = ConnectionError::ProxyHeader(HeaderError("too long"));

/// IPv4 in IPv6 is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_holds_its_addresses_and_no_other() {
        let holds = |net: &str, address: &str| {
            let net = Net::parse(net).expect("a net");
            net.holds(address.parse().expect("an address"))
        };
        for (net, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1"),
            ("10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("::/0", "::1"),
        ] {
            assert!(holds(net, address), "{address} in {net}");
        }
        for (net, address) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "1.2.3.4"),
            ("2001:db8::/32", "2001:db9::1"),
        ] {
            assert!(!holds(net, address), "{address} in {net}");
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "x", "10.0.0.0/"] {
            assert_eq!(Net::parse(bad), None, "{bad}");
        }
    }
}
