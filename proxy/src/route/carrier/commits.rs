//! OffsetCommit and TxnOffsetCommit: a negative offset for a virtual topic is refused, and any for
//! a part of one, or by the transactional id of the placement.
//!
//! Brokers take any number, and -1 is read back as no commit at all; no client library sends one
//! by itself. Whatever else is committed is the broker's to judge.

use kafka_protocol::messages::offset_commit_response as plain;
use kafka_protocol::messages::txn_offset_commit_response as in_transaction;
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use protocol_ext::wire::WireError;

use super::{INVALID_REQUEST, Known, Shared};
use crate::fault;
use crate::route::legs::UNKNOWN_PARTITION;
use crate::route::transactions::ID_FORBIDDEN;
use crate::route::virtual_topics::Named;

/// Takes the partitions out that are refused; gives their indexes, and why. `writer` is the
/// transactional id of who commits.
fn refused<P>(
    known: Known<'_>,
    (name, writer): (&str, &str),
    partitions: &mut Vec<P>,
    row: impl Fn(&P) -> (i32, i64),
) -> Vec<(i32, i16)> {
    let (all, code) = match known.named(name) {
        _ if known.routed.is_own_writer(writer) => (true, ID_FORBIDDEN),
        Named::Virtual if fault::on("negative-commits-pass") => return Vec::new(),
        Named::Virtual => (false, INVALID_REQUEST),
        Named::Hidden => (true, UNKNOWN_PARTITION),
        Named::Plain => return Vec::new(),
    };
    let refused = partitions.extract_if(.., |asked| all || row(asked).1 < 0);
    refused.map(|asked| (row(&asked).0, code)).collect()
}

/// The two requests have the same fields under other types.
macro_rules! commits {
    ($request:ty, $answer:ty, $topic:ty, $partition:ty, $writer:expr) => {
        impl Shared for $request {
            type Answer = $answer;

            fn take_out(&mut self, known: Known<'_>) -> Result<Option<$answer>, WireError> {
                let (mut told, writer) = (Vec::new(), $writer(self));
                for topic in &mut self.topics {
                    let names = (topic.name.as_str(), &*writer);
                    let refused = refused(known, names, &mut topic.partitions, |asked| {
                        (asked.partition_index, asked.committed_offset)
                    });
                    let rows = refused.into_iter().map(|(index, code)| {
                        <$partition>::default().with_partition_index(index).with_error_code(code)
                    });
                    let rows: Vec<_> = rows.collect();
                    if !rows.is_empty() {
                        let row = <$topic>::default().with_name(topic.name.clone());
                        told.push(row.with_partitions(rows));
                    }
                }
                if told.is_empty() {
                    return Ok(None);
                }
                self.topics.retain(|topic| !topic.partitions.is_empty());
                Ok(Some(<$answer>::default().with_topics(told)))
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
    plain::OffsetCommitResponsePartition,
    |_: &_| String::new()
);
commits!(
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    in_transaction::TxnOffsetCommitResponseTopic,
    in_transaction::TxnOffsetCommitResponsePartition,
    |request: &TxnOffsetCommitRequest| request.transactional_id.to_string()
);
