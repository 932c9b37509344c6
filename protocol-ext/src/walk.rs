//! One walker for every message in `schema`: shows marked fields to a visitor and collects edits.
//!
//! bytes -> walk -> visitor(role, value) -> edits -> the same bytes with the edits spliced in.
//! Invariant: without an edit nothing is copied; with edits every byte outside them stays as it
//! was.
//! A walk that ends without an error has checked every length in the message, so it also serves as
//! the guard before a decode by the kafka-protocol crate.

use bytes::{Bytes, BytesMut};

use crate::schema::{Field, Kind, Message, Role};
use crate::wire::{Reader, WireError, put_length, put_uvarint};

/// A marked field's value as the visitor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer or boolean of up to eight bytes.
    Int(i64),
    /// A UUID.
    Uuid([u8; 16]),
    /// A string, bytes or records with their offset in the frame; `None` is null. An array with
    /// the length in front.
    Bytes(Option<&'a [u8]>, usize),
}

impl<'a> Value<'a> {
    /// The integer, or 0 for another type.
    pub fn int(&self) -> i64 {
        if let Value::Int(n) = self { *n } else { 0 }
    }

    /// The bytes, or `None` for null or another type.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        if let Value::Bytes(bytes, _) = self { *bytes } else { None }
    }
}

/// What to put in a field's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replace {
    /// An integer; written in the field's width.
    Int(i64),
    /// New content of a string, bytes or records field; the length is written anew.
    Bytes(Option<Bytes>),
    /// The same in pieces, one after the other.
    Pieces(Vec<Bytes>),
}

/// Sees the marked fields of a message, in wire order.
pub trait Visit {
    /// Called for each field whose role is not `None`; a `Some` replaces the value.
    fn field(&mut self, role: Role, value: Value<'_>) -> Option<Replace>;
}

impl<F: FnMut(Role, Value<'_>) -> Option<Replace>> Visit for F {
    fn field(&mut self, role: Role, value: Value<'_>) -> Option<Replace> {
        self(role, value)
    }
}

/// A visitor that wants nothing: a walk with it only checks lengths.
#[derive(Debug, Clone, Copy)]
pub struct Check;

impl Visit for Check {
    fn field(&mut self, _: Role, _: Value<'_>) -> Option<Replace> {
        None
    }
}

/// A visitor that writes every marked field anew, as it is: what a re-encode by the walker gives.
/// The bytes differ from those walked only where a length was longer than it need be.
#[derive(Debug, Clone, Copy)]
pub struct Same;

impl Visit for Same {
    fn field(&mut self, _: Role, value: Value<'_>) -> Option<Replace> {
        match value {
            Value::Int(n) => Some(Replace::Int(n)),
            Value::Bytes(bytes, _) => Some(Replace::Bytes(bytes.map(Bytes::copy_from_slice))),
            Value::Uuid(_) => None,
        }
    }
}

/// Edits of one message: a peer decides how many fields there are, and each edit takes memory.
pub const EDITS_MAX: usize = 200_000;

#[derive(Debug)]
struct Edit {
    from: usize,
    to: usize,
    with: Bytes,
}

/// The edits of one walk, in wire order.
#[derive(Debug, Default)]
pub struct Edits(Vec<Edit>);

impl Edits {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length of the message once edited.
    pub fn len_after(&self, len: usize) -> usize {
        self.0.iter().fold(len, |len, e| len - (e.to - e.from) + e.with.len())
    }

    /// The edited message as a chain of slices; unchanged parts share `message`'s memory.
    pub fn chain(self, message: &Bytes) -> Vec<Bytes> {
        let mut out = Vec::with_capacity(self.0.len() * 2 + 1);
        let mut at = 0;
        for edit in self.0 {
            if at < edit.from {
                out.push(message.slice(at..edit.from));
            }
            if !edit.with.is_empty() {
                out.push(edit.with);
            }
            at = edit.to;
        }
        if at < message.len() {
            out.push(message.slice(at..));
        }
        out
    }

