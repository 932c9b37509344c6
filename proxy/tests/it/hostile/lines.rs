//! However many connections peers break, the log stays readable, and nothing is left uncounted.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, until};

const FLOOD: usize = 300;

/// A flood of one kind writes few lines and uses up no other kind's; all closes are counted, and
/// how many lines were left out is told.
pub async fn a_flood_writes_few_lines(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).start().await;
    let started = tokio::time::Instant::now();
    for _ in 0..FLOOD {
        let mut client = Client::connect(proxy.port).await?;
        client.send_raw(b"GET / HTTP/1.1\r\n\r\n").await?;
        client.receive_to_end().await?;
    }
    let metric = "firebreak_errors_total{blame=\"client\",kind=\"not_kafka\"}";
    proxy.metric_becomes(metric, FLOOD as f64).await?;
    let mut client = Client::connect(proxy.port).await?;
    client.send_raw(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).await?;
    client.receive_to_end().await?;
    let other = "request of 1 bytes";
    until("a line of another kind", async || (proxy.logged(other) > 0).then_some(())).await?;
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap_or(0);
    let lines = proxy.logged("client speaks HTTP,");
    ensure!((10..=12 + seconds).contains(&lines), "{lines} lines of a flood of {FLOOD}");
    // The flood is over; what was left out is told all the same, with a later line or by itself.
    let mut told = (0, 0);
    let all = until("what was left out", async || {
        let log = proxy.log();
        let left_out = log.lines().filter_map(|line| {
            let number = line.split("left_out=").nth(1)?.split(' ').next()?;
            number.parse::<usize>().ok()
        });
        told = (proxy.logged("client speaks HTTP,"), left_out.sum());
        (told.0 + told.1 >= FLOOD).then_some(())
    });
    all.await.map_err(|_| failure(format!("lines, left out: {told:?} of {FLOOD}")))?;
    ensure_eq!(told.0 + told.1, FLOOD, "lines and what they say was left out");
    Ok(())
}

#[tokio::test]
async fn a_flood_of_broken_connections_writes_few_lines_and_is_counted_whole() -> Checked {
    a_flood_writes_few_lines(None).await
}

#[tokio::test]
async fn a_client_that_resets_inside_a_request_is_counted_and_frees_its_broker() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).await.map_err(failure)?;
    let start = [0, 0, 1, 0, 0, 3, 0, 12, 0, 0, 0, 1, 0, 0];
    client.write_all(&start).await.map_err(failure)?;
    let open = "firebreak_connections{side=\"broker\"}";
    proxy.metric_becomes(open, 1.0).await?;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).map_err(failure)?;
    drop(client);
    let kind = "firebreak_errors_total{blame=\"client\",kind=\"client_io\"}";
    proxy.metric_becomes(kind, 1.0).await?;
    proxy.metric_becomes(open, 0.0).await?;
    ensure_eq!(proxy.logged("connection closed"), 0, "lines about a client that went away");
    Ok(())
}
