//! The kafka-protocol crate's default message of every API and version, both directions.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Message, Request};

use super::Frame;
use crate::api;

/// A request and a response of every key and version that the crate can write.
pub fn frames() -> Vec<Frame> {
    let mut frames = Vec::new();
    macro_rules! each {
        ($($request:ident)*) => { $(both::<m::$request>(&mut frames);)* };
    }
    each! {
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest
        OffsetFetchRequest FindCoordinatorRequest JoinGroupRequest HeartbeatRequest
        LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest ListGroupsRequest
        SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
        DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest
        AddPartitionsToTxnRequest AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest
        TxnOffsetCommitRequest DescribeAclsRequest CreateAclsRequest DeleteAclsRequest
        DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
        DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest
        CreateDelegationTokenRequest RenewDelegationTokenRequest ExpireDelegationTokenRequest
        DescribeDelegationTokenRequest DeleteGroupsRequest ElectLeadersRequest
        IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
        ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest
        AlterClientQuotasRequest DescribeUserScramCredentialsRequest
        AlterUserScramCredentialsRequest VoteRequest BeginQuorumEpochRequest
        EndQuorumEpochRequest DescribeQuorumRequest AlterPartitionRequest UpdateFeaturesRequest
        EnvelopeRequest FetchSnapshotRequest DescribeClusterRequest DescribeProducersRequest
        BrokerRegistrationRequest BrokerHeartbeatRequest UnregisterBrokerRequest
        DescribeTransactionsRequest ListTransactionsRequest AllocateProducerIdsRequest
        ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest ControllerRegistrationRequest
        GetTelemetrySubscriptionsRequest PushTelemetryRequest AssignReplicasToDirsRequest
        ListConfigResourcesRequest DescribeTopicPartitionsRequest ShareGroupHeartbeatRequest
        ShareGroupDescribeRequest ShareFetchRequest ShareAcknowledgeRequest AddRaftVoterRequest
        RemoveRaftVoterRequest UpdateRaftVoterRequest InitializeShareGroupStateRequest
        ReadShareGroupStateRequest WriteShareGroupStateRequest DeleteShareGroupStateRequest
        ReadShareGroupStateSummaryRequest DescribeShareGroupOffsetsRequest
        AlterShareGroupOffsetsRequest DeleteShareGroupOffsetsRequest
    }
    frames
}

fn both<R>(frames: &mut Vec<Frame>)
where
    R: Request + Default,
    R::Response: Message + Encodable + HeaderVersion + Default,
{
    let known = R::VERSIONS;
    for version in known.min..=known.max {
        frames.extend(frame::<R>(R::KEY, version, true));
        frames.extend(frame::<R::Response>(R::KEY, version, false));
    }
}

fn frame<T>(api: i16, version: i16, request: bool) -> Option<Frame>
where
    T: Encodable + HeaderVersion + Default,
{
    let mut out = BytesMut::new();
    if request {
        out.put_i16(api);
        out.put_i16(version);
    }
    out.put_i32(7);
    if request {
        out.put_slice(&[0, 2, b'm', b'e']);
    }
    if T::header_version(version) == if request { 2 } else { 1 } {
        out.put_u8(0);
    }
    T::default().encode(&mut out, version).ok()?;
    let what = if request { "request" } else { "response" };
    let name = format!("default/{}-v{version}-{what}", api::name(api));
    Some(Frame { name, api, version, request, bytes: out.freeze() })
}
