//! The 112-byte signed reference that stands for a large value in the log.
//!
//! Flow: `KeyRing::sign` makes one from its fields and binds it to topic name and tenant;
//! `KeyRing::open` parses and verifies one before anybody acts on it.
//! Invariant: fields of an unverified reference leave this module only by
//! `Reference::parse_unverified`, for tools that never follow it. See docs/reference-format.md.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Bytes of a reference, version 1.
pub const REFERENCE_BYTES: usize = 112;
/// How every reference begins. 0xFB begins no UTF-8 text and no schema-registry value.
pub const REFERENCE_MAGIC: [u8; 4] = [0xFB, b'R', b'E', b'F'];
/// The version written here.
pub const REFERENCE_VERSION: u8 = 1;
/// The flags that are known here: none are defined yet.
pub const REFERENCE_FLAGS: u8 = 0;
/// Shortest key taken.
pub const KEY_BYTES_MIN: usize = 32;

const SIGNED_BYTES: usize = 96;
const MAC_BYTES: usize = REFERENCE_BYTES - SIGNED_BYTES;
/// Put before everything else under the MAC, so that no other use of the key meets it.
const DOMAIN: &[u8] = b"firebreak reference 1\0";
const KEY_ID_DOMAIN: &[u8] = b"firebreak key id 1\0";
/// A key with fewer different bytes was typed, not drawn.
const DISTINCT_BYTES_MIN: usize = 8;
/// SHA-256 of keys that stand in documents and tests: known to everybody, refused everywhere.
const PUBLISHED_KEYS: [[u8; 32]; 2] = [TEST_KEY_SHA256, SECOND_TEST_KEY_SHA256];
const TEST_KEY_SHA256: [u8; 32] = [
    0xbb, 0x0c, 0xa5, 0xf0, 0xd3, 0x2a, 0x41, 0x3e, 0xf5, 0x57, 0x30, 0xe8, 0x63, 0xc2, 0x99, 0xe8,
    0xed, 0x5d, 0x28, 0x8d, 0x7d, 0x3a, 0x2e, 0xda, 0x0e, 0x0e, 0x28, 0x1d, 0x29, 0x0c, 0x9a, 0x81,
];
const SECOND_TEST_KEY_SHA256: [u8; 32] = [
    0xe2, 0x6a, 0x9a, 0x48, 0x59, 0xe5, 0x9e, 0x30, 0xf8, 0x28, 0x0f, 0x2a, 0xb3, 0x62, 0x85, 0x40,
    0x41, 0xa2, 0x45, 0xcc, 0x2b, 0x23, 0xfe, 0xfd, 0x03, 0x2c, 0x41, 0x57, 0x04, 0xe1, 0x52, 0x53,
];

/// Everything a reference says, but its MAC and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// None defined yet; a reader refuses those that it does not know.
    pub flags: u8,
    /// Number of a store in the configuration; never a bucket or an address.
    pub store_alias: u16,
    /// How the stored bytes are compressed (the store's numbering).
    pub codec: u8,
    /// What was done before compression (byte shuffle ...; the store's numbering).
    pub filter: u8,
    /// The detected format; a hint and a metric label.
    pub content_type: u8,
    /// Part of the store's key space.
    pub shard: u8,
    /// Milliseconds since 1970, 48 bits.
    pub written_at_ms: u64,
    /// Bytes in the store.
    pub stored_bytes: u32,
    /// Bytes of the value.
    pub original_bytes: u32,
    /// CRC-32C of the value.
    pub original_crc: u32,
    /// Where the stored bytes begin in the pack.
    pub pack_offset: u64,
    /// Key that encrypts the part; 0 without encryption.
    pub data_key_id: u32,
    /// The partition it was written to; part of the object key.
    pub partition: u32,
    /// The object.
    pub pack_id: [u8; 16],
    /// Topic id of the writer's topic; part of the object key.
    pub topic_id: [u8; 16],
    /// First 16 bytes of the value's BLAKE3.
    pub original_hash: [u8; 16],
}

/// What a reference is bound to besides its own fields.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The name that clients use: not that of a dated segment or with a mirror's prefix.
    pub topic: &'a str,
    /// The virtual cluster.
    pub tenant: &'a str,
}

