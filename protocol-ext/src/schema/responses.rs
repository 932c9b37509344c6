//! Responses that carry addresses, records or version ranges.

mod admin;
mod topics;

use super::{Field, Message, Role, array, i8f, i16f, i32f, i64f, records, string, structure, uuid};
pub use admin::*;
pub use topics::*;

const LEADER: &[Field] = &[i32f("LeaderId"), i32f("LeaderEpoch")];

const ENDPOINT: &[Field] = &[
    i32f("NodeId").role(Role::Node),
    string("Host").role(Role::Host),
    i32f("Port").role(Role::Port),
    string("Rack"),
];

/// ProduceResponse: KIP-951 endpoints in tag 0 since version 10.
pub const PRODUCE: Message = Message {
    request: false,
    api: 0,
    flexible: 9,
    min: 0,
    max: 13,
    fields: &[
        array("Responses", PRODUCE_TOPIC),
        i32f("ThrottleTimeMs").since(1),
        array("NodeEndpoints", ENDPOINT).since(10).tag(0),
    ],
};

const PRODUCE_TOPIC: &[Field] = &[
    string("Name").until(12).role(Role::Topic),
    uuid("TopicId").since(13).role(Role::TopicId),
    array("PartitionResponses", PRODUCE_PARTITION),
];

const PRODUCE_PARTITION: &[Field] = &[
    i32f("Index").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    i64f("BaseOffset"),
    i64f("LogAppendTimeMs").since(2),
    i64f("LogStartOffset").since(5),
    array("RecordErrors", &[i32f("BatchIndex"), string("BatchIndexErrorMessage")]).since(8),
    string("ErrorMessage").since(8).role(Role::ErrorText),
    structure("CurrentLeader", LEADER).since(10).tag(0),
];

/// FetchResponse: KIP-951 endpoints in tag 0 since version 16.
pub const FETCH: Message = Message {
    request: false,
    api: 1,
    flexible: 12,
    min: 0,
    max: 18,
    fields: &[
        i32f("ThrottleTimeMs").since(1),
        i16f("ErrorCode").since(7).role(Role::ErrorCode),
        i32f("SessionId").since(7).role(Role::SessionId),
        array("Responses", FETCH_TOPIC),
        array("NodeEndpoints", ENDPOINT).since(16).tag(0),
    ],
};

const FETCH_TOPIC: &[Field] = &[
    string("Topic").until(12).role(Role::Topic),
    uuid("TopicId").since(13).role(Role::TopicId),
    array("Partitions", FETCH_PARTITION),
];

const ABORTED: &[Field] =
    &[i64f("ProducerId").role(Role::AbortedProducer), i64f("FirstOffset").role(Role::AbortedFrom)];

const FETCH_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    i64f("HighWatermark"),
    i64f("LastStableOffset").since(4),
    i64f("LogStartOffset").since(5),
    structure("DivergingEpoch", &[i32f("Epoch"), i64f("EndOffset")]).since(12).tag(0),
    structure("CurrentLeader", LEADER).since(12).tag(1),
    structure("SnapshotId", &[i64f("EndOffset"), i32f("Epoch")]).since(12).tag(2),
    array("AbortedTransactions", ABORTED).since(4),
    i32f("PreferredReadReplica").since(11),
    records("Records"),
];

/// MetadataResponse.
pub const METADATA: Message = Message {
    request: false,
    api: 3,
    flexible: 9,
    min: 0,
    max: 13,
    fields: &[
        i32f("ThrottleTimeMs").since(3),
        array("Brokers", METADATA_BROKER),
        string("ClusterId").since(2),
        i32f("ControllerId").since(1),
        array("Topics", METADATA_TOPIC),
        i32f("ClusterAuthorizedOperations").since(8).until(10),
        i16f("ErrorCode").since(13).role(Role::ErrorCode),
    ],
};

const METADATA_BROKER: &[Field] = &[
    i32f("NodeId").role(Role::Node),
    string("Host").role(Role::Host),
    i32f("Port").role(Role::Port),
    string("Rack").since(1),
];

const METADATA_TOPIC: &[Field] = &[
    i16f("ErrorCode").role(Role::ErrorCode),
    string("Name").role(Role::Topic),
    uuid("TopicId").since(10).role(Role::TopicId),
    i8f("IsInternal").since(1),
    array("Partitions", METADATA_PARTITION),
    i32f("TopicAuthorizedOperations").since(8),
];

const METADATA_PARTITION: &[Field] = &[
    i16f("ErrorCode").role(Role::ErrorCode),
    i32f("PartitionIndex").role(Role::Partition),
    i32f("LeaderId"),
    i32f("LeaderEpoch").since(7),
    Field::new("ReplicaNodes", super::Kind::FixedList(4)),
    Field::new("IsrNodes", super::Kind::FixedList(4)),
    Field::new("OfflineReplicas", super::Kind::FixedList(4)).since(5),
];

