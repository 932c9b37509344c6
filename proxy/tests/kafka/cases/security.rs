//! TLS, SASL and ACLs of real brokers, with three clients and more: what passes through is what it
//! is directly, what ends at the proxy is proved there, and what is forbidden stays forbidden.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::DescribeAclsRequest;
use kafka_protocol::protocol::StrBytes;
use serde_json::{Value, json};

use self::clients::{Client, Login};
use super::command;
use crate::certs::{Certificate, write};
use crate::proxy::{HOST, Proxy, Tables};
use crate::raw::Raw;
use crate::rig::{Place, Rig, tell};
use crate::secured::{ALICE, BOOTSTRAP_NAME, BROKER_NAMES, FIREBREAK, Secured};

mod clients;
#[cfg(feature = "failpoints")]
pub mod mutants;

/// SCRAM of both hashes, PLAIN and bearer tokens pass through TLS on both sides, unread.
pub fn sasl_passes_through(rig: &mut Rig) {
    let proxy = proxy(rig, "", &upstream(rig, "SCRAM-SHA-512"), "");
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
        let login = Login::alice(rig, mechanism);
        for client in Client::ALL.into_iter().chain(Client::more(mechanism)) {
            let what = format!("{client:?}, {mechanism} through");
            compare(rig, &proxy, false, &what, |rig, place| {
                let outcome = client.round(rig, place, &login);
                client.expect_all(&outcome, &what);
                outcome
            });
        }
        if mechanism == "OAUTHBEARER" {
            continue;
        }
        let login = Login::sasl(secured(rig), mechanism, (ALICE.0, "a guess"));
        for client in Client::ALL {
            let what = format!("{client:?}, {mechanism} through, a wrong password");
            compare(rig, &proxy, false, &what, |rig, place| {
                client.refused(rig, place, &login, &what)
            });
        }
    }
}

/// The proxy asks for the password itself; brokers see its own identity, or the client's.
pub fn sasl_ends_at_the_proxy(rig: &mut Rig) {
    for (brokers_see, own) in [("proxy", "SCRAM-SHA-512"), ("client", "SCRAM-SHA-256")] {
        let proxy = ending(rig, brokers_see, own, "");
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for client in Client::ALL.into_iter().chain(Client::more(mechanism)) {
                let what = format!("{client:?}, {mechanism}, brokers see the {brokers_see}");
                let place = topic(rig, &proxy, 1);
                let login = Login::alice(rig, mechanism);
                client.expect_all(&client.round(rig, &place, &login), &what);
                rig.executed();
            }
            for client in Client::ALL {
                wrong_password(rig, &proxy, client, mechanism);
            }
        }
    }
}

fn wrong_password(rig: &mut Rig, proxy: &Proxy, client: Client, mechanism: &str) {
    let place = topic(rig, proxy, 1);
    let login = Login::sasl(secured(rig), mechanism, (ALICE.0, "a guess"));
    client.refused(rig, &place, &login, &format!("{client:?}, {mechanism}, a wrong password"));
    rig.executed();
}

/// Brokers and the proxy want sessions renewed while a producer goes on (KIP-368).
pub fn sessions_are_renewed_under_load(rig: &mut Rig) {
    // Clients renew at nine tenths of the time: what is short ends late on a busy machine.
    let through = proxy(rig, "", &upstream(rig, "SCRAM-SHA-512"), "");
    under_load(rig, &through, "SCRAM-SHA-256", Duration::from_secs(25), |_| ());
    let ending = ending(rig, "client", "SCRAM-SHA-256", ", session_ms = 10000");
    under_load(rig, &ending, "SCRAM-SHA-512", Duration::from_secs(21), |_| ());
}

/// Both sides want certificates: brokers see the proxy's, the proxy looks at its clients'.
pub fn certificates_of_clients(rig: &mut Rig) {
    let proxy = asking_for_certificates(rig);
    let strangers = crate::certs::Authority::new("strangers");
    let clients = &secured(rig).clients;
    let certificates: [(&str, Option<Certificate>); 4] = [
        ("a good certificate", Some(clients.sign(&["alice"]))),
        ("an expired one", Some(clients.sign_until(&["alice"], 2021))),
        ("a stranger's", Some(strangers.sign(&["alice"]))),
        ("none", None),
    ];
    for (n, (which, own)) in certificates.iter().enumerate() {
        for client in Client::ALL {
            let what = format!("{client:?}, {which}");
            let login = certificate(rig, own.as_ref());
            compare(rig, &proxy, true, &what, |rig, place| {
                if n == 0 {
                    let outcome = client.round(rig, place, &login);
                    client.expect_all(&outcome, &what);
                    return outcome;
                }
                client.refused(rig, place, &login, &what);
                json!("refused")
            });
        }
    }
}

