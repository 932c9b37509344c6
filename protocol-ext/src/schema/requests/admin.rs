//! Requests of administrators that name topics.

use crate::schema::{Field, Kind, Message, Role, array, i8f, i16f, i32f, i64f, string};

/// CreateTopicsRequest.
pub const CREATE_TOPICS: Message = Message {
    request: true,
    api: 19,
    flexible: 5,
    min: 2,
    max: 7,
    fields: &[array("Topics", CREATED_TOPIC), i32f("timeoutMs"), i8f("validateOnly").since(1)],
};

const CREATED_TOPIC: &[Field] = &[
    string("Name").role(Role::Topic),
    i32f("NumPartitions"),
    i16f("ReplicationFactor"),
    array("Assignments", &[i32f("PartitionIndex"), Field::new("BrokerIds", Kind::FixedList(4))]),
    array("Configs", &[string("Name"), string("Value")]),
];

/// WriteTxnMarkersRequest.
pub const WRITE_TXN_MARKERS: Message = Message {
    request: true,
    api: 27,
    flexible: 1,
    min: 1,
    max: 1,
    fields: &[array("Markers", MARKER)],
};

const MARKER: &[Field] = &[
    i64f("ProducerId"),
    i16f("ProducerEpoch"),
    i8f("TransactionResult"),
    array("Topics", INDEXED_TOPIC),
    i32f("CoordinatorEpoch"),
];

const INDEXED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), Field::new("PartitionIndexes", Kind::FixedList(4))];

/// DescribeConfigsRequest.
pub const DESCRIBE_CONFIGS: Message = Message {
    request: true,
    api: 32,
    flexible: 4,
    min: 1,
    max: 4,
    fields: &[
        array("Resources", DESCRIBED),
        i8f("IncludeSynonyms").since(1),
        i8f("IncludeDocumentation").since(3),
    ],
};

const DESCRIBED: &[Field] = &[
    i8f("ResourceType").role(Role::ResourceType),
    string("ResourceName").role(Role::ResourceName),
    Field::new("ConfigurationKeys", Kind::StrList),
];

/// AlterConfigsRequest.
pub const ALTER_CONFIGS: Message = Message {
    request: true,
    api: 33,
    flexible: 2,
    min: 0,
    max: 2,
    fields: &[array("Resources", ALTERED), i8f("ValidateOnly")],
};

const ALTERED: &[Field] = &[
    i8f("ResourceType").role(Role::ResourceType),
    string("ResourceName").role(Role::ResourceName),
    array("Configs", &[string("Name"), string("Value")]),
];

/// IncrementalAlterConfigsRequest.
pub const INCREMENTAL_ALTER_CONFIGS: Message = Message {
    request: true,
    api: 44,
    flexible: 1,
    min: 0,
    max: 1,
    fields: &[array("Resources", CHANGED), i8f("ValidateOnly")],
};

const CHANGED: &[Field] = &[
    i8f("ResourceType").role(Role::ResourceType),
    string("ResourceName").role(Role::ResourceName),
    array("Configs", &[string("Name"), i8f("ConfigOperation"), string("Value")]),
];

/// AlterReplicaLogDirsRequest.
pub const ALTER_REPLICA_LOG_DIRS: Message = Message {
    request: true,
    api: 34,
    flexible: 2,
    min: 1,
    max: 2,
    fields: &[array("Dirs", &[string("Path"), array("Topics", LISTED_TOPIC)])],
};

const LISTED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), Field::new("Partitions", Kind::FixedList(4))];

/// ElectLeadersRequest.
pub const ELECT_LEADERS: Message = Message {
    request: true,
    api: 43,
    flexible: 2,
    min: 0,
    max: 2,
    fields: &[
        i8f("ElectionType").since(1),
        array("TopicPartitions", ELECTED_TOPIC),
        i32f("TimeoutMs"),
    ],
};

const ELECTED_TOPIC: &[Field] =
    &[string("Topic").role(Role::Topic), Field::new("Partitions", Kind::FixedList(4))];

/// AlterPartitionReassignmentsRequest.
pub const ALTER_PARTITION_REASSIGNMENTS: Message = Message {
    request: true,
    api: 45,
    flexible: 0,
    min: 0,
    max: 1,
    fields: &[
        i32f("TimeoutMs"),
        i8f("AllowReplicationFactorChange").since(1),
        array("Topics", MOVED_TOPIC),
    ],
};

const MOVED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", MOVED_PARTITION)];

const MOVED_PARTITION: &[Field] =
    &[i32f("PartitionIndex").role(Role::Partition), Field::new("Replicas", Kind::FixedList(4))];

/// OffsetDeleteRequest.
pub const OFFSET_DELETE: Message = Message {
    request: true,
    api: 47,
    flexible: i16::MAX,
    min: 0,
    max: 0,
    fields: &[string("GroupId"), array("Topics", FORGOTTEN_TOPIC)],
};

const FORGOTTEN_TOPIC: &[Field] = &[
    string("Name").role(Role::Topic),
    array("Partitions", &[i32f("PartitionIndex").role(Role::Partition)]),
];

/// DescribeProducersRequest.
pub const DESCRIBE_PRODUCERS: Message = Message {
    request: true,
    api: 61,
    flexible: 0,
    min: 0,
    max: 0,
    fields: &[array("Topics", INDEXED_TOPIC)],
};
