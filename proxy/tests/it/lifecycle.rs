//! From the first byte of a connection to the drain of the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ListOffsetsResponse, MetadataResponse, ProduceResponse};
use protocol_ext::fake_broker::Fault;
use tokio::task::JoinSet;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::requests::{fetch, list_offsets, metadata, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};

const MIB: usize = 1024 * 1024;

/// SIGTERM: what is in flight is answered, then the connection and the process end.
pub async fn drain_answers_what_is_in_flight(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let mut proxy = Setup::new(&brokers, faults).start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    brokers.cluster().script(2, Fault::HoldAfter(10));
    let opaque = client.send(2, 7, &list_offsets("t")).await?;
    let patched = client.send(3, 12, &metadata(12)).await?;
    let last = client.send(2, 7, &list_offsets("t")).await?;
    let taken = |api: &str, class: &str| {
        format!("firebreak_requests_total{{api=\"{api}\",class=\"{class}\"}}")
    };
    // One of Metadata went before.
    proxy.metric_becomes(&taken("Metadata", "patch"), 2.0).await?;
    proxy.metric_becomes(&taken("ListOffsets", "opaque"), 2.0).await?;
    proxy.terminate();
    until("the drain", async || (proxy.logged(" draining ") > 0).then_some(())).await?;
    brokers.release();
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, opaque)?;
    answer::<MetadataResponse>(&client.receive().await?, 12, patched)?;
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, last)?;
    ensure!(client.receive_to_end().await?.is_empty(), "bytes behind the last answer");
    let status = proxy.ended().await?;
    ensure!(status.success(), "the process ended with {status}");
    ensure_eq!(proxy.logged(" stopped"), 1, "lines about the end");
    Ok(())
}

#[tokio::test]
async fn a_drain_answers_what_is_in_flight_and_ends_the_process() -> Checked {
    drain_answers_what_is_in_flight(None).await
}

#[tokio::test]
async fn a_drain_loses_no_byte_of_an_answer_though_the_client_goes_on_asking() -> Checked {
    let brokers = Brokers::start(1).await;
    let mut proxy = Setup::new(&brokers, None).start().await;
    let batch = single(noise(8, 20 * MIB));
    brokers.cluster().log("t", 0).expect("a log").append(&batch).expect("a batch");
    let mut client = Client::connect_with_buffer(proxy.port, 64 * 1024).await?;
    client.metadata(12).await?;
    let large = client.send(1, 11, &fetch(11, "t", &[(0, 0)], i32::MAX)).await?;
    let sent = || brokers.counts(0).sent.load(Ordering::Relaxed);
    until("the answer on its way", async || (sent() > MIB).then_some(())).await?;
    proxy.terminate();
    until("the drain", async || (proxy.logged(" draining ") > 0).then_some(())).await?;
    // The proxy reads none of these; closing over them must not cut what it still sends.
    for n in 0..200 {
        client.send_raw(&request_frame(2, 7, 1000 + n, &list_offsets("t"))).await?;
    }
    let frame = client.receive().await?;
    let fetched: kafka_protocol::messages::FetchResponse = answer(&frame, 11, large)?;
    let records = fetched.responses[0].partitions[0].records.clone().unwrap_or_default();
    ensure!(records[16..] == batch[16..], "the answer is not whole");
    // Requests that were not read have no answer.
    let rest = client.receive_to_end().await?;
    ensure!(rest.is_empty(), "{} bytes behind the answer", rest.len());
    let status = proxy.ended().await?;
    ensure!(status.success(), "the process ended with {status}");
    Ok(())
}

/// What one client sent in the order of its counter, and how many of them were answered.
struct Sent {
    batches: Vec<Bytes>,
    answered: usize,
}

/// Produces with many requests in flight until the connection ends, and checks every answer.
async fn pipeline(port: u16, seed: u64) -> Checked<Sent> {
    const IN_FLIGHT: usize = 16;
    let mut client = Client::connect(port).await?;
    let mut sent = Sent { batches: Vec::new(), answered: 0 };
    let mut first = None;
    loop {
        while sent.batches.len() < sent.answered + IN_FLIGHT {
            let batch = single(noise(seed + sent.batches.len() as u64, 400));
            let request = produce(9, -1, "t", &[(0, batch.clone())]);
            // The proxy may have closed already: the answers tell.
            if let Ok(correlation) = client.send(0, 9, &request).await {
                first.get_or_insert(correlation);
            }
            sent.batches.push(batch);
        }
        let Some(frame) = client.receive_or_end().await? else { return Ok(sent) };
        let due = first.unwrap_or(0) + i32::try_from(sent.answered).map_err(failure)?;
        let told: ProduceResponse = answer(&frame, 9, due)?;
        ensure_eq!(told.responses[0].partition_responses[0].error_code, 0, "error of Produce");
        sent.answered += 1;
    }
}

