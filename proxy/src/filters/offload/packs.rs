//! Values of one batch become packs: encoded, laid out, signed references to each.
//!
//! Pure work on bytes; nothing is stored here. Invariant: a reference says where its part will
//! lie in the object that has the pack's key, byte for byte.

use bytes::Bytes;
use protocol_ext::batch::crc32c;
use protocol_ext::pack::{PackError, PackHead, PackWriter, Part};
use protocol_ext::part::{Policy, hash};
use protocol_ext::records::RecordAt;
use protocol_ext::reference::{REFERENCE_BYTES, Reference};
use protocol_ext::replace::Replacement;

use super::Offload;
use crate::limits::ALONE_BYTES_MIN;
use crate::route::topics::TopicId;
use crate::store::Piece;
use crate::store::cache::PartKey;
use crate::{clock, fault, random};

/// A value to store, and the record it belongs to.
pub type Large = (RecordAt, Bytes);

/// Where the values of a batch belong.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Name that clients use.
    pub topic: &'a str,
    /// Its id.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
}

/// An object to store.
#[derive(Debug)]
pub struct Pack {
    /// Its key.
    pub key: String,
    /// Its bytes, in pieces; the values share the request's memory.
    pub object: Vec<Piece>,
    /// What stands for its values once it is stored.
    pub references: Vec<Replacement<[u8; REFERENCE_BYTES]>>,
    /// Its values by part, each with the number of its format.
    pub values: Vec<(PartKey, Bytes, u8)>,
}

impl Offload {
    /// Lays out the values of one batch: long ones alone, the others together.
    pub(super) fn packs(
        &self,
        place: Place<'_>,
        policy: Policy,
        values: Vec<Large>,
    ) -> Result<Vec<Pack>, PackError> {
        let mut packs = Vec::new();
        let mut together = Vec::new();
        for value in values {
            if value.1.len() >= ALONE_BYTES_MIN {
                packs.push(self.pack(place, policy, vec![value])?);
            } else {
                together.push(value);
            }
        }
        if !together.is_empty() {
            packs.push(self.pack(place, policy, together)?);
        }
        Ok(packs)
    }

    fn pack(
        &self,
        place: Place<'_>,
        policy: Policy,
        values: Vec<Large>,
    ) -> Result<Pack, PackError> {
        let head = PackHead {
            pack_id: random::id(),
            topic_id: place.topic_id,
            partition: place.partition.cast_unsigned(),
            data_key_id: 0,
            written_at_ms: clock::unix_ms(),
        };
        let mut writer = PackWriter::new(&head);
        let mut object = vec![Piece::of(writer.head().to_vec())];
        let mut pack = Pack {
            key: self.key_of(&head.pack_id, &head.topic_id, head.partition),
            object: Vec::new(),
            references: Vec::with_capacity(values.len()),
            values: Vec::with_capacity(values.len()),
        };
        for (record, value) in values {
            let (part, stored) = part(record, &value, policy)?;
            let offset = writer.add(&part)?;
            let reference = reference(&head, &part, offset);
            let signed = self.keys.sign(&reference, &self.binding(place.topic));
            let old_crc = part.original_crc ^ u32::from(fault::on("other-old-crc-known"));
            let signed = Replacement::of(record, signed);
            pack.references.push(Replacement { old_crc: Some(old_crc), ..signed });
            pack.values.push(((head.pack_id, offset), value, part.content_type));
            object.push(Piece { bytes: stored, crc: part.stored_crc });
        }
        object.push(Piece::of(writer.footer()));
        pack.object = object;
        Ok(pack)
    }
}

/// A value's description and its stored bytes.
fn part(record: RecordAt, value: &Bytes, policy: Policy) -> Result<(Part, Bytes), PackError> {
    let encoded = policy.encode(value);
    let original_crc = crc32c(value);
    let (stored, stored_crc) = match encoded.bytes {
        None => (value.clone(), original_crc),
        Some(bytes) => {
            let crc = crc32c(&bytes);
            (Bytes::from(bytes), crc)
        }
    };
    let too_large = |_| PackError::TooLarge;
    let part = Part {
        offset: 0,
        stored_bytes: u32::try_from(stored.len()).map_err(too_large)?,
        original_bytes: u32::try_from(value.len()).map_err(too_large)?,
        stored_crc,
        original_crc,
        record: record.index,
        codec: encoded.codec,
        filter: encoded.filter,
        content_type: encoded.format,
        original_hash: hash(value),
    };
    Ok((part, stored))
}

fn reference(head: &PackHead, part: &Part, offset: u64) -> Reference {
    Reference {
        flags: 0,
        store_alias: 0,
        codec: part.codec,
        filter: part.filter,
        content_type: part.content_type,
        shard: head.pack_id[0],
        written_at_ms: head.written_at_ms,
        stored_bytes: part.stored_bytes,
        original_bytes: part.original_bytes,
        original_crc: part.original_crc,
        pack_offset: offset,
        data_key_id: head.data_key_id,
        partition: head.partition,
        pack_id: head.pack_id,
        topic_id: head.topic_id,
        original_hash: part.original_hash,
    }
}
