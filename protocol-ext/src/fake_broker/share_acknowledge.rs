//! ShareAcknowledge (versions 1 and 2): partition 0 of the first topic, and endpoints.
//!
//! Written by hand: the codec crate stops at version 1, and version 2 has one field more.

use bytes::{BufMut, Bytes, BytesMut};

use super::share_fetch::{put_endpoints, put_leader};
use super::{FakeCluster, Request};

pub(super) fn answer(cluster: &FakeCluster, request: &Request<'_>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(request.head.correlation);
    out.put_u8(0);
    out.put_i32(0);
    out.put_i16(0);
    out.put_u8(0);
    if request.head.version >= 2 {
        out.put_i32(30_000);
    }
    out.put_u8(2);
    out.put_slice(cluster.topics.first().map_or(&[0; 16], |topic| topic.id.as_bytes()));
    out.put_u8(2);
    out.put_i32(0);
    out.put_i16(cluster.moved_partition(0, None).map_or(0, |(error, ..)| error));
    out.put_u8(0);
    put_leader(&mut out, cluster);
    out.put_u8(0);
    out.put_u8(0);
    put_endpoints(&mut out, cluster);
    out.put_u8(0);
    out.freeze()
}
