//! Makes the physical topics of virtual ones, if they are missing; tries until it is done.

use std::io;
use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::api;

use crate::data_plane::DataPlane;
use crate::random;
use crate::route::virtual_topics::VirtualTopics;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// First version that takes the cluster's default replication factor (KIP-464), not flexible.
const VERSION: i16 = 4;
/// Time a broker may take.
const TIMEOUT_MS: i32 = 10_000;
/// Longer than that: a broker that does not answer at all is not waited for.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(15);
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// Pause between two attempts.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs until every physical topic exists.
pub async fn ensure(plane: Arc<DataPlane>) {
    let Some(routed) = &plane.routed else { return };
    loop {
        match create(&plane, routed).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "physical topics cannot be made yet"),
        }
        tokio::time::sleep(random::jittered(PAUSE)).await;
    }
}

async fn create(plane: &DataPlane, routed: &VirtualTopics) -> io::Result<()> {
    let any = plane.directory.connect_any(&plane.limits, &Login::Proxy).await?;
    let mut broker = BrokerConnection::new(any);
    let topics = routed.all().iter().flat_map(|topic| {
        topic.physical.iter().map(|name| {
            CreatableTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.to_string())))
                .with_num_partitions(topic.partitions)
                .with_replication_factor(-1)
        })
    });
    let request =
        CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(TIMEOUT_MS);
    let call = broker.call(api::CREATE_TOPICS, VERSION, &request);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to CreateTopics");
    let answer = tokio::time::timeout(ANSWER_MAX, call).await.map_err(late)?;
    let answer: CreateTopicsResponse = answer?;
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
