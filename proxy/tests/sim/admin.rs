//! Clients that ask all kinds of things, several at once over one connection; and those that have
//! requests under way while the proxy drains.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::connection::{BOOTSTRAP, Connection, Lost};
use crate::topology::{Client, topic_name};
use crate::world::{Phase, World};

/// Questions at once.
const BURST_MAX: usize = 8;
const BROKER_RESOURCE: i8 = 4;

type Asked<'a> = Pin<Box<dyn Future<Output = Result<(), Lost>> + 'a>>;

/// Asks while there is trouble.
pub async fn run(world: Rc<World>, name: String) {
    let client = Client::new(&world, &name);
    client.learn(&["t".to_owned()]).await;
    while world.phase.get() < Phase::Finish {
        tokio::time::sleep(world.rest(10, 300)).await;
        if burst(&client).await.is_err() {
            client.learn(&["t".to_owned()]).await;
        }
    }
    client.close_all();
}

async fn burst(client: &Client) -> Result<(), Lost> {
    let world = &client.world;
    let partition = i32::try_from(world.below(3)).expect("small");
    let open = match client.leader("t", partition) {
        Some(node) if !world.one_in(4) => client.to_node(node).await?,
        _ => client.to_port(BOOTSTRAP).await?,
    };
    let mut asked = Vec::new();
    for _ in 0..world.between(1, BURST_MAX) {
        asked.push(ask(client, &open)?);
    }
    for answer in asked {
        answer.await?;
    }
    Ok(())
}

/// Sends some question; what it gives waits for the answer and looks at it.
fn ask<'a>(client: &'a Client, open: &Connection) -> Result<Asked<'a>, Lost> {
    Ok(match client.world.below(6) {
        0 => {
            let request = MetadataRequest::default().with_topics(None);
            let answer = open.send::<_, MetadataResponse>(3, 12, &request)?;
            Box::pin(async move { answer.await.map(|answer| client.take(&answer)) })
        }
        1 => {
            let request = FindCoordinatorRequest::default()
                .with_key(StrBytes::from_static_str("group"))
                .with_key_type(0);
            let answer = open.send::<_, FindCoordinatorResponse>(10, 3, &request)?;
            Box::pin(async move {
                let answer = answer.await?;
                let node = answer.node_id.0;
                client.check_place(node, &answer.host, answer.port, "FindCoordinator");
                Ok(())
            })
        }
        2 => {
            let request = DescribeClusterRequest::default();
            let answer = open.send::<_, DescribeClusterResponse>(60, 0, &request)?;
            Box::pin(async move {
                for broker in answer.await?.brokers {
                    let (node, port) = (broker.broker_id.0, broker.port);
                    client.check_place(node, &broker.host, port, "DescribeCluster");
                }
                Ok(())
            })
        }
        3 => {
            let request = ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("sim"))
                .with_client_software_version(StrBytes::from_static_str("1"));
            let answer = open.send::<_, ApiVersionsResponse>(18, 3, &request)?;
            Box::pin(async move {
                if answer.await?.api_keys.is_empty() {
                    client.world.violate("ApiVersions without an API");
                }
                Ok(())
            })
        }
        4 => {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(BROKER_RESOURCE)
                .with_resource_name(StrBytes::from_static_str("1"));
            let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
            let answer = open.send::<_, DescribeConfigsResponse>(32, 2, &request)?;
            Box::pin(async move { answer.await.map(|_| ()) })
        }
        _ => {
            let partition =
                ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(-1);
            let topic = ListOffsetsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let request =
                ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
            let answer = open.send::<_, ListOffsetsResponse>(2, 7, &request)?;
            Box::pin(async move { answer.await.map(|_| ()) })
        }
    })
}

/// Has requests under way when the proxy drains; its connection must then close.
pub async fn drained(world: Rc<World>, name: String) {
    world.until(Phase::Drain).await;
    let client = Client::new(&world, &name);
    let open = loop {
        client.learn(&["t".to_owned()]).await;
        let node = client.leader("t", i32::try_from(world.below(3)).expect("small"));
        if let Some(node) = node
            && let Ok(open) = client.to_node(node).await
        {
            break open;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    world.ready.set(world.ready.get() + 1);
    let mut waiting = Vec::new();
    while !open.is_closed() && world.drained.get().is_none() && waiting.len() < 40 {
        match ask(&client, &open) {
            Ok(asked) => waiting.push(asked),
            Err(Lost) => break,
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let closed = tokio::time::timeout(crate::proxy::DRAIN, async {
        while !open.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if closed.await.is_err() {
        world.violate(format!("{name}: open after a drain"));
    }
    world.busy.set(world.busy.get() - 1);
}
