//! Responses to who writes in transactions.

use super::super::{Field, Message, Role, array, i16f, i32f, i64f, string};

/// InitProducerIdResponse.
pub const INIT_PRODUCER_ID: Message = Message {
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
    api: 26,
    flexible: 3,
    min: 0,
    max: 4,
    fields: &[i32f("ThrottleTimeMs"), i16f("ErrorCode").role(Role::ErrorCode)],
};
