//! What is not Kafka, or not offered, or not possible: closed, counted by kind, one line.

use bytes::Bytes;
use kafka_protocol::messages::{ListOffsetsResponse, ProduceResponse};
use protocol_ext::fake_broker::Fault;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::{fetch, list_offsets, metadata, produce};
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, noise, until};

/// A request frame's head and a null client id, for any key and version.
fn head(api: i16, version: i16) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 10];
    frame.extend_from_slice(&api.to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    frame
}

/// Sends bytes, expects nothing but a close, and that it was counted and said.
async fn refused(proxy: &Proxy, bytes: &[u8], blame: &str, kind: &str, line: &str) -> Checked {
    let metric = format!("firebreak_errors_total{{blame=\"{blame}\",kind=\"{kind}\"}}");
    let before = proxy.metric(&metric).await?;
    let lines = proxy.logged(line);
    let mut client = Client::connect(proxy.port).await?;
    client.send_raw(bytes).await?;
    let answer = client.receive_to_end().await?;
    ensure!(answer.is_empty(), "an answer of {} bytes to {bytes:?}", answer.len());
    proxy.metric_becomes(&metric, before + 1.0).await?;
    until("a line", async || (proxy.logged(line) > lines).then_some(())).await?;
    ensure_eq!(proxy.logged(line), lines + 1, "lines with \"{line}\"");
    Ok(())
}

#[tokio::test]
async fn unknown_and_hidden_apis_and_versions_are_closed_and_counted() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    for (api, version) in [(9999, 0), (-1, 0), (4, 0), (93, 0), (3, 14), (0, 14), (1, 19), (3, -1)]
    {
        let line = format!("(api key {api}) version {version}, which is not offered");
        refused(&proxy, &head(api, version), "client", "not_offered", &line).await?;
    }
    ensure_eq!(brokers.cluster().seen.iter().filter(|s| s.head.api == 9999).count(), 0, "passed");
    Ok(())
}

