//! Clients behind a load balancer that tells where they are (PROXY protocol).

use crate::harness::broker::Brokers;
use crate::harness::certs::Authority;
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::requests::metadata;
use crate::harness::{Checked, Faults, ensure, ensure_eq, until};

/// Clients come from 127.0.0.1, which is the balancer here.
const BALANCER: &str = "proxy_protocol_from = [\"10.0.0.0/8\", \"127.0.0.1\"]";

/// A header of version 1 for a client at this address.
fn line(address: &str) -> Vec<u8> {
    format!("PROXY TCP4 {address} 10.0.0.1 4711 9092\r\n").into_bytes()
}

/// The same in version 2, with an extension behind the addresses.
fn binary(address: [u8; 4]) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let rest = [&address[..], &[10, 0, 0, 1], &4711_u16.to_be_bytes(), &[35, 132, 4, 0, 1, 9]];
    let rest = rest.concat();
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&signature[..], &[0x21, 0x11], &length, &rest].concat()
}

async fn start(faults: Faults, brokers: &Brokers) -> Proxy {
    let setup = Setup::new(brokers, faults).listen(BALANCER);
    setup.limit("handshake_ms = 2000\nconnections_per_address_max = 1").start().await
}

async fn behind(proxy: &Proxy, header: &[u8]) -> Checked<Client> {
    let mut client = Client::connect(proxy.port).await?;
    client.send_raw(header).await?;
    Ok(client)
}

async fn closed(proxy: &Proxy, kind: &str, times: f64) -> Checked {
    let metric = format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
    proxy.metric_becomes(&metric, times).await
}

#[tokio::test]
async fn clients_behind_a_balancer_are_counted_by_their_own_addresses() -> Checked {
    addresses_of_headers_count(None).await
}

/// The bound of one address and the log speak of the client, not of the balancer.
pub async fn addresses_of_headers_count(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = start(faults, &brokers).await;
    let mut open = Vec::new();
    for header in [line("10.1.2.3"), binary([10, 1, 2, 4]), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = behind(&proxy, &header).await?;
        ensure_eq!(client.metadata(12).await?.brokers.len(), 1, "brokers told");
        open.push(client);
    }
    let mut second = behind(&proxy, &binary([10, 1, 2, 3])).await?;
    let reset = second.is_reset().await.unwrap_or(false);
    ensure!(reset, "a second client of an address was served, or saw an end");
    closed(&proxy, "full", 1.0).await?;
    let line = "10.1.2.3:4711";
    until("a line", async || (proxy.logged(line) == 1).then_some(())).await?;
    drop(open);
    let again = async || {
        let mut client = behind(&proxy, &binary([10, 1, 2, 3])).await.ok()?;
        client.metadata(12).await.ok()
    };
    until("room for the address", again).await?;
    Ok(())
}

#[tokio::test]
async fn what_comes_without_a_header_from_a_balancer_is_closed_and_counted() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = start(None, &brokers).await;
    let long = [&binary([1, 2, 3, 4])[..14], &[0xff, 0xff], &[0; 5000]].concat();
    let kafka = request_frame(3, 12, 1, &metadata(12));
    let bad = [
        &kafka[..],
        &long,
        b"PROXY TCP4 10.1.2.3.4 10.0.0.1 1 2\r\n",
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for (n, bytes) in (1..).zip(bad) {
        let mut client = behind(&proxy, bytes).await?;
        ensure!(client.receive_to_end().await?.is_empty(), "an answer to {bytes:?}");
        closed(&proxy, "proxy_header", f64::from(n)).await?;
    }
    // A part of a header, and nothing at all.
    for (n, bytes) in (1..).zip([&binary([1, 2, 3, 4])[..20], b""]) {
        let mut client = behind(&proxy, bytes).await?;
        ensure!(client.receive_to_end().await?.is_empty(), "an answer to a part of a header");
        closed(&proxy, "slow_handshake", f64::from(n)).await?;
    }
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 0.0).await?;
    let mut client = behind(&proxy, &line("10.9.9.9")).await?;
    client.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn headers_of_strangers_are_not_believed() -> Checked {
    headers_of_strangers_are_closed(None).await
}

/// Who is no balancer speaks for itself, with no header, or is closed.
pub async fn headers_of_strangers_are_closed(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = start(faults, &brokers).await;
    for (n, header) in (1..).zip([line("10.1.2.3"), binary([10, 1, 2, 3])]) {
        let mut client = Client::connect_from(7, proxy.port).await?;
        client.send_raw(&header).await?;
        client.send(3, 12, &metadata(12)).await?;
        let answer = client.receive_to_end().await;
        ensure!(answer.is_ok_and(|all| all.is_empty()), "a stranger's header was believed");
        closed(&proxy, "not_kafka", f64::from(n)).await?;
    }
    let mut client = Client::connect_from(7, proxy.port).await?;
    ensure_eq!(client.metadata(12).await?.brokers.len(), 1, "brokers told to who has no header");
    Ok(())
}

#[tokio::test]
async fn tls_begins_behind_the_header() -> Checked {
    let (brokers, folder, front) = (Brokers::start(1).await, Folder::new(), Authority::new("f"));
    let (cert, key) = front.sign(&["127.0.0.1"]).write(folder.path(), "proxy");
    let tls = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let proxy = Setup::new(&brokers, None).listen(BALANCER).listen(&tls).start().await;
    for header in [line("10.1.2.3"), binary([10, 1, 2, 4])] {
        let tls = front.client(None);
        let host = "127.0.0.1";
        let mut client = Client::connect_tls_behind(&header, proxy.port, host, &tls).await?;
        ensure_eq!(client.metadata(12).await?.brokers.len(), 1, "brokers told");
    }
    let mut client = Client::connect_from(7, proxy.port).await?;
    client.send_raw(&line("10.1.2.3")).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer to a stranger's header");
    let line = "client speaks the PROXY protocol to a TLS port";
    until("a line", async || (proxy.logged(line) == 1).then_some(())).await
}

#[tokio::test]
async fn a_header_that_nobody_asked_for_is_told_by_its_name() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = behind(&proxy, &line("10.1.2.3")).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "an answer to a header");
    let line = "client speaks the PROXY protocol, not the Kafka protocol";
    until("a line", async || (proxy.logged(line) == 1).then_some(())).await
}
