//! Learns which versions each broker has, where clients are told before they are let through to
//! one.
//!
//! Each broker that is known is asked once, and again now and then: one that starts anew may be
//! another version. Nobody has to log in for that.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::{Encodable, StrBytes};
use protocol_ext::{api, versions};

use crate::clock;
use crate::limits::Limits;
use crate::route::addresses::Directory;
use crate::upstream::BrokerConnection;
use crate::upstream::access::Login;

/// Host and port of a broker.
pub type Place = (String, u16);

/// A table older than this is asked for again: sooner a broker that starts anew is not back.
const AGE_MAX: Duration = Duration::from_secs(30);

/// Asks for ever; dropped at shutdown. A broker that does not answer delays no other.
pub async fn learn(directory: Arc<Directory>, limits: Limits) {
    let (mut running, mut asked) = (FuturesUnordered::new(), BTreeSet::new());
    loop {
        // Who is not told yet waits for these.
        for place in directory.without_versions(clock::now(), AGE_MAX, limits.refresh) {
            if asked.insert(place.clone()) {
                running.push(learn_one(&directory, &limits, place));
            }
        }
        tokio::select! {
            biased;
            Some(place) = running.next() => drop(asked.remove(&place)),
            () = tokio::time::sleep(limits.refresh) => {}
            () = directory.brokers_changed() => {}
        }
    }
}

async fn learn_one(directory: &Directory, limits: &Limits, place: Place) -> Place {
    let asked = tokio::time::timeout(limits.connect, ask(directory, limits, &place)).await;
    let table = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = &table {
        let (host, port) = &place;
        tracing::debug!(%error, %host, port, "broker tells no versions");
    }
    directory.learn_versions(&place, table.ok());
    place
}

async fn ask(directory: &Directory, limits: &Limits, place: &Place) -> io::Result<Bytes> {
    let connected = directory.reach(place, limits, &Login::Nobody).await?;
    of(&mut BrokerConnection::new(connected)).await
}

/// The table of versions of a broker: a frame of the layout `versions::LAYOUT`.
pub async fn of(broker: &mut BrokerConnection) -> io::Result<Bytes> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let name = StrBytes::from_static_str("firebreak");
    let version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
    let request = ApiVersionsRequest::default()
        .with_client_software_name(name)
        .with_client_software_version(version);
    let mut body = BytesMut::new();
    let encoded = request.encode(&mut body, versions::LAYOUT);
    encoded.map_err(|error| invalid(error.to_string()))?;
    let body = [body.freeze()];
    let answer = broker.exchange(api::API_VERSIONS, versions::LAYOUT, &body).await?;
    // The table is kept as a frame, whose correlation id is of no account.
    let mut frame = BytesMut::zeroed(4);
    frame.extend_from_slice(&answer);
    let frame = frame.freeze();
    match frame[4..].first_chunk() {
        Some([0, 0]) => {}
        Some(code) => {
            let code = i16::from_be_bytes(*code);
            return Err(invalid(format!("error {code} in answer to ApiVersions")));
        }
        None => return Err(invalid("an empty answer to ApiVersions".to_owned())),
    }
    let rows = versions::rows(&frame).map_err(|error| invalid(error.to_string()))?;
    if rows.is_empty() {
        return Err(invalid("no API in an answer to ApiVersions".to_owned()));
    }
    Ok(frame)
}
