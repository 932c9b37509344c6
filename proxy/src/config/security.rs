//! Keys about certificates, names and identities: raw -> checked, with the files they name.

use std::path::PathBuf;

use super::parse::Problems;
use super::raw;
use super::{ClientTls, NodeNames, ServerTls};
use crate::tls::files;

/// `[listen] tls`.
pub(super) fn server_tls(p: &mut Problems, raw: &raw::Tls) -> Option<ServerTls> {
    if raw.ca.is_some() {
        let hint = "write client_ca for the authorities of clients' certificates";
        p.add("listen.tls.ca", format!("belongs to [[cluster]]: {hint}"));
    }
    let cert = needed(p, "listen.tls.cert", raw.cert.as_ref(), "the proxy's certificate");
    let key = needed(p, "listen.tls.key", raw.key.as_ref(), "the key of the certificate");
    let tls = ServerTls { cert: cert?, key: key?, client_ca: raw.client_ca.clone() };
    match files::server(&tls) {
        Ok(_) => Some(tls),
        Err(problems) => told(p, "listen.tls", problems),
    }
}

/// `[[cluster]] tls`.
pub(super) fn client_tls(p: &mut Problems, raw: &raw::Tls) -> Option<ClientTls> {
    if raw.client_ca.is_some() {
        let hint = "write ca for the authorities of brokers' certificates";
        p.add("cluster.tls.client_ca", format!("belongs to [listen]: {hint}"));
    }
    let what = "the authorities of brokers' certificates \
        (the system's are often in /etc/ssl/certs/ca-certificates.crt)";
    let ca = needed(p, "cluster.tls.ca", raw.ca.as_ref(), what);
    let own = match (&raw.cert, &raw.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) => {
            p.add("cluster.tls.key", "is missing: the key of cert");
            return None;
        }
        (None, Some(_)) => {
            p.add("cluster.tls.cert", "is missing: the certificate of key");
            return None;
        }
    };
    let tls = ClientTls { ca: ca?, own };
    match files::client(&tls) {
        Ok(_) => Some(tls),
        Err(problems) => told(p, "cluster.tls", problems),
    }
}

fn told<T>(p: &mut Problems, table: &str, problems: Vec<files::Problem>) -> Option<T> {
    for (key, text) in problems {
        p.add(&format!("{table}.{key}"), text);
    }
    None
}

fn needed(p: &mut Problems, key: &str, raw: Option<&PathBuf>, what: &str) -> Option<PathBuf> {
    if raw.is_none_or(|path| path.as_os_str().is_empty()) {
        p.add(key, format!("is missing: the PEM file of {what}"));
        return None;
    }
    raw.cloned()
}

/// `[listen] sni`: names of virtual brokers of `cluster`.
pub(super) fn sni(
    p: &mut Problems,
    pattern: &str,
    cluster: &str,
    advertise: &str,
    tls: bool,
) -> Option<NodeNames> {
    let key = "listen.sni";
    if !tls {
        p.add(key, "needs listen.tls: a name is sent in TLS handshakes only");
    }
    let full = pattern.replace("{cluster}", cluster).to_ascii_lowercase();
    let Some((before, after)) = full.split_once("{node}") else {
        p.add(key, format!("\"{pattern}\" has no {{node}}, such as broker-{{node}}.example.org"));
        return None;
    };
    let names = NodeNames { before: before.to_owned(), after: after.to_owned() };
    if !is_host_name(&names.of(i32::MAX)) {
        p.add(key, format!("\"{pattern}\" does not give host names, such as {}", names.of(1)));
        return None;
    }
    let bootstrap = advertise.to_ascii_lowercase();
    if !is_host_name(&bootstrap) || names.node(&bootstrap).is_some() {
        let what = "must be a host name other than the brokers': clients bootstrap by it";
        p.add("listen.advertise", format!("\"{advertise}\" {what}, with listen.sni"));
    }
    Some(names)
}

/// Whether TLS clients send `name` (they send no addresses).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(legal) && !label.starts_with('-')
    };
    let numbers = name.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok());
    name.len() <= 253 && name.split('.').all(label) && !numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, advertise: &str) -> Result<NodeNames, String> {
        let mut problems = Problems(Vec::new());
        let names = sni(&mut problems, pattern, "NorCal", advertise, true);
        match problems.0.as_slice() {
            [] => names.ok_or_else(|| "nothing".to_owned()),
            [first, ..] => Err(first.to_string()),
        }
    }

    #[test]
    fn a_name_and_its_node_are_the_same_both_ways() {
        let names = names("Broker-{cluster}-{node}.Example.org", "kafka.example.org");
        let names = names.expect("valid");
        assert_eq!(names.of(7), "broker-norcal-7.example.org");
        for node in [0, 7, 10, 1001, i32::MAX] {
            assert_eq!(names.node(&names.of(node)), Some(node));
        }
        for other in ["broker-norcal-07.example.org", "broker-norcal-+7.example.org"] {
            assert_eq!(names.node(other), None, "{other}");
        }
        for other in ["broker-norcal--7.example.org", "broker-norcal-.example.org", "x", ""] {
            assert_eq!(names.node(other), None, "{other}");
        }
    }

    #[test]
    fn patterns_that_give_no_names_are_refused() {
        assert!(names("broker.example.org", "k.example.org").is_err_and(|e| e.contains("{node}")));
        assert!(names("a b-{node}", "k.example.org").is_err_and(|e| e.contains("host names")));
        assert!(names("b-{node}.x", "10.0.0.1").is_err_and(|e| e.contains("listen.advertise")));
        assert!(names("b-{node}.x", "b-3.x").is_err_and(|e| e.contains("listen.advertise")));
    }
}
