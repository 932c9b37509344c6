//! SASL ended here: clients prove who they are to the proxy, which logs in to brokers by itself.
//!
//! mechanism -> tokens -> who it is -> as whom brokers see it.
//! Invariant: nobody gets past without the right password, and wrong names take as long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol_ext::sasl::scram::{ClientFirst, ServerWaits};
use protocol_ext::sasl::{Mechanism, SaslError, parse_plain};
use tokio::sync::Semaphore;

use crate::config::{BrokersSee, ListenSasl};
use crate::limits::PASSWORD_CHECKS_MAX;
use crate::upstream::access::Login;
use crate::users::{SaltSecret, Users};
use crate::watched::Watched;
use crate::{fault, random};

/// What clients may say, and who they may be.
#[derive(Debug)]
pub struct Sasl {
    config: ListenSasl,
    /// Mechanism towards brokers, where they see each client as itself.
    upstream: Option<Mechanism>,
    users: Arc<Watched<Users>>,
    checks: Arc<Semaphore>,
}

/// A client that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its name.
    pub user: String,
    /// How it proved it.
    pub mechanism: Mechanism,
}

/// How far a client got.
#[derive(Debug, Default)]
pub enum Dialogue {
    /// No mechanism is chosen.
    #[default]
    Fresh,
    /// The first token is due.
    Chosen(Mechanism),
    /// The proof is due.
    Proof(Who, ServerWaits),
}

/// The answer to a token.
#[derive(Debug)]
pub enum Told {
    /// More is needed.
    More(Vec<u8>),
    /// The client is who it says.
    Welcome(Vec<u8>, Who),
}

impl Sasl {
    /// Ready to check; fails if the file of users cannot be used any more.
    pub fn new(config: &ListenSasl, upstream: Option<Mechanism>) -> Result<Self, String> {
        let file = config.users_file.clone();
        let secret = SaltSecret::new();
        let users = Watched::new(vec![file.clone()], move || Users::load(&file, &secret))?;
        let upstream = upstream.filter(|_| config.brokers_see == BrokersSee::Client);
        let checks = Arc::new(Semaphore::new(PASSWORD_CHECKS_MAX));
        Ok(Self { config: config.clone(), upstream, users: Arc::new(users), checks })
    }

    /// The users, to be looked at again.
    pub fn users(&self) -> Arc<Watched<Users>> {
        self.users.clone()
    }

    /// Names of the mechanisms that clients may use.
    pub fn mechanisms(&self) -> Vec<&'static str> {
        self.config.mechanisms.iter().map(|mechanism| mechanism.name()).collect()
    }

    /// Time after which a session must be renewed, with that of the broker's session behind it.
    pub fn lifetime(&self, upstream: Duration) -> Duration {
        match (self.config.session, upstream) {
            (None, upstream) => upstream,
            (Some(own), Duration::ZERO) => own,
            (Some(own), upstream) => own.min(upstream),
        }
    }

    /// Whether brokers see all clients as the proxy.
    pub fn hides_users(&self) -> bool {
        self.upstream.is_none()
    }

    /// As whom brokers see a client.
    pub fn login(&self, who: &Who) -> io::Result<Login> {
        let upstream = self.upstream.filter(|_| !fault::on("users-hidden"));
        let Some(mechanism) = upstream else { return Ok(Login::Proxy) };
        let credentials = self.users.get().credentials(&who.user, mechanism);
        let gone =
            || io::Error::new(io::ErrorKind::PermissionDenied, "the user's password is gone");
        credentials.map(Login::User).ok_or_else(gone)
    }

    /// Begins with a mechanism; `None` if it is not one of those offered.
    pub fn choose(&self, name: &str) -> Option<Dialogue> {
        let mechanism = Mechanism::of(name)?;
        self.config.mechanisms.contains(&mechanism).then_some(Dialogue::Chosen(mechanism))
    }

    /// Takes a client's token.
    pub async fn take(&self, dialogue: &mut Dialogue, token: &[u8]) -> Result<Told, SaslError> {
        match std::mem::take(dialogue) {
            Dialogue::Fresh => Err(SaslError::Malformed("no mechanism was chosen")),
            Dialogue::Chosen(Mechanism::Plain) => {
                let (user, password) = parse_plain(token)?;
                let (name, password) = (user.to_owned(), password.to_owned());
                let fits = self.work(move |users| users.has(&name, &password)).await?;
                if !fits && !fault::on("any-password-taken") {
                    return Err(SaslError::Refused);
                }
                let who = Who { user: user.to_owned(), mechanism: Mechanism::Plain };
                Ok(Told::Welcome(Vec::new(), who))
            }
            Dialogue::Chosen(mechanism) => {
                let first = ClientFirst::parse(token)?;
                let who = Who { user: first.user.clone(), mechanism };
                let name = first.user.clone();
                let keys = self.work(move |users| users.keys(&name, mechanism)).await?;
                let nonce = uuid::Uuid::from_bytes(random::id()).simple().to_string();
                let (token, waits) = first.answer(keys, &nonce);
                *dialogue = Dialogue::Proof(who, waits);
                Ok(Told::More(token))
            }
            Dialogue::Proof(who, waits) => Ok(Told::Welcome(waits.finish(token)?, who)),
        }
    }

    /// Works with passwords where that may take its time, a few at once.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Users) -> T + Send + 'static,
    ) -> Result<T, SaslError> {
        let users = self.users.get();
        let turn = self.checks.clone().acquire_owned().await.map_err(|_| SaslError::Refused)?;
        let done = tokio::task::spawn_blocking(move || {
            // Work goes on though whoever asked for it is gone, so its turn does too.
            let _turn = turn;
            work(&users)
        })
        .await;
        done.map_err(|_| SaslError::Refused)
    }
}
