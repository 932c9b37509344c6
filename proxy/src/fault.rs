//! Named faults: each breaks one promise on purpose, so that a test can be seen to fail.
//!
//! Off and free without the cargo feature `failpoints`; with it, `FAILPOINTS="name=return"` in the
//! environment turns one on.

/// Whether the fault is on.
#[inline]
pub fn on(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}