/// ListOffsetsResponse.
pub const LIST_OFFSETS: Message = Message {
    request: false,
    api: 2,
    flexible: 6,
    min: 1,
    max: 11,
    fields: &[i32f("ThrottleTimeMs").since(2), array("Topics", LIST_OFFSETS_TOPIC)],
};

const LIST_OFFSETS_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", LIST_OFFSETS_PARTITION)];

const LIST_OFFSETS_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    i64f("Timestamp").since(1),
    i64f("Offset").since(1),
    i32f("LeaderEpoch").since(4),
];

/// DescribeProducersResponse.
pub const DESCRIBE_PRODUCERS: Message = Message {
    request: false,
    api: 61,
    flexible: 0,
    min: 0,
    max: 0,
    fields: &[i32f("ThrottleTimeMs"), array("Topics", PRODUCERS_TOPIC)],
};

const PRODUCERS_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", PRODUCERS_PARTITION)];

const PRODUCERS_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
    array("ActiveProducers", PRODUCER),
];

const PRODUCER: &[Field] = &[
    i64f("ProducerId"),
    i32f("ProducerEpoch"),
    i32f("LastSequence"),
    i64f("LastTimestamp"),
    i32f("CoordinatorEpoch"),
    i64f("CurrentTxnStartOffset"),
];

/// FindCoordinatorResponse: one coordinator up to version 3, a batch since 4 (KIP-699).
pub const FIND_COORDINATOR: Message = Message {
    request: false,
    api: 10,
    flexible: 3,
    min: 0,
    max: 6,
    fields: &[
        i32f("ThrottleTimeMs").since(1),
        i16f("ErrorCode").until(3).role(Role::ErrorCode),
        string("ErrorMessage").since(1).until(3).role(Role::ErrorText),
        i32f("NodeId").until(3).role(Role::Node),
        string("Host").until(3).role(Role::Host),
        i32f("Port").until(3).role(Role::Port),
        array("Coordinators", COORDINATOR).since(4),
    ],
};

const COORDINATOR: &[Field] = &[
    string("Key"),
    i32f("NodeId").role(Role::Node),
    string("Host").role(Role::Host),
    i32f("Port").role(Role::Port),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
];

/// InitProducerIdResponse.
pub const INIT_PRODUCER_ID: Message = Message {
    request: false,
    api: 22,
    flexible: 2,
    min: 0,
    max: 5,
    fields: &[
        i32f("ThrottleTimeMs"),
        i16f("ErrorCode").role(Role::ErrorCode),
        i64f("ProducerId"),
        i16f("ProducerEpoch"),
    ],
};

/// AddPartitionsToTxnResponse, as clients are answered.
pub const ADD_PARTITIONS_TO_TXN: Message = Message {
    request: false,
    api: 24,
    flexible: 3,
    min: 0,
    max: 3,
    fields: &[i32f("ThrottleTimeMs"), array("ResultsByTopicV3AndBelow", ADDED_TOPIC)],
};

const ADDED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("ResultsByPartition", ADDED_PARTITION)];

const ADDED_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("PartitionErrorCode").role(Role::ErrorCode),
];

/// EndTxnResponse.
pub const END_TXN: Message = Message {
    request: false,
    api: 26,
    flexible: 3,
    min: 0,
    max: 4,
    fields: &[i32f("ThrottleTimeMs"), i16f("ErrorCode").role(Role::ErrorCode)],
};

/// DescribeConfigsResponse: a broker's own configuration names its listeners.
pub const DESCRIBE_CONFIGS: Message = Message {
    request: false,
    api: 32,
    flexible: 4,
    min: 0,
    max: 4,
    fields: &[i32f("ThrottleTimeMs"), array("Results", CONFIG_RESULT)],
};

const CONFIG_RESULT: &[Field] = &[
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
    i8f("ResourceType").role(Role::ResourceType),
    string("ResourceName").role(Role::ResourceName),
    array("Configs", CONFIG_ENTRY),
];

const CONFIG_ENTRY: &[Field] = &[
    string("Name").role(Role::ConfigName),
    string("Value").role(Role::ConfigValue),
    i8f("ReadOnly"),
    i8f("IsDefault").until(0),
    i8f("ConfigSource").since(1),
    i8f("IsSensitive"),
    array("Synonyms", CONFIG_SYNONYM).since(1),
    i8f("ConfigType").since(3),
    string("Documentation").since(3),
];

const CONFIG_SYNONYM: &[Field] = &[
    string("Name").role(Role::ConfigName),
    string("Value").role(Role::ConfigValue),
    i8f("Source"),
];

/// AlterConfigsResponse: brokers name their listeners in texts about wrong values.
pub const ALTER_CONFIGS: Message =
    Message { request: false, api: 33, flexible: 2, min: 0, max: 2, fields: ALTERED_CONFIGS };

