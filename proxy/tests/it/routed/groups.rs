//! Members of KIP-848 groups: names go on to brokers, patterns that they would match do not.

use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;

use super::{TOPIC, start};
use crate::harness::client::{Client, answer};
use crate::harness::requests::name;
use crate::harness::{Checked, Faults, ensure_eq, until};

const HEARTBEAT: i16 = 68;
const INVALID_PATTERN: i16 = 128;

fn member() -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default().with_group_id(StrBytes::from_static_str("g").into())
}

pub async fn patterns_end_here(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults, |setup| setup).await;
    let mut client = Client::connect(proxy.port).await?;
    let pattern = member().with_subscribed_topic_regex(Some(StrBytes::from_static_str("fires.*")));
    let asked = client.send(HEARTBEAT, 1, &pattern).await?;
    let frame = client.receive_or_end().await?;
    ensure_eq!(brokers.cluster().count(HEARTBEAT), 0, "patterns that brokers saw");
    let told: ConsumerGroupHeartbeatResponse = answer(&frame.unwrap_or_default(), 1, asked)?;
    ensure_eq!(told.error_code, INVALID_PATTERN, "answer to a pattern");
    let named = member().with_subscribed_topic_names(Some(vec![name(TOPIC)]));
    client.send(HEARTBEAT, 1, &named).await?;
    let seen = async || (brokers.cluster().count(HEARTBEAT) == 1).then_some(());
    until("a heartbeat with a name at a broker", seen).await
}

#[tokio::test]
async fn a_pattern_that_brokers_would_match_is_refused_and_names_go_on() -> Checked {
    patterns_end_here(None).await
}
