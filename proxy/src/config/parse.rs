//! Raw configuration -> checked configuration, with every problem found on the way.

use std::net::SocketAddr;
use std::time::Duration;

use super::conflicts::conflicts;
use super::raw::{self, File, Flags};
use super::regions::regions;
use super::security;
use super::store::{self, store};
use super::topics::{self, virtual_topic};
use super::{Cluster, Config, ConfigError, Listen, OffloadRule, Ports, Problem, VirtualTopic};
use crate::limits::Limits;

const LISTEN: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 19092));
const ADMIN: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9091));
/// The largest number of any key: sizes of an exabyte and times of an age are mistakes.
const NUMBER_MAX: i64 = 1 << 53;
/// Virtual brokers served when no range is configured.
const PORTS: u16 = 100;
/// Longest name of a cluster: it is a part of objects' keys.
const CLUSTER_NAME_BYTES_MAX: usize = 100;
/// Longer values are stored unless configured.
const THRESHOLD_BYTES_DEFAULT: i64 = 100_000;

/// What was found wrong so far.
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// Adds a problem of one key.
    pub(super) fn add(&mut self, key: &str, text: impl Into<String>) {
        self.0.push(Problem { key: key.to_owned(), text: text.into() });
    }

    /// A number within bounds, or the default if it is absent or refused.
    pub(super) fn number(
        &mut self,
        key: &str,
        given: Option<i64>,
        default: usize,
        min: i64,
    ) -> usize {
        match given {
            Some(n) if n < min => self.add(key, format!("{n} is too small: at least {min}")),
            Some(n) if n > NUMBER_MAX => {
                self.add(key, format!("{n} is too large: at most {NUMBER_MAX}"));
            }
            Some(n) => return usize::try_from(n).unwrap_or(default),
            None => {}
        }
        default
    }

    /// Whether this key was told of.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|problem| problem.key == key)
    }

    /// A time that 0 switches off.
    fn millis_or_never(&mut self, key: &str, given: Option<i64>) -> Option<Duration> {
        let ms = self.number(key, given, 0, 0);
        (ms > 0).then(|| Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))
    }

    fn millis(&mut self, key: &str, given: Option<i64>, default: Duration) -> Duration {
        let default_ms = usize::try_from(default.as_millis()).unwrap_or(usize::MAX);
        let ms = self.number(key, given, default_ms, 1);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

pub(super) fn config(
    file: File,
    flags: &Flags,
    mut problems: Problems,
) -> Result<Config, ConfigError> {
    let p = &mut problems;
    let cluster = cluster(p, &file.cluster, flags.upstream.as_deref());
    let name = cluster.as_ref().map(|cluster| cluster.name.as_str());
    let listen = listen(p, file.listen.unwrap_or_default(), flags, name);
    let admin = admin(p, flags, file.admin);
    let had_store = file.store.is_some();
    let store = store(p, file.store, &flags.store);
    let offload = file.offload.iter().enumerate().map(|(n, o)| offload(p, n, o));
    let offload: Vec<OffloadRule> = offload.collect();
    if !had_store && !file.offload.is_empty() {
        p.add("offload", "needs a store: add [store] with kind = \"local\" and path = \"DIR\"");
    }
    let regions = regions(p, &file.region, cluster.as_ref());
    let virtual_topics = file.virtual_topic.iter().enumerate();
    let virtual_topics = virtual_topics.map(|(n, t)| virtual_topic(p, n, t, &regions));
    let virtual_topics: Vec<VirtualTopic> = virtual_topics.collect();
    topics::shared(p, &virtual_topics);
    topics::stored(p, &virtual_topics, &offload);
    if !p.has("listen.bootstrap") && !p.has("listen.ports") {
        conflicts(p, &listen, admin, cluster.as_ref());
    }
    security::identities(p, &listen, cluster.as_ref(), !file.virtual_topic.is_empty());
    for (key, tables) in [("throttle", &file.throttle), ("quota", &file.quota)] {
        if !tables.is_empty() {
            p.add(key, "is not part of this version yet: remove it");
        }
    }
    let limits = limits(p, &file.limits.unwrap_or_default());
    if limits.buffered_bytes_max / 2 < limits.frame_bytes_max {
        let (given, least) = (limits.buffered_bytes_max, limits.frame_bytes_max * 2);
        let text = format!("{given} is too small: at least {least}, twice frame_bytes_max");
        p.add("limits.buffered_bytes_max", text);
    }
    match cluster {
        Some(cluster) if problems.0.is_empty() => {
            Ok(Config { listen, admin, cluster, store, offload, virtual_topics, limits })
        }
        _ => Err(ConfigError(problems.0)),
    }
}

fn listen(p: &mut Problems, raw: raw::Listen, flags: &Flags, cluster: Option<&str>) -> Listen {
    let tls = raw.tls.as_ref().and_then(|tls| security::server_tls(p, tls));
    let bootstrap = flags.listen.clone().or(raw.bootstrap).map_or(LISTEN, |text| {
        text.parse().unwrap_or_else(|_| {
            p.add("listen.bootstrap", format!("\"{text}\" is not ADDRESS:PORT, such as {LISTEN}"));
            LISTEN
        })
    });
    let advertise = flags.advertise.clone().or(raw.advertise);
    let advertise = advertise.unwrap_or_else(|| bootstrap.ip().to_string());
    if advertise.is_empty() || advertise.len() > 255 || advertise.contains(['/', ':', ' ']) {
        p.add(
            "listen.advertise",
            format!("\"{advertise}\" is not a host name: no scheme, no port"),
        );
    }
    let sni = raw.sni.as_ref().and_then(|pattern| {
        security::sni(p, pattern, cluster.unwrap_or_default(), &advertise, raw.tls.is_some())
    });
    if advertise.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        let hint = "set it to the host name that clients can reach";
        p.add("listen.advertise", format!("is missing and the listener is on {advertise}: {hint}"));
    }
    let ports = match flags.ports.clone().or(raw.ports) {
        Some(_) if raw.sni.is_some() => {
            p.add(
                "listen.ports",
                "has no use with listen.sni, where one port serves all: remove it",
            );
            (0, 0)
        }
        None if raw.sni.is_some() => (0, 0),
        Some(text) => range(p, &text),
        None if bootstrap.port() == 0 || bootstrap.port() > u16::MAX - PORTS => {
            p.add("listen.ports", "is missing: no 100 ports follow the bootstrap port");
            (0, 0)
        }
        None => (bootstrap.port() + 1, bootstrap.port() + PORTS),
    };
    let mapped = mapped(p, &raw.broker_ports);
    let ports = Ports { first: ports.0, last: ports.1, mapped };
    let sasl = raw.sasl.as_ref().and_then(|sasl| security::client_sasl(p, sasl));
    let balancers = security::balancers(p, &raw.proxy_protocol_from);
    let mut listen = Listen {
        bootstrap,
        advertise,
        ports,
        tls,
        sni,
        sasl,
        balancers,
        passthrough: None,
        read_only: false,
    };
    let passthrough = raw.passthrough.as_ref();
    listen.passthrough = passthrough.and_then(|raw| self::passthrough(p, raw, &listen));
    listen
}

