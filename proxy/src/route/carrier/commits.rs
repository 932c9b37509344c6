//! OffsetCommit and TxnOffsetCommit: a negative offset for a virtual topic is refused.
//!
//! Brokers take any number, and -1 is read back as no commit at all; no client library sends one
//! by itself. Whatever else is committed is the broker's to judge.

use kafka_protocol::messages::offset_commit_response as plain;
use kafka_protocol::messages::txn_offset_commit_response as in_transaction;
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::{INVALID_REQUEST, Known, Named, Shared};
use crate::fault;

/// Takes the partitions with a negative offset out; gives their indexes.
fn refused<P>(
    known: Known<'_>,
    name: &str,
    partitions: &mut Vec<P>,
    row: impl Fn(&P) -> (i32, i64),
) -> Vec<i32> {
    if known.named(name) != Named::Virtual || fault::on("negative-commits-pass") {
        return Vec::new();
    }
    let negative = partitions.iter().map(&row).filter(|(_, offset)| *offset < 0);
    let negative: Vec<i32> = negative.map(|(index, _)| index).collect();
    if !negative.is_empty() {
        partitions.retain(|partition| row(partition).1 >= 0);
    }
    negative
}

/// The two requests have the same fields under other types.
macro_rules! commits {
    ($request:ty, $answer:ty, $topic:ty, $partition:ty) => {
        impl Shared for $request {
            type Answer = $answer;

            fn take_out(&mut self, known: Known<'_>) -> Option<$answer> {
                let mut told = Vec::new();
                for topic in &mut self.topics {
                    let refused = refused(known, &topic.name, &mut topic.partitions, |asked| {
                        (asked.partition_index, asked.committed_offset)
                    });
                    let row = <$partition>::default().with_error_code(INVALID_REQUEST);
                    let rows = refused.into_iter().map(|n| row.clone().with_partition_index(n));
                    let rows: Vec<_> = rows.collect();
                    if !rows.is_empty() {
                        let row = <$topic>::default().with_name(topic.name.clone());
                        told.push(row.with_partitions(rows));
                    }
                }
                if told.is_empty() {
                    return None;
                }
                self.topics.retain(|topic| !topic.partitions.is_empty());
                Some(<$answer>::default().with_topics(told))
            }

            fn is_empty(&self) -> bool {
                self.topics.is_empty()
            }

            fn join(answer: &mut $answer, told: $answer) {
                for topic in told.topics {
                    match answer.topics.iter_mut().find(|other| other.name == topic.name) {
                        Some(known) => known.partitions.extend(topic.partitions),
                        None => answer.topics.push(topic),
                    }
                }
            }
        }
    };
}

commits!(
    OffsetCommitRequest,
    OffsetCommitResponse,
    plain::OffsetCommitResponseTopic,
    plain::OffsetCommitResponsePartition
);
commits!(
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    in_transaction::TxnOffsetCommitResponseTopic,
    in_transaction::TxnOffsetCommitResponsePartition
);
