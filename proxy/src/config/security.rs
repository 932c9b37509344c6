//! Keys about certificates, names and identities: raw -> checked, with the files they name.

use std::path::PathBuf;
use std::time::Duration;

use protocol_ext::sasl::{MECHANISMS, Mechanism};

use super::parse::Problems;
use super::raw;
use super::{
    BrokersSee, ClientTls, Cluster, ClusterSasl, Listen, ListenSasl, NodeNames, ServerTls,
};
use crate::accept::origin::Net;
use crate::secret::Secret;
use crate::tls::files;
use crate::users::{SaltSecret, Users};

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

/// `[listen] proxy_protocol_from`.
pub(super) fn balancers(p: &mut Problems, raw: &[String]) -> Vec<Net> {
    let mut nets = Vec::with_capacity(raw.len());
    for text in raw {
        match Net::parse(text) {
            Some(net) => nets.push(net),
            None => {
                let hint = "write ADDRESS or ADDRESS/BITS, such as 10.0.1.0/24";
                p.add("listen.proxy_protocol_from", format!("\"{text}\" is no net: {hint}"));
            }
        }
    }
    nets
}

/// `[listen] sasl`.
pub(super) fn client_sasl(p: &mut Problems, raw: &raw::ListenSasl) -> Option<ListenSasl> {
    let before = p.0.len();
    let mut mechanisms = Vec::new();
    for name in &raw.mechanisms {
        mechanisms.extend(mechanism(p, "listen.sasl.mechanisms", name));
    }
    if raw.mechanisms.is_empty() {
        p.add("listen.sasl.mechanisms", "is empty: write [\"SCRAM-SHA-512\"]");
    }
    let brokers_see = match raw.brokers_see.as_deref() {
        None | Some("proxy") => BrokersSee::Proxy,
        Some("client") => BrokersSee::Client,
        Some(other) => {
            let hint = "write \"proxy\" or \"client\"";
            p.add("listen.sasl.brokers_see", format!("\"{other}\" is neither: {hint}"));
            BrokersSee::Proxy
        }
    };
    let session = raw.session_ms.filter(|ms| *ms != 0);
    let least = Duration::from_millis(1000);
    if session.is_some_and(|ms| ms < 1000) {
        p.add("listen.sasl.session_ms", "is less than 1000: clients could do nothing else");
    }
    let session = session.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let session = session.map(|session| session.max(least));
    let Some(users_file) = raw.users_file.clone() else {
        p.add("listen.sasl.users_file", "is missing: the file of NAME:PASSWORD lines");
        return None;
    };
    match Users::load(&users_file, &SaltSecret::new()) {
        Err(why) => p.add("listen.sasl.users_file", why),
        Ok(users) if brokers_see == BrokersSee::Client => {
            let without = users.without_password();
            if !without.is_empty() {
                let names = without.join(", ");
                let hint = "brokers_see = \"client\" needs every password, not keys made of it";
                p.add("listen.sasl.users_file", format!("{hint}: {names}"));
            }
        }
        Ok(_) => {}
    }
    (p.0.len() == before).then_some(ListenSasl { mechanisms, users_file, brokers_see, session })
}

/// `[[cluster]] sasl`.
pub(super) fn own_sasl(p: &mut Problems, raw: &raw::ClusterSasl) -> Option<ClusterSasl> {
    let before = p.0.len();
    let name = raw.mechanism.as_deref().unwrap_or_default();
    let mechanism = mechanism(p, "cluster.sasl.mechanism", name);
    let username = raw.username.clone().unwrap_or_default();
    if username.is_empty() {
        p.add("cluster.sasl.username", "is missing: the proxy's name towards brokers");
    }
    let Some(password_file) = raw.password_file.clone() else {
        p.add("cluster.sasl.password_file", "is missing: a file whose first line is the password");
        return None;
    };
    if let Err(error) = Secret::read(&password_file) {
        let file = password_file.display();
        p.add("cluster.sasl.password_file", format!("{file}: {error}"));
    }
    (p.0.len() == before).then_some(ClusterSasl { mechanism: mechanism?, username, password_file })
}

fn mechanism(p: &mut Problems, key: &str, name: &str) -> Option<Mechanism> {
    let mechanism = Mechanism::of(name);
    if mechanism.is_none() {
        let all: Vec<&str> = MECHANISMS.iter().map(|mechanism| mechanism.name()).collect();
        p.add(key, format!("\"{name}\" is none of {}", all.join(", ")));
    }
    mechanism
}

/// Whether identities fit together: who asks brokers for what, and as whom.
pub(super) fn identities(
    p: &mut Problems,
    listen: &Listen,
    cluster: Option<&Cluster>,
    virtual_topics: bool,
) {
    let sasl = cluster.is_some_and(|cluster| cluster.sasl.is_some());
    let own = cluster.and_then(|cluster| cluster.tls.as_ref()).is_some_and(|tls| tls.own.is_some());
    let asks =
        listen.sasl.is_some() || listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if virtual_topics && asks && !sasl && !own {
        let why = "is missing: parts of virtual topics are read and written by the proxy itself, \
            so where clients prove who they are it needs an identity too";
        p.add("cluster.sasl", why);
    }
    let sees = listen.sasl.as_ref().map(|sasl| sasl.brokers_see);
    if sees == Some(BrokersSee::Client) && !sasl {
        let why = "is missing: with brokers_see = \"client\" its mechanism logs clients in, \
            and its user asks brokers who they are";
        p.add("cluster.sasl", why);
    }
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
