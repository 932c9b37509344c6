//! A pack: the object that references point into, describing itself from head to footer.
//!
//! Flow: `PackWriter::add` gives each part its offset; the object is `head`, the parts one after
//! the other, `footer`. A reader needs no footer (a reference has offset and lengths); upkeep reads
//! `PackHead::parse`, then `Footer::parse` at the end, then `entries`, and sums parts by `Sums`.
//! Invariant: parts lie without gaps between head and footer, and one CRC covers head and footer.
//! See docs/pack-format.md.

use crate::batch::{crc32c, crc32c_appended, crc32c_of};

/// Bytes of the head.
pub const HEAD_BYTES: usize = 64;
/// Bytes of an entry of the footer.
pub const ENTRY_BYTES: usize = 48;
/// Bytes behind the entries.
pub const TRAILER_BYTES: usize = 24;
/// How every pack begins.
pub const PACK_MAGIC: [u8; 4] = [0xFB, b'P', b'A', b'K'];
/// How every pack ends.
pub const END_MAGIC: [u8; 4] = [0xFB, b'E', b'N', b'D'];
/// The version written here.
pub const PACK_VERSION: u8 = 1;
/// More parts than a batch of one request can have values worth storing.
pub const PARTS_MAX: u32 = 1 << 20;

/// What a pack says of itself as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackHead {
    /// The object.
    pub pack_id: [u8; 16],
    /// Topic id of the writer's topic.
    pub topic_id: [u8; 16],
    /// The partition that its references were written to.
    pub partition: u32,
    /// Key that encrypts the parts; 0 without encryption.
    pub data_key_id: u32,
    /// Milliseconds since 1970.
    pub written_at_ms: u64,
}

/// One stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where its stored bytes begin in the object.
    pub offset: u64,
    /// Bytes in the object.
    pub stored_bytes: u32,
    /// Bytes of the value.
    pub original_bytes: u32,
    /// CRC-32C of the stored bytes.
    pub stored_crc: u32,
    /// CRC-32C of the value.
    pub original_crc: u32,
    /// Number of its record in the batch that was written.
    pub record: u32,
    /// How the stored bytes are compressed.
    pub codec: u8,
    /// What was done before compression.
    pub filter: u8,
    /// The detected format.
    pub content_type: u8,
    /// First 16 bytes of the value's BLAKE3.
    pub original_hash: [u8; 16],
}

/// Why bytes are not the pack they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Fewer bytes than asked for.
    #[error("{0} bytes are too few for this part of a pack")]
    Short(usize),
    /// The head or the end is that of something else.
    #[error("not a pack")]
    Magic,
    /// A version not known here.
    #[error("unknown pack version {0}")]
    Version(u8),
    /// A flag or reserved byte that version 1 does not know.
    #[error("unknown pack flags")]
    Flags,
    /// Lengths that contradict each other or the object's.
    #[error("lengths of the pack disagree")]
    Lengths,
    /// Head or footer were changed.
    #[error("checksum of head and footer is {computed:08x}, the pack says {stored:08x}")]
    Crc {
        /// From the footer.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A part was changed.
    #[error("checksum of the part at byte {offset} is {computed:08x}, the pack says {stored:08x}")]
    Part {
        /// Where it lies.
        offset: u64,
        /// From the footer.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// More or longer parts than a pack holds.
    #[error("too many parts")]
    TooLarge,
}

/// Makes a pack; holds its description, never its parts.
#[derive(Clone, Debug)]
pub struct PackWriter {
    head: [u8; HEAD_BYTES],
    entries: Vec<u8>,
    count: u32,
    end: u64,
}

impl PackWriter {
    /// A pack without parts.
    pub fn new(head: &PackHead) -> PackWriter {
        PackWriter { head: head.bytes(), entries: Vec::new(), count: 0, end: HEAD_BYTES as u64 }
    }

    /// Adds a part behind those there are and gives its offset; `part.offset` is not read.
    pub fn add(&mut self, part: &Part) -> Result<u64, PackError> {
        let offset = self.end;
        if self.count == PARTS_MAX {
            return Err(PackError::TooLarge);
        }
        let end = offset.checked_add(u64::from(part.stored_bytes)).ok_or(PackError::TooLarge)?;
        self.entries.extend_from_slice(&Part { offset, ..*part }.bytes());
        self.count += 1;
        self.end = end;
        Ok(offset)
    }

    /// What stands in front of the parts.
    pub fn head(&self) -> [u8; HEAD_BYTES] {
        self.head
    }

    /// What stands behind the parts.
    pub fn footer(mut self) -> Vec<u8> {
        self.entries.extend_from_slice(&self.end.to_be_bytes());
        self.entries.extend_from_slice(&self.count.to_be_bytes());
        self.entries.extend_from_slice(&[PACK_VERSION, 0, 0, 0]);
        let crc = crc32c_of(&[&self.head, &self.entries]);
        self.entries.extend_from_slice(&crc.to_be_bytes());
        self.entries.extend_from_slice(&END_MAGIC);
        self.entries
    }
}

impl PackHead {
    fn bytes(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[0..4].copy_from_slice(&PACK_MAGIC);
        out[4] = PACK_VERSION;
        out[8..24].copy_from_slice(&self.pack_id);
        out[24..40].copy_from_slice(&self.topic_id);
        out[40..44].copy_from_slice(&self.partition.to_be_bytes());
        out[44..48].copy_from_slice(&self.data_key_id.to_be_bytes());
        out[48..56].copy_from_slice(&self.written_at_ms.to_be_bytes());
        out
    }

    /// Reads the head at the start of an object.
    pub fn parse(object: &[u8]) -> Result<PackHead, PackError> {
        let head = object.first_chunk::<HEAD_BYTES>().ok_or(PackError::Short(object.len()))?;
        if head[0..4] != PACK_MAGIC {
            return Err(PackError::Magic);
        }
        if head[4] != PACK_VERSION {
            return Err(PackError::Version(head[4]));
        }
        if head[5..8] != [0; 3] || head[56..64] != [0; 8] {
            return Err(PackError::Flags);
        }
        Ok(PackHead {
            pack_id: field(head, 8),
            topic_id: field(head, 24),
            partition: u32::from_be_bytes(field(head, 40)),
            data_key_id: u32::from_be_bytes(field(head, 44)),
            written_at_ms: u64::from_be_bytes(field(head, 48)),
        })
    }
}

/// The end of a pack, read before its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the entries begin: behind the last part.
    pub at: u64,
    /// Bytes from there to the end of the object.
    pub bytes: usize,
    count: u32,
    crc: u32,
}