/// Why a value is not a reference that may be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not begin with the magic: an ordinary value.
    #[error("not a reference")]
    NotAReference,
    /// Magic, then a version not known here.
    #[error("unknown reference version {0}")]
    UnknownVersion(u8),
    /// Version 1, but not 112 bytes.
    #[error("a reference of {0} bytes")]
    WrongLength(usize),
    /// A flag or a field that version 1 does not know.
    #[error("unknown reference flags {0:#04x}")]
    UnknownFlags(u8),
    /// Signed with a key that is not active.
    #[error("unknown key {0:#06x}")]
    UnknownKey(u16),
    /// Forged, damaged, or moved to another topic or tenant.
    #[error("the signature does not fit")]
    BadMac,
}

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No bytes at all.
    #[error("the key is empty")]
    Empty,
    /// Too few bytes.
    #[error("the key has {0} bytes, at least {KEY_BYTES_MIN} are needed")]
    Short(usize),
    /// The key of a test vector or a document.
    #[error("the key is published and protects nothing")]
    Published,
    /// One byte repeated, a counting sequence, a short pattern, or few different bytes.
    #[error("the key follows a pattern; draw it at random")]
    Patterned,
    /// Both keys of a ring have the same id.
    #[error("two keys have the id {0:#06x}")]
    SameId(u16),
}

/// A key that references are signed with. `Debug` shows its id only.
#[derive(Clone)]
pub struct MacKey {
    id: u16,
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MacKey({:#06x})", self.id)
    }
}

impl MacKey {
    /// Takes a key whose id follows from its bytes.
    pub fn new(secret: &[u8]) -> Result<MacKey, KeyError> {
        validate(secret)?;
        MacKey::unchecked(derived_id(secret), secret)
    }

    /// Takes a key with an id given by the operator.
    pub fn with_id(id: u16, secret: &[u8]) -> Result<MacKey, KeyError> {
        validate(secret)?;
        MacKey::unchecked(id, secret)
    }

    /// The id that references carry.
    pub fn id(&self) -> u16 {
        self.id
    }

    fn unchecked(id: u16, secret: &[u8]) -> Result<MacKey, KeyError> {
        let keyed = Hmac::new_from_slice(secret).map_err(|_| KeyError::Short(secret.len()))?;
        Ok(MacKey { id, keyed })
    }

    fn mac(&self, signed: &[u8], binding: &Binding<'_>) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(DOMAIN);
        mac.update(signed);
        for name in [binding.topic, binding.tenant] {
            mac.update(&(name.len() as u64).to_be_bytes());
            mac.update(name.as_bytes());
        }
        mac
    }
}

/// The keys in use: the first signs, both are accepted.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: MacKey,
    previous: Option<MacKey>,
}

impl KeyRing {
    /// A ring of one or two keys with different ids.
    pub fn new(current: MacKey, previous: Option<MacKey>) -> Result<KeyRing, KeyError> {
        match &previous {
            Some(other) if other.id == current.id => Err(KeyError::SameId(current.id)),
            _ => Ok(KeyRing { current, previous }),
        }
    }

    /// The signed bytes of `reference`, with the current key.
    pub fn sign(&self, reference: &Reference, binding: &Binding<'_>) -> [u8; REFERENCE_BYTES] {
        let mut out = [0; REFERENCE_BYTES];
        reference.write(self.current.id, &mut out);
        let tag = self.current.mac(&out[..SIGNED_BYTES], binding).finalize().into_bytes();
        out[SIGNED_BYTES..].copy_from_slice(&tag[..MAC_BYTES]);
        out
    }

    /// Parses and verifies, in constant time for the signature.
    pub fn open(&self, value: &[u8], binding: &Binding<'_>) -> Result<Reference, ReferenceError> {
        let (reference, key_id) = Reference::parse_unverified(value)?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == key_id)
            .ok_or(ReferenceError::UnknownKey(key_id))?;
        let (signed, tag) = value.split_at(SIGNED_BYTES);
        key.mac(signed, binding).verify_truncated_left(tag).map_err(|_| ReferenceError::BadMac)?;
        Ok(reference)
    }
}

impl Reference {
    /// Whether a value begins as references do. A producer's own value that does must be
    /// offloaded, so that nothing a client writes is ever taken for a reference.
    #[inline]
    pub fn looks_like(value: &[u8]) -> bool {
        value.starts_with(&REFERENCE_MAGIC)
    }

