//! Every answer that has a field for an address, asked for by hand, in every version that is
//! offered.
//!
//! What the relay then must find: the fields there (counted), and nothing of the brokers in them.

use std::time::{Duration, Instant};

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeQuorumRequest, FindCoordinatorRequest, FindCoordinatorResponse,
    IncrementalAlterConfigsRequest, MetadataRequest, alter_configs_request,
};
use kafka_protocol::protocol::{Request, StrBytes};
use serde_json::{Value, json};

use super::tails;
use crate::leak::Findings;
use crate::raw::{self, Raw};
use crate::rig::{Place, Rig, tell};

pub fn no_answer_names_a_broker(rig: &mut Rig) {
    let place = rig.place(true, "addresses");
    metadata(&place);
    coordinators(&place);
    cluster(&place);
    quorum(&place);
    configs(&place);
    rig.compare("refused listeners", 0, |_, place| refused_listeners(place));
    let mut wanted = vec![ApiKey::Metadata, ApiKey::FindCoordinator, ApiKey::DescribeCluster];
    if rig.cluster.brokers().len() > 1 {
        tails::stale_leader(rig);
        tails::tail_behind_many_bytes(rig);
        wanted.extend([ApiKey::Produce, ApiKey::Fetch]);
        if tails::share_groups_there(rig) {
            tails::stale_share_partition(rig);
            wanted.extend([ApiKey::ShareFetch, ApiKey::ShareAcknowledge]);
        } else {
            rig.skip("ShareFetch and ShareAcknowledge tails");
        }
    }
    let findings = rig.relay.findings();
    report(&findings);
    for api in wanted {
        assert!(findings.of(api, |counts| counts.addresses) > 0, "no address in any {api:?}");
        let tailed = matches!(api as i16, 0 | 1 | 78 | 79);
        assert!(!tailed || findings.of(api, |counts| counts.tails) > 0, "no tail in any {api:?}");
    }
    assert!(findings.of(ApiKey::DescribeConfigs, |counts| counts.responses) > 0);
    rig.executed();
}

fn report(findings: &Findings) {
    for ((key, version), counts) in findings.apis.iter().filter(|(_, c)| c.addresses > 0) {
        let api =
            ApiKey::try_from(*key).map_or_else(|()| key.to_string(), |api| format!("{api:?}"));
        tell(&format!(
            "searched {api} v{version}: {} answers, {} addresses, {} tails",
            counts.responses, counts.addresses, counts.tails
        ));
    }
    tell(&format!(
        "searched in all: {} answers, {} bytes, {} addresses, {} tails, {} leaks",
        findings.total(|c| c.responses),
        findings.total(|c| c.bytes),
        findings.total(|c| c.addresses),
        findings.total(|c| c.tails),
        findings.leaks.len()
    ));
}

/// Asks one broker in every version; an answer that does not come, or cannot be read, fails the
/// test.
fn every_version<R: Request>(address: &str, request: impl Fn(i16) -> R) -> Vec<(i16, R::Response)> {
    let api = ApiKey::try_from(R::KEY).unwrap();
    let versions = raw::versions(address, api).unwrap();
    versions
        .map(|version| {
            let answer = Raw::connect(address).unwrap().call(version, &request(version));
            (version, answer.unwrap_or_else(|error| panic!("{api:?} v{version}: {error}")))
        })
        .collect()
}

pub fn metadata(place: &Place) {
    for address in place.brokers.values().chain([&place.bootstrap]) {
        let all = |version| MetadataRequest::default().with_topics((version == 0).then(Vec::new));
        for (version, answer) in every_version(address, all) {
            assert_eq!(answer.brokers.len(), place.brokers.len(), "Metadata v{version}");
        }
    }
}

