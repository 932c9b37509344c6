//! SIGHUP: the configuration is read again, and what can change without a restart changes.
//!
//! Invariant: a configuration with a problem changes nothing; every difference is told, with what
//! it takes to have it.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use tokio::signal::unix::Signal;
use tokio::sync::Notify;

use crate::accept::Clients;
use crate::config::{Config, ConfigError};
use crate::limits::Limits;

/// Reads the configuration from where the process got it.
pub type Load = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// A key whose value differs.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    key: String,
    from: String,
    to: String,
}

/// Reloads at every signal, and has files looked at; dropped at shutdown.
pub async fn at(
    mut signal: Signal,
    load: Load,
    config: Arc<RwLock<Config>>,
    clients: Vec<Arc<Clients>>,
    files: Vec<Arc<Notify>>,
) {
    while signal.recv().await.is_some() {
        files.iter().for_each(|files| files.notify_one());
        match load() {
            Ok(wanted) => take(&mut config.write(), &wanted, &clients),
            Err(error) => {
                for problem in &error.0 {
                    tracing::error!(key = %problem.key, problem = %problem.text, "reload");
                }
                tracing::error!(problems = error.0.len(), "reload refused: nothing changed");
            }
        }
    }
}

fn take(config: &mut Config, wanted: &Config, clients: &[Arc<Clients>]) {
    let mut differences = changes(&config.effective(), &wanted.effective());
    if let (Some(own), Some(other)) = (&config.store, &wanted.store) {
        let masked = || "***".to_owned();
        let secrets = own.other_secrets(other).into_iter();
        differences.extend(secrets.map(|key| Change {
            key: key.to_owned(),
            from: masked(),
            to: masked(),
        }));
    }
    let mut taken = 0;
    for Change { key, from, to } in &differences {
        if Limits::is_live(key) {
            taken += 1;
            tracing::info!(%key, %from, %to, "reload: changed");
        } else {
            tracing::warn!(%key, %from, %to, "reload: needs a restart, not changed");
        }
    }
    config.limits = config.limits.renewed(&wanted.limits);
    clients.iter().for_each(|clients| clients.adopt(&config.limits));
    tracing::info!(changed = taken, need_restart = differences.len() - taken, "reloaded");
}

/// What differs between two configurations, key by key.
fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let (before, after) = (leaves(before), leaves(after));
    let keys = before.iter().chain(&after).map(|(key, _)| key.clone());
    let mut keys: Vec<String> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let value = |leaves: &[(String, String)], key: &str| {
        let found = leaves.iter().find(|(name, _)| name == key);
        found.map_or_else(|| "absent".to_owned(), |(_, value)| value.clone())
    };
    let change = |key: String| {
        let (from, to) = (value(&before, &key), value(&after, &key));
        (from != to).then_some(Change { key, from, to })
    };
    keys.into_iter().filter_map(change).collect()
}

fn leaves(value: &Value) -> Vec<(String, String)> {
    fn walk(at: String, value: &Value, out: &mut Vec<(String, String)>) {
        let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        match value {
            Value::Object(map) => map.iter().for_each(|(key, v)| walk(below(key), v, out)),
            Value::Array(all) if all.iter().any(Value::is_object) => {
                all.iter().enumerate().for_each(|(n, v)| walk(format!("{at}[{n}]"), v, out));
            }
            Value::Null => {}
            _ => out.push((at, value.to_string())),
        }
    }
    let mut out = Vec::new();
    walk(String::new(), value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::raw::Flags;

    /// What is told to have changed is what changes: no more and no less, key by key.
    #[test]
    fn a_limit_changes_if_it_is_told_to() {
        let flags = Flags { upstream: Some("kafka-1:9092".to_owned()), ..Flags::default() };
        let config = Config::parse("", &flags).expect("valid");
        let shown = config.effective();
        let keys = shown["limits"].as_object().expect("limits").keys();
        let mut live = 0;
        for key in keys {
            let own = shown["limits"][key].as_u64().expect("a number");
            let text = format!("[limits]\n{key} = {}", own + 2000);
            let wanted = Config::parse(&text, &flags).expect("valid");
            let told = changes(&shown, &wanted.effective());
            assert_eq!(told.len(), 1, "{key}: {told:?}");
            let renewed = config.limits.renewed(&wanted.limits);
            let after = Config { limits: renewed, ..config.clone() }.effective();
            assert_eq!(after != shown, Limits::is_live(&told[0].key), "{key}");
            live += usize::from(after != shown);
        }
        assert_eq!(live, 8, "limits that change at once");
    }

    #[test]
    fn every_difference_has_its_key() {
        let before = json!({ "a": { "x": 1, "y": [1, 2] }, "b": [{ "z": "s" }], "c": null });
        let after = json!({ "a": { "x": 2, "y": [1, 2] }, "b": [], "c": 3 });
        let change = |key: &str, from: &str, to: &str| Change {
            key: key.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let expected = [
            change("a.x", "1", "2"),
            change("b", "absent", "[]"),
            change("b[0].z", "\"s\"", "absent"),
            change("c", "absent", "3"),
        ];
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&before, &before), []);
    }
}
