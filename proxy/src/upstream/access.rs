//! How brokers are reached: TCP, then TLS if the cluster wants it, within one time limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Pool;
use crate::config::Cluster;
use crate::net;
use crate::stream::Stream;
use crate::tls::{self, files};

/// What every connection to a broker of one cluster needs.
#[derive(Debug)]
pub struct Access {
    tls: Option<Arc<tls::Client>>,
    pool: Pool,
}

impl Access {
    /// Access as configured; fails if a file cannot be used any more.
    pub fn new(cluster: &Cluster, pool: &Pool) -> Result<Self, Vec<files::Problem>> {
        let tls = cluster.tls.as_ref().map(files::client).transpose()?.map(Arc::new);
        Ok(Self { tls, pool: pool.clone() })
    }

    /// The certificates in use, to be looked at again.
    pub fn tls(&self) -> Option<Arc<tls::Client>> {
        self.tls.clone()
    }

    /// Connects to a broker within `limit`.
    pub async fn connect(&self, host: &str, port: u16, limit: Duration) -> io::Result<Stream> {
        let Some(tls) = &self.tls else {
            return net::connect(host, port, limit).await.map(Stream::Plain);
        };
        let connect = async {
            let tcp = net::connect(host, port, limit).await?;
            tls::connect(tls, host, tcp, &self.pool).await
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out");
        tokio::time::timeout(limit, connect).await.map_err(late)?
    }
}
