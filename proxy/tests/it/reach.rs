//! Brokers behind names and addresses of which some are dead: nobody waits for those.
//!
//! A dead place is one of three: it refuses, it does not answer at all ([`Hole`]), or it takes
//! connections and says nothing (a node that is frozen).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::hole::Hole;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::{Checked, Faults, ensure, ensure_eq, until};

/// What the proxy logs when a whole attempt at the cluster failed.
const FAILED: &str = "cluster does not answer";

/// Waits until the cluster was reached, in the first attempt.
async fn reached_at_once(proxy: &Proxy) -> Checked {
    let seen = async || (proxy.logged(" ready ") + proxy.logged(FAILED) > 0).then_some(());
    until("the cluster", seen).await?;
    ensure_eq!(proxy.logged(FAILED), 0, "attempts at the cluster that failed");
    Ok(())
}

/// Of four places to ask first three are dead.
pub async fn dead_bootstraps_are_not_waited_for(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    let (_hole, hole) = Hole::at(SocketAddr::from(([127, 0, 0, 40], 0)));
    let refuses = "127.0.0.41:1".to_owned();
    let [frozen, lives] = brokers.bootstrap().try_into().expect("two places");
    brokers.freeze(0);
    let places = [refuses, hole.to_string(), frozen, lives];
    let setup = Setup::new(&brokers, faults).bootstrap(&places).not_ready();
    let proxy = setup.limit("connect_ms = 4000").start().await;
    reached_at_once(&proxy).await?;
    let mut client = Client::connect(proxy.node(1)).await?;
    client.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn dead_bootstraps_do_not_delay_the_start() -> Checked {
    dead_bootstraps_are_not_waited_for(None).await
}

/// Whoever wrote a wrong address reads it in the line that says that nothing works.
#[tokio::test]
async fn a_bootstrap_where_nobody_is_told_with_its_address() -> Checked {
    let brokers = Brokers::start(0).await;
    let setup = Setup::new(&brokers, None).bootstrap(&["127.0.0.41:1".to_owned()]).not_ready();
    let proxy = setup.refresh_ms(200).start().await;
    let lost = "no broker of the cluster answers: not ready";
    until("the line", async || (proxy.logged(lost) > 0).then_some(())).await?;
    let line = proxy.log().lines().find(|line| line.contains(lost)).map(str::to_owned);
    let line = line.unwrap_or_default();
    ensure!(line.contains("127.0.0.41:1: ") && line.contains("ERROR"), "the line: {line}");
    // A topic that is not virtual has no leader to wait for.
    let (code, why) = proxy.post("/topics/unknown/roll").await?;
    ensure_eq!(code, 404, "code of a roll of an unknown topic: {why}");
    Ok(())
}

/// Says this to whoever asks anything, and hangs up; for as long as its task is kept.
async fn stranger(says: &'static [u8]) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = listener.local_addr().expect("bound").to_string();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut asked = [0; 512];
            // Whoever asked may be gone.
            let _ = client.read(&mut asked).await;
            let _ = client.write_all(says).await;
        }
    });
    (serving, place)
}

/// A port of something else than Kafka is told for what it is.
#[tokio::test]
async fn a_bootstrap_that_is_another_server_is_told() -> Checked {
    const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 10];
    for (says, what) in [(HTTP, "this is an HTTP server"), (ALERT, "this is a TLS listener")] {
        let (_serving, place) = stranger(says).await;
        let brokers = Brokers::start(0).await;
        let line = format!("{place}: {what}");
        let proxy = Setup::new(&brokers, None).bootstrap(&[place]).not_ready().start().await;
        until(what, async || (proxy.logged(&line) > 0).then_some(())).await?;
        let (code, why) = proxy.admin("/readyz").await?;
        ensure!(code == 503 && why.contains(what), "readiness: {code} {why}");
    }
    Ok(())
}

