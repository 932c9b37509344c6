//! How brokers are reached: TCP, then TLS and SASL if the cluster wants them, within one limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::BrokerConnection;
use super::auth::{self, Ask, Credentials};
use crate::buffer::Pool;
use crate::config::{Cluster, ClusterSasl};
use crate::net::{self, names::Names};
use crate::secret::Secret;
use crate::stream::Stream;
use crate::tls::{self, files};
use crate::watched::Watched;

/// What every connection to a broker of one cluster needs.
#[derive(Debug)]
pub struct Access {
    tls: Option<Arc<tls::Client>>,
    own: Option<Arc<Own>>,
    names: Names,
    pool: Pool,
}

/// The proxy's own name and password, which may change.
pub type Own = Watched<Credentials>;

/// As whom a connection logs in.
#[derive(Debug, Clone)]
pub enum Login {
    /// As nobody: a client does it itself, or nobody has to.
    Nobody,
    /// As the proxy, if it has an identity.
    Proxy,
    /// As a client whose password is known.
    User(Arc<Credentials>),
}

/// A connection that is ready to be used.
#[derive(Debug)]
pub struct Connected {
    /// The bytes.
    pub stream: Stream,
    /// Time after which the session must be renewed (KIP-368); zero: never.
    pub lifetime: Duration,
}

impl Access {
    /// Access as configured; fails if a file cannot be used any more.
    pub fn new(cluster: &Cluster, pool: &Pool) -> Result<Self, (&'static str, String)> {
        let tls = cluster.tls.as_ref().map(files::client).transpose();
        let tls = tls.map_err(files::first)?.map(Arc::new);
        let own = cluster.sasl.clone().map(own).transpose();
        let own = own.map_err(|why| ("password_file", why))?.map(Arc::new);
        Ok(Self { tls, own, names: Names::default(), pool: pool.clone() })
    }

    /// The certificates in use, to be looked at again.
    pub fn tls(&self) -> Option<Arc<tls::Client>> {
        self.tls.clone()
    }

    /// The proxy's password, to be looked at again.
    pub fn own(&self) -> Option<Arc<Own>> {
        self.own.clone()
    }

    /// Connects to a broker within `limit`.
    pub async fn connect(
        &self,
        (host, port): (&str, u16),
        limit: Duration,
        login: &Login,
    ) -> io::Result<Connected> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS or SASL took too long");
        let connect = async {
            let tcp = net::connect(&self.names, (host, port), limit).await?;
            let stream = match &self.tls {
                None => Stream::Plain(tcp),
                Some(tls) => tls::connect(tls, host, tcp, &self.pool).await?,
            };
            let credentials = match login {
                Login::Nobody => None,
                Login::Proxy => self.own.as_ref().map(|own| own.get()),
                Login::User(user) => Some(user.clone()),
            };
            let mut connected = Connected { stream, lifetime: Duration::ZERO };
            if let Some(credentials) = credentials {
                let mut broker = BrokerConnection::new(connected);
                let lifetime = auth::log_in(&mut broker, &credentials).await?;
                connected = Connected { stream: broker.into_stream(), lifetime };
            }
            Ok(connected)
        };
        if self.tls.is_none() && matches!(login, Login::Nobody) {
            return connect.await;
        }
        tokio::time::timeout(limit, connect).await.map_err(late)?
    }
}

impl Ask for BrokerConnection {
    async fn ask(&mut self, key: i16, version: i16, body: Bytes) -> io::Result<Bytes> {
        self.exchange(key, version, &[body]).await
    }
}

/// Reads the proxy's password, and keeps its file in sight.
pub fn own(sasl: ClusterSasl) -> Result<Own, String> {
    let file = sasl.password_file.clone();
    Watched::new(vec![file], move || {
        let ClusterSasl { mechanism, username, password_file } = &sasl;
        let password = Secret::read(password_file)
            .map_err(|error| format!("{}: {error}", password_file.display()))?;
        Ok(Credentials::new(*mechanism, username.clone(), password))
    })
}