/// Listeners beside the others: with ports, and else like them.
fn passthrough(p: &mut Problems, raw: &raw::Passthrough, like: &Listen) -> Option<Box<Listen>> {
    let key = "listen.passthrough";
    let text = raw.bootstrap.clone().unwrap_or_default();
    let Ok(bootstrap) = text.parse::<SocketAddr>() else {
        p.add(key, format!("bootstrap \"{text}\" is not ADDRESS:PORT, such as 0.0.0.0:19300"));
        return None;
    };
    let Some(ports) = &raw.ports else {
        p.add(key, "has no ports for the brokers: write ports = \"19301-19400\"");
        return None;
    };
    let (first, last) = range(p, ports);
    let ports = Ports { first, last, mapped: Vec::new() };
    Some(Box::new(Listen { bootstrap, ports, sni: None, read_only: true, ..like.clone() }))
}

fn admin(p: &mut Problems, flags: &Flags, raw: Option<raw::Admin>) -> SocketAddr {
    let given = raw.and_then(|raw| raw.address).filter(|_| flags.admin.is_none());
    let Some(text) = given else { return flags.admin.unwrap_or(ADMIN) };
    text.parse().unwrap_or_else(|_| {
        p.add("admin.address", format!("\"{text}\" is not ADDRESS:PORT, such as {ADMIN}"));
        ADMIN
    })
}

fn range(p: &mut Problems, text: &str) -> (u16, u16) {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let parts = text.split_once('-').and_then(|(a, b)| Some((port(a)?, port(b)?)));
    match parts {
        Some((first, last)) if first > 0 && first <= last => return (first, last),
        _ => {
            let hint = "write FIRST-LAST of ports from 1 to 65535, such as 19093-19192";
            p.add("listen.ports", format!("\"{text}\" is no range: {hint}"));
        }
    }
    (0, 0)
}

fn mapped(p: &mut Problems, raw: &std::collections::BTreeMap<String, u16>) -> Vec<(i32, u16)> {
    let mut mapped = Vec::with_capacity(raw.len());
    for (node, port) in raw {
        match node.parse::<i32>() {
            Ok(node) if node >= 0 && *port > 0 => mapped.push((node, *port)),
            _ => {
                p.add("listen.broker_ports", format!("\"{node}\" = {port}: write BROKER_ID = PORT"))
            }
        }
    }
    mapped
}

