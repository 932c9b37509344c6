//! A raw client: sends what it is told, reads frames, decodes with the codec crate.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Checked, QUIET, failure, within};

/// A socket, plain or in TLS.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Socket for S {}

/// A connection to the proxy.
#[derive(Debug)]
pub struct Client {
    stream: Box<dyn Socket>,
    correlation: i32,
}

impl Client {
    /// Connects to a port of the proxy.
    pub async fn connect(port: u16) -> Checked<Self> {
        Self::connect_to(&format!("127.0.0.1:{port}")).await
    }

    /// The same to an address, as that of a broker.
    pub async fn connect_to(address: &str) -> Checked<Self> {
        let stream = within("connect", TcpStream::connect(address)).await?;
        let stream = stream.map_err(failure)?;
        stream.set_nodelay(true).map_err(failure)?;
        Ok(Self { stream: Box::new(stream), correlation: 100 })
    }

    /// Connects from this loopback address.
    pub async fn connect_from(last: u8, port: u16) -> Checked<Self> {
        let socket = TcpSocket::new_v4().map_err(failure)?;
        socket.bind(([127, 0, 0, last], 0).into()).map_err(failure)?;
        let stream = within("connect", socket.connect(([127, 0, 0, 1], port).into())).await?;
        Ok(Self { stream: Box::new(stream.map_err(failure)?), correlation: 100 })
    }

    /// Connects in TLS behind a header of the PROXY protocol.
    pub async fn connect_tls_behind(
        header: &[u8],
        port: u16,
        host: &str,
        tls: &Arc<ClientConfig>,
    ) -> Checked<Self> {
        let tcp = within("connect", TcpStream::connect(("127.0.0.1", port))).await?;
        let mut tcp = tcp.map_err(failure)?;
        tcp.write_all(header).await.map_err(failure)?;
        let host = ServerName::try_from(host.to_owned()).map_err(failure)?;
        let stream = within("TLS", TlsConnector::from(tls.clone()).connect(host, tcp)).await?;
        Ok(Self { stream: Box::new(stream.map_err(failure)?), correlation: 100 })
    }

    /// Connects to a port of the proxy and speaks no TLS, even where every client does.
    pub async fn connect_plain(port: u16) -> Checked<Self> {
        Self::connect(port).await
    }

    /// Connects in TLS, to the host of this name.
    pub async fn connect_tls(port: u16, host: &str, tls: &Arc<ClientConfig>) -> Checked<Self> {
        let tcp = within("connect", TcpStream::connect(("127.0.0.1", port))).await?;
        let tcp = tcp.map_err(failure)?;
        tcp.set_nodelay(true).map_err(failure)?;
        let host = ServerName::try_from(host.to_owned()).map_err(failure)?;
        let stream = within("TLS", TlsConnector::from(tls.clone()).connect(host, tcp)).await?;
        let stream = stream.map_err(|error| failure(format!("no TLS: {error}")))?;
        Ok(Self { stream: Box::new(stream), correlation: 100 })
    }

    /// Connects with a receive buffer of this size.
    pub async fn connect_with_buffer(port: u16, bytes: u32) -> Checked<Self> {
        let socket = TcpSocket::new_v4().map_err(failure)?;
        socket.set_recv_buffer_size(bytes).map_err(failure)?;
        let connected = within("connect", socket.connect(([127, 0, 0, 1], port).into())).await?;
        Ok(Self { stream: Box::new(connected.map_err(failure)?), correlation: 100 })
    }

