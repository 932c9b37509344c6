//! Every API key we know: name, first flexible version, and how its answers are treated.
//!
//! Source: Kafka's message definitions. A key that is not here is hidden from clients, since its
//! answers may carry addresses that nobody rewrites.

use crate::schema::{Message, responses};
use crate::versions;

/// Produce.
pub const PRODUCE: i16 = 0;
/// Fetch.
pub const FETCH: i16 = 1;
/// ListOffsets.
pub const LIST_OFFSETS: i16 = 2;
/// Metadata.
pub const METADATA: i16 = 3;
/// SaslHandshake.
pub const SASL_HANDSHAKE: i16 = 17;
/// ApiVersions.
pub const API_VERSIONS: i16 = 18;
/// SaslAuthenticate.
pub const SASL_AUTHENTICATE: i16 = 36;
/// CreateTopics.
pub const CREATE_TOPICS: i16 = 19;
/// OffsetCommit.
pub const OFFSET_COMMIT: i16 = 8;
/// DeleteTopics.
pub const DELETE_TOPICS: i16 = 20;
/// DeleteRecords.
pub const DELETE_RECORDS: i16 = 21;
/// OffsetForLeaderEpoch.
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
/// CreatePartitions.
pub const CREATE_PARTITIONS: i16 = 37;
/// AddPartitionsToTxn.
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
/// TxnOffsetCommit.
pub const TXN_OFFSET_COMMIT: i16 = 28;
/// FindCoordinator.
pub const FIND_COORDINATOR: i16 = 10;
/// InitProducerId.
pub const INIT_PRODUCER_ID: i16 = 22;
/// AddOffsetsToTxn.
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
/// EndTxn.
pub const END_TXN: i16 = 26;
/// IncrementalAlterConfigs.
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
/// WriteTxnMarkers.
pub const WRITE_TXN_MARKERS: i16 = 27;
/// AlterConfigs.
pub const ALTER_CONFIGS: i16 = 33;
/// AlterReplicaLogDirs.
pub const ALTER_REPLICA_LOG_DIRS: i16 = 34;
/// ElectLeaders.
pub const ELECT_LEADERS: i16 = 43;
/// AlterPartitionReassignments.
pub const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
/// OffsetDelete.
pub const OFFSET_DELETE: i16 = 47;
/// DescribeConfigs.
pub const DESCRIBE_CONFIGS: i16 = 32;
/// DescribeQuorum.
pub const DESCRIBE_QUORUM: i16 = 55;
/// ShareFetch.
pub const SHARE_FETCH: i16 = 78;
/// ConsumerGroupHeartbeat.
pub const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
/// DescribeProducers.
pub const DESCRIBE_PRODUCERS: i16 = 61;
/// Keys are below this.
pub const KEY_END: usize = API.len();

/// How the answers of an API are treated so that no upstream address reaches a client.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// Carries no address: passes unread, at any version.
    Opaque,
    /// Addresses anywhere: read whole and patched; versions beyond the layout's are clamped.
    Patch(&'static Message),
    /// Addresses only behind the records: the body streams through, the tail is patched.
    Tail(&'static Message),
    /// The table of versions itself.
    Versions,
    /// Not for clients: hidden.
    Hidden,
}

/// One API.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    /// Its name, as in Kafka.
    pub name: &'static str,
    /// First version in the flexible format; `i16::MAX` if there is none.
    pub flexible: i16,
    /// Newest version whose messages somebody has read for addresses. Kafka may have newer ones,
    /// and an opaque API passes in them; a test fails then until they are read too.
    pub reviewed: i16,
    /// How its answers are treated.
    pub answer: Answer,
}

const fn api(name: &'static str, flexible: i16, reviewed: i16, answer: Answer) -> Api {
    Api { name, flexible, reviewed, answer }
}

const NEVER: i16 = i16::MAX;

/// The API of a key, if it is known.
pub fn get(key: i16) -> Option<&'static Api> {
    API.get(usize::try_from(key).ok()?)
}

/// The name of a key, for logs.
pub fn name(key: i16) -> &'static str {
    get(key).map_or("unknown", |api| api.name)
}

/// Whether `version` of `key` is in the flexible format (KIP-482).
pub fn is_flexible(key: i16, version: i16) -> bool {
    get(key).is_some_and(|api| version >= api.flexible)
}

