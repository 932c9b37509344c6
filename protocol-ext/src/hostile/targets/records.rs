//! Readers of records: batches, rewriter, split, codecs, references.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Checked, Verdict, batch, codec, ensure, record};
use crate::batch::{
    BatchHeader, Batches, CRC, CRC_FROM, Caps, Entry, OpenBatch, crc32c, verify_crc,
};
use crate::codec::{Codec, compress, decompress};
use crate::hostile::random::Random;
use crate::lost::Lost;
use crate::reference::{Binding, KeyRing, MacKey, REFERENCE_BYTES, Reference, ReferenceError};
use crate::replace::{Replacement, RewriteError, RewriteOptions, Rewritten, replace_values};
use crate::resend::{Resent, resend};
use crate::split::{ProducerFields, SplitError, SplitOptions, split, with_producer};

/// Bounds of a batch: small, so that reaching them is common.
pub const CAPS: Caps = Caps { body_bytes_max: 192 * 1024, rewritten_bytes_max: 256 * 1024 };

/// Gives the first batch of a section a true length (if it is alone) and a true CRC.
pub fn mended(section: &[u8], length_too: bool) -> Bytes {
    let mut bytes = section.to_vec();
    if let Some(length) = bytes.len().checked_sub(crate::batch::LOG_OVERHEAD)
        && length_too
    {
        bytes[8..12].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_be_bytes());
    }
    let end = match Batches::new(&bytes).next() {
        Some(Ok(Entry::Batch { range, .. })) => range.end,
        _ => return bytes.into(),
    };
    let crc = crc32c(&bytes[CRC_FROM..end]);
    bytes[CRC].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// The first batch of a section, or why there is none.
fn first(section: &Bytes) -> Result<Bytes, Verdict> {
    match Batches::new(section).next() {
        Some(Ok(Entry::Batch { range, .. })) => Ok(section.slice(range)),
        Some(Ok(Entry::Legacy { .. })) => Err(Verdict::Refused("legacy")),
        Some(Ok(Entry::Partial { .. })) => Err(Verdict::Refused("partial")),
        Some(Err(error)) => Err(batch(&error)),
        None => Err(Verdict::Refused("empty")),
    }
}

/// The way over a section and into each of its batches.
pub fn batches(section: &Bytes, _: &mut Random) -> Checked {
    let (mut end, mut verdict) = (0, Verdict::Taken);
    for entry in Batches::new(section) {
        let range = match &entry {
            Ok(Entry::Batch { range, .. }) => range.clone(),
            Ok(Entry::Legacy { range } | Entry::Partial { range }) => {
                verdict = Verdict::Refused("legacy or partial");
                range.clone()
            }
            Err(error) => return Ok(batch(error)),
        };
        ensure(range.start == end && range.end <= section.len(), "entries with a gap")?;
        ensure(!range.is_empty(), "an empty entry")?;
        end = range.end;
        if let Ok(Entry::Batch { range, header }) = entry {
            let refused = walked(section.slice(range), header)?;
            verdict = if refused == Verdict::Taken { verdict } else { refused };
        }
    }
    ensure(end == section.len(), "entries that end before the section")?;
    Ok(verdict)
}

fn walked(bytes: Bytes, header: BatchHeader) -> Checked {
    let open = match OpenBatch::open(bytes, &CAPS) {
        Ok(open) => open,
        Err(error) => return Ok(batch(&error)),
    };
    ensure(*open.header() == header, "two readings of one head")?;
    ensure(open.body().len() <= CAPS.body_bytes_max, "a body beyond its cap")?;
    let mut count = 0;
    for read in open.records() {
        let read = match read {
            Ok(read) => read,
            Err(error) => return Ok(record(&error)),
        };
        count += 1;
        let value = open.slice(read.value_range()).ok_or("a value outside its batch")?;
        ensure(value == read.value.unwrap_or_default(), "a value that is not where it says")?;
        for header in read.headers() {
            if let Err(error) = header {
                return Ok(record(&error));
            }
        }
    }
    ensure(i64::from(header.records_count) == count, "another count than the head's")?;
    Ok(Verdict::Taken)
}

/// Nothing replaced, and every value replaced.
pub fn rewrite(section: &Bytes, random: &mut Random) -> Checked {
    let raw = match first(section) {
        Ok(raw) => raw,
        Err(verdict) => return Ok(verdict),
    };
    let keep = RewriteOptions::default();
    match replace_values(&raw, &CAPS, &keep, |_| None::<Bytes>) {
        Ok(Rewritten::Same(same)) => ensure(same.as_ptr() == raw.as_ptr(), "a no-op that copied")?,
        Ok(Rewritten::New(_)) => return Err("a no-op that made a batch".to_owned()),
        Err(error) => return Ok(rewriting(&error)),
    }
    let codecs = [None, None, Some(Codec::None), Some(Codec::Lz4), Some(Codec::Snappy)];
    let options = RewriteOptions { codec: codecs[random.below(codecs.len())] };
    let sound = verify_crc(&raw).is_ok();
    let long = random.below(300);
    let value = move |n: u32| vec![b'v'; long + n as usize % 7];
    match replace_values(&raw, &CAPS, &options, |record| Some(value(record.at.index))) {
        Ok(Rewritten::Same(_)) => Ok(Verdict::Taken),
        Ok(Rewritten::New(new)) => {
            ensure(sound, "a batch whose CRC does not fit was made anew")?;
            replaced(&raw, &new, value)?;
            Ok(Verdict::Taken)
        }
        Err(error) => Ok(rewriting(&error)),
    }
}

