//! Open files: each client takes two, three with virtual topics, so the usual soft limit of 1,024
//! would end at some five hundred clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside those of clients: listeners, the store, the admin port, questions to brokers.
const OTHERS: u64 = 500;
/// Room for fewer clients than this is worth a warning: a cluster of some size has as many.
const CLIENTS_FEW: u64 = 1000;

/// Raises the process's limit as far as it may.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Says for how many clients the limit suffices, where more may come.
pub fn tell(config: &Config) {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let beside = config.passthrough().map_or(0, |beside| beside.limits.connections_max);
    let connections_max = config.limits.connections_max.saturating_add(beside) as u64;
    let files_each = if config.virtual_topics.is_empty() { 2 } else { 3 };
    let clients = clients(limit, files_each);
    if clients >= connections_max {
        return;
    }
    if clients >= CLIENTS_FEW {
        tracing::info!(
            clients,
            limit,
            connections_max,
            "open files suffice for fewer clients than limits.connections_max"
        );
    } else {
        tracing::warn!(
            clients,
            limit,
            files_each,
            "open files suffice for few clients: raise the hard limit (LimitNOFILE=, --ulimit)"
        );
    }
}

/// How many clients the limit has room for.
fn clients(limit: u64, files_each: u64) -> u64 {
    limit.saturating_sub(OTHERS) / files_each
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_has_room_for_clients_beside_what_else_is_open() {
        assert_eq!(clients(20_000, 2), 9_750);
        assert_eq!(clients(1024, 3), 174);
        assert_eq!(clients(100, 2), 0);
    }
}
