//! The S3 service beside the proxy: uploads in parts that are open, and how long one PUT takes.
//!
//! Flow: `watch` puts an object of a usual size again and again while the load runs; the kills
//! wait for an upload that begins. Invariant: nothing is written where packs lie.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{self, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use firebreak_benches::clock::{now, sleep_until};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Result, SoakError};
use crate::load::Load;

/// The bucket that the proxy stores values in.
pub struct Bucket {
    client: Client,
    name: String,
    runtime: Runtime,
}

impl Bucket {
    /// The one that the environment names, as compose/s3.sh prints it.
    pub fn open() -> Result<Self> {
        let told = |name: &'static str| std::env::var(name).map_err(|_| SoakError::Untold(name));
        let (access, secret) = (told("MINIO_ACCESS_KEY")?, told("MINIO_SECRET_KEY")?);
        let config = config::Builder::new()
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(access, secret, None, None, "firebreak-soak"))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .endpoint_url(format!("http://{}", told("MINIO_ENDPOINT")?))
            .build();
        // A thread of its own keeps connections alive while nothing is asked.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(SoakError::io("runtime"))?;
        Ok(Self { client: Client::from_conf(config), name: told("S3_BUCKET")?, runtime })
    }

    /// Uploads in parts that are neither complete nor aborted, by their ids; the first thousand.
    pub fn uploads(&self) -> Result<HashSet<String>> {
        let list = self.client.list_multipart_uploads().bucket(&self.name).send();
        let listed = self.runtime.block_on(list).map_err(|error| failed(&error))?;
        let ids = listed.uploads().iter().filter_map(|upload| upload.upload_id());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Waits until there is an upload that is not among those; false if none comes in that time.
    pub fn begins(&self, known: &HashSet<String>, max: Duration) -> bool {
        let begin = now();
        while begin.elapsed() < max {
            if self.uploads().is_ok_and(|open| !open.is_subset(known)) {
                return true;
            }
            sleep_until(now() + LOOK_PAUSE);
        }
        false
    }

    fn put(&self, object: &Bytes) -> Result<()> {
        let put = self.client.put_object().bucket(&self.name).key(PROBE_KEY);
        let put = put.body(ByteStream::from(object.clone())).send();
        self.runtime.block_on(put).map(drop).map_err(|error| failed(&error))
    }
}

/// How long PUTs straight to the service take while the load runs, failed ones among them.
pub fn watch(load: &Load) -> Result<Vec<Duration>> {
    let bucket = Bucket::open()?;
    let object = Bytes::from(vec![0; PROBE_BYTES]);
    let mut took = Vec::new();
    while !load.stopped() {
        let begin = now();
        if let Err(error) = bucket.put(&object) {
            load.journal.say("bucket", &error.to_string());
        }
        took.push(begin.elapsed());
        sleep_until(begin + PROBE_PERIOD);
    }
    Ok(took)
}

fn failed(error: &dyn Error) -> SoakError {
    SoakError::Bucket(format!("{error}: {:?}", error.source()))
}

/// Neither below `v1/` nor below `upkeep/`.
const PROBE_KEY: &str = "soak/probe";
/// As a pack of one usual value.
const PROBE_BYTES: usize = 40_000;
const PROBE_PERIOD: Duration = Duration::from_millis(250);
const LOOK_PAUSE: Duration = Duration::from_millis(10);