fn replaced(old: &Bytes, new: &Bytes, value: impl Fn(u32) -> Vec<u8>) -> Result<(), String> {
    verify_crc(new).map_err(|error| format!("a new batch: {error}"))?;
    let open = |bytes: &Bytes| OpenBatch::open(bytes.clone(), &WIDE).map_err(|e| e.to_string());
    let (old, new) = (open(old)?, open(new)?);
    let mut after = new.records();
    for before in old.records() {
        let before = before.map_err(|error| error.to_string())?;
        let after = after.next().ok_or("a record is gone")?.map_err(|error| error.to_string())?;
        let same = (before.attributes, before.timestamp_delta, before.offset_delta)
            == (after.attributes, after.timestamp_delta, after.offset_delta)
            && (before.key, before.headers_raw) == (after.key, after.headers_raw);
        ensure(same, "more than a value changed")?;
        ensure(after.value == Some(&value(before.at.index)), "a value was not replaced")?;
    }
    ensure(after.next().is_none(), "a record more than before")?;
    let (old, new) = (*old.header(), *new.header());
    let attributes = old.attributes & !7 | new.attributes & 7;
    let (batch_length, crc) = (new.batch_length, new.crc);
    ensure(new == BatchHeader { attributes, batch_length, crc, ..old }, "the head changed")
}

/// Some values lost: the batch stays readable, with its offsets; and the same records as a producer
/// would send them.
pub fn lost(section: &Bytes, random: &mut Random) -> Checked {
    let raw = match first(section) {
        Ok(raw) => raw,
        Err(verdict) => return Ok(verdict),
    };
    let open = match OpenBatch::open(raw, &CAPS) {
        Ok(open) => open,
        Err(error) => return Ok(batch(&error)),
    };
    let all: Vec<_> = open.records().filter_map(Result::ok).map(|record| record.at).collect();
    let gone: Vec<_> = all.iter().filter(|_| random.below(2) == 0).collect();
    let values: Vec<_> = gone.iter().map(|at| Replacement::of(**at, Err(7))).collect();
    let how = if random.below(2) == 0 { Lost::LeftOut } else { Lost::Marked };
    let new = match open.rewrite_without(&values, how, WIDE.rewritten_bytes_max) {
        Ok(new) => new,
        Err(error) => return Ok(rewriting(&error)),
    };
    verify_crc(&new).map_err(|error| format!("with values lost: {error}"))?;
    let new = OpenBatch::open(new, &WIDE).map_err(|error| error.to_string())?;
    let (before, after) = (open.header(), new.header());
    let place = |head: &BatchHeader| (head.base_offset, head.last_offset_delta);
    ensure(place(before) == place(after), "offsets moved")?;
    let left = if how == Lost::LeftOut { all.len() - gone.len() } else { all.len() };
    ensure(new.records().filter_map(Result::ok).count() == left, "another number of records")?;
    let resent = all.iter().map(|at| Resent { source: &open, at: *at, value: None });
    let resent: Vec<_> = resent.collect();
    let producer = ProducerFields { id: 5, epoch: 6, base_sequence: 7 };
    let sent = match resend(&resent, producer) {
        Ok(sent) => OpenBatch::open(sent, &WIDE).map_err(|error| error.to_string())?,
        Err(_) if all.is_empty() => return Ok(Verdict::Taken),
        Err(error) => return Err(format!("not sent again: {error}")),
    };
    for (before, after) in open.records().zip(sent.records()) {
        let (before, after) =
            (before.map_err(|e| e.to_string())?, after.map_err(|e| e.to_string())?);
        let same = (before.key, before.value, before.headers_raw)
            == (after.key, after.value, after.headers_raw);
        ensure(same, "a record that was sent again differs")?;
    }
    Ok(Verdict::Taken)
}

/// What was made under `CAPS` may be read with a little more.
const WIDE: Caps = Caps { body_bytes_max: 512 * 1024, rewritten_bytes_max: 512 * 1024 };

fn rewriting(error: &RewriteError) -> Verdict {
    match error {
        RewriteError::Batch(error) => batch(error),
        RewriteError::Record(error) => record(error),
        RewriteError::Replacement(_) => Verdict::Refused("replacement"),
        RewriteError::Control => Verdict::Refused("control"),
        RewriteError::TooLarge { .. } => Verdict::Refused("too large"),
    }
}

