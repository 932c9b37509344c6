//! No upstream address reaches a client: every row of the table of addresses, every version.
//!
//! Each row is a check of its own, so that the fault that switches its rewriting off is seen.

use bytes::Bytes;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource as Altered;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::requests::metadata;
use crate::harness::{Checked, Faults, ensure, ensure_eq};

/// The host that clients are told.
pub const ADVERTISED: &str = "proxy.test";

/// Fails if bytes sent to a client name an upstream host.
pub fn no_upstream_in(bytes: &[u8], what: &str) -> Checked {
    for name in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "upstream"] {
        let found = memchr::memmem::find(bytes, name.as_bytes());
        ensure!(found.is_none(), "{what} names {name}");
    }
    Ok(())
}

async fn start(faults: Faults) -> (Brokers, Proxy) {
    let brokers = Brokers::start(3).await;
    let proxy = Setup::new(&brokers, faults).advertise(ADVERTISED).start().await;
    (brokers, proxy)
}

/// (id, host, port) of the three brokers as clients must be told.
fn virtual_brokers(proxy: &Proxy) -> Vec<(i32, String, i32)> {
    let told = |id: u16| (i32::from(id), ADVERTISED.to_owned(), i32::from(proxy.node(id)));
    (0..3).map(told).collect()
}

/// Sends a request and gives the answer's frame, searched for hosts.
async fn asked(client: &mut Client, frame: &[u8], what: &str) -> Checked<Bytes> {
    client.send_raw(frame).await?;
    let frame = client.receive().await?;
    no_upstream_in(&frame, what)?;
    Ok(frame)
}

