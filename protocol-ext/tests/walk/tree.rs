//! Messages as trees: drawn from a layout, written by a writer that shares no code with the walker.

use proptest::prelude::*;
use protocol_ext::schema::{Field, Kind, Message, Role, requests, responses};

/// A field's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// An integer, boolean or UUID, big-endian.
    Fixed(Vec<u8>),
    /// A string (`wide` false) or bytes (`wide` true).
    Content { bytes: Option<Vec<u8>>, wide: bool },
    /// Integers of one width, as they lie on the wire.
    Integers { bytes: Vec<u8>, width: usize },
    /// A structure.
    Struct(Body),
    /// An array; `None` is null.
    Array(Option<Vec<Body>>),
}

/// The fields of a structure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    /// In wire order.
    pub fields: Vec<(&'static str, Role, Tree)>,
    /// Tag, name, role and content, by rising tag.
    pub tags: Vec<(u32, &'static str, Role, Tree)>,
    /// Tags of nobody, by rising tag, behind all known ones.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

/// A message with its version.
#[derive(Clone)]
pub struct Sample {
    pub message: &'static Message,
    pub version: i16,
    pub body: Body,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { message, version, .. } = self;
        write!(out, "api {} version {version}: {:02x?}", message.api, self.bytes())
    }
}

/// Draws decisions from a string of bytes; when it ends, everything is small and empty.
struct Draw<'a> {
    entropy: std::slice::Iter<'a, u8>,
    api: i16,
    version: i16,
    broker_resource: bool,
    tagged: bool,
}

/// Hosts that stand for the brokers' own.
const HOSTS: [&str; 4] = ["upstream-1.internal", "upstream", "", "a.upstream.example.org"];
const CONFIG_NAMES: [&str; 6] = [
    "listeners",
    "advertised.listeners",
    "controller.quorum.voters",
    "controller.quorum.bootstrap.servers",
    "log.dirs",
    "num.io.threads",
];
/// Fields that may be null, where the codec crate lets them.
const NULLABLE: [&str; 9] = [
    "ErrorMessage",
    "AcknowledgeErrorMessage",
    "BatchIndexErrorMessage",
    "Rack",
    "Value",
    "Documentation",
    "Records",
    "TransactionalId",
    "AbortedTransactions",
];
const BOOLEANS: [&str; 9] = [
    "VerifyOnly",
    "IsInternal",
    "IsFenced",
    "IsSensitive",
    "ReadOnly",
    "AllowAutoTopicCreation",
    "IncludeClusterAuthorizedOperations",
    "IncludeTopicAuthorizedOperations",
    "IncludeSynonyms",
];
const BROKER_RESOURCE: u8 = 4;

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        self.entropy.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: u8) -> usize {
        usize::from(self.byte() % n)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    fn body(&mut self, fields: &'static [Field], flexible: bool) -> Body {
        let mut body = Body::default();
        let version = self.version;
        for field in fields.iter().filter(|field| field.in_order(version)) {
            let tree = self.field(field, flexible);
            body.fields.push((field.name, field.role, tree));
        }
        if !flexible {
            return body;
        }
        let mut known: Vec<_> = fields.iter().filter_map(|f| Some((f.tag?, f))).collect();
        known.retain(|(_, field)| field.since <= version && version <= field.until);
        known.sort_by_key(|(tag, _)| *tag);
        for (tag, field) in known {
            if self.below(2) == 1 {
                let outer = std::mem::replace(&mut self.tagged, true);
                let tree = self.field(field, flexible);
                self.tagged = outer;
                body.tags.push((tag, field.name, field.role, tree));
            }
        }
        let mut tag = 90;
        for _ in 0..self.below(8).saturating_sub(5) {
            tag += 1 + u32::from(self.byte()) * 40;
            let n = self.below(20);
            body.unknown.push((tag, self.bytes(n)));
        }
        body
    }

    fn field(&mut self, field: &'static Field, flexible: bool) -> Tree {
        // Null or empty is the default of a tagged field, and defaults are not written.
        let null = !self.tagged && self.nullable(field.name) && self.below(4) == 1;
        match field.kind {
            Kind::Fixed(n) => Tree::Fixed(self.fixed(field, usize::from(n))),
            Kind::Str => Tree::Content { bytes: (!null).then(|| self.text(field)), wide: false },
            Kind::Bytes => {
                let n = self.below(60);
                Tree::Content { bytes: (!null).then(|| self.bytes(n)), wide: true }
            }
            Kind::Struct(fields) => Tree::Struct(self.body(fields, flexible)),
            Kind::Array(_) if null => Tree::Array(None),
            Kind::Array(fields) => {
                let n = self.below(4).max(usize::from(self.tagged));
                let outer = std::mem::replace(&mut self.tagged, false);
                let array = (0..n).map(|_| self.body(fields, flexible)).collect();
                self.tagged = outer;
                Tree::Array(Some(array))
            }
            Kind::FixedList(width) => {
                let width = usize::from(width);
                let n = self.below(4);
                Tree::Integers { bytes: self.bytes(n * width), width }
            }
            Kind::StrList => unreachable!("no layout has one"),
        }
    }

    fn nullable(&self, name: &str) -> bool {
        let transactions = name == "TransactionalId" && self.api != 0;
        (NULLABLE.contains(&name) && !transactions)
            || (name == "ClusterId" && self.api == 3)
            || (name == "Configs" && self.api == 19)
    }

    fn fixed(&mut self, field: &Field, n: usize) -> Vec<u8> {
        let mut bytes = self.bytes(n);
        match field.role {
            Role::Node => bytes = vec![0, 0, 0, self.byte() % 5],
            Role::Port => bytes = [0, 0, self.byte(), self.byte()][4 - n..].to_vec(),
            Role::ResourceType => {
                bytes = vec![if self.below(2) == 1 { BROKER_RESOURCE } else { 2 }];
                self.broker_resource = bytes == [BROKER_RESOURCE];
            }
            _ if BOOLEANS.contains(&field.name) => bytes[0] &= 1,
            _ if self.tagged => bytes[n - 1] |= 1,
            _ => {}
        }
        bytes
    }

    fn text(&mut self, field: &Field) -> Vec<u8> {
        let n = self.below(12);
        let plain = |draw: &mut Self| (0..n).map(|_| b'a' + draw.byte() % 26).collect();
        let one_of = |draw: &mut Self, words: &[&str]| {
            let n = draw.below(u8::try_from(words.len()).expect("few"));
            words[n].as_bytes().to_vec()
        };
        match field.role {
            Role::Host => one_of(self, &HOSTS),
            Role::ErrorText => one_of(self, &["", "ask upstream:9092", "no", "upstream upstream"]),
            Role::ResourceName => one_of(self, &["0", "1", "4", "topic", ""]),
            Role::ConfigName => one_of(self, &CONFIG_NAMES),
            Role::ConfigValue if self.broker_resource => {
                one_of(self, &["", "PLAINTEXT://upstream:9092", "8", "/data/upstream/1"])
            }
            _ => plain(self),
        }
    }
}