/// What reached a broker before the drain ended is answered, every connection ends without a reset,
/// and what was not answered can be sent again elsewhere: nothing is lost or doubled.
pub async fn pipelines_survive_a_drain(faults: Faults) -> Checked {
    const CLIENTS: u64 = 8;
    let brokers = Brokers::start(1).await;
    let mut proxy = Setup::new(&brokers, faults).start().await;
    let other = Setup::new(&brokers, None).start().await;
    let log = || brokers.cluster().log("t", 0).expect("a log").end();
    let port = proxy.port;
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        clients.spawn(pipeline(port, n * 1_000_000));
    }
    until("load", async || (log() > 2000).then_some(())).await?;
    proxy.terminate();
    let status = proxy.ended().await?;
    ensure!(status.success(), "the process ended with {status}");
    ensure_eq!(proxy.logged("drain_ms ran out"), 0, "lines about a drain that took too long");
    let mut sent = Vec::new();
    while let Some(client) = clients.join_next().await {
        sent.push(client.map_err(failure)??);
    }
    let answered: usize = sent.iter().map(|one| one.answered).sum();
    ensure_eq!(i64::try_from(answered).map_err(failure)?, log(), "answers, batches at the broker");
    let mut again = Client::connect(other.port).await?;
    let mut all = 0;
    for one in &sent {
        all += one.batches.len();
        for batch in &one.batches[one.answered..] {
            ensure_eq!(again.produce(9, "t", 0, batch).await?.0, 0, "error of Produce");
        }
    }
    ensure!(all > answered, "nothing was in flight at the end");
    ensure_eq!(i64::try_from(all).map_err(failure)?, log(), "batches sent, batches at the broker");
    Ok(())
}

#[tokio::test]
async fn a_drain_under_load_loses_and_doubles_nothing() -> Checked {
    pipelines_survive_a_drain(None).await
}

/// A connection whose task panics leaves, and takes no place for ever.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_connection_that_panics_gives_its_place_back() -> Checked {
    let brokers = Brokers::start(1).await;
    // Any point on the way of a connection does.
    let panics = Some("silent-client-connects=2*panic");
    // One client more than those two is not waited for long.
    let limits = "connections_max = 1\nfirst_request_ms = 1000";
    let proxy = Setup::new(&brokers, panics).limit(limits).start().await;
    // The second one comes in only once the first has given its place back.
    until("two panics", async || {
        let mut client = Client::connect(proxy.port).await.ok()?;
        client.receive_to_end().await.ok()?;
        (proxy.logged("panicked") > 1).then_some(())
    })
    .await?;
    until("a place", async || {
        let mut client = Client::connect(proxy.port).await.ok()?;
        client.metadata(12).await.ok()
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_ends_idle_and_silent_clients_at_once() -> Checked {
    let brokers = Brokers::start(1).await;
    let mut proxy = Setup::new(&brokers, None).limit("drain_ms = 20000").start().await;
    let mut idle = Client::connect(proxy.port).await?;
    idle.metadata(12).await?;
    let mut silent = Client::connect(proxy.port).await?;
    let mut half = Client::connect(proxy.port).await?;
    half.send_raw(&request_frame(2, 7, 1, &list_offsets("t"))[..9]).await?;
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 3.0).await?;
    proxy.terminate();
    for client in [&mut idle, &mut silent, &mut half] {
        ensure!(client.receive_to_end().await?.is_empty(), "bytes from nowhere");
    }
    ensure!(proxy.ended().await?.success(), "the process failed");
    ensure_eq!(proxy.logged("drain_ms ran out"), 0, "lines about a drain that took too long");
    Ok(())
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut_and_says_how_many_were_open() -> Checked {
    let brokers = Brokers::start(1).await;
    let mut proxy = Setup::new(&brokers, None).limit("drain_ms = 500").start().await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::Never);
    client.send(2, 7, &list_offsets("t")).await?;
    until("the request", async || (brokers.cluster().count(2) > 0).then_some(())).await?;
    proxy.terminate();
    ensure!(proxy.ended().await?.success(), "the process failed");
    ensure_eq!(proxy.logged("drain_ms ran out"), 1, "lines about it");
    ensure_eq!(proxy.logged("aborted=1"), 1, "lines that say how many");
    Ok(())
}

#[tokio::test]
async fn a_draining_proxy_is_alive_and_not_ready_and_accepts_nobody() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    ensure_eq!(proxy.admin("/readyz").await?.0, 200, "status when ready");
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::HoldAfter(0));
    client.send(2, 7, &list_offsets("t")).await?;
    until("the request", async || (brokers.cluster().count(2) > 0).then_some(())).await?;
    proxy.terminate();
    until("the drain", async || (proxy.logged(" draining ") > 0).then_some(())).await?;
    ensure_eq!(proxy.admin("/livez").await?.0, 200, "alive while draining");
    let (code, why) = proxy.admin("/readyz").await?;
    ensure_eq!((code, why.as_str()), (503, "draining\n"), "readiness while draining");
    let port = proxy.port;
    until("no listener", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err().then_some(())
    })
    .await?;
    brokers.release();
    client.receive().await?;
    Ok(())
}

