//! TLS for the generators, which speak plain TCP: a tunnel per address inside this process.
//!
//! generator -> loopback -> tunnel (TLS) -> proxy. The tunnel's CPU is the generator's, and nobody
//! measures that.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::error::{BenchError, Result};

/// What is trusted, and the tunnels that are open.
struct Tunnels {
    config: Arc<ClientConfig>,
    runtime: Runtime,
    open: Mutex<HashMap<String, String>>,
}

static TUNNELS: OnceLock<Tunnels> = OnceLock::new();

/// A client that trusts the authority of a PEM file. Without `resume` each handshake is a full one.
///
/// # Errors
/// When the file cannot be used.
pub fn config(ca: &Path, resume: bool) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).map_err(wrong)? {
        roots.add(cert.map_err(wrong)?).map_err(wrong)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// The name in a handshake with the host of `address`.
///
/// # Errors
/// When it is none.
pub fn name(address: &str) -> Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    ServerName::try_from(host.to_owned()).map_err(wrong)
}

/// From now on every connection goes through TLS.
///
/// # Errors
/// When the authority's file cannot be used.
pub fn turn_on(ca: &Path) -> Result<()> {
    let config = config(ca, false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let open = Mutex::default();
    let _ = TUNNELS.set(Tunnels { config, runtime, open });
    Ok(())
}

/// Where to connect in the place of `address`: itself, or its tunnel.
///
/// # Errors
/// When no tunnel can be opened.
pub fn way_to(address: &str) -> Result<String> {
    let Some(tunnels) = TUNNELS.get() else { return Ok(address.to_owned()) };
    let mut open = tunnels.open.lock().map_err(|_| BenchError::Panicked)?;
    if let Some(way) = open.get(address) {
        return Ok(way.clone());
    }
    let listener = tunnels.runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let way = listener.local_addr()?.to_string();
    tunnels.runtime.spawn(dig(listener, address.to_owned(), tunnels.config.clone()));
    open.insert(address.to_owned(), way.clone());
    Ok(way)
}

#[expect(clippy::disallowed_methods, reason = "tunnels end with the process")]
async fn dig(listener: TcpListener, address: String, config: Arc<ClientConfig>) {
    while let Ok((near, _)) = listener.accept().await {
        let (address, config) = (address.clone(), config.clone());
        tokio::spawn(async move {
            // A generator whose connection ends here fails, and voids its run.
            if let Err(error) = carry(near, &address, config).await {
                eprintln!("tunnel to {address}: {error}");
            }
        });
    }
}

async fn carry(mut near: TcpStream, address: &str, config: Arc<ClientConfig>) -> Result<()> {
    near.set_nodelay(true)?;
    let far = TcpStream::connect(address).await?;
    far.set_nodelay(true)?;
    let mut far = TlsConnector::from(config).connect(name(address)?, far).await?;
    // The end of a generator is no failure.
    let _ = copy_bidirectional_with_sizes(&mut near, &mut far, BYTES, BYTES).await;
    Ok(())
}

fn wrong(error: impl std::fmt::Display) -> BenchError {
    BenchError::Codec(format!("TLS: {error}"))
}

const BYTES: usize = 64 * 1024;
