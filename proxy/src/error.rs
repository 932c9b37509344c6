//! Why a connection ends before its client wanted it to.

use std::io;

use protocol_ext::proxy_header::HeaderError;
use protocol_ext::wire::WireError;

use crate::filters::offload::STORAGE_ERROR;
use crate::metrics::Side;

/// Whose fault an error is: decides the metric label and the log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client sent what no broker accepts.
    Client,
    /// A broker or the way to it failed.
    Upstream,
    /// The proxy itself.
    Ours,
}

/// What ended a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Not Kafka's protocol at all.
    #[error("client speaks {0}, not the Kafka protocol, to a plaintext port")]
    NotKafka(&'static str),
    /// No TLS on a port that wants it.
    #[error("client speaks {0} to a TLS port")]
    NotTls(&'static str),
    /// No PROXY header from a load balancer that must send one.
    #[error("{0}, from a load balancer of listen.proxy_protocol_from")]
    ProxyHeader(HeaderError),
    /// A TLS handshake that failed.
    #[error("TLS handshake with the client: {0}")]
    Tls(io::Error),
    /// A TLS handshake, SASL exchange or PROXY header that took too long.
    #[error("no TLS handshake, login or PROXY header within {0:?}")]
    SlowHandshake(std::time::Duration),
    /// A client that did not prove who it is.
    #[error("authentication: {0}")]
    Authentication(String),
    /// A request of a client that must prove who it is first.
    #[error("request for {name} (api key {api}) before authentication: the client has no SASL")]
    Unproven {
        /// Name of the API, if known.
        name: &'static str,
        /// API key.
        api: i16,
    },
    /// A request behind the end of a session.
    #[error("the session is over and was not renewed (KIP-368)")]
    SessionOver,
    /// A host name that stands for no broker.
    #[error("client asked for the host {0}, which is no name of this proxy (listen.sni)")]
    NoSuchName(String),
    /// A request frame of impossible length.
    #[error("request of {length} bytes, limit is {limit}")]
    FrameLength {
        /// Length as sent.
        length: i32,
        /// Largest length taken.
        limit: usize,
    },
    /// A request for an API or version that clients are not offered.
    #[error("request for {name} (api key {api}) version {version}, which is not offered")]
    NotOffered {
        /// Name of the API, if known.
        name: &'static str,
        /// API key.
        api: i16,
        /// Version.
        version: i16,
    },
    /// A request that cannot be read.
    #[error("request of {name}: {error}")]
    Request {
        /// Name of the API.
        name: &'static str,
        /// What is wrong.
        error: WireError,
    },
    /// A response that cannot be read, or that nobody asked for.
    #[error("response of {name}: {error}")]
    Response {
        /// Name of the API.
        name: &'static str,
        /// What is wrong.
        error: WireError,
    },
    /// A broker answered out of turn.
    #[error("broker answered request {got} where {want} was due")]
    Order {
        /// Correlation id that was due.
        want: i32,
        /// Correlation id in the answer.
        got: i32,
    },
    /// A broker sent bytes with no request open.
    #[error("broker sent bytes that nobody asked for")]
    Unasked,
    /// A response frame of impossible length.
    #[error("response of {name} of {length} bytes, limit is {limit}")]
    ResponseLength {
        /// Name of the API.
        name: &'static str,
        /// Length as sent.
        length: i32,
        /// Largest length taken.
        limit: usize,
    },
    /// A response with records of a topic that no broker tells the name of.
    #[error("response of {0} with records of a topic that no broker tells the name of")]
    Nameless(&'static str),
    /// No broker to stand behind this virtual broker.
    #[error("cannot connect to {node}: {error}")]
    Unreachable {
        /// Which one, for people.
        node: String,
        /// The last error.
        error: io::Error,
    },
    /// The client's socket failed.
    #[error("client connection: {0}")]
    ClientIo(io::Error),
    /// The broker's socket failed.
    #[error("broker connection: {0}")]
    BrokerIo(io::Error),
    /// Silence where a request was due.
    #[error("no request within {0:?} of connecting")]
    Silent(std::time::Duration),
    /// A request that does not get on.
    #[error("request without progress for {0:?}")]
    SlowFrame(std::time::Duration),
    /// A response that does not get on.
    #[error("response without progress for {0:?}")]
    SlowAnswer(std::time::Duration),
    /// A peer that keeps room of a byte budget from others.
    #[error(
        "{} moved {moved} bytes in {time:?} of a frame that holds {held} bytes of \
         limits.buffered_bytes_max", side.name()
    )]
    Stalled {
        /// Who was waited for.
        side: Side,
        /// Bytes held.
        held: usize,
        /// Bytes that moved.
        moved: u64,
        /// In this time.
        time: std::time::Duration,
    },
    /// There are too many clients: the limit that says so.
    #[error("connection refused: {0} reached")]
    Full(&'static str),
    /// A Produce request that is refused with this code and asks for no answer, or leaves more
    /// batches to come again than are kept in mind: as of a broker, the closed connection tells.
    #[error("Produce is refused (error {0}), and only a closed connection can tell")]
    Refused(i16),
    /// A filter or leg failed in a way that has no answer.
    #[error("{0}")]
    Filter(String),
}

impl ConnectionError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotKafka(_)
            | Self::NotTls(_)
            | Self::ProxyHeader(_)
            | Self::Tls(_)
            | Self::SlowHandshake(_)
            | Self::NoSuchName(_)
            | Self::Authentication(_)
            | Self::Unproven { .. }
            | Self::SessionOver
            | Self::FrameLength { .. }
            | Self::NotOffered { .. }
            | Self::Request { .. }
            | Self::ClientIo(_)
            | Self::Silent(_)
            | Self::SlowFrame(_)
            | Self::Stalled { side: Side::Client, .. }
            | Self::Full(_) => Blame::Client,
            Self::Response { .. }
            | Self::Order { .. }
            | Self::Unasked
            | Self::ResponseLength { .. }
            | Self::Nameless(_)
            | Self::Unreachable { .. }
            | Self::SlowAnswer(_)
            | Self::Stalled { side: Side::Broker, .. }
            | Self::BrokerIo(_) => Blame::Upstream,
            Self::Refused(STORAGE_ERROR) | Self::Filter(_) => Blame::Ours,
            Self::Refused(_) => Blame::Client,
        }
    }

    /// A short name, for the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotKafka(_) => "not_kafka",
            Self::NotTls(_) => "not_tls",
            Self::ProxyHeader(_) => "proxy_header",
            Self::Tls(_) => "tls",
            Self::SlowHandshake(_) => "slow_handshake",
            Self::NoSuchName(_) => "no_such_name",
            Self::Authentication(_) => "authentication",
            Self::Unproven { .. } => "unproven",
            Self::SessionOver => "session_over",
            Self::FrameLength { .. } => "frame_length",
            Self::NotOffered { .. } => "not_offered",
            Self::Request { .. } => "request",
            Self::Response { .. } => "response",
            Self::Order { .. } => "order",
            Self::Unasked => "unasked",
            Self::ResponseLength { .. } => "response_length",
            Self::Nameless(_) => "nameless",
            Self::Unreachable { .. } => "unreachable",
            Self::ClientIo(_) => "client_io",
            Self::BrokerIo(_) => "broker_io",
            Self::Silent(_) => "silent",
            Self::SlowFrame(_) => "slow_frame",
            Self::SlowAnswer(_) => "slow_answer",
            Self::Stalled { .. } => "stalled",
            Self::Full(_) => "full",
            Self::Refused(_) => "refused",
            Self::Filter(_) => "filter",
        }
    }

    /// Whether it is about a request, and not about a peer or the proxy: answers to those before it
    /// are still owed.
    pub fn is_of_request(&self) -> bool {
        matches!(
            self,
            Self::NotKafka(_)
                | Self::Authentication(_)
                | Self::SessionOver
                | Self::FrameLength { .. }
                | Self::NotOffered { .. }
                | Self::Request { .. }
                | Self::Refused(_)
        )
    }

    /// Whether the peer just went away, which is not worth a line.
    pub fn is_hang_up(&self) -> bool {
        let (Self::ClientIo(error) | Self::BrokerIo(error)) = self else {
            return false;
        };
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
        )
    }
}