impl Body {
    /// The structure as it lies on the wire.
    pub fn write(&self, flexible: bool, out: &mut Vec<u8>) {
        for (.., tree) in &self.fields {
            tree.write(flexible, out);
        }
        if !flexible {
            return;
        }
        uvarint(out, self.tags.len() + self.unknown.len());
        for (tag, .., tree) in &self.tags {
            let mut content = Vec::new();
            tree.write(flexible, &mut content);
            uvarint(out, *tag as usize);
            uvarint(out, content.len());
            out.extend_from_slice(&content);
        }
        for (tag, content) in &self.unknown {
            uvarint(out, *tag as usize);
            uvarint(out, content.len());
            out.extend_from_slice(content);
        }
    }

    /// Every field with its name, in wire order, inner ones behind the outer one.
    pub fn each(&self, see: &mut impl FnMut(&'static str, Role, &Tree)) {
        let fields = self.fields.iter().map(|(name, role, tree)| (*name, *role, tree));
        let tags = self.tags.iter().map(|(_, name, role, tree)| (*name, *role, tree));
        for (name, role, tree) in fields.chain(tags) {
            see(name, role, tree);
            match tree {
                Tree::Struct(body) => body.each(see),
                Tree::Array(Some(bodies)) => bodies.iter().for_each(|body| body.each(see)),
                _ => {}
            }
        }
    }

    /// The same, to be changed.
    pub fn change(&mut self, change: &mut impl FnMut(Role, &mut Tree)) {
        let fields = self.fields.iter_mut().map(|(_, role, tree)| (*role, tree));
        let tags = self.tags.iter_mut().map(|(_, _, role, tree)| (*role, tree));
        for (role, tree) in fields.chain(tags) {
            match tree {
                Tree::Struct(body) => body.change(change),
                Tree::Array(Some(bodies)) => {
                    bodies.iter_mut().for_each(|body| body.change(change));
                }
                _ => {}
            }
            if role != Role::None {
                change(role, tree);
            }
        }
    }
}

impl Tree {
    pub fn write(&self, flexible: bool, out: &mut Vec<u8>) {
        match self {
            Tree::Fixed(bytes) => out.extend_from_slice(bytes),
            Tree::Content { bytes: None, wide } => null(flexible, *wide, out),
            Tree::Content { bytes: Some(bytes), wide } => {
                length(flexible, *wide, bytes.len(), out);
                out.extend_from_slice(bytes);
            }
            Tree::Integers { bytes, width } => {
                length(flexible, true, bytes.len() / width, out);
                out.extend_from_slice(bytes);
            }
            Tree::Struct(body) => body.write(flexible, out),
            Tree::Array(None) => null(flexible, true, out),
            Tree::Array(Some(bodies)) => {
                length(flexible, true, bodies.len(), out);
                bodies.iter().for_each(|body| body.write(flexible, out));
            }
        }
    }
}

fn null(flexible: bool, wide: bool, out: &mut Vec<u8>) {
    match (flexible, wide) {
        (true, _) => out.push(0),
        (false, true) => out.extend_from_slice(&[0xff; 4]),
        (false, false) => out.extend_from_slice(&[0xff; 2]),
    }
}

fn length(flexible: bool, wide: bool, n: usize, out: &mut Vec<u8>) {
    if flexible {
        uvarint(out, n + 1);
    } else if wide {
        out.extend_from_slice(&u32::try_from(n).expect("small").to_be_bytes());
    } else {
        out.extend_from_slice(&u16::try_from(n).expect("small").to_be_bytes());
    }
}

/// Appends an unsigned varint.
pub fn uvarint(out: &mut Vec<u8>, mut n: usize) {
    while n > 0x7f {
        out.push(u8::try_from(n & 0x7f).expect("seven bits") | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).expect("seven bits"));
}

impl Sample {
    /// Whether its version is a flexible one.
    pub fn is_flexible(&self) -> bool {
        self.version >= self.message.flexible
    }

