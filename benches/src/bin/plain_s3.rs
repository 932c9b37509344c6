//! The plain loop that offload is compared with: the same images put into a bucket or read from it
//! by the same SDK, and nothing else: as the SDK comes, or with `--lean` as Firebreak asks it.
//! Answers one line of JSON with its own CPU time, taken from behind the reading of the files to
//! the last answer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    self, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use firebreak_benches::clock::now;
use firebreak_benches::error::{BenchError, Result};
use firebreak_benches::{images, load};
use protocol_ext::batch::crc32c;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::task::JoinSet;

#[derive(Parser)]
#[command(about = "Plain PUT and GET loops with the SDK that Firebreak uses")]
struct Args {
    /// The service, with its scheme.
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    bucket: String,
    #[arg(long)]
    access_key: String,
    #[arg(long)]
    secret_key: String,
    /// The sample images.
    #[arg(long)]
    folder: PathBuf,
    /// Objects over all tasks.
    #[arg(long, default_value_t = 100)]
    values: usize,
    /// Requests under way at once.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Each value is compressed by zstd level 1 before it is put.
    #[arg(long)]
    zstd: bool,
    /// Firebreak's settings where it does not sign payloads: a CRC-32C is signed in their place,
    /// and nothing else is summed. Without: signed payloads and checksums, as the SDK comes.
    #[arg(long)]
    lean: bool,
    op: Op,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Op {
    /// Write the objects.
    Put,
    /// Read them, which were put before.
    Get,
    /// Remove them.
    Delete,
}

fn main() -> ExitCode {
    let cores = available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .enable_all()
        .build()
        .map_err(BenchError::from);
    match runtime.and_then(|runtime| runtime.block_on(run(Args::parse()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plain_s3: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let client = client(&args);
    let values = images::values(&args.folder)?;
    let args = Arc::new(args);
    let (begin, cpu) = (now(), cpu_s());
    let mut tasks = JoinSet::new();
    for task in 0..args.at_once {
        let (client, args, values) = (client.clone(), args.clone(), values.clone());
        tasks.spawn(async move {
            let mut moved = (0, 0);
            for number in (task..args.values).step_by(args.at_once) {
                let value = &values[number % values.len()];
                let bytes = one(&client, &args, number, value).await?;
                moved = (moved.0 + value.len() as u64, moved.1 + bytes);
            }
            Ok::<_, BenchError>(moved)
        });
    }
    let (mut bytes, mut stored) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let moved = done.map_err(|_| BenchError::Panicked)??;
        bytes += moved.0;
        stored += moved.1;
    }
    let (seconds, cpu_s) = (begin.elapsed().as_secs_f64(), cpu_s() - cpu);
    if args.op != Op::Delete && stored == 0 {
        return Err(BenchError::Count("no bytes".to_owned()));
    }
    load::answer(&json!({
        "values": args.values, "bytes": bytes, "stored_bytes": stored,
        "seconds": seconds, "cpu_s": cpu_s,
    }))
}

/// Does it with one object; the bytes that the service took or gave.
async fn one(client: &Client, args: &Args, number: usize, value: &Bytes) -> Result<u64> {
    let key = format!("plain/{number}");
    match args.op {
        Op::Put => {
            let compress = || zstd::bulk::compress(value, ZSTD_LEVEL);
            let body = match args.zstd {
                true => Bytes::from(tokio::task::block_in_place(compress)?),
                false => value.clone(),
            };
            let bytes = body.len() as u64;
            let put = client.put_object().bucket(&args.bucket).key(key);
            let sum = args.lean.then(|| STANDARD.encode(crc32c(&body).to_be_bytes()));
            let put = put.set_checksum_crc32_c(sum).body(ByteStream::from(body)).customize();
            let put = if args.lean { put.disable_payload_signing() } else { put };
            put.send().await.map_err(|error| failed(&error))?;
            Ok(bytes)
        }
        Op::Get => {
            let get = client.get_object().bucket(&args.bucket).key(key);
            let got = get.send().await.map_err(|error| failed(&error))?;
            let body = got.body.collect().await.map_err(|error| failed(&error))?.into_bytes();
            if !args.zstd {
                return check(&body, value);
            }
            let bytes = body.len() as u64;
            let read = || zstd::bulk::decompress(&body, value.len());
            check(&tokio::task::block_in_place(read)?.into(), value)?;
            Ok(bytes)
        }
        Op::Delete => {
            let delete = client.delete_object().bucket(&args.bucket).key(key);
            delete.send().await.map(|_| 0).map_err(|error| failed(&error))
        }
    }
}

fn check(body: &Bytes, value: &Bytes) -> Result<u64> {
    if body.len() == value.len() {
        return Ok(body.len() as u64);
    }
    Err(BenchError::Count(format!("{} of {} bytes read", body.len(), value.len())))
}

/// The client as the SDK makes it, or as proxy/src/store/s3.rs does. No request is repeated.
fn client(args: &Args) -> Client {
    let keys = (&*args.access_key, &*args.secret_key);
    let mut config = config::Builder::new()
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(keys.0, keys.1, None, None, "firebreak-benches"))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&args.endpoint);
    if args.lean {
        config = config
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    Client::from_conf(config.build())
}

fn failed(error: &dyn std::error::Error) -> BenchError {
    BenchError::Codec(format!("{error}: {:?}", error.source()))
}

/// CPU seconds of this process so far.
fn cpu_s() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let duration = std::time::Duration::try_from(now).unwrap_or_default();
    duration.as_secs_f64()
}

const ZSTD_LEVEL: i32 = 1;