/// A proxy that shows brokers a certificate and wants one of its clients.
fn asking_for_certificates(rig: &Rig) -> Proxy {
    let own = secured(rig).clients.sign(&["firebreak"]);
    let (cert, key) = own.write(&secured(rig).file(""), "own");
    let ca = secured(rig).file("servers.pem");
    let brokers = rig.cluster.secured_bootstrap(true);
    let cluster =
        format!("bootstrap = {brokers:?}\ntls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}");
    let client_ca = secured(rig).file("clients.pem");
    proxy(rig, &format!(", client_ca = {client_ca:?}"), &cluster, "")
}

/// New certificates of the proxy are taken by new connections; a producer notices nothing.
pub fn certificates_rotate_under_load(rig: &mut Rig) {
    let proxy = proxy(rig, "", &upstream(rig, "PLAIN"), "");
    let time = Duration::from_secs(6);
    let verdict = under_load(rig, &proxy, "SCRAM-SHA-512", time, |rig| rotate(rig, &proxy));
    // One for the bootstrap and one for each broker, of each producer: all of them stayed.
    let connections = verdict["connections"].as_u64().unwrap();
    assert!((2..=2 * (1 + 3)).contains(&connections), "connections made anew: {verdict:#}");
}

fn rotate(rig: &mut Rig, proxy: &Proxy) {
    let folder = secured(rig).file("");
    let (mut taken, mut shown) = (0.0, vec![shown_by(proxy, None)]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        secured(rig).servers.sign(&[HOST]).write(&folder, "proxy");
        taken += 1.0;
        let reloads = "firebreak_file_reloads_total{result=\"ok\"}";
        wait("new certificates", 20, || proxy.metric(reloads) >= taken);
        shown.push(shown_by(proxy, None));
    }
    let all: std::collections::BTreeSet<_> = shown.iter().flatten().collect();
    assert_eq!(all.len(), 4, "certificates shown one after the other");
}

/// A certificate of the proxy that is expired, or another host's, is refused by every client.
pub fn expired_certificates(rig: &mut Rig) {
    let folder = secured(rig).file("");
    let servers = &secured(rig).servers;
    let expired = servers.sign_until(&[HOST], 2021);
    let other = servers.sign(&["127.0.0.77"]);
    for (which, own) in [("an expired certificate", expired), ("another host's", other)] {
        let proxy = proxy(rig, "", &upstream(rig, "PLAIN"), "");
        own.write(&folder, "proxy");
        wait(which, 20, || proxy.metric("firebreak_file_reloads_total{result=\"ok\"}") >= 1.0);
        for client in Client::ALL {
            let place = topic(rig, &proxy, 1);
            let login = Login::alice(rig, "PLAIN");
            client.refused(rig, &place, &login, &format!("{client:?}, {which}"));
            rig.executed();
        }
    }
}

/// Three brokers behind one port, told apart by the names of TLS handshakes.
pub fn one_port_with_names(rig: &mut Rig) {
    let proxy = named(rig);
    names_lead(rig, &proxy, &Client::ALL);
    let lost = || proxy.metric("firebreak_errors_total{blame=\"client\",kind=\"no_such_name\"}");
    assert!(lost() < 0.5, "a name led nowhere:\n{}", proxy.log_tail());
    for (name, times) in [("broker-9.elsewhere.test", 1.0), ("firebreak.test", 2.0)] {
        assert_eq!(shown_by(&proxy, Some(name)), None, "{name} was shown a certificate");
        wait(name, 10, || lost() >= times);
        rig.executed();
    }
    let name = BROKER_NAMES.replace("{node}", "3");
    assert!(shown_by(&proxy, Some(&name)).is_some(), "{name}: no certificate");
}

