//! The ApiVersions answer: the versions clients may use are those the broker has and we serve.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::API_VERSIONS;
use crate::header::{Head, skip_tags};
use crate::wire::{Reader, WireError, put_length};

/// Newest ApiVersions version whose layout is known.
pub const VERSION_MAX: i16 = 4;
const UNSUPPORTED_VERSION: i16 = 35;

/// Rewrites a whole ApiVersions response frame (correlation id first) so that it names only the
/// versions `allow(key, min, max)` gives; `None` from it hides a key. The broker answers a version
/// it does not know in the layout of version 0 with error 35 (KIP-511); that passes as it is.
pub fn limit(
    frame: &Bytes,
    version: i16,
    allow: impl Fn(i16, i16, i16) -> Option<(i16, i16)>,
) -> Result<Bytes, WireError> {
    let mut read = Reader::new(frame, 4);
    let error = read.i16()?;
    if error == UNSUPPORTED_VERSION {
        return Ok(frame.clone());
    }
    if version > VERSION_MAX {
        return Err(WireError::Version { api: API_VERSIONS, version });
    }
    let flexible = version >= 3;
    let count = read.length(flexible, true)?.unwrap_or(0);
    let (mut kept, mut rows) = (0, Vec::with_capacity(frame.len()));
    for _ in 0..count {
        let (key, min, max) = (read.i16()?, read.i16()?, read.i16()?);
        if flexible {
            skip_tags(&mut read)?;
        }
        let Some((min, max)) = allow(key, min, max) else {
            continue;
        };
        kept += 1;
        for part in [key, min, max] {
            rows.extend_from_slice(&part.to_be_bytes());
        }
        if flexible {
            rows.push(0);
        }
    }
    let mut out = Vec::with_capacity(frame.len());
    out.extend_from_slice(&frame[..6]);
    put_length(&mut out, flexible, true, Some(kept));
    out.extend_from_slice(&rows);
    out.extend_from_slice(&frame[read.pos()..]);
    Ok(out.into())
}

/// Answers ApiVersions as a broker whose answer `known`, a whole frame in the layout of version 3,
/// was: before a client is let through to one.
pub fn answer(
    known: &Bytes,
    head: Head,
    allow: impl Fn(i16, i16, i16) -> Option<(i16, i16)>,
) -> Result<Bytes, WireError> {
    let correlation = head.correlation.to_be_bytes();
    if head.version > VERSION_MAX {
        return Ok(unsupported(head));
    }
    let limited = limit(known, LAYOUT, allow)?;
    let mut out = correlation.to_vec();
    if head.version >= LAYOUT {
        out.extend_from_slice(&limited[4..]);
        return Ok(out.into());
    }
    let mut read = Reader::new(&limited, 4);
    out.extend_from_slice(&read.i16()?.to_be_bytes());
    let count = read.length(true, true)?.unwrap_or(0);
    put_length(&mut out, false, true, Some(count));
    for _ in 0..count {
        out.extend_from_slice(read.take(6)?);
        skip_tags(&mut read)?;
    }
    if head.version > 0 {
        out.extend_from_slice(read.take(4)?);
    }
    Ok(out.into())
}

/// Answers a version of ApiVersions that is too new, as a broker does (KIP-511): an error in the
/// layout of version 0, with the versions of this one API.
pub fn unsupported(head: Head) -> Bytes {
    let mut out = head.correlation.to_be_bytes().to_vec();
    out.extend_from_slice(&UNSUPPORTED_VERSION.to_be_bytes());
    put_length(&mut out, false, true, Some(1));
    for part in [API_VERSIONS, 0, VERSION_MAX] {
        out.extend_from_slice(&part.to_be_bytes());
    }
    out.into()
}

/// What all of some brokers have, by the frame of [`LAYOUT`] that each of them gave. What a frame
/// holds besides versions is that of the first.
pub fn common<'a>(tables: impl IntoIterator<Item = &'a Bytes>) -> Result<Option<Bytes>, WireError> {
    let mut tables = tables.into_iter();
    let Some(first) = tables.next() else { return Ok(None) };
    let mut common = first.clone();
    for table in tables {
        let other = rows(table)?;
        common = limit(&common, LAYOUT, |key, min, max| {
            let (least, most) = other.get(&key)?;
            let (min, max) = (min.max(*least), max.min(*most));
            (min <= max).then_some((min, max))
        })?;
    }
    Ok(Some(common))
}

