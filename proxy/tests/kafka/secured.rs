//! Brokers with TLS and SASL: their listeners, users and certificates.
//!
//! A broker's first port is plaintext for the harness, the next speaks SASL in TLS, the one behind
//! it wants certificates of clients.

use std::path::{Path, PathBuf};

use crate::certs::{Authority, Certificate, write};
use crate::proxy::HOST;

/// Users and their passwords; the proxy is one of them.
pub const ALICE: (&str, &str) = ("alice", "wonder,land=7");
pub const FIREBREAK: (&str, &str) = ("firebreak", "its own secret");

/// The host that clients bootstrap at where each broker has a name.
pub const BOOTSTRAP_NAME: &str = "kafka.firebreak.test";
/// The pattern of brokers' names there.
pub const BROKER_NAMES: &str = "broker-{node}.firebreak.test";

/// Authorities and files of one cluster.
pub struct Secured {
    folder: PathBuf,
    /// Signs certificates of brokers and of proxies.
    pub servers: Authority,
    /// Signs those of clients, the proxy's towards brokers among them.
    pub clients: Authority,
}

impl Secured {
    pub fn new(folder: &Path) -> Self {
        let secured = Self {
            folder: folder.to_owned(),
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
        };
        write(folder, "servers.pem", &secured.servers.pem());
        write(folder, "clients.pem", &secured.clients.pem());
        let hosts: Vec<String> = (2..8).map(|last| format!("127.0.0.{last}")).collect();
        let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
        secured.store("brokers", &secured.servers.sign(&names));
        let hosts = (1..8).map(|id| format!("{HOST} broker-{id}.firebreak.test\n"));
        let hosts = hosts.collect::<String>() + &format!("{HOST} {BOOTSTRAP_NAME}\n");
        write(folder, "hosts", &hosts);
        secured
    }

    /// A file in the cluster's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The names that clients of a proxy with SNI resolve.
    pub fn hosts(&self) -> PathBuf {
        self.file("hosts")
    }

    /// Writes a certificate as Java wants it, key and chain in one file.
    pub fn store(&self, name: &str, own: &Certificate) -> PathBuf {
        write(&self.folder, &format!("{name}-store.pem"), &format!("{}{}", own.key, own.cert))
    }

    /// The listeners of the broker whose ports begin at `port`.
    pub fn listeners(host: &str, port: u16) -> String {
        let (sasl, certificates) = (port + 1, port + 2);
        format!("PLAINTEXT://{host}:{port},SASL_SSL://{host}:{sasl},SSL://{host}:{certificates}")
    }

    /// What a broker needs for them.
    pub fn properties(&self) -> String {
        let login = "org.apache.kafka.common.security";
        let users = [ALICE, FIREBREAK].map(|(name, word)| format!(" user_{name}=\"{word}\""));
        let (own, clients) = (self.file("brokers-store.pem"), self.file("clients.pem"));
        let sasl = "listener.name.sasl_ssl";
        format!(
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             {sasl}.plain.sasl.jaas.config={login}.plain.PlainLoginModule required{};\n\
             {sasl}.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             {sasl}.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             {sasl}.oauthbearer.sasl.jaas.config={login}.oauthbearer.OAuthBearerLoginModule \
             required;\n\
             {sasl}.scram-sha-256.connections.max.reauth.ms={REAUTH_MS}\n\
             {sasl}.ssl.client.auth=none\nlistener.name.ssl.ssl.client.auth=required\n\
             ssl.keystore.type=PEM\nssl.keystore.location={}\n\
             ssl.truststore.type=PEM\nssl.truststore.location={}\n",
            users.concat(),
            own.display(),
            clients.display(),
        )
    }
}

/// Time after which brokers want a session of SCRAM-SHA-256 renewed.
pub const REAUTH_MS: u32 = 12_000;