/// A proxy with one port and a name for each of three brokers.
fn named(rig: &Rig) -> Proxy {
    let names: Vec<String> =
        (1..=3).map(|id| BROKER_NAMES.replace("{node}", &id.to_string())).collect();
    let all: Vec<&str> = [BOOTSTRAP_NAME].into_iter().chain(names.iter().map(|n| &**n)).collect();
    let own = secured(rig).servers.sign(&all);
    let (cert, key) = own.write(&secured(rig).file(""), "named");
    let listen = format!("tls = {{ cert = {cert:?}, key = {key:?} }}\nsni = {BROKER_NAMES:?}");
    let (cluster, advertise) = (upstream(rig, "PLAIN"), BOOTSTRAP_NAME.to_owned());
    let more = String::new();
    Proxy::configured(Tables { advertise, listen, cluster, more }, rig.faults.as_deref())
}

/// What is led by one of the brokers is written and read there.
fn names_lead(rig: &mut Rig, proxy: &Proxy, clients: &[Client]) {
    for client in clients {
        if !client.takes_names() {
            tell(&format!("{client:?} is left out: no file of hosts of its own (unshare)"));
            continue;
        }
        for broker in 1..=3 {
            let mut place = topic_on(rig, proxy, broker);
            place.bootstrap = format!("{BOOTSTRAP_NAME}:{}", proxy.port);
            let outcome = client.round(rig, &place, &Login::alice(rig, "SCRAM-SHA-256"));
            client.expect_all(&outcome, &format!("{client:?}, one port, broker {broker}"));
            rig.executed();
        }
    }
}

/// What brokers forbid a client: directly, through the proxy, and where the proxy itself reads and
/// writes parts of a virtual topic for it.
pub fn acls_hold(rig: &mut Rig) {
    for (operation, wrote, read) in
        [("WRITE", false, true), ("READ", true, false), ("DESCRIBE", false, false)]
    {
        let through = proxy(rig, "", &upstream(rig, "PLAIN"), "");
        for client in Client::ALL {
            let what = format!("{client:?}, {operation} denied");
            compare(rig, &through, false, &what, |rig, place| {
                deny(rig, operation, &json!({"topic": place.topic}));
                let login = Login::alice(rig, "PLAIN");
                let outcome = client.round(rig, place, &login);
                client.expect(&outcome, &what, wrote, read);
                outcome
            });
        }
        let name = format!("virtual-{}", operation.to_lowercase());
        let table = virtual_topic(&name);
        let login = Login::alice(rig, "PLAIN");
        for ends in [false, true] {
            let proxy = match ends {
                false => proxy(rig, "", &upstream(rig, "PLAIN"), &table),
                true => ending_with(rig, "client", "PLAIN", "", &table),
            };
            let place = place(&proxy, &name);
            if !ends {
                for client in Client::ALL {
                    let outcome = client.round(rig, &place, &login);
                    client.expect_all(&outcome, &format!("{client:?}, nothing denied"));
                    rig.executed();
                }
                deny(rig, operation, &json!({"prefix": name}));
            }
            for client in Client::ALL {
                let what = format!("{client:?}, {operation} denied, through legs");
                client.expect(&client.round(rig, &place, &login), &what, wrote, read);
                rig.executed();
            }
        }
    }
}

/// The shortest of it: who may not write does not, also not from the start.
pub fn writes_forbidden_through_legs(rig: &mut Rig) {
    let name = format!("virtual-{}", uuid::Uuid::new_v4().simple());
    let proxy = ending_with(rig, "client", "PLAIN", "", &virtual_topic(&name));
    deny(rig, "WRITE", &json!({"prefix": name}));
    let outcome = Client::FranzGo.round(rig, &place(&proxy, &name), &Login::alice(rig, "PLAIN"));
    Client::FranzGo.expect(&outcome, "WRITE denied", false, true);
    rig.executed();
}

/// The table of a virtual topic with two parts.
fn virtual_topic(name: &str) -> String {
    format!(
        "[[virtual_topic]]\nname = {name:?}\npartitions = 1\n\
         region = {{ header = \"region\" }}\n[[region]]\nname = \"norcal\"\n"
    )
}

fn certificate(rig: &Rig, own: Option<&Certificate>) -> Login {
    Login::certificate(secured(rig), own)
}

