//! Open files: each client takes two, three with virtual topics, so the usual soft limit of 1,024
//! would end at some five hundred clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside those of clients: listeners, the store, the admin port, questions to brokers.
const OTHERS: u64 = 500;

/// Raises the process's limit as far as it may, and says so if clients may meet it all the same.
pub fn raise(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let of_client = if config.virtual_topics.is_empty() { 2 } else { 3 };
    let beside = config.passthrough().map_or(0, |beside| beside.limits.connections_max);
    let clients = config.limits.connections_max.saturating_add(beside) as u64;
    let needed = OTHERS.saturating_add(clients * of_client);
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "fewer open files than limits.connections_max may need: raise the hard limit"
        );
    }
}
