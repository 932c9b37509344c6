//! SASL towards brokers: the proxy's own identity, or a client's whose password it was given.
//!
//! SaslHandshake -> SaslAuthenticate until the mechanism is done -> lifetime of the session.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Encodable, StrBytes};
use parking_lot::Mutex;
use protocol_ext::api;
use protocol_ext::sasl::scram::{ClientAsks, ClientProves, ClientWaits, Salted};
use protocol_ext::sasl::{Mechanism, messages, plain};

use crate::random;
use crate::secret::Secret;

/// Version of SaslHandshake: the first whose tokens come in frames of their own.
pub const HANDSHAKE_VERSION: i16 = 1;
/// Version of SaslAuthenticate: the first that tells a lifetime (KIP-368), not flexible.
pub const AUTHENTICATE_VERSION: i16 = 1;

/// A name and its password, with the mechanism that proves it.
#[derive(Debug)]
pub struct Credentials {
    mechanism: Mechanism,
    user: String,
    password: Secret,
    salted: Mutex<Option<Arc<Salted>>>,
}

impl fmt::Display for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} by {}", self.user, self.mechanism.name())
    }
}

impl Credentials {
    /// Credentials of one user.
    pub fn new(mechanism: Mechanism, user: String, password: Secret) -> Self {
        Self { mechanism, user, password, salted: Mutex::default() }
    }

    /// The work of a proof, done once for each salt of the brokers.
    async fn salted(
        self: &Arc<Self>,
        proves: ClientProves,
    ) -> io::Result<(ClientProves, Arc<Salted>)> {
        let known = self.salted.lock().clone().filter(|salted| proves.fits(salted));
        if let Some(known) = known {
            return Ok((proves, known));
        }
        let own = self.clone();
        let work = move || {
            let salted = Arc::new(proves.salted(own.password.reveal()));
            *own.salted.lock() = Some(salted.clone());
            (proves, salted)
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }
}

/// Sends a request body of one API and version and gives the body of its answer.
pub trait Ask {
    /// Asks.
    fn ask(
        &mut self,
        key: i16,
        version: i16,
        body: Bytes,
    ) -> impl Future<Output = io::Result<Bytes>> + Send;
}

enum State {
    Done,
    Asks(ClientAsks),
    Waits(ClientWaits),
}

/// Logs in and gives the lifetime of the session; zero: it does not end.
pub async fn log_in(broker: &mut impl Ask, own: &Arc<Credentials>) -> io::Result<Duration> {
    let name = StrBytes::from_static_str(own.mechanism.name());
    let request =
        encoded(&SaslHandshakeRequest::default().with_mechanism(name), HANDSHAKE_VERSION)?;
    let answer = broker.ask(api::SASL_HANDSHAKE, HANDSHAKE_VERSION, request).await?;
    let (code, offered) = messages::read_handshake(&answer).map_err(invalid)?;
    if code != 0 {
        let offered = offered.join(", ");
        return Err(denied(&format!("{} is not offered, only: {offered}", own.mechanism)));
    }
    let (mut token, mut state) = match own.mechanism {
        Mechanism::Plain => (plain(&own.user, own.password.reveal()), State::Done),
        scram => {
            let nonce = uuid::Uuid::from_bytes(random::id()).simple().to_string();
            let (token, asks) = ClientAsks::first(scram, &own.user, &nonce);
            (token, State::Asks(asks))
        }
    };
    loop {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
        let request = encoded(&request, AUTHENTICATE_VERSION)?;
        let answer = broker.ask(api::SASL_AUTHENTICATE, AUTHENTICATE_VERSION, request).await?;
        let answer = messages::read_answer(AUTHENTICATE_VERSION, &answer).map_err(invalid)?;
        if answer.code != 0 {
            return Err(denied(&format!("{} (error {})", answer.message, answer.code)));
        }
        (token, state) = match state {
            State::Done => return Ok(answer.lifetime),
            State::Asks(asks) => {
                let proves = asks.read(&answer.token).map_err(invalid)?;
                let (proves, salted) = own.salted(proves).await?;
                let (token, waits) = proves.prove(&salted);
                (token, State::Waits(waits))
            }
            State::Waits(waits) => {
                waits.verify(&answer.token).map_err(invalid)?;
                return Ok(answer.lifetime);
            }
        };
    }
}

fn encoded(request: &impl Encodable, version: i16) -> io::Result<Bytes> {
    let mut out = BytesMut::new();
    request.encode(&mut out, version).map_err(invalid)?;
    Ok(out.freeze())
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("SASL: {why}"))
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SASL: {error}"))
}
