//! The object store's keys and the environment variables that win over them.
//!
//! Invariant: what is checked here can be opened without another look at the environment; the
//! secret key never shows in `Debug` nor on the admin port.

use std::path::{Path, PathBuf};

use protocol_ext::lost::Lost;
use protocol_ext::part::{Codec, Policy};
use protocol_ext::reference::MacKey;

use super::parse::Problems;
use super::shared::{SharedCache, shared};
use super::{OffloadRule, OnStoreFailure, raw};
use crate::filters::offload::keys;

/// The object store.
#[derive(Debug, Clone)]
pub struct Store {
    /// What stores.
    pub kind: StoreKind,
    /// File of the key that signs references; `None`: a local store makes one beside the objects.
    pub key_file: Option<PathBuf>,
    /// Values kept in memory, in bytes; 0 keeps none.
    pub cache_bytes: usize,
    /// Where proxies share values; `None`: each has its own.
    pub shared: Option<SharedCache>,
}

/// What stores.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// A directory.
    Local(PathBuf),
    /// This process, for tests: gone with it.
    Memory,
    /// A bucket.
    S3(S3),
}

/// A bucket and the way to it.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Address of the service with its scheme; `None`: Amazon's of the region.
    pub endpoint: Option<String>,
    /// Name of the bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Whether the bucket is named in the path, not in the host name.
    pub path_style: bool,
    /// Whether every request carries a checksum though the service does not ask for one.
    pub checksum_always: bool,
    /// Whether what is stored is signed byte for byte; else it has a checksum that is signed.
    pub sign_payload: bool,
    /// Who asks.
    pub credentials: Credentials,
}

/// Who asks a store. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
    /// Of temporary credentials.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials({}, ***)", self.access_key)
    }
}

/// What the environment says of the store.
#[derive(Clone, Default)]
pub struct StoreEnv {
    /// `MINIO_ENDPOINT`, with or without a scheme.
    pub endpoint: Option<String>,
    /// `MINIO_ACCESS_KEY`, or `AWS_ACCESS_KEY_ID`.
    pub access_key: Option<String>,
    /// `MINIO_SECRET_KEY`, or `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Option<String>,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<String>,
    /// `USE_AWS_S3`: Amazon's service, whatever the endpoint says.
    pub use_aws: bool,
    /// `AWS_REGION`.
    pub region: Option<String>,
    /// `REDIS_PASSWORD`.
    pub redis_password: Option<String>,
}

impl std::fmt::Debug for StoreEnv {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, use_aws, region, .. } = self;
        write!(out, "StoreEnv({endpoint:?}, {use_aws}, {region:?}, ***)")
    }
}

impl StoreEnv {
    /// Reads the process's environment; an empty variable counts as none.
    pub fn read() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    /// The two halves of a key come from one pair of variables, never one from each.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let use_aws = get("USE_AWS_S3").is_some_and(|on| matches!(on.as_str(), "true" | "1"));
        let mut env = Self {
            endpoint: get("MINIO_ENDPOINT"),
            access_key: get("MINIO_ACCESS_KEY"),
            secret_key: get("MINIO_SECRET_KEY"),
            session_token: None,
            use_aws,
            region: get("AWS_REGION"),
            redis_password: get("REDIS_PASSWORD"),
        };
        if use_aws || (env.access_key.is_none() && env.secret_key.is_none()) {
            env.access_key = get("AWS_ACCESS_KEY_ID");
            env.secret_key = get("AWS_SECRET_ACCESS_KEY");
            env.session_token = get("AWS_SESSION_TOKEN");
        }
        env
    }

    fn selects_s3(&self) -> bool {
        self.use_aws || self.endpoint.is_some()
    }
}

/// Checks the store; `None` if there is none.
pub(super) fn store(p: &mut Problems, raw: Option<raw::Store>, env: &StoreEnv) -> Option<Store> {
    let raw = raw?;
    let kind = match (raw.kind.as_deref(), env.selects_s3()) {
        (Some("local"), _) => local(p, &raw),
        (Some("memory"), _) => StoreKind::Memory,
        (Some("s3"), _) | (None, true) => s3(p, &raw, env),
        (other, _) => {
            let got = other.unwrap_or("nothing");
            p.add("store.kind", format!("is {got}: write \"local\" or \"s3\""));
            return None;
        }
    };
    let own_key = matches!(kind, StoreKind::Local(_));
    if raw.key_file.is_none() && !own_key {
        let text = "is missing: references are signed, and only a local store makes a key; \
                    make one by `openssl rand -hex 32`, in a file of mode 0600, and name it here";
        p.add("store.key_file", text);
    }
    if let Some(file) = &raw.key_file {
        key_file(p, file);
        let previous = keys::previous_of(file);
        if previous.exists() {
            key_file(p, &previous);
        }
    }
    let cache_bytes = p.number("store.cache_bytes", raw.cache_bytes, CACHE_BYTES, 0);
    let password = env.redis_password.as_deref();
    let shared = raw.redis.as_ref().and_then(|redis| shared(p, redis, password));
    Some(Store { kind, key_file: raw.key_file, cache_bytes, shared })
}

