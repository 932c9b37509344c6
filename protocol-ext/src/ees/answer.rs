//! What a broker's answer to a part of a batch means.

/// The meaning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartAnswer {
    /// Written now, at this offset.
    New(i64),
    /// It was there already, at this offset (told apart on topics with CreateTime only).
    Duplicate(i64),
    /// A later batch of the stream is there, so this one is.
    Older,
    /// Too large: the segment is sealed, if the size was checked before.
    TooLarge,
    /// Try again, at the leader: nothing is known of it, or it was not written.
    Again,
    /// Never: the client is told this code.
    Refused(i16),
    /// The same position with another count of records: a fault of ours, nothing is acknowledged.
    Contradiction,
}

impl PartAnswer {
    /// Whether the part is durable, with acks=all.
    pub fn is_durable(self) -> bool {
        matches!(self, Self::New(_) | Self::Duplicate(_) | Self::Older)
    }
}

/// Reads an answer to a part that was sent with acks=all.
pub fn judge(error_code: i16, base_offset: i64, log_append_time_ms: i64) -> PartAnswer {
    match error_code {
        0 if log_append_time_ms >= 0 => PartAnswer::Duplicate(base_offset),
        0 => PartAnswer::New(base_offset),
        INVALID_PRODUCER_EPOCH => PartAnswer::Older,
        OUT_OF_ORDER_SEQUENCE_NUMBER => PartAnswer::Contradiction,
        MESSAGE_TOO_LARGE => PartAnswer::TooLarge,
        INVALID_TIMESTAMP
        | INVALID_RECORD
        | TOPIC_AUTHORIZATION_FAILED
        | CLUSTER_AUTHORIZATION_FAILED
        | TRANSACTIONAL_ID_AUTHORIZATION_FAILED => PartAnswer::Refused(error_code),
        // The retriable ones, and what nobody expects: claim nothing.
        _ => PartAnswer::Again,
    }
}

const MESSAGE_TOO_LARGE: i16 = 10;
const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
const INVALID_TIMESTAMP: i16 = 32;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const INVALID_RECORD: i16 = 87;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_answers_mean_that_a_part_is_durable() {
        let durable = |code| judge(code, 7, -1).is_durable();
        let codes: Vec<i16> = (-1..200).filter(|code| durable(*code)).collect();
        assert_eq!(codes, [0, INVALID_PRODUCER_EPOCH]);
        assert_eq!(judge(0, 7, -1), PartAnswer::New(7));
        assert_eq!(judge(0, 7, 5), PartAnswer::Duplicate(7));
    }
}