    /// The edited message in one piece; the same `Bytes` if there is nothing to edit.
    pub fn apply(self, message: &Bytes) -> Bytes {
        if self.is_empty() {
            return message.clone();
        }
        let mut out = BytesMut::with_capacity(self.len_after(message.len()));
        for piece in self.chain(message) {
            out.extend_from_slice(&piece);
        }
        out.freeze()
    }
}

/// Walks the body of `message` in `frame` from byte `at` to the end. Bytes must not be left over
/// behind an answer; those behind a request stay.
pub fn walk(
    message: &Message,
    version: i16,
    frame: &[u8],
    at: usize,
    visit: &mut impl Visit,
) -> Result<Edits, WireError> {
    let mut walker = Walker::new(message, version, frame, at, visit)?;
    walker.whole(message)?;
    Ok(walker.edits)
}

/// Array items and tagged fields of a whole message, which a decode would keep one by one.
pub fn items(message: &Message, version: i16, frame: &[u8], at: usize) -> Result<usize, WireError> {
    let mut check = Check;
    let mut walker = Walker::new(message, version, frame, at, &mut check)?;
    walker.whole(message)?;
    Ok(walker.items)
}

/// Walks only the first fields, up to and including the one called `last`; the rest is not read.
pub fn walk_until(
    message: &Message,
    version: i16,
    frame: &[u8],
    at: usize,
    last: &str,
    visit: &mut impl Visit,
) -> Result<Edits, WireError> {
    let mut walker = Walker::new(message, version, frame, at, visit)?;
    for field in message.fields.iter().filter(|f| f.in_order(version)) {
        walker.field(field)?;
        if field.name == last {
            break;
        }
    }
    Ok(walker.edits)
}

/// Walks the in-order fields of a message that starts at byte 0 and gives the offset behind them.
pub fn walk_prefix(message: &Message, version: i16, frame: &[u8]) -> Result<usize, WireError> {
    let mut check = Check;
    let mut walker = Walker::new(message, version, frame, 0, &mut check)?;
    for field in message.fields.iter().filter(|f| f.in_order(version)) {
        walker.field(field)?;
    }
    Ok(walker.read.pos())
}

struct Walker<'a, 'v, V> {
    read: Reader<'a>,
    frame: &'a [u8],
    version: i16,
    flexible: bool,
    visit: &'v mut V,
    edits: Edits,
    items: usize,
}

impl<'a, 'v, V: Visit> Walker<'a, 'v, V> {
    fn new(
        message: &Message,
        version: i16,
        frame: &'a [u8],
        at: usize,
        visit: &'v mut V,
    ) -> Result<Self, WireError> {
        if version < message.min || version > message.max {
            return Err(WireError::Version { api: message.api, version });
        }
        let flexible = version >= message.flexible;
        let read = Reader::new(frame, at);
        let edits = Edits::default();
        Ok(Self { read, frame, version, flexible, visit, edits, items: 0 })
    }

    fn whole(&mut self, message: &Message) -> Result<(), WireError> {
        self.structure(message.fields)?;
        match self.read.left() {
            0 => Ok(()),
            _ if message.request => Ok(()),
            left => Err(WireError::Trailing { left }),
        }
    }

    fn structure(&mut self, fields: &'static [Field]) -> Result<(), WireError> {
        let version = self.version;
        for field in fields.iter().filter(|f| f.in_order(version)) {
            self.field(field)?;
        }
        if self.flexible { self.tags(fields) } else { Ok(()) }
    }

    fn field(&mut self, field: &'static Field) -> Result<(), WireError> {
        match field.kind {
            Kind::Fixed(n) => self.fixed(field, usize::from(n)),
            Kind::Str => self.content(field, false),
            Kind::Bytes => self.content(field, true),
            Kind::Struct(fields) => self.structure(fields),
            Kind::Array(fields) => {
                let from = self.read.pos();
                let count = self.read.length(self.flexible, true)?.unwrap_or(0);
                self.items += count;
                (0..count).try_for_each(|_| self.structure(fields))?;
                if field.role == Role::None { Ok(()) } else { self.array(field, from) }
            }
            Kind::FixedList(n) => {
                let count = self.read.length(self.flexible, true)?.unwrap_or(0);
                self.read.take(count.saturating_mul(usize::from(n))).map(drop)
            }
            Kind::StrList => {
                let flexible = self.flexible;
                let count = self.read.length(flexible, true)?.unwrap_or(0);
                self.items += count;
                (0..count).try_for_each(|_| self.read.bytes(flexible, false).map(drop))
            }
        }
    }

