//! Every API that is offered, in every version, each asked with a request that says nothing.
//!
//! Brokers answer most of them with an error and its text. What carries no address and does not
//! change by itself must come through the proxy byte for byte. (A Produce that says nothing has
//! acks=0.)

use bytes::BytesMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;
use serde_json::{Value, json};

use super::addresses;
use super::by_hand::ask;
use crate::raw;
use crate::rig::{Place, Rig, tell};

pub fn every_api_in_every_version(rig: &mut Rig) {
    // What groups are answered changes once, when the topic behind their coordinators is made.
    addresses::coordinators(&rig.place(true, ""));
    rig.cluster.wait_until_whole();
    let offered = rig.place(true, "").brokers[&1].clone();
    rig.compare("every API in every version", 0, |rig, place| {
        let mut outcome = Vec::new();
        each(place, &offered, &mut outcome);
        let closed = outcome.iter().filter(|answer| answer[2] == "closed").count();
        tell(&format!(
            "{} {}: {} versions of {ASKED} APIs asked, {closed} of them closed the connection",
            rig.cluster.version,
            if place.proxied { "proxied" } else { "direct" },
            outcome.len(),
        ));
        assert!(outcome.len() > 150 && closed < outcome.len() / 4, "{outcome:#?}");
        json!(outcome)
    });
}

/// Asks once in every version that the proxy offers and the crate can write.
fn every_version<R: Request + Default>(place: &Place, offered: &str, outcome: &mut Vec<Value>) {
    let api = ApiKey::try_from(R::KEY).unwrap();
    for version in raw::versions(offered, api).unwrap() {
        if SILENT.contains(&(api, version)) || version > R::VERSIONS.max {
            continue;
        }
        let mut body = BytesMut::new();
        let name = format!("{api:?}");
        if let Err(error) = R::default().encode(&mut body, version) {
            panic!("{name} v{version}: {error}");
        }
        let answer = ask(place, R::KEY, version, R::header_version(version), &body);
        let answer = match answer {
            None => "closed".to_owned(),
            Some(_) if CHANGES.contains(&api) => "answered".to_owned(),
            Some(answer) => answer,
        };
        outcome.push(json!([name, version, answer]));
    }
}

/// Brokers never answer these when they say nothing.
const SILENT: [(ApiKey, i16); 4] = [
    (ApiKey::OffsetFetch, 8),
    (ApiKey::OffsetFetch, 9),
    (ApiKey::AddPartitionsToTxn, 4),
    (ApiKey::AddPartitionsToTxn, 5),
];

/// Answers that name addresses, or that differ from one time to the next.
const CHANGES: [ApiKey; 12] = [
    ApiKey::ApiVersions,
    ApiKey::DescribeCluster,
    ApiKey::DescribeConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::FindCoordinator,
    ApiKey::GetTelemetrySubscriptions,
    ApiKey::InitProducerId,
    ApiKey::ListConfigResources,
    ApiKey::ListGroups,
    ApiKey::ListTransactions,
    ApiKey::Metadata,
    ApiKey::DescribeTopicPartitions,
];

macro_rules! apis {
    ($($request:ident)*) => {
        const ASKED: usize = [$(<$request as Request>::KEY),*].len();

        fn each(place: &Place, offered: &str, outcome: &mut Vec<Value>) {
            $(every_version::<$request>(place, offered, outcome);)*
        }
    };
}

apis! {
    FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
    OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest
    SyncGroupRequest DescribeGroupsRequest ListGroupsRequest SaslHandshakeRequest
    ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest
    InitProducerIdRequest OffsetForLeaderEpochRequest AddPartitionsToTxnRequest
    AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest TxnOffsetCommitRequest
    DescribeAclsRequest CreateAclsRequest DeleteAclsRequest DescribeConfigsRequest
    AlterConfigsRequest AlterReplicaLogDirsRequest DescribeLogDirsRequest SaslAuthenticateRequest
    CreatePartitionsRequest CreateDelegationTokenRequest RenewDelegationTokenRequest
    ExpireDelegationTokenRequest DescribeDelegationTokenRequest DeleteGroupsRequest
    ElectLeadersRequest IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
    ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest
    AlterClientQuotasRequest DescribeUserScramCredentialsRequest
    AlterUserScramCredentialsRequest DescribeQuorumRequest UpdateFeaturesRequest
    DescribeClusterRequest DescribeProducersRequest UnregisterBrokerRequest
    DescribeTransactionsRequest ListTransactionsRequest ConsumerGroupHeartbeatRequest
    ConsumerGroupDescribeRequest GetTelemetrySubscriptionsRequest PushTelemetryRequest
    ListConfigResourcesRequest DescribeTopicPartitionsRequest ShareGroupHeartbeatRequest
    ShareGroupDescribeRequest ShareFetchRequest ShareAcknowledgeRequest AddRaftVoterRequest
    RemoveRaftVoterRequest InitializeShareGroupStateRequest ReadShareGroupStateRequest
    WriteShareGroupStateRequest DeleteShareGroupStateRequest ReadShareGroupStateSummaryRequest
    DescribeShareGroupOffsetsRequest AlterShareGroupOffsetsRequest
    DeleteShareGroupOffsetsRequest
}
