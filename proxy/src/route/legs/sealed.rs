//! Where parts of batches are written, and what a broker means that calls one too large.
//!
//! A sealed segment refuses every batch as too large (10), and has `max.message.bytes` 0; a batch
//! that is too large in truth is refused by a topic that takes some. Who was refused by a sealed
//! segment waits for the placement that names the next one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::wire::WireError;
use protocol_ext::{api, guard};

use super::look_up::Place;
use super::{Leg, Legs, Ways, by_leader, encoded};
use crate::fault;
use crate::route::placement::Placement;
use crate::route::virtual_topics::Routed;

/// The segment that a part is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The physical topic.
    pub topic: Arc<str>,
    /// Number of the segment.
    pub number: u32,
    /// Logical offset of its physical offset 0.
    pub base: i64,
}

impl Target {
    /// The open segment of a slot, as far as is known.
    pub fn open(
        placement: &Placement,
        routed: &Routed,
        slot: usize,
        partition: i32,
    ) -> Option<Self> {
        let open = placement.open(routed, slot, partition)?;
        Some(Self { topic: open.topic.clone(), number: open.number, base: open.base })
    }
}

/// Version of DescribeConfigs: the first flexible one.
const CONFIGS_VERSION: i16 = 4;
/// How a sealed topic is marked.
pub const SEALED_BY: &str = "max.message.bytes";
/// A topic, among resources.
const TOPIC: i8 = 2;

impl Legs {
    /// The topics, of these whose leader called a batch too large, that are sealed.
    pub(super) async fn sealed_of(
        &mut self,
        ways: Ways<'_>,
        places: HashSet<Place>,
    ) -> Result<HashSet<Arc<str>>, WireError> {
        if places.is_empty() || fault::on("seal-called-too-large") {
            return Ok(HashSet::new());
        }
        let places = places.into_iter().collect();
        let longest = self.longest(ways, places, ways.limits.connect).await?;
        // Without an answer nothing is known: it is asked again, as of a sealed one.
        let sealed = longest.into_iter().filter(|(_, bytes)| bytes.is_none_or(|bytes| bytes == 0));
        Ok(sealed.map(|(topic, _)| topic).collect())
    }

    /// The longest batch that each of these topics takes; `None`: its broker does not say.
    pub(super) async fn longest(
        &mut self,
        ways: Ways<'_>,
        places: Vec<Place>,
        limit: Duration,
    ) -> Result<HashMap<Arc<str>, Option<usize>>, WireError> {
        let (led, lost) = by_leader(ways.topics, places, |(topic, p)| (topic, *p)).await;
        let mut longest: HashMap<_, _> = lost.into_iter().map(|(topic, _)| (topic, None)).collect();
        let (key, version) = (api::DESCRIBE_CONFIGS, CONFIGS_VERSION);
        let mut legs = Vec::with_capacity(led.len());
        for (node, places) in &led {
            let body = encoded(key, version, &question(places))?;
            legs.push(Leg { node: *node, key, version, body: vec![body], limit });
        }
        let ran = self.run(ways, legs).await;
        for (places, ran) in led.into_values().zip(ran.answers) {
            let answer: Option<DescribeConfigsResponse> =
                ran.ok().and_then(|body| guard::response(key, version, &body, 0).ok());
            for (topic, _) in places {
                let results = answer.iter().flat_map(|answer| &answer.results);
                let mut own = results.filter(|result| *result.resource_name == *topic);
                let bytes = own.next().and_then(told);
                let known = longest.entry(topic).or_insert(bytes);
                // A seal may have reached one leader only: it is not undone.
                *known = known.zip(bytes).map(|(one, other)| one.min(other));
            }
        }
        Ok(longest)
    }
}

fn question(places: &[Place]) -> DescribeConfigsRequest {
    let mut topics: Vec<&Arc<str>> = places.iter().map(|(topic, _)| topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let resources = topics.into_iter().map(|topic| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string(topic.to_string()))
            .with_configuration_keys(Some(vec![StrBytes::from_static_str(SEALED_BY)]))
    });
    DescribeConfigsRequest::default().with_resources(resources.collect())
}

/// The longest batch of a topic, as its configuration tells it.
fn told(result: &DescribeConfigsResult) -> Option<usize> {
    let own = result.configs.iter().find(|config| *config.name == *SEALED_BY)?;
    let value = own.value.as_ref().filter(|_| result.error_code == 0)?;
    value.parse().ok()
}