/// The broker that the proxy asks falls silent; what the others know is learned from them.
pub async fn a_frozen_broker_is_not_waited_for(faults: Faults) -> Checked {
    let mut brokers = Brokers::start(2).await;
    let setup = Setup::new(&brokers, faults).refresh_ms(600_000).limit("connect_ms = 4000");
    let proxy = setup.start().await;
    // With nobody known yet, the first of the configuration was asked.
    brokers.freeze(0);
    brokers.add(2).await;
    let mut client = Client::connect(proxy.node(2)).await?;
    ensure_eq!(client.metadata(12).await?.brokers.len(), 3, "brokers told");
    ensure_eq!(proxy.logged(FAILED), 0, "attempts at the cluster that failed");
    Ok(())
}

#[tokio::test]
async fn a_frozen_broker_does_not_delay_what_is_learned() -> Checked {
    a_frozen_broker_is_not_waited_for(None).await
}

/// Hosts whose addresses are in a file, which the binary reads with the feature `failpoints` only.
#[cfg(feature = "failpoints")]
pub mod named {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;
    use crate::harness::proxy::Folder;

    const HOST: &str = "kafka.test";

    fn write(folder: &Folder, addresses: &[IpAddr]) -> std::path::PathBuf {
        let file = folder.path().join("names");
        let lines = addresses.iter().map(|ip| format!("{ip} {HOST}\n"));
        std::fs::write(&file, lines.collect::<String>()).expect("a file");
        file
    }

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    /// A port that is free at every one of these addresses.
    fn port_of_all(addresses: &[IpAddr]) -> u16 {
        loop {
            let first = TcpListener::bind((addresses[0], 0)).expect("a free port");
            let port = first.local_addr().expect("bound").port();
            if addresses[1..].iter().all(|ip| TcpListener::bind((*ip, port)).is_ok()) {
                return port;
            }
        }
    }

    /// One host, five addresses of two families, one of them alive and not the first of any.
    pub async fn dead_addresses_are_not_waited_for(faults: Faults) -> Checked {
        let mut brokers = Brokers::start(0).await;
        let port = brokers.add_at(0, SocketAddr::new(ip(2), 0), HOST).await;
        let dead = [Ipv6Addr::LOCALHOST.into(), ip(40), ip(41)];
        let _holes = dead.map(|ip| Hole::at(SocketAddr::new(ip, port)));
        let folder = Folder::new();
        let names = write(&folder, &[dead[0], dead[1], ip(42), dead[2], ip(2)]);
        let setup = Setup::new(&brokers, faults).names(names).limit("connect_ms = 4000");
        let proxy = setup.not_ready().start().await;
        reached_at_once(&proxy).await?;
        let mut client = Client::connect(proxy.node(0)).await?;
        client.metadata(12).await?;
        let log = proxy.log();
        ensure!(log.contains("upstream=kafka.test:"), "broker 0 is known by its address: {log}");
        Ok(())
    }

    #[tokio::test]
    async fn dead_addresses_of_a_host_do_not_delay_a_connection() -> Checked {
        dead_addresses_are_not_waited_for(None).await
    }

    /// A host gets another address and keeps name and port, as in a rolled stateful set.
    pub async fn a_host_that_moved_is_found(faults: Faults) -> Checked {
        let mut brokers = Brokers::start(0).await;
        let port = port_of_all(&[ip(2), ip(3), ip(4)]);
        brokers.add_at(0, SocketAddr::new(ip(2), port), HOST).await;
        let folder = Folder::new();
        let names = write(&folder, &[ip(2)]);
        let setup = Setup::new(&brokers, faults).names(names).limit("connect_ms = 2000");
        let proxy = setup.refresh_ms(600_000).start().await;
        for last in [3, 4] {
            let mut client = Client::connect(proxy.node(0)).await?;
            client.metadata(12).await?;
            brokers.stop(0);
            ensure!(client.receive_to_end().await?.is_empty(), "bytes from a broker that is gone");
            write(&folder, &[ip(last)]);
            brokers.add_at(0, SocketAddr::new(ip(last), port), HOST).await;
        }
        let mut client = Client::connect(proxy.node(0)).await?;
        client.metadata(12).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_host_is_looked_up_anew_for_every_connection() -> Checked {
        a_host_that_moved_is_found(None).await
    }
}
