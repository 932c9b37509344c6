//! A broker that costs next to nothing: every answer is made once and stamped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use firebreak_benches::error::{BenchError, Result};
use firebreak_benches::wire::{FETCH, PRODUCE};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiVersionsResponse, FetchResponse, MetadataResponse, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// The only topic.
pub const TOPIC: &str = "crowd";
/// Its leader.
pub const NODE: u16 = 1;
/// Records of every Fetch answer: more than all buffers on the way hold.
pub const FETCHED_BYTES: usize = 8 << 20;
const API_VERSIONS: (i16, i16) = (18, 3);
const METADATA: (i16, i16) = (3, 12);
/// All slow readers come at once.
const BACKLOG: u32 = 4096;
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The broker as a process.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts this binary as a broker.
    pub fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("broker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let address = line.trim().parse();
        let address = address.map_err(|_| BenchError::Wire("the broker gave no address"))?;
        Ok(Self { child, address })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers of each API, from behind the correlation id.
struct Answers {
    versions: Bytes,
    metadata: Bytes,
    produce: Bytes,
    fetch: Bytes,
}

/// Runs as a broker until standard input ends.
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 2], 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        println!("{address}");
        io::stdout().flush()?;
        let accepting = accept(listener, Arc::new(Answers::new(address)?));
        let ended = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            done = accepting => done,
            _ = ended => Ok(()),
        }
    })
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let answers = answers.clone();
        connections.spawn(async move { answer_all(stream, &answers).await });
        while connections.try_join_next().is_some() {}
    }
}

/// Until the peer closes.
async fn answer_all(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut frame = BytesMut::new();
    loop {
        let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
        if !(8..=FRAME_BYTES_MAX).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        frame.resize(length, 0);
        stream.read_exact(&mut frame).await?;
        let rest = match i16::from_be_bytes([frame[0], frame[1]]) {
            0 => &answers.produce,
            1 => &answers.fetch,
            3 => &answers.metadata,
            18 => &answers.versions,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let length = u32::try_from(4 + rest.len()).unwrap_or(u32::MAX);
        let mut head = BytesMut::with_capacity(WHOLE_BYTES_MAX);
        head.extend_from_slice(&length.to_be_bytes());
        head.extend_from_slice(&frame[4..8]);
        if rest.len() + 8 <= WHOLE_BYTES_MAX {
            head.extend_from_slice(rest);
            stream.write_all(&head).await?;
        } else {
            stream.write_all(&head).await?;
            stream.write_all(rest).await?;
        }
    }
}

/// A shorter answer is written at once.
const WHOLE_BYTES_MAX: usize = 512;

impl Answers {
    fn new(address: SocketAddr) -> Result<Self> {
        let row = |key: i16, min: i16, max: i16| {
            ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
        };
        let rows = vec![row(0, 3, PRODUCE), row(1, 4, FETCH), row(3, 0, 12), row(18, 0, 3)];
        let broker = MetadataResponseBroker::default()
            .with_node_id(i32::from(NODE).into())
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(address.port().into());
        let partition = PartitionProduceResponse::default();
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partition_responses(vec![partition]);
        let fetched =
            PartitionData::default().with_records(Some(Bytes::from(vec![0; FETCHED_BYTES])));
        let fetched = FetchableTopicResponse::default().with_partitions(vec![fetched]);
        Ok(Self {
            versions: body(API_VERSIONS, &ApiVersionsResponse::default().with_api_keys(rows))?,
            metadata: body(METADATA, &MetadataResponse::default().with_brokers(vec![broker]))?,
            produce: body((0, PRODUCE), &ProduceResponse::default().with_responses(vec![topic]))?,
            fetch: body((1, FETCH), &FetchResponse::default().with_responses(vec![fetched]))?,
        })
    }
}

/// An answer from behind its correlation id; that of ApiVersions has no tags in its head.
fn body(api: (i16, i16), answer: &impl Encodable) -> Result<Bytes> {
    let mut out = BytesMut::new();
    if api.0 != API_VERSIONS.0 {
        out.extend_from_slice(&[0]);
    }
    let encoded = answer.encode(&mut out, api.1);
    encoded.map_err(|error| BenchError::Codec(error.to_string()))?;
    Ok(out.freeze())
}
