//! Frames drawn from our own layouts: every field filled, every version, tags known and unknown.

use super::random::Random;
use super::{Frame, REQUESTS, RESPONSES};
use crate::api;
use crate::schema::{Field, Kind, Message, Role};
use crate::wire::{put_length, put_uvarint};

const SEED: u64 = 951;
const TEXTS: [&str; 6] = ["", "t", "upstream-1.internal", "listeners", "a topic", "0"];

/// `count` frames of every layout and version.
pub fn frames(count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (layouts, request) in [(REQUESTS, true), (RESPONSES, false)] {
        for layout in layouts {
            for version in layout.min..=layout.max {
                frames.extend((0..count).map(|n| frame(layout, version, request, n)));
            }
        }
    }
    frames
}

fn frame(layout: &Message, version: i16, request: bool, n: usize) -> Frame {
    let of = i64::from(layout.api) << 16 | i64::from(version) << 1 | i64::from(request);
    let random = Random::new(SEED.wrapping_add(of.cast_unsigned()), n as u64);
    let flexible = version >= layout.flexible;
    let mut draw = Draw { random, version, flexible, out: Vec::new() };
    if request {
        draw.out.extend_from_slice(&layout.api.to_be_bytes());
        draw.out.extend_from_slice(&version.to_be_bytes());
    }
    draw.out.extend_from_slice(&7_i32.to_be_bytes());
    if request {
        draw.out.extend_from_slice(&[0, 2, b'm', b'e']);
    }
    if flexible {
        draw.out.push(0);
    }
    draw.structure(layout.fields);
    let what = if request { "request" } else { "response" };
    let name = format!("drawn/{}-v{version}-{what}-{n}", api::name(layout.api));
    Frame { name, api: layout.api, version, request, bytes: draw.out.into() }
}

struct Draw {
    random: Random,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

impl Draw {
    fn structure(&mut self, fields: &'static [Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.in_order(version)) {
            self.field(field);
        }
        if self.flexible {
            self.tags(fields);
        }
    }

    fn tags(&mut self, fields: &'static [Field]) {
        let (mut tags, version) = (Vec::new(), self.version);
        for field in fields.iter().filter(|f| f.since <= version && version <= f.until) {
            let Some(tag) = field.tag.filter(|_| self.random.one_in(2)) else { continue };
            let outer = std::mem::take(&mut self.out);
            self.field(field);
            tags.push((tag, std::mem::replace(&mut self.out, outer)));
        }
        if self.random.one_in(3) {
            let size = self.random.below(20);
            tags.push((97, (0..size).map(|_| self.random.byte()).collect()));
        }
        tags.sort_by_key(|(tag, _)| *tag);
        put_uvarint(&mut self.out, u32::try_from(tags.len()).unwrap_or(0));
        for (tag, content) in tags {
            put_uvarint(&mut self.out, tag);
            put_uvarint(&mut self.out, u32::try_from(content.len()).unwrap_or(0));
            self.out.extend_from_slice(&content);
        }
    }

    fn field(&mut self, field: &'static Field) {
        match field.kind {
            Kind::Fixed(n) => self.fixed(field.role, usize::from(n)),
            Kind::Str => {
                let text = *self.random.pick(&TEXTS).unwrap_or(&"");
                self.content(text.as_bytes(), false);
            }
            Kind::Bytes => {
                let size = self.random.below(90);
                let bytes: Vec<u8> = (0..size).map(|_| self.random.byte()).collect();
                self.content(&bytes, true);
            }
            Kind::Struct(fields) => self.structure(fields),
            Kind::Array(fields) => {
                let count = self.random.below(4);
                put_length(&mut self.out, self.flexible, true, Some(count));
                (0..count).for_each(|_| self.structure(fields));
            }
            Kind::FixedList(n) => {
                let count = self.random.below(4);
                put_length(&mut self.out, self.flexible, true, Some(count));
                self.out.extend((0..count * usize::from(n)).map(|_| self.random.byte()));
            }
            Kind::StrList => {
                let count = self.random.below(4);
                put_length(&mut self.out, self.flexible, true, Some(count));
                (0..count).for_each(|_| self.content(b"s", false));
            }
        }
    }

    /// Integers are small and sometimes 1, so that booleans are booleans and partitions exist.
    fn fixed(&mut self, role: Role, n: usize) {
        if n == 16 {
            self.out.extend((0..n).map(|_| self.random.byte()));
            return;
        }
        self.out.extend(std::iter::repeat_n(0, n - 1));
        let last = match role {
            Role::ResourceType => 4,
            Role::Port => self.random.byte(),
            _ => self.random.byte() % 3,
        };
        self.out.push(last);
    }

    fn content(&mut self, bytes: &[u8], wide: bool) {
        put_length(&mut self.out, self.flexible, wide, Some(bytes.len()));
        self.out.extend_from_slice(bytes);
    }
}