#[tokio::test]
async fn a_silent_client_holds_no_broker_connection() -> Checked {
    silent_clients_hold_no_broker(None).await
}

/// No broker is gone to before a request's head is there.
pub async fn silent_clients_hold_no_broker(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).start().await;
    let frame = request_frame(2, 7, 1, &list_offsets("t"));
    let accepted = brokers.counts(0).accepted.load(Ordering::Relaxed);
    let mut silent = Vec::new();
    for n in 0..24 {
        let mut client = Client::connect(proxy.port).await?;
        // Even a head that is not whole is no reason to go to a broker.
        client.send_raw(&frame[..n % 12]).await?;
        silent.push(client);
    }
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 24.0).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let now = brokers.counts(0).accepted.load(Ordering::Relaxed);
    ensure_eq!(now, accepted, "connections at the broker");
    proxy.metric_becomes("firebreak_connections{side=\"broker\"}", 0.0).await?;
    let last = silent.last_mut().expect("one of them");
    last.send_raw(&frame[11..]).await?;
    answer::<ListOffsetsResponse>(&last.receive().await?, 7, 1)?;
    let now = brokers.counts(0).accepted.load(Ordering::Relaxed);
    ensure_eq!(now, accepted + 1, "connections at the broker after a request");
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_asks_is_closed_in_the_end() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("first_request_ms = 300").start().await;
    let mut client = Client::connect(proxy.port).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "bytes for a silent client");
    proxy.metric_becomes("firebreak_errors_total{blame=\"client\",kind=\"silent\"}", 1.0).await
}

#[tokio::test]
async fn a_home_broker_that_closes_closes_the_client() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    brokers.hang_up(0);
    ensure!(client.receive_to_end().await?.is_empty(), "bytes from a broker that is gone");
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 0.0).await?;
    proxy.metric_becomes("firebreak_connections{side=\"broker\"}", 0.0).await?;
    let mut again = Client::connect(proxy.port).await?;
    again.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_broker_connection() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let open = brokers.counts(0).open.load(Ordering::Relaxed);
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    drop(client);
    proxy.metric_becomes("firebreak_connections{side=\"broker\"}", 0.0).await?;
    let now = || brokers.counts(0).open.load(Ordering::Relaxed);
    until("a close at the broker", async || (now() <= open).then_some(())).await
}

#[tokio::test]
async fn a_client_that_only_closes_its_sending_side_still_gets_its_answers() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::Delay(Duration::from_millis(300)));
    let batch = single(noise(9, 500));
    let first = client.send(2, 7, &list_offsets("t")).await?;
    client.send(0, 9, &produce(9, 0, "t", &[(0, batch)])).await?;
    client.finish().await?;
    answer::<ListOffsetsResponse>(&client.receive().await?, 7, first)?;
    ensure!(client.receive_to_end().await?.is_empty(), "bytes behind the last answer");
    until("the batch with acks=0", async || {
        brokers.cluster().log("t", 0).filter(|log| log.end() == 1).map(|_| ())
    })
    .await
}

#[tokio::test]
async fn a_proxy_without_a_broker_is_alive_not_ready_and_says_why() -> Checked {
    let mut brokers = Brokers::start(1).await;
    let setup = Setup::new(&brokers, None).not_ready();
    brokers.stop(0);
    let proxy = setup.start().await;
    let ready = until("the admin port", async || proxy.admin("/readyz").await.ok()).await?;
    ensure_eq!(ready.0, 503, "readiness");
    ensure!(ready.1.contains("cluster fake was not reached yet"), "reason: {}", ready.1);
    let status = proxy.admin("/status").await?.1;
    let status: serde_json::Value = serde_json::from_str(&status).map_err(failure)?;
    ensure_eq!(status["ready"], serde_json::Value::Bool(false), "status");
    Ok(())
}

