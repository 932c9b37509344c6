//! Certificates and keys: PEM files -> rustls configurations, every problem found at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Client, Server, provider};
use crate::config::{ClientTls, ServerTls};
use crate::fault;
use crate::watched::Watched;

/// A key of the configuration, such as `cert`, and what is wrong with its file.
pub type Problem = (&'static str, String);

/// Loads what clients are shown, and keeps its files in sight.
pub fn server(config: &ServerTls) -> Result<Server, Vec<Problem>> {
    load_server(config)?;
    let files = [&config.cert, &config.key].into_iter().chain(&config.client_ca).cloned();
    let config = config.clone();
    Watched::new(files.collect(), move || load_server(&config).map_err(|all| joined(&all)))
        .map_err(|why| vec![("cert", why)])
}

/// Loads what is asked of brokers, and keeps its files in sight.
pub fn client(config: &ClientTls) -> Result<Client, Vec<Problem>> {
    load_client(config)?;
    let own = config.own.iter().flat_map(|(cert, key)| [cert, key]);
    let files: Vec<PathBuf> = std::iter::once(&config.ca).chain(own).cloned().collect();
    let config = config.clone();
    Watched::new(files, move || load_client(&config).map_err(|all| joined(&all)))
        .map_err(|why| vec![("ca", why)])
}

/// The first of the problems; `firebreak check` tells them all.
pub fn first(problems: Vec<Problem>) -> Problem {
    problems.into_iter().next().unwrap_or(("cert", "cannot be used".to_owned()))
}

fn joined(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|(key, text)| format!("{key}: {text}")).collect();
    lines.join("; ")
}

fn load_server(config: &ServerTls) -> Result<ServerConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let own = certified(&config.cert, &config.key, &mut problems);
    let client_ca = config.client_ca.as_deref();
    let client_ca = client_ca.filter(|_| !fault::on("client-certificate-unasked"));
    let roots = client_ca.map(|ca| roots("client_ca", ca, &mut problems));
    let (Some(own), true) = (own, problems.is_empty()) else { return Err(problems) };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![("cert", error.to_string())])?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            let verifier = verifier.map_err(|error| vec![("client_ca", error.to_string())])?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let resolver = rustls::sign::SingleCertAndKey::from(own);
    let mut server = builder.with_cert_resolver(Arc::new(resolver));
    if config.client_ca.is_some() {
        // A resumed session would not look at the client's certificate again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    } else {
        // Sessions resume without a table here; new certificates come with a new key of tickets.
        server.ticketer = Ticketer::new().map_err(|error| vec![("key", error.to_string())])?;
    }
    Ok(server)
}

fn load_client(config: &ClientTls) -> Result<ClientConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let roots = roots("ca", &config.ca, &mut problems);
    let own = config.own.as_ref().map(|(cert, key)| certified(cert, key, &mut problems));
    if !problems.is_empty() {
        return Err(problems);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|error| vec![("ca", error.to_string())])?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![("ca", error.to_string())])?
        .with_webpki_verifier(verifier);
    Ok(match own.flatten() {
        None => builder.with_no_client_auth(),
        Some(own) => {
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)))
        }
    })
}

/// A certificate with its chain, and the key that belongs to it.
fn certified(cert: &Path, key: &Path, problems: &mut Vec<Problem>) -> Option<CertifiedKey> {
    let chain = certificates("cert", cert, problems);
    let key_der = match read(key) {
        Err(why) => Err(why),
        Ok(text) => PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                format!("{}: no unencrypted private key in PEM form", key.display())
            }
            error => format!("{}: {error}", key.display()),
        }),
    };
    let signing = key_der.and_then(|der| {
        let signing = provider().key_provider.load_private_key(der);
        signing.map_err(|error| format!("{}: {error}", key.display()))
    });
    match (chain, signing) {
        (Some(chain), Ok(signing)) => {
            let certified = CertifiedKey::new(chain, signing);
            if let Err(error) = certified.keys_match() {
                let file = cert.display();
                problems.push(("key", format!("does not belong to {file}: {error}")));
                return None;
            }
            Some(certified)
        }
        (_, Err(why)) => {
            problems.push(("key", why));
            None
        }
        (None, Ok(_)) => None,
    }
}

fn roots(key: &'static str, file: &Path, problems: &mut Vec<Problem>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, file, problems).unwrap_or_default() {
        if let Err(error) = roots.add(certificate) {
            problems.push((key, format!("{}: {error}", file.display())));
        }
    }
    roots
}

fn certificates(
    key: &'static str,
    file: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Vec<CertificateDer<'static>>> {
    let found = read(file).and_then(|text| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match all {
            Ok(all) if all.is_empty() => {
                Err(format!("{}: no certificate in PEM form", file.display()))
            }
            Ok(all) => Ok(all),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    });
    found.map_err(|why| problems.push((key, why))).ok()
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}
