//! Finds the tail of a response that is cut through: reads a stream in pieces of any size.
//!
//! The tail is what stands behind the records: the KIP-951 endpoints and the last tags. Everything
//! before it is skipped by its lengths; records are never looked at.
//! What most answers to Produce look like is told from a whole frame, without a scan.
//! Invariant: no allocation; a piece is consumed up to the last whole value in it, so the caller
//! keeps at most one small value (never records) over to the next piece.

use std::ops::RangeInclusive;

use crate::schema::{Field, Kind, Message};
use crate::wire::{Reader, WireError};

/// Name of the field that opens the tail where it is not a tag.
pub const ENDPOINTS: &str = "NodeEndpoints";

const DEPTH_MAX: usize = 8;

/// Versions of Produce with the layout that is compared here.
const PRODUCE_VERSIONS: RangeInclusive<i16> = 9..=13;
/// First of them with a topic's id in front of its partitions, not its name.
const TOPIC_IDS_SINCE: i16 = 13;
const TOPIC_ID_BYTES: usize = 16;
const THROTTLE_BYTES: usize = 4;
/// A partition of a Produce response: index, error, three offsets and times.
const PARTITION_BYTES: usize = 4 + 2 + 3 * 8;
/// Behind them, in most answers: no errors of records, no message, no tags.
const PARTITION_END: [u8; 3] = [1, 0, 0];

/// Whether a whole flexible Produce response, from its correlation id, is as most are: no errors
/// of records, no message and no tags anywhere, so that its tail names no broker. The short way to
/// what a `Scan` would find; on false or an error nothing is known.
pub fn is_plain_produced(version: i16, frame: &[u8]) -> Result<bool, WireError> {
    let mut read = Reader::new(frame, 4);
    if !PRODUCE_VERSIONS.contains(&version) || read.uvarint()? != 0 {
        return Ok(false);
    }
    for _ in 1..read.uvarint()? {
        let name_bytes = match version {
            ..TOPIC_IDS_SINCE => read.uvarint()?.saturating_sub(1) as usize,
            _ => TOPIC_ID_BYTES,
        };
        read.take(name_bytes)?;
        for _ in 1..read.uvarint()? {
            read.take(PARTITION_BYTES)?;
            if read.take(PARTITION_END.len())? != PARTITION_END {
                return Ok(false);
            }
        }
        if read.uvarint()? != 0 {
            return Ok(false);
        }
    }
    read.take(THROTTLE_BYTES)?;
    Ok(read.take(read.left())? == [0])
}

#[derive(Debug, Clone, Copy)]
enum Level {
    Fields { fields: &'static [Field], next: usize },
    Array { fields: &'static [Field], left: usize },
    Tags { left: u32 },
}

/// Where a scan stands after a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// So many bytes were passed; more are needed.
    More(usize),
    /// The tail starts behind so many bytes of this piece.
    Tail(usize),
}

/// A scan over one response, from behind its length to its tail.
#[derive(Debug, Clone)]
pub struct Scan {
    version: i16,
    flexible: bool,
    /// Bytes of the frame not consumed yet.
    left: usize,
    /// Bytes to pass without reading.
    skip: usize,
    depth: usize,
    levels: [Level; DEPTH_MAX],
}

impl Scan {
    /// Starts at the correlation id of a response frame of `frame_bytes` bytes.
    pub fn new(message: &Message, version: i16, frame_bytes: usize) -> Result<Self, WireError> {
        if version < message.min || version > message.max {
            return Err(WireError::Version { api: message.api, version });
        }
        let flexible = version >= message.flexible;
        let mut levels = [Level::Tags { left: 0 }; DEPTH_MAX];
        levels[0] = Level::Fields { fields: message.fields, next: 0 };
        let mut scan = Self { version, flexible, left: frame_bytes, skip: 4, depth: 1, levels };
        if flexible {
            scan.push(Level::Fields { fields: &[], next: 0 })?;
        }
        Ok(scan)
    }