/// The version of ApiVersions that brokers are asked with for [`answer`].
pub const LAYOUT: i16 = 3;

/// The least and the greatest version of each API in a frame of [`LAYOUT`].
pub fn rows(known: &Bytes) -> Result<BTreeMap<i16, (i16, i16)>, WireError> {
    let mut read = Reader::new(known, 6);
    let mut rows = BTreeMap::new();
    for _ in 0..read.length(true, true)?.unwrap_or(0) {
        let (key, min, max) = (read.i16()?, read.i16()?, read.i16()?);
        skip_tags(&mut read)?;
        rows.insert(key, (min, max));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_answered_from_one_that_a_broker_gave() {
        use kafka_protocol::messages::ApiVersionsResponse;
        use kafka_protocol::messages::api_versions_response::ApiVersion;
        use kafka_protocol::protocol::Decodable;
        let row = |key, max| ApiVersion::default().with_api_key(key).with_max_version(max);
        let answered = ApiVersionsResponse::default().with_throttle_time_ms(5);
        let answered = answered.with_api_keys(vec![row(3, 12), row(36, 2)]);
        let known = Head { api: API_VERSIONS, version: LAYOUT, correlation: 1 };
        let known = crate::reply::frame(known, &answered).expect("a frame");
        assert_eq!(rows(&known), Ok([(3, (0, 12)), (36, (0, 2))].into()));
        for version in 0..=VERSION_MAX {
            let head = Head { api: API_VERSIONS, version, correlation: 9 };
            let only = |key, min, max| (key == 36).then_some((min, max));
            let frame = answer(&known, head, only).expect("an answer");
            assert_eq!(frame[..4], [0, 0, 0, 9]);
            let mut body = frame.slice(4..);
            let read = ApiVersionsResponse::decode(&mut body, version).expect("readable");
            assert_eq!((body.len(), read.api_keys), (0, vec![row(36, 2)]), "version {version}");
        }
        let head = Head { api: API_VERSIONS, version: 9, correlation: 9 };
        let frame = answer(&known, head, |_, _, _| None).expect("an answer");
        assert_eq!(frame.as_ref(), [0, 0, 0, 9, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    }

    #[test]
    fn what_all_brokers_have_is_the_least_of_each() {
        use kafka_protocol::messages::ApiVersionsResponse;
        use kafka_protocol::messages::api_versions_response::ApiVersion;
        let table = |rows: &[(i16, i16, i16)]| {
            let rows = rows.iter().map(|(key, min, max)| {
                let row = ApiVersion::default().with_api_key(*key);
                row.with_min_version(*min).with_max_version(*max)
            });
            let table = ApiVersionsResponse::default().with_api_keys(rows.collect());
            let head = Head { api: API_VERSIONS, version: LAYOUT, correlation: 1 };
            crate::reply::frame(head, &table).expect("a frame")
        };
        let old = table(&[(0, 0, 9), (1, 0, 16), (4, 0, 7), (9, 0, 3)]);
        let new = table(&[(0, 3, 13), (1, 4, 18), (9, 4, 5), (76, 0, 1)]);
        for tables in [[&old, &new], [&new, &old]] {
            let common = common(tables).expect("tables").expect("some");
            assert_eq!(rows(&common), Ok([(0, (3, 9)), (1, (4, 16))].into()));
        }
        assert_eq!(common([&old]), Ok(Some(old.clone())));
        assert_eq!(common([]), Ok(None));
        assert!(common([&old, &new.slice(..20)]).is_err());
    }

    #[test]
    fn hidden_keys_go_and_ranges_shrink() {
        let frame = Bytes::from_static(&[
            0, 0, 0, 9, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 13, 0, 3, 0, 0, 0, 13, 0, 0, 0, 0,
        ]);
        let only_produce = |key, min, _| (key == 0).then_some((min, 5));
        let out = limit(&frame, 1, only_produce).expect("an answer");
        assert_eq!(out.as_ref(), [0, 0, 0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]);
    }
}
