//! Records of a log as a batch that a producer may send, with other values where asked for.
//!
//! Brokers take from producers only batches without gaps, without marks of a log (append time,
//! transaction, delete horizon). Invariant: keys, headers, attributes and the timestamps that
//! consumers see are those of their source; records keep their order.

use std::borrow::Cow;

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, OpenBatch, build};
use crate::lost::{Found, marked};
use crate::records::{RecordAt, RecordError, RecordView, read_record};
use crate::split::ProducerFields;
use crate::varint::{write_varint, write_varlong};

/// A record to send, and its value if it is not the one that it has.
#[derive(Clone, Debug)]
pub struct Resent<'a> {
    /// The batch that it is in.
    pub source: &'a OpenBatch,
    /// From [`RecordView::at`] of that batch.
    pub at: RecordAt,
    /// Another value; `None` keeps the own one.
    pub value: Option<Found>,
}

/// Why records cannot be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResendError {
    /// The new batch would be too long.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A record is malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// More bytes than lengths can say.
    #[error("a record of {0} bytes")]
    TooLong(usize),
    /// Brokers take no empty batch.
    #[error("no record to send")]
    Nothing,
}

/// One batch of these records, in the codec of the first one's. Nothing is checked here that
/// [`OpenBatch::check_crc`] checks: whoever opened the batches has done so.
pub fn resend(records: &[Resent<'_>], producer: ProducerFields) -> Result<Bytes, ResendError> {
    let first = records.first().ok_or(ResendError::Nothing)?;
    let base_timestamp = timestamp(first.source, &view(first)?);
    let mut max_timestamp = i64::MIN;
    let mut body = Vec::new();
    let (mut fields, mut count) = (Vec::new(), 0_i32);
    for resent in records {
        let record = view(resent)?;
        let timestamp = timestamp(resent.source, &record);
        max_timestamp = max_timestamp.max(timestamp);
        let (value, headers) = match &resent.value {
            None => (record.value, Cow::Borrowed(record.headers_raw)),
            Some(Ok(value)) => (Some(&value[..]), Cow::Borrowed(record.headers_raw)),
            Some(Err(bytes)) => {
                let headers = marked(record.headers_raw, *bytes).ok_or(RecordError::Headers)?;
                (Some(&[][..]), Cow::Owned(headers))
            }
        };
        fields.clear();
        let delta = timestamp.wrapping_sub(base_timestamp);
        put_before_value(&mut fields, &record, delta, count)?;
        write_varint(&mut fields, value.map_or(Ok(-1), length)?);
        let whole = fields.len() + value.map_or(0, <[u8]>::len) + headers.len();
        write_varint(&mut body, i32::try_from(whole).map_err(|_| ResendError::TooLong(whole))?);
        body.extend_from_slice(&fields);
        body.extend_from_slice(value.unwrap_or_default());
        body.extend_from_slice(&headers);
        count += 1;
    }
    let header = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: first.source.codec().bits(),
        last_offset_delta: count - 1,
        base_timestamp,
        max_timestamp,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: producer.base_sequence,
        records_count: count,
    };
    Ok(build(header, first.source.framing(), &body)?)
}

fn view<'a>(resent: &Resent<'a>) -> Result<RecordView<'a>, RecordError> {
    let malformed = RecordError::Malformed { index: resent.at.index };
    read_record(resent.source.body(), resent.at).ok_or(malformed)
}

/// The time that a consumer sees: where the log's own counts, every record has the batch's.
fn timestamp(source: &OpenBatch, record: &RecordView<'_>) -> i64 {
    let header = source.header();
    match header.is_log_append_time() {
        true => header.max_timestamp,
        false => header.base_timestamp.saturating_add(record.timestamp_delta),
    }
}

fn put_before_value(
    out: &mut Vec<u8>,
    record: &RecordView<'_>,
    timestamp_delta: i64,
    offset_delta: i32,
) -> Result<(), ResendError> {
    out.push(record.attributes.cast_unsigned());
    write_varlong(out, timestamp_delta);
    write_varint(out, offset_delta);
    write_varint(out, record.key.map_or(Ok(-1), length)?);
    out.extend_from_slice(record.key.unwrap_or_default());
    Ok(())
}