pub fn coordinators(place: &Place) {
    let share = !raw::versions(&place.bootstrap, ApiKey::ShareFetch).unwrap().is_empty();
    let keys: [(i8, &str); 3] = [(0, "some-group"), (1, "some-id"), (2, SHARE_KEY)];
    for (kind, key) in keys.into_iter().take(if share { 3 } else { 2 }) {
        let key = StrBytes::from_static_str(key);
        let ask = |version| {
            // Version 0 knows groups only, 6 is the first to know share groups.
            let kind = if version == 0 || (kind == 2 && version < 6) { 0 } else { kind };
            let request = FindCoordinatorRequest::default().with_key_type(kind);
            match version {
                0..4 => request.with_key(key.clone()),
                _ => request.with_coordinator_keys(vec![key.clone()]),
            }
        };
        let until = Instant::now() + Duration::from_secs(30);
        while every_version(&place.bootstrap, ask).iter().any(|(_, answer)| !known(answer)) {
            // The first question makes the topic behind this kind of coordinator.
            assert!(Instant::now() < until, "no coordinator of kind {kind}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn known(answer: &FindCoordinatorResponse) -> bool {
    let batch = answer.coordinators.iter();
    answer.error_code == 0 && { batch }.all(|found| found.error_code == 0)
}

pub fn cluster(place: &Place) {
    for kind in [BROKERS, CONTROLLERS] {
        let ask = |version| {
            let kind = if version > 0 { kind } else { BROKERS };
            let request = DescribeClusterRequest::default().with_endpoint_type(kind);
            request.with_include_fenced_brokers(version > 1)
        };
        every_version(&place.bootstrap, ask);
    }
}

/// Version 2 lists the listeners of the controllers.
pub fn quorum(place: &Place) {
    let ask = |_| {
        let topic = TopicData::default().with_topic_name(raw::topic("__cluster_metadata"));
        let topic = topic.with_partitions(vec![PartitionData::default()]);
        DescribeQuorumRequest::default().with_topics(vec![topic])
    };
    for (version, answer) in every_version(&place.bootstrap, ask) {
        let known = answer.topics.first().map_or(0, |topic| topic.partitions.len());
        tell(&format!(
            "DescribeQuorum v{version}: error {}, {known} partitions",
            answer.error_code
        ));
    }
}

/// Values, synonyms and documentation of every setting of every broker.
pub fn configs(place: &Place) {
    for (id, address) in &place.brokers {
        let ask = |version| {
            let resource = DescribeConfigsResource::default().with_resource_type(BROKER);
            let resource = resource.with_resource_name(StrBytes::from_string(id.to_string()));
            DescribeConfigsRequest::default()
                .with_resources(vec![resource.with_configuration_keys(None)])
                .with_include_synonyms(true)
                .with_include_documentation(version > 2)
        };
        for (version, answer) in every_version(address, ask) {
            let configs = &answer.results[0].configs;
            assert!(configs.len() > 50, "DescribeConfigs v{version}: {} settings", configs.len());
            let listeners = configs.iter().filter(|config| config.name.contains("listeners"));
            assert!(listeners.count() > 0, "DescribeConfigs v{version} without listeners");
        }
    }
}

/// A broker that refuses new listeners says why, in a text that can name its present ones. Error
/// codes of both APIs that change configurations, in every version.
pub fn refused_listeners(place: &Place) -> Value {
    let settings = [
        ("listeners", "OTHER://127.0.0.1:1"),
        ("advertised.listeners", "PLAINTEXT://127.0.0.1:1,OTHER://127.0.0.1:2"),
        ("listener.security.protocol.map", "OTHER:PLAINTEXT"),
    ];
    let mut outcome = Vec::new();
    for (name, value) in settings.map(words) {
        let broker_1 = StrBytes::from_static_str("1");
        let whole = |_| {
            let config = alter_configs_request::AlterableConfig::default().with_name(name.clone());
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(BROKER)
                .with_resource_name(broker_1.clone())
                .with_configs(vec![config.with_value(Some(value.clone()))]);
            let request = AlterConfigsRequest::default().with_validate_only(true);
            request.with_resources(vec![resource])
        };
        for (version, answer) in every_version(&place.brokers[&1], whole) {
            outcome.push(json!([name.as_str(), 33, version, answer.responses[0].error_code]));
        }
        let one = |_| {
            let config = AlterableConfig::default().with_name(name.clone());
            let resource = AlterConfigsResource::default()
                .with_resource_type(BROKER)
                .with_resource_name(broker_1.clone())
                .with_configs(vec![config.with_value(Some(value.clone()))]);
            let request = IncrementalAlterConfigsRequest::default().with_validate_only(true);
            request.with_resources(vec![resource])
        };
        for (version, answer) in every_version(&place.brokers[&1], one) {
            outcome.push(json!([name.as_str(), 44, version, answer.responses[0].error_code]));
        }
    }
    assert!(outcome.iter().all(|answer| answer[3] != 0), "not refused: {outcome:?}");
    json!(outcome)
}

fn words((name, value): (&'static str, &'static str)) -> (StrBytes, StrBytes) {
    (StrBytes::from_static_str(name), StrBytes::from_static_str(value))
}

const BROKER: i8 = 4;
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
const SHARE_KEY: &str = "some-group:AAAAAAAAAAAAAAAAAAAAAQ:0";
