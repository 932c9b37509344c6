//! Requests whose topics or records are looked at.

mod admin;

use super::{
    Field, Kind, Message, Role, array, i8f, i16f, i32f, i64f, records, string, structure, uuid,
};
pub use admin::*;

/// ProduceRequest.
pub const PRODUCE: Message = Message {
    request: true,
    api: 0,
    flexible: 9,
    min: 0,
    max: 13,
    fields: &[
        string("TransactionalId").since(3).role(Role::TransactionalId),
        i16f("Acks").role(Role::Acks),
        i32f("TimeoutMs"),
        array("TopicData", PRODUCE_TOPIC),
    ],
};

const PRODUCE_TOPIC: &[Field] = &[
    string("Name").until(12).role(Role::Topic),
    uuid("TopicId").since(13).role(Role::TopicId),
    array("PartitionData", &[i32f("Index").role(Role::Partition), records("Records")]),
];

/// FetchRequest.
pub const FETCH: Message = Message {
    request: true,
    api: 1,
    flexible: 12,
    min: 0,
    max: 18,
    fields: &[
        string("ClusterId").since(12).tag(0),
        i32f("ReplicaId").until(14).role(Role::Replica),
        structure("ReplicaState", REPLICA_STATE).since(15).tag(1),
        i32f("MaxWaitMs"),
        i32f("MinBytes"),
        i32f("MaxBytes").since(3),
        i8f("IsolationLevel").since(4),
        i32f("SessionId").since(7).role(Role::SessionId),
        i32f("SessionEpoch").since(7),
        array("Topics", FETCH_TOPIC),
        array("ForgottenTopicsData", FORGOTTEN).since(7),
        string("RackId").since(11),
    ],
};

const REPLICA_STATE: &[Field] = &[i32f("ReplicaId").role(Role::Replica), i64f("ReplicaEpoch")];

const FETCH_TOPIC: &[Field] = &[
    string("Topic").until(12).role(Role::Topic),
    uuid("TopicId").since(13).role(Role::TopicId),
    array("Partitions", FETCH_PARTITION),
];

const FETCH_PARTITION: &[Field] = &[
    i32f("Partition").role(Role::Partition),
    i32f("CurrentLeaderEpoch").since(9),
    i64f("FetchOffset"),
    i32f("LastFetchedEpoch").since(12),
    i64f("LogStartOffset").since(5),
    i32f("PartitionMaxBytes").role(Role::PartitionBytes),
    uuid("ReplicaDirectoryId").since(17).tag(0),
    i64f("HighWatermark").since(18).tag(1),
];

const FORGOTTEN: &[Field] = &[
    string("Topic").until(12),
    uuid("TopicId").since(13),
    Field::new("Partitions", Kind::FixedList(4)),
];

/// MetadataRequest.
pub const METADATA: Message = Message {
    request: true,
    api: 3,
    flexible: 9,
    min: 0,
    max: 13,
    fields: &[
        array(
            "Topics",
            &[uuid("TopicId").since(10).role(Role::TopicId), string("Name").role(Role::Topic)],
        ),
        i8f("AllowAutoTopicCreation").since(4),
        i8f("IncludeClusterAuthorizedOperations").since(8).until(10),
        i8f("IncludeTopicAuthorizedOperations").since(8),
    ],
};

/// ListOffsetsRequest.
pub const LIST_OFFSETS: Message = Message {
    request: true,
    api: 2,
    flexible: 6,
    min: 0,
    max: 11,
    fields: &[
        i32f("ReplicaId"),
        i8f("IsolationLevel").since(2),
        array("Topics", LIST_OFFSETS_TOPIC),
        i32f("TimeoutMs").since(10),
    ],
};

const LIST_OFFSETS_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", LIST_OFFSETS_PARTITION)];

const LIST_OFFSETS_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i32f("CurrentLeaderEpoch").since(4),
    i64f("Timestamp"),
    i32f("MaxNumOffsets").until(0),
];

/// AddPartitionsToTxnRequest: one transaction of a client up to version 3, several since.
pub const ADD_PARTITIONS_TO_TXN: Message = Message {
    request: true,
    api: 24,
    flexible: 3,
    min: 0,
    max: 5,
    fields: &[
        array("Transactions", TRANSACTION).since(4),
        string("V3AndBelowTransactionalId").until(3).role(Role::TransactionalId),
        i64f("V3AndBelowProducerId").until(3),
        i16f("V3AndBelowProducerEpoch").until(3),
        array("V3AndBelowTopics", ADDED_TOPIC).until(3),
    ],
};

