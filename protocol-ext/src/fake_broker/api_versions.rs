//! ApiVersions: the configured rows; for a version too new the row of version 0 with error 35.

use bytes::Bytes;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use super::{FakeCluster, Request};
use crate::api;
use crate::header::Head;
use crate::reply;
use crate::wire::WireError;

const UNSUPPORTED_VERSION: i16 = 35;

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Result<Bytes, WireError> {
    let versions = cluster.versions_of.get(&cluster.at).unwrap_or(&cluster.versions);
    let own = versions.iter().find(|(key, ..)| *key == api::API_VERSIONS);
    let (_, min, max) = own.copied().unwrap_or((api::API_VERSIONS, 0, 4));
    if request.head.version > max {
        let head = Head { version: 0, ..request.head };
        let answer = ApiVersionsResponse::default()
            .with_error_code(UNSUPPORTED_VERSION)
            .with_api_keys(vec![row(api::API_VERSIONS, min, max)]);
        return reply::frame(head, &answer);
    }
    let rows = versions.iter().map(|(key, min, max)| row(*key, *min, *max));
    reply::frame(request.head, &ApiVersionsResponse::default().with_api_keys(rows.collect()))
}

fn row(key: i16, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
}
