//! TLS to clients and to brokers: who is trusted, what is renewed, what is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustls::ClientConfig;

use crate::harness::broker::Brokers;
use crate::harness::certs::{Authority, Certificate, write};
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::metadata;
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

const MIB: usize = 1024 * 1024;
/// Names of the fake brokers' certificates.
const BROKERS: [&str; 3] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];

/// The line of `[listen]` for a certificate written to `folder`.
fn listen(folder: &Folder, own: &Certificate, clients: Option<&Authority>) -> String {
    let (cert, key) = own.write(folder.path(), "proxy");
    let clients = clients.map(|ca| write(folder.path(), "clients.pem", &ca.pem()));
    let client_ca = clients.map(|file| format!(", client_ca = {file:?}")).unwrap_or_default();
    format!("tls = {{ cert = {cert:?}, key = {key:?}{client_ca} }}")
}

/// The line of `[[cluster]]` for brokers of an authority, written to `folder`.
fn cluster(folder: &Folder, brokers: &Authority, own: Option<&Certificate>) -> String {
    let ca = write(folder.path(), "brokers.pem", &brokers.pem());
    let own = own.map(|own| own.write(folder.path(), "own"));
    let own = own.map(|(cert, key)| format!(", cert = {cert:?}, key = {key:?}"));
    format!("tls = {{ ca = {ca:?}{} }}", own.unwrap_or_default())
}

async fn connect(proxy: &Proxy, tls: &Arc<ClientConfig>) -> Checked<Client> {
    Client::connect_tls(proxy.port, "127.0.0.1", tls).await
}

/// Whether a client gets an answer; the refusal of its certificate may come with the first read.
async fn served(proxy: &Proxy, tls: &Arc<ClientConfig>) -> Checked<bool> {
    let Ok(mut client) = connect(proxy, tls).await else { return Ok(false) };
    Ok(client.metadata(12).await.is_ok())
}

async fn closed(proxy: &Proxy, kind: &str, before: f64) -> Checked {
    let metric = format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
    proxy.metric_becomes(&metric, before).await
}

/// One line says it.
async fn said(proxy: &Proxy, line: &str) -> Checked {
    proxy.says(line, 1).await
}

#[tokio::test]
async fn records_come_back_as_they_were_through_tls_on_both_sides() -> Checked {
    let (folder, front, back) = (Folder::new(), Authority::new("front"), Authority::new("back"));
    let tls = Authority::server(&back.sign(&BROKERS), None);
    let brokers = Brokers::start_with(2, Some(tls)).await;
    let own = front.sign(&["127.0.0.1", "localhost"]);
    let setup = Setup::new(&brokers, None).listen(&listen(&folder, &own, None));
    let proxy = setup.cluster(&cluster(&folder, &back, None)).start().await;
    let mut client = connect(&proxy, &front.client(None)).await?;
    ensure_eq!(client.metadata(12).await?.brokers.len(), 2, "brokers told");
    for n in 0..4 {
        let batch = single(noise(n, MIB + usize::try_from(n).map_err(failure)?));
        let (error, offset) = client.produce(11, "t", 0, &batch).await?;
        ensure_eq!(error, 0, "error of Produce");
        let (error, records) = client.fetch(12, "t", 0, offset, i32::MAX).await?;
        ensure_eq!(error, 0, "error of Fetch");
        ensure!(records[17..] == batch[17..], "the batch came back otherwise");
    }
    Ok(())
}

#[tokio::test]
async fn pipelined_requests_of_any_cut_are_answered_in_order_through_tls() -> Checked {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let brokers = Brokers::start(1).await;
    let own = front.sign(&["127.0.0.1"]);
    let proxy = Setup::new(&brokers, None).listen(&listen(&folder, &own, None)).start().await;
    let mut client = connect(&proxy, &front.client(None)).await?;
    let mut frames = Vec::new();
    for correlation in 0..50 {
        frames.extend_from_slice(&request_frame(3, 12, correlation, &metadata(12)));
    }
    client.send_slowly(&frames[..200]).await?;
    client.send_raw(&frames[200..]).await?;
    for correlation in 0..50_i32 {
        let answer: Bytes = client.receive().await?;
        ensure_eq!(answer[..4], correlation.to_be_bytes(), "correlation id");
    }
    Ok(())
}