fn secured(rig: &Rig) -> &Secured {
    rig.cluster.secured.as_ref().unwrap()
}

/// Lines of `[[cluster]]`: the brokers' listeners for SASL, and the proxy's own identity.
fn upstream(rig: &Rig, mechanism: &str) -> String {
    let brokers = rig.cluster.secured_bootstrap(false);
    let secured = secured(rig);
    let ca = secured.file("servers.pem");
    let password = write(&secured.file(""), "own-password", FIREBREAK.1);
    format!(
        "bootstrap = {brokers:?}\ntls = {{ ca = {ca:?} }}\nsasl = {{ mechanism = \"{mechanism}\", \
         username = \"{}\", password_file = {password:?} }}",
        FIREBREAK.0
    )
}

/// A proxy with TLS to clients and brokers.
fn proxy(rig: &Rig, tls: &str, cluster: &str, more: &str) -> Proxy {
    proxy_with(rig, tls, "", cluster, more)
}

fn proxy_with(rig: &Rig, tls: &str, listen: &str, cluster: &str, more: &str) -> Proxy {
    let own = secured(rig).servers.sign(&[HOST]);
    let (cert, key) = own.write(&secured(rig).file(""), "proxy");
    let listen = format!("tls = {{ cert = {cert:?}, key = {key:?}{tls} }}\n{listen}");
    let (advertise, cluster, more) = (HOST.to_owned(), cluster.to_owned(), more.to_owned());
    Proxy::configured(Tables { advertise, listen, cluster, more }, rig.faults.as_deref())
}

/// A proxy where SASL ends.
fn ending(rig: &Rig, brokers_see: &str, own: &str, sasl: &str) -> Proxy {
    ending_with(rig, brokers_see, own, sasl, "")
}

fn ending_with(rig: &Rig, brokers_see: &str, own: &str, sasl: &str, more: &str) -> Proxy {
    let text = format!("{}:{}\n", ALICE.0, ALICE.1);
    let users = write(&secured(rig).file(""), "proxy-users", &text);
    let listen = format!(
        "sasl = {{ mechanisms = [\"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\"], \
         users_file = {users:?}, brokers_see = {brokers_see:?}{sasl} }}"
    );
    proxy_with(rig, "", &listen, &upstream(rig, own), more)
}

fn place(proxy: &Proxy, topic: &str) -> Place {
    let mut place = Place::proxied(proxy.port, &[], topic);
    place.bootstrap = format!("{HOST}:{}", proxy.port);
    place
}

/// A topic of its own with one partition, led by this broker.
fn topic_on(rig: &mut Rig, proxy: &Proxy, broker: usize) -> Place {
    let topic = format!("secured-{}", uuid::Uuid::new_v4().simple());
    let mut all = rig.cluster.brokers();
    all.rotate_left(broker - 1);
    rig.create_topic_on(&topic, &[all]);
    place(proxy, &topic)
}

/// A topic of its own, made directly, for a client of `proxy`.
fn topic(rig: &mut Rig, proxy: &Proxy, partitions: usize) -> Place {
    let topic = format!("secured-{}", uuid::Uuid::new_v4().simple());
    rig.create_topic(&topic, partitions);
    place(proxy, &topic)
}

/// Runs a case directly and through `proxy`; both outcomes must be equal.
fn compare(
    rig: &mut Rig,
    proxy: &Proxy,
    certificates: bool,
    what: &str,
    case: impl Fn(&mut Rig, &Place) -> Value,
) {
    let mut direct = topic(rig, proxy, 1);
    direct.bootstrap = rig.cluster.secured_bootstrap(certificates).join(",");
    (direct.proxied, direct.brokers) = (false, BTreeMap::new());
    let proxied = topic(rig, proxy, 1);
    let outcomes = [direct, proxied].map(|place| case(rig, &place));
    assert!(outcomes[0] == outcomes[1], "{what}: {:#} directly, {:#}", outcomes[0], outcomes[1]);
    rig.equal();
}

