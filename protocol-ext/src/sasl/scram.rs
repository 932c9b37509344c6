//! SCRAM: client first -> server first -> client final (proof) -> server final (signature).
//!
//! The server keeps keys made of the password, never the password; each side proves that it knows
//! them. Names are not prepared (SASLprep), as Kafka's are not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::{Mechanism, SaslError, same};

/// Fewer rounds of the salted password are not taken, as by Kafka.
pub const ITERATIONS_MIN: u32 = 4096;
/// A server that asks for more wants to keep its client busy.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// What a server keeps of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    mechanism: Mechanism,
    salt: Vec<u8>,
    iterations: u32,
    stored: Vec<u8>,
    server: Vec<u8>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Keys").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of a password: as many rounds of work as asked, some milliseconds at least.
    pub fn derive(mechanism: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted(mechanism, password, salt, iterations);
        let client = mac(mechanism, &salted, b"Client Key");
        Self {
            mechanism,
            salt: salt.to_vec(),
            iterations,
            stored: hash(mechanism, &client),
            server: mac(mechanism, &salted, b"Server Key"),
        }
    }

    /// Keys of nobody, for an exchange that must fail at its end and not before.
    pub fn of_nobody(mechanism: Mechanism, salt: Vec<u8>, iterations: u32) -> Self {
        Self { mechanism, salt, iterations, stored: Vec::new(), server: Vec::new() }
    }

    /// Reads `MECHANISM$ITERATIONS:SALT$STORED:SERVER`, base64 inside, as PostgreSQL writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let mechanism = Mechanism::of(parts.next()?).filter(|m| *m != Mechanism::Plain)?;
        let (iterations, salt) = parts.next()?.split_once(':')?;
        let (stored, server) = parts.next()?.split_once(':')?;
        let iterations = iterations.parse().ok()?;
        let bytes = |text| BASE64.decode(text).ok();
        let (salt, stored, server) = (bytes(salt)?, bytes(stored)?, bytes(server)?);
        let wanted = hash(mechanism, b"").len();
        let whole = stored.len() == wanted && server.len() == wanted && !salt.is_empty();
        let fit = (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations);
        (parts.next().is_none() && whole && fit).then_some(Self {
            mechanism,
            salt,
            iterations,
            stored,
            server,
        })
    }

    /// The text that [`Keys::parse`] reads. Whoever has it can pretend to be the server, and guess.
    pub fn text(&self) -> String {
        let (salt, iterations) = (BASE64.encode(&self.salt), self.iterations);
        let (stored, server) = (BASE64.encode(&self.stored), BASE64.encode(&self.server));
        format!("{}${iterations}:{salt}${stored}:{server}", self.mechanism)
    }

    /// The mechanism that they are for.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What anybody may ask for: iterations and bytes of the salt.
    pub fn shape(&self) -> (u32, usize) {
        (self.iterations, self.salt.len())
    }

    /// Whether a password has these keys; as much work as [`Keys::derive`].
    pub fn fit(&self, password: &str) -> bool {
        let other = Self::derive(self.mechanism, password, &self.salt, self.iterations);
        same(&self.stored, &other.stored) && !self.stored.is_empty()
    }
}

