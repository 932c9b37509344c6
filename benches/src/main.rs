//! Benches of Firebreak.
fn main() {}
