//! Answers that are made here have the shape of their API and name what was asked.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use proptest::prelude::*;
use protocol_ext::header::Head;
use protocol_ext::reply;
use protocol_ext::schema::requests;

use super::tree::sample_of;

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn a_refused_produce_names_every_partition_with_the_error(
        sample in sample_of(&requests::PRODUCE, 3, 13),
        correlation in any::<i32>(),
        code in 1_i16..100,
    ) {
        let version = sample.version;
        let head = Head { api: 0, version, correlation };
        let header = RequestHeader::default()
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(StrBytes::from_static_str("client")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, ProduceRequest::header_version(version)).expect("a header");
        frame.put_slice(&sample.bytes());
        let asked = ProduceRequest::decode(&mut Bytes::from(sample.bytes()), version)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;

        let mut answer = reply::produce_error(head, &frame, code)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let header = ResponseHeader::decode(&mut answer, ProduceResponse::header_version(version))
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(header.correlation_id, correlation);
        let answer = {
            let decoded = ProduceResponse::decode(&mut answer, version);
            prop_assert!(answer.is_empty());
            decoded.map_err(|error| TestCaseError::fail(error.to_string()))?
        };
        prop_assert_eq!(answer.responses.len(), asked.topic_data.len());
        for (answered, asked) in answer.responses.iter().zip(&asked.topic_data) {
            prop_assert_eq!(&answered.name, &asked.name);
            prop_assert_eq!(answered.topic_id, asked.topic_id);
            let indexes = asked.partition_data.iter().map(|p| (p.index, code, -1));
            let indexes: Vec<_> = indexes.collect();
            let got = answered.partition_responses.iter();
            let got: Vec<_> = got.map(|p| (p.index, p.error_code, p.base_offset)).collect();
            prop_assert_eq!(got, indexes);
        }
    }
}
