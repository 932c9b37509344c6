//! Peers that lie, dawdle or talk nonsense: each costs itself its connection, and nobody else.

pub mod lines;
pub mod mutants;
pub mod parrot;
pub mod stalls;

use crate::harness::Checked;
use crate::harness::proxy::Proxy;

/// Waits until a close of this kind was counted once more than `before`.
async fn counted(proxy: &Proxy, blame: &str, kind: &str, before: f64) -> Checked {
    let metric = format!("firebreak_errors_total{{blame=\"{blame}\",kind=\"{kind}\"}}");
    proxy.metric_becomes(&metric, before + 1.0).await
}

/// Waits for a line with this text and checks that it is the only one.
async fn told_once(proxy: &Proxy, text: &str) -> Checked {
    proxy.says(text, 1).await
}
