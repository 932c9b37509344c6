//! Answers to administrators, with a row for each partition.

use crate::schema::{Field, Message, Role, array, i8f, i16f, i32f, i64f, string};

/// WriteTxnMarkersResponse.
pub const WRITE_TXN_MARKERS: Message = Message {
    request: false,
    api: 27,
    flexible: 1,
    min: 1,
    max: 1,
    fields: &[array("Markers", &[i64f("ProducerId"), array("Topics", TOPIC)])],
};

/// OffsetDeleteResponse.
pub const OFFSET_DELETE: Message = Message {
    request: false,
    api: 47,
    flexible: i16::MAX,
    min: 0,
    max: 0,
    fields: &[
        i16f("ErrorCode").role(Role::ErrorCode),
        i32f("ThrottleTimeMs"),
        array("Topics", TOPIC),
    ],
};

const TOPIC: &[Field] = &[string("Name").role(Role::Topic), array("Partitions", PARTITION)];

const PARTITION: &[Field] =
    &[i32f("PartitionIndex").role(Role::Partition), i16f("ErrorCode").role(Role::ErrorCode)];

/// AlterReplicaLogDirsResponse.
pub const ALTER_REPLICA_LOG_DIRS: Message = Message {
    request: false,
    api: 34,
    flexible: 2,
    min: 1,
    max: 2,
    fields: &[
        i32f("ThrottleTimeMs"),
        array("Results", &[string("TopicName").role(Role::Topic), array("Partitions", PARTITION)]),
    ],
};

/// ElectLeadersResponse.
pub const ELECT_LEADERS: Message = Message {
    request: false,
    api: 43,
    flexible: 2,
    min: 0,
    max: 2,
    fields: &[
        i32f("ThrottleTimeMs"),
        i16f("ErrorCode").since(1).role(Role::ErrorCode),
        array("ReplicaElectionResults", ELECTED_TOPIC),
    ],
};

const ELECTED_TOPIC: &[Field] =
    &[string("Topic").role(Role::Topic), array("PartitionResult", ELECTED_PARTITION)];

const ELECTED_PARTITION: &[Field] = &[
    i32f("PartitionId").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
];

/// AlterPartitionReassignmentsResponse.
pub const ALTER_PARTITION_REASSIGNMENTS: Message = Message {
    request: false,
    api: 45,
    flexible: 0,
    min: 0,
    max: 1,
    fields: &[
        i32f("ThrottleTimeMs"),
        i8f("AllowReplicationFactorChange").since(1),
        i16f("ErrorCode").role(Role::ErrorCode),
        string("ErrorMessage").role(Role::ErrorText),
        array("Responses", MOVED_TOPIC),
    ],
};

const MOVED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", MOVED_PARTITION)];

const MOVED_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
];
