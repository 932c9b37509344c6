//! The keys of a Redis in which proxies share values: raw -> checked, with the files they name.
//!
//! Invariant: a password is shown nowhere; a URL that holds one is refused, and not shown either.

use std::path::PathBuf;
use std::time::Duration;

use super::parse::Problems;
use super::{ClientTls, raw};
use crate::limits::{HOT, SHARED_VALUE_BYTES_MAX};
use crate::secret::Secret;
use crate::tls::files;

/// A Redis in which proxies share values.
#[derive(Debug, Clone)]
pub struct SharedCache {
    /// Where it is.
    pub place: Place,
    /// What it must show; `None`: plaintext.
    pub tls: Option<ClientTls>,
    /// What it is told; `None`: nothing.
    pub password: Option<Secret>,
    /// How long it keeps a value.
    pub ttl: Duration,
    /// Longer values are not shared.
    pub value_bytes_max: usize,
    /// Time for one answer.
    pub timeout: Duration,
    url: String,
    password_file: Option<PathBuf>,
}

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: u16,
    /// The user who asks; `None`: the default one.
    pub username: Option<String>,
    is_tls: bool,
}

/// `[store] redis`, and what the environment says of its password.
pub(super) fn shared(
    p: &mut Problems,
    raw: &raw::Redis,
    password: Option<&str>,
) -> Option<SharedCache> {
    let before = p.0.len();
    let url = raw.url.clone().unwrap_or_default();
    let place = Place::parse(&url).map_err(|why| p.add("store.redis.url", why)).ok();
    let tls = place.as_ref().and_then(|place| tls(p, place, raw.ca.as_ref()));
    let password = match (password, &raw.password_file) {
        (Some(text), _) => Some(Secret::new(text.to_owned())),
        (None, Some(file)) => {
            let read = Secret::read(file);
            let told = |error| format!("{}: {error}", file.display());
            read.map_err(|error| p.add("store.redis.password_file", told(error))).ok()
        }
        (None, None) => None,
    };
    if password.is_none() && place.as_ref().is_some_and(|place| place.username.is_some()) {
        let text = "is missing: a user has a password; name its file, or set REDIS_PASSWORD";
        p.add("store.redis.password_file", text);
    }
    let hot = usize::try_from(HOT.as_secs()).unwrap_or(usize::MAX);
    let ttl = bounded(p, "store.redis.ttl_s", raw.ttl_s, (hot, hot));
    let sizes = (VALUE_BYTES_MAX, SHARED_VALUE_BYTES_MAX);
    let value_bytes_max = bounded(p, "store.redis.value_bytes_max", raw.value_bytes_max, sizes);
    let timeout = bounded(p, "store.redis.timeout_ms", raw.timeout_ms, (TIMEOUT_MS, 5000));
    let place = place.filter(|_| p.0.len() == before)?;
    Some(SharedCache {
        place,
        tls,
        password,
        ttl: Duration::from_secs(ttl as u64),
        value_bytes_max,
        timeout: Duration::from_millis(timeout as u64),
        url,
        password_file: raw.password_file.clone(),
    })
}

fn bounded(
    p: &mut Problems,
    key: &str,
    given: Option<i64>,
    (default, max): (usize, usize),
) -> usize {
    let number = p.number(key, given, default, 1);
    if number > max {
        p.add(key, format!("{number} is too large: at most {max}"));
        return default;
    }
    number
}

fn tls(p: &mut Problems, place: &Place, ca: Option<&PathBuf>) -> Option<ClientTls> {
    let key = "store.redis.ca";
    match (place.is_tls, ca) {
        (false, None) => None,
        (false, Some(_)) => {
            p.add(key, "belongs to a URL that begins with rediss://");
            None
        }
        (true, None) => {
            p.add(key, "is missing: the PEM file of the authorities of the service's certificate");
            None
        }
        (true, Some(ca)) => {
            let tls = ClientTls { ca: ca.clone(), own: None };
            match files::client(&tls) {
                Ok(_) => Some(tls),
                Err(problems) => {
                    problems.into_iter().for_each(|(_, text)| p.add(key, text));
                    None
                }
            }
        }
    }
}

impl Place {
    fn parse(url: &str) -> Result<Self, &'static str> {
        let (is_tls, rest) = match url.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return Err(SHAPE),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(WITH_PASSWORD);
        }
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (host, PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port: &u16| *port > 0).ok_or(SHAPE)?;
        let database = if database.is_empty() { "0" } else { database };
        let database = database.parse().map_err(|_| SHAPE)?;
        if host.is_empty() || user.is_some_and(str::is_empty) {
            return Err(SHAPE);
        }
        let (host, username) = (host.to_owned(), user.map(str::to_owned));
        Ok(Self { host, port, database, username, is_tls })
    }
}

impl SharedCache {
    /// The keys in force, the password masked.
    pub(super) fn effective(&self) -> serde_json::Value {
        serde_json::json!({
            "url": self.url,
            "password": self.password.as_ref().map(Secret::to_string),
            "password_file": self.password_file,
            "ca": self.tls.as_ref().map(|tls| &tls.ca),
            "ttl_s": self.ttl.as_secs(),
            "value_bytes_max": self.value_bytes_max,
            "timeout_ms": self.timeout.as_millis(),
        })
    }
}

const SHAPE: &str = "is not redis://HOST:PORT or rediss://HOST:PORT (TLS), with USER@ before the \
    host and /NUMBER of a database behind the port where they are needed";
const WITH_PASSWORD: &str =
    "holds a password: put it into a file, named by password_file, or into REDIS_PASSWORD";
const PORT: &str = "6379";
/// Longer values are not shared unless configured.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Time for one answer unless configured.
const TIMEOUT_MS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_never_with_which_password() {
        let place = |url: &str| {
            let place = Place::parse(url)?;
            let Place { host, port, database, username, is_tls } = place;
            Ok((host, port, database, username, is_tls))
        };
        let of = |host: &str, port, database, user: Option<&str>, is_tls| {
            Ok((host.to_owned(), port, database, user.map(str::to_owned), is_tls))
        };
        assert_eq!(place("redis://cache"), of("cache", 6379, 0, None, false));
        assert_eq!(place("rediss://me@c.example:1/2"), of("c.example", 1, 2, Some("me"), true));
        assert_eq!(place("redis://[::1]:7"), of("::1", 7, 0, None, false));
        assert_eq!(place("redis://[::1]/"), of("::1", 6379, 0, None, false));
        for bad in ["", "cache:6379", "http://c", "redis://", "redis://c:0", "redis://@c"] {
            assert_eq!(place(bad), Err(SHAPE), "{bad}");
        }
        assert_eq!(place("redis://c:1/x"), Err(SHAPE));
        for bad in ["redis://:hunter2@c", "redis://me:hunter2@c:1/2"] {
            assert_eq!(place(bad), Err(WITH_PASSWORD), "{bad}");
        }
    }
}
