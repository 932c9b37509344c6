//! Who may come in where SASL ends at the proxy: a file of names with passwords or SCRAM keys.
//!
//! `NAME:PASSWORD` or `NAME:SCRAM-SHA-512$ITERATIONS:SALT$STORED:SERVER` on each line.
//! Invariant: a name that is not there takes the same exchange as one that is.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use protocol_ext::sasl::scram::{self, ITERATIONS_MIN, Keys};
use protocol_ext::sasl::{Mechanism, same};
use sha2::{Digest, Sha256};

use crate::random;
use crate::secret::Secret;
use crate::upstream::auth::Credentials;

/// Bytes of salts that are made here.
const SALT_BYTES: usize = 16;
/// Names that are not there and were asked for, by hash: 8 KiB.
const ASKED_WORDS: usize = 1024;

/// What salts are made of: kept as long as the process runs.
pub type SaltSecret = OnceLock<[u8; 16]>;

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
    fn keys(&self, mechanism: Mechanism, salt: &[u8]) -> Option<&Keys> {
        let kept = self.kept(mechanism);
        if let (None, Some(password)) = (kept.get(), &self.password) {
            let made = Keys::derive(mechanism, password.reveal(), salt, ITERATIONS_MIN);
            // Another connection may have been first.
            let _ = kept.set(made);
        }
        kept.get()
    }

    /// Whether this is the password; work of some milliseconds if only keys are there.
    fn has(&self, password: &str) -> bool {
        if let Some(own) = &self.password {
            return same(own.reveal().as_bytes(), password.as_bytes());
        }
        let keys = self.sha512.get().or_else(|| self.sha256.get());
        keys.is_some_and(|keys| keys.fit(password))
    }
}

/// All users of a file.
pub struct Users {
    all: HashMap<String, User>,
    /// Their names in order: a name that is not there is treated like one of them.
    names: Vec<String>,
    secret: [u8; 16],
    /// A bit for each hash of a name that is not there and was asked for.
    asked: Box<[AtomicU64]>,
}

