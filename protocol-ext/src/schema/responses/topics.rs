//! Responses about topics as such, and about offsets that groups commit.

use crate::schema::{Field, Message, Role, array, i8f, i16f, i32f, i64f, string, uuid};

/// CreateTopicsResponse.
pub const CREATE_TOPICS: Message = Message {
    request: false,
    api: 19,
    flexible: 5,
    min: 2,
    max: 7,
    fields: &[i32f("ThrottleTimeMs").since(2), array("Topics", CREATED_TOPIC)],
};

const CREATED_TOPIC: &[Field] = &[
    string("Name").role(Role::Topic),
    uuid("TopicId").since(7).role(Role::TopicId),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").since(1).role(Role::ErrorText),
    i16f("TopicConfigErrorCode").since(5).tag(0),
    i32f("NumPartitions").since(5),
    i16f("ReplicationFactor").since(5),
    array("Configs", CREATED_CONFIG).since(5),
];

/// OffsetCommitResponse.
pub const OFFSET_COMMIT: Message = Message {
    request: false,
    api: 8,
    flexible: 8,
    min: 2,
    max: 9,
    fields: &[i32f("ThrottleTimeMs").since(3), array("Topics", COMMITTED_TOPIC)],
};

/// TxnOffsetCommitResponse.
pub const TXN_OFFSET_COMMIT: Message = Message {
    request: false,
    api: 28,
    flexible: 3,
    min: 0,
    max: 5,
    fields: &[i32f("ThrottleTimeMs"), array("Topics", COMMITTED_TOPIC)],
};

const COMMITTED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", COMMITTED_PARTITION)];

const COMMITTED_PARTITION: &[Field] =
    &[i32f("PartitionIndex").role(Role::Partition), i16f("ErrorCode").role(Role::ErrorCode)];

/// OffsetForLeaderEpochResponse.
pub const OFFSET_FOR_LEADER_EPOCH: Message = Message {
    request: false,
    api: 23,
    flexible: 4,
    min: 2,
    max: 4,
    fields: &[i32f("ThrottleTimeMs").since(2), array("Topics", EPOCH_TOPIC)],
};

const EPOCH_TOPIC: &[Field] =
    &[string("Topic").role(Role::Topic), array("Partitions", EPOCH_PARTITION)];

const EPOCH_PARTITION: &[Field] = &[
    i16f("ErrorCode").role(Role::ErrorCode),
    i32f("Partition").role(Role::Partition),
    i32f("LeaderEpoch").since(1),
    i64f("EndOffset"),
];

/// CreatePartitionsResponse.
pub const CREATE_PARTITIONS: Message = Message {
    request: false,
    api: 37,
    flexible: 2,
    min: 0,
    max: 3,
    fields: &[i32f("ThrottleTimeMs"), array("Results", GROWN_TOPIC)],
};

const GROWN_TOPIC: &[Field] = &[
    string("Name").role(Role::Topic),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").role(Role::ErrorText),
];

/// DeleteTopicsResponse.
pub const DELETE_TOPICS: Message = Message {
    request: false,
    api: 20,
    flexible: 4,
    min: 1,
    max: 6,
    fields: &[i32f("ThrottleTimeMs").since(1), array("Responses", DELETED_TOPIC)],
};

const DELETED_TOPIC: &[Field] = &[
    string("Name").role(Role::Topic),
    uuid("TopicId").since(6).role(Role::TopicId),
    i16f("ErrorCode").role(Role::ErrorCode),
    string("ErrorMessage").since(5).role(Role::ErrorText),
];

/// DeleteRecordsResponse.
pub const DELETE_RECORDS: Message = Message {
    request: false,
    api: 21,
    flexible: 2,
    min: 0,
    max: 2,
    fields: &[i32f("ThrottleTimeMs"), array("Topics", SHORTENED_TOPIC)],
};

const SHORTENED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", SHORTENED_PARTITION)];

const SHORTENED_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i64f("LowWatermark"),
    i16f("ErrorCode").role(Role::ErrorCode),
];

const CREATED_CONFIG: &[Field] =
    &[string("Name"), string("Value"), i8f("ReadOnly"), i8f("ConfigSource"), i8f("IsSensitive")];