impl Footer {
    /// Reads the last bytes (24 or more) of an object of `object_bytes`.
    pub fn parse(end: &[u8], object_bytes: u64) -> Result<Footer, PackError> {
        let last = end.last_chunk::<TRAILER_BYTES>().ok_or(PackError::Short(end.len()))?;
        if last[20..24] != END_MAGIC {
            return Err(PackError::Magic);
        }
        if last[12] != PACK_VERSION {
            return Err(PackError::Version(last[12]));
        }
        if last[13..16] != [0; 3] {
            return Err(PackError::Flags);
        }
        let at = u64::from_be_bytes(field(last, 0));
        let count = u32::from_be_bytes(field(last, 8));
        if count > PARTS_MAX {
            return Err(PackError::TooLarge);
        }
        let bytes = count as usize * ENTRY_BYTES + TRAILER_BYTES;
        if at < HEAD_BYTES as u64 || at.checked_add(bytes as u64) != Some(object_bytes) {
            return Err(PackError::Lengths);
        }
        Ok(Footer { at, bytes, count, crc: u32::from_be_bytes(field(last, 16)) })
    }

    /// The parts, from the object's head and its bytes from [`Footer::at`] to the end.
    pub fn entries(&self, head: &[u8], footer: &[u8]) -> Result<Vec<Part>, PackError> {
        let head = head.first_chunk::<HEAD_BYTES>().ok_or(PackError::Short(head.len()))?;
        if footer.len() != self.bytes {
            return Err(PackError::Short(footer.len()));
        }
        let covered = &footer[..self.bytes - 8];
        let computed = crc32c_of(&[head, covered]);
        if computed != self.crc {
            return Err(PackError::Crc { stored: self.crc, computed });
        }
        let mut parts = Vec::with_capacity(self.count as usize);
        let mut end = HEAD_BYTES as u64;
        for entry in footer[..self.bytes - TRAILER_BYTES].as_chunks::<ENTRY_BYTES>().0 {
            let part = Part::parse(entry);
            if part.offset != end {
                return Err(PackError::Lengths);
            }
            end = end.checked_add(u64::from(part.stored_bytes)).ok_or(PackError::Lengths)?;
            parts.push(part);
        }
        if end == self.at { Ok(parts) } else { Err(PackError::Lengths) }
    }
}

impl Part {
    /// What is wrong where its stored bytes have another checksum.
    fn changed(&self, computed: u32) -> PackError {
        PackError::Part { offset: self.offset, stored: self.stored_crc, computed }
    }