/// Checks that references can be signed by a file.
fn key_file(p: &mut Problems, file: &Path) {
    let shown = file.display();
    match std::fs::read(file).map(|text| MacKey::new(text.trim_ascii()).map(drop)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => p.add("store.key_file", format!("{shown}: {error}")),
        Err(error) => {
            let hint = "make one by `openssl rand -hex 32`, in a file of mode 0600";
            p.add("store.key_file", format!("{shown} cannot be read: {error}: {hint}"));
        }
    }
}

fn local(p: &mut Problems, raw: &raw::Store) -> StoreKind {
    let path = raw.path.clone().unwrap_or_default();
    if path.as_os_str().is_empty() {
        p.add("store.path", "is missing: the directory that holds the objects");
    } else if !path.is_absolute() {
        let hint = "write a path from / on, since started elsewhere the proxy would find no object";
        p.add("store.path", format!("\"{}\" is relative: {hint}", path.display()));
    } else if path.exists() && !path.is_dir() {
        p.add("store.path", format!("\"{}\" is no directory", path.display()));
    }
    let only_s3 = [
        ("store.bucket", raw.bucket.is_some()),
        ("store.endpoint", raw.endpoint.is_some()),
        ("store.secret_key_file", raw.secret_key_file.is_some()),
        ("store.sign_payload", raw.sign_payload.is_some()),
    ];
    for (key, _) in only_s3.iter().filter(|(_, given)| *given) {
        p.add(key, "belongs to a store of kind \"s3\": remove it or change the kind");
    }
    StoreKind::Local(path)
}

fn s3(p: &mut Problems, raw: &raw::Store, env: &StoreEnv) -> StoreKind {
    if raw.path.is_some() {
        p.add("store.path", "belongs to a store of kind \"local\": remove it or change the kind");
    }
    let endpoint = if env.use_aws { None } else { env.endpoint.clone().or(raw.endpoint.clone()) };
    let endpoint = endpoint.map(|text| if text.contains("://") { text } else { http(&text) });
    let schemes = ["http://", "https://"];
    let host = |text: &String| {
        schemes.iter().find_map(|scheme| text.strip_prefix(scheme).map(str::to_owned))
    };
    if let Some(text) = endpoint.as_ref().filter(|text| host(text).is_none_or(|h| h.is_empty())) {
        p.add("store.endpoint", format!("\"{text}\" is not http://HOST:PORT or https://HOST"));
    }
    let bucket = raw.bucket.clone().unwrap_or_default();
    if bucket.is_empty() || bucket.contains('/') {
        p.add("store.bucket", "is missing or has a slash: the name of a bucket that exists");
    }
    let checksum_always = match raw.checksum.as_deref() {
        None | Some("when_required") => false,
        Some("when_supported") => true,
        Some(other) => {
            let hint = "write \"when_required\" or \"when_supported\"";
            p.add("store.checksum", format!("is \"{other}\": {hint}"));
            false
        }
    };
    let secret_key = match (&env.secret_key, &raw.secret_key_file) {
        (Some(key), _) => key.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).unwrap_or_else(|error| {
            p.add("store.secret_key_file", format!("{} cannot be read: {error}", file.display()));
            String::new()
        }),
        (None, None) => {
            let text = "is missing: name a file, or set MINIO_SECRET_KEY or AWS_SECRET_ACCESS_KEY";
            p.add("store.secret_key_file", text);
            String::new()
        }
    };
    let access_key = env.access_key.clone().or(raw.access_key.clone()).unwrap_or_default();
    if access_key.is_empty() {
        p.add("store.access_key", "is missing: or set MINIO_ACCESS_KEY or AWS_ACCESS_KEY_ID");
    }
    let region = env.region.clone().or(raw.region.clone()).unwrap_or_else(|| REGION.to_owned());
    StoreKind::S3(S3 {
        path_style: raw.path_style.unwrap_or(endpoint.is_some()),
        sign_payload: raw.sign_payload.unwrap_or(is_plain(endpoint.as_deref())),
        endpoint,
        bucket,
        region,
        checksum_always,
        credentials: Credentials {
            access_key,
            secret_key: secret_key.trim().to_owned(),
            session_token: env.session_token.clone(),
        },
    })
}

/// Whether the way to a service has no TLS.
pub fn is_plain(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|text| text.starts_with("http://"))
}

fn http(host: &str) -> String {
    format!("http://{host}")
}