#[tokio::test]
async fn clients_must_show_a_certificate_where_one_is_asked() -> Checked {
    client_certificates_are_checked(None).await
}

/// Only certificates of the configured authority that are valid now open the door.
pub async fn client_certificates_are_checked(faults: Faults) -> Checked {
    let (folder, front, users) = (Folder::new(), Authority::new("front"), Authority::new("users"));
    let brokers = Brokers::start(1).await;
    let own = front.sign(&["127.0.0.1"]);
    let setup = Setup::new(&brokers, faults).listen(&listen(&folder, &own, Some(&users)));
    let proxy = setup.start().await;
    let (good, old) = (users.sign(&["alice"]), users.sign_until(&["alice"], 2021));
    let other = Authority::new("strangers").sign(&["alice"]);
    ensure!(served(&proxy, &front.client(Some(&good))).await?, "a good certificate was refused");
    for (n, (own, why)) in
        [(None, "no certificate"), (Some(&old), "an old one"), (Some(&other), "UnknownIssuer")]
            .into_iter()
            .enumerate()
    {
        let refused = !served(&proxy, &front.client(own)).await?;
        ensure!(refused, "a client was served with {why}");
        closed(&proxy, "tls", f64::from(u32::try_from(n + 1).map_err(failure)?)).await?;
    }
    for line in ["peer sent no certificates", "certificate expired", "UnknownIssuer"] {
        said(&proxy, line).await?;
    }
    Ok(())
}

#[tokio::test]
async fn brokers_see_the_proxys_certificate_and_theirs_is_checked() -> Checked {
    let (folder, back, proxies) = (Folder::new(), Authority::new("back"), Authority::new("p"));
    let good = Authority::server(&back.sign(&BROKERS), Some(&proxies));
    let brokers = Brokers::start_with(1, Some(good)).await;
    let own = proxies.sign(&["firebreak"]);
    let setup = Setup::new(&brokers, None).cluster(&cluster(&folder, &back, Some(&own)));
    let proxy = setup.start().await;
    let mut client = Client::connect(proxy.port).await?;
    ensure_eq!(client.metadata(12).await?.brokers.len(), 1, "brokers told");
    for (shown, why) in [
        (back.sign(&["127.0.0.9"]), "not valid for name"),
        (back.sign_until(&BROKERS, 2021), "certificate expired"),
        (Authority::new("strangers").sign(&BROKERS), "UnknownIssuer"),
    ] {
        let brokers = Brokers::start_with(1, Some(Authority::server(&shown, None))).await;
        let setup = Setup::new(&brokers, None).cluster(&cluster(&folder, &back, Some(&own)));
        let proxy = setup.not_ready().start().await;
        let told = until(why, async || {
            let (code, text) = proxy.admin("/readyz").await.ok()?;
            (code == 503 && text.contains("TLS")).then_some(text)
        });
        let told = told.await?;
        ensure!(told.contains(why), "{why} is not in {told}");
        ensure_eq!(brokers.cluster().seen.len(), 0, "requests to a broker that is not trusted");
    }
    Ok(())
}

#[tokio::test]
async fn certificates_are_renewed_without_dropping_a_connection() -> Checked {
    certificates_are_renewed(None).await
}

