//! The ApiVersions answer that clients get holds the rows that are allowed, in every version.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use protocol_ext::{api, versions};

fn frame(answer: &ApiVersionsResponse, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(77);
    answer.encode(&mut out, version).expect("an answer");
    out.freeze()
}

fn row((key, min, max): (i16, i16, i16)) -> ApiVersion {
    ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn exactly_the_allowed_rows_are_left_and_features_stay(
        version in 0_i16..=4,
        rows in proptest::collection::vec((0_i16..120, 0_i16..4, 0_i16..30), 0..60),
        feature in any::<bool>(),
        throttle in any::<i32>(),
    ) {
        let mut answer = ApiVersionsResponse::default()
            .with_api_keys(rows.iter().copied().map(row).collect());
        if version >= 1 {
            answer.throttle_time_ms = throttle;
        }
        if version >= 3 && feature {
            let name = StrBytes::from_static_str("kraft.version");
            answer.supported_features =
                vec![SupportedFeatureKey::default().with_name(name.clone()).with_min_version(1)];
            answer.finalized_features =
                vec![FinalizedFeatureKey::default().with_name(name).with_max_version_level(7)];
            answer.finalized_features_epoch = 12;
        }
        let limited = versions::limit(&frame(&answer, version), version, api::servable_range);
        let limited = limited.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&limited[..4], &[0, 0, 0, 77]);
        let mut body = limited.slice(4..);
        let got = ApiVersionsResponse::decode(&mut body, version)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(body.is_empty());
        let allowed = |(key, min, max): &(i16, i16, i16)| {
            api::servable_range(*key, *min, *max).map(|(min, max)| row((*key, min, max)))
        };
        answer.api_keys = rows.iter().filter_map(allowed).collect();
        prop_assert_eq!(got, answer);
    }

    #[test]
    fn nothing_is_shown_that_is_not_served_and_nothing_beyond_the_broker(
        key in any::<i16>(),
        min in 0_i16..40,
        max in 0_i16..40,
    ) {
        if let Some((low, high)) = api::servable_range(key, min, max) {
            prop_assert!(min <= low && low <= high && high <= max);
            prop_assert!(api::is_servable(key, low) && api::is_servable(key, high));
        }
    }

    #[test]
    fn the_answer_to_a_version_too_new_passes_as_it_is(version in 0_i16..200) {
        let answer = ApiVersionsResponse::default()
            .with_error_code(35)
            .with_api_keys(vec![row((18, 0, 4))]);
        let frame = frame(&answer, 0);
        let limited = versions::limit(&frame, version, |_, _, _| None);
        prop_assert_eq!(limited.map(|bytes| bytes.as_ptr()), Ok(frame.as_ptr()));
    }

    #[test]
    fn any_bytes_at_all_never_panic(
        version in -2_i16..8,
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        // Only a panic would be a failure.
        let _ = versions::limit(&bytes.into(), version, |_, min, max| Some((min, max)));
    }
}
