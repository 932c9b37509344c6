//! What the tests share.

pub mod aged;
pub mod broker;
pub mod certs;
pub mod client;
pub mod hole;
pub mod proxy;
pub mod records;
pub mod redis;
pub mod requests;
pub mod s3;
pub mod tally;

use std::future::Future;
use std::time::Duration;

/// Longer than this nothing takes that is not broken; no test passes or fails by a shorter time.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long a test watches for something that must not come.
pub const QUIET: Duration = Duration::from_millis(300);

/// A promise that was not kept, in words.
#[derive(Debug)]
pub struct Failure(pub String);

/// What a check of a promise gives.
pub type Checked<T = ()> = Result<T, Failure>;

/// The fault to turn on in the proxy, as the `fail` crate reads it; none for an ordinary test.
pub type Faults = Option<&'static str>;

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::harness::Failure(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// Fails the check unless both sides are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($why:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            let why = format!($($why)+);
            return Err($crate::harness::Failure(format!("{why}: {left:?} is not {right:?}")));
        }
    }};
}
pub(crate) use ensure_eq;

/// A failure with these words.
pub fn failure(why: impl std::fmt::Display) -> Failure {
    Failure(why.to_string())
}

/// Waits until `done` gives something, at most the deadline.
pub async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> Checked<T> {
    let polled = within(what, async {
        loop {
            if let Some(value) = done().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    polled.await
}

/// Waits for something, at most the deadline.
pub async fn within<T>(what: &str, done: impl Future<Output = T>) -> Checked<T> {
    let late = |_| failure(format!("{what}: not within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, done).await.map_err(late)
}

/// Bytes that no codec makes smaller, the same ones for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