/// Whether answers of `key` at `version` can be passed to a client without an address leaking.
pub fn is_servable(key: i16, version: i16) -> bool {
    match get(key).map(|api| api.answer) {
        None | Some(Answer::Hidden) => false,
        Some(Answer::Opaque | Answer::Versions) => true,
        Some(Answer::Patch(message) | Answer::Tail(message)) => {
            (message.min..=message.max).contains(&version)
        }
    }
}

/// Versions of `key` that clients may use of those a broker has; `None` hides the key.
pub fn servable_range(key: i16, min: i16, max: i16) -> Option<(i16, i16)> {
    let (low, high) = match get(key)?.answer {
        Answer::Hidden => return None,
        Answer::Opaque => (min, max),
        Answer::Versions => (0, versions::VERSION_MAX),
        Answer::Patch(message) | Answer::Tail(message) => (message.min, message.max),
    };
    let (low, high) = (min.max(low), max.min(high));
    (low <= high).then_some((low, high))
}

use Answer::{Hidden, Opaque, Patch, Tail, Versions};

/// All APIs: name, first flexible version, newest version reviewed, treatment. The index is the
/// key.
#[rustfmt::skip]
static API: [Api; 93] = [
    /*  0 */ api("Produce", 9, 13, Tail(&responses::PRODUCE)),
    /*  1 */ api("Fetch", 12, 18, Tail(&responses::FETCH)),
    /*  2 */ api("ListOffsets", 6, 11, Opaque),
    /*  3 */ api("Metadata", 9, 13, Patch(&responses::METADATA)),
    /*  4 */ api("LeaderAndIsr", NEVER, 7, Hidden),
    /*  5 */ api("StopReplica", NEVER, 4, Hidden),
    /*  6 */ api("UpdateMetadata", NEVER, 8, Hidden),
    /*  7 */ api("ControlledShutdown", NEVER, 3, Hidden),
    /*  8 */ api("OffsetCommit", 8, 10, Opaque),
    /*  9 */ api("OffsetFetch", 6, 10, Opaque),
    /* 10 */ api("FindCoordinator", 3, 6, Patch(&responses::FIND_COORDINATOR)),
    /* 11 */ api("JoinGroup", 6, 9, Opaque),
    /* 12 */ api("Heartbeat", 4, 4, Opaque),
    /* 13 */ api("LeaveGroup", 4, 5, Opaque),
    /* 14 */ api("SyncGroup", 4, 5, Opaque),
    /* 15 */ api("DescribeGroups", 5, 6, Opaque),
    /* 16 */ api("ListGroups", 3, 5, Opaque),
    /* 17 */ api("SaslHandshake", NEVER, 1, Opaque),
    /* 18 */ api("ApiVersions", 3, 4, Versions),
    /* 19 */ api("CreateTopics", 5, 7, Opaque),
    /* 20 */ api("DeleteTopics", 4, 6, Opaque),
    /* 21 */ api("DeleteRecords", 2, 2, Opaque),
    /* 22 */ api("InitProducerId", 2, 6, Opaque),
    /* 23 */ api("OffsetForLeaderEpoch", 4, 4, Opaque),
    /* 24 */ api("AddPartitionsToTxn", 3, 5, Opaque),
    /* 25 */ api("AddOffsetsToTxn", 3, 4, Opaque),
    /* 26 */ api("EndTxn", 3, 5, Opaque),
    /* 27 */ api("WriteTxnMarkers", 1, 2, Opaque),
    /* 28 */ api("TxnOffsetCommit", 3, 5, Opaque),
    /* 29 */ api("DescribeAcls", 2, 3, Opaque),
    /* 30 */ api("CreateAcls", 2, 3, Opaque),
    /* 31 */ api("DeleteAcls", 2, 3, Opaque),
    /* 32 */ api("DescribeConfigs", 4, 4, Patch(&responses::DESCRIBE_CONFIGS)),
    /* 33 */ api("AlterConfigs", 2, 2, Patch(&responses::ALTER_CONFIGS)),
    /* 34 */ api("AlterReplicaLogDirs", 2, 2, Opaque),
    /* 35 */ api("DescribeLogDirs", 2, 5, Opaque),
    /* 36 */ api("SaslAuthenticate", 2, 2, Opaque),
    /* 37 */ api("CreatePartitions", 2, 3, Opaque),
    /* 38 */ api("CreateDelegationToken", 2, 3, Opaque),
    /* 39 */ api("RenewDelegationToken", 2, 2, Opaque),
    /* 40 */ api("ExpireDelegationToken", 2, 2, Opaque),
    /* 41 */ api("DescribeDelegationToken", 2, 3, Opaque),
    /* 42 */ api("DeleteGroups", 2, 2, Opaque),
    /* 43 */ api("ElectLeaders", 2, 2, Opaque),
    /* 44 */ api("IncrementalAlterConfigs", 1, 1, Patch(&responses::INCREMENTAL_ALTER_CONFIGS)),
    /* 45 */ api("AlterPartitionReassignments", 0, 1, Opaque),
    /* 46 */ api("ListPartitionReassignments", 0, 0, Opaque),
    /* 47 */ api("OffsetDelete", NEVER, 0, Opaque),
    /* 48 */ api("DescribeClientQuotas", 1, 1, Opaque),
    /* 49 */ api("AlterClientQuotas", 1, 1, Opaque),
    /* 50 */ api("DescribeUserScramCredentials", 0, 0, Opaque),
    /* 51 */ api("AlterUserScramCredentials", 0, 0, Opaque),
    /* 52 */ api("Vote", 0, 2, Hidden),
    /* 53 */ api("BeginQuorumEpoch", 1, 1, Hidden),
    /* 54 */ api("EndQuorumEpoch", 1, 1, Hidden),
    /* 55 */ api("DescribeQuorum", 0, 2, Patch(&responses::DESCRIBE_QUORUM)),
    /* 56 */ api("AlterPartition", 0, 3, Hidden),
    /* 57 */ api("UpdateFeatures", 0, 2, Opaque),
    /* 58 */ api("Envelope", 0, 0, Hidden),
    /* 59 */ api("FetchSnapshot", 0, 1, Hidden),
    /* 60 */ api("DescribeCluster", 0, 2, Patch(&responses::DESCRIBE_CLUSTER)),
    /* 61 */ api("DescribeProducers", 0, 0, Opaque),
    /* 62 */ api("BrokerRegistration", 0, 4, Hidden),
    /* 63 */ api("BrokerHeartbeat", 0, 2, Hidden),
    /* 64 */ api("UnregisterBroker", 0, 0, Opaque),
    /* 65 */ api("DescribeTransactions", 0, 0, Opaque),
    /* 66 */ api("ListTransactions", 0, 2, Opaque),
    /* 67 */ api("AllocateProducerIds", 0, 0, Hidden),
    /* 68 */ api("ConsumerGroupHeartbeat", 0, 1, Opaque),
    /* 69 */ api("ConsumerGroupDescribe", 0, 1, Opaque),
    /* 70 */ api("ControllerRegistration", 0, 0, Hidden),
    /* 71 */ api("GetTelemetrySubscriptions", 0, 0, Opaque),
    /* 72 */ api("PushTelemetry", 0, 0, Opaque),
    /* 73 */ api("AssignReplicasToDirs", 0, 0, Hidden),
    /* 74 */ api("ListConfigResources", 0, 1, Opaque),
    /* 75 */ api("DescribeTopicPartitions", 0, 0, Opaque),
    /* 76 */ api("ShareGroupHeartbeat", 0, 1, Opaque),
    /* 77 */ api("ShareGroupDescribe", 0, 1, Opaque),
    /* 78 */ api("ShareFetch", 0, 2, Tail(&responses::SHARE_FETCH)),
    /* 79 */ api("ShareAcknowledge", 0, 2, Tail(&responses::SHARE_ACKNOWLEDGE)),
    /* 80 */ api("AddRaftVoter", 0, 1, Opaque),
    /* 81 */ api("RemoveRaftVoter", 0, 0, Opaque),
    /* 82 */ api("UpdateRaftVoter", 0, 0, Hidden),
    /* 83 */ api("InitializeShareGroupState", 0, 0, Opaque),
    /* 84 */ api("ReadShareGroupState", 0, 0, Opaque),
    /* 85 */ api("WriteShareGroupState", 0, 1, Opaque),
    /* 86 */ api("DeleteShareGroupState", 0, 0, Opaque),
    /* 87 */ api("ReadShareGroupStateSummary", 0, 1, Opaque),
    /* 88 */ api("StreamsGroupHeartbeat", 0, 0, Opaque),
    /* 89 */ api("StreamsGroupDescribe", 0, 0, Opaque),
    /* 90 */ api("DescribeShareGroupOffsets", 0, 1, Opaque),
    /* 91 */ api("AlterShareGroupOffsets", 0, 0, Opaque),
    /* 92 */ api("DeleteShareGroupOffsets", 0, 0, Opaque),
];