impl fmt::Debug for Users {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Users").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads the file; gives all that is wrong with it.
    pub fn load(file: &Path, secret: &SaltSecret) -> Result<Self, String> {
        let named = |why: String| format!("{}: {why}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
        Self::parse(&text, secret).map_err(named)
    }

    fn parse(text: &str, secret: &SaltSecret) -> Result<Self, String> {
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
            let keys_of = value.split_once('$').and_then(|(name, _)| Mechanism::of(name));
            let fresh = match keys_of.filter(|mechanism| *mechanism != Mechanism::Plain) {
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
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let mut names: Vec<String> = all.keys().cloned().collect();
        names.sort_unstable();
        let secret = *secret.get_or_init(|| secret_of(&all, &names));
        let asked = (0..ASKED_WORDS).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { all, names, secret, asked })
    }

    /// Names of users whose password is not there, only keys made of it.
    pub fn without_password(&self) -> Vec<&str> {
        let without = self.all.iter().filter(|(_, user)| user.password.is_none());
        without.map(|(name, _)| name.as_str()).collect()
    }

    /// Whether a user has this password. A name that is not there is as much work as one that is.
    pub fn has(&self, name: &str, password: &str) -> bool {
        match self.all.get(name) {
            Some(user) => user.has(password),
            None => {
                std::hint::black_box(self.model(name).is_some_and(|user| user.has(password)));
                false
            }
        }
    }

    /// The keys of a user; those of nobody if there are none.
    pub fn keys(&self, name: &str, mechanism: Mechanism) -> Keys {
        let salt = |bytes| scram::salt(mechanism, &self.secret, name, bytes);
        if let Some(user) = self.all.get(name) {
            let keys = user.keys(mechanism, &salt(SALT_BYTES)).cloned();
            let nobody = || Keys::of_nobody(mechanism, salt(SALT_BYTES), ITERATIONS_MIN);
            return keys.unwrap_or_else(nobody);
        }
        let model = self.model(name);
        let shape = model.and_then(|user| user.kept(mechanism).get().map(Keys::shape));
        let (iterations, bytes) = shape.unwrap_or((ITERATIONS_MIN, SALT_BYTES));
        let salt = salt(bytes);
        if model.is_some_and(|user| user.password.is_some()) && self.is_new(&salt) {
            // The keys of a password are made when they are first asked for.
            std::hint::black_box(Keys::derive(mechanism, "nobody", &salt, ITERATIONS_MIN));
        }
        Keys::of_nobody(mechanism, salt, iterations)
    }

    /// The user that a name that is not there is treated like.
    fn model(&self, name: &str) -> Option<&User> {
        let hash = scram::salt(Mechanism::ScramSha256, &self.secret, name, 8);
        let hash = hash.iter().fold(0, |all: usize, byte| all << 8 | usize::from(*byte));
        self.all.get(self.names.get(hash.checked_rem(self.names.len())?)?)
    }

    /// Whether a name that is not there, of this salt, was not asked for before.
    fn is_new(&self, salt: &[u8]) -> bool {
        let hash = salt.iter().take(2).fold(0, |all: usize, byte| all << 8 | usize::from(*byte));
        let bit = 1 << (hash % 64);
        let word = &self.asked[hash / 64 % ASKED_WORDS];
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// What a user would show to a broker itself, if its password is there.
    pub fn credentials(&self, name: &str, mechanism: Mechanism) -> Option<Arc<Credentials>> {
        let user = self.all.get(name)?;
        let password = user.password.clone()?;
        let make = || Arc::new(Credentials::new(mechanism, name.to_owned(), password));
        Some(user.credentials.get_or_init(make).clone())
    }
}

/// The same secret after a restart, and on other proxies with the same file, if there are keys: a
/// salt that changes would tell a name that is not there from one with keys.
fn secret_of(all: &HashMap<String, User>, names: &[String]) -> [u8; 16] {
    let users = names.iter().filter_map(|name| all.get(name));
    let keys = users.flat_map(|user| [user.sha256.get(), user.sha512.get()]).flatten();
    let mut texts = keys.map(Keys::text).peekable();
    if texts.peek().is_none() {
        return random::id();
    }
    let mut digest = Sha256::new().chain_update(b"firebreak salts\0");
    texts.for_each(|text| digest.update(text));
    let mut secret = [0; 16];
    secret.copy_from_slice(&digest.finalize()[..16]);
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(text, &SaltSecret::new())
    }

    #[test]
    fn passwords_and_keys_are_read_and_everything_wrong_is_told() {
        let keys = Keys::derive(Mechanism::ScramSha256, "pencil", b"salt", ITERATIONS_MIN);
        let text = format!("# who\n\nalice:a:b c\nbob:{}\n", keys.text());
        let users = parse(&text).expect("valid");
        assert!(users.has("alice", "a:b c") && !users.has("alice", "a") && !users.has("eve", ""));
        assert!(users.has("bob", "pencil") && !users.has("bob", "pen"));
        assert_eq!(users.keys("bob", Mechanism::ScramSha256), keys);
        assert!(users.keys("alice", Mechanism::ScramSha512).fit("a:b c"));
        assert_eq!(users.without_password(), ["bob"]);
        let wrong = parse("alice\nbob:x\nbob:y\ncarol:SCRAM-SHA-256$1:x$y:z\n");
        let wrong = wrong.expect_err("refused");
        for line in ["line 1", "line 3", "line 4"] {
            assert!(wrong.contains(line), "{line} is not in {wrong}");
        }
        assert!(parse("# nobody\n").is_err());
        let users = parse("dora:PLAIN$4\n").expect("a password like another");
        assert!(users.has("dora", "PLAIN$4"));
    }

    fn asked(users: &Users, name: &str, mechanism: Mechanism) -> (Vec<u8>, u32) {
        let first = scram::ClientFirst::parse(format!("n,,n={name},r=x").as_bytes());
        let (token, _) = first.expect("a message").answer(users.keys(name, mechanism), "y");
        (token, users.keys(name, mechanism).shape().0)
    }

    /// Neither salt nor iterations tell a name that is not there from one that is.
    #[test]
    fn a_name_that_is_not_there_looks_like_one_that_is() {
        let m = Mechanism::ScramSha512;
        let users = parse("alice:x\n").expect("valid");
        assert_eq!(users.keys("eve", m), users.keys("eve", m));
        assert_eq!(users.keys("eve", m).shape(), users.keys("alice", m).shape());
        assert!(!users.keys("eve", m).fit("") && !users.has("eve", "x"));
        let keys = Keys::derive(m, "pencil", b"a salt of 20 bytes..", 8192);
        let text = format!("bob:{}\n", keys.text());
        let users = parse(&text).expect("valid");
        assert_eq!(users.keys("eve", m).shape(), (8192, 20));
        assert!(!users.has("eve", "pencil"));
        // As the keys of a file stay as they are, so does the salt of nobody.
        let again = parse(&text).expect("valid");
        assert_eq!(asked(&users, "eve", m), asked(&again, "eve", m));
        // And so do all salts, of passwords too, when the file changes.
        let secret = SaltSecret::new();
        let before = Users::parse("alice:x\n", &secret).expect("valid");
        let after = Users::parse(&format!("alice:x\n{text}"), &secret).expect("valid");
        assert_eq!(asked(&before, "alice", m), asked(&after, "alice", m));
    }

    #[test]
    fn the_work_of_a_password_is_done_once_for_a_name_that_is_not_there() {
        let users = parse("alice:x\n").expect("valid");
        let salt = scram::salt(Mechanism::ScramSha256, &users.secret, "eve", SALT_BYTES);
        users.keys("eve", Mechanism::ScramSha256);
        assert!(!users.is_new(&salt), "eve was asked for");
        assert!(users.is_new(&[!salt[0], salt[1]]), "nobody else was");
        let shown = format!("{users:?}");
        assert!(!shown.contains("secret") && shown.contains("alice"), "{shown}");
    }
}
