//! Named faults: each breaks one promise on purpose, so that a test can be seen to fail.
//!
//! Off and free without the cargo feature `failpoints`; with it, `FAILPOINTS="name=return"` in the
//! environment turns one on.

use std::time::Duration;

use protocol_ext::api;

/// Whether the fault is on.
#[inline]
pub fn on(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}

/// Whether something outside goes wrong, for tests of what is done then: no mutant of ours. With
/// `name=return(MS)` it does after so long, in which the thread stands still.
#[inline]
pub fn happens(name: &str) -> bool {
    fail::fail_point!(name, |ms: Option<String>| {
        if let Some(ms) = ms.and_then(|ms| ms.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        true
    });
    let _ = name;
    false
}

/// A time, or the one in milliseconds that a fault puts in its place: `name=return(MS)`.
#[inline]
pub fn time(name: &str, time: Duration) -> Duration {
    fail::fail_point!(name, |ms: Option<String>| {
        ms.and_then(|ms| ms.parse().ok()).map_or(time, Duration::from_millis)
    });
    let _ = name;
    time
}

/// How all frames are treated, whatever would do: for runs of the whole test suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    /// Not at all: each as it needs.
    No,
    /// Whatever can stream streams, however small it is.
    Opaque,
    /// Every frame is held whole and walked to its end.
    Decode,
    /// The same, and written anew by the walker; bytes are compared where there is one way only.
    Reencode,
}

impl Forced {
    /// Whether every frame is held whole.
    pub fn holds(self) -> bool {
        matches!(self, Self::Decode | Self::Reencode)
    }
}

/// What `FIREBREAK_FORCED` says; without the feature `failpoints` nobody looks.
#[inline]
pub fn forced() -> Forced {
    #[cfg(feature = "failpoints")]
    {
        static FORCED: std::sync::OnceLock<Forced> = std::sync::OnceLock::new();
        *FORCED.get_or_init(|| match std::env::var("FIREBREAK_FORCED").as_deref() {
            Ok("opaque") => Forced::Opaque,
            Ok("decode") => Forced::Decode,
            Ok("reencode") => Forced::Reencode,
            _ => Forced::No,
        })
    }
    #[cfg(not(feature = "failpoints"))]
    Forced::No
}

/// Addresses of a host as the file says that `FIREBREAK_NAMES` names, `ADDRESS HOST` a line: hosts
/// that move. Without the feature `failpoints` nobody looks.
#[inline]
pub fn names(host: &str) -> Option<Vec<std::net::IpAddr>> {
    #[cfg(feature = "failpoints")]
    if let Some(file) = std::env::var_os("FIREBREAK_NAMES") {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        return Some(
            lines.filter(|(_, name)| *name == host).filter_map(|(ip, _)| ip.parse().ok()).collect(),
        );
    }
    let _ = host;
    None
}

/// The fault that lets requests of one API through to topics that clients must not see.
pub fn of_hidden(key: i16) -> &'static str {
    match key {
        api::PRODUCE => "hidden-produce",
        api::FETCH => "hidden-fetch",
        api::LIST_OFFSETS => "hidden-list-offsets",
        api::OFFSET_COMMIT => "hidden-offset-commit",
        api::CREATE_TOPICS => "hidden-create-topics",
        api::DELETE_TOPICS => "hidden-delete-topics",
        api::DELETE_RECORDS => "hidden-delete-records",
        api::OFFSET_FOR_LEADER_EPOCH => "hidden-offset-for-leader-epoch",
        api::ADD_PARTITIONS_TO_TXN => "hidden-add-partitions-to-txn",
        api::WRITE_TXN_MARKERS => "hidden-write-txn-markers",
        api::TXN_OFFSET_COMMIT => "hidden-txn-offset-commit",
        api::DESCRIBE_CONFIGS => "hidden-describe-configs",
        api::ALTER_CONFIGS => "hidden-alter-configs",
        api::ALTER_REPLICA_LOG_DIRS => "hidden-alter-replica-log-dirs",
        api::CREATE_PARTITIONS => "hidden-create-partitions",
        api::ELECT_LEADERS => "hidden-elect-leaders",
        api::INCREMENTAL_ALTER_CONFIGS => "hidden-incremental-alter-configs",
        api::ALTER_PARTITION_REASSIGNMENTS => "hidden-alter-partition-reassignments",
        api::OFFSET_DELETE => "hidden-offset-delete",
        _ => "hidden-describe-producers",
    }
}

/// The fault that lets addresses of one API through.
pub fn of_addresses(key: i16) -> &'static str {
    match key {
        api::PRODUCE => "address-produce-tail",
        api::FETCH => "address-fetch-tail",
        api::METADATA => "address-metadata",
        10 => "address-find-coordinator",
        api::DESCRIBE_CONFIGS => "address-describe-configs",
        33 | 44 => "address-alter-configs",
        api::DESCRIBE_QUORUM => "address-describe-quorum",
        60 => "address-describe-cluster",
        78 => "address-share-fetch-tail",
        _ => "address-share-acknowledge-tail",
    }
}
