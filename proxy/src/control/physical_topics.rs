//! Makes the physical topics of virtual ones, if they are missing; tries until it is done. Looks
//! out for real topics that a virtual one of the same name hides.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;

use crate::data_plane::DataPlane;
use crate::random;
use crate::route::virtual_topics::{Routed, VirtualTopics};
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// First version that takes the cluster's default replication factor (KIP-464), not flexible.
const VERSION: i16 = 4;
/// Time a broker may take.
const TIMEOUT_MS: i32 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(10);
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// How often hidden topics are looked for: somebody may make one later.
const LOOK_OUT: Duration = Duration::from_secs(30);

/// Sees that every physical topic exists, and looks out for ever.
pub async fn ensure(plane: Arc<DataPlane>) {
    let Some(routed) = &plane.routed else { return };
    let (mut made, mut hidden) = (false, HashSet::new());
    loop {
        if !made {
            let created = tokio::time::timeout(TIMEOUT * 2, create(&plane, routed)).await;
            match created.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => made = true,
                Err(error) => tracing::warn!(%error, "physical topics cannot be made yet"),
            }
        }
        look_out(&plane, routed, &mut hidden).await;
        tokio::time::sleep(random::jittered(if made { LOOK_OUT } else { PAUSE })).await;
    }
}

/// Looks for real topics that have the name of a virtual one.
async fn look_out(plane: &DataPlane, routed: &VirtualTopics, hidden: &mut HashSet<Arc<str>>) {
    for Routed { name, .. } in routed.all() {
        // A question that fails has its line in the log; it is asked again later.
        let Ok(found) = plane.topics.real_id(name).await else { continue };
        if found.is_none() {
            hidden.remove(name);
        } else if hidden.insert(name.clone()) {
            tracing::error!(topic = %name, "a topic of the cluster is hidden by the virtual topic \
                of its name: clients of the proxy cannot reach its records");
        }
    }
    plane.metrics.hidden_topics(hidden.len());
}

async fn create(plane: &DataPlane, routed: &VirtualTopics) -> io::Result<()> {
    let any = plane.directory.connect_any(&plane.limits, &Login::Proxy).await?;
    let mut broker = BrokerConnection::new(any);
    let topics = routed.all().iter().filter(|topic| !topic.days).flat_map(|topic| {
        topic.physical.iter().map(|name| {
            CreatableTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.to_string())))
                .with_num_partitions(topic.partitions)
                .with_replication_factor(-1)
        })
    });
    let request =
        CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(TIMEOUT_MS);
    let answer: CreateTopicsResponse = broker.call(api::CREATE_TOPICS, VERSION, &request).await?;
    for topic in answer.topics {
        let name = topic.name.to_string();
        match topic.error_code {
            0 => tracing::info!(topic = %name, "physical topic made"),
            TOPIC_ALREADY_EXISTS => {}
            code => {
                let why = topic.error_message.unwrap_or_default();
                return Err(io::Error::other(format!("{name}: error {code} {why}")));
            }
        }
    }
    Ok(())
}