fn deny(rig: &mut Rig, operation: &str, what: &Value) {
    let mut deny = what.clone();
    deny["bootstrap"] = json!(rig.cluster.bootstrap());
    deny["principal"] = json!(format!("User:{}", ALICE.0));
    deny["operation"] = json!(operation);
    rig.java.must("deny", deny);
    // All brokers learn it from the log of the controller, each at its own time.
    let denied = denied(operation, what);
    for id in rig.cluster.brokers() {
        let address = rig.cluster.address(id);
        wait(&format!("an ACL at broker {id}"), 30, || knows(&address, &denied));
    }
}

/// What asks a broker for just the rule that `deny` makes, as Kafka numbers these things.
fn denied(operation: &str, what: &Value) -> DescribeAclsRequest {
    const TOPIC: i8 = 2;
    const DENY: i8 = 2;
    let (pattern_type, name) = match (what["topic"].as_str(), what["prefix"].as_str()) {
        (Some(topic), _) => (3, topic),
        (None, Some(prefix)) => (4, prefix),
        (None, None) => panic!("neither a topic nor a prefix in {what}"),
    };
    let operation = match operation {
        "READ" => 3,
        "WRITE" => 4,
        "DESCRIBE" => 8,
        other => panic!("{other} is not denied by any test"),
    };
    let text = |text: &str| Some(StrBytes::from_string(text.to_owned()));
    DescribeAclsRequest::default()
        .with_resource_type_filter(TOPIC)
        .with_resource_name_filter(text(name))
        .with_pattern_type_filter(pattern_type)
        .with_principal_filter(text(&format!("User:{}", ALICE.0)))
        // The crate's own default is an empty name, which is that of no host.
        .with_host_filter(None)
        .with_operation(operation)
        .with_permission_type(DENY)
}

/// Whether a broker's own authoriser, which decides about its clients, knows a rule.
fn knows(address: &str, rule: &DescribeAclsRequest) -> bool {
    const VERSION: i16 = 3;
    let answer = Raw::connect(address).and_then(|mut raw| raw.call(VERSION, rule));
    let answer = answer.unwrap_or_else(|error| panic!("{address}: {error}"));
    assert_eq!(answer.error_code, 0, "DescribeAcls at {address}: {:?}", answer.error_message);
    !answer.resources.is_empty()
}

/// A producer that goes on for a time while something happens; nothing is lost, doubled or failed.
fn under_load(
    rig: &mut Rig,
    proxy: &Proxy,
    mechanism: &str,
    time: Duration,
    happens: impl FnOnce(&mut Rig),
) -> Value {
    let place = topic(rig, proxy, 3);
    let login = Login::alice(rig, mechanism);
    let load = json!({"partitions": 3, "producers": 2, "transactional": false,
        "config": login.java()});
    rig.java.must("load-start", command(&place, &load));
    let acked = |rig: &mut Rig| {
        rig.java.must("load-acked", json!({"topic": place.topic})).as_u64().unwrap()
    };
    let until = Instant::now() + time;
    happens(rig);
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    let before = acked(rig);
    let over = "firebreak_errors_total{blame=\"client\",kind=\"session_over\"}";
    assert!(proxy.metric(over) < 0.5, "sessions ended:\n{}", proxy.log_tail());
    wait("the load to go on", 60, || acked(rig) > before + 100);
    let bootstrap = rig.cluster.bootstrap();
    let verdict = rig.java.must("load-stop", json!({"bootstrap": bootstrap, "topic": place.topic}));
    for nothing in ["lost", "doubled", "reordered"] {
        super::expect(&verdict, &format!("/{nothing}"), 0);
    }
    tell(&format!("under load: {verdict}"));
    let errors = verdict["errors"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(errors, 0, "{verdict:#}");
    rig.executed();
    verdict
}

/// The certificate that a proxy shows now to who asks for this name, or for none.
fn shown_by(proxy: &Proxy, name: Option<&str>) -> Option<String> {
    let mut show = std::process::Command::new("openssl");
    show.args(["s_client", "-connect", &format!("{HOST}:{}", proxy.port)]);
    match name {
        Some(name) => show.args(["-servername", name]),
        None => show.arg("-noservername"),
    };
    show.stdin(std::process::Stdio::null());
    let shown = show.output().expect("openssl is needed");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let begin = text.find("-----BEGIN CERTIFICATE")?;
    Some(text[begin..text.find("-----END CERTIFICATE")?].to_owned())
}

fn wait(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < until, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}