#[tokio::test]
async fn other_protocols_are_closed_with_one_clear_line() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    for (bytes, name) in [
        (&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..], "client speaks HTTP,"),
        (b"POST / HTTP/1.1\r\n\r\n", "client speaks HTTP,"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "client speaks HTTP/2,"),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 9, 9, 9, 9], "client speaks TLS,"),
    ] {
        refused(&proxy, bytes, "client", "not_kafka", name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn impossible_request_lengths_are_closed_and_take_no_memory() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let before = proxy.resident_bytes();
    for length in [-1, i32::MIN, 0, 1, 7, 104_857_601, i32::MAX] {
        let mut frame = head(3, 12);
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let line = format!("request of {length} bytes");
        refused(&proxy, &frame, "client", "frame_length", &line).await?;
    }
    let growth = proxy.resident_bytes_max().saturating_sub(before);
    ensure!(growth < 4 << 20, "memory grew by {growth} bytes");
    Ok(())
}

/// What is not taken ends the connection behind the answers to the requests before it, as with a
/// broker that takes one at a time, whether they come together or apart.
pub async fn answers_before_a_bad_request_arrive(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, faults).start().await;
    let good = request_frame(2, 7, 7, &list_offsets("t"));
    let mut long = head(3, 12);
    long[..4].copy_from_slice(&i32::MAX.to_be_bytes());
    // The last one ends inside its head.
    let bad = [(head(9999, 0), "not_offered"), (long, "frame_length"), (head(0, 9), "request")];
    for (bad, kind) in bad {
        for together in [true, false] {
            let mut client = Client::connect(proxy.port).await?;
            client.metadata(12).await?;
            let before = brokers.cluster().count(2);
            brokers.cluster().script(2, Fault::HoldAfter(0));
            let (first, then) = match together {
                true => ([&good[..], &bad[..]].concat(), Vec::new()),
                false => (good.to_vec(), bad.clone()),
            };
            client.send_raw(&first).await?;
            let asked = async || (brokers.cluster().count(2) > before).then_some(());
            until("the request", asked).await?;
            client.send_raw(&then).await?;
            tokio::time::sleep(QUIET).await;
            brokers.release();
            answer::<ListOffsetsResponse>(&client.receive().await?, 7, 7)?;
            ensure!(client.receive_to_end().await?.is_empty(), "bytes behind the answer");
        }
        let metric = format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
        proxy.metric_becomes(&metric, 2.0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_takes_no_answer_from_it() -> Checked {
    answers_before_a_bad_request_arrive(None).await
}

/// The same while the values of the good one are under way to the store.
#[tokio::test]
async fn a_bad_request_behind_a_value_takes_nothing_from_it() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).start().await;
    let good = request_frame(0, 9, 7, &produce(9, -1, "t", &[(0, single(noise(1, 5000)))]));
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    client.send_raw(&[&good[..], &head(0, 9)[..]].concat()).await?;
    let told: ProduceResponse = answer(&client.receive().await?, 9, 7)?;
    ensure_eq!(told.responses[0].partition_responses[0].error_code, 0, "error of Produce");
    ensure!(client.receive_to_end().await?.is_empty(), "bytes behind the answer");
    let metric = "firebreak_errors_total{blame=\"client\",kind=\"request\"}";
    proxy.metric_becomes(metric, 1.0).await
}

/// A broker that breaks the protocol in this way: the client is closed, the kind counted, no byte
/// of a later answer mixed in, and the next client served.
async fn broken(fault: Fault, api: i16, kind: &str) -> Checked {
    let brokers = Brokers::start(1).await;
    // What goes wrong is an answer to the client, not one to the proxy.
    let proxy = Setup::new(&brokers, None).refresh_ms(600_000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    let what = format!("{fault:?} on api {api}");
    brokers.cluster().script(api, fault);
    match api {
        3 => client.send(3, 12, &metadata(12)).await?,
        1 => client.send(1, 16, &fetch(16, "t", &[(0, 0)], 1 << 20)).await?,
        _ => client.send(2, 7, &list_offsets("t")).await?,
    };
    client.send(2, 7, &list_offsets("t")).await?;
    client.receive_to_end().await?;
    let metric = format!("firebreak_errors_total{{blame=\"upstream\",kind=\"{kind}\"}}");
    let counted = proxy.metric_becomes(&metric, 1.0).await;
    counted.map_err(|error| crate::harness::Failure(format!("{what}: {}", error.0)))?;
    let mut next = Client::connect(proxy.port).await?;
    next.metadata(12).await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_with_another_correlation_id_closes() -> Checked {
    for api in [1, 2, 3] {
        broken(Fault::WrongCorrelation, api, "order").await?;
    }
    Ok(())
}

#[tokio::test]
async fn answers_out_of_order_close() -> Checked {
    broken(Fault::AfterNext, 2, "order").await
}

#[tokio::test]
async fn an_answer_of_impossible_length_closes() -> Checked {
    broken(Fault::Length(-5), 2, "response_length").await?;
    broken(Fault::Length(3), 2, "response_length").await?;
    broken(Fault::Length(i32::MAX), 3, "response_length").await
}

#[tokio::test]
async fn an_answer_that_ends_inside_a_field_closes() -> Checked {
    broken(Fault::Truncated(30), 3, "response").await?;
    broken(Fault::Truncated(14), 1, "response").await
}

#[tokio::test]
async fn a_broker_that_closes_inside_an_answer_closes_the_client() -> Checked {
    for api in [1, 2, 3] {
        for after in [0, 3, 4, 9, 20] {
            if after > 0 {
                broken(Fault::CloseAfter(after), api, "broker_io").await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_close_the_client() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let unasked = Bytes::from_static(&[0, 0, 0, 6, 0, 0, 0, 9, 1, 1]);
    brokers.cluster().script(2, Fault::Unasked(unasked));
    client.send(2, 7, &list_offsets("t")).await?;
    let bytes = client.receive_to_end().await?;
    // The answer is there whole, or not at all if it came together with what breaks the protocol.
    let answer = bytes.get(..4).map_or(0, |n| 4 + usize::from(n[2]) * 256 + usize::from(n[3]));
    ensure_eq!(bytes.len(), answer, "bytes passed, of which the answer is");
    let metric = "firebreak_errors_total{blame=\"upstream\",kind=\"unasked\"}";
    proxy.metric_becomes(metric, 1.0).await
}

#[tokio::test]
async fn a_broker_that_never_answers_holds_only_its_own_client() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut held = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::Never);
    held.send(2, 7, &list_offsets("t")).await?;
    let mut other = Client::connect(proxy.port).await?;
    for _ in 0..50 {
        other.metadata(12).await?;
    }
    ensure!(held.is_quiet().await, "an answer came from nowhere");
    Ok(())
}