/// A user's salt of so many bytes: the same each time, and foretold by nobody without the secret.
pub fn salt(mechanism: Mechanism, secret: &[u8], user: &str, bytes: usize) -> Vec<u8> {
    let mut salt = Vec::with_capacity(bytes);
    for block in 0_u32.. {
        let own = mac(mechanism, secret, &[&block.to_be_bytes(), user.as_bytes()].concat());
        salt.extend(own.into_iter().take(bytes - salt.len()));
        if salt.len() == bytes {
            break;
        }
    }
    salt
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user's name.
    pub user: String,
    header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads a client's first token.
    pub fn parse(token: &[u8]) -> Result<Self, SaslError> {
        let bad = SaslError::Malformed;
        let text = std::str::from_utf8(token).map_err(|_| bad("not UTF-8"))?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(act_as), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("no header"));
        };
        if !matches!(binding, "n" | "y") {
            return Err(bad("channel binding"));
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|field| field.strip_prefix("n="));
        let user = user.and_then(unescaped).ok_or(bad("no user"))?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| !nonce.is_empty()).ok_or(bad("no nonce"))?;
        let act_as = match act_as.strip_prefix("a=") {
            None if act_as.is_empty() => None,
            None => return Err(bad("no header")),
            Some(name) => Some(unescaped(name).ok_or(bad("no user"))?),
        };
        if act_as.is_some_and(|name| name != user) {
            return Err(SaslError::Refused);
        }
        let header = text[..text.len() - bare.len()].to_owned();
        Ok(Self { user, header, bare: bare.to_owned(), nonce: nonce.to_owned() })
    }

    /// The server's first token, and what it must remember. `nonce` is random printable text.
    pub fn answer(self, keys: Keys, nonce: &str) -> (Vec<u8>, ServerWaits) {
        let nonce = format!("{}{nonce}", self.nonce);
        let first = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
        let token = first.clone().into_bytes();
        let signed = format!("{},{first}", self.bare);
        (token, ServerWaits { keys, header: self.header, nonce, signed })
    }
}

/// A server that waits for the client's proof.
#[derive(Debug)]
pub struct ServerWaits {
    keys: Keys,
    header: String,
    nonce: String,
    /// Both first messages.
    signed: String,
}

impl ServerWaits {
    /// Checks the client's final token; gives the server's.
    pub fn finish(self, token: &[u8]) -> Result<Vec<u8>, SaslError> {
        let bad = SaslError::Malformed;
        let text = std::str::from_utf8(token).map_err(|_| bad("not UTF-8"))?;
        let (bare, proof) = text.rsplit_once(",p=").ok_or(bad("no proof"))?;
        let proof = BASE64.decode(proof).map_err(|_| bad("no proof"))?;
        let mut fields = bare.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c="));
        if binding.is_none_or(|binding| binding != BASE64.encode(&self.header)) {
            return Err(bad("another header"));
        }
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        if nonce != Some(&self.nonce) {
            return Err(bad("another nonce"));
        }
        let Keys { mechanism, stored, server, .. } = &self.keys;
        let signed = format!("{},{bare}", self.signed);
        let signature = mac(*mechanism, stored, signed.as_bytes());
        if signature.len() != proof.len() || stored.is_empty() {
            return Err(SaslError::Refused);
        }
        let client: Vec<u8> = signature.iter().zip(&proof).map(|(a, b)| a ^ b).collect();
        if !same(&hash(*mechanism, &client), stored) {
            return Err(SaslError::Refused);
        }
        let signature = mac(*mechanism, server, signed.as_bytes());
        Ok(format!("v={}", BASE64.encode(signature)).into_bytes())
    }
}

/// A client that waits for the server's first token.
#[derive(Debug)]
pub struct ClientAsks {
    mechanism: Mechanism,
    nonce: String,
    bare: String,
}

impl ClientAsks {
    /// The client's first token, and what it must remember. `nonce` is random printable text.
    pub fn first(mechanism: Mechanism, user: &str, nonce: &str) -> (Vec<u8>, Self) {
        let bare = format!("n={},r={nonce}", user.replace('=', "=3D").replace(',', "=2C"));
        let token = format!("n,,{bare}").into_bytes();
        (token, Self { mechanism, nonce: nonce.to_owned(), bare })
    }

    /// Reads the server's first token.
    pub fn read(self, token: &[u8]) -> Result<ClientProves, SaslError> {
        let bad = SaslError::Malformed;
        let first = std::str::from_utf8(token).map_err(|_| bad("not UTF-8"))?;
        let mut fields = first.split(',');
        let mut field = |name| fields.next().and_then(|field| field.strip_prefix(name));
        let nonce =
            field("r=").filter(|n| n.starts_with(&self.nonce) && n.len() > self.nonce.len());
        let nonce = nonce.ok_or(bad("another nonce"))?.to_owned();
        let salt = field("s=").and_then(|salt| BASE64.decode(salt).ok());
        let salt = salt.filter(|salt| !salt.is_empty()).ok_or(bad("no salt"))?;
        let iterations = field("i=").and_then(|i| i.parse::<u32>().ok());
        let iterations = iterations.filter(|n| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(n));
        let iterations = iterations.ok_or(bad("too few or too many iterations"))?;
        let signed = format!("{},{first}", self.bare);
        Ok(ClientProves { mechanism: self.mechanism, salt, iterations, nonce, signed })
    }
}

