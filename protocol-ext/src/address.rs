//! Puts the addresses that clients use in the place of the brokers' own.
//!
//! One visitor serves every row of the table of addresses: in all messages a broker's id stands
//! before its host and port. Broker configuration values that hold addresses are replaced too.

use bytes::Bytes;

use crate::schema::Role;
use crate::walk::{Replace, Value, Visit};

/// What clients are told in the brokers' place.
pub trait Addresses {
    /// Host and port under which clients reach broker `node`.
    fn of(&self, node: i32) -> (Bytes, u16);
    /// `text` without upstream host names; `None` if it has none.
    fn scrub(&self, text: &str) -> Option<String>;
}

/// `ResourceType` of a broker in DescribeConfigs.
const BROKER_RESOURCE: i64 = 4;

/// The visitor that rewrites addresses.
#[derive(Debug)]
pub struct Rewrite<'a, A> {
    addresses: &'a A,
    node: i32,
    broker_resource: bool,
    config: Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Config {
    Listeners,
    Hidden,
    Other,
}

impl<'a, A: Addresses> Rewrite<'a, A> {
    /// A visitor for one message.
    pub fn new(addresses: &'a A) -> Self {
        Self { addresses, node: -1, broker_resource: false, config: Config::Other }
    }

    fn scrubbed(&self, text: Option<&[u8]>) -> Option<Replace> {
        // A text that is not UTF-8 may name a host all the same.
        let text = String::from_utf8_lossy(text?);
        self.addresses.scrub(&text).map(|clean| Replace::Bytes(Some(clean.into())))
    }

    fn config_value(&self, value: Option<&[u8]>) -> Option<Replace> {
        let old = value?;
        match self.config {
            _ if !self.broker_resource || old.is_empty() => None,
            Config::Listeners => {
                let (host, port) = self.addresses.of(self.node);
                let host = String::from_utf8_lossy(&host);
                Some(Replace::Bytes(Some(format!("PLAINTEXT://{host}:{port}").into())))
            }
            Config::Hidden => Some(Replace::Bytes(None)),
            Config::Other => self.scrubbed(value).map(|_| Replace::Bytes(None)),
        }
    }
}

impl<A: Addresses> Visit for Rewrite<'_, A> {
    fn field(&mut self, role: Role, value: Value<'_>) -> Option<Replace> {
        match role {
            Role::Node => {
                self.node = i32::try_from(value.int()).unwrap_or(-1);
                None
            }
            // A coordinator that was not found has an empty host.
            Role::Host if value.bytes().is_none_or(<[u8]>::is_empty) => {
                self.node = -1;
                None
            }
            Role::Host => Some(Replace::Bytes(Some(self.addresses.of(self.node).0))),
            Role::Port if self.node < 0 => None,
            Role::Port => Some(Replace::Int(i64::from(self.addresses.of(self.node).1))),
            Role::ErrorText => self.scrubbed(value.bytes()),
            Role::ResourceType => {
                self.broker_resource = value.int() == BROKER_RESOURCE;
                None
            }
            Role::ResourceName => {
                let name = value.bytes().and_then(|name| std::str::from_utf8(name).ok());
                self.node = name.and_then(|name| name.parse().ok()).unwrap_or(-1);
                None
            }
            Role::ConfigName => {
                self.config = config(value.bytes().unwrap_or_default());
                None
            }
            Role::ConfigValue => self.config_value(value.bytes()),
            Role::None
            | Role::Topic
            | Role::TopicId
            | Role::Partition
            | Role::Records
            | Role::ErrorCode
            | Role::TransactionalId
            | Role::Acks
            | Role::Acquired
            | Role::SessionId
            | Role::Replica
            | Role::PartitionBytes
            | Role::AbortedProducer
            | Role::AbortedFrom => None,
        }
    }
}

fn config(name: &[u8]) -> Config {
    match name {
        b"listeners" | b"advertised.listeners" => Config::Listeners,
        b"host.name" | b"advertised.host.name" | b"zookeeper.connect" => Config::Hidden,
        b"controller.quorum.voters" => Config::Hidden,
        _ if name.ends_with(b"bootstrap.servers") => Config::Hidden,
        _ => Config::Other,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) struct Fixed {
        pub host: &'static str,
        pub port: u16,
    }

    impl Addresses for Fixed {
        fn of(&self, node: i32) -> (Bytes, u16) {
            (Bytes::from_static(self.host.as_bytes()), self.port + u16::try_from(node).unwrap_or(0))
        }

        fn scrub(&self, text: &str) -> Option<String> {
            text.contains("upstream").then(|| text.replace("upstream", self.host))
        }
    }

    #[test]
    fn a_text_that_is_not_utf_8_is_searched_as_well() {
        let fixed = Fixed { host: "p", port: 1 };
        let text = b"ask \xffupstream:9092";
        let mut rewrite = Rewrite::new(&fixed);
        let new = rewrite.field(Role::ErrorText, Value::Bytes(Some(text), 0));
        let expected = "ask \u{fffd}p:9092";
        assert_eq!(new, Some(Replace::Bytes(Some(Bytes::from_static(expected.as_bytes())))));
    }

    #[test]
    fn quorum_timings_stay_and_quorum_addresses_go() {
        assert_eq!(config(b"controller.quorum.voters"), Config::Hidden);
        assert_eq!(config(b"controller.quorum.bootstrap.servers"), Config::Hidden);
        assert_eq!(config(b"controller.quorum.fetch.timeout.ms"), Config::Other);
        assert_eq!(config(b"advertised.listeners"), Config::Listeners);
    }
}