/// IncrementalAlterConfigsResponse: likewise.
pub const INCREMENTAL_ALTER_CONFIGS: Message =
    Message { request: false, api: 44, flexible: 1, min: 0, max: 1, fields: ALTERED_CONFIGS };

const ALTERED_CONFIGS: &[Field] = &[i32f("ThrottleTimeMs"), array("Responses", ALTERED_CONFIG)];

const ALTERED_CONFIG: &[Field] = &[
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
    i8f("ResourceType"),
    string("ResourceName"),
];

/// DescribeClusterResponse.
pub const DESCRIBE_CLUSTER: Message = Message {
    request: false,
    api: 60,
    flexible: 0,
    min: 0,
    max: 2,
    fields: &[
        i32f("ThrottleTimeMs"),
        i16f("ErrorCode").role(Role::ErrorCode),
        string("ErrorMessage").role(Role::ErrorText),
        i8f("EndpointType").since(1),
        string("ClusterId"),
        i32f("ControllerId"),
        array("Brokers", CLUSTER_BROKER),
        i32f("ClusterAuthorizedOperations"),
    ],
};

const CLUSTER_BROKER: &[Field] = &[
    i32f("BrokerId").role(Role::Node),
    string("Host").role(Role::Host),
    i32f("Port").role(Role::Port),
    string("Rack"),
    i8f("IsFenced").since(2),
];

/// DescribeQuorumResponse: version 2 names the listeners of the controllers (KIP-853).
pub const DESCRIBE_QUORUM: Message = Message {
    request: false,
    api: 55,
    flexible: 0,
    min: 0,
    max: 2,
    fields: &[
        i16f("ErrorCode").role(Role::ErrorCode),
        string("ErrorMessage").since(2).role(Role::ErrorText),
        array("Topics", QUORUM_TOPIC),
        array("Nodes", QUORUM_NODE).since(2),
    ],
};

const QUORUM_TOPIC: &[Field] = &[string("TopicName"), array("Partitions", QUORUM_PARTITION)];

const QUORUM_PARTITION: &[Field] = &[
    i32f("PartitionIndex"),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").since(2).role(Role::ErrorText),
    i32f("LeaderId"),
    i32f("LeaderEpoch"),
    i64f("HighWatermark"),
    array("CurrentVoters", QUORUM_REPLICA),
    array("Observers", QUORUM_REPLICA),
];

const QUORUM_REPLICA: &[Field] = &[
    i32f("ReplicaId"),
    uuid("ReplicaDirectoryId").since(2),
    i64f("LogEndOffset"),
    i64f("LastFetchTimestamp").since(1),
    i64f("LastCaughtUpTimestamp").since(1),
];

const QUORUM_NODE: &[Field] =
    &[i32f("NodeId").role(Role::Node), array("Listeners", QUORUM_LISTENER)];

const QUORUM_LISTENER: &[Field] =
    &[string("Name"), string("Host").role(Role::Host), i16f("Port").role(Role::Port)];

/// ShareFetchResponse: endpoints are an ordinary array behind the records (KIP-932).
pub const SHARE_FETCH: Message = Message {
    request: false,
    api: 78,
    flexible: 0,
    min: 1,
    max: 2,
    fields: &[
        i32f("ThrottleTimeMs"),
        i16f("ErrorCode").role(Role::ErrorCode),
        string("ErrorMessage").role(Role::ErrorText),
        i32f("AcquisitionLockTimeoutMs").since(1),
        array("Responses", SHARE_TOPIC),
        array("NodeEndpoints", ENDPOINT),
    ],
};

const SHARE_TOPIC: &[Field] =
    &[uuid("TopicId").role(Role::TopicId), array("Partitions", SHARE_PARTITION)];

const SHARE_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
    i16f("AcknowledgeErrorCode"),
    string("AcknowledgeErrorMessage").role(Role::ErrorText),
    structure("CurrentLeader", LEADER),
    records("Records"),
    array("AcquiredRecords", ACQUIRED).role(Role::Acquired),
];

const ACQUIRED: &[Field] = &[i64f("FirstOffset"), i64f("LastOffset"), i16f("DeliveryCount")];

/// ShareAcknowledgeResponse.
pub const SHARE_ACKNOWLEDGE: Message = Message {
    request: false,
    api: 79,
    flexible: 0,
    min: 1,
    max: 2,
    fields: &[
        i32f("ThrottleTimeMs"),
        i16f("ErrorCode").role(Role::ErrorCode),
        string("ErrorMessage").role(Role::ErrorText),
        i32f("AcquisitionLockTimeoutMs").since(2),
        array("Responses", ACKNOWLEDGE_TOPIC),
        array("NodeEndpoints", ENDPOINT),
    ],
};

const ACKNOWLEDGE_TOPIC: &[Field] =
    &[uuid("TopicId").role(Role::TopicId), array("Partitions", ACKNOWLEDGE_PARTITION)];

const ACKNOWLEDGE_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
    structure("CurrentLeader", LEADER),
];