const TRANSACTION: &[Field] = &[
    string("TransactionalId").role(Role::TransactionalId),
    i64f("ProducerId"),
    i16f("ProducerEpoch"),
    i8f("VerifyOnly"),
    array("Topics", ADDED_TOPIC),
];

const ADDED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), Field::new("Partitions", Kind::FixedList(4))];

/// TxnOffsetCommitRequest.
pub const TXN_OFFSET_COMMIT: Message = Message {
    request: true,
    api: 28,
    flexible: 3,
    min: 0,
    max: 5,
    fields: &[
        string("TransactionalId").role(Role::TransactionalId),
        string("GroupId"),
        i64f("ProducerId"),
        i16f("ProducerEpoch"),
        i32f("GenerationId").since(3),
        string("MemberId").since(3),
        string("GroupInstanceId").since(3),
        array("Topics", COMMITTED_TOPIC),
    ],
};

/// OffsetCommitRequest.
pub const OFFSET_COMMIT: Message = Message {
    request: true,
    api: 8,
    flexible: 8,
    min: 2,
    max: 9,
    fields: &[
        string("GroupId"),
        i32f("GenerationIdOrMemberEpoch").since(1),
        string("MemberId").since(1),
        string("GroupInstanceId").since(7),
        i64f("RetentionTimeMs").since(2).until(4),
        array("Topics", GROUP_TOPIC),
    ],
};

const GROUP_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", GROUP_PARTITION)];

const GROUP_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i64f("CommittedOffset"),
    i32f("CommittedLeaderEpoch").since(6),
    string("CommittedMetadata"),
];

/// OffsetForLeaderEpochRequest.
pub const OFFSET_FOR_LEADER_EPOCH: Message = Message {
    request: true,
    api: 23,
    flexible: 4,
    min: 2,
    max: 4,
    fields: &[i32f("ReplicaId").since(3), array("Topics", EPOCH_TOPIC)],
};

const EPOCH_TOPIC: &[Field] =
    &[string("Topic").role(Role::Topic), array("Partitions", EPOCH_PARTITION)];

const EPOCH_PARTITION: &[Field] = &[
    i32f("Partition").role(Role::Partition),
    i32f("CurrentLeaderEpoch").since(2),
    i32f("LeaderEpoch"),
];

/// CreatePartitionsRequest.
pub const CREATE_PARTITIONS: Message = Message {
    request: true,
    api: 37,
    flexible: 2,
    min: 0,
    max: 3,
    fields: &[array("Topics", GROWN_TOPIC), i32f("TimeoutMs"), i8f("ValidateOnly")],
};

const GROWN_TOPIC: &[Field] = &[
    string("Name").role(Role::Topic),
    i32f("Count"),
    array("Assignments", &[Field::new("BrokerIds", Kind::FixedList(4))]),
];

/// DeleteTopicsRequest.
pub const DELETE_TOPICS: Message = Message {
    request: true,
    api: 20,
    flexible: 4,
    min: 1,
    max: 6,
    fields: &[
        array("Topics", &[string("Name").role(Role::Topic), uuid("TopicId").role(Role::TopicId)])
            .since(6),
        Field::new("TopicNames", Kind::StrList).until(5),
        i32f("TimeoutMs"),
    ],
};

/// DeleteRecordsRequest.
pub const DELETE_RECORDS: Message = Message {
    request: true,
    api: 21,
    flexible: 2,
    min: 0,
    max: 2,
    fields: &[array("Topics", SHORTENED_TOPIC), i32f("TimeoutMs")],
};

const SHORTENED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", SHORTENED_PARTITION)];

const SHORTENED_PARTITION: &[Field] =
    &[i32f("PartitionIndex").role(Role::Partition), i64f("Offset")];

const COMMITTED_TOPIC: &[Field] =
    &[string("Name").role(Role::Topic), array("Partitions", COMMITTED_PARTITION)];

const COMMITTED_PARTITION: &[Field] = &[
    i32f("PartitionIndex").role(Role::Partition),
    i64f("CommittedOffset"),
    i32f("CommittedLeaderEpoch").since(2),
    string("CommittedMetadata"),
];
