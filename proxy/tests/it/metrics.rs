//! Counts tell what happened, exactly.

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::requests::{list_offsets, metadata, produce};
use crate::harness::{Checked, ensure, ensure_eq, noise};

#[tokio::test]
async fn requests_bytes_and_connections_are_counted_exactly() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let (mut sent, mut received) = (0, 0);
    let batch = single(noise(1, 4000));
    for n in 0..10 {
        for (frame, answered) in [
            (request_frame(3, 12, n, &metadata(12)), true),
            (request_frame(2, 7, n, &list_offsets("t")), true),
            (request_frame(0, 9, n, &produce(9, -1, "t", &[(0, batch.clone())])), true),
            (request_frame(0, 9, n, &produce(9, 0, "t", &[(0, batch.clone())])), false),
        ] {
            client.send_raw(&frame).await?;
            sent += frame.len();
            if answered {
                received += 4 + client.receive().await?.len();
            }
        }
    }
    let requests = |api: &str, class: &str| {
        format!("firebreak_requests_total{{api=\"{api}\",class=\"{class}\"}}")
    };
    for (api, class, count) in
        [("Metadata", "patch", 10.0), ("ListOffsets", "opaque", 10.0), ("Produce", "peek", 20.0)]
    {
        proxy.metric_becomes(&requests(api, class), count).await?;
    }
    for (api, count) in [("Metadata", 10.0), ("ListOffsets", 10.0), ("Produce", 10.0)] {
        let metric = format!("firebreak_request_seconds_count{{api=\"{api}\"}}");
        proxy.metric_becomes(&metric, count).await?;
    }
    let bytes = |direction: &str| format!("firebreak_bytes_total{{direction=\"{direction}\"}}");
    proxy.metric_becomes(&bytes("from_client"), sent as f64).await?;
    proxy.metric_becomes(&bytes("to_broker"), sent as f64).await?;
    proxy.metric_becomes(&bytes("to_client"), received as f64).await?;
    for side in ["client", "broker"] {
        let metric = format!("firebreak_connections{{side=\"{side}\"}}");
        proxy.metric_becomes(&metric, 1.0).await?;
    }
    drop(client);
    for side in ["client", "broker"] {
        let metric = format!("firebreak_connections{{side=\"{side}\"}}");
        proxy.metric_becomes(&metric, 0.0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_admin_port_shows_status_and_the_effective_configuration() -> Checked {
    let brokers = Brokers::start(2).await;
    let proxy = Setup::new(&brokers, None).advertise("proxy.test").start().await;
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
    let status = json(proxy.admin("/status").await?.1);
    ensure_eq!(status["ready"], true, "readiness");
    ensure_eq!(status["bootstrap"], format!("proxy.test:{}", proxy.port), "bootstrap address");
    ensure_eq!(status["clusters"][0]["brokers"][1]["port"], proxy.node(1), "port of broker 1");
    let config = json(proxy.admin("/config").await?.1);
    ensure_eq!(config["listen"]["advertise"], "proxy.test", "advertised host");
    ensure_eq!(config["limits"]["refresh_ms"], 200, "a limit");
    let (code, text) = proxy.admin("/metrics").await?;
    ensure!(code == 200 && text.ends_with("# EOF\n"), "metrics end with {:?}", text.lines().last());
    ensure_eq!(proxy.admin("/nothing").await?.0, 404, "code of an unknown page");
    Ok(())
}
