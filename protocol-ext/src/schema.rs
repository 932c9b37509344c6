//! Layouts of the messages that are opened, as tables: one walker reads them all.
//!
//! A message is a list of [`Field`]s with the versions that carry them; [`Role`] marks what a
//! patch may want to see or change. The tables follow Kafka's own message definitions
//! (`common/message/*.json` in `kafka-clients`); a test compares them with a real broker's jar.

pub mod requests;
pub mod responses;

/// What a field means to those who patch messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing: skipped.
    None,
    /// A broker's id; the host and port that follow belong to it.
    Node,
    /// A broker's host name.
    Host,
    /// A broker's port.
    Port,
    /// Free text that a broker wrote for people.
    ErrorText,
    /// DescribeConfigs: type of the resource (4 = broker).
    ResourceType,
    /// DescribeConfigs: name of the resource (a broker's id).
    ResourceName,
    /// DescribeConfigs: name of a key, or of a synonym.
    ConfigName,
    /// DescribeConfigs: value of the key before it.
    ConfigValue,
    /// A topic's name.
    Topic,
    /// A topic's id.
    TopicId,
    /// A partition's index.
    Partition,
    /// A partition's records.
    Records,
    /// ShareFetch: the offsets that were acquired, an array as it lies in the message.
    Acquired,
    /// An error code.
    ErrorCode,
    /// Produce: transactional id.
    TransactionalId,
    /// Produce: acks.
    Acks,
    /// Fetch: session id.
    SessionId,
    /// Fetch: id of the follower that asks; negative for everybody else.
    Replica,
    /// Fetch: bytes of a partition that are asked for at most.
    PartitionBytes,
    /// Fetch: producer of a transaction that was aborted, as readers of committed records are told.
    AbortedProducer,
    /// Fetch: its first offset.
    AbortedFrom,
}

/// A field's type.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// An integer, boolean or UUID of so many bytes.
    Fixed(u8),
    /// A string, nullable or not.
    Str,
    /// Bytes or records, nullable or not.
    Bytes,
    /// A structure.
    Struct(&'static [Field]),
    /// An array of structures.
    Array(&'static [Field]),
    /// An array of integers or UUIDs of so many bytes.
    FixedList(u8),
    /// An array of strings.
    StrList,
}

/// One field of a message: name, type, versions, tag and role.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Kafka's name for it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// First version that has it.
    pub since: i16,
    /// Last version that has it.
    pub until: i16,
    /// Tag number, for a tagged field (KIP-482).
    pub tag: Option<u32>,
    /// What it means to a patch.
    pub role: Role,
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, since: 0, until: i16::MAX, tag: None, role: Role::None }
    }

    const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    const fn tag(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
        self
    }

    const fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Whether `version` carries the field outside the tagged section.
    pub fn in_order(&self, version: i16) -> bool {
        self.tag.is_none() && self.since <= version && version <= self.until
    }
}

/// A message of one API: request or response.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// A request: brokers ignore what stands behind its last field, and librdkafka leaves three
    /// bytes there where it asks for all topics.
    pub request: bool,
    /// API key.
    pub api: i16,
    /// First version in the flexible format (KIP-482).
    pub flexible: i16,
    /// Oldest version known.
    pub min: i16,
    /// Newest version known.
    pub max: i16,
    /// Its fields.
    pub fields: &'static [Field],
}

const fn i8f(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(1))
}
const fn i16f(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(2))
}
const fn i32f(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(4))
}
const fn i64f(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(8))
}
const fn uuid(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(16))
}
const fn string(name: &'static str) -> Field {
    Field::new(name, Kind::Str)
}
const fn records(name: &'static str) -> Field {
    Field::new(name, Kind::Bytes).role(Role::Records)
}
const fn structure(name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(name, Kind::Struct(fields))
}
const fn array(name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(name, Kind::Array(fields))
}