/// What a client makes of its password for one salt; it can be kept for the next exchange.
#[derive(Clone, PartialEq, Eq)]
pub struct Salted {
    salt: Vec<u8>,
    iterations: u32,
    client: Vec<u8>,
    server: Vec<u8>,
}

impl std::fmt::Debug for Salted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Salted").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A client that knows the salt.
#[derive(Debug)]
pub struct ClientProves {
    mechanism: Mechanism,
    salt: Vec<u8>,
    iterations: u32,
    nonce: String,
    signed: String,
}

impl ClientProves {
    /// Whether what was made of the password before still serves.
    pub fn fits(&self, salted: &Salted) -> bool {
        (&salted.salt, salted.iterations) == (&self.salt, self.iterations)
    }

    /// Makes of the password what the proof needs: some milliseconds of work.
    pub fn salted(&self, password: &str) -> Salted {
        let all = salted(self.mechanism, password, &self.salt, self.iterations);
        Salted {
            salt: self.salt.clone(),
            iterations: self.iterations,
            client: mac(self.mechanism, &all, b"Client Key"),
            server: mac(self.mechanism, &all, b"Server Key"),
        }
    }

    /// The client's final token.
    pub fn prove(self, salted: &Salted) -> (Vec<u8>, ClientWaits) {
        let bare = format!("c=biws,r={}", self.nonce);
        let signed = format!("{},{bare}", self.signed);
        let stored = hash(self.mechanism, &salted.client);
        let signature = mac(self.mechanism, &stored, signed.as_bytes());
        let proof: Vec<u8> = salted.client.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let expected = mac(self.mechanism, &salted.server, signed.as_bytes());
        let token = format!("{bare},p={}", BASE64.encode(proof)).into_bytes();
        (token, ClientWaits(format!("v={}", BASE64.encode(expected))))
    }
}

/// A client that waits for the server's signature.
#[derive(Debug)]
pub struct ClientWaits(String);

impl ClientWaits {
    /// Checks the server's final token; extensions behind its signature are of no interest.
    pub fn verify(&self, token: &[u8]) -> Result<(), SaslError> {
        let signature = token.split(|byte| *byte == b',').next().unwrap_or_default();
        match same(signature, self.0.as_bytes()) {
            true => Ok(()),
            false => Err(SaslError::NotMutual),
        }
    }
}

fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        out.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        out.push_str(rest);
    }
    (!out.is_empty()).then_some(out)
}

fn hash(mechanism: Mechanism, bytes: &[u8]) -> Vec<u8> {
    match mechanism {
        Mechanism::ScramSha512 => Sha512::digest(bytes).to_vec(),
        Mechanism::ScramSha256 | Mechanism::Plain => Sha256::digest(bytes).to_vec(),
    }
}

fn mac(mechanism: Mechanism, key: &[u8], bytes: &[u8]) -> Vec<u8> {
    match mechanism {
        Mechanism::ScramSha512 => mac_with::<Hmac<Sha512>>(key, bytes),
        Mechanism::ScramSha256 | Mechanism::Plain => mac_with::<Hmac<Sha256>>(key, bytes),
    }
}

fn salted(mechanism: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
    match mechanism {
        Mechanism::ScramSha512 => rounds::<Hmac<Sha512>>(password.as_bytes(), salt, iterations),
        Mechanism::ScramSha256 | Mechanism::Plain => {
            rounds::<Hmac<Sha256>>(password.as_bytes(), salt, iterations)
        }
    }
}