    fn fixed(&mut self, field: &Field, n: usize) -> Result<(), WireError> {
        let from = self.read.pos();
        let bytes = self.read.take(n)?;
        if field.role == Role::None {
            return Ok(());
        }
        let value = match <[u8; 16]>::try_from(bytes) {
            Ok(uuid) => Value::Uuid(uuid),
            Err(_) => Value::Int(sign_extended(bytes)),
        };
        if let Some(Replace::Int(new)) = self.visit.field(field.role, value) {
            let with = Bytes::copy_from_slice(&new.to_be_bytes()[8 - n.min(8)..]);
            self.edit(Edit { from, to: from + n, with })?;
        }
        Ok(())
    }

    fn content(&mut self, field: &Field, wide: bool) -> Result<(), WireError> {
        let from = self.read.pos();
        let bytes = self.read.bytes(self.flexible, wide)?;
        if field.role == Role::None {
            return Ok(());
        }
        let to = self.read.pos();
        let value = Value::Bytes(bytes, to - bytes.map_or(0, <[u8]>::len));
        let new = match self.visit.field(field.role, value) {
            Some(Replace::Bytes(None)) => None,
            Some(Replace::Bytes(Some(bytes))) => Some(vec![bytes]),
            Some(Replace::Pieces(pieces)) => Some(pieces),
            Some(Replace::Int(_)) | None => return Ok(()),
        };
        let mut length = Vec::with_capacity(5);
        let new_bytes = new.as_ref().map(|pieces| pieces.iter().map(Bytes::len).sum());
        put_length(&mut length, self.flexible, wide, new_bytes);
        let body_at = to - bytes.map_or(0, <[u8]>::len);
        self.edit(Edit { from, to: body_at, with: length.into() })?;
        let mut pieces = new.unwrap_or_default().into_iter();
        let with = pieces.next().unwrap_or_default();
        self.edit(Edit { from: body_at, to, with })?;
        pieces.try_for_each(|with| self.edit(Edit { from: to, to, with }))
    }

    /// Shows a marked array with its length; no field in it is marked.
    fn array(&mut self, field: &Field, from: usize) -> Result<(), WireError> {
        let to = self.read.pos();
        let value = Value::Bytes(Some(&self.frame[from..to]), from);
        match self.visit.field(field.role, value) {
            Some(Replace::Bytes(Some(with))) => self.edit(Edit { from, to, with }),
            _ => Ok(()),
        }
    }

    fn edit(&mut self, edit: Edit) -> Result<(), WireError> {
        if self.edits.0.len() >= EDITS_MAX {
            return Err(WireError::Items { max: EDITS_MAX });
        }
        self.edits.0.push(edit);
        Ok(())
    }

    fn tags(&mut self, fields: &'static [Field]) -> Result<(), WireError> {
        for _ in 0..self.read.uvarint()? {
            self.items += 1;
            let tag = self.read.uvarint()?;
            let size_from = self.read.pos();
            let size = self.read.uvarint()? as usize;
            let from = self.read.pos();
            let known = fields.iter().find(|f| f.tag == Some(tag) && f.since <= self.version);
            self.read.take(size)?;
            if let Some(field) = known {
                self.tag(field, size_from, from, size)?;
            }
        }
        Ok(())
    }

    /// Walks into a tagged field and, if edits change its length, edits its size too.
    fn tag(
        &mut self,
        field: &'static Field,
        size_from: usize,
        from: usize,
        size: usize,
    ) -> Result<(), WireError> {
        let first_edit = self.edits.0.len();
        let rest = std::mem::replace(&mut self.read, Reader::new(&self.frame[..from + size], from));
        self.field(field)?;
        let left = self.read.left();
        if left != 0 {
            return Err(WireError::Trailing { left });
        }
        self.read = rest;
        let inner = &self.edits.0[first_edit..];
        let after = inner.iter().fold(size, |n, e| n - (e.to - e.from) + e.with.len());
        if after != size {
            let mut with = Vec::with_capacity(5);
            put_uvarint(&mut with, u32::try_from(after).unwrap_or(u32::MAX));
            let edit = Edit { from: size_from, to: from, with: with.into() };
            self.edits.0.insert(first_edit, edit);
        }
        Ok(())
    }
}

fn sign_extended(bytes: &[u8]) -> i64 {
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[8 - bytes.len().min(8)..].copy_from_slice(&bytes[..bytes.len().min(8)]);
    i64::from_be_bytes(wide)
}