/// New files are taken for new connections, old connections live on, damaged files change nothing.
pub async fn certificates_are_renewed(faults: Faults) -> Checked {
    let (folder, old, new) = (Folder::new(), Authority::new("old"), Authority::new("new"));
    let brokers = Brokers::start(1).await;
    let line = listen(&folder, &old.sign(&["127.0.0.1"]), None);
    let proxy = Setup::new(&brokers, faults).listen(&line).start().await;
    let mut before = connect(&proxy, &old.client(None)).await?;
    before.metadata(12).await?;
    new.sign(&["127.0.0.1"]).write(folder.path(), "proxy");
    let taken = "firebreak_file_reloads_total{result=\"ok\"}";
    proxy.metric_becomes(taken, 1.0).await?;
    before.metadata(12).await?;
    ensure!(served(&proxy, &new.client(None)).await?, "the new certificate is not shown");
    ensure!(!served(&proxy, &old.client(None)).await?, "the old certificate is shown");
    write(folder.path(), "proxy.key", &new.sign(&["x"]).key);
    proxy.metric_becomes("firebreak_file_reloads_total{result=\"failed\"}", 1.0).await?;
    said(&proxy, "stays in force").await?;
    ensure!(served(&proxy, &new.client(None)).await?, "the certificate in force is gone");
    before.metadata(12).await?;
    ensure_eq!(brokers.counts(0).accepted.load(Ordering::Relaxed) > 0, true, "at the broker");
    Ok(())
}

#[tokio::test]
async fn what_is_no_tls_is_closed_with_one_clear_line() -> Checked {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let brokers = Brokers::start(1).await;
    let own = front.sign(&["127.0.0.1"]);
    let proxy = Setup::new(&brokers, None).listen(&listen(&folder, &own, None)).start().await;
    let kafka = request_frame(3, 12, 1, &metadata(12));
    let http = b"GET / HTTP/1.1\r\n\r\n";
    for (n, (bytes, line)) in
        [(&kafka[..], "Kafka without TLS"), (http, "HTTP without TLS"), (&[9; 40], "no TLS")]
            .into_iter()
            .enumerate()
    {
        let mut client = Client::connect_plain(proxy.port).await?;
        client.send_raw(bytes).await?;
        ensure!(client.receive_to_end().await?.is_empty(), "an answer to {line}");
        closed(&proxy, "not_tls", f64::from(u32::try_from(n + 1).map_err(failure)?)).await?;
        let line = format!("client speaks {line} to a TLS port");
        said(&proxy, &line).await?;
    }
    let mut client = Client::connect_plain(proxy.port).await?;
    client.send_raw(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]).await?;
    client.receive_to_end().await?;
    closed(&proxy, "tls", 1.0).await
}

#[tokio::test]
async fn slow_handshakes_are_closed_and_hold_no_broker() -> Checked {
    slow_handshakes_end(None).await
}

/// A handshake that does not end in time is closed, and no broker was connected for it.
pub async fn slow_handshakes_end(faults: Faults) -> Checked {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let brokers = Brokers::start(1).await;
    let own = front.sign(&["127.0.0.1"]);
    let setup = Setup::new(&brokers, faults).listen(&listen(&folder, &own, None));
    let proxy = setup.limit("handshake_ms = 2000").start().await;
    let open = brokers.counts(0).open.load(Ordering::Relaxed);
    let mut silent = Client::connect_plain(proxy.port).await?;
    let mut slow = Client::connect_plain(proxy.port).await?;
    slow.send_raw(&[0x16, 3, 1, 2, 0, 1, 0]).await?;
    ensure!(silent.receive_to_end().await?.is_empty(), "an answer to silence");
    slow.receive_to_end().await?;
    closed(&proxy, "slow_handshake", 2.0).await?;
    let now = brokers.counts(0).open.load(Ordering::Relaxed);
    ensure!(now <= open, "{now} connections at the broker, {open} before");
    ensure!(served(&proxy, &front.client(None)).await?, "a good client was not served");
    Ok(())
}

#[tokio::test]
async fn clients_that_have_nothing_to_prove_leave_room_for_others_after_tls() -> Checked {
    unproven_ends_with_the_handshake(None).await
}

/// A client that shook hands and is silent is no longer one of `unproven_max`.
pub async fn unproven_ends_with_the_handshake(faults: Faults) -> Checked {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let brokers = Brokers::start(1).await;
    let own = front.sign(&["127.0.0.1"]);
    let setup = Setup::new(&brokers, faults).listen(&listen(&folder, &own, None));
    let proxy = setup.limit("unproven_max = 1").start().await;
    let _silent = connect(&proxy, &front.client(None)).await?;
    let room = async || served(&proxy, &front.client(None)).await.ok()?.then_some(());
    until("room beside a silent client", room).await?;
    let _slow = Client::connect_plain(proxy.port).await?;
    let full = "firebreak_errors_total{blame=\"client\",kind=\"full\"}";
    let refused = async || {
        let _ = served(&proxy, &front.client(None)).await;
        (proxy.metric(full).await.ok()? > 0.0).then_some(())
    };
    let refused = until("a full house", refused).await;
    refused.map_err(|error| failure(format!("{}, the log: {}", error.0, proxy.log())))
}