/// Split by the first byte of the key, and put together again.
pub fn split_by_key(section: &Bytes, _: &mut Random) -> Checked {
    let raw = match first(section) {
        Ok(raw) => raw,
        Err(verdict) => return Ok(verdict),
    };
    let open = match OpenBatch::open(raw, &CAPS) {
        Ok(open) => open,
        Err(error) => return Ok(batch(&error)),
    };
    let slot = |key: Option<&[u8]>| key.and_then(|key| key.last()).map_or(0, |byte| byte % 3);
    let parts = match split(&open, &SplitOptions::default(), |record| slot(record.key)) {
        Ok(parts) => parts,
        Err(SplitError::Batch(error)) => return Ok(batch(&error)),
        Err(SplitError::Record(error)) => return Ok(record(&error)),
        Err(SplitError::Offsets { .. }) => return Ok(Verdict::Refused("offsets")),
        Err(SplitError::NotFromProducer) => return Ok(Verdict::Refused("not from a producer")),
    };
    for part in &parts {
        let batch = part.batch.joined();
        verify_crc(&batch).map_err(|error| format!("a part: {error}"))?;
        let made = OpenBatch::open(batch, &WIDE).map_err(|e| e.to_string())?;
        let mut made = made.records().map(|record| {
            record.map(|r| (r.key, r.value, r.timestamp_delta, r.headers_raw.to_vec()))
        });
        for before in open.records().filter_map(Result::ok) {
            if slot(before.key) != part.slot {
                continue;
            }
            let kept = (before.key, before.value, before.timestamp_delta);
            let kept = (kept.0, kept.1, kept.2, before.headers_raw.to_vec());
            ensure(made.next() == Some(Ok(kept)), "a record of a part differs")?;
        }
        ensure(made.next().is_none(), "a part has a record too many")?;
    }
    Ok(Verdict::Taken)
}

/// Other producer fields.
pub fn producer(section: &Bytes, _: &mut Random) -> Checked {
    let raw = match first(section) {
        Ok(raw) => raw,
        Err(verdict) => return Ok(verdict),
    };
    match with_producer(&raw, ProducerFields { id: 5, epoch: 6, base_sequence: 7 }) {
        Ok(new) => {
            verify_crc(&new).map_err(|error| format!("with another producer: {error}"))?;
            ensure(new.len() == raw.len(), "another length")?;
            Ok(Verdict::Taken)
        }
        Err(error) => Ok(batch(&error)),
    }
}

/// Decompresses under a cap; what was taken is compressed and read again.
pub fn unpack(kind: Codec, packed: &Bytes) -> Checked {
    let bytes_max = CAPS.body_bytes_max;
    let mut out = Vec::new();
    let framing = decompress(kind, packed, bytes_max, &mut out);
    ensure(out.capacity() <= bytes_max, "room beyond the cap")?;
    let framing = match framing {
        Ok(framing) => framing,
        Err(error) => return Ok(codec(&error)),
    };
    ensure(out.len() <= bytes_max, "bytes beyond the cap")?;
    let (mut again, mut back) = (Vec::new(), Vec::new());
    compress(kind, framing, &out, &mut again).map_err(|error| error.to_string())?;
    decompress(kind, &again, bytes_max, &mut back).map_err(|error| format!("again: {error}"))?;
    ensure(back == out, "compressed and read again it differs")?;
    Ok(Verdict::Taken)
}

/// A reference whose bytes were changed (or not) under the key it was signed with.
pub fn reference(value: &[u8], changed: bool) -> Checked {
    let ring = ring()?;
    // Only a panic would be a failure.
    let _ = Reference::parse_unverified(value);
    match ring.open(value, &BINDING) {
        Ok(_) if changed => Err("a changed reference was taken".to_owned()),
        Ok(_) => Ok(Verdict::Taken),
        Err(_) if !changed => Err("a true reference was refused".to_owned()),
        Err(error) => Ok(Verdict::Refused(match error {
            ReferenceError::NotAReference => "not a reference",
            ReferenceError::UnknownVersion(_) => "reference version",
            ReferenceError::WrongLength(_) => "reference length",
            ReferenceError::UnknownFlags(_) => "reference flags",
            ReferenceError::UnknownKey(_) => "reference key",
            ReferenceError::BadMac => "reference signature",
        })),
    }
}

const BINDING: Binding<'static> = Binding { topic: "t", tenant: "" };

fn ring() -> Result<KeyRing, String> {
    let key = MacKey::new(&Sha256::digest(b"a key for tests")).map_err(|e| e.to_string())?;
    KeyRing::new(key, None).map_err(|error| error.to_string())
}

/// A true reference to mutate.
pub fn signed() -> Result<[u8; REFERENCE_BYTES], String> {
    let reference = Reference {
        flags: 0,
        store_alias: 1,
        codec: 2,
        filter: 3,
        content_type: 4,
        shard: 5,
        written_at_ms: 1_700_000_000_000,
        stored_bytes: 1000,
        original_bytes: 2000,
        original_crc: 3000,
        pack_offset: 0,
        data_key_id: 0,
        partition: 0,
        pack_id: [7; 16],
        topic_id: [8; 16],
        original_hash: [9; 16],
    };
    Ok(ring()?.sign(&reference, &BINDING))
}
