//! SaslHandshake and SaslAuthenticate: PLAIN and SCRAM for the users of the cluster.

use std::time::Duration;

use bytes::Bytes;

use super::{FakeCluster, Request};
use crate::sasl::messages::{self, FAILED, ILLEGAL_STATE, UNSUPPORTED_MECHANISM};
use crate::sasl::scram::{ClientFirst, ITERATIONS_MIN, Keys, ServerWaits};
use crate::sasl::{MECHANISMS, Mechanism, SaslError, parse_plain};
use crate::wire::WireError;

/// One connection's state.
#[derive(Debug, Default)]
pub struct FakeSession {
    /// Who it is, once it proved it.
    pub user: Option<String>,
    /// Which connection it is; 0 before its first request.
    pub(super) holder: u64,
    chosen: Option<Mechanism>,
    proof: Option<(String, ServerWaits)>,
}

pub(super) fn handshake(
    session: &mut FakeSession,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    session.chosen = Mechanism::of(messages::handshake(request.head, request.frame)?);
    session.proof = None;
    let code = if session.chosen.is_some() { 0 } else { UNSUPPORTED_MECHANISM };
    messages::handshake_answer(request.head, code, &MECHANISMS.map(Mechanism::name))
}

pub(super) fn authenticate(
    cluster: &mut FakeCluster,
    session: &mut FakeSession,
    request: &Request<'_>,
) -> Result<Bytes, WireError> {
    let token = messages::authenticate(request.head, request.frame)?;
    let Some(mechanism) = session.chosen else {
        return messages::refusal(request.head, ILLEGAL_STATE, "no handshake".to_owned());
    };
    match taken(cluster, session, mechanism, token) {
        Err(error) => messages::refusal(request.head, FAILED, error.to_string()),
        Ok((token, None)) => messages::token_answer(request.head, token.into(), Duration::ZERO),
        Ok((token, Some(user))) => {
            session.chosen = None;
            session.user = Some(user.clone());
            cluster.logins.push(user);
            messages::token_answer(request.head, token.into(), cluster.lifetime)
        }
    }
}

/// The answer to a token, and who proved itself with it.
fn taken(
    cluster: &FakeCluster,
    session: &mut FakeSession,
    mechanism: Mechanism,
    token: &[u8],
) -> Result<(Vec<u8>, Option<String>), SaslError> {
    let password = |user: &str| {
        let found = cluster.users.iter().find(|(name, _)| name == user);
        found.map(|(_, password)| password.as_str()).ok_or(SaslError::Refused)
    };
    if mechanism == Mechanism::Plain {
        let (user, given) = parse_plain(token)?;
        let fits = password(user)? == given;
        return if fits {
            Ok((Vec::new(), Some(user.to_owned())))
        } else {
            Err(SaslError::Refused)
        };
    }
    if let Some((user, waits)) = session.proof.take() {
        return Ok((waits.finish(token)?, Some(user)));
    }
    let first = ClientFirst::parse(token)?;
    let user = first.user.clone();
    let keys = Keys::derive(mechanism, password(&user)?, b"fake salt", ITERATIONS_MIN);
    let (token, waits) = first.answer(keys, "fake");
    session.proof = Some((user, waits));
    Ok((token, None))
}