fn cluster(p: &mut Problems, raw: &[raw::Cluster], upstream: Option<&str>) -> Option<Cluster> {
    if raw.len() > 1 {
        p.add("cluster", "several clusters are not part of this version yet: keep one");
        for (n, cluster) in raw.iter().enumerate() {
            let same = |other: &&raw::Cluster| other.name == cluster.name;
            if cluster.name.is_some() && raw[..n].iter().any(|other| same(&other)) {
                let name = cluster.name.as_deref().unwrap_or_default();
                let text = format!("\"{name}\" names two clusters: each needs its own");
                p.add("cluster.name", text);
            }
        }
    }
    let first = raw.first();
    let name = first.and_then(|c| c.name.clone()).unwrap_or_else(|| "main".to_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > CLUSTER_NAME_BYTES_MAX || !name.chars().all(legal) {
        let text = format!(
            "\"{name}\" is no name: 1 to {CLUSTER_NAME_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_', '-'"
        );
        p.add("cluster.name", text);
    }
    if first.is_some_and(|c| c.node_id_base != 0) {
        p.add("cluster.node_id_base", "must be 0 while there is one cluster");
    }
    let tls = first.and_then(|c| c.tls.as_ref()).and_then(|tls| security::client_tls(p, tls));
    let sasl = first.and_then(|c| c.sasl.as_ref()).and_then(|sasl| security::own_sasl(p, sasl));
    let hosts: Vec<String> = match (upstream, first) {
        // An empty variable counts as none.
        (Some(text), _) if !text.trim().is_empty() => {
            text.split(',').map(|part| part.trim().to_owned()).collect()
        }
        (_, Some(cluster)) => cluster.bootstrap.clone(),
        (_, None) => Vec::new(),
    };
    // A table that cannot be read was told of.
    if hosts.is_empty() && !p.has("file") && !p.has("cluster") && !p.has("cluster.bootstrap") {
        p.add(
            "cluster.bootstrap",
            "names no broker: write bootstrap = [\"HOST:PORT\"] in [[cluster]], or set \
             KAFKA_BOOTSTRAP_SERVERS; a start takes --upstream too, `check` does not",
        );
    }
    let bootstrap: Vec<_> = hosts.iter().filter_map(|text| host_port(p, text)).collect();
    (bootstrap.len() == hosts.len()).then_some(Cluster { name, bootstrap, tls, sasl })
}

fn host_port(p: &mut Problems, text: &str) -> Option<(String, u16)> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse::<u16>().ok()?))
    });
    let good = parts.filter(|(host, port)| !host.is_empty() && *port > 0 && !host.contains('/'));
    if good.is_none() {
        p.add("cluster.bootstrap", format!("\"{text}\" is not HOST:PORT, such as kafka-1:9092"));
    }
    good
}

fn offload(p: &mut Problems, n: usize, raw: &raw::Offload) -> OffloadRule {
    if raw.topics.is_empty() {
        p.add(&format!("offload[{n}].topics"), "is empty: write [\"*\"] for every topic");
    }
    let threshold = raw.threshold_bytes.unwrap_or(THRESHOLD_BYTES_DEFAULT);
    let least = i64::try_from(crate::limits::REFERENCE_BYTES).unwrap_or(i64::MAX);
    let key = format!("offload[{n}].threshold_bytes");
    let threshold_bytes = p.number(&key, Some(threshold), 0, least);
    let codec = store::codec(p, &format!("offload[{n}].codec"), raw.codec.as_deref());
    let on_store_failure = store::on_failure(p, &format!("offload[{n}]"), raw);
    let on_missing = store::on_missing(p, &format!("offload[{n}].on_missing"), raw);
    let topics = raw.topics.clone();
    OffloadRule { topics, threshold_bytes, codec, on_store_failure, on_missing }
}