    fn bytes(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0..8].copy_from_slice(&self.offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.stored_bytes.to_be_bytes());
        out[12..16].copy_from_slice(&self.original_bytes.to_be_bytes());
        out[16..20].copy_from_slice(&self.stored_crc.to_be_bytes());
        out[20..24].copy_from_slice(&self.original_crc.to_be_bytes());
        out[24..28].copy_from_slice(&self.record.to_be_bytes());
        out[28] = self.codec;
        out[29] = self.filter;
        out[30] = self.content_type;
        out[32..48].copy_from_slice(&self.original_hash);
        out
    }

    fn parse(entry: &[u8; ENTRY_BYTES]) -> Part {
        Part {
            offset: u64::from_be_bytes(field(entry, 0)),
            stored_bytes: u32::from_be_bytes(field(entry, 8)),
            original_bytes: u32::from_be_bytes(field(entry, 12)),
            stored_crc: u32::from_be_bytes(field(entry, 16)),
            original_crc: u32::from_be_bytes(field(entry, 20)),
            record: u32::from_be_bytes(field(entry, 24)),
            codec: entry[28],
            filter: entry[29],
            content_type: entry[30],
            original_hash: field(entry, 32),
        }
    }
}

/// Checks the stored bytes of parts as they come, from the first byte behind the head on.
#[derive(Clone, Debug)]
pub struct Sums<'a> {
    /// Those that are not complete.
    parts: &'a [Part],
    /// Bytes that came of the first of them, and their CRC.
    came: usize,
    crc: u32,
}

impl<'a> Sums<'a> {
    /// Nothing has come of these parts, which lie one behind the other.
    pub fn new(parts: &'a [Part]) -> Self {
        Self { parts, came: 0, crc: 0 }
    }

    /// Takes the bytes that come next. Fails at the first part whose bytes are not what they were,
    /// and at bytes behind the last one.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while let Some((part, rest)) = self.parts.split_first() {
            let stored_bytes = part.stored_bytes as usize;
            let (now, later) = bytes.split_at(bytes.len().min(stored_bytes - self.came));
            self.crc = crc32c_appended(self.crc, now);
            self.came += now.len();
            if self.came < stored_bytes {
                return Ok(());
            }
            if self.crc != part.stored_crc {
                return Err(part.changed(self.crc));
            }
            (self.parts, self.came, self.crc, bytes) = (rest, 0, 0, later);
        }
        if bytes.is_empty() { Ok(()) } else { Err(PackError::Lengths) }
    }
}

/// Reads a whole object: head and parts, the stored bytes of every part checked.
pub fn parse(object: &[u8]) -> Result<(PackHead, Vec<Part>), PackError> {
    let head = PackHead::parse(object)?;
    let footer = Footer::parse(object, object.len() as u64)?;
    let lengths = |_| PackError::Lengths;
    let at = usize::try_from(footer.at).map_err(lengths)?;
    let parts = footer.entries(object, &object[at..])?;
    for part in &parts {
        let from = usize::try_from(part.offset).map_err(lengths)?;
        let computed = crc32c(&object[from..from + part.stored_bytes as usize]);
        if computed != part.stored_crc {
            return Err(part.changed(computed));
        }
    }
    Ok((head, parts))
}