/// The codec of a rule.
pub(super) fn codec(p: &mut Problems, key: &str, given: Option<&str>) -> Policy {
    match given {
        None | Some("auto") => Policy::Auto,
        Some("none") => Policy::Always(Codec::None),
        Some("zstd") => Policy::Always(Codec::Zstd),
        Some("gzip") => Policy::Always(Codec::Gzip),
        Some("lz4") => Policy::Always(Codec::Lz4),
        Some(other) => {
            let hint = "write \"auto\", \"none\", \"zstd\", \"gzip\" or \"lz4\"";
            p.add(key, format!("is \"{other}\": {hint}"));
            Policy::Auto
        }
    }
}

/// What a rule does while the store fails.
pub(super) fn on_failure(p: &mut Problems, rule: &str, raw: &raw::Offload) -> OnStoreFailure {
    let key = format!("{rule}.inline_bytes_max");
    let batch_bytes_max = p.number(&key, raw.inline_bytes_max, INLINE_BYTES_MAX, 1);
    match raw.on_store_failure.as_deref() {
        Some("inline") => OnStoreFailure::Inline { batch_bytes_max },
        None | Some("fail") => {
            if raw.inline_bytes_max.is_some() {
                p.add(&key, "needs on_store_failure = \"inline\"");
            }
            OnStoreFailure::Fail
        }
        Some(other) => {
            let hint = "write \"fail\" or \"inline\"";
            p.add(&format!("{rule}.on_store_failure"), format!("is \"{other}\": {hint}"));
            OnStoreFailure::Fail
        }
    }
}

/// What a rule does where a value is gone from the store.
pub(super) fn on_missing(p: &mut Problems, key: &str, raw: &raw::Offload) -> Option<Lost> {
    match raw.on_missing.as_deref() {
        None | Some("error") => None,
        Some("skip") => Some(Lost::LeftOut),
        Some("placeholder") => Some(Lost::Marked),
        Some(other) => {
            p.add(key, format!("is \"{other}\": write \"error\", \"skip\" or \"placeholder\""));
            None
        }
    }
}

impl Store {
    /// The keys in force, the secret masked.
    pub fn effective(&self) -> serde_json::Value {
        let mut out = match &self.kind {
            StoreKind::Local(path) => serde_json::json!({ "kind": "local", "path": path }),
            StoreKind::Memory => serde_json::json!({ "kind": "memory" }),
            StoreKind::S3(s3) => serde_json::json!({
                "kind": "s3", "endpoint": s3.endpoint, "bucket": s3.bucket, "region": s3.region,
                "path_style": s3.path_style, "access_key": s3.credentials.access_key,
                "secret_key": "***",
                "checksum": if s3.checksum_always { "when_supported" } else { "when_required" },
                "sign_payload": s3.sign_payload,
            }),
        };
        out["key_file"] = serde_json::json!(self.key_file);
        out["cache_bytes"] = serde_json::json!(self.cache_bytes);
        out["redis"] = serde_json::json!(self.shared.as_ref().map(SharedCache::effective));
        out
    }
}

impl Store {
    /// Keys whose secrets differ, which no page shows.
    pub fn other_secrets(&self, other: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        if let (StoreKind::S3(own), StoreKind::S3(other)) = (&self.kind, &other.kind)
            && own.credentials != other.credentials
        {
            keys.push("store.secret_key");
        }
        let password = |store: &Self| store.shared.as_ref()?.password.clone();
        if let (Some(own), Some(other)) = (password(self), password(other))
            && own != other
        {
            keys.push("store.redis.password");
        }
        keys
    }
}

impl OffloadRule {
    /// The rule in the shape of the file.
    pub fn effective(&self) -> serde_json::Value {
        let codec = match self.codec {
            Policy::Auto => "auto",
            Policy::Always(Codec::None) => "none",
            Policy::Always(Codec::Zstd) => "zstd",
            Policy::Always(Codec::Gzip) => "gzip",
            Policy::Always(Codec::Lz4) => "lz4",
        };
        let (on_store_failure, inline_bytes_max) = match self.on_store_failure {
            OnStoreFailure::Fail => ("fail", None),
            OnStoreFailure::Inline { batch_bytes_max } => ("inline", Some(batch_bytes_max)),
        };
        let on_missing = match self.on_missing {
            None => "error",
            Some(Lost::LeftOut) => "skip",
            Some(Lost::Marked) => "placeholder",
        };
        serde_json::json!({
            "topics": self.topics, "threshold_bytes": self.threshold_bytes, "codec": codec,
            "on_missing": on_missing,
            "on_store_failure": on_store_failure, "inline_bytes_max": inline_bytes_max,
        })
    }
}

