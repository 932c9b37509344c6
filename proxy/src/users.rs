//! Who may come in where SASL ends at the proxy: a file of names with passwords or SCRAM keys.
//!
//! `NAME:PASSWORD` or `NAME:SCRAM-SHA-512$ITERATIONS:SALT$STORED:SERVER` on each line.
//! Invariant: a name that is not there takes the same exchange as one that is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use protocol_ext::sasl::scram::{ITERATIONS_MIN, Keys};
use protocol_ext::sasl::{Mechanism, same};

use crate::random;
use crate::secret::Secret;
use crate::upstream::auth::Credentials;

/// One user.
#[derive(Debug, Default)]
struct User {
    password: Option<Secret>,
    sha256: OnceLock<Keys>,
    sha512: OnceLock<Keys>,
    credentials: OnceLock<Arc<Credentials>>,
}

impl User {
    fn kept(&self, mechanism: Mechanism) -> &OnceLock<Keys> {
        match mechanism {
            Mechanism::ScramSha512 => &self.sha512,
            Mechanism::ScramSha256 | Mechanism::Plain => &self.sha256,
        }
    }

    /// The keys of a mechanism; made of the password when they are first asked for.
    fn keys(&self, mechanism: Mechanism) -> Option<&Keys> {
        let kept = self.kept(mechanism);
        if let (None, Some(password)) = (kept.get(), &self.password) {
            let salt = random::id();
            let made = Keys::derive(mechanism, password.reveal(), &salt, ITERATIONS_MIN);
            // Another connection may have been first.
            let _ = kept.set(made);
        }
        kept.get()
    }
}

/// All users of a file.
#[derive(Debug)]
pub struct Users {
    all: HashMap<String, User>,
    nobody: [u8; 16],
}

impl Users {
    /// Reads the file; gives all that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, String> {
        let named = |why: String| format!("{}: {why}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
        Self::parse(&text).map_err(named)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut all: HashMap<String, User> = HashMap::new();
        let mut wrong = Vec::new();
        for (n, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) =
                line.split_once(':').filter(|(a, b)| !(a.is_empty() || b.is_empty()))
            else {
                wrong.push(format!("line {n}: write NAME:PASSWORD, or NAME: and SCRAM keys"));
                continue;
            };
            let user = all.entry(name.to_owned()).or_default();
            let fresh = match value.split_once('$').and_then(|(name, _)| Mechanism::of(name)) {
                None => user.password.replace(Secret::new(value.to_owned())).is_none(),
                Some(mechanism) => match Keys::parse(value) {
                    Some(keys) => user.kept(mechanism).set(keys).is_ok(),
                    None => {
                        let form = format!("{mechanism}$ITERATIONS:SALT$STORED:SERVER");
                        wrong.push(format!("line {n}: keys are not of the form {form}"));
                        continue;
                    }
                },
            };
            if !fresh {
                wrong.push(format!("line {n}: {name} is there twice"));
            }
        }
        if all.is_empty() && wrong.is_empty() {
            wrong.push("has no user".to_owned());
        }
        if wrong.is_empty() {
            Ok(Self { all, nobody: random::id() })
        } else {
            Err(wrong.join("; "))
        }
    }

    /// Names of users whose password is not there, only keys made of it.
    pub fn without_password(&self) -> Vec<&str> {
        let without = self.all.iter().filter(|(_, user)| user.password.is_none());
        without.map(|(name, _)| name.as_str()).collect()
    }

    /// Whether a user has this password; work of some milliseconds if only keys are there.
    pub fn has(&self, name: &str, password: &str) -> bool {
        let Some(user) = self.all.get(name) else { return false };
        if let Some(own) = &user.password {
            return same(own.reveal().as_bytes(), password.as_bytes());
        }
        let keys = user.sha512.get().or_else(|| user.sha256.get());
        keys.is_some_and(|keys| keys.fit(password))
    }

    /// The keys of a user; those of nobody if there are none.
    pub fn keys(&self, name: &str, mechanism: Mechanism) -> Keys {
        let keys = self.all.get(name).and_then(|user| user.keys(mechanism)).cloned();
        keys.unwrap_or_else(|| Keys::of_nobody(mechanism, &self.nobody, name))
    }

    /// What a user would show to a broker itself, if its password is there.
    pub fn credentials(&self, name: &str, mechanism: Mechanism) -> Option<Arc<Credentials>> {
        let user = self.all.get(name)?;
        let password = user.password.clone()?;
        let make = || Arc::new(Credentials::new(mechanism, name.to_owned(), password));
        Some(user.credentials.get_or_init(make).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_keys_are_read_and_everything_wrong_is_told() {
        let keys = Keys::derive(Mechanism::ScramSha256, "pencil", b"salt", ITERATIONS_MIN);
        let text = format!("# who\n\nalice:a:b c\nbob:{}\n", keys.text());
        let users = Users::parse(&text).expect("valid");
        assert!(users.has("alice", "a:b c") && !users.has("alice", "a") && !users.has("eve", ""));
        assert!(users.has("bob", "pencil") && !users.has("bob", "pen"));
        assert_eq!(users.keys("bob", Mechanism::ScramSha256), keys);
        assert!(users.keys("alice", Mechanism::ScramSha512).fit("a:b c"));
        assert_eq!(users.without_password(), ["bob"]);
        let wrong = Users::parse("alice\nbob:x\nbob:y\ncarol:SCRAM-SHA-256$1:x$y:z\n");
        let wrong = wrong.expect_err("refused");
        for line in ["line 1", "line 3", "line 4"] {
            assert!(wrong.contains(line), "{line} is not in {wrong}");
        }
        assert!(Users::parse("# nobody\n").is_err());
    }

    #[test]
    fn a_name_that_is_not_there_has_the_same_salt_each_time() {
        let users = Users::parse("alice:x\n").expect("valid");
        let keys = || users.keys("eve", Mechanism::ScramSha512);
        assert_eq!(keys(), keys());
        assert!(!keys().fit(""));
    }
}
