//! SASL as Kafka speaks it: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677), both sides.
//!
//! token in -> token out; nonces, salts and passwords come from outside.
//! Invariant: no error says which of name and password was wrong, and none holds a secret.

pub mod messages;
pub mod scram;

/// What the proxy can end or begin itself; others pass through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Name and password in clear text.
    Plain,
    /// Salted challenge and response with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// All of them.
pub const MECHANISMS: [Mechanism; 3] =
    [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

impl Mechanism {
    /// Its name on the wire and in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    /// The mechanism of a name.
    pub fn of(name: &str) -> Option<Self> {
        MECHANISMS.into_iter().find(|mechanism| mechanism.name() == name)
    }
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// A token that is none of the mechanism.
    #[error("a token cannot be read: {0}")]
    Malformed(&'static str),
    /// No such user, or not with this password.
    #[error("invalid credentials")]
    Refused,
    /// The server did not prove that it knows the password.
    #[error("the server does not know the password")]
    NotMutual,
}

/// The one token of PLAIN.
pub fn plain(user: &str, password: &str) -> Vec<u8> {
    format!("\0{user}\0{password}").into_bytes()
}

/// User and password of a token of PLAIN. One may act only as oneself.
pub fn parse_plain(token: &[u8]) -> Result<(&str, &str), SaslError> {
    let text = std::str::from_utf8(token).map_err(|_| SaslError::Malformed("not UTF-8"))?;
    let mut parts = text.split('\0');
    let (Some(act_as), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed("not three parts"));
    };
    if user.is_empty() || password.is_empty() {
        return Err(SaslError::Malformed("no user or no password"));
    }
    if !act_as.is_empty() && act_as != user {
        return Err(SaslError::Refused);
    }
    Ok((user, password))
}

/// Whether two secrets are equal, in a time that depends on their lengths only.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens_are_read_as_they_are_written() {
        assert_eq!(parse_plain(&plain("alice", "s,e=c ret")), Ok(("alice", "s,e=c ret")));
        assert_eq!(parse_plain(b"alice\0alice\0x"), Ok(("alice", "x")));
        assert_eq!(parse_plain(b"bob\0alice\0x"), Err(SaslError::Refused));
        for token in [&b""[..], b"\0", b"\0a", b"\0a\0", b"\0\0b", b"\0a\0b\0c", b"\0a\0\xff"] {
            assert!(matches!(parse_plain(token), Err(SaslError::Malformed(_))), "{token:?}");
        }
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same(b"abc", b"abc") && same(b"", b""));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