fn mac_with<M: Mac + KeyInit>(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    // HMAC takes keys of every length.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

/// `Hi` of RFC 5802: the first block of PBKDF2.
fn rounds<M: Mac + KeyInit + Clone>(password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
    let Ok(keyed) = <M as KeyInit>::new_from_slice(password) else { return Vec::new() };
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&1_u32.to_be_bytes());
    let mut last = mac.finalize().into_bytes();
    let mut all = last.to_vec();
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&last);
        last = mac.finalize().into_bytes();
        for (all, last) in all.iter_mut().zip(&last) {
            *all ^= last;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Mechanism; 2] = [Mechanism::ScramSha256, Mechanism::ScramSha512];

    fn proves_with(proves: ClientProves, password: &str) -> (Vec<u8>, ClientWaits) {
        let salted = proves.salted(password);
        assert!(proves.fits(&salted));
        proves.prove(&salted)
    }

    fn exchange(m: Mechanism, keys: Keys, user: &str, password: &str) -> Result<(), SaslError> {
        let (token, asks) = ClientAsks::first(m, user, "abc");
        let first = ClientFirst::parse(&token)?;
        assert_eq!(first.user, user);
        let (token, server) = first.answer(keys, "def");
        let proves = asks.read(&token)?;
        let (token, client) = proves_with(proves, password);
        client.verify(&server.finish(&token)?)
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out_byte_by_byte() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let (first, asks) = ClientAsks::first(Mechanism::ScramSha256, "user", nonce);
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let keys = Keys::derive(Mechanism::ScramSha256, "pencil", &salt, 4096);
        let client = ClientFirst::parse(&first).expect("a first message");
        let (token, server) = client.answer(keys, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(token, expected.as_bytes());
        let (token, client) = proves_with(asks.read(&token).expect("a salt"), "pencil");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(token, expected.as_bytes());
        let last = server.finish(&token).expect("the right proof");
        assert_eq!(last, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(client.verify(&last), Ok(()));
    }

    #[test]
    fn only_the_right_password_passes_either_hash() {
        for mechanism in BOTH {
            let keys = Keys::derive(mechanism, "pencil", b"salt", ITERATIONS_MIN);
            assert_eq!(exchange(mechanism, keys.clone(), "a=b,c", "pencil"), Ok(()));
            let wrong = exchange(mechanism, keys.clone(), "a", "pencil2");
            assert_eq!(wrong, Err(SaslError::Refused));
            let nobody = salt(mechanism, b"secret", "a", 16);
            let nobody = Keys::of_nobody(mechanism, nobody, ITERATIONS_MIN);
            assert_eq!(exchange(mechanism, nobody, "a", "pencil"), Err(SaslError::Refused));
            assert!(keys.fit("pencil") && !keys.fit("pencil2"));
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_shown_to_nobody() {
        for mechanism in BOTH {
            let keys = Keys::derive(mechanism, "pencil", b"salt", ITERATIONS_MIN);
            assert_eq!(Keys::parse(&keys.text()), Some(keys.clone()));
            let shown = format!("{keys:?}");
            assert!(!shown.contains(&BASE64.encode(&keys.stored)), "{shown}");
        }
        let good = Keys::derive(Mechanism::ScramSha256, "p", b"salt", ITERATIONS_MIN).text();
        for bad in [
            good.replace("4096", "1"),
            good.replace("256", "512"),
            good.replace('$', ":"),
            format!("{good}$"),
            good[..good.len() - 4].to_owned(),
            "PLAIN$4096:c2FsdA==$x:y".to_owned(),
            String::new(),
        ] {
            assert_eq!(Keys::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn tokens_that_are_none_are_refused() {
        for first in [
            &b""[..],
            b"n,,",
            b"n,,n=a",
            b"n,,n=,r=x",
            b"n,,n=a,r=",
            b"p=tls-unique,,n=a,r=x",
            b"p=tls-exporter,,n=a,r=x",
            b"y",
            b"n,,r=x,n=a",
            b"n,x,n=a,r=x",
            b"n,,m=x,n=a,r=x",
            b"n,,n=a=2,r=x",
            b"n,,n=a=2Z,r=x",
            b"\xff",
        ] {
            let parsed = ClientFirst::parse(first);
            assert!(matches!(parsed, Err(SaslError::Malformed(_))), "{first:?}");
        }
        let other = ClientFirst::parse(b"n,a=root,n=alice,r=x");
        assert_eq!(other, Err(SaslError::Refused));
        for server in [
            "r=other,s=c2Fs,i=4096",
            "r=abc,s=c2Fs,i=4096",
            "r=abcd,s=c2Fs,i=4000000",
            "r=abcd,s=c2Fs,i=4095",
            "r=abcd,s=c2Fs,i=-4096",
            "r=abcd,s=,i=4096",
            "r=abcd,s=c2Fs",
            "m=x,r=abcd,s=c2Fs,i=4096",
            "e=other-error",
        ] {
            let (_, asks) = ClientAsks::first(Mechanism::ScramSha256, "a", "abc");
            assert!(asks.read(server.as_bytes()).is_err(), "{server}");
        }
    }

    #[test]
    fn a_proof_is_good_for_its_own_exchange_only() {
        let mechanism = Mechanism::ScramSha256;
        let keys = Keys::derive(mechanism, "pencil", b"salt", ITERATIONS_MIN);
        let (token, asks) = ClientAsks::first(mechanism, "a", "abc");
        let first = ClientFirst::parse(&token).expect("first");
        let (answer, _) = first.clone().answer(keys.clone(), "one");
        let (proof, client) = proves_with(asks.read(&answer).expect("a salt"), "pencil");
        let (_, other) = first.answer(keys, "two");
        assert!(other.finish(&proof).is_err());
        for last in [&b""[..], b"v=", b"v=AAAA", b"e=invalid-proof", b",v=AAAA"] {
            assert_eq!(client.verify(last), Err(SaslError::NotMutual), "{last:?}");
        }
    }

    /// What a final message says of the header, of the nonce or by way of proof is looked at.
    #[test]
    fn a_final_message_that_was_changed_is_refused() {
        let mechanism = Mechanism::ScramSha256;
        let keys = Keys::derive(mechanism, "pencil", b"salt", ITERATIONS_MIN);
        let finish = |change: &dyn Fn(String) -> String| {
            let (token, asks) = ClientAsks::first(mechanism, "a", "abc");
            let first = ClientFirst::parse(&token).expect("first");
            let (answer, server) = first.answer(keys.clone(), "def");
            let (proof, client) = proves_with(asks.read(&answer).expect("a salt"), "pencil");
            let token = change(String::from_utf8(proof).expect("text"));
            let last = server.finish(token.as_bytes())?;
            let with_more = [&last[..], b",m=x"].concat();
            assert_eq!((client.verify(&last), client.verify(&with_more)), (Ok(()), Ok(())));
            Ok::<(), SaslError>(())
        };
        assert_eq!(finish(&|token| token), Ok(()));
        let header = |new: &'static str| move |token: String| token.replace("biws", new);
        // `y,,`, a channel binding, no base64, nothing.
        for new in ["eSws", "cD10bHMtdW5pcXVlLCw=", "*", ""] {
            assert!(finish(&header(new)).is_err(), "{new}");
        }
        assert!(finish(&|token| token.replace("abcdef", "abc")).is_err());
        assert!(finish(&|token| token.replace("abcdef", "abcdef2")).is_err());
        assert!(finish(&|token| token.replace(",p=", ",x=1,p=")).is_err());
        assert!(finish(&|token| token[..token.len() - 4].to_owned()).is_err());
        assert!(finish(&|token| token[..token.find(",p=").expect("a proof")].to_owned()).is_err());
        assert!(
            finish(&|token| format!("{},p=", &token[..token.find(",p=").unwrap_or(0)])).is_err()
        );
    }

    #[test]
    fn a_salt_is_of_one_user_and_of_any_length() {
        for mechanism in BOTH {
            for bytes in [1, 16, 32, 64, 65, 200] {
                let of = |user| salt(mechanism, b"secret", user, bytes);
                assert_eq!((of("a").len(), of("a")), (bytes, of("a")));
                assert!(bytes < 16 || of("a") != of("b"));
            }
        }
        assert!(salt(Mechanism::ScramSha256, b"s", "a", 0).is_empty());
    }
}
