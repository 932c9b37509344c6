//! A client's session where SASL ends at the proxy: when it is over, and how it is renewed
//! (KIP-368), together with the session behind it on the home connection.
//!
//! Also the questions that the proxy asks on a client's own home connection, in its turn.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol_ext::header::{self, Head};
use protocol_ext::sasl::{SaslError, messages};
use protocol_ext::{api, wire::WireError};
use tokio::sync::oneshot;

use super::authenticate::{Admitted, refusal};
use super::frames::framed;
use super::queue::{Answer, Exchange};
use super::requests::{Requests, request_error};
use crate::error::ConnectionError;
use crate::limits::AUTHENTICATION_DELAY;
use crate::metrics::Class;
use crate::sasl::{Dialogue, Sasl, Told, Who};
use crate::stream::chain::write_chain;
use crate::upstream::access::Login;
use crate::upstream::auth::{self, Ask};
use crate::upstream::request_head;
use crate::{clock, fault};

/// A client's session.
#[derive(Debug)]
pub struct Session {
    who: Who,
    dialogue: Dialogue,
    ends: Option<clock::Tick>,
    /// Whether the broker's session ends too, and so must be renewed with this one.
    upstream_ends: bool,
}

impl Session {
    /// The session of a client that was just let in.
    pub fn new(admitted: &Admitted) -> Self {
        Self {
            who: admitted.who.clone(),
            dialogue: Dialogue::Fresh,
            ends: end(admitted.lifetime),
            upstream_ends: !admitted.home.lifetime.is_zero(),
        }
    }

    /// Whether a request comes too late.
    pub fn is_over(&self, key: i16) -> bool {
        let renews =
            matches!(key, api::API_VERSIONS | api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE);
        let over = self.ends.is_some_and(|ends| clock::now() > ends);
        over && !renews && !fault::on("session-never-ends")
    }
}

fn end(lifetime: Duration) -> Option<clock::Tick> {
    (!lifetime.is_zero()).then(|| clock::now().checked_add(lifetime)).flatten()
}

impl Requests<'_> {
    /// Answers SaslHandshake or SaslAuthenticate of a client that is already in.
    pub(super) async fn renew(&mut self, head: Head, frame: Bytes) -> Result<(), ConnectionError> {
        let plane = self.plane;
        let (Some(sasl), Some(mut session)) = (&plane.sasl, self.session.take()) else {
            return Err(ConnectionError::Filter("no session to renew".to_owned()));
        };
        let renewed = self.renewed(sasl, &mut session, head, &frame).await;
        self.session = Some(session);
        renewed
    }

    async fn renewed(
        &mut self,
        sasl: &Sasl,
        session: &mut Session,
        head: Head,
        frame: &Bytes,
    ) -> Result<(), ConnectionError> {
        let wrong = |error: WireError| request_error(head.api, error);
        if head.api == api::SASL_HANDSHAKE {
            let name = messages::handshake(head, frame).map_err(wrong)?;
            let same = name == session.who.mechanism.name() && head.version > 0;
            let chosen = sasl.choose(name).filter(|_| same);
            let code = if chosen.is_some() { 0 } else { messages::UNSUPPORTED_MECHANISM };
            session.dialogue = chosen.unwrap_or_default();
            let answer = messages::handshake_answer(head, code, &sasl.mechanisms());
            return self.answer(head, answer.map_err(wrong)?).await;
        }
        let token = messages::authenticate(head, frame).map_err(wrong)?;
        let delay = tokio::time::sleep(AUTHENTICATION_DELAY);
        let told = sasl.take(&mut session.dialogue, token).await;
        let (token, lifetime) = match told {
            Ok(Told::More(token)) => (token, Duration::ZERO),
            Ok(Told::Welcome(token, who)) if who == session.who => {
                let upstream = self.renew_home(sasl, session).await?;
                let lifetime = sasl.lifetime(upstream);
                session.ends = end(lifetime);
                (token, lifetime)
            }
            Ok(Told::Welcome(..)) => {
                delay.await;
                return self.refuse(head, SaslError::Refused, "a session changed its user");
            }
            Err(error) => {
                delay.await;
                return self.refuse(head, error, &error.to_string());
            }
        };
        let answer = messages::token_answer(head, token.into(), lifetime).map_err(wrong)?;
        self.answer(head, answer).await
    }

    /// Tells the client, behind the answers that it is still owed, and closes.
    fn refuse(&self, head: Head, error: SaslError, why: &str) -> Result<(), ConnectionError> {
        let told = framed(vec![refusal(head, error)?]);
        self.push(head, Answer::Local(told, Vec::new()), Class::Full);
        Err(ConnectionError::Authentication(why.to_owned()))
    }

    /// Renews the broker's session, if it ends; gives its new lifetime.
    async fn renew_home(
        &mut self,
        sasl: &Sasl,
        session: &Session,
    ) -> Result<Duration, ConnectionError> {
        if !session.upstream_ends {
            return Ok(Duration::ZERO);
        }
        let credentials = match sasl.login(&session.who).map_err(ConnectionError::BrokerIo)? {
            Login::Proxy => self.plane.directory.own(),
            Login::User(user) => Some(user),
            Login::Nobody => None,
        };
        let Some(credentials) = credentials else { return Ok(Duration::ZERO) };
        auth::log_in(self, &credentials).await.map_err(ConnectionError::BrokerIo)
    }
}

impl Ask for Requests<'_> {
    /// Asks the home broker on the client's own connection, behind what the client asked before.
    async fn ask(&mut self, key: i16, version: i16, body: Bytes) -> io::Result<Bytes> {
        let (to, answered) = oneshot::channel();
        let correlation = i32::MIN;
        let head: BytesMut = request_head(key, version, correlation);
        self.queue.push(Exchange {
            api: key,
            version,
            correlation,
            answer: Answer::Own(to),
            at: clock::now(),
        });
        write_chain(&mut self.to_home, &framed(vec![head.freeze(), body])).await?;
        let frame = answered.await.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}"));
        let at = header::response_body_at(key, version, &frame).map_err(wrong)?;
        Ok(frame.slice(at..))
    }
}