fn length(bytes: &[u8]) -> Result<i32, ResendError> {
    i32::try_from(bytes.len()).map_err(|_| ResendError::TooLong(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Caps, verify_crc};
    use crate::codec::{Codec, Framing};

    const CAPS: Caps = Caps { body_bytes_max: 10_000, rewritten_bytes_max: 10_000 };
    const PRODUCER: ProducerFields = ProducerFields { id: 5, epoch: 1, base_sequence: 40 };

    /// Records at these offset deltas with key, value and one header named after them.
    fn source(attributes: i16, offset_deltas: &[i32]) -> OpenBatch {
        let mut body = Vec::new();
        for delta in offset_deltas {
            let mut record = vec![0];
            write_varlong(&mut record, i64::from(*delta) * 10);
            write_varint(&mut record, *delta);
            record.extend_from_slice(&[4, b'k', b'0' + u8::try_from(*delta).unwrap()]);
            record.extend_from_slice(&[4, b'v', b'v']);
            record.extend_from_slice(&[2, 2, b'h', 1]);
            write_varint(&mut body, i32::try_from(record.len()).unwrap());
            body.extend_from_slice(&record);
        }
        let header = BatchHeader {
            base_offset: 100,
            batch_length: 0,
            partition_leader_epoch: 7,
            crc: 0,
            attributes,
            last_offset_delta: 9,
            base_timestamp: 1000,
            max_timestamp: 5000,
            producer_id: 1,
            producer_epoch: 2,
            base_sequence: 3,
            records_count: i32::try_from(offset_deltas.len()).unwrap(),
        };
        let batch = build(header, Framing::Plain, &body).unwrap();
        OpenBatch::open(batch, &CAPS).unwrap()
    }

    fn all(source: &OpenBatch) -> Vec<Resent<'_>> {
        let records = source.records().map(|record| record.unwrap().at);
        records.map(|at| Resent { source, at, value: None }).collect()
    }

    #[test]
    fn gaps_close_marks_of_the_log_go_and_records_stay() {
        let source = source(Codec::Zstd.bits() | 1 << 4 | 1 << 6, &[0, 3, 9]);
        let mut records = all(&source);
        records[1].value = Some(Ok(Bytes::from_static(b"another value")));
        records[2].value = Some(Err(77));
        let batch = resend(&records, PRODUCER).unwrap();
        verify_crc(&batch).unwrap();
        let open = OpenBatch::open(batch, &CAPS).unwrap();
        let header = open.header();
        assert_eq!((header.base_offset, header.last_offset_delta), (0, 2));
        assert_eq!(header.attributes, Codec::Zstd.bits());
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (5, 1, 40));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1090));
        let read: Vec<_> = open.records().map(Result::unwrap).collect();
        let deltas: Vec<_> = read.iter().map(|r| (r.offset_delta, r.timestamp_delta)).collect();
        assert_eq!(deltas, [(0, 0), (1, 30), (2, 90)]);
        let values: Vec<_> = read.iter().map(|r| r.value.unwrap()).collect();
        assert_eq!(values, [&b"vv"[..], b"another value", b""]);
        assert_eq!(read[2].key, Some(&b"k9"[..]));
        assert_eq!(read.iter().map(|r| r.headers().count()).collect::<Vec<_>>(), [1, 1, 2]);
    }

    #[test]
    fn records_of_several_batches_keep_the_times_that_consumers_see() {
        let (appended, created) = (source(1 << 3, &[0, 1]), source(0, &[1, 2]));
        let mut records = all(&appended)[1..].to_vec();
        records.extend(all(&created));
        let batch = resend(&records, PRODUCER).unwrap();
        let open = OpenBatch::open(batch, &CAPS).unwrap();
        assert!(!open.header().is_log_append_time());
        let base = open.header().base_timestamp;
        let times: Vec<_> = open.records().map(|r| base + r.unwrap().timestamp_delta).collect();
        assert_eq!(times, [5000, 1010, 1020]);
        assert_eq!(open.header().max_timestamp, 5000);
    }

    #[test]
    fn no_batch_is_made_of_nothing() {
        assert_eq!(resend(&[], PRODUCER), Err(ResendError::Nothing));
    }
}