    /// Sends a request and gives its correlation id.
    pub async fn send<Q>(&mut self, api: i16, version: i16, request: &Q) -> Checked<i32>
    where
        Q: Encodable + HeaderVersion,
    {
        self.correlation += 1;
        let frame = request_frame(api, version, self.correlation, request);
        self.send_raw(&frame).await?;
        Ok(self.correlation)
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Checked {
        let send = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        within("send", send).await?.map_err(failure)
    }

    /// Sends bytes one by one.
    pub async fn send_slowly(&mut self, bytes: &[u8]) -> Checked {
        for byte in bytes {
            self.send_raw(&[*byte]).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) -> Checked {
        self.stream.shutdown().await.map_err(failure)
    }

    /// Reads the next frame, or the end of the stream where one may begin: no reset.
    pub async fn receive_or_end(&mut self) -> Checked<Option<Bytes>> {
        let mut first = [0; 1];
        let read = within("answer", self.stream.read(&mut first)).await?;
        match read.map_err(|error| failure(format!("no clean end: {error}")))? {
            0 => Ok(None),
            _ => self.receive_behind(&first).await.map(Some),
        }
    }

    /// Reads the next frame, without its length.
    pub async fn receive(&mut self) -> Checked<Bytes> {
        self.receive_behind(&[]).await
    }

    /// The same if its first bytes were read already.
    async fn receive_behind(&mut self, before: &[u8]) -> Checked<Bytes> {
        let read = async {
            let mut length = [0; 4];
            length[..before.len()].copy_from_slice(before);
            self.stream.read_exact(&mut length[before.len()..]).await?;
            let length = i32::from_be_bytes(length);
            let length = usize::try_from(length).map_err(std::io::Error::other)?;
            let mut frame = BytesMut::with_capacity(length);
            while frame.len() < length {
                let left = length - frame.len();
                if (&mut self.stream).take(left as u64).read_buf(&mut frame).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(frame.freeze())
        };
        let read: std::io::Result<Bytes> = within("answer", read).await?;
        read.map_err(|error| failure(format!("no answer: {error}")))
    }

    /// Reads at least `n` bytes of whatever comes.
    pub async fn receive_bytes(&mut self, n: usize) -> Checked<Bytes> {
        let mut bytes = BytesMut::new();
        let read = async {
            while bytes.len() < n {
                if self.stream.read_buf(&mut bytes).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok::<(), std::io::Error>(())
        };
        within("bytes of an answer", read).await?.map_err(failure)?;
        Ok(bytes.freeze())
    }

    /// Waits for the end of a connection on which nothing comes, and tells whether it was a reset.
    pub async fn is_reset(&mut self) -> Checked<bool> {
        match within("end of the connection", self.stream.read(&mut [0])).await? {
            Ok(0) => Ok(false),
            Ok(_) => Err(failure("bytes where a reset was due")),
            Err(error) => Ok(error.kind() == std::io::ErrorKind::ConnectionReset),
        }
    }

    /// Connects where one client too many is reset; tells whether it was. The reset may be there
    /// before the connection is.
    pub async fn is_turned_away(port: u16) -> Checked<bool> {
        match within("connect", TcpStream::connect(("127.0.0.1", port))).await? {
            Ok(stream) => Self { stream: Box::new(stream), correlation: 0 }.is_reset().await,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(failure(error)),
        }
    }

    /// Reads to the end of the stream; a reset counts as the end.
    pub async fn receive_to_end(&mut self) -> Checked<Bytes> {
        let mut bytes = BytesMut::new();
        let read = async { while matches!(self.stream.read_buf(&mut bytes).await, Ok(1..)) {} };
        within("end of the connection", read).await?;
        Ok(bytes.freeze())
    }

    /// Whether nothing comes for a while, not even the end.
    pub async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        tokio::time::timeout(QUIET, self.stream.read(&mut byte)).await.is_err()
    }

    /// Sends a request and reads its answer.
    pub async fn call<Q, A>(&mut self, api: i16, version: i16, request: &Q) -> Checked<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let correlation = self.send(api, version, request).await?;
        let frame = self.receive().await?;
        answer(&frame, version, correlation)
    }
}

/// A request frame with its length.
pub fn request_frame<Q>(api: i16, version: i16, correlation: i32, request: &Q) -> Bytes
where
    Q: Encodable + HeaderVersion,
{
    let header = RequestHeader::default()
        .with_request_api_key(api)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("it")));
    let mut out = BytesMut::new();
    out.put_i32(0);
    header.encode(&mut out, Q::header_version(version)).expect("a header");
    request.encode(&mut out, version).expect("a request of that version");
    let length = i32::try_from(out.len() - 4).expect("small");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Decodes an answer and checks that it is the one to `correlation`, whole.
pub fn answer<A>(frame: &Bytes, version: i16, correlation: i32) -> Checked<A>
where
    A: Decodable + HeaderVersion,
{
    let mut frame = frame.clone();
    let header = ResponseHeader::decode(&mut frame, A::header_version(version)).map_err(failure)?;
    if header.correlation_id != correlation {
        let got = header.correlation_id;
        return Err(failure(format!("answer to request {got} where {correlation} was due")));
    }
    let answer = A::decode(&mut frame, version).map_err(failure)?;
    match frame.remaining() {
        0 => Ok(answer),
        left => Err(failure(format!("{left} bytes behind an answer"))),
    }
}