/// Values kept in memory unless configured.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// `max.message.bytes` of a broker that was not told otherwise.
const INLINE_BYTES_MAX: usize = 1_048_588;
const REGION: &str = "us-east-1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::Flags;
    use crate::config::{Config, ConfigError};

    fn parse(store: &str, env: StoreEnv) -> Result<Store, Vec<String>> {
        let flags = Flags { upstream: Some("a:1".to_owned()), store: env, ..Flags::default() };
        match Config::parse(store, &flags) {
            Ok(config) => Ok(config.store.expect("a store")),
            Err(ConfigError(problems)) => Err(problems.into_iter().map(|p| p.key).collect()),
        }
    }

    fn minio() -> StoreEnv {
        StoreEnv {
            endpoint: Some("minio:9000".to_owned()),
            access_key: Some("me".to_owned()),
            secret_key: Some("hush".to_owned()),
            ..StoreEnv::default()
        }
    }

    fn s3(store: &Store) -> &S3 {
        let StoreKind::S3(s3) = &store.kind else { panic!("not s3") };
        s3
    }

    /// A file long enough to sign with.
    const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

    fn s3_store() -> String {
        format!("[store]\nkind = \"s3\"\nbucket = \"b\"\nkey_file = {KEY:?}\n")
    }

    #[test]
    fn the_environment_fills_and_selects_an_s3_store_and_wins_over_the_file() {
        let file = format!("{}endpoint = \"https://other\"\naccess_key = \"file\"", s3_store());
        let store = parse(&file, minio()).expect("valid");
        assert_eq!(s3(&store).endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!(s3(&store).credentials.access_key, "me");
        assert!(s3(&store).path_style);
        let aws = StoreEnv { use_aws: true, region: Some("eu-west-1".to_owned()), ..minio() };
        let store =
            parse(&format!("[store]\nbucket = \"b\"\nkey_file = {KEY:?}"), aws).expect("valid");
        assert_eq!(s3(&store).endpoint, None);
        assert_eq!(s3(&store).region, "eu-west-1");
        assert!(!s3(&store).path_style);
    }

    #[test]
    fn payloads_are_signed_where_there_is_no_tls_unless_told_otherwise() {
        let signed = |line: &str, env: StoreEnv| {
            let store = parse(&format!("{}{line}", s3_store()), env).expect("valid");
            s3(&store).sign_payload
        };
        let tls = || StoreEnv { endpoint: Some("https://minio".to_owned()), ..minio() };
        let aws = || StoreEnv { use_aws: true, endpoint: None, ..minio() };
        let by_default = [minio(), tls(), aws()].map(|env| signed("", env));
        assert_eq!(by_default, [true, false, false]);
        assert!(!signed("sign_payload = false", minio()));
        assert!(signed("sign_payload = true", tls()));
    }

    #[test]
    fn the_two_halves_of_a_key_come_from_one_pair() {
        let env = |given: &[&str]| {
            let env = StoreEnv::of(|name| given.contains(&name).then(|| name.to_owned()));
            [env.access_key, env.secret_key, env.session_token].map(Option::unwrap_or_default)
        };
        let aws = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        assert_eq!(env(&aws), aws);
        let minio = ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"];
        let both = [&aws[..], &minio].concat();
        assert_eq!(env(&both), ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", ""]);
        let half = [&aws[..], &minio[..1]].concat();
        assert_eq!(env(&half), ["MINIO_ACCESS_KEY", "", ""]);
        let all = |name: &str| match name {
            "USE_AWS_S3" => Some("true".to_owned()),
            other => Some(other.to_owned()),
        };
        assert_eq!(StoreEnv::of(all).access_key.as_deref(), Some(aws[0]));
    }

    #[test]
    fn the_secret_is_shown_nowhere() {
        let store = parse(&s3_store(), minio()).expect("valid");
        assert!(!format!("{store:?} {:?} {}", minio(), store.effective()).contains("hush"));
    }

    #[test]
    fn everything_that_an_s3_store_lacks_is_told_at_once() {
        let keys = parse("[store]\nkind = \"s3\"", StoreEnv::default()).expect_err("refused");
        let expected =
            ["store.bucket", "store.secret_key_file", "store.access_key", "store.key_file"];
        assert_eq!(keys, expected);
        let wrong =
            format!("{}endpoint = \"ftp://x\"\nchecksum = \"no\"\npath = \"/x\"", s3_store());
        let env = StoreEnv { endpoint: None, ..minio() };
        let keys = parse(&wrong, env).expect_err("refused");
        assert_eq!(keys, ["store.path", "store.endpoint", "store.checksum"]);
    }

    #[test]
    fn a_local_store_needs_a_path_and_takes_nothing_of_s3() {
        let keys =
            parse("[store]\nkind = \"local\"\nbucket = \"b\"", minio()).expect_err("refused");
        assert_eq!(keys, ["store.path", "store.bucket"]);
        let store = parse("[store]\nkind = \"local\"\npath = \"/x\"", minio()).expect("valid");
        assert!(matches!(store.kind, StoreKind::Local(_)));
    }
}