    /// The fields and the key id, NOT verified: for tools that print or count, never to read a
    /// store by.
    pub fn parse_unverified(value: &[u8]) -> Result<(Reference, u16), ReferenceError> {
        let rest = value.strip_prefix(&REFERENCE_MAGIC).ok_or(ReferenceError::NotAReference)?;
        match rest.first() {
            Some(&REFERENCE_VERSION) => {}
            Some(other) => return Err(ReferenceError::UnknownVersion(*other)),
            None => return Err(ReferenceError::WrongLength(value.len())),
        }
        let bytes: &[u8; REFERENCE_BYTES] =
            value.try_into().map_err(|_| ReferenceError::WrongLength(value.len()))?;
        let flags = bytes[5];
        if flags & !REFERENCE_FLAGS != 0 {
            return Err(ReferenceError::UnknownFlags(flags));
        }
        let written_at: [u8; 6] = field(bytes, 14);
        let reference = Reference {
            flags,
            store_alias: u16::from_be_bytes(field(bytes, 8)),
            codec: bytes[10],
            filter: bytes[11],
            content_type: bytes[12],
            shard: bytes[13],
            written_at_ms: written_at.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            stored_bytes: u32::from_be_bytes(field(bytes, 20)),
            original_bytes: u32::from_be_bytes(field(bytes, 24)),
            original_crc: u32::from_be_bytes(field(bytes, 28)),
            pack_offset: u64::from_be_bytes(field(bytes, 32)),
            data_key_id: u32::from_be_bytes(field(bytes, 40)),
            partition: u32::from_be_bytes(field(bytes, 44)),
            pack_id: field(bytes, 48),
            topic_id: field(bytes, 64),
            original_hash: field(bytes, 80),
        };
        Ok((reference, u16::from_be_bytes(field(bytes, 6))))
    }

    fn write(&self, key_id: u16, out: &mut [u8; REFERENCE_BYTES]) {
        out[0..4].copy_from_slice(&REFERENCE_MAGIC);
        out[4] = REFERENCE_VERSION;
        out[5] = self.flags;
        out[6..8].copy_from_slice(&key_id.to_be_bytes());
        out[8..10].copy_from_slice(&self.store_alias.to_be_bytes());
        out[10] = self.codec;
        out[11] = self.filter;
        out[12] = self.content_type;
        out[13] = self.shard;
        out[14..20].copy_from_slice(&self.written_at_ms.to_be_bytes()[2..]);
        out[20..24].copy_from_slice(&self.stored_bytes.to_be_bytes());
        out[24..28].copy_from_slice(&self.original_bytes.to_be_bytes());
        out[28..32].copy_from_slice(&self.original_crc.to_be_bytes());
        out[32..40].copy_from_slice(&self.pack_offset.to_be_bytes());
        out[40..44].copy_from_slice(&self.data_key_id.to_be_bytes());
        out[44..48].copy_from_slice(&self.partition.to_be_bytes());
        out[48..64].copy_from_slice(&self.pack_id);
        out[64..80].copy_from_slice(&self.topic_id);
        out[80..96].copy_from_slice(&self.original_hash);
    }
}