/// Metadata, versions 0 to 13.
pub async fn metadata_names_virtual_brokers(faults: Faults) -> Checked {
    let (_brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    for version in 0..=13 {
        let what = format!("Metadata {version}");
        let frame = request_frame(3, version, 9, &metadata(version));
        let frame = asked(&mut client, &frame, &what).await?;
        let answer: MetadataResponse = answer(&frame, version, 9)?;
        let told = answer.brokers.iter().map(|b| (b.node_id.0, b.host.to_string(), b.port));
        ensure_eq!(told.collect::<Vec<_>>(), virtual_brokers(&proxy), "{what}");
        ensure_eq!(answer.topics[0].partitions[1].leader_id.0, 1, "leader in {what}");
    }
    Ok(())
}

/// FindCoordinator, versions 0 to 6: one coordinator, then a batch.
pub async fn find_coordinator_names_virtual_brokers(faults: Faults) -> Checked {
    let (_brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    let first = virtual_brokers(&proxy).remove(0);
    for version in 0..=6 {
        let what = format!("FindCoordinator {version}");
        let keys = vec![StrBytes::from_static_str("a"), StrBytes::from_static_str("b")];
        let request = FindCoordinatorRequest::default();
        let request = if version >= 4 {
            request.with_coordinator_keys(keys)
        } else {
            request.with_key(StrBytes::from_static_str("a"))
        };
        let frame = request_frame(10, version, 9, &request);
        let frame = asked(&mut client, &frame, &what).await?;
        let answer: FindCoordinatorResponse = answer(&frame, version, 9)?;
        let told: Vec<_> = if version >= 4 {
            let rows = answer.coordinators.iter();
            rows.map(|c| (c.node_id.0, c.host.to_string(), c.port)).collect()
        } else {
            vec![(answer.node_id.0, answer.host.to_string(), answer.port)]
        };
        ensure_eq!(told.len(), if version >= 4 { 2 } else { 1 }, "coordinators in {what}");
        ensure!(told.iter().all(|row| *row == first), "{what} tells {told:?}");
    }
    Ok(())
}

/// DescribeCluster, versions 0 to 2.
pub async fn describe_cluster_names_virtual_brokers(faults: Faults) -> Checked {
    let (_brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    for version in 0..=2 {
        let what = format!("DescribeCluster {version}");
        let frame = request_frame(60, version, 9, &DescribeClusterRequest::default());
        let frame = asked(&mut client, &frame, &what).await?;
        let answer: DescribeClusterResponse = answer(&frame, version, 9)?;
        let told = answer.brokers.iter().map(|b| (b.broker_id.0, b.host.to_string(), b.port));
        ensure_eq!(told.collect::<Vec<_>>(), virtual_brokers(&proxy), "{what}");
    }
    Ok(())
}

/// DescribeQuorum, versions 0 to 2: every listener of a controller is the proxy's.
pub async fn describe_quorum_names_virtual_brokers(faults: Faults) -> Checked {
    let (_brokers, proxy) = start(faults).await;
    let mut client = Client::connect(proxy.port).await?;
    for version in 0..=2 {
        let what = format!("DescribeQuorum {version}");
        let frame = request_frame(55, version, 9, &DescribeQuorumRequest::default());
        let frame = asked(&mut client, &frame, &what).await?;
        let answer: DescribeQuorumResponse = answer(&frame, version, 9)?;
        let told = answer.nodes.iter().flat_map(|node| {
            let listeners = node.listeners.iter();
            listeners.map(|l| (node.node_id.0, l.host.to_string(), i32::from(l.port)))
        });
        let twice = virtual_brokers(&proxy).into_iter().flat_map(|broker| [broker.clone(), broker]);
        let expected: Vec<_> = if version < 2 { Vec::new() } else { twice.collect() };
        ensure_eq!(told.collect::<Vec<_>>(), expected, "{what}");
    }
    Ok(())
}

/// DescribeConfigs of a broker: listeners are the virtual ones, quorum addresses are not told, a
/// value that merely holds a host is not told either, other values stay; synonyms likewise.
pub async fn describe_configs_hides_listeners(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let values = [
        ("listeners", "PLAINTEXT://127.0.0.3:9092,CONTROLLER://127.0.0.3:9093"),
        ("advertised.listeners", "PLAINTEXT://127.0.0.3:9092"),
        ("controller.quorum.voters", "0@127.0.0.2:9093,1@127.0.0.3:9093"),
        ("controller.quorum.bootstrap.servers", "127.0.0.2:9093"),
        ("log.dirs", "/data/127.0.0.3/logs"),
        ("num.io.threads", "8"),
    ];
    let owned = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
    brokers.cluster().configs = owned.to_vec();
    let listener = format!("PLAINTEXT://{ADVERTISED}:{}", proxy.node(1));
    let mut client = Client::connect(proxy.port).await?;
    for version in 1..=4 {
        let what = format!("DescribeConfigs {version}");
        let resource = DescribeConfigsResource::default()
            .with_resource_type(4)
            .with_resource_name(StrBytes::from_static_str("1"))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(true);
        let frame = request_frame(32, version, 9, &request);
        let frame = asked(&mut client, &frame, &what).await?;
        let answer: DescribeConfigsResponse = answer(&frame, version, 9)?;
        let told = answer.results[0].configs.iter();
        let told: Vec<_> = told.map(|c| c.value.as_ref().map(ToString::to_string)).collect();
        let expected = [Some(&*listener), Some(&listener), None, None, None, Some("8")];
        ensure_eq!(told, expected.map(|value| value.map(str::to_owned)), "{what}");
        for config in &answer.results[0].configs {
            let synonyms = config.synonyms.iter().all(|s| s.value == config.value);
            ensure!(synonyms && config.synonyms.len() == 1, "synonyms of {what}");
        }
    }
    Ok(())
}

/// AlterConfigs 0 to 2 and IncrementalAlterConfigs 0 to 1: a refusal's text keeps its words, with
/// the addresses of clients in it.
pub async fn refused_configs_name_no_broker(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await;
    let node = brokers.cluster().nodes[1].clone();
    let (host, port) = (&node.host, node.port);
    let listeners = format!("PLAINTEXT://{host}:{port},CONTROLLER://{host}:{port}1");
    brokers.cluster().configs = vec![("listeners".to_owned(), listeners)];
    let (port, unknown) = (proxy.node(1), proxy.port);
    let text = format!(
        "cannot change listeners=PLAINTEXT://{ADVERTISED}:{port},\
         CONTROLLER://{ADVERTISED}:{unknown}"
    );
    let mut client = Client::connect(proxy.port).await?;
    let name = StrBytes::from_static_str("1");
    for version in 0..=2 {
        let what = format!("AlterConfigs {version}");
        let resource = Altered::default().with_resource_type(4).with_resource_name(name.clone());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let frame = asked(&mut client, &request_frame(33, version, 9, &request), &what).await?;
        let answer: AlterConfigsResponse = answer(&frame, version, 9)?;
        let told = answer.responses[0].error_message.as_ref().map(ToString::to_string);
        ensure_eq!(told.as_ref(), Some(&text), "{what}");
    }
    for version in 0..=1 {
        let what = format!("IncrementalAlterConfigs {version}");
        let resource = AlterConfigsResource::default();
        let resource = resource.with_resource_type(4).with_resource_name(name.clone());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let frame = asked(&mut client, &request_frame(44, version, 9, &request), &what).await?;
        let answer: IncrementalAlterConfigsResponse = answer(&frame, version, 9)?;
        let told = answer.responses[0].error_message.as_ref().map(ToString::to_string);
        ensure_eq!(told.as_ref(), Some(&text), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn metadata_tells_virtual_brokers_in_every_version() -> Checked {
    metadata_names_virtual_brokers(None).await
}

#[tokio::test]
async fn find_coordinator_tells_virtual_brokers_in_every_version() -> Checked {
    find_coordinator_names_virtual_brokers(None).await
}

#[tokio::test]
async fn describe_cluster_tells_virtual_brokers_in_every_version() -> Checked {
    describe_cluster_names_virtual_brokers(None).await
}

#[tokio::test]
async fn describe_quorum_tells_virtual_brokers_in_every_version() -> Checked {
    describe_quorum_names_virtual_brokers(None).await
}

#[tokio::test]
async fn describe_configs_tells_virtual_listeners_or_nothing_in_every_version() -> Checked {
    describe_configs_hides_listeners(None).await
}

#[tokio::test]
async fn the_text_of_a_refused_configuration_tells_virtual_brokers() -> Checked {
    refused_configs_name_no_broker(None).await
}