    /// Bytes of the frame behind those consumed so far.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes the next piece of the frame, which starts with what the last call left over.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Scanned, WireError> {
        let piece = &piece[..piece.len().min(self.left)];
        let mut at = 0;
        loop {
            let skipped = self.skip.min(piece.len() - at);
            at += skipped;
            self.skip -= skipped;
            let frame_left = self.left - at;
            if self.skip > frame_left {
                return Err(WireError::Truncated { at, need: self.skip - frame_left });
            }
            if self.skip > 0 {
                break;
            }
            let mut read = Reader::new(piece, at);
            match self.step(&mut read, frame_left) {
                Ok(true) => {
                    self.left -= at;
                    return Ok(Scanned::Tail(at));
                }
                Ok(false) => at = read.pos(),
                Err(WireError::Truncated { .. }) if piece.len() < self.left => break,
                Err(error) => return Err(error),
            }
        }
        self.left -= at;
        Ok(Scanned::More(at))
    }

    /// One value; true at the tail. On an error the scan is as it was before.
    fn step(&mut self, read: &mut Reader<'_>, frame_left: usize) -> Result<bool, WireError> {
        match self.levels[self.depth - 1] {
            Level::Fields { fields, next } => {
                let from = fields[next..].iter().position(|f| f.in_order(self.version));
                let field = from.map(|n| &fields[next + n]);
                if self.depth == 1 && field.is_none_or(|f| f.name == ENDPOINTS) {
                    return Ok(true);
                }
                match field {
                    Some(field) => {
                        let level = Level::Fields { fields, next: next + from.unwrap_or(0) + 1 };
                        self.field(field, level, read, frame_left)?;
                    }
                    None if self.flexible => {
                        let left = read.uvarint()?;
                        self.levels[self.depth - 1] = Level::Tags { left };
                    }
                    None => self.depth -= 1,
                }
            }
            Level::Array { left: 0, .. } | Level::Tags { left: 0 } => self.depth -= 1,
            Level::Array { fields, left } => {
                self.levels[self.depth - 1] = Level::Array { fields, left: left - 1 };
                self.push(Level::Fields { fields, next: 0 })?;
            }
            Level::Tags { left } => {
                read.uvarint()?;
                let at = read.pos();
                let size = read.uvarint()? as usize;
                self.pass(size, at, frame_left)?;
                self.levels[self.depth - 1] = Level::Tags { left: left - 1 };
            }
        }
        Ok(false)
    }

    fn field(
        &mut self,
        field: &'static Field,
        after: Level,
        read: &mut Reader<'_>,
        frame_left: usize,
    ) -> Result<(), WireError> {
        let depth = self.depth;
        match field.kind {
            Kind::Fixed(n) => self.skip = usize::from(n),
            Kind::Str => self.content(false, 1, read, frame_left)?,
            Kind::Bytes => self.content(true, 1, read, frame_left)?,
            Kind::FixedList(n) => self.content(true, usize::from(n), read, frame_left)?,
            Kind::Struct(fields) => self.push(Level::Fields { fields, next: 0 })?,
            Kind::Array(fields) => {
                let left = self.length(true, read, frame_left)?;
                self.push(Level::Array { fields, left })?;
            }
            Kind::StrList => {
                return Err(WireError::Version { api: -1, version: self.version });
            }
        }
        self.levels[depth - 1] = after;
        Ok(())
    }

    fn content(
        &mut self,
        wide: bool,
        unit: usize,
        read: &mut Reader<'_>,
        frame_left: usize,
    ) -> Result<(), WireError> {
        let at = read.pos();
        let length = self.length(wide, read, frame_left)?;
        self.pass(length.saturating_mul(unit), at, frame_left)
    }

    fn length(
        &self,
        wide: bool,
        read: &mut Reader<'_>,
        frame_left: usize,
    ) -> Result<usize, WireError> {
        let at = read.pos();
        let length = match (self.flexible, wide) {
            (true, _) => i64::from(read.uvarint()?) - 1,
            (false, true) => i64::from(read.i32()?),
            (false, false) => i64::from(read.i16()?),
        };
        match usize::try_from(length) {
            Ok(n) if n <= frame_left => Ok(n),
            Err(_) if length == -1 => Ok(0),
            _ => Err(WireError::Length { at, length, left: frame_left }),
        }
    }

    fn pass(&mut self, n: usize, at: usize, frame_left: usize) -> Result<(), WireError> {
        if n > frame_left {
            let length = i64::try_from(n).unwrap_or(i64::MAX);
            return Err(WireError::Length { at, length, left: frame_left });
        }
        self.skip = n;
        Ok(())
    }

    fn push(&mut self, level: Level) -> Result<(), WireError> {
        if self.depth == DEPTH_MAX {
            return Err(WireError::Version { api: -1, version: self.version });
        }
        self.levels[self.depth] = level;
        self.depth += 1;
        Ok(())
    }
}
