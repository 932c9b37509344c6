//! TLS to clients and to brokers: rustls with ring, certificates renewed when their files change.
//!
//! client: first bytes -> hello -> handshake -> stream; broker: handshake -> stream.
//! Invariant: a session keeps the certificates that it began with; a new one gets those in force.

pub mod files;

use std::io;
use std::sync::Arc;

use protocol_ext::proxy_header;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::buffer::Pool;
use crate::error::ConnectionError;
use crate::net::Tcp;
use crate::stream::Stream;
use crate::stream::read_ahead::ReadAhead;
use crate::watched::Watched;

/// Certificates shown to clients, and what is asked of theirs.
pub type Server = Watched<ServerConfig>;
/// What is asked of brokers' certificates, and the proxy's own.
pub type Client = Watched<ClientConfig>;

/// First byte of a TLS handshake record.
const HANDSHAKE: u8 = 0x16;

/// Does the handshake with a client; the caller bounds its time. `door` says where the host name of
/// the handshake (SNI, in lower case) leads; a name that leads nowhere costs no handshake.
pub async fn accept<D>(
    server: &Server,
    tcp: Tcp,
    pool: &Pool,
    door: impl FnOnce(Option<&str>) -> Option<D>,
) -> Result<(Stream, D), ConnectionError> {
    let mut first = [0; 12];
    let peeked = tcp.peek(&mut first).await.map_err(ConnectionError::ClientIo)?;
    if peeked == 0 {
        return Err(ConnectionError::ClientIo(io::ErrorKind::ConnectionReset.into()));
    }
    if first[0] != HANDSHAKE {
        return Err(ConnectionError::NotTls(plain_name(&first[..peeked])));
    }
    let failed = |error: io::Error| match error.kind() {
        // The peer hung up, which is not worth a line.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ConnectionError::ClientIo(error)
        }
        _ => ConnectionError::Tls(error),
    };
    let tcp = ReadAhead::new(tcp, pool);
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
    let hello = hello.await.map_err(failed)?;
    let name = hello.client_hello().server_name().map(str::to_ascii_lowercase);
    let Some(door) = door(name.as_deref()) else {
        return Err(ConnectionError::NoSuchName(name.unwrap_or_else(|| "(none)".to_owned())));
    };
    let tls = hello.into_stream(server.get()).await.map_err(failed)?;
    Ok((Stream::Tls(Box::new(tls.into())), door))
}

/// What a client that does not speak TLS seems to speak.
fn plain_name(first: &[u8]) -> &'static str {
    match first {
        first if proxy_header::is_begun(first) => "the PROXY protocol",
        // A frame shorter than 16 MiB.
        [0, ..] => "Kafka without TLS",
        [b'A'..=b'Z', ..] => "HTTP without TLS",
        _ => "no TLS",
    }
}

/// Does the handshake with the broker that is known as `host`.
pub async fn connect(client: &Client, host: &str, tcp: Tcp, pool: &Pool) -> io::Result<Stream> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a name TLS can check"))?;
    let tcp = ReadAhead::new(tcp, pool);
    let tls = TlsConnector::from(client.get()).connect(name, tcp).await;
    let tls = tls.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?;
    Ok(Stream::Tls(Box::new(tls.into())))
}

/// The one provider of ciphers.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