/// A cluster of which no broker answers any more makes the proxy not ready, and one that does,
/// ready again.
pub async fn a_lost_cluster_is_told(faults: Faults) -> Checked {
    let mut brokers = Brokers::start(2).await;
    let proxy = Setup::new(&brokers, faults).limit("connect_ms = 2000").start().await;
    proxy.metric_becomes("firebreak_brokers", 2.0).await?;
    ensure_eq!(proxy.admin("/readyz").await?.0, 200, "readiness");
    let port = brokers.cluster().nodes[0].port;
    brokers.stop(0);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    ensure_eq!(proxy.admin("/readyz").await?.0, 200, "readiness with one broker");
    brokers.stop(1);
    let mut last = String::new();
    let lost = until("no readiness", async || {
        let (code, reason) = proxy.admin("/readyz").await.ok()?;
        last = reason;
        (code == 503).then_some(())
    });
    lost.await.map_err(|_| failure(format!("a lost cluster is still called {last}")))?;
    ensure!(last.contains("no broker of cluster fake answers for"), "reason: {last}");
    until("a line", async || (proxy.logged("not ready") > 0).then_some(())).await?;
    // It comes back where it was configured.
    let address = format!("{}:{port}", Brokers::host(0)).parse().map_err(failure)?;
    brokers.add_at(0, address, &Brokers::host(0)).await;
    let ready = async || (proxy.admin("/readyz").await.ok()?.0 == 200).then_some(());
    until("readiness", ready).await?;
    until("a line", async || (proxy.logged("cluster answers again") == 1).then_some(())).await
}

#[tokio::test]
async fn a_proxy_whose_cluster_is_lost_is_not_ready_until_it_is_back() -> Checked {
    a_lost_cluster_is_told(None).await
}

#[tokio::test]
async fn a_proxy_that_reaches_no_broker_by_a_port_is_not_ready() -> Checked {
    let mut brokers = Brokers::start(0).await;
    brokers.add(7).await;
    let proxy = Setup::new(&brokers, None).not_ready().start().await;
    proxy.metric_becomes("firebreak_brokers_without_port", 1.0).await?;
    let (code, why) = proxy.admin("/readyz").await?;
    ensure!(code == 503 && why.contains("widen listen.ports"), "readiness: {code} {why}");
    Ok(())
}

#[tokio::test]
async fn brokers_without_a_port_are_counted() -> Checked {
    let mut brokers = Brokers::start(1).await;
    brokers.add(7).await;
    let proxy = Setup::new(&brokers, None).start().await;
    proxy.metric_becomes("firebreak_brokers", 2.0).await?;
    proxy.metric_becomes("firebreak_brokers_without_port", 1.0).await
}

#[tokio::test]
async fn more_clients_are_served_than_the_soft_limit_of_open_files_lets() -> Checked {
    let brokers = Brokers::start(1).await;
    let limits = "connections_max = 5000000";
    let proxy = Setup::new(&brokers, None).limit(limits).open_files(64).start().await;
    let mut clients = Vec::new();
    for _ in 0..80 {
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(12).await?;
        clients.push(client);
    }
    let told = "open files suffice for f";
    proxy.says(told, 1).await?;
    let log = proxy.log();
    ensure!(log.find(" started: ") < log.find(told), "files are told before the start: {log}");
    Ok(())
}

#[tokio::test]
async fn clients_beyond_the_limit_are_closed_and_those_before_it_served() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("connections_max = 2").start().await;
    let mut first = Client::connect(proxy.port).await?;
    first.metadata(12).await?;
    let mut second = Client::connect(proxy.port).await?;
    second.metadata(12).await?;
    ensure!(
        Client::is_turned_away(proxy.port).await?,
        "a client too many was closed in good order"
    );
    until("a line", async || (proxy.logged("connections_max reached") > 0).then_some(())).await?;
    drop(first);
    proxy.metric_becomes("firebreak_connections{side=\"client\"}", 1.0).await?;
    // The place is given back a little later than the socket.
    until("a place", async || {
        let mut fourth = Client::connect(proxy.port).await.ok()?;
        fourth.metadata(12).await.ok()
    })
    .await?;
    second.metadata(12).await?;
    Ok(())
}