fn field<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPECIFICATION: &str = include_str!("../../docs/pack-format.md");

    fn part(stored: &[u8], original: &[u8], record: u32) -> Part {
        Part {
            offset: 0,
            stored_bytes: u32::try_from(stored.len()).unwrap(),
            original_bytes: u32::try_from(original.len()).unwrap(),
            stored_crc: crc32c(stored),
            original_crc: crc32c(original),
            record,
            codec: 1,
            filter: 2,
            content_type: 3,
            original_hash: [7; 16],
        }
    }

    fn pack(head: &PackHead, values: &[Vec<u8>]) -> (Vec<u8>, Vec<u64>) {
        let mut writer = PackWriter::new(head);
        let add = |(value, n): (&Vec<u8>, u32)| writer.add(&part(value, value, n)).unwrap();
        let offsets = values.iter().zip(0..).map(add).collect();
        let object = [&writer.head()[..], &values.concat(), &writer.footer()].concat();
        (object, offsets)
    }

    fn head() -> PackHead {
        PackHead {
            pack_id: std::array::from_fn(|n| 0xa0 + u8::try_from(n).unwrap()),
            topic_id: [0x8f; 16],
            partition: 5,
            data_key_id: 0,
            written_at_ms: 1_736_035_200_123,
        }
    }

    /// The page's vector: two values, `wild` and `fire`.
    #[test]
    fn the_vector_of_the_specification_is_what_is_written_and_read() {
        let block = SPECIFICATION.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
        let digits: String = block.split_whitespace().collect();
        let pairs = digits.as_bytes().chunks(2);
        let expected: Vec<u8> =
            pairs.map(|p| u8::from_str_radix(str::from_utf8(p).unwrap(), 16).unwrap()).collect();
        let (object, offsets) = pack(&head(), &[b"wild".to_vec(), b"fire".to_vec()]);
        let hex: String = object.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(object, expected, "{hex}");
        assert_eq!(offsets, [64, 68]);
        let (read, parts) = parse(&expected).unwrap();
        assert_eq!(read, head());
        let expected = [part(b"wild", b"wild", 0), part(b"fire", b"fire", 1)];
        let expected = [Part { offset: 64, ..expected[0] }, Part { offset: 68, ..expected[1] }];
        assert_eq!(parts, expected);
    }

    #[test]
    fn an_object_that_is_no_pack_is_told_apart() {
        let (object, _) = pack(&head(), &[vec![1; 10]]);
        let changed = |at: usize, byte: u8| {
            let mut object = object.clone();
            object[at] = byte;
            parse(&object).unwrap_err()
        };
        assert_eq!(changed(0, 0), PackError::Magic);
        assert_eq!(changed(4, 2), PackError::Version(2));
        assert_eq!(changed(5, 1), PackError::Flags);
        assert_eq!(changed(63, 1), PackError::Flags);
        assert_eq!(changed(object.len() - 1, 0), PackError::Magic);
        assert_eq!(changed(object.len() - 12, 9), PackError::Version(9));
        assert_eq!(changed(object.len() - 13, 2), PackError::Lengths);
        assert!(matches!(changed(70, 0), PackError::Part { offset: 64, .. }));
        assert!(matches!(changed(20, 0), PackError::Crc { .. }));
        assert_eq!(parse(&object[..63]), Err(PackError::Short(63)));
        let end = object.last_chunk::<TRAILER_BYTES>().unwrap();
        assert_eq!(Footer::parse(end, 1 << 40), Err(PackError::Lengths));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_back(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            partition: u32, data_key_id: u32, written_at_ms: u64, pack_id: [u8; 16],
        ) {
            let head = PackHead { partition, data_key_id, written_at_ms, pack_id, ..head() };
            let (object, offsets) = pack(&head, &values);
            let (read, parts) = parse(&object).unwrap();
            prop_assert_eq!(read, head);
            prop_assert_eq!(parts.len(), values.len());
            for ((value, part), offset) in values.iter().zip(&parts).zip(offsets) {
                prop_assert_eq!(part.offset, offset);
                let at = usize::try_from(offset).unwrap();
                prop_assert_eq!(&object[at..at + value.len()], &value[..]);
            }
        }

        #[test]
        fn one_changed_byte_is_always_found(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5),
            at: prop::sample::Index, change in 1..=255u8,
        ) {
            let (mut object, _) = pack(&head(), &values);
            let at = at.index(object.len());
            object[at] ^= change;
            prop_assert!(parse(&object).is_err());
        }

        #[test]
        fn bytes_that_come_in_pieces_are_summed_like_the_whole(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..9),
            piece in 1..150usize, at: prop::sample::Index, change: u8,
        ) {
            let mut bytes = values.concat();
            let parts: Vec<_> = values.iter().zip(0..).map(|(v, n)| part(v, v, n)).collect();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= change;
            }
            let mut sums = Sums::new(&parts);
            let sound = bytes.chunks(piece).all(|piece| sums.add(piece).is_ok());
            prop_assert_eq!(sound, change == 0 || bytes.is_empty());
            if sound {
                prop_assert_eq!(sums.add(&[]), Ok(()));
                prop_assert_eq!(sums.add(&[0]), Err(PackError::Lengths));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(
            mut object in prop::collection::vec(any::<u8>(), 0..300), framed: bool, count: u32,
        ) {
            let n = object.len();
            if framed && n >= HEAD_BYTES + TRAILER_BYTES {
                object[..8].copy_from_slice(&[0xFB, b'P', b'A', b'K', 1, 0, 0, 0]);
                object[56..64].fill(0);
                let count = count % 7;
                let at = n.saturating_sub(count as usize * ENTRY_BYTES + TRAILER_BYTES) as u64;
                object[n - 24..n - 16].copy_from_slice(&at.to_be_bytes());
                object[n - 16..n - 12].copy_from_slice(&count.to_be_bytes());
                object[n - 12..n - 8].copy_from_slice(&[1, 0, 0, 0]);
                object[n - 4..].copy_from_slice(&END_MAGIC);
            }
            let _ = parse(&object);
        }
    }
}