/// What the tests of names start: three brokers behind one port.
async fn named(faults: Faults, brokers: &Brokers) -> (Folder, Authority, Proxy) {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let own = front.sign(&["kafka.example.org", "*.brokers.example.org"]);
    let setup = Setup::new(brokers, faults).listen(&listen(&folder, &own, None));
    let setup = setup.sni("{cluster}-{node}.brokers.example.org").advertise("kafka.example.org");
    let proxy = setup.start().await;
    (folder, front, proxy)
}

#[tokio::test]
async fn each_name_stands_for_its_broker_behind_one_port() -> Checked {
    let brokers = Brokers::start(3).await;
    let (_folder, front, proxy) = named(None, &brokers).await;
    let tls = front.client(None);
    let mut client = Client::connect_tls(proxy.port, "Kafka.example.org", &tls).await?;
    let told = client.metadata(12).await?.brokers;
    ensure_eq!(told.len(), 3, "brokers told");
    for broker in told {
        let host = format!("fake-{}.brokers.example.org", broker.node_id.0);
        ensure_eq!(broker.host.as_str(), host.as_str(), "host of a broker");
        ensure_eq!(broker.port, i32::from(proxy.port), "port of a broker");
        let mut client = Client::connect_tls(proxy.port, &host, &tls).await?;
        brokers.cluster().seen.clear();
        client.metadata(12).await?;
        let asked = |node| move |s: &&_| is_clients(s, node);
        let here = brokers.cluster().seen.iter().filter(asked(broker.node_id.0)).count();
        ensure_eq!(here, 1, "requests at broker {}", broker.node_id.0);
    }
    ensure!(std::net::TcpStream::connect(("127.0.0.1", proxy.node(0))).is_err(), "a second port");
    Ok(())
}

fn is_clients(seen: &protocol_ext::fake_broker::Seen, node: i32) -> bool {
    seen.node == node && seen.head.correlation > 99
}

#[tokio::test]
async fn names_that_stand_for_no_broker_are_closed() -> Checked {
    unknown_names_are_closed(None).await
}

/// A handshake for another name, or for none, ends with one clear line.
pub async fn unknown_names_are_closed(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let (_folder, front, proxy) = named(faults, &brokers).await;
    let names = ["other.brokers.example.org", "fake-00.brokers.example.org", "127.0.0.1"];
    for (n, name) in names.into_iter().enumerate() {
        let connected = Client::connect_tls(proxy.port, name, &front.client(None)).await;
        ensure!(connected.is_err(), "{name} was served");
        closed(&proxy, "no_such_name", f64::from(u32::try_from(n + 1).map_err(failure)?)).await?;
        let asked = if n < 2 { name } else { "(none)" };
        let line = format!("client asked for the host {asked}, which is no name of this proxy");
        said(&proxy, &line).await?;
    }
    Ok(())
}

/// A drain resets who has not come through the handshake.
pub async fn a_drain_resets_who_shakes_hands(faults: Faults) -> Checked {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let brokers = Brokers::start(1).await;
    let own = front.sign(&["127.0.0.1"]);
    let proxy = Setup::new(&brokers, faults).listen(&listen(&folder, &own, None)).start().await;
    let mut silent = Client::connect_plain(proxy.port).await?;
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 1.0).await?;
    proxy.terminate();
    ensure!(silent.is_reset().await?, "by a drain it was closed in good order");
    Ok(())
}

#[tokio::test]
async fn a_client_that_shakes_hands_when_a_drain_begins_is_reset() -> Checked {
    a_drain_resets_who_shakes_hands(None).await
}