    /// The body on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.body.write(self.is_flexible(), &mut out);
        out
    }

    /// A response frame: correlation id, header tags, body; and where the body starts.
    pub fn response_frame(&self) -> (Vec<u8>, usize) {
        let mut out = vec![0, 0, 0, 9];
        if self.is_flexible() {
            out.push(0);
        }
        let at = out.len();
        self.body.write(self.is_flexible(), &mut out);
        (out, at)
    }
}

/// Messages of one layout, all versions.
pub fn sample(message: &'static Message) -> impl Strategy<Value = Sample> {
    sample_of(message, message.min, message.max)
}

/// Messages of one layout and some versions.
pub fn sample_of(message: &'static Message, min: i16, max: i16) -> impl Strategy<Value = Sample> {
    (min..=max, proptest::collection::vec(any::<u8>(), 0..700)).prop_map(move |(version, bytes)| {
        let mut draw = Draw {
            entropy: bytes.iter(),
            api: message.api,
            version,
            broker_resource: false,
            tagged: false,
        };
        let body = draw.body(message.fields, version >= message.flexible);
        Sample { message, version, body }
    })
}

/// Every layout there is.
pub const LAYOUTS: [&Message; 15] = [
    &requests::PRODUCE,
    &requests::FETCH,
    &requests::METADATA,
    &requests::LIST_OFFSETS,
    &responses::PRODUCE,
    &responses::FETCH,
    &responses::METADATA,
    &responses::LIST_OFFSETS,
    &responses::DESCRIBE_PRODUCERS,
    &responses::CREATE_TOPICS,
    &responses::FIND_COORDINATOR,
    &responses::DESCRIBE_CONFIGS,
    &responses::DESCRIBE_CLUSTER,
    &responses::SHARE_FETCH,
    &responses::SHARE_ACKNOWLEDGE,
];

/// Messages of any layout and version.
pub fn any_sample() -> impl Strategy<Value = Sample> {
    (0..LAYOUTS.len()).prop_flat_map(|n| sample(LAYOUTS[n]))
}