fn field<const N: usize>(bytes: &[u8; REFERENCE_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn derived_id(secret: &[u8]) -> u16 {
    let digest = Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(secret).finalize();
    u16::from_be_bytes([digest[0], digest[1]])
}

fn validate(secret: &[u8]) -> Result<(), KeyError> {
    if secret.is_empty() {
        return Err(KeyError::Empty);
    }
    if secret.len() < KEY_BYTES_MIN {
        return Err(KeyError::Short(secret.len()));
    }
    let digest: [u8; 32] = Sha256::digest(secret).into();
    if PUBLISHED_KEYS.contains(&digest) {
        return Err(KeyError::Published);
    }
    let mut seen = [false; 256];
    for byte in secret {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let step = secret[1].wrapping_sub(secret[0]);
    let counting = secret.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let repeating =
        (1..=secret.len() / 2).any(|period| secret[period..] == secret[..secret.len() - period]);
    if distinct < DISTINCT_BYTES_MIN || counting || repeating {
        return Err(KeyError::Patterned);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIFICATION: &str = include_str!("../../docs/reference-format.md");

    fn unhex(text: &str) -> Vec<u8> {
        let digits = text.trim_start_matches('-').as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The fields of each vector of the page, by name.
    fn vectors() -> Vec<std::collections::HashMap<&'static str, String>> {
        let block = SPECIFICATION.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
        let mut vectors = Vec::new();
        for part in block.trim().split("\n\n") {
            let mut fields = std::collections::HashMap::<&str, String>::new();
            let mut name = "";
            for line in part.lines() {
                let (field, value) = line.split_at_checked(16).unwrap_or_default();
                if line.starts_with("vector") {
                    continue;
                }
                if !field.trim().is_empty() {
                    name = field.trim();
                }
                fields.entry(name).or_default().push_str(value.trim());
            }
            vectors.push(fields);
        }
        vectors
    }

    fn array<const N: usize>(text: &str) -> [u8; N] {
        unhex(text).try_into().unwrap()
    }

    #[test]
    fn the_vectors_of_the_specification_are_what_is_written_and_read() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 3);
        for fields in vectors {
            let number = |name: &str| fields[name].parse::<u64>().unwrap();
            let small = |name: &str| u8::try_from(number(name)).unwrap();
            let medium = |name: &str| u32::try_from(number(name)).unwrap();
            let reference = Reference {
                flags: 0,
                store_alias: u16::try_from(number("store-alias")).unwrap(),
                codec: small("codec"),
                filter: small("filter"),
                content_type: small("content-type"),
                shard: small("shard"),
                written_at_ms: number("written-at-ms"),
                stored_bytes: medium("stored-bytes"),
                original_bytes: medium("original-bytes"),
                original_crc: u32::from_str_radix(&fields["original-crc"], 16).unwrap(),
                pack_offset: number("pack-offset"),
                data_key_id: medium("data-key-id"),
                partition: medium("partition"),
                pack_id: array(&fields["pack-id"]),
                topic_id: array(&fields["topic-id"]),
                original_hash: array(&fields["original-hash"]),
            };
            let secret = unhex(&fields["key"]);
            assert_eq!(MacKey::new(&secret).unwrap_err(), KeyError::Published);
            assert_eq!(derived_id(&secret).to_be_bytes().to_vec(), unhex(&fields["key-id"]));
            let key = MacKey::unchecked(derived_id(&secret), &secret).unwrap();
            let ring = KeyRing::new(key, None).unwrap();
            let topic = String::from_utf8(unhex(&fields["topic"])).unwrap();
            let tenant = String::from_utf8(unhex(&fields["tenant"])).unwrap();
            let binding = Binding { topic: &topic, tenant: &tenant };
            let signed = unhex(&fields["reference"]);
            assert_eq!(ring.sign(&reference, &binding).to_vec(), signed);
            assert_eq!(ring.open(&signed, &binding), Ok(reference));
        }
    }

    #[test]
    fn the_first_vector_s_sums_are_those_of_the_value_it_names() {
        let fields = &vectors()[0];
        let value = b"wildfire".repeat(16_384);
        assert_eq!(fields["original-bytes"], value.len().to_string());
        let crc = crate::batch::crc32c(&value);
        assert_eq!(fields["original-crc"], format!("{crc:08x}"));
        assert_eq!(array(&fields["original-hash"]), crate::part::hash(&value));
    }

    #[test]
    fn keys_that_protect_nothing_are_refused() {
        let counting: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..40).map(|i| 200 - 3 * i).collect();
        for (secret, expected) in [
            (&b""[..], KeyError::Empty),
            (b"0123456789abcdef0123456789abcde", KeyError::Short(31)),
            (&[0; 32], KeyError::Patterned),
            (&[0xAA; 64], KeyError::Patterned),
            (&counting, KeyError::Patterned),
            (&falling, KeyError::Patterned),
            (b"changemechangemechangemechangeme", KeyError::Patterned),
            (b"0123456789abcdef0123456789abcdef", KeyError::Patterned),
            (b"aababbabaabbabaababbabaabbaababb", KeyError::Patterned),
        ] {
            assert_eq!(MacKey::new(secret).unwrap_err(), expected, "{secret:?}");
            assert_eq!(MacKey::with_id(1, secret).unwrap_err(), expected, "{secret:?}");
        }
    }

    #[test]
    fn two_keys_of_one_id_make_no_ring_and_a_key_is_not_printed() {
        let secret = Sha256::digest(b"one");
        let key = MacKey::with_id(0x0102, &secret).unwrap();
        let other = MacKey::with_id(0x0102, &Sha256::digest(b"two")).unwrap();
        assert_eq!(format!("{key:?}"), "MacKey(0x0102)");
        assert_eq!(KeyRing::new(key, Some(other)).unwrap_err(), KeyError::SameId(0x0102));
    }

    #[test]
    fn what_is_no_reference_is_told_apart() {
        let mut value = [0u8; REFERENCE_BYTES];
        let parse = |value: &[u8]| Reference::parse_unverified(value).unwrap_err();
        assert_eq!(parse(&value), ReferenceError::NotAReference);
        assert_eq!(parse(b""), ReferenceError::NotAReference);
        value[..4].copy_from_slice(&REFERENCE_MAGIC);
        assert_eq!(parse(&value), ReferenceError::UnknownVersion(0));
        assert_eq!(parse(&value[..4]), ReferenceError::WrongLength(4));
        value[4] = 1;
        assert_eq!(parse(&value[..111]), ReferenceError::WrongLength(111));
        assert_eq!(parse(&[&value[..], &[0]].concat()), ReferenceError::WrongLength(113));
        value[5] = 0x80;
        assert_eq!(parse(&value), ReferenceError::UnknownFlags(0x80));
        value[4] = 2;
        assert_eq!(parse(&value[..9]), ReferenceError::UnknownVersion(2));
    }
}