fn limits(p: &mut Problems, raw: &raw::Limits) -> Limits {
    let d = Limits::default();
    Limits {
        frame_bytes_max: p.number(
            "limits.frame_bytes_max",
            raw.frame_bytes_max,
            d.frame_bytes_max,
            1024,
        ),
        connections_max: p.number(
            "limits.connections_max",
            raw.connections_max,
            d.connections_max,
            1,
        ),
        connections_per_address_max: match p.number(
            "limits.connections_per_address_max",
            raw.connections_per_address_max,
            0,
            0,
        ) {
            0 => None,
            max => Some(max),
        },
        unproven_max: p.number("limits.unproven_max", raw.unproven_max, d.unproven_max, 1),
        buffered_bytes_max: p.number(
            "limits.buffered_bytes_max",
            raw.buffered_bytes_max,
            d.buffered_bytes_max,
            1 << 20,
        ),
        connect: p.millis("limits.connect_ms", raw.connect_ms, d.connect),
        first_request: p.millis("limits.first_request_ms", raw.first_request_ms, d.first_request),
        frame_progress: p.millis(
            "limits.frame_progress_ms",
            raw.frame_progress_ms,
            d.frame_progress,
        ),
        idle: p.millis("limits.idle_ms", raw.idle_ms, d.idle),
        age: p.millis_or_never("limits.age_ms", raw.age_ms),
        handshake: p.millis("limits.handshake_ms", raw.handshake_ms, d.handshake),
        drain: p.millis("limits.drain_ms", raw.drain_ms, d.drain),
        refresh: p.millis("limits.refresh_ms", raw.refresh_ms, d.refresh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, &Flags::default())
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let example = parse(include_str!("../../../firebreak.example.toml")).expect("valid");
        let flags = Flags { upstream: Some("kafka-1:9092".to_owned()), ..Flags::default() };
        let default = Config::parse("", &flags).expect("valid");
        assert_eq!(format!("{:?}", example.limits), format!("{:?}", default.limits));
        assert_eq!(format!("{:?}", example.listen), format!("{:?}", default.listen));
        assert_eq!(format!("{:?}", example.cluster), format!("{:?}", default.cluster));
        assert_eq!(example.admin, default.admin);
    }

    #[test]
    fn all_problems_are_told_at_once_with_their_keys() {
        let text = r#"
            [listen]
            bootstrap = "here"
            ports = "1-70000"
            proxy_protocol_from = ["nowhere"]
            [[cluster]]
            bootstrap = ["no port"]
            node_id_base = 7
            [[offload]]
            topics = []
            threshold_bytes = 1
            [[virtual_topic]]
            name = "bad name"
            [[throttle]]
            mode = "drain"
            [limits]
            drain_ms = 0
        "#;
        let Err(ConfigError(problems)) = parse(text) else { panic!("accepted") };
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        for key in [
            "listen.bootstrap",
            "listen.ports",
            "listen.proxy_protocol_from",
            "cluster.bootstrap",
            "cluster.node_id_base",
            "offload[0].topics",
            "offload[0].threshold_bytes",
            "offload",
            "virtual_topic[0].name",
            "throttle",
            "limits.drain_ms",
        ] {
            assert!(keys.contains(&key), "{key} is not among {keys:?}");
        }
    }

    #[test]
    fn what_follows_from_another_problem_is_not_told() {
        for text in ["[listen\nport = 9", "[cluster]\nbootstrap = [\"a:1\"]"] {
            let Err(ConfigError(problems)) = parse(text) else { panic!("accepted") };
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(told.len(), 1, "{told:?}");
        }
    }

    #[test]
    fn one_mistake_of_a_virtual_topic_hides_no_other() {
        let text = r#"
            [[cluster]]
            bootstrap = ["a:1"]
            [store]
            kind = "memory"
            [[offload]]
            topics = ["v"]
            [[region]]
            name = "x"
            [[virtual_topic]]
            name = "v"
            region = { field = "/r" }
            [[virtual_topic]]
            name = "v"
            partitions = -3
            region = { field = "/r" }
        "#;
        let Err(ConfigError(problems)) = parse(text) else { panic!("accepted") };
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        for key in ["partitions", "name", "region"] {
            let key = format!("virtual_topic[1].{key}");
            assert!(keys.contains(&&*key), "{key} is not among {keys:?}");
        }
    }

    #[test]
    fn a_wildcard_listener_needs_a_name_to_tell_clients() {
        let text = "[listen]\nbootstrap = \"0.0.0.0:19092\"\n[[cluster]]\nbootstrap = [\"a:1\"]";
        let Err(ConfigError(problems)) = parse(text) else { panic!("accepted") };
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "listen.advertise");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let Err(ConfigError(problems)) = parse("[listen]\nbootstrp = \"x\"") else {
            panic!("accepted")
        };
        assert_eq!(problems[0].key, "listen.bootstrp");
        assert!(problems[0].text.contains("here are: bootstrap"), "{}", problems[0].text);
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Flags {
            upstream: Some("b:2,[::1]:3".to_owned()),
            listen: Some("127.0.0.1:5000".to_owned()),
            ..Flags::default()
        };
        let config = Config::parse("[[cluster]]\nbootstrap = [\"a:1\"]", &flags).expect("valid");
        let expected = [("b".to_owned(), 2), ("::1".to_owned(), 3)];
        assert_eq!(config.cluster.bootstrap, expected);
        assert_eq!(config.listen.ports, Ports { first: 5001, last: 5100, mapped: Vec::new() });
    }
}
