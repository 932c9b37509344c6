//! Heads of requests and responses, and the table of APIs, against the codec crate.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use protocol_ext::api;
use protocol_ext::header::{Head, client_id, request_body_at, response_body_at};

/// Every (key, version) that the codec crate knows.
fn known() -> Vec<(ApiKey, i16, i16)> {
    let keys = (0..200).filter_map(|key| Some((ApiKey::try_from(key).ok()?, key)));
    keys.flat_map(|(api, key)| {
        let range = api.valid_versions();
        (range.min..=range.max).map(move |version| (api, key, version))
    })
    .collect()
}

#[test]
fn flexible_versions_are_those_of_the_codec_crate() {
    for (api, key, version) in known() {
        let flexible = api.request_header_version(version) >= 2;
        assert_eq!(api::is_flexible(key, version), flexible, "{api:?} {version}");
        let tags = api.response_header_version(version) >= 1;
        assert_eq!(tags, flexible && api != ApiKey::ApiVersions, "{api:?} {version}");
    }
}

#[test]
fn names_are_those_of_the_codec_crate() {
    for (api, key, _) in known() {
        let name = format!("{api:?}");
        let renamed = [("ListClientMetricsResources", "ListConfigResources")];
        let name = renamed.iter().find(|(old, _)| *old == name).map_or(&*name, |(_, new)| new);
        assert_eq!(api::name(key), name);
    }
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn bodies_start_behind_client_id_and_tags(
        at in any::<prop::sample::Index>(),
        correlation in any::<i32>(),
        client in proptest::option::of("[a-z\u{e9}\u{4e2d}]{0,40}"),
        tags in proptest::collection::btree_map(0_i32..20_000, "[a-z]{0,30}", 0..4),
    ) {
        let known = known();
        let (api, key, version) = known[at.index(known.len())];
        let tags: BTreeMap<i32, Bytes> =
            tags.into_iter().map(|(tag, text)| (tag, text.into())).collect();
        let mut header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(client.clone().map(StrBytes::from_string));
        let mut answer = ResponseHeader::default().with_correlation_id(correlation);
        let header_version = api.request_header_version(version);
        if header_version >= 2 {
            header.unknown_tagged_fields = tags.clone();
        }
        if api.response_header_version(version) >= 1 {
            answer.unknown_tagged_fields = tags;
        }
        // ControlledShutdown 0, of brokers only, is the one request without a client id.
        prop_assume!(header_version >= 1);
        let mut frame = BytesMut::new();
        header.encode(&mut frame, header_version).expect("a header");
        let len = frame.len();
        frame.extend_from_slice(b"body");
        let head = Head::parse(&frame).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(head, Head { api: key, version, correlation });
        prop_assert_eq!(request_body_at(head, &frame), Ok(len));
        prop_assert_eq!(client_id(&frame), client.as_deref().unwrap_or(""));
        for cut in 0..len {
            prop_assert!(request_body_at(head, &frame[..cut]).is_err());
        }

        let mut frame = BytesMut::new();
        answer.encode(&mut frame, api.response_header_version(version)).expect("a header");
        let len = frame.len();
        frame.extend_from_slice(b"body");
        prop_assert_eq!(response_body_at(key, version, &frame), Ok(len));
    }
}
